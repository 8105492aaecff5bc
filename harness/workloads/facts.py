"""Passages with made-up figures, which no model has read before."""

import random
from typing import Any


def fact_cases(seed: int, count: int) -> list[dict[str, Any]]:
    """``passage``, a ``true`` and a ``false`` claim, a ``question`` and its ``answer``: None where it is not told."""
    rng = random.Random(f"facts {seed}")
    cases: list[dict[str, Any]] = []
    for number in rng.sample(range(100, 1000), count):
        shelves, opened, closes = rng.randint(3, 40), rng.randint(1900, 2020), rng.randint(16, 21)
        passage = f"Shop {number} opened in {opened}. It has {shelves} shelves and closes at {closes}:00."
        is_told = len(cases) % 4 < 3
        cases.append(
            {
                "passage": passage,
                "true": f"Shop {number} has {shelves} shelves.",
                "false": f"Shop {number} has {shelves + rng.choice((-2, -1, 1, 2))} shelves.",
                "question": f"How many {'shelves' if is_told else 'windows'} does shop {number} have?",
                "answer": str(shelves) if is_told else None,
            }
        )
    return cases
