"""Reasoning: errors of arithmetic, contradictions between statements, and the first wrong step of a solution.

Three kinds of case. ``arithmetic``: equalities in the steps are judged in exact fractions. ``contradiction``: every
pair of statements, or with a sentence encoder those that are about the same thing, is judged by the NLI model, else by
the language model. ``critic``: the language model writes programs for the problem, which are worked exactly; a solution
that ends otherwise than all of them is doubted from its first result that none of them has.
"""

import json
import random
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from harness.domain.foreign import json_in
from harness.errors import BadDataError, RefusedError
from harness.workloads.facts import fact_cases
from harness.workloads.parts import SystemParts, shown
from harness.workloads.reasoning.arithmetic import first_wrong, wrong_equality
from harness.workloads.reasoning.programs import doubted, worked
from harness.workloads.scores import f1, process_f1
from harness.workloads.system import (
    Answers,
    Case,
    Cases,
    Context,
    Cost,
    Costs,
    Figures,
    PartNames,
    PartPass,
    Size,
    System,
)

SAME_THING: Final = 0.3
"""Cosine of two statements from which on they may be about the same thing."""
PROGRAM_TOKENS: Final = 160
_MOST_BYTES: Final = 64 << 20


class ReasoningState(NamedTuple):
    """The parts, programs for each problem, and the seed."""

    parts: SystemParts
    program_count: int
    seed: int


class Reasoning(System, table="reasoning"):
    """Checks of a chain of thought."""

    def cases(self, size: Size, seed: int) -> Cases:
        """Made by the seed, right and wrong in turn: equalities, statements about shops."""
        first = 1000 * seed
        made = [made_trace(first + at) for at in range(size["case_count"])]
        return [*made, *(made_statements(first + at) for at in range(size["statement_count"]))]

    def read_cases(self, path: Path) -> Cases:
        """ProcessBench: a JSON list of ``problem``, ``steps``, ``label``; RefusedError for another file."""
        rows = json_in(path, "a list of ProcessBench", _MOST_BYTES)
        if path.suffix != ".json" or not isinstance(rows, list) or not rows:
            raise RefusedError(f"{path}: expected JSON lines (.jsonl) or a .json list of ProcessBench")
        for at, row in enumerate(rows):
            if not isinstance(row, dict) or not {"problem", "steps", "label"} <= row.keys():
                raise BadDataError(path, f"[{at}]", json.dumps(row)[:80], "problem, steps and label")
        return [{"kind": "critic", **{key: row[key] for key in ("problem", "steps", "label")}} for row in rows]

    def prepare(self, parts: SystemParts, size: Size, context: Context) -> ReasoningState:
        """Nothing but the parts."""
        return ReasoningState(parts, size["program_count"], context.seed)

    def step(self, state: ReasoningState, case: Case) -> dict[str, Any]:
        """The first faulty step, -1 for none, and why; of statements the pair likeliest to contradict each other."""
        steps = case["steps"]
        if not steps or not all(isinstance(step, str) for step in steps):
            raise RefusedError(f"steps: found {str(steps)[:60]}, expected texts")
        if case["kind"] == "contradiction":
            return self._contradiction(state.parts, steps)
        wrong = first_wrong(steps)
        answer: dict[str, Any] = {"first_error": wrong, "why": wrong_equality(steps[wrong]) if wrong >= 0 else ""}
        if case["kind"] == "arithmetic":
            return answer
        programs = self._programs(state, case.get("problem", ""))
        doubt = doubted(steps, case.get("problem", ""), programs)
        first = min((at for at in (wrong, doubt) if at >= 0), default=-1)
        return answer | {"first_error": first, "exact_only": wrong, "program_count": len(programs)}

    def cost(self, parts: PartNames, size: Size) -> Costs:
        """Five equalities; ten pairs of statements of some 15 tokens; programs of some 60 tokens each."""
        costs = {"arithmetic": Cost(glue_s=4.8e-4)}
        if "nli" in parts:
            passes: tuple[PartPass, ...] = (PartPass(part="nli", tokens=32, rows=10),)
        else:
            passes = (PartPass(part="language", tokens=32, count=10, depth_tokens=20),)
        if "encoder" in parts:
            passes += (PartPass(part="encoder", tokens=16, rows=5),)
        if parts:
            costs["contradiction"] = Cost(passes=passes, glue_s=5e-4)
        if "language" in parts:
            count = float(size["program_count"])
            read = PartPass(part="language", tokens=70, depth_tokens=250)
            write = PartPass(part="language", count=60 * count, depth_tokens=350)
            costs["critic"] = Cost(passes=(read, write), glue_s=1e-3 + 60 * count * 1e-3)
        return costs

    def score(self, cases: Cases, answers: Answers) -> Figures:
        """F1 of each kind; of the first wrong step beside a random step, the length alone, and exact checks alone."""
        scores: dict[str, Any] = {}
        rows = list(zip(cases, answers, strict=True))
        pairs = [(c, a) for c, a in rows if "contradiction" in c]
        if pairs:
            true = [bool(c["contradiction"]) for c, _ in pairs]
            said = [a["probability"] >= 0.5 for _, a in pairs]
            exact = [s and a["pair"] == sorted(c["contradiction"]) for s, (c, a) in zip(said, pairs, strict=True) if s]
            scores["contradiction"] = f1(said, true) | {"right_pair_ratio": sum(exact) / max(1, len(exact))}
        for kind in ("arithmetic", "critic"):
            labelled = [(c, a) for c, a in rows if c["kind"] == kind and "label" in c]
            if labelled:
                labels = [c["label"] for c, _ in labelled]
                lengths = [len(c["steps"]) for c, _ in labelled]
                first = [a["first_error"] for _, a in labelled]
                scores[kind] = _located(first, labels) | {"baselines": _baselines(first, labels, lengths)}
                if kind == "critic":
                    scores[kind]["exact_checks_alone"] = _located([a["exact_only"] for _, a in labelled], labels)
        return scores

    def _contradiction(self, parts: SystemParts, steps: Sequence[str]) -> dict[str, Any]:
        pairs = list(combinations(range(len(steps)), 2))
        if parts.encoder is not None:
            vectors = parts.encoder.embed(steps)
            pairs = [pair for pair in pairs if vectors[pair[0]] @ vectors[pair[1]] >= SAME_THING]
        if not pairs:
            return {"probability": 0.0, "pair": [], "pair_count": 0}
        chances = parts.contradiction([(steps[a], steps[b]) for a, b in pairs])
        top = max(range(len(pairs)), key=chances.__getitem__)
        return {"probability": chances[top], "pair": list(pairs[top]), "pair_count": len(pairs)}

    def _programs(self, state: ReasoningState, problem: str) -> list[list[Any]]:
        if state.parts.language is None:
            raise RefusedError("a critic writes programs: name a language model with --model")
        turns = [*shown("program"), ("user", problem)]
        programs = []
        for at in range(state.program_count):
            text = state.parts.language.write(
                turns,
                PROGRAM_TOKENS,
                temperature=0.7 if at else 0.0,
                seed=1000 * state.seed + at,
                ends=lambda text: "```" in text,
            ).text
            try:
                results = worked(re.sub(r"^```\w*\n", "", text))
            except RefusedError:
                continue
            if results:
                programs.append(results)
        return programs


def made_trace(seed: int) -> Case:
    """A case: right equalities in words, in every second one of the seeds with one of them made wrong."""
    rng = random.Random(seed)
    wrong = rng.randrange(5) if seed % 2 else -1
    steps = []
    for at in range(5):
        a, b = rng.randint(2, 99), rng.randint(2, 99)
        left, sign, result = rng.choice(((a, "+", a + b), (a, "\u2212", a - b), (a, "x", a * b), (a * b, "\u00f7", a)))
        result += rng.choice((-10, -2, -1, 1, 3, 10)) if at == wrong else 0
        steps.append(f"So we get {left:,} {sign} {b} = {result:,} in all.")
    return {"kind": "arithmetic", "steps": steps, "label": wrong}


def made_statements(seed: int) -> Case:
    """A case: statements about a shop, two of which contradict each other in every second one of the seeds."""
    fact = fact_cases(seed, 1)[0]
    steps = [*fact["passage"].split(". "), fact["false" if seed % 2 else "true"]]
    return {"kind": "contradiction", "steps": steps, "contradiction": [1, 2] if seed % 2 else []}


def _located(first: Sequence[int], labels: Sequence[int]) -> dict[str, Any]:
    hits = [float(p == y) for p, y in zip(first, labels, strict=True)]
    wrong = [hit for hit, y in zip(hits, labels, strict=True) if y >= 0]
    return process_f1(wrong, [hit for hit, y in zip(hits, labels, strict=True) if y < 0])


def _baselines(first: Sequence[int], labels: Sequence[int], lengths: Sequence[int]) -> dict[str, Any]:
    """Expected F1 of two rules that read no step: which traces are doubted, and a step of them drawn at random.

    ``random_step`` doubts the traces that were doubted here; ``length`` those with more steps than the median.
    """
    usual = median(lengths)
    rules = {"random_step": [p >= 0 for p in first], "length": [n > usual for n in lengths]}
    figures = {}
    for name, doubts in rules.items():
        rows = list(zip(doubts, labels, lengths, strict=True))
        located = [doubt / n for doubt, y, n in rows if y >= 0]
        figures[name] = process_f1(located, [float(not doubt) for doubt, y, _ in rows if y < 0])["f1"]
    return figures


SYSTEM = Reasoning()
