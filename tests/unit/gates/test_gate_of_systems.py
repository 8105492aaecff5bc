"""A gate on a system: a build that halves recall, or doubles latency or memory, fails, here and on a target."""

from pathlib import Path

import pytest
from msgspec import structs

from harness.core.budget import Budget
from harness.core.record import MachineFingerprint, MemoryUse, Record, Sample
from harness.core.result import Score, SystemResult
from harness.core.scenario import Scenario
from harness.gates.evaluate import evaluate
from harness.measure.machine import fingerprint
from harness.measure.runner import new_record
from harness.records.store import load

BUDGETS = [
    Budget(metric="recall_at_10", workload="memory", label="ask", floor=0.6),
    Budget(metric="workload_p95_s", workload="memory", ceiling=0.012),
    Budget(metric="peak_anonymous_bytes", workload="memory", ceiling=90e6),
]


def measured(device: str, *, recall: float = 0.675, latency_s: float = 0.008, memory_bytes: int = 70_000_000) -> Record:
    samples = tuple(
        Sample(phase="workload", label="ask", token_count=1, duration_s=latency_s * (1 + at / 100), started_unix_s=0.0)
        for at in range(20)
    )
    machine: MachineFingerprint = structs.replace(fingerprint(), device=device)
    other = Score(name="recall_at_10", group="locomo", value=0.0)
    result = SystemResult(size={}, scores=(Score(name="recall_at_10", group="ask", value=recall, count=900), other))
    held = MemoryUse(peak_rss_bytes=2 * memory_bytes, peak_anonymous_bytes=memory_bytes)
    return new_record(scenario=Scenario(), workload="memory", machine=machine, outcome="ok", samples=samples,
                      memory=held, result=result)  # fmt: skip


@pytest.mark.parametrize("device", ["this machine", "Google Pixel 8 Pro"])
@pytest.mark.parametrize(
    ("worse", "broken"),
    [
        ({}, []),
        ({"recall": 0.675 / 2}, ["recall_at_10"]),
        ({"latency_s": 0.016}, ["workload_p95_s"]),
        ({"memory_bytes": 140_000_000}, ["peak_anonymous_bytes"]),
    ],
)
def test_what_got_worse_is_what_fails(device, worse, broken):
    judged = evaluate(BUDGETS, [measured(device, **worse) for _ in range(3)])
    assert [one.budget.metric for one in judged if one.answer == "fail"] == broken
    assert [one.answer for one in judged].count("pass") == len(BUDGETS) - len(broken)


ON_A_TARGET = [
    Budget(metric="recall_at_10", workload="memory", label="ask", floor=0.5),
    Budget(metric="workload_p95_s", workload="memory", label="tell", ceiling=0.025),
    Budget(metric="peak_anonymous_bytes", workload="memory", ceiling=30e6),
]


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("stands", []),
        ("half_told", ["recall_at_10"]),  # recall .338 in place of .646
        ("long_texts", ["recall_at_10", "workload_p95_s", "peak_anonymous_bytes"]),  # 59 ms for 6, 74 MiB for 17
    ],
)
def test_runs_on_a_device_without_python_are_judged_as_any_other(name, broken):
    """Three runs of the memory on an adb device with llama-bench alone.

    A conversation of LoCoMo as it is, with every second turn not told, and with twelve turns told as one.
    """
    record = load(Path(__file__).parent / "data" / f"system_{name}.json")
    assert record.extra == {"target": "adb"} and record.runtime == "executable"
    assert {row.where[:6] for row in record.result.passes} == {"adb://"}
    judged = evaluate(ON_A_TARGET, [record])
    assert [one.budget.metric for one in judged if one.answer == "fail"] == broken
