"""Assign people to rooms under constraints: solved, or proved to have no solution, by trying every assignment."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from harness.errors import RefusedError

MOST_PEOPLE: Final = 16


class Puzzle(NamedTuple):
    """People, rooms, and what must hold: pairs together, pairs apart, (person, room) allowed not, most in one room."""

    people: tuple[str, ...]
    rooms: tuple[str, ...]
    together: tuple[tuple[str, str], ...] = ()
    apart: tuple[tuple[str, str], ...] = ()
    banned: tuple[tuple[str, str], ...] = ()
    most: int = 0


class Verdict(NamedTuple):
    """A solution, or None where there is none; ``is_unique`` when no other one exists."""

    solution: dict[str, str] | None
    is_unique: bool


def violations(puzzle: Puzzle, answer: Mapping[str, str]) -> list[str]:
    """What an answer breaks, in words; empty for a right one."""
    missing = [f"{p} has no room" for p in puzzle.people if answer.get(p) not in puzzle.rooms]
    return missing + _broken(puzzle, answer)


def _broken(puzzle: Puzzle, answer: Mapping[str, str]) -> list[str]:
    """What the rooms given so far break."""
    pairs = [(a, b) for a, b in puzzle.together if a in answer and b in answer]
    broken = [f"{a} and {b} are not together" for a, b in pairs if answer[a] != answer[b]]
    pairs = [(a, b) for a, b in puzzle.apart if a in answer and b in answer]
    broken += [f"{a} and {b} are together" for a, b in pairs if answer[a] == answer[b]]
    broken += [f"{p} may not be in {r}" for p, r in puzzle.banned if answer.get(p) == r]
    if puzzle.most:
        held = list(answer.values())
        broken += [f"{r} holds more than {puzzle.most}" for r in puzzle.rooms if held.count(r) > puzzle.most]
    return broken


def solve(puzzle: Puzzle) -> Verdict:
    """Solve a puzzle by backtracking, up to the second solution.

    Raises:
        RefusedError: Unknown names, or more than 16 people.
    """
    known = set(puzzle.people)
    named = {p for pair in (*puzzle.together, *puzzle.apart) for p in pair} | {p for p, _ in puzzle.banned}
    if not named <= known or not {r for _, r in puzzle.banned} <= set(puzzle.rooms):
        raise RefusedError("a constraint names somebody or some room that is not there")
    if len(puzzle.people) > MOST_PEOPLE:
        raise RefusedError(f"a puzzle has at most {MOST_PEOPLE} people, not {len(puzzle.people)}")
    found: list[dict[str, str]] = []

    def go(at: int, answer: dict[str, str]) -> None:
        if at == len(puzzle.people):
            found.append(answer)
            return
        person = puzzle.people[at]
        for room in puzzle.rooms:
            given = answer | {person: room}
            if len(found) < 2 and not _broken(puzzle, given):
                go(at + 1, given)

    go(0, {})
    assert not found or not violations(puzzle, found[0])
    return Verdict(found[0] if found else None, len(found) == 1)
