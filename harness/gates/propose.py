"""Propose budgets from runs: what the machine reached, less what its own noise may take.

Each proposal also says which slowdown its budget will find in later runs.
"""

from collections.abc import Sequence
from math import ceil, floor, log, log10, sqrt
from statistics import median
from typing import Any, Final, Literal, NamedTuple

import msgspec
import tomli_w

from harness.core.budget import Budget
from harness.core.grouping import grouped
from harness.core.metric import FIGURES, MetricName, metric_values
from harness.core.record import Record
from harness.core.stats.runs import Runs, Spread, estimate, found, runs_needed, spread_of
from harness.core.units import counted, format_percent
from harness.gates.judge import FALSE_ALARM_RATIO, MOST_TURNS, Errors, judge, levels_of, limit_of
from harness.gates.pins import pins_of
from harness.gates.sittings import comparable
from harness.records.possible import impossible

Preset = Literal["limits", "regression", "phone", "first-token"]
_PHONE_BYTES: Final = 200e6
_SLOWDOWN: Final = 0.10
_LOOSEST: Final = 0.20
"""No limit is so loose that a build slower by this would pass."""
_SHARE: Final = 0.6
_FEW: Final = 3
_SPEEDS: Final[tuple[MetricName, ...]] = ("decode_tokens_per_s", "prefill_tokens_per_s")
_RULES: Final[dict[Preset, dict[MetricName, str]]] = {
    "limits": dict.fromkeys((*_SPEEDS, "ttft_s", "peak_memory_bytes"), "limit"),
    "regression": dict.fromkeys(_SPEEDS, "slowdown"),
    "phone": dict.fromkeys(_SPEEDS, "slowdown") | {"peak_memory_bytes": "room"},
    "first-token": {"ttft_s": "limit"},
}
"""What each preset asks of which figures."""


class Proposal(NamedTuple):
    """A budget, and what runs of its kind say of it in a line.

    Attributes:
        lacks: What is missing for it to find the slowdown that was asked for in 95 of 100 gates; empty if nothing is.
    """

    budget: Budget
    finds: str
    lacks: str = ""


def propose(
    records: Sequence[Record], preset: Preset = "limits", finds_ratio: float | None = None
) -> list[Proposal]:
    """Budgets for each device, model and setting among the runs, pinned to them.

    ``limits`` hold speed, first token and memory to what was reached: an unchanged build misses one of a
    file's limits in 1 of 100 gates. ``regression`` finds speeds that are 10 % below the baseline's. ``phone``
    does the same, and holds memory to 200 MB more than was measured (what PocketPal's developers allow
    between releases, on the same model, quantisation, backend and settings). ``first-token`` limits that
    alone. Where builds are compared the runtime's version is not pinned: another one may be what is new.

    ``finds_ratio`` is the slowdown to be found; without it limits pass no build that is 20 % slower, and comparisons
    find 10 %.
    """
    good = [
        record
        for record in records
        if record.outcome == "ok" and record.model is not None and not impossible(record)
    ]
    groups = grouped(good, lambda run: repr((run.machine.device, run.name, run.workload, pins_of(run))))
    count = sum(bool(_values(runs, metric)) for runs in groups.values() for metric in _RULES[preset])
    return [
        proposal
        for _, runs in sorted(groups.items())
        for proposal in _proposals(runs, preset, count, finds_ratio)
    ]


def to_toml(proposals: Sequence[Proposal]) -> str:
    """Budgets as the text of a budgets.toml file; what each one finds stands above it."""
    usual = msgspec.structs.asdict(Budget(metric="")) | {"metric": None, "workload": None}
    tables = []
    for budget, finds, _ in proposals:
        fields = {
            key: value
            for key, value in msgspec.to_builtins(budget).items()
            if value not in (None, usual[key])
        }
        tables.append(f"# {finds}\n{tomli_w.dumps({'budget': [fields]}, multiline_strings=False)}")
    return "\n".join(tables)


def _proposals(
    runs: Sequence[Record], preset: Preset, budget_count: int, finds_ratio: float | None
) -> list[Proposal]:
    newest = runs[-1]
    names: dict[str, Any] = {
        "device": newest.machine.device,
        "model": newest.name,
        "workload": newest.workload,
    }
    proposals = []
    for metric, rule in _RULES[preset].items():
        measured = _values(runs, metric)
        if not measured:
            continue
        pins = pins_of(newest)
        unit, values, _ = comparable(measured, measured)
        spread = spread_of([values], FIGURES[metric].spread, unit)
        if rule == "slowdown":
            del pins["runtime_version"]
            limit: dict[str, Any] = {"slowdown_ratio": finds_ratio or _SLOWDOWN}
        elif rule == "room":
            limit = {"ceiling": max(max(taken) for _, taken in measured) + _PHONE_BYTES}
        else:
            side = "floor" if FIGURES[metric].higher_is_better else "ceiling"
            limit = {side: propose_limit(metric, values, spread, budget_count, finds_ratio or _LOOSEST)}
        budget = Budget(metric=metric, pin=pins, **names, **limit)
        line, found_ratio = _finds(budget, values, spread, budget_count)
        lacks = ""
        if rule != "room" and found_ratio > (finds_ratio or 1.0):
            lacks = _lack(budget, spread, len(values), budget_count, finds_ratio or 1.0)
        proposals.append(Proposal(budget, line, lacks))
    return proposals


def _values(runs: Sequence[Record], metric: MetricName) -> list[tuple[Record, list[float]]]:
    """Runs with their values of a figure; those without one, or with a 0, are left out."""
    measured = [(run, metric_values(run, metric)) for run in runs]
    return [(run, values) for run, values in measured if values and min(values) > 0]


def propose_limit(
    metric: MetricName, values: Runs, spread: Spread, budget_count: int, finds_ratio: float = _LOOSEST
) -> float:
    """A limit that an unchanged build keeps at another hour, but for its share of the false alarms, to three digits.

    Runs of one hour do not tell how much hours differ: then what is assumed counts. The limit lies nearer where
    it would pass a build that is slower by ``finds_ratio``: at 0.6 of that change (in logs) from the second best run, so
    that neither that build passes by chance, whatever disturbed the runs, nor the same one fails.
    """
    higher = FIGURES[metric].higher_is_better
    alarm = FALSE_ALARM_RATIO / budget_count
    count = len(values)
    if spread.unit == "run":
        spread = Spread(spread.assumed)
        count = 1
    between = estimate([[1.0]], spread, alarm, alarm, [[1.0]] * count)
    assert between.low is not None and between.high is not None
    mid = estimate(values, spread, alarm, alarm).mid
    nearest = (1.0 - finds_ratio) ** _SHARE
    best_first = sorted(map(median, values), reverse=higher)
    good = best_first[min(1, (len(values) - 1) // 2)]
    if higher:
        limit = max(mid * between.low, good * nearest)
    else:
        limit = min(mid * between.high, good / nearest)
    if limit > 0:
        step = 10.0 ** (floor(log10(limit)) - 2)
    else:
        step = 1.0
    return float(f"{(floor if higher else ceil)(limit / step) * step:.12g}")


def _finds(budget: Budget, values: Runs, spread: Spread, budget_count: int) -> tuple[str, float]:
    """Which change the budget finds with how many runs: in a line, and as a share."""
    figure = FIGURES[budget.metric]
    alarm = Errors.of(budget_count, 1).alarm
    told = f"{counted(len(values), spread.unit)}: {spread.words()}"
    limit, relative_to = limit_of(budget)
    if relative_to:
        by_blocks = 1.0 - levels_of(budget, spread, (_FEW, len(values)))
        in_turns = found(_of_turns(spread), (MOST_TURNS, 0), alarm / 2.0) or 1.0
        line = (
            f"{told}; gate live finds {in_turns:.1%} within {MOST_TURNS} turns; runs beside this baseline pass a build "
            f"and accuse one beyond {by_blocks:.0%}"
        )
        return line, in_turns
    mid = median(value for taken in values for value in taken)
    room = abs(limit / mid - 1.0)
    seen = found(spread, (len(values), 0), alarm) or 0.0
    change = lost = 1.0 - (1.0 - seen) * min(limit / mid, mid / limit)
    if not figure.higher_is_better:
        change = limit / mid / (1.0 - seen) - 1.0
    more = ""
    if spread.unit == "run" and figure.spread > 0.01:
        more = "; at another hour the same build may be undecided: runs of other days tell"
    worse = figure.words[not figure.higher_is_better]
    line = f"{told}; the limit leaves {format_percent(room)}, as many runs find {format_percent(change)} {worse}{more}"
    return line + _left_open(budget, values, spread, budget_count), lost


def _left_open(budget: Budget, values: Runs, spread: Spread, budget_count: int) -> str:
    """What the very runs that a limit is of leave undecided, and how many runs settle it; empty where they pass."""
    errors = Errors.of(budget_count, 1)
    ends = errors.ends(higher_is_better=FIGURES[budget.metric].higher_is_better)
    seen = estimate(values, spread, *ends)
    own = judge(budget, seen, spread, (len(values), 0), errors=errors, evidence=())
    if own.answer != "inconclusive":
        return ""
    these = "this one run leaves" if len(values) == 1 else f"these {counted(len(values), spread.unit)} leave"
    return f"; {these} it undecided: to settle it, {own.settles}"


def _of_turns(spread: Spread) -> Spread:
    """Spread from turn to turn where runs differ by so much: a turn is the ratio of two."""
    return Spread(None, sqrt(2.0) * spread.likely, MOST_TURNS - 1, "turn")


def _lack(budget: Budget, spread: Spread, count: int, budget_count: int, finds_ratio: float) -> str:
    """How many runs would make a budget find that slowdown in 95 of 100 gates, in words."""
    alarm = Errors.of(budget_count, 1).alarm
    distance = -log(1.0 - finds_ratio)
    if limit_of(budget)[1]:
        needed = runs_needed(distance, (MOST_TURNS, 0), _of_turns(spread), alarm / 2.0)
        turns = (
            f"gate live --max-turns {needed}"
            if needed
            else "no number of turns, on a machine as noisy as this"
        )
        return f"{finds_ratio:.0%} needs {turns}"
    needed = runs_needed((1.0 - _SHARE) * distance, (count, 0), spread, alarm)
    if needed is None:
        return f"no number of runs is sure to find {finds_ratio:.0%} by a fixed limit: compare builds (gate live)"
    return f"{finds_ratio:.0%} needs {counted(needed, spread.unit)}, and {count} are there"
