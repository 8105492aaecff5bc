"""For authors of systems: the suite that a system must pass.

A test of one's own package is enough::

    from harness.workloads.testing import check_system

    def test_my_system(tmp_path):
        check_system(SYSTEM, tmp_path)
"""

from pathlib import Path

import msgspec

from harness.errors import RefusedError
from harness.workloads.parts import Parts
from harness.workloads.system import Context, Scores, System


def check_system(system: System, folder: Path, size: str = "default", parts: Parts | None = None) -> Scores:
    """The figures of a system that prepares, answers its first built-in cases, and scores them.

    Raises:
        AssertionError: A promise is broken; names the promise.
        RefusedError: A part that it needs is not among ``parts``.
        WrongAnswerError: Its own score found a wrong answer.
    """
    context = Context(parts or Parts(), system.sizes[size], folder)
    cases = list(system.cases(context.size))[:20]
    assert cases and all(isinstance(case, system.kinds) for case in cases), "built-in cases of its kinds"
    for part in sorted({part for case in cases for part in case.needs}):
        if getattr(context.parts, part) is None:
            raise RefusedError(f"{system.name} needs {part}")
    state = system.prepare(context)
    answers = [system.step(state, case) for case in cases]
    msgspec.json.encode(answers)  # a TypeError says which value is none of JSON's
    return system.score(cases, answers)
