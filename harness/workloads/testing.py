"""For authors of systems: the suite that a system must pass.

A test of one's own package is enough::

    from harness.workloads.testing import check_system

    def test_my_system(tmp_path):
        check_system(SYSTEM, tmp_path)
"""

from pathlib import Path
from typing import Any

import msgspec

from harness.workloads.parts import SystemParts, needed
from harness.workloads.predict import StepMachine, predict_steps
from harness.workloads.system import Context, System, kind_of

_MOST_CASES = 20
_MACHINE = StepMachine(slowness=1.0, read_bytes_per_s=1e10, flops_per_s=1e10, laws={})


def check_system(
    system: System, folder: Path, *, size: str = "default", parts: SystemParts | None = None
) -> dict[str, Any]:
    """The figures of a system that declares its cost, prepares, answers its first built-in cases, and scores them.

    Raises:
        AssertionError: A promise is broken; names the promise.
        WrongAnswerError: Its own score found a wrong answer.
    """
    assert system.name.isidentifier(), f"the name is an identifier: {system.name!r}"
    assert system.title, "a title for people"
    assert "default" in system.sizes, "a size named default"
    parts = parts or SystemParts()
    there = needed(system.parts, parts.names)
    chosen = system.sizes[size]
    cases = list(system.cases(chosen, 1))[:_MOST_CASES]
    assert cases, "built-in cases"
    for case in cases:
        assert case.keys() <= system.columns.keys(), f"cases have the columns that are named: {sorted(case)}"
        for name, column in system.columns.items():
            assert name in case or not column.needed, f"a case without {name!r}"
    costs = system.cost(there, chosen)
    kinds = {kind_of(case) for case in system.cases(chosen, 1)}
    assert costs.keys() >= kinds, f"a cost for each kind of step: none for {sorted(kinds - costs.keys())}"
    state = system.prepare(parts, chosen, Context(folder, folder))
    answers = [system.step(state, case) for case in cases]
    msgspec.json.encode(answers)  # a TypeError says which value is none of JSON's
    figures = dict(system.score(cases, answers))
    msgspec.json.encode(figures)
    if parts == SystemParts():
        assert all(step.latency_s is not None for step in predict_steps(costs, _MACHINE)), "no part, so no missing law"
    return figures
