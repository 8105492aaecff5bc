"""A model's own solution as a small program: assignments with arithmetic, worked exactly and never executed.

A small model writes a program more often right than it judges a stranger's step, and arithmetic in a program has no
slips (Gao et al. 2023, "PAL: Program-aided Language Models", arXiv:2211.10435). Where a trace ends in another answer
than the program, its first result that the program never had is the step to doubt.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Final

from harness.ports import Session
from harness.workloads._language.generate import Plan, answers
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import text_table
from harness.workloads.reasoning import exact
from harness.workloads.reasoning.claims import tokenise

_BINARY: Final[Mapping[type, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}
_CALLS: Final[Mapping[str, Callable[..., Fraction]]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "int": lambda a: Fraction(int(a)),
    "round": lambda a, *digits: Fraction(round(a, *map(int, digits))),
}
NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_RESULT: Final = re.compile(
    r"(?:=|≈|\bis|\bare)[^\d=\n]{0,12}?(-?\d[\d,]*(?:\.\d+)?)(?![\d,.]*\d|\s*(?:[-+*/×÷^(]|\\times|\\div|\\cdot))"
)
"""A number after an equals sign, with no sign of a calculation behind it: a result, and not the start of a sum."""
_BOXED: Final = re.compile(r"\\boxed\{(.*)\}")
_TOLD: Final = text_table("instructions")["programs"]
PROGRAMS: Final = 4
"""Programs for each problem."""
TOGETHER: Final = 3
"""Problems whose programs are written in one batch."""


class Author:
    """Lets a model write programs for problems.

    The session has a sequence for each program of a batch, and one more; what comes before every problem is read once
    and kept in the first one until something else clears it (``forget``).
    """

    def __init__(self, session: Session, template: ChatTemplate, seed: int) -> None:
        self._session = session
        self._before, self._after = template.around(session, _TOLD["instruction"], _TOLD["examples"])
        self._plan = Plan(_TOLD["most_tokens"], seed=seed, ends=session.is_end)
        self._is_kept = False
        self.drawn_count = 0

    def write(self, problems: Sequence[str], count: int = PROGRAMS) -> list[list[str]]:
        """So many programs for each of a few problems, drawn in one batch of the session's other sequences."""
        if not self._is_kept:
            self._session.clear()
            self._session.decode(self._before, position=0, logits="none")
            self._is_kept = True
        asked = [self._session.tokenize(problem, add_special=False) + self._after for problem in problems]
        prompts = [prompt for prompt in asked for _ in range(count)]
        numbers = [number for _ in asked for number in range(count)]
        drawn = answers(self._session, len(self._before), prompts, numbers, self._plan)
        self.drawn_count += sum(sample.step_count for sample in drawn)
        texts = [self._session.detokenize(list(sample.tokens)) for sample in drawn]
        return [texts[at : at + count] for at in range(0, len(texts), count)]

    def forget(self) -> None:
        """Read what comes first again before the next problem."""
        self._is_kept = False


def worked(program: str) -> list[Fraction]:
    """What each line of assignments gives, in order; nothing where a line is anything else, or passes a cap."""
    known: dict[str, Fraction] = {}
    found = []
    try:
        for line in ast.parse(program).body:
            if isinstance(line, ast.Assign) and len(line.targets) == 1:
                target, value = line.targets[0], _value(line.value, known)
            elif isinstance(line, ast.AugAssign):
                target, value = line.target, _value(ast.BinOp(line.target, line.op, line.value), known)
            else:
                return []
            if not isinstance(target, ast.Name):
                return []
            known[target.id] = value
            found.append(value)
    except (SyntaxError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError, MemoryError):
        return []
    return found


def _value(node: ast.expr, known: Mapping[str, Fraction]) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number):
            value = Fraction(str(number))
        case ast.Name(id=name):
            value = known[name]
        case ast.UnaryOp(op=ast.USub(), operand=part):
            value = -_value(part, known)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            power = _value(right, known)
            if power.denominator != 1 or abs(power) > exact.MAX_EXPONENT:
                raise ValueError("exponent out of range")
            value = _value(left, known) ** int(power)
        case ast.BinOp(left=left, op=sign, right=right):
            value = _BINARY[type(sign)](_value(left, known), _value(right, known))
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]):
            value = Fraction(_CALLS[name](*(_value(part, known) for part in parts)))
        case _:
            raise ValueError(f"no arithmetic: {ast.dump(node)[:40]}")
    exact.cap(value)
    return value


def doubted(steps: Sequence[str], problem: str, programs: Sequence[str]) -> int:
    """The first step with a result that neither the problem nor a program has; -1 where a program ends as the trace.

    The last step where each result is known. -1 too where no program could be worked, and where the trace ends in
    something else than a number.
    """
    own = [found for found in map(worked, programs) if found]
    ends = _ends(steps[-1])
    if not own or not ends or any(_is(abs(found[-1]), abs(end), 2) for found in own for end in ends):
        return -1
    given = [_number(told)[0] for told in NUMBER.findall(problem)]
    known = [*given, *(sign * v for found in own for v in found for sign in (1, -1, 100))]
    for at, step in enumerate(steps):
        if any(not any(_is(v, *_number(told)) for v in known) for told in _RESULT.findall(step)):
            return at
    return len(steps) - 1


def _ends(step: str) -> list[Fraction]:
    """What a last step may say that the answer is: what stands in a box, else its last two numbers."""
    boxed = _BOXED.search(step)
    if boxed:
        with suppress(exact.NotArithmeticError):
            return list(exact.values([t for t in tokenise(boxed[1]) if t not in ("$", ";", "%")]))
        return []
    return [_number(told)[0] for told in NUMBER.findall(step)[-2:]]


def _number(told: str) -> tuple[Fraction, int]:
    """A number and its places behind the point."""
    plain = told.rstrip(",").replace(",", "")
    return Fraction(plain), len(plain.partition(".")[2])


def _is(value: Fraction, told: Fraction, places: int) -> bool:
    """Whether a value is the number told, rounded to its places."""
    return bool(abs(value - told) * 10**places <= Fraction(1, 2))
