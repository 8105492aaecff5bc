"""The child of a workload: what an evaluation found so far is told, also where an answer was wrong."""

import pytest

from harness.errors import WrongAnswerError
from harness.measure import workload_runner
from harness.ports import Operation


class Wrong:
    """A workload whose check fails and whose evaluation has two parts; the second may break down."""

    def __init__(self, breaks):
        self.breaks = breaks

    def prepare(self, size, context):
        return size

    def operations(self, state):
        return (Operation("nothing", lambda: None),)

    def check(self, state):
        raise WrongAnswerError("two and two are five")

    def evaluate(self, context):
        found = {"first": 1}
        context.tell(found)
        if self.breaks:
            raise ValueError("no second part")
        return {**found, "second": 2, "has_time": context.until_s < float("inf")}


@pytest.mark.parametrize(
    ("breaks", "error", "last"),
    [(False, WrongAnswerError, {"first": 1, "second": 2, "has_time": True}), (True, ValueError, {"first": 1})],
)
def test_an_evaluation_is_told_part_by_part_and_after_a_wrong_answer_too(monkeypatch, breaks, error, last):
    monkeypatch.setattr(workload_runner.plugins, "load", lambda *_: Wrong(breaks))
    events = []
    job = {"name": "wrong", "size": {"n": 1}, "repetitions": 1, "evaluate": True, "wall_s": 60.0}
    with pytest.raises(error):
        workload_runner.run_workload(job, lambda name, data=None: events.append((name, data)))
    told = [data for name, data in events if name == "evaluation"]
    assert (told[0], told[-1]) == ({"first": 1}, last)


def test_without_evaluation_none_is_told(monkeypatch):
    monkeypatch.setattr(workload_runner.plugins, "load", lambda *_: Wrong(False))
    events = []
    with pytest.raises(WrongAnswerError):
        workload_runner.run_workload(
            {"name": "wrong", "size": {}, "repetitions": 1}, lambda *event: events.append(event)
        )
    assert not [event for event in events if event[0] == "evaluation"]
