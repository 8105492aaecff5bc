"""For authors of systems: the suite that a system must pass.

A test of one's own package is enough::

    from harness.workloads.testing import check_system

    def test_my_system(tmp_path):
        check_system(SYSTEM, tmp_path)
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from harness.domain.result import Score
from harness.errors import RefusedError
from harness.workloads.parts import Parts
from harness.workloads.system import Context, System, kind_of

_MOST_CASES = 20


def check_system(
    system: System, folder: Path, *, size: str = "default", parts: Parts | None = None
) -> Sequence[Score]:
    """The figures of a system that prepares, answers its first built-in cases, and scores them.

    Raises:
        AssertionError: A promise is broken; names the promise.
        RefusedError: A part that it needs is not among ``parts``.
        WrongAnswerError: Its own score found a wrong answer.
    """
    assert system.name.isidentifier() and system.title, "a name that is an identifier, a title for people"
    tags = [kind_of(kind) for kind in system.kinds]
    assert len(set(tags)) == len(tags), "each kind has a tag of its own"
    parts = parts or Parts()
    chosen = system.sizes[size]
    cases = list(system.cases(chosen, 1))[:_MOST_CASES]
    assert cases and all(isinstance(case, system.kinds) for case in cases), "built-in cases of its kinds"
    for part in sorted({part for case in cases for part in case.needs}):
        if getattr(parts, part) is None:
            raise RefusedError(f"{system.name} needs {part}")
    state = system.prepare(parts, chosen, Context(folder, folder))
    answers = [system.step(state, case) for case in cases]
    msgspec.json.encode(answers)  # a TypeError says which value is none of JSON's
    scores = system.score(cases, answers)
    msgspec.json.encode(scores)
    return scores
