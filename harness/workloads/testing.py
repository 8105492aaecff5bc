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
from harness.workloads.child import SystemJob, declare
from harness.workloads.parts import Parts, needed
from harness.workloads.system import Context, System, kind_of

_MOST_CASES = 20


def check_system(
    system: System, folder: Path, *, size: str = "default", parts: Parts | None = None
) -> Sequence[Score]:
    """The figures of a system that declares its passes, prepares, answers its first built-in cases, and scores them.

    Raises:
        AssertionError: A promise is broken; names the promise.
        RefusedError: A part that it needs is not among ``parts``.
        WrongAnswerError: Its own score found a wrong answer.
    """
    assert system.name.isidentifier(), f"the name is an identifier: {system.name!r}"
    assert system.title, "a title for people"
    assert "default" in system.sizes, "a size named default"
    parts = parts or Parts()
    chosen = dict(system.sizes[size])
    needed(system, system.part_names(chosen), dict.fromkeys(parts.names, ""))
    cases = list(system.cases(chosen, 1))[:_MOST_CASES]
    assert cases, "built-in cases"
    assert all(isinstance(case, system.kinds) for case in cases), "cases are of its kinds"
    assert len({kind_of(kind) for kind in system.kinds}) == len(system.kinds), (
        "each kind has a tag of its own"
    )
    declared = declare(system, cases, SystemJob(name=system.name, size=chosen), parts)
    state = system.prepare(parts, chosen, Context(folder, folder))
    parts.meter.drain()
    answers = []
    for case, chain in zip(cases, declared, strict=True):
        answers.append(system.step(state, case))
        taken = {(each.one.part, each.one.op) for each in parts.meter.drain()}
        missing = taken - {(one.part, one.op) for one in chain.passes}
        assert not missing, f"a step runs the passes that its chain declares: not declared {sorted(missing)}"
    msgspec.json.encode(answers)  # a TypeError says which value is none of JSON's
    scores = system.score(cases, answers)
    msgspec.json.encode(scores)
    return scores
