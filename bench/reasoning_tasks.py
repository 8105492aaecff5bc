"""Five kinds of tasks that people find easy, made by a seed, each with its exact answer and options to guess from."""

import random
from collections.abc import Callable
from datetime import date, timedelta
from typing import Final, NamedTuple

from harness.workloads.reasoning.constraints import Puzzle, solve

_WORDS: Final = [
    "strawberry",
    "banana",
    "committee",
    "mississippi",
    "parallel",
    "bookkeeper",
    "assessment",
    "tomorrow",
    "necessary",
    "success",
]
_COMPASS: Final = ("north", "east", "south", "west")
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PEOPLE: Final = ("Ada", "Ben", "Cleo", "Dan", "Eve")
_TRAITS: Final = ("red", "round", "heavy", "smooth", "warm", "hollow")


class Task(NamedTuple):
    """A question, the options to choose from, and which of them is right."""

    kind: str
    question: str
    options: tuple[str, ...]
    answer: str

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return 1 / len(self.options)


def make(kind: str, seed: int) -> Task:
    """One task; the same seed gives the same task.

    Raises:
        KeyError: There is no such kind.
    """
    return KINDS[kind](random.Random(f"{kind} {seed}"))


def _counting(rng: random.Random) -> Task:
    word = rng.choice(_WORDS)
    letter = rng.choice(sorted(set(word)))
    count = word.count(letter)
    options = sorted({count, *rng.sample([n for n in range(7) if n != count], 3)})
    question = f"How many times does the letter {letter!r} occur in {word!r}?"
    return Task("counting", question, tuple(map(str, options)), str(count))


def _spatial(rng: random.Random) -> Task:
    at = start = rng.randrange(4)
    turns = []
    for _ in range(rng.randint(1, 4)):
        name, quarter = rng.choice((("right", 1), ("left", -1), ("around", 2)))
        turns.append(f"turn {name}")
        at = (at + quarter) % 4
    question = f"I face {_COMPASS[start]} and {', then '.join(turns)}. Which way do I face?"
    return Task("spatial", question, _COMPASS, _COMPASS[at])


def _temporal(rng: random.Random) -> Task:
    day = date(2024, 1, 1) + timedelta(rng.randrange(700))
    days = rng.randint(2, 30)
    is_after = rng.random() < 0.5
    event = day - timedelta(days) if is_after else day + timedelta(days)
    word = "after" if is_after else "before"
    question = f"{_DAYS[day.weekday()]} is {days} days {word} the event. On which day of the week was the event?"
    return Task("temporal", question, _DAYS, _DAYS[event.weekday()])


def _negation(rng: random.Random) -> Task:
    has = rng.sample(_TRAITS, 4)
    untrue, true = has[0], has[1:]
    facts = [f"The stone is {t}." for t in true] + [f"The stone is not {untrue}."]
    rng.shuffle(facts)
    question = f"{' '.join(facts)} Which of these is NOT true of the stone?"
    return Task("negation", question, tuple(sorted(f"it is {t}" for t in has)), f"it is {untrue}")


def _constraint(rng: random.Random) -> Task:
    rooms = ("room 1", "room 2", "room 3")
    while True:  # add random true facts until exactly one assignment is left, as the solver proves
        truth = {p: rng.choice(rooms) for p in _PEOPLE}
        together: list[tuple[str, str]] = []
        apart: list[tuple[str, str]] = []
        banned: list[tuple[str, str]] = []
        for _ in range(24):
            if rng.random() < 0.5:
                a, b = rng.sample(_PEOPLE, 2)
                (together if truth[a] == truth[b] else apart).append((a, b))
            else:
                p = rng.choice(_PEOPLE)
                banned.append((p, rng.choice([r for r in rooms if r != truth[p]])))
            puzzle = Puzzle(_PEOPLE, rooms, _unique(together), _unique(apart), _unique(banned))
            if solve(puzzle).is_unique:
                who = rng.choice(_PEOPLE)
                return Task("constraint", f"{describe(puzzle)} Where is {who}?", rooms, truth[who])


def describe(puzzle: Puzzle) -> str:
    """A puzzle in words."""
    parts = [f"{', '.join(puzzle.people)} are each in one of {', '.join(puzzle.rooms)}."]
    parts += [f"{a} and {b} are in the same room." for a, b in puzzle.together]
    parts += [f"{a} and {b} are in different rooms." for a, b in puzzle.apart]
    parts += [f"{p} is not in {r}." for p, r in puzzle.banned]
    return " ".join(parts)


def _unique(pairs: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys(pairs))


KINDS: Final[dict[str, Callable[[random.Random], Task]]] = {
    "counting": _counting,
    "spatial": _spatial,
    "temporal": _temporal,
    "negation": _negation,
    "constraint": _constraint,
}
