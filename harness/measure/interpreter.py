"""How fast this machine interprets: pure-Python code of the standard library on fixed inputs, its instructions counted.

A tight loop of one's own flatters an interpreter: every instruction is specialised and every branch foreseen. Ordinary
code calls, allocates and jumps about, and takes three times as long for an instruction. So what is timed are modules
of the standard library that are written in Python, none of which a workload is made of.
"""

import copy
import difflib
import pprint
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final

from harness.domain.workload import NATIVE_OPS

_PASS_S: Final = 3e-3
_PASSES: Final = 5

_TEXT: Final = (
    "The harbour was quiet when they came back, and nobody on the long wooden pier asked where the two boats had been "
    "all night, or why the lamps were still burning in the afternoon of a bright day in early spring."
)
_TREE: Final = {"a": [1, 2, (3, 4)], "b": {"c": ["x", "y", {"z": (5.0, None)}], "d": [[1], [2], [3]]}, "e": "text"}


def count(call: Callable[[], object]) -> int:
    """Bytecode instructions of ``call`` under the interpreter's own tracer, and ``NATIVE_OPS`` for a call in C.

    The count is the same on every machine. It runs twice and counts the second: Python 3.12 and later count the
    instructions of a function from its second traced call on.
    """
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
        instructions = calls = 0
        call()
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])
    return instructions + NATIVE_OPS * max(calls - 1, 0)  # the last call is setprofile itself


def usual(call: Callable[[], object], *, passes: int = _PASSES, pass_s: float = _PASS_S) -> float:
    """Seconds of one call: the middle one of several passes of some milliseconds, as a median is to be predicted."""
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
    return sorted(times)[(len(times) - 1) // 2]


def python_op_s() -> float:
    """Seconds of one bytecode instruction in this process: on average over the tasks, each of one kind of code.

    The same code takes up to twice as long in one process as in the next: where its objects and the interpreter's own
    code lie differs, and a neighbour on the core's other thread comes and goes. One process is one draw of that.
    """
    return sum(usual(task) / count(task) for task in TASKS) / len(TASKS)


def run(_arguments: Mapping[str, Any], emit: Callable[[str, Any], None]) -> None:
    """Entry point of a child: emits ``python_op_s``."""
    emit("python_op_s", python_op_s())


def _natives() -> object:
    """Short calls such as text and look-ups need."""
    table: dict[str, int] = {}
    for word in _TEXT.split():
        table[word] = table.get(word, 0) + len(word)
        word.replace("a", "b")
        isinstance(word, str)
        word.startswith("th")
        str(len(word))
    return sorted(table.items())


TASKS: Final[tuple[Callable[[], object], ...]] = (
    lambda: difflib.SequenceMatcher(None, _TEXT[:70], _TEXT[40:110]).ratio(),
    lambda: copy.deepcopy(_TREE),
    lambda: pprint.pformat(_TREE, width=30),
    lambda: sum((Fraction(n, n + 7) * Fraction(n + 1, 3) for n in range(1, 9)), Fraction(0)),
    lambda: statistics.stdev((2.5, 3.5, 1.25, 7.0, 0.5, 4.0, 2.0, 9.5)),
    _natives,
)
