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
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
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
_PATTERNS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"\d+(?:\.\d+)?\s*[+*/-]",
        r"(?<=\w)-(?=\d)",
        r"\b(?:lamps|boats) were (\w+)",
        r"[\w.+-]+@[\w-]+\.\w+",
        r"https?://\S+",
        r"<[^<>]*>",
        r"\s+$",
        r"(?<!\w)'([^']*)'",
        r"\b(\d{1,2})[/.](\d{1,2})[/.](\d{4})\b",
        r"\$\s?(?=\d)",
        r"&(?:amp|lt|gt|quot);",
        r"\b(\w+) \1\b",
        r"[^\x00-\x7f]",
        r"^\s*(?:[-*]|\d{1,2}[.)])\s+",
        r"(?i)\b(?:st|nd|rd|th)\b",
        r"\((?:see|cf\.) [^)]*\)",
    )
)
"""Such as clean text: what they look for is mostly not there."""
_LONG_TEXTS: Final = tuple(_TEXT[at : at + 120] for at in range(0, 80, 16))
_SHORT_CHARS: Final = 24
_SHORT_TEXTS: Final = tuple(_TEXT[at : at + _SHORT_CHARS] for at in range(0, 160, 32))


class Counts(NamedTuple):
    """What a call interprets: bytecode instructions, and calls of C functions."""

    python_ops_count: int
    native_calls_count: int


class Interpreter(NamedTuple):
    """Seconds of one bytecode instruction, one call of a C function, one of a regular expression, and one character.

    The calls beside their instructions.
    """

    python_op_s: float
    native_call_s: float
    regex_call_s: float
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


def usual(call: Callable[[], object], *, passes: int = _PASSES, pass_s: float = _PASS_S) -> float:
    """Seconds of one call: the middle one of several passes of some milliseconds, as a median is to be predicted."""
    times = _passes(call, passes, pass_s)
    return sorted(times)[(len(times) - 1) // 2]


def best(call: Callable[[], object], *, passes: int = _PASSES) -> float:
    """Seconds of one call: the best of several passes of some milliseconds."""
    return min(_passes(call, passes, _PASS_S))


def _passes(call: Callable[[], object], passes: int, pass_s: float) -> list[float]:
    call()
    begin = time.perf_counter()
    call()
    repeats = max(1, int(pass_s / max(time.perf_counter() - begin, 1e-9)))
    times = []
    for _ in range(passes):
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        times.append((time.perf_counter() - begin) / repeats)
    return times


def speed() -> Interpreter:
    """Time one instruction, one native call, one call of a regular expression and one character that it looks at.

    A native call: least squares of relative errors over the tasks of a n + b m = t for n instructions, m native calls,
    t seconds; it takes at least nothing beside the instruction that makes it. An instruction: what is left of t, over
    n, on average over the tasks, each of which is one kind of code.
    """
    timed = [(usual(task), count(task)) for task in TASKS]
    rows = [(c.python_ops_count / s, c.native_calls_count / s) for s, c in timed]
    xx, xy, yy = (sum(r[i] * r[j] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    x, y = sum(r[0] for r in rows), sum(r[1] for r in rows)
    native_call_s = max(0.0, (xx * y - xy * x) / (xx * yy - xy * xy))
    left = [(s - native_call_s * c.native_calls_count) / c.python_ops_count for s, c in timed]
    python_op_s = max(sum(left) / len(left), 1e-12)
    tried_count = len(_PATTERNS) * len(_LONG_TEXTS)
    long_s, short_s = (usual(partial(_matched, t)) / tried_count for t in (_LONG_TEXTS, _SHORT_TEXTS))
    regex_char_s = max(long_s - short_s, 0.0) / (len(_LONG_TEXTS[0]) - _SHORT_CHARS)
    return Interpreter(python_op_s, native_call_s, max(short_s - _SHORT_CHARS * regex_char_s, 0.0), regex_char_s)


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


def _matched(texts: Sequence[str]) -> object:
    return [pattern.sub("", text) for text in texts for pattern in _PATTERNS]


TASKS: Final[tuple[Callable[[], object], ...]] = (_likeness, _copied, _printed, _summed, _varied, _natives)
