"""How fast this machine interprets: pure-Python code of the standard library on fixed inputs, its instructions counted.

A tight loop of one's own flatters an interpreter: every instruction is specialised and every branch foreseen. Ordinary
code calls, allocates and jumps about, and takes three times as long for an instruction. So what is timed are modules
of the standard library that are written in Python, none of which a workload is made of.
"""

import copy
import difflib
import pprint
import re
import statistics
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final, NamedTuple

_PASS_S: Final = 3e-3
_PASSES: Final = 5

_TEXT: Final = (
    "The harbour was quiet when they came back, and nobody on the long wooden pier asked where the two boats had been "
    "all night, or why the lamps were still burning in the afternoon of a bright day in early spring."
)
_TREE: Final = {"a": [1, 2, (3, 4)], "b": {"c": ["x", "y", {"z": (5.0, None)}], "d": [[1], [2], [3]]}, "e": "text"}
_SHARES: Final = tuple(Fraction(n, n + 7) for n in range(1, 9))
_WORDS: Final = tuple(_TEXT.split())
_PATTERNS: Final = (
    re.compile(r"\d+(?:\.\d+)?\s*[+*/-]"),
    re.compile(r"(?<=\w)-(?=\d)"),
    re.compile(r"\b(?:lamps|boats) were (\w+)"),
)


class Counts(NamedTuple):
    """What a call interprets: bytecode instructions, and calls of C functions."""

    python_ops_count: int
    native_calls_count: int


class Interpreter(NamedTuple):
    """Seconds of one bytecode instruction, one call of a C function beside its instructions, one character of re."""

    python_op_s: float
    native_call_s: float
    regex_char_s: float


def count(call: Callable[[], object]) -> Counts:
    """Run ``call`` once under the interpreter's own tracer. The counts are the same on every machine."""
    instructions = 0
    calls = 0

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal instructions
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            instructions += 1
        return trace

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "c_call"

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])
    return Counts(instructions, max(calls - 1, 0))  # the last call is setprofile itself


def best(call: Callable[[], object], *, passes: int = _PASSES) -> float:
    """Seconds of one call: the best of several passes of some milliseconds."""
    call()
    begin = time.perf_counter()
    call()
    repeats = max(1, int(_PASS_S / max(time.perf_counter() - begin, 1e-9)))
    times = []
    for _ in range(passes):
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        times.append((time.perf_counter() - begin) / repeats)
    return min(times)


def speed() -> Interpreter:
    """Time one instruction, one native call and one character that a regular expression looks at.

    Least squares of relative errors over the tasks: a n + b m = t for n instructions, m native calls, t seconds. A
    native call takes at least nothing beside the instruction that makes it.
    """
    rows = [(c.python_ops_count / s, c.native_calls_count / s) for s, c in ((best(t), count(t)) for t in TASKS)]
    xx, xy, yy = (sum(r[i] * r[j] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    x, y = sum(r[0] for r in rows), sum(r[1] for r in rows)
    native_call_s = (xx * y - xy * x) / (xx * yy - xy * xy)
    if native_call_s < 0:
        native_call_s = 0.0
    python_op_s = (x - xy * native_call_s) / xx
    return Interpreter(python_op_s, native_call_s, best(_matched) / (len(_PATTERNS) * len(_TEXT)))


def _likeness() -> object:
    return difflib.SequenceMatcher(None, _TEXT[:70], _TEXT[40:110]).ratio()


def _copied() -> object:
    return copy.deepcopy(_TREE)


def _printed() -> object:
    return pprint.pformat(_TREE, width=30)


def _summed() -> object:
    total = Fraction(0)
    for share in _SHARES:
        total = total * share + share
    return total


def _varied() -> object:
    return statistics.stdev((2.5, 3.5, 1.25, 7.0, 0.5, 4.0, 2.0, 9.5))


def _natives() -> object:
    """Short calls such as text and look-ups need."""
    table: dict[str, int] = {}
    for word in _WORDS:
        table[word] = table.get(word, 0) + len(word)
        word.replace("a", "b")
        isinstance(word, str)
        word.startswith("th")
        str(len(word))
    return sorted(table.items())


def _matched() -> object:
    return [pattern.sub("", _TEXT) for pattern in _PATTERNS]


TASKS: Final[tuple[Callable[[], object], ...]] = (_likeness, _copied, _printed, _summed, _varied, _natives)
