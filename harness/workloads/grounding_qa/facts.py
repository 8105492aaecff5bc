"""Made-up facts with identifiers, and questions about them: nothing here can be known from training.

Every passage tells three things of one subject. A question asks for one of them; some ask for a thing of a subject
that no passage tells, and the right answer to those is none. Cases are passages and claims in six kinds, which a check
of support must tell apart; their templates, written by hand, lie in ``harness/data/text/entailment.toml``: those of
even place are for fitting, those of odd place are held out, so that nothing is judged on a wording it was fitted to.
"""

import random
from typing import Final, NamedTuple

from harness.workloads._language.texts import text_table

_WORDS: Final = {kind: words.split() for kind, words in text_table("made-up")["facts"].items()}


class Fact(NamedTuple):
    """One subject, what is told of it, and the passage that tells it."""

    identifier: str
    subject: str
    values: tuple[tuple[str, str], ...]
    passage: str


class Question(NamedTuple):
    """A question.

    Attributes:
        text: The question.
        stem: The beginning of the claim that answers it.
        answer: The end of that claim; empty where no passage tells it.
        source: Identifier of the passage that tells it.
        subject: What it is about.
    """

    text: str
    stem: str
    answer: str
    source: str
    subject: str

    def claim(self, answer: str) -> str:
        """The claim that an answer makes; question and answer where no claim begins."""
        return f"{self.stem} {answer}".strip() if self.stem else f"{self.text} {answer}"


ASKED: Final = {
    "builder": ("Who designed the {}?", "The {} was designed by"),
    "year": ("In what year did the {} open?", "The {} opened in"),
    "town": ("In which town is the {}?", "The {} stands in"),
    "material": ("What is the {} made of?", "The {} is made of"),
}
"""Question and beginning of the claim, by what is asked."""


def facts(count: int, seed: int) -> list[Fact]:
    """``count`` facts of different subjects; each passage tells three of the four things."""
    rng = random.Random(f"facts {seed}")
    names = [a + b for a in _WORDS["stems"] for b in _WORDS["ends"]]
    made = []
    for at, subject in enumerate(rng.sample([f"{n} {k}" for n in names for k in _WORDS["kinds"]], count)):
        all_of = {
            "builder": f"{rng.choice(_WORDS['first'])} {rng.choice(_WORDS['last'])}",
            "year": str(rng.randint(1801, 1999)),
            "town": rng.choice(_WORDS["towns"]),
            "material": rng.choice(_WORDS["metals"]),
        }
        left_out = rng.choice(sorted(all_of))
        told = {k: v for k, v in all_of.items() if k != left_out}
        parts = [f"{ASKED[k][1].removeprefix('The {} ')} {v}" for k, v in told.items()]
        rng.shuffle(parts)
        passage = f"The {subject} {parts[0]}, {parts[1]} and {parts[2]}."
        made.append(Fact(f"doc-{at:04d}", subject, tuple(told.items()), passage))
    return made


def questions(known: list[Fact], count: int, seed: int) -> list[Question]:
    """``count`` questions; a quarter of them asks for the one thing that the subject's passage does not tell."""
    rng = random.Random(f"questions {seed}")
    made = []
    for _ in range(count):
        fact = rng.choice(known)
        told = dict(fact.values)
        is_told = rng.random() >= 0.25
        asked = rng.choice(sorted(told)) if is_told else next(k for k in ASKED if k not in told)
        text, stem = (t.format(fact.subject) for t in ASKED[asked])
        source = fact.identifier if is_told else ""
        made.append(Question(text, stem, told.get(asked, ""), source, fact.subject))
    return made


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
        for kind, templates in text_table("entailment").items():
            for at, template in enumerate(templates):
                if at % 2 != held_out:
                    continue
                names = filled_names(rng)
                passage = template["passage"].format_map(names)
                for answer in ("yes", "no"):
                    claims = (claim.format_map(names) for claim in template[answer])
                    made += [Case(kind, at, passage, claim, answer == "yes") for claim in claims]
    return made


def unseen_cases() -> list[Case]:
    """Cases by somebody who had not read the checks, 30 of each kind, half of them supported: ``passages.toml``."""
    rows = [(kind, row) for kind, told in text_table("passages").items() for row in told]
    return [Case(kind, at, row["passage"], row["claim"], row["is_supported"]) for at, (kind, row) in enumerate(rows)]


def filled_names(rng: random.Random) -> dict[str, str]:
    """What the places of a template are filled with."""
    numbers = rng.sample(range(13, 90), 2)
    names = dict(zip("ABC", rng.sample(_WORDS["first"][:11], 3), strict=True))
    names |= dict(zip("TU", rng.sample(_WORDS["towns"], 2), strict=True))
    return names | {"X": rng.choice(_WORDS["things"]), "n": str(numbers[0]), "m": str(numbers[1])}
