"""Cases made by a seed, every second one with an error whose place is known."""

import random
from fractions import Fraction

from harness.workloads.facts import fact_cases
from harness.workloads.system import Case


def made_trace(seed: int, step_count: int = 5) -> Case:
    """A case: right equalities in words, in every second one of the seeds with one of them made wrong."""
    rng = random.Random(seed)
    wrong = rng.randrange(step_count) if seed % 2 else -1
    steps = []
    for at in range(step_count):
        a, b, places = rng.randint(2, 99), rng.randint(2, 99), rng.choice((0, 0, 2))
        left, right = Fraction(a * b, 10**places), Fraction(b)
        kind = rng.randrange(4)
        sign = (("+",), ("-", "−"), ("*", "×", "x"), ("/", "÷"))[kind]
        result = (left + right, left - right, left * right, left / right)[kind]
        if at == wrong:
            result += Fraction(rng.choice((-10, -2, -1, 1, 3, 10)), 10**places)
        shown = [f"{float(value):,.{places}f}" for value in (left, right, result)]
        steps.append(f"So we get {shown[0]} {rng.choice(sign)} {shown[1]} = {shown[2]} in all.")
    return {"kind": "arithmetic", "steps": steps, "label": wrong}


def made_statements(seed: int) -> Case:
    """A case: statements about a shop, two of which contradict each other in every second one of the seeds."""
    fact = fact_cases(seed, 1)[0]
    steps = [*fact["passage"].split(". "), fact["false" if seed % 2 else "true"]]
    return {"kind": "contradiction", "steps": steps, "contradiction": [1, 2] if seed % 2 else []}
