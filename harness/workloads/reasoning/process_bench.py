"""ProcessBench: its score, what it becomes where one kind of trace is missing, and what published critics reach.

Zheng et al. 2024, "ProcessBench: Identifying Process Errors in Mathematical Reasoning" (arXiv:2412.06559): the score is
the harmonic mean of two accuracies, that of finding the first wrong step in traces that have one, and that of accepting
the traces that have none. A set with only one kind has no score: its two parts are not both there.

A *step critic* says which step is the first wrong one. A small model that is asked whether a step is right tells right
steps from wrong ones no better than chance; it solves problems better than it judges them. So it writes a few programs
for each problem. A trace that ends as none of them is doubted from its first result that none of them has. An exact
check that finds a fault comes first.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import fmean, harmonic_mean
from time import perf_counter
from typing import Any, Final, NamedTuple

import numpy as np

from harness.errors import BadDataError
from harness.ports import Session, WorkloadContext
from harness.records.store import write_atomically
from harness.stats.intervals import RESAMPLES, share_interval
from harness.workloads._language.cases import drawn, watched
from harness.workloads._language.judgement import signal
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import text_table
from harness.workloads.reasoning.analysis import analyse, f1
from harness.workloads.reasoning.programs import TOGETHER, Author, doubted

CRITICISED: Final = 36
"""Traces that the critic reads of each file where nobody says how many, as many borrowed ones beside them."""


class Trace(NamedTuple):
    """A problem, the steps of a solution, and the first wrong one (-1: none)."""

    problem: str
    steps: tuple[str, ...]
    label: int


def earliest(*steps: int) -> int:
    """The first of the steps that somebody blames, where -1 blames none; -1 where nobody blames one."""
    return min((at for at in steps if at >= 0), default=-1)


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
) -> dict[str, Any]:
    """The step critic's score on a sample of the rows; nothing is fitted.

    The sample has wrong and right traces in the file's proportion. A file without right traces gets as many of GSM8K's
    human solutions (``right``), drawn too, and says so. Programs are kept in the cache folder, so that whole subsets,
    which take hours, may be read in several runs.
    """
    chosen = drawn(rows, context, CRITICISED, by=lambda r: r["label"] >= 0)
    traces = [Trace(str(r["problem"]), tuple(r["steps"]), int(r["label"])) for r in chosen]
    if all(t.label >= 0 for t in traces) and right:
        solved = drawn(rows_of(right[0], "question", "answer"), context._replace(cases=None), len(traces))
        for row in solved:
            steps = re.sub("<<.*?>>", "", row["answer"]).split("####")[0].strip().split("\n")
            traces.append(Trace(row["question"], tuple(steps), -1))
        random.Random(context.seed).shuffle(traces)
    borrowed_count = len(traces) - len(chosen)
    author = Author(session, template, context.seed)
    kept = context.cache / "programs" / _identity(context)
    judged, exact = list[int](), list[int]()
    seconds, tokens = 0.0, 0
    groups = [traces[at : at + TOGETHER] for at in range(0, len(traces), TOGETHER)]
    for group in watched(groups, context, f"{name}, {TOGETHER} at a time"):
        written, spent_s = _programs(author, kept, [trace.problem for trace in group])
        seconds += spent_s
        tokens += sum(len(session.tokenize(text, add_special=False)) + 1 for texts in written for text in texts)
        for trace, programs in zip(group, written, strict=True):
            exact.append(analyse(trace.steps, trace.problem).first_error)
            judged.append(earliest(exact[-1], doubted(trace.steps, trace.problem, programs)))
    traces = traces[: len(judged)]
    labels = [t.label for t in traces]
    wrong = [(found == t.label, 1 / len(t.steps)) for found, t in zip(judged, traces, strict=True) if t.label >= 0]
    located_count, chance = sum(hit for hit, _ in wrong), fmean(share for _, share in wrong) if wrong else 0.5
    return {
        "trace_count": len(traces),
        "of": len(rows) + borrowed_count,
        "borrowed_right_count": sum(y < 0 for y in labels) if borrowed_count else 0,
        **f1(judged, labels),
        "f1_interval": f1_interval(judged, labels),
        "located": signal(located_count, len(wrong), chance=chance)._asdict(),
        "exact_checks_alone": f1(exact, labels)["f1"],
        "exact_checks_alone_interval": f1_interval(exact, labels),
        "drawn_tokens": tokens,
        "seconds": seconds,
    }


def _identity(context: WorkloadContext) -> str:
    """Names the model, the seed and what it is told: programs of others are not taken for its own."""
    model = context.model_path
    told = [model.name, model.stat().st_size] if model else []
    return sha256(json.dumps([*told, context.seed, text_table("instructions")["programs"]]).encode()).hexdigest()[:16]


def _programs(author: Author, kept: Path, problems: Sequence[str]) -> tuple[list[list[str]], float]:
    """Programs for problems, those that are kept from an earlier run too, and the seconds that they took."""
    paths = [kept / f"{sha256(problem.encode()).hexdigest()[:24]}.json" for problem in problems]
    fresh = [at for at, path in enumerate(paths) if not path.is_file()]
    start = perf_counter()
    written = author.write([problems[at] for at in fresh]) if fresh else []
    spent_s = perf_counter() - start
    for at, programs in zip(fresh, written, strict=True):
        write_atomically(paths[at], json.dumps({"programs": programs, "seconds": spent_s / len(fresh)}).encode())
    found = [json.loads(path.read_bytes()) for path in paths]
    return [one["programs"] for one in found], sum(one["seconds"] for one in found)


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
