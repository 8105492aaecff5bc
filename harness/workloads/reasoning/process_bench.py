"""ProcessBench: its score, what it becomes where one kind of trace is missing, and what published critics reach.

Zheng et al. 2024, "ProcessBench: Identifying Process Errors in Mathematical Reasoning" (arXiv:2412.06559): the score is
the harmonic mean of two accuracies, that of finding the first wrong step in traces that have one, and that of accepting
the traces that have none. A set with only one kind has no score: its two parts are not both there.

A *process reward* is how likely each step of a solution is right, by a local model fused with the exact checks. The
model reads problem and solution once, and is asked after each step whether that step is correct; its log-odds are
calibrated. A step in which an exact check finds a fault is wrong, whatever the model says.
"""

import io
import json
import random
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import harmonic_mean
from time import perf_counter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadDataError
from harness.ports import Session, WorkloadContext
from harness.records.store import write_atomically
from harness.stats.intervals import RESAMPLES, share_interval
from harness.workloads._language.cases import drawn, watched
from harness.workloads._language.judgement import Judge
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import text_table
from harness.workloads.reasoning.analysis import analyse, f1

_TOLD: Final = text_table("instructions")["critic"]
CRITICISED: Final = 36
"""Traces that the critic reads of each file where nobody says how many: 25,000 tokens with as many borrowed ones."""


class Trace(NamedTuple):
    """A problem, the steps of a solution, and the first wrong one (-1: none)."""

    problem: str
    steps: tuple[str, ...]
    label: int


class Read(NamedTuple):
    """A trace as the critic sees it.

    Attributes:
        margins: Log-odds that each step is right [steps].
        chances: Of each step, how likely its tokens are and how likely the likeliest ones (``Along.chances``).
        exact: The first step in which an exact check finds a fault; -1: none.
        seconds: How long the model read.
    """

    margins: NDArray[np.float64]
    chances: Sequence[NDArray[np.float64]]
    exact: int
    seconds: float = 0.0


def read(judge: Judge, trace: Trace, room_tokens: int, kept: Path | None = None) -> Read:
    """A trace as the critic sees it; steps beyond the context's room are taken for right.

    In ``kept``, a folder of one model's, what the model said is found again: whole subsets take hours, and may be read
    in several runs.
    """
    pieces = [f"Problem: {trace.problem}\n\nSolution:\nStep 1: {trace.steps[0]}"]
    pieces += [f"\nStep {at}: {step}" for at, step in enumerate(trace.steps[1:], 2)]
    room = room_tokens - 400
    told = [p for at, p in enumerate(pieces) if sum(len(x) for x in pieces[: at + 1]) / 2.5 < room] or pieces[:1]
    key = sha256("\0".join([_TOLD["instruction"], _TOLD["question"], *told]).encode()).hexdigest()[:24]
    path = kept / f"{key}.npz" if kept else None
    if path and path.is_file():
        with np.load(path, allow_pickle=False) as arrays:
            margins, flat, counts, seconds = (arrays[n] for n in ("margins", "chances", "counts", "seconds"))
        chances = np.split(flat, np.cumsum(counts)[:-1], axis=1)
    else:
        start = perf_counter()
        margins, chances = judge.along(told, _TOLD["question"])
        seconds = np.array(perf_counter() - start)
        if path:
            data = io.BytesIO()
            counts = [c.shape[1] for c in chances]
            np.savez(data, margins=margins, chances=np.hstack(chances), counts=counts, seconds=seconds)
            write_atomically(path, data.getvalue())
    margins = np.append(margins, np.full(len(pieces) - len(told), 9.0))
    chances = [*chances, *[np.zeros((2, 1))] * (len(pieces) - len(told))]
    return Read(margins, chances, analyse(trace.steps, trace.problem).first_error, float(seconds))


class Rule(NamedTuple):
    """When a step counts as wrong: its log-odds lie below ``threshold`` and ``drop`` below the trace's mean."""

    threshold: float
    drop: float


EXACT_ALONE: Final = Rule(-99.0, 0.0)
"""The rule that never believes the model."""


def first_wrong(read: Read, rule: Rule) -> int:
    """The first step that is wrong by the rule or by an exact check; -1 for none."""
    low = (read.margins < rule.threshold) & (read.margins < read.margins.mean() - rule.drop)
    by_model = int(np.argmax(low)) if low.any() else -1
    return min((at for at in (by_model, read.exact) if at >= 0), default=-1)


def fit(reads: Sequence[Read], labels: Sequence[int]) -> Rule:
    """The rule with the highest F1 on these traces, the exact checks alone among them; from quantiles of log-odds."""
    values = np.concatenate([r.margins for r in reads])
    rules = [EXACT_ALONE] + [
        Rule(float(t), float(d))
        for t in np.quantile(values, np.linspace(0.02, 0.7, 30))
        for d in (-9.0, 0.0, 0.25, 0.5, 1.0)
    ]

    def merit(rule: Rule) -> float:
        return f1([first_wrong(r, rule) for r in reads], labels)["f1"] or 0.0

    return max(rules, key=merit)


def rows_of(path: Path, *fields: str) -> list[dict[str, Any]]:
    """Rows of a JSON list, or of a file with one JSON object a line; each has the fields.

    Raises:
        BadDataError: It is another file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lines = [] if path.suffix == ".json" else [json.loads(line) for line in text.split("\n") if line.strip()]
        rows = lines or json.loads(text)
        lacking = next((at for at, row in enumerate(rows) if not {*fields} <= row.keys()), None)
    except (ValueError, AttributeError, TypeError) as error:
        raise BadDataError(path, "", str(error), f"rows with {', '.join(fields)}") from error
    if lacking is not None:
        raise BadDataError(path, f"row {lacking}", ", ".join(rows[lacking]), ", ".join(fields))
    return list(rows)


def score(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Score of the step checker on rows of ProcessBench (``steps problem label``; label -1: no error).

    ``f1`` is the paper's, None where one kind of trace is missing. ``too_early_ratio``: of the traces with an error,
    those in which a step before it is blamed, a false alarm that needs no right traces to be seen.
    """
    first = [analyse(row["steps"], row["problem"]).first_error for row in rows]
    labels = [int(row["label"]) for row in rows]
    located = [p == y for p, y in zip(first, labels, strict=True) if y >= 0]
    interval = share_interval(sum(located), len(located))
    early = sum(0 <= p < y for p, y in zip(first, labels, strict=True)) / max(1, len(located))
    found: dict[str, Any] = {"wrong_count": len(located), "right_count": len(rows) - len(located), **f1(first, labels)}
    return found | {"error_located_interval": [interval.low, interval.high], "too_early_ratio": early}


def criticised(
    session: Session,
    template: ChatTemplate,
    rows: Sequence[Mapping[str, Any]],
    right: Sequence[Path],
    context: WorkloadContext,
    name: str,
    known: dict[Trace, Read],
) -> dict[str, Any]:
    """The step critic's score on a sample of the rows: each half is judged by a rule that was not fitted on it.

    The rule is fitted on the other half, and on what was read for other files. The sample has wrong and right
    traces in the file's proportion. A file without right traces gets as many of GSM8K's human solutions (``right``),
    drawn too, and says so. ``known`` keeps traces that were read for another file.
    """
    chosen = drawn(rows, context, CRITICISED, by=lambda r: r["label"] >= 0)
    traces = [Trace(str(r["problem"]), tuple(r["steps"]), int(r["label"])) for r in chosen]
    if all(t.label >= 0 for t in traces) and right:
        solved = drawn(rows_of(right[0], "question", "answer"), context._replace(cases=None), len(traces))
        for row in solved:
            steps = re.sub("<<.*?>>", "", row["answer"]).split("####")[0].strip().split("\n")
            traces.append(Trace(row["question"], tuple(steps), -1))
        random.Random(context.seed).shuffle(traces)
    borrowed = len(traces) - len(chosen)
    judge = Judge(session, template, _TOLD["instruction"])
    model = context.model_path
    told = f"{model.name} {model.stat().st_size}" if model else ""
    kept = context.cache / "critic" / sha256(told.encode()).hexdigest()[:16] if model else None
    others = [(read, trace.label) for trace, read in known.items() if trace not in traces]
    reads: list[Read] = []
    for trace in watched(traces, context, name):
        if trace not in known:
            known[trace] = read(judge, trace, session.context_tokens, kept)
        reads.append(known[trace])
    labels = [t.label for t in traces[: len(reads)]]
    halves = (slice(0, None, 2), slice(1, None, 2))
    more, told = [read for read, _ in others], [label for _, label in others]
    rules = [fit([*reads[half], *more], [*labels[half], *told]) for half in reversed(halves)]
    judged = [first_wrong(read, rules[at % 2]) for at, read in enumerate(reads)]
    exact = [r.exact for r in reads]
    return {
        "trace_count": len(reads),
        "of": len(rows) + borrowed,
        "borrowed_right_count": borrowed,
        "rules": [rule._asdict() for rule in rules],
        **f1(judged, labels),
        "f1_interval": f1_interval(judged, labels),
        "exact_checks_alone": f1(exact, labels)["f1"],
        "exact_checks_alone_interval": f1_interval(exact, labels),
        "read_tokens": judge.read_count,
        "seconds": sum(r.seconds for r in reads),
    }


def f1_interval(predicted: Sequence[int], labels: Sequence[int]) -> list[float] | None:
    """The 95 % bootstrap interval of F1, wrong and right traces drawn each for themselves; None without either."""
    hits = [np.array([p == y for p, y in zip(predicted, labels, strict=True) if (y < 0) == k]) for k in (False, True)]
    if not all(map(len, hits)):
        return None
    rng = np.random.default_rng(0)
    located, accepted = (rng.choice(h, (RESAMPLES, len(h))).mean(1).tolist() for h in hits)
    merits = [harmonic_mean(both) for both in zip(located, accepted, strict=True)]
    return [float(v) for v in np.percentile(merits, [2.5, 97.5])]


def beside(name: str) -> Mapping[str, float]:
    """F1 of published critics on the subset that a file's name tells, whole; none for other subsets."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((figures for subset, figures in text_table("process-bench").items() if subset in words), {})
