"""Passages and claims in six kinds, from templates written by hand: what a check of support must tell apart.

The templates lie in ``harness/data/text/entailment.toml``; those of even place are for fitting, those of odd place are
held out, so that nothing is judged on a wording that it was fitted to.
"""

import random
from typing import NamedTuple

from harness.workloads._language.texts import shipped_table


class Case(NamedTuple):
    """A claim beside a passage, its kind, the place of its template there, and whether the passage supports it."""

    kind: str
    template: int
    passage: str
    claim: str
    is_supported: bool


def entailment_cases(seed: int, *, held_out: bool, fill_count: int = 1) -> list[Case]:
    """Cases of all kinds, half of them supported; each fill gives every template other names and numbers."""
    rng = random.Random(f"entailment {seed} {held_out}")
    made = []
    for _ in range(fill_count):
        for kind, templates in shipped_table("entailment").items():
            for at, template in enumerate(templates):
                if at % 2 != held_out:
                    continue
                names = filled_names(rng)
                passage = template["passage"].format_map(names)
                for answer in ("yes", "no"):
                    claims = (claim.format_map(names) for claim in template[answer])
                    made += [Case(kind, at, passage, claim, answer == "yes") for claim in claims]
    return made


def filled_names(rng: random.Random) -> dict[str, str]:
    """What the places of a template are filled with."""
    words = {kind: listed.split() for kind, listed in shipped_table("made-up")["facts"].items()}
    numbers = rng.sample(range(13, 90), 2)
    names = dict(zip("ABC", rng.sample(words["first"][:11], 3), strict=True))
    names |= dict(zip("TU", rng.sample(words["towns"], 2), strict=True))
    return names | {"X": rng.choice(words["things"]), "n": str(numbers[0]), "m": str(numbers[1])}
