"""Answers never contradict each other: the bench's relations on questions of this run's own."""

import pytest

from bench.consistent import RELATIONS, Broken, broken, faster_chip, questions

SOURCED = {faster_chip.__name__}
"""Held by the law's own test of families, where two sources may say otherwise."""


@pytest.mark.parametrize("question", list(questions(24, seed=11)), ids=lambda q: f"{q.model} {q.device} {q.quant}")
def test_relations_hold(question) -> None:
    found: list[Broken] = [one for one in broken(question) if one.relation not in SOURCED]
    assert found == []


def test_every_relation_can_fail() -> None:
    """Each is a function of a question and its answer that says what is broken: none is empty."""
    assert len({relation.__name__ for relation in RELATIONS}) == len(RELATIONS) == 12
