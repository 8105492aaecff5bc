"""How often the gate cries wolf, and how often it sees a real slowdown.

    python -m harness.testing.gate_rates MODEL.gguf [--same 40] [--slowed 20] [--tokens 16] [--json]

Real decoding on the real engine. A gate compares two builds of the same model in turns; in an A/A gate both are the
same, in the others the candidate is really slowed: after each token it works on for a share of that token's time. The
same runs are judged by the rule of ``pytest-benchmark --benchmark-compare-fail=mean:5%`` (fail when the candidate's
mean time is more than 5 % above the baseline's; its first six runs against the baseline's first six).
"""

import json
import time
from pathlib import Path
from statistics import fmean

import click

from harness.backends.llamacpp.session import LlamaSession
from harness.domain.budget import Budget
from harness.domain.record import RunRecord, Sample
from harness.domain.scenario import Scenario
from harness.gates.live import LOOKS, gate_in_turns
from harness.measure.machine import fingerprint
from harness.measure.runner import identify, new_record
from harness.records.metrics import metric_values

SLOWDOWNS = (0.05, 0.10, 0.20)
BUDGET = Budget(metric="decode_tokens_per_s", baseline_ratio=0.97)
COMPARE_FAIL_RATIO = 1.05
"""The peer's rule: a mean time above this multiple of the baseline's fails."""


class Side:
    """One build: a session that decodes ``token_count`` tokens a sample, slowed by a share of each token's time."""

    def __init__(self, session: LlamaSession, path: Path, slowdown: float, token_count: int) -> None:
        self.session, self.slowdown, self.token_count = session, slowdown, token_count
        self.machine, self.model = fingerprint(), identify(path, None)

    def __call__(self) -> RunRecord:
        """One run: two samples after a warm-up token."""
        self.session.clear()
        self.session.decode([1], position=0)
        samples = tuple(self._sample(1 + n * self.token_count) for n in range(2))
        return new_record(
            scenario=Scenario(),
            workload="generate",
            outcome="ok",
            machine=self.machine,
            model=self.model,
            samples=samples,
        )

    def _sample(self, position: int) -> Sample:
        began, start = time.time(), time.perf_counter()
        for offset in range(self.token_count):
            token_start = time.perf_counter()
            self.session.decode([1 + offset], position=position + offset)
            until = token_start + (time.perf_counter() - token_start) * (1.0 + self.slowdown)
            while time.perf_counter() < until:
                pass
        return Sample(
            phase="decode",
            label=f"tg{self.token_count}",
            token_count=self.token_count,
            duration_s=time.perf_counter() - start,
            started_unix_s=began,
        )


def _mean_s(records: list[RunRecord]) -> float:
    return fmean(1.0 / rate for r in records[: LOOKS[0]] for rate in metric_values(r, "decode_tokens_per_s"))


def measure(path: Path, slowdown: float, gate_count: int, token_count: int) -> dict[str, object]:
    """Answers of ``gate_count`` gates at one slowdown, ours and the peer's."""
    ours = {"pass": 0, "fail": 0, "inconclusive": 0}
    peer, turns = 0, []
    with LlamaSession(path, Scenario(context_tokens=256), output_tokens=1) as session:
        base, candidate = Side(session, path, 0.0, token_count), Side(session, path, slowdown, token_count)
        for number in range(gate_count):
            (judgement,), new, old = gate_in_turns([BUDGET], candidate, base)
            ours[judgement.answer] = ours.get(judgement.answer, 0) + 1
            turns.append(len(new))
            peer += _mean_s(new) > COMPARE_FAIL_RATIO * _mean_s(old)
            click.echo(f"{slowdown:.0%} {number + 1}/{gate_count}: {judgement.answer} after {len(new)} turns", err=True)
    return {"slowdown": slowdown, "gates": gate_count, "ours": ours, "peer_fails": peer, "mean_turns": fmean(turns)}


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--same", default=40, show_default=True, help="A/A gates.")
@click.option("--slowed", default=20, show_default=True, help="Gates for each slowdown.")
@click.option("--tokens", default=16, show_default=True, help="Tokens of a sample.")
@click.option("--json", "as_json", is_flag=True)
def main(model: Path, same: int, slowed: int, tokens: int, as_json: bool) -> None:
    """Measure false alarms and detection of the gate on MODEL."""
    rows = [measure(model, 0.0, same, tokens), *(measure(model, s, slowed, tokens) for s in SLOWDOWNS)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo("slowdown  gates  ours: pass fail inconclusive  mean turns  compare-fail=mean:5% fails")
    for row in rows:
        ours = row["ours"]
        assert isinstance(ours, dict)
        click.echo(
            f"{row['slowdown']:>8.0%}  {row['gates']:>5}  {ours['pass']:>10} {ours['fail']:>4} "
            f"{ours['inconclusive']:>12}  {row['mean_turns']:>10.1f}  {row['peer_fails']:>27}"
        )


if __name__ == "__main__":
    main()
