"""Grounded answers: whether a passage supports a claim, and whether an answer should be given at all.

Two kinds of case. ``support``: a claim is judged against a passage by the NLI model where it knows entailment, else by
the language model. ``answer``: the language model answers a question from the passage, and the answer is judged in the
same way; what is not supported is withheld. The confidence in each judgement is calibrated on the other half of the
cases, and the risk that is left is reported against coverage (Geifman and El-Yaniv 2017, "Selective Classification").
"""

from itertools import cycle
from typing import Any, Final

from harness.errors import RefusedError
from harness.workloads.facts import fact_cases
from harness.workloads.parts import SystemParts
from harness.workloads.scores import f1, selection, share
from harness.workloads.system import Answers, Case, Cases, Cost, Costs, Figures, PartNames, PartPass, Size, System

_ANSWER: Final = (
    "Answer the question from the passage, in a few words. If the passage does not tell the answer, say: unknown."
)
_UNKNOWN: Final = "unknown"
_ANSWER_TOKENS: Final = 24
_CONTAINED_RATIO: Final = 0.8


class GroundingQa(System, table="grounding_qa"):
    """Support of claims, and answers that are withheld where they have none."""

    def cases(self, size: Size, seed: int) -> Cases:
        """Claims about made-up facts, half of them false."""
        rows = fact_cases(seed, size["case_count"])
        return [
            {
                "kind": "support",
                "passage": row["passage"],
                "claim": row["true" if is_true else "false"],
                "supported": is_true,
            }
            for row, is_true in zip(rows, cycle((False, True)), strict=False)
        ]

    def step(self, state: SystemParts, case: Case) -> dict[str, Any]:
        """The probability of support; for a question the answer too, and whether it is given."""
        if case["kind"] == "support" and "claim" in case:
            return {"support": state.entailment([(case["passage"], case["claim"])])[0]}
        if case["kind"] != "answer" or "question" not in case:
            raise RefusedError(f"found kind {case['kind']!r}; expected support with a claim, or answer with a question")
        if state.language is None:
            raise RefusedError("a question needs somebody who answers it: name a language model with --model")
        asked = f"Passage: {case['passage']}\nQuestion: {case['question']}"
        written = state.language.write([("system", _ANSWER), ("user", asked)], _ANSWER_TOKENS)
        is_known = not written.text.lower().startswith(_UNKNOWN)
        claim = f"{case['question']} {written.text}"
        support = state.entailment([(case["passage"], claim)])[0] if is_known else 0.0
        return {"text": written.text, "support": support, "is_given": support >= 0.5, "confidence": written.confidence}

    def cost(self, parts: PartNames, size: Size) -> Costs:
        """A pair of some 70 tokens judged; a question of some 70 tokens read, and an answer of some 8 written."""
        judged = (
            PartPass(part="nli", tokens=70) if "nli" in parts else PartPass(part="language", tokens=80, depth_tokens=20)
        )
        costs = {"support": Cost(passes=(judged,), glue_s=2e-3)}
        if "language" in parts:
            read = PartPass(part="language", tokens=80, depth_tokens=40)
            write = PartPass(part="language", count=7, depth_tokens=120)
            costs["answer"] = Cost(passes=(read, write, judged), glue_s=0.02)
        return costs

    def score(self, cases: Cases, answers: Answers) -> Figures:
        """F1 of support beside a search for the claim's words; answers given, right, and withheld; risk and coverage.

        An answer is right where it contains the right one, in whatever case; one that the passage does not tell is
        right where it is withheld.
        """
        scores: dict[str, Any] = {}
        rows = list(zip(cases, answers, strict=True))
        claims = [(c, a["support"]) for c, a in rows if c["kind"] == "support" and "supported" in c]
        if claims:
            true = [c["supported"] for c, _ in claims]
            said = [p >= 0.5 for _, p in claims]
            right = [s == t for s, t in zip(said, true, strict=True)]
            scores["support"] = f1(said, true) | {"accuracy": share(sum(right), len(right))}
            scores["support"]["words_contained_f1"] = f1([_contained(c) for c, _ in claims], true)["f1"]
            scores["support"]["selection"] = selection([max(p, 1 - p) for _, p in claims], right)
        asked = [(c, a) for c, a in rows if c["kind"] == "answer"]
        if asked:
            told = [(c, a) for c, a in asked if "answer" in c]
            silent = [(c, a) for c, a in asked if "answer" not in c]
            hits = [c["answer"].lower() in a["text"].lower() for c, a in told]
            given = [hit for hit, (_, a) in zip(hits, told, strict=True) if a["is_given"]]
            withheld = sum(not a["is_given"] for _, a in silent)
            scores["answer"] = {
                "right": share(sum(hits), len(hits)),
                "right_of_given": share(sum(given), len(given)),
                "withheld_where_not_told": share(withheld, len(silent)),
                "selection": selection([a["support"] for _, a in told], hits),
            }
        return scores


def _contained(case: Case) -> bool:
    """Whether four in five of the claim's words stand in the passage: the usual baseline."""
    claim, passage = (set(case[key].lower().split()) for key in ("claim", "passage"))
    return len(claim & passage) >= _CONTAINED_RATIO * len(claim)


SYSTEM = GroundingQa()
