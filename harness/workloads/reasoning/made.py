"""Cases made by a seed, every second one with an error whose place is known."""

import random

from harness.workloads.facts import fact_cases
from harness.workloads.system import Case


def made_trace(seed: int, step_count: int = 5) -> Case:
    """A case: right equalities in words, in every second one of the seeds with one of them made wrong."""
    rng = random.Random(seed)
    wrong = rng.randrange(step_count) if seed % 2 else -1
    steps = []
    for at in range(step_count):
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
