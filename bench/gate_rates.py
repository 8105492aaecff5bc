"""How often the gate cries wolf, and how often it sees a real slowdown, beside two peers on the same runs.

    python -m bench gate_rates MODEL.gguf --record reports/gates/quiet.json      # 40 gates alike, 20 for each slowdown
    python -m bench gate_rates MODEL.gguf --record reports/gates/neighbour.json --neighbour 0.5     # half a core used

Real decoding on the real engine. A gate compares two builds of the same model in turns; in an A/A gate both are the
same, in the others the candidate is really slower: after each token it works on for a share of that token's time, it
has one thread where the baseline has all, or its prompts are handed over in small pieces. What was measured is appended
gate by gate beside the record (``.jsonl``), so that a campaign goes on where it stopped: it measures for at most
``--seconds``. The record is the table that the documents show, of the gates that there are.

The peers judge the same runs: ``pytest-benchmark --benchmark-compare-fail=mean:5%`` (the real plug-in, replaying the
recorded times through its own timer; it asks for no more runs, so it gets the first six) and, where its program is
given, ``inference-doctor compare-runs`` with our limit as its threshold (it gets all the runs that our gate asked for).
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Final, NamedTuple

import click

from bench._kept import write
from bench.gate_peers import PYTEST_LIMIT, Runs, doctor_answer, pytest_benchmark_fails
from bench.renderers import json_table
from harness.core.budget import Budget
from harness.core.record import Record, Sample
from harness.core.scenario import Scenario
from harness.gates.live import gate_in_turns
from harness.measure.machine import cpu, fingerprint
from harness.measure.runner import identify, new_record
from harness.measure.validity import ValidityProbe
from harness.runtimes.llamacpp.session import LlamaSession

_PROMPT_TOKENS: Final = 128


class Planted(NamedTuple):
    """What is done to a candidate.

    Attributes:
        slowdown: Share of each token's time that it works on for.
        thread_count: 0: as the baseline.
        piece_tokens: Its prompts are handed over in pieces of so many tokens; 0: it decodes, and has no prompt.
    """

    slowdown: float = 0.0
    thread_count: int = 0
    piece_tokens: int = 0


SAME: Final = "none"
KINDS: Final[dict[str, Planted]] = {
    SAME: Planted(),
    "5%": Planted(slowdown=0.05),
    "10%": Planted(slowdown=0.10),
    "20%": Planted(slowdown=0.20),
    "one thread": Planted(thread_count=1),
    "prompts: none": Planted(piece_tokens=_PROMPT_TOKENS),
    "prompts in pieces of 16": Planted(piece_tokens=16),
}
BUDGET: Final = Budget(metric="itl_p50_s", baseline_ratio=1.03)
"""The median time of a token: on a machine shared with others it varies half as much as the mean does."""
PROMPT_BUDGET: Final = Budget(metric="prefill_tokens_per_s", baseline_ratio=0.97)
_NEIGHBOUR: Final = """
import os, select, sys, time
if os.fork():
    os._exit(0)
if os.path.exists("/proc/self/comm"):
    open("/proc/self/comm", "w").write("neighbour")
busy_s, idle_s = map(float, sys.argv[1:])
ended = False
while not ended:
    end = time.perf_counter() + busy_s
    while time.perf_counter() < end:
        pass
    ended = select.select([0], [], [], idle_s)[0]
"""


class Side:
    """One build: a session that takes a prompt, or decodes ``token_count`` tokens, a sample; slowed as was planted."""

    def __init__(self, session: LlamaSession, path: Path, planted: Planted, token_count: int) -> None:
        self.session, self.planted, self.token_count = session, planted, token_count
        self.machine, self.model = fingerprint(), identify(path, None)

    def __call__(self) -> Record:
        """One run: a warm-up token, then the sample, each token timed."""
        self.session.clear()
        self.session.decode([1], position=0)
        return new_record(
            scenario=Scenario(),
            workload="generate",
            outcome="ok",
            machine=self.machine,
            model=self.model,
            samples=(self._sample(1),),
        )

    def _sample(self, position: int) -> Sample:
        piece = self.planted.piece_tokens or 1
        count = _PROMPT_TOKENS if self.planted.piece_tokens else self.token_count
        probe = ValidityProbe()
        probe.start()
        began, start = time.time(), time.perf_counter()
        times = []
        for offset in range(0, count, piece):
            piece_start = time.perf_counter()
            self.session.decode([1 + offset + n for n in range(piece)], position=position + offset)
            until = piece_start + (time.perf_counter() - piece_start) * (1.0 + self.planted.slowdown)
            while time.perf_counter() < until:
                pass
            times.append((time.perf_counter() - piece_start) / piece)
        return Sample(
            phase="prefill" if self.planted.piece_tokens else "decode",
            label=f"{'pp' if self.planted.piece_tokens else 'tg'}{count}",
            token_count=count,
            duration_s=time.perf_counter() - start,
            started_unix_s=began,
            token_times_s=tuple(times),
            validity=probe.finish(),
        )


class Gate(NamedTuple):
    """One gate: its number, what was planted, our answer, what it saw, and the times of a token of each run.

    ``disturbed_count`` of the runs were marked as disturbed.
    """

    number: int
    kind: str
    answer: str
    ratio: float | None
    detectable: float | None
    disturbed_count: int
    candidate_s: list[list[float]]
    baseline_s: list[list[float]]


def schedule(same: int, slowed: int) -> list[str]:
    """Kind of each gate, mixed by a fixed seed, so that no phase of the machine falls on one kind alone."""
    kinds = [SAME] * same + [kind for kind in KINDS if kind != SAME for _ in range(slowed)]
    Random(1).shuffle(kinds)
    return kinds


def measure(
    path: Path, kinds: list[str], done: int, token_count: int, max_turns: int, until_s: float
) -> Iterator[Gate]:
    """Run the gates from number ``done`` on, until all are done or the clock passes ``until_s``."""
    with ExitStack() as open_sessions:
        sessions = {
            threads: open_sessions.enter_context(
                LlamaSession(path, Scenario(context_tokens=256, thread_count=threads), output_tokens=1)
            )
            for threads in sorted({planted.thread_count for planted in KINDS.values()})
        }
        for number in range(done, len(kinds)):
            if time.monotonic() > until_s:
                return
            planted = KINDS[kinds[number]]
            plain = Planted(piece_tokens=_PROMPT_TOKENS if planted.piece_tokens else 0)
            candidate = Side(sessions[planted.thread_count], path, planted, token_count)
            base = Side(sessions[0], path, plain, token_count)
            budget = PROMPT_BUDGET if planted.piece_tokens else BUDGET
            (judged,), new, old = gate_in_turns([budget], candidate, base, max_turns=max_turns)
            samples = [[s for record in side for s in record.samples] for side in (new, old)]
            disturbed_count = sum(bool(s.validity.doubts) for side in samples for s in side)
            seen = (judged.answer, judged.value, judged.detectable_ratio, disturbed_count)
            yield Gate(number, kinds[number], *seen, *([list(s.token_times_s) for s in side] for side in samples))


@contextmanager
def neighbour(share: float) -> Iterator[None]:
    """Another process that computes for ``share`` of each twentieth of a second and sleeps for the rest.

    It leaves its parent: what descends from a measured process counts as its own work, and disturbs nothing.
    """
    if not share:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", _NEIGHBOUR, str(0.05 * share), str(0.05 * (1 - share))],
                               stdin=subprocess.PIPE)  # fmt: skip
    process.wait()
    assert process.stdin is not None
    with process.stdin:  # it ends when this closes, however this process ends
        yield


def rates(gates: list[Gate], doctor: str | None) -> tuple[list[str], list[list[str]]]:
    """Columns, and one row for each kind: our answers, and the peers' on the same runs."""
    columns = [
        "slowdown",
        "gates",
        "passed",
        "failed",
        "inconclusive",
        "mean turns",
        "runs disturbed",
        f"pytest-benchmark {PYTEST_LIMIT} fails",
    ]
    columns += ["inference-doctor: passed, failed, inconclusive"] if doctor else []
    rows = []
    for kind in KINDS:
        mine = [g for g in gates if g.kind == kind]
        runs = [Runs(_means(g.baseline_s), _means(g.candidate_s)) for g in mine]
        turns = sum(len(g.candidate_s) for g in mine) / max(1, len(mine))
        disturbed_ratio = sum(g.disturbed_count for g in mine) / max(1, 2 * sum(len(g.candidate_s) for g in mine))
        row = [kind, len(mine), *_count([g.answer for g in mine])]
        row += [f"{turns:.1f}", f"{disturbed_ratio:.0%}", sum(map(pytest_benchmark_fails, runs))]
        if doctor:
            threshold = (BUDGET.baseline_ratio or 1.0) - 1.0
            row.append(", ".join(map(str, _count([doctor_answer(r, doctor, threshold) for r in runs]))))
        rows.append([str(cell) for cell in row])
    return columns, rows


def _means(runs: list[list[float]]) -> list[float]:
    """Mean seconds a token of each run: what the peers are given."""
    return [fmean(times) for times in runs]


def _count(answers: list[str]) -> list[int]:
    return [answers.count(name) for name in ("pass", "fail", "inconclusive")]


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--record", type=click.Path(path_type=Path), required=True, help="JSON file for the table.")
@click.option("--same", default=40, show_default=True, help="A/A gates.")
@click.option("--slowed", default=20, show_default=True, help="Gates for each slowdown.")
@click.option("--tokens", default=48, show_default=True, help="Tokens of a sample.")
@click.option("--max-turns", default=16, show_default=True, help="Turns after which a gate is inconclusive.")
@click.option("--seconds", default=1020.0, show_default=True, help="Measure for so long; the next call goes on.")
@click.option(
    "--neighbour", "share", type=click.FloatRange(0, 1), default=0.0, help="Share of a core that another process uses."
)
@click.option("--doctor", help="The program inference-doctor, in an environment of its own.")
def main(
    model: Path,
    record: Path,
    same: int,
    slowed: int,
    tokens: int,
    max_turns: int,
    seconds: float,
    share: float,
    doctor: str | None,
) -> None:
    """Measure false alarms and detection of the gate on MODEL, and write the table."""
    kinds, samples = schedule(same, slowed), record.with_suffix(".jsonl")
    record.parent.mkdir(parents=True, exist_ok=True)
    gates = [Gate(**json.loads(line)) for line in samples.read_text().splitlines()] if samples.exists() else []
    until_s = time.monotonic() + seconds
    with neighbour(share), samples.open("a") as file:
        for gate in measure(model, kinds, len(gates), tokens, max_turns, until_s):
            gates.append(gate)
            file.write(json.dumps(gate._asdict()) + "\n")
            file.flush()
            click.echo(
                f"{len(gates)}/{len(kinds)} slowed by {gate.kind}: {gate.answer} ({gate.ratio}) "
                f"after {len(gate.candidate_s)} turns",
                err=True,
            )
    columns, rows = rates(gates, doctor)
    beside = f" --neighbour {share:g}" if share else ""
    command = f"python -m bench gate_rates {model.name} --max-turns {max_turns}{beside}"
    machine = f"{cpu().model}, {cpu().thread_count} threads used"
    write(record, command, {"columns": columns, "rows": rows}, machine)
    click.echo(json_table(record))
    if len(gates) < len(kinds):
        click.echo(f"{len(gates)} of {len(kinds)} gates measured; call again to go on", err=True)


if __name__ == "__main__":
    main()
