"""Retrieval reranked: a language model judges of each text that a store finds whether it answers the question."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from harness.ports import Session
from harness.workloads._language.judgement import Judge
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import text_table
from harness.workloads.memory_store.store import Hit

CANDIDATES: Final = 12
"""Texts that the model reads for each question."""
_TOLD: Final = text_table("instructions")["relevance"]


def relevance(session: Session, template: ChatTemplate, **how: Any) -> Judge:
    """A judge of whether a text answers a question; ``home`` and ``together`` are those of the judge."""
    return Judge(session, template, _TOLD["instruction"], _TOLD["examples"], **how)


def reranked(hits: Sequence[Hit], question: str, judge: Judge) -> list[Hit]:
    """Hits of a store, best first by minmax(the store's score) + minmax(log-odds of Yes), each over these hits.

    Both count alike: a model that sees one text at a time finds what words hide, and misses what a rare word tells.
    """
    margins = judge.margins([f"Question: {question}\nPassage: {hit.memory.content}" for hit in hits])
    scores = np.zeros(len(hits))
    for values in (np.array([hit.score for hit in hits]), margins) if hits else ():
        scores += (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    return [hits[at]._replace(score=float(scores[at])) for at in np.argsort(-scores, kind="stable")]
