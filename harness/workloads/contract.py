"""Check the promises of a system, in the tests of its author.

One test in the author's own package is enough::

    def test_my_system_keeps_its_promises(tmp_path):
        check_system(MySystem(), tmp_path)  # raises AssertionError, which names the promise
"""

import json
from pathlib import Path

from harness.workloads.system import Context, System
from harness.workloads.system_parts import SystemParts

_MOST_CASES = 20


def check_system(system: System, folder: Path, parts: SystemParts | None = None) -> None:
    """Check that a system's first cases are of its kinds, its answers JSON, and its scores beside nulls.

    ``parts`` holds the models and stores that its cases need.

    Raises:
        AssertionError: A promise is broken.
    """
    size = system.sizes.get("small", system.sizes["default"])
    cases = list(system.cases(size))[:_MOST_CASES]
    assert cases, "it has cases of its own"
    assert all(isinstance(case, system.kinds) for case in cases), "its cases are of its kinds"
    state = system.prepare(Context(parts or SystemParts(), size, folder))
    answers = [system.step(state, system.ready(state, case)) for case in cases]
    json.dumps([answers, [system.nulls(state, case) for case in cases]])
    scores = system.score(cases, answers)
    assert scores, "its answers are scored"
    assert all(score.count for score in scores), "each score says of how many cases it is"
    assert any(score.nulls for score in scores), (
        "a score stands beside a null: what answers without the work would get"
    )
