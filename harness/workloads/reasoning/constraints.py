"""Assign people to rooms under constraints: solved, or proved to have no solution, and checked by itself.

python-sat (extra ``reasoning``) where it is installed; else backtracking, which is as exact and slower.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Final, NamedTuple

from harness.errors import RefusedError

MAX_BACKTRACK: Final = 16


class Puzzle(NamedTuple):
    """People, rooms, and what must hold: pairs together, pairs apart, (person, room) allowed not, most in one room."""

    people: tuple[str, ...]
    rooms: tuple[str, ...]
    together: tuple[tuple[str, str], ...] = ()
    apart: tuple[tuple[str, str], ...] = ()
    banned: tuple[tuple[str, str], ...] = ()
    most: int = 0


class Verdict(NamedTuple):
    """A solution, or None with a proof that there is none; ``is_unique`` when no other one exists."""

    solution: dict[str, str] | None
    is_unique: bool
    solver: str


def violations(puzzle: Puzzle, answer: Mapping[str, str]) -> list[str]:
    """What an answer breaks, in words; empty for a right one."""
    broken = [f"{p} has no room" for p in puzzle.people if answer.get(p) not in puzzle.rooms]
    broken += [f"{a} and {b} are not together" for a, b in puzzle.together if answer.get(a) != answer.get(b)]
    broken += [f"{a} and {b} are together" for a, b in puzzle.apart if answer.get(a) == answer.get(b)]
    broken += [f"{p} may not be in {r}" for p, r in puzzle.banned if answer.get(p) == r]
    if puzzle.most:
        held = [r for r in puzzle.rooms if sum(answer.get(p) == r for p in puzzle.people) > puzzle.most]
        broken += [f"{r} holds more than {puzzle.most}" for r in held]
    return broken


def solve(puzzle: Puzzle, *, solver: str = "") -> Verdict:
    """Solve a puzzle and check the solution.

    Args:
        puzzle: What must hold.
        solver: ``sat`` or ``backtracking``; empty for the first that is there.

    Raises:
        RefusedError: Unknown names, or more than 16 people without python-sat.
    """
    known = set(puzzle.people)
    named = {p for pair in (*puzzle.together, *puzzle.apart) for p in pair} | {p for p, _ in puzzle.banned}
    if not named <= known or not {r for _, r in puzzle.banned} <= set(puzzle.rooms):
        raise RefusedError("a constraint names somebody or some room that is not there")
    if solver != "backtracking":
        try:
            from pysat.solvers import Cadical153
        except ImportError:
            if solver == "sat":
                raise RefusedError("python-sat is not installed: pip install 'edge-harness[reasoning]'") from None
        else:
            return _by_sat(puzzle, Cadical153)
    if len(puzzle.people) > MAX_BACKTRACK:
        raise RefusedError(f"more than {MAX_BACKTRACK} people need python-sat: pip install 'edge-harness[reasoning]'")
    return _by_backtracking(puzzle)


def clauses(puzzle: Puzzle) -> list[list[int]]:
    """Conjunctive normal form; variable 1 + person * rooms + room."""
    rooms = len(puzzle.rooms)
    index = {p: i for i, p in enumerate(puzzle.people)}

    def of(person: str, room: int) -> int:
        return 1 + index[person] * rooms + room

    every = range(rooms)
    cnf = [[of(p, r) for r in every] for p in puzzle.people]
    cnf += [[-of(p, a), -of(p, b)] for p in puzzle.people for a, b in combinations(every, 2)]
    cnf += [[-of(a, r), of(b, r)] for x, y in puzzle.together for a, b in ((x, y), (y, x)) for r in every]
    cnf += [[-of(a, r), -of(b, r)] for a, b in puzzle.apart for r in every]
    cnf += [[-of(p, puzzle.rooms.index(r))] for p, r in puzzle.banned]
    if puzzle.most:
        cnf += [[-of(p, r) for p in group] for group in combinations(puzzle.people, puzzle.most + 1) for r in every]
    return cnf


def _by_sat(puzzle: Puzzle, solver_class: type) -> Verdict:
    rooms = len(puzzle.rooms)
    with solver_class(bootstrap_with=clauses(puzzle)) as solver:
        if not solver.solve():
            return Verdict(None, False, "sat")
        chosen = [v for v in solver.get_model() if v > 0]
        answer = {puzzle.people[(v - 1) // rooms]: puzzle.rooms[(v - 1) % rooms] for v in chosen}
        solver.add_clause([-v for v in chosen])
        is_unique = not solver.solve()
    assert not violations(puzzle, answer)
    return Verdict(answer, is_unique, "sat")


def _by_backtracking(puzzle: Puzzle) -> Verdict:
    found: list[dict[str, str]] = []

    def fits(answer: dict[str, str], person: str, room: str) -> bool:
        if (person, room) in puzzle.banned:
            return False
        if puzzle.most and sum(r == room for r in answer.values()) >= puzzle.most:
            return False
        return all(answer.get(b, room) == room for b in _partners(puzzle.together, person)) and all(
            answer.get(b) != room for b in _partners(puzzle.apart, person)
        )

    def go(at: int, answer: dict[str, str]) -> None:
        if at == len(puzzle.people):
            found.append(dict(answer))
            return
        person = puzzle.people[at]
        for room in puzzle.rooms:
            if len(found) < 2 and fits(answer, person, room):
                answer[person] = room
                go(at + 1, answer)
                del answer[person]

    go(0, {})
    if not found:
        return Verdict(None, False, "backtracking")
    assert not violations(puzzle, found[0])
    return Verdict(found[0], len(found) == 1, "backtracking")


def _partners(pairs: Iterable[tuple[str, str]], person: str) -> list[str]:
    return [b if a == person else a for a, b in pairs if person in (a, b)]
