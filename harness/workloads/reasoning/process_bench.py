"""ProcessBench: its score, what it becomes where one kind of trace is missing, and what published critics reach.

Zheng et al. 2024, "ProcessBench: Identifying Process Errors in Mathematical Reasoning" (arXiv:2412.06559): the score is
the harmonic mean of two accuracies, that of finding the first wrong step in traces that have one, and that of accepting
the traces that have none. A set with only one kind has no score: its two parts are not both there.

A *process reward* is how likely each step of a solution is right, by a local model fused with the exact checks. The
model reads problem and solution once, and is asked after each step whether that step is correct; its log-odds are
calibrated on steps of other traces, of which those before a first error are right. It also solves the problem itself:
a solution with another answer is more likely wrong. Where an exact check finds a fault, that step is the first wrong
one, whatever the model says.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import harmonic_mean
from time import perf_counter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadDataError
from harness.ports import Session, WorkloadContext
from harness.stats.intervals import RESAMPLES, share_interval
from harness.stats.logistic import logistic
from harness.workloads._language.cases import drawn, watched
from harness.workloads._language.generate import Plan, answers
from harness.workloads._language.judgement import Judge
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import shipped_table
from harness.workloads.reasoning.analysis import analyse, f1
from harness.workloads.reasoning.claims import tokenise
from harness.workloads.reasoning.exact import NotArithmeticError, values

_TOLD: Final = shipped_table("instructions")["critic"]
CRITICISED: Final = 36
"""Traces that the critic reads of each file where nobody says how many: 25,000 tokens with as many borrowed ones."""
_SOLVED_TOKENS: Final = 160
_TOGETHER: Final = 4
"""Problems solved in one batch: the longest of the sets, 600 tokens each, still fit."""
_BOXED: Final = r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
_ANSWERS: Final = (_BOXED, r"####(.*)", r"= *\$? *(-?\d[\d,]*(?:\.\d+)?)[^=\n]*$", r"-?\d[\d,]*(?:\.\d+)?")


class Trace(NamedTuple):
    """A problem, the steps of a solution, and the first wrong one (-1: none)."""

    problem: str
    steps: tuple[str, ...]
    label: int


class Read(NamedTuple):
    """A trace as the critic sees it: log-odds that each step is right [steps], and the first fault by exact checks.

    ``agrees``: the model's own solution ends in the same answer; False too where it ends in none.
    """

    margins: NDArray[np.float64]
    exact: int
    agrees: bool = False


def read(judge: Judge, trace: Trace, room_tokens: int, own: str = "") -> Read:
    """A trace as the critic sees it, beside its ``own`` solution; steps beyond the context's room count as right."""
    pieces = [f"Problem: {trace.problem}\n\nSolution:\nStep 1: {trace.steps[0]}"]
    pieces += [f"\nStep {at}: {step}" for at, step in enumerate(trace.steps[1:], 2)]
    room = room_tokens - 400
    kept = [p for at, p in enumerate(pieces) if sum(len(x) for x in pieces[: at + 1]) / 2.5 < room] or pieces[:1]
    margins = np.full(len(pieces), 9.0)
    margins[: len(kept)] = judge.along(kept, _TOLD["question"])
    mine = answer_of(own) if "####" in own else ""
    agrees = mine != "" and mine == answer_of("\n".join(trace.steps))
    return Read(margins, analyse(trace.steps, trace.problem).first_error, agrees)


def own_solutions(session: Session, template: ChatTemplate, problems: Sequence[str]) -> list[tuple[str, int]]:
    """The model's own greedy solutions and the tokens of each, in one batch; clears the session."""
    before, after = template.around(session, _TOLD["solver"], _TOLD["solved"])
    session.clear()
    session.decode(before, position=0, logits="none")
    prompts = [session.tokenize(problem, add_special=False) + after for problem in problems]
    plan = Plan(_SOLVED_TOKENS, 0.0, ends=session.is_end)
    drawn = answers(session, len(before), prompts, [0] * len(prompts), plan)
    return [(session.detokenize(sample.tokens), sample.step_count) for sample in drawn]


def answer_of(text: str) -> Fraction | str:
    """What a solution ends in: what is boxed last, else stands after ``####``, else its last result or number.

    A number without its unit where it is one, else the text without its layout.
    """
    found = next(filter(None, (re.findall(pattern, text.strip()) for pattern in _ANSWERS)), None)
    plain = re.sub(r"\^\s*\{?\\circ\}?|\\?[$%]", "", found[-1] if found else "")
    tokens = [{"{": "(", "}": ")"}.get(t, t) for t in tokenise(plain)]
    alone = tokens[2:] if tokens[1:2] == ["="] else tokens
    while alone and alone[-1].isalpha():
        alone = alone[:-1]
    try:
        return min(values(alone))
    except NotArithmeticError:
        return "".join(tokens).rstrip(".").lower()


class Rule(NamedTuple):
    """Which step is blamed where the model's own answer is another one: the likeliest first wrong step.

    A step is wrong with the probability sigmoid(``offset`` - ``slope`` x its log-odds of being right). Where the model
    is not ``believed`` the exact checks decide alone.
    """

    slope: float
    offset: float
    believed: bool = True


def first_wrong(read: Read, rule: Rule) -> int:
    """The first step in which an exact check finds a fault, else the one that the rule blames; -1 for none."""
    if read.exact >= 0 or read.agrees or not rule.believed:
        return read.exact
    wrong = rule.offset - rule.slope * read.margins
    return int(np.argmax(wrong - np.cumsum(np.logaddexp(0.0, wrong))))  # log P(this one is wrong, and none before it)


def fit(reads: Sequence[Read], labels: Sequence[int]) -> Rule:
    """Slope and offset by logistic regression on the steps up to the first wrong one; believed where F1 gains by it."""
    pairs = list(zip(reads, labels, strict=True))
    steps = [(m, at != label) for read, label in pairs for at, m in enumerate(read.margins[: label + 1 or None])]
    design, right = np.array([(margin, 1.0) for margin, _ in steps]), np.array([is_right for _, is_right in steps])
    w = logistic(design, right, np.array([1e-2, 1e-6]), tolerance=1e-12, step_count=100)
    rules = (Rule(float(w[0]), -float(w[1])), Rule(0.0, 0.0, believed=False))
    return max(rules, key=lambda rule: f1([first_wrong(r, rule) for r in reads], labels)["f1"] or 0.0)


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
    start = perf_counter()
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
    others = [(read, trace.label) for trace, read in known.items() if trace not in traces]
    reads, drawn_count = list[Read](), 0
    for part in watched([traces[at : at + _TOGETHER] for at in range(0, len(traces), _TOGETHER)], context, name):
        new = [trace for trace in part if trace not in known]
        own = own_solutions(session, template, [trace.problem for trace in new]) if new else []
        judge.forget()
        drawn_count += sum(count for _, count in own)
        known |= {t: read(judge, t, session.context_tokens, text) for t, (text, _) in zip(new, own, strict=True)}
        reads += [known[trace] for trace in part]
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
        "drawn_tokens": drawn_count,
        "seconds": perf_counter() - start,
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
    return next((figures for subset, figures in shipped_table("process-bench").items() if subset in words), {})
