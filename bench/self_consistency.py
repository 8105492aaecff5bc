"""What self-consistency costs, and what it takes to make it cheap, on a real model.

    python -m bench.self_consistency MODEL.gguf [--rounds 5] [--questions 96] [--only speed] [--json]

``speed``: eight samples of 24 tokens after a prompt of 131, drawn in one batch, on a kept prefix and by separate calls,
in turns; the ratios are medians over the turns, and samples that differ are counted. ``votes``: the made-up facts of
``grounding_qa``, all eight samples beside a vote that ends early: tokens saved, accuracy with its paired interval.
``oracle``: risk-coverage and its area against a count over all pairs of rows.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from bench.best_of_n import paired_interval
from harness.domain.scenario import Scenario
from harness.ports import Session, WorkloadContext
from harness.runtimes.llamacpp.session import LlamaSession
from harness.stats.calibration.selective import aurc, risk_coverage
from harness.workloads._language.generate import Branches, Plan, Sample, in_one_batch
from harness.workloads.grounding_qa.answering import WAVES, Grounded, fill_store, judge
from harness.workloads.grounding_qa.facts import facts, questions
from harness.workloads.grounding_qa.sets import report

SAMPLES, PROMPT_TOKENS, NEW_TOKENS = 8, 131, 24
_PROMPT = "The old mill by the river was designed by a young engineer who had come to the town in the spring. "


def with_kept_prefix(session: Session, prompt: Sequence[int], sample_count: int, plan: Plan) -> list[Sample]:
    """One sample after another, the prompt read once: what a server's prefix cache gives."""
    branches = Branches(session, prompt)
    return [branches.draw([number], plan)[0] for number in range(sample_count)]


def by_separate_calls(session: Session, prompt: Sequence[int], sample_count: int, plan: Plan) -> list[Sample]:
    """One sample after another, each reading the prompt anew: ``sample_count`` independent calls."""
    return [Branches(session, prompt).draw([number], plan)[0] for number in range(sample_count)]


_WAYS = (in_one_batch, with_kept_prefix, by_separate_calls)


def speed(path: Path, rounds: int, threads: int) -> dict[str, Any]:
    """The three ways in turns, after one of each that is not counted."""
    scenario = Scenario(context_tokens=PROMPT_TOKENS + SAMPLES * NEW_TOKENS + 64, thread_count=threads)
    with LlamaSession(path, scenario, sequence_count=SAMPLES + 1, output_tokens=2 * SAMPLES) as session:
        prompt = session.tokenize(_PROMPT * 10)[:PROMPT_TOKENS]
        plan = Plan(new_tokens=NEW_TOKENS, seed=7)
        seconds: dict[str, list[float]] = {way.__name__: [] for way in _WAYS}
        tokens = {}
        for turn in range(rounds + 1):
            for way in _WAYS:
                start = time.perf_counter()
                drawn = way(session, prompt, SAMPLES, plan)
                if turn:
                    seconds[way.__name__].append(time.perf_counter() - start)
                tokens[way.__name__] = [s.tokens for s in drawn]
    batch, kept, calls = (seconds[way.__name__] for way in _WAYS)
    pairs = zip(tokens["in_one_batch"], tokens["by_separate_calls"], strict=True)
    return {
        "seconds": {name: median(values) for name, values in seconds.items()},
        "least_seconds": {name: min(values) for name, values in seconds.items()},
        "batch_over_calls": median(c / b for c, b in zip(calls, batch, strict=True)),
        "batch_over_kept_prefix": median(k / b for k, b in zip(kept, batch, strict=True)),
        "samples_that_differ": sum(a != b for a, b in pairs),
        "kept_prefix_differs": sum(
            a != b for a, b in zip(tokens["with_kept_prefix"], tokens["by_separate_calls"], strict=True)
        ),
        "rounds": rounds,
        "threads": threads,
    }


def votes(path: Path, question_count: int, threads: int) -> dict[str, Any]:
    """The vote that ends early beside that of all samples, on the same questions about made-up facts."""
    scenario = Scenario(context_tokens=1024, thread_count=threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        LlamaSession(path, scenario, sequence_count=SAMPLES + 1, output_tokens=2 * SAMPLES) as session,
    ):
        known = facts(400, 1)
        context = WorkloadContext(Path(folder), Path(folder), 1, threads)
        store = fill_store(context, [(f.identifier, f.passage) for f in known], with_meaning=False)
        grounded = Grounded(session, store, plan=Plan(new_tokens=12, seed=1))
        asked = questions(known, question_count, 1)
        early = [judge(q, grounded.ask(q)) for q in asked]
        every = [judge(q, grounded.ask(q, waves=(sum(WAVES),))) for q in asked]
        store.close()
    drawn = [sum(j.answer.drawn_count for j in judged) for judged in (early, every)]
    same = [a.answer.text == b.answer.text for a, b in zip(early, every, strict=True)]
    return {
        "early end": report(early),
        "all samples": report(every),
        "drawn_tokens_saved_ratio": 1 - drawn[0] / drawn[1],
        "same_answer_ratio": sum(same) / len(same),
        "accuracy_difference": paired_interval([j.is_right for j in early], [j.is_right for j in every]),
    }


def oracle(row_count: int = 2000, seed: int = 3) -> dict[str, float]:
    """Largest difference to counting, for each row, the rows at least as sure and the wrong ones among them."""
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random(row_count), 3)  # ties on purpose
    right = rng.random(row_count) < confidence
    surer = confidence[None, :] >= confidence[:, None]
    risk = (surer & ~right[None, :]).sum(1) / surer.sum(1)
    coverage = surer.sum(1) / row_count
    curve = risk_coverage(confidence, right)
    at = {float(t): (c, r) for t, c, r in zip(curve.threshold, curve.coverage, curve.risk, strict=True)}
    gaps = [
        max(abs(at[float(p)][0] - c), abs(at[float(p)][1] - r))
        for p, c, r in zip(confidence, coverage, risk, strict=True)
    ]
    return {"curve": float(max(gaps)), "aurc": abs(aurc(confidence, right) - float(risk.mean())), "rows": row_count}


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rounds", default=5, show_default=True)
@click.option("--questions", default=96, show_default=True)
@click.option("--threads", default=0, help="Threads; all physical cores by default.")
@click.option("--only", type=click.Choice(["speed", "votes", "oracle"]), multiple=True)
@click.option("--json", "as_json", is_flag=True)
def main(model: Path, rounds: int, questions: int, threads: int, only: tuple[str, ...], as_json: bool) -> None:
    """Measure self-consistency on MODEL."""
    wanted = only or ("speed", "votes", "oracle")
    found: dict[str, Any] = {"model": model.name}
    if "speed" in wanted:
        found["speed"] = speed(model, rounds, threads)
    if "votes" in wanted:
        found["votes"] = votes(model, questions, threads)
    if "oracle" in wanted:
        found["oracle"] = oracle()
    click.echo(json.dumps(found, indent=None if as_json else 2))


if __name__ == "__main__":
    main()
