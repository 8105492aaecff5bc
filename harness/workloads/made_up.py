"""Passages with made-up figures, which no model has read before."""

import random
from typing import NamedTuple


class Fact(NamedTuple):
    """A passage, a true and a false claim, a question and its answer: None where the passage does not tell it."""

    passage: str
    true: str
    false: str
    question: str
    answer: str | None


def facts(count: int) -> list[Fact]:
    """So many facts about shops; one in four questions is not answered."""
    rng = random.Random("facts 1")
    made: list[Fact] = []
    for number in rng.sample(range(100, 1000), count):
        shelves = rng.randint(3, 40)
        passage = (
            f"Shop {number} opened in {rng.randint(1900, 2020)}. It has {shelves} shelves and closes at "
            f"{rng.randint(16, 21)}:00."
        )
        is_told = len(made) % 4 < 3
        made.append(
            Fact(
                passage=passage,
                true=f"Shop {number} has {shelves} shelves.",
                false=f"Shop {number} has {shelves + rng.choice((-2, -1, 1, 2))} shelves.",
                question=f"How many {'shelves' if is_told else 'windows'} does shop {number} have?",
                answer=str(shelves) if is_told else None,
            )
        )
    return made
