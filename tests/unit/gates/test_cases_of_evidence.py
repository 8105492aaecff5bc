"""Some 300 cases of what is no evidence, a line each: records that cannot be, failed runs, clocks, budgets, imports.

Servers that lie are in ``tests/unit/runtimes/test_server_promises.py``, wrong plug-ins in
``tests/unit/security/test_wrong_plugins.py``.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from harness.core.budget import Budget
from harness.core.errors import BadDataError
from harness.core.metric import FIGURES, metric_values
from harness.core.record import Record, Sample
from harness.core.result import Load, LoadLevel, Score, Soak, SystemResult, Window
from harness.gates.budget_file import load_budgets
from harness.gates.evaluate import evaluate
from harness.gates.evidence import evidence_of
from harness.gates.propose import propose
from harness.records.imports.pasted import from_text
from harness.records.possible import impossible
from harness.records.store import load

RECORDS = Path(__file__).parents[2] / "records"
GOOD = load(RECORDS / "v2-smollm2-135m.json")
DRAFTED = load(RECORDS / "v2-speculate.json")
SCORED = load(RECORDS / "v2-quality.json")
assert GOOD.model is not None and GOOD.memory is not None
NOW = datetime(2026, 9, 2, tzinfo=UTC)


def at(record: Record, name: str, hours: float) -> Record:
    return structs.replace(record, run_id=name, created=(NOW + timedelta(hours=hours)).isoformat())


def answer_of(metric: str, records: list[Record], label: str = "") -> str:
    """The answer to a budget that every value passes, of all that is there."""
    workload = records[-1].workload
    limit = "floor" if FIGURES[metric].higher_is_better else "ceiling"
    value = 1e-12 if limit == "floor" else 1e15
    budget = Budget(metric=metric, workload=workload, label=label, **{limit: value})
    kept, faults, _ = evidence_of(records, now=NOW)
    (judged,) = evaluate([budget], kept, faults=faults)
    return judged.answer


def samples(phase: str, /, **changes: Callable[[Sample], Any]) -> Record:
    """The good record, with fields of the samples of one phase made anew."""
    return structs.replace(
        GOOD,
        samples=tuple(
            structs.replace(one, **{name: made(one) for name, made in changes.items()}) if one.phase == phase else one
            for one in GOOD.samples
        ),
    )


def quicker(phase: str, factor: float) -> Record:
    """One phase by a clock that runs slowly by ``factor``."""
    return samples(
        phase,
        duration_s=lambda one: one.duration_s / factor,
        token_times_s=lambda one: tuple(each / factor for each in one.token_times_s),
    )


def memory(**fields: int) -> Record:
    return structs.replace(GOOD, memory=structs.replace(GOOD.memory, **fields))


def file(size_bytes: int) -> Record:
    return structs.replace(GOOD, model=structs.replace(GOOD.model, size_bytes=size_bytes))


def drafted(**fields: Any) -> Record:
    return structs.replace(DRAFTED, result=structs.replace(DRAFTED.result, **fields))


def scored(**fields: Any) -> Record:
    result: Any = SCORED.result
    return structs.replace(SCORED, result=structs.replace(result, score=structs.replace(result.score, **fields)))


def soaked(speed: float, celsius: float = 60.0, joules: float | None = None) -> Record:
    windows = (Window(since_start_s=0.0, duration_s=10.0, token_count=10, celsius=celsius),)
    result = Soak(
        minutes=10.0, duty_ratio=1.0, windows=windows, burst_tokens_per_s=speed, sustained_tokens_per_s=speed,
        sustained_joules_per_token=joules,
    )  # fmt: skip
    return structs.replace(GOOD, workload="soak", result=result)


def loaded(new_tokens: int, good: int = 1, completed: int = 1) -> Record:
    level = LoadLevel(
        offered=1.0, label="u1", duration_s=1.0, completed_count=completed, good_count=good, prompt_tokens=1,
        cached_tokens=0, new_tokens=new_tokens,
    )  # fmt: skip
    return structs.replace(GOOD, workload="load", result=Load(levels=(level,)))


def answered(name: str, value: float) -> Record:
    result = SystemResult(size={}, scores=(Score(name=name, value=value),))
    return structs.replace(GOOD, workload="kept", result=result)


def _decode(change: dict[str, Callable[[Sample], Any]]) -> Record:
    return samples("decode", **change)


LIES: dict[str, tuple[str, Record]] = {}
"""By its words: the figure that it would make green, and the record."""
for factor in (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9):
    LIES[f"writing {factor:g} times faster"] = ("decode_tokens_per_s", quicker("decode", factor))
    LIES[f"times of tokens {factor:g} times shorter"] = (
        "itl_p50_s", _decode({"token_times_s": lambda one, f=factor: tuple(t / f for t in one.token_times_s)}),
    )  # fmt: skip
    LIES[f"slowest tokens {factor:g} times shorter"] = (
        "itl_p99_s", _decode({"token_times_s": lambda one, f=factor: tuple(t / f for t in one.token_times_s)}),
    )  # fmt: skip
    LIES[f"{factor:g} times the tokens"] = (
        "decode_tokens_per_s", _decode({"token_count": lambda one, f=factor: int(one.token_count * f)}),
    )  # fmt: skip
for factor in (1e4, 1e5, 1e6, 1e8, 1e9):
    LIES[f"reading {factor:g} times faster"] = ("prefill_tokens_per_s", quicker("prefill", factor))
    LIES[f"first token {factor:g} times earlier"] = ("ttft_s", quicker("first_token", factor))
    LIES[f"reading {factor:g} times the tokens"] = (
        "prefill_tokens_per_s", samples("prefill", token_count=lambda one, f=factor: int(one.token_count * f)),
    )  # fmt: skip
for factor in (1e6, 1e7, 1e8, 1e9):
    LIES[f"loading {factor:g} times faster"] = ("load_s", quicker("load", factor))
for phase, metric in (("decode", "decode_tokens_per_s"), ("prefill", "prefill_tokens_per_s"), ("first_token", "ttft_s"),
                      ("load", "load_s")):  # fmt: skip
    LIES[f"{phase} in no time"] = (metric, samples(phase, duration_s=lambda _: 0.0))
for joules in (-1.0, -1e-9, 1e-9, 1e-6, 1e6, 1e7, 1e9, 1e12):
    LIES[f"{joules:g} joules a sample"] = ("joules_per_token", _decode({"energy_joules": lambda _, j=joules: j}))
for watts in (1e-6, 1e-4, 2e5, 1e8):
    LIES[f"{watts:g} watts"] = (
        "joules_per_token", _decode({"energy_joules": lambda one, w=watts: one.duration_s * w}),
    )  # fmt: skip
for size in (1, 512, 4095, 65_535):
    LIES[f"a process of {size} bytes"] = ("peak_memory_bytes", memory(peak_rss_bytes=size, peak_anonymous_bytes=0))
    LIES[f"private memory in {size} bytes"] = (
        "peak_anonymous_bytes", memory(peak_rss_bytes=size, peak_anonymous_bytes=size),
    )  # fmt: skip
for times in (2, 10, 100, 1000):
    LIES[f"{times} times the machine's memory"] = (
        "peak_memory_bytes", memory(peak_rss_bytes=times * GOOD.machine.ram_bytes),
    )  # fmt: skip
    LIES[f"{times} times as much private memory as memory"] = (
        "peak_anonymous_bytes", memory(peak_anonymous_bytes=times * GOOD.memory.peak_rss_bytes),
    )  # fmt: skip
for size in (1, 1_000, 1_000_000, 8_000_000, 10**10, 10**12):
    LIES[f"a file of {size} bytes"] = ("file_bytes", file(size))
for ratio in (-0.1, -5.0, 1.01, 2.0, 100.0):
    LIES[f"{ratio:g} of all drafts accepted"] = ("acceptance_ratio", drafted(acceptance_ratio=ratio))
for ratio in (-1.0, 65.0, 1e3, 1e9):
    LIES[f"drafts make it {ratio:g} times as fast"] = ("speedup_ratio", drafted(ratios=(ratio,) * 3))
for value in (-1.0, 0.5, 0.999):
    LIES[f"a perplexity of {value:g}"] = ("perplexity", scored(perplexity=value))
for value in (-1.0, -0.01, -1e6):
    LIES[f"{value:g} nats from the reference"] = ("kl_divergence_nats", scored(kl_divergence=value))
for value in (-5.0, 3e3, 1e5, 1e9):
    LIES[f"{value:g} tokens/s when warm"] = ("sustained_tokens_per_s", soaked(value))
for value in (-300.0, -61.0, 201.0, 1e4):
    LIES[f"a sensor at {value:g} C"] = ("hottest_celsius", soaked(20.0, celsius=value))
LIES["-1 J when warm"] = ("sustained_joules_per_token", soaked(20.0, joules=-1.0))
for count in (30_000, 10**6, 10**9):
    LIES[f"{count} tokens in a second for one user"] = ("new_tokens_per_s", loaded(count))
for good in (2, 100, 10**6):
    LIES[f"{good} good answers of one"] = ("goodput_requests_per_s", loaded(20, good=good))
for name, value in product(("recall_at_10", "f1", "auc", "right_ratio"), (-0.1, 1.5, 100.0)):
    LIES[f"{name} of {value:g}"] = (name, answered(name, value))


@pytest.mark.parametrize("words", LIES)
def test_a_record_that_cannot_be_makes_nothing_green(words: str) -> None:
    metric, record = LIES[words]
    honest = {"speculate": DRAFTED, "quality": SCORED}.get(record.workload, GOOD)
    before = at(structs.replace(honest, workload=record.workload), "good", -2)

    assert impossible(record), words
    assert answer_of(metric, [before, at(record, "liar", -1)]) in {"could not run", "fail"}
    assert propose([at(record, "liar", -1)]) == []


@pytest.mark.parametrize("base", [GOOD, DRAFTED, SCORED], ids=["generate", "speculate", "quality"])
def test_the_records_that_the_lies_are_made_of_may_be(base: Record) -> None:
    assert impossible(base) == ()


OUTCOMES = ("crashed", "aborted", "out of memory", "timed out", "interrupted", "refused", "failed")
FORMS: dict[str, dict[str, Any]] = {
    "as it was": {},
    "without a sample": {"samples": (), "memory": None},
    "without a model": {"model": None, "samples": (), "memory": None, "extra": {"model": GOOD.model.name}},
    "by a slip of its name": {"model": None, "samples": (), "memory": None, "extra": {"model": "smolm2"}},
    "without any name": {"model": None, "samples": (), "memory": None, "extra": {}},
    "by its path": {"model": None, "samples": (), "memory": None, "extra": {"model": f"/m/{GOOD.model.name}"}},
}


@pytest.mark.parametrize(("outcome", "form"), list(product(OUTCOMES, FORMS)))
def test_a_failed_run_is_not_made_good_by_yesterdays(outcome: Any, form: str) -> None:
    failed = at(structs.replace(GOOD, outcome=outcome, **FORMS[form]), "failed", -1)

    assert answer_of("decode_tokens_per_s", [at(GOOD, "yesterday", -24), failed]) == "could not run"


UNMEASURED = {
    "decode_tokens_per_s": samples("decode", phase=lambda _: "draft"),
    "prefill_tokens_per_s": samples("prefill", phase=lambda _: "draft"),
    "ttft_s": samples("first_token", phase=lambda _: "draft"),
    "load_s": samples("load", phase=lambda _: "draft"),
    "itl_p50_s": samples("decode", token_times_s=lambda _: ()),
    "itl_p99_s": samples("decode", token_times_s=lambda _: ()),
    "peak_memory_bytes": memory(peak_rss_bytes=0, peak_anonymous_bytes=0),
    "peak_anonymous_bytes": memory(peak_anonymous_bytes=0),
    "file_bytes": file(0),
    "joules_per_token": GOOD,
    "workload_p50_s": GOOD,
    "speedup_ratio": GOOD,
    "acceptance_ratio": GOOD,
    "read_bytes_per_token": GOOD,
    "kl_divergence_nats": GOOD,
    "new_tokens_per_s": GOOD,
    "goodput_requests_per_s": GOOD,
    "saturation_load": GOOD,
    "sustained_tokens_per_s": GOOD,
    "hottest_celsius": GOOD,
    "recall_at_10": GOOD,
    "score:any": GOOD,
}


@pytest.mark.parametrize("metric", UNMEASURED)
def test_what_nobody_measured_is_no_evidence(metric: str) -> None:
    assert metric_values(UNMEASURED[metric], metric) == []
    assert answer_of(metric, [at(UNMEASURED[metric], "run", -1)]) == "could not run"


@pytest.mark.parametrize("hours", [0.5, 1, 24, 24 * 30, 24 * 365, 24 * 365 * 100])
def test_a_run_of_the_future_is_none(hours: float) -> None:
    assert answer_of("decode_tokens_per_s", [at(GOOD, "future", hours)]) == "could not run"


@pytest.mark.parametrize("zone", ["+14:00", "+05:30", "+01:00", "-03:00", "-12:00"])
def test_the_newest_build_is_the_newest_in_every_zone(zone: str) -> None:
    """The slow build is an hour newer; as text its time is before or after by the zone that it was written in."""
    assert GOOD.engine is not None
    next_build = structs.replace(GOOD, engine=structs.replace(GOOD.engine, version="next"))
    slow = samples("decode", duration_s=lambda one: one.duration_s * 3, token_times_s=lambda one: ())
    slow = at(structs.replace(slow, engine=next_build.engine), "slow", -1)
    hours, minutes = int(zone[:3]), int(zone[0] + zone[4:])
    there = NOW - timedelta(hours=1) + timedelta(hours=hours, minutes=minutes)
    slow = structs.replace(slow, created=there.replace(tzinfo=None).isoformat() + zone)
    rate = max(metric_values(GOOD, "decode_tokens_per_s"))
    floor = Budget(metric="decode_tokens_per_s", floor=0.7 * rate)

    (judged,) = evaluate([floor], [at(GOOD, "fast", -2), slow])

    assert judged.answer != "pass"
    assert judged.evidence == ("slow",)


SPEED, COST = 'metric = "decode_tokens_per_s"', 'metric = "ttft_s"'
BUDGETS = [
    f"{metric}\n{limit} = {value}"
    for metric, limit in ((SPEED, "floor"), (COST, "ceiling"), (SPEED, "baseline_ratio"), (SPEED, "prediction_ratio"),
                          (SPEED, "roofline_ratio"), (SPEED, "slowdown_ratio"))
    for value in ("0", "-1", "-0.0", "nan", "inf", "-inf", '"1"', "true", "[1]", "{}")
]  # fmt: skip
BUDGETS += [
    f"{SPEED}\nslowdown_ratio = 1", f"{SPEED}\nslowdown_ratio = 10", f"{SPEED}\nceiling = 1", f"{COST}\nfloor = 1",
    f"{SPEED}", f"{SPEED}\nfloor = 1\nceiling = 1", f"{SPEED}\nfloor = 1\nbaseline_ratio = .9",
    f"{COST}\nroofline_ratio = .5", f"{SPEED}\nfloor = 1\npredicted = true", f"{SPEED}\nfloor = 1\npredicted = 1",
    f'{SPEED}\nfloor = 1\npredicted = true\nmodel = "a*"\ndevice = "b"',
    f'{SPEED}\nbaseline_ratio = .9\npredicted = true\nmodel = "a"\ndevice = "b"',
    f"{SPEED}\nfloor = 1\nundecided_days = 0", f"{SPEED}\nfloor = 1\nundecided_builds = -3",
    f"{SPEED}\nfloor = 1\nundecided_days = 1.5", f"{SPEED}\nfloor = 1\npin = 3",
    f'{SPEED}\nfloor = 1\npin = {{x = "y"}}',
    f"{SPEED}\nflor = 1", 'metric = "speed"\nfloor = 1', 'metric = ""\nfloor = 1', 'metric = "score:"\nfloor = 1',
    "floor = 1", f"{SPEED}\nfloor = 1\nmodel = 3", f"{SPEED}\nfloor = 1\nlabel = 3",
]  # fmt: skip


@pytest.mark.parametrize("text", BUDGETS)
def test_a_limit_that_cannot_fail_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(f"[[budget]]\n{text}\n")

    with pytest.raises(BadDataError, match=r"budgets\.toml"):
        load_budgets(path)


PASTED = [
    "x-8b Q4_K_M 512 1e9", "x-8b Q4_K_M 512 25000", "x-8b Q4_K_M 1e9 40", "x-8b Q4_K_M 5000000 40",
    "x-8b Q4_K_M - 142000", "x-1b Q8_0 3e6 100", "x-70b Q4_0 - 20001", "x-1b Q4_0 1e300 10", "x-1b Q4_0 10 1e300",
    "x-8b Q4_K_M pp512=9e6 tg128=40", "x-8b Q4_K_M pp512=900 tg128=4e4",
]  # fmt: skip


@pytest.mark.parametrize("line", PASTED)
def test_a_pasted_line_that_cannot_be_is_marked(line: str) -> None:
    """Or it is refused: either way nothing of it is a figure."""
    try:
        records = from_text(line, "notes.txt")
    except BadDataError:
        return
    assert all(impossible(record) for record in records)


def test_there_are_three_hundred() -> None:
    counts = (LIES, list(product(OUTCOMES, FORMS)), UNMEASURED, BUDGETS, PASTED)
    assert sum(map(len, counts)) + 6 + 5 >= 300
