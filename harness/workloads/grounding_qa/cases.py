"""Passages and claims in six kinds, from templates written by hand: what a check of support must tell apart.

The templates lie in ``harness/data/text/entailment.toml``; those of even place are for fitting, those of odd place are
held out, so that nothing is judged on a wording that it was fitted to.
"""

import random
import tomllib
from pathlib import Path
from typing import Final, NamedTuple

_PEOPLE: Final = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Henry", "Irene", "Jonas", "Karla")
_TOWNS: Final = ("Lisbon", "Oslo", "Riga", "Turin", "Ghent", "Bergen", "Malaga", "Leeds", "Graz", "Cork", "Bremen")
_THINGS: Final = ("violin", "kayak", "telescope", "lantern", "bicycle", "clock", "tent", "camera", "ladder", "loom")


class Case(NamedTuple):
    """A claim beside a passage, its kind, the place of its template there, and whether the passage supports it."""

    kind: str
    template: int
    passage: str
    claim: str
    is_supported: bool


def entailment_cases(seed: int, *, held_out: bool, fill_count: int = 1) -> list[Case]:
    """Cases of all kinds, half of them supported; each fill gives every template other names and numbers."""
    path = Path(__file__).parents[2] / "data" / "text" / "entailment.toml"
    kinds = tomllib.loads(path.read_text(encoding="utf-8"))
    rng = random.Random(f"entailment {seed} {held_out}")
    made = []
    for _ in range(fill_count):
        for kind, templates in kinds.items():
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
    numbers = rng.sample(range(13, 90), 2)
    names = dict(zip("ABC", rng.sample(_PEOPLE, 3), strict=True)) | dict(zip("TU", rng.sample(_TOWNS, 2), strict=True))
    return names | {"X": rng.choice(_THINGS), "n": str(numbers[0]), "m": str(numbers[1])}
