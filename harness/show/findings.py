"""What a measurement found, as tables for people, whatever kind it is.

``harness/data/results.toml`` lists the rows of a kind; one that is not listed is shown by the fields of its
type. A field's name says its unit (``_bytes``, ``_s``, ``_tokens_per_s``). So a new kind is shown by being a
type.
"""

from collections.abc import Iterator
from functools import reduce
from typing import Any, Final, get_args

import msgspec

from harness.core.record import Phase, Record
from harness.core.result import Generation, Load, Result, Speculation
from harness.core.stats.intervals import quantile_interval
from harness.core.tables import expect, expect_all, shipped_table
from harness.core.units import format_bytes, format_number, format_rate, format_seconds
from harness.records.derive import times_of
from harness.show.panels import Panel

SERIES_MAX: Final = 8
"""Most numbers of a list that are shown in one cell; of longer ones only how many there are."""
_TITLES: Final = {
    "speculation": "Speculation",
    "stream": "Streaming",
    "soak": "Speed over minutes",
    "load": "Load on a server",
}
_UNITS: Final = {
    "_bytes_per_s": format_rate,
    "_bytes_per_token": lambda value: f"{format_bytes(value)} per token",
    "_joules_per_token": lambda value: f"{format_number(value)} J per token",
    "_requests_per_s": lambda value: f"{format_number(value)} requests/s",
    "tokens_per_s": lambda value: f"{format_number(value)} tokens/s",
    "_tokens": lambda value: f"{value:,} tokens",
    "_bytes": format_bytes,
    "_s": format_seconds,
}


def read_results() -> dict[str, list[list[str]]]:
    """``data/results.toml``, whose paths lead to fields.

    Raises:
        BadDataError: A kind of result, or a field of it, that there is not.
    """
    path = "data/results.toml"
    found = shipped_table(path, into=dict[str, list[list[str]]])
    kinds = {kind.__struct_config__.tag: kind for kind in get_args(Result)}
    expect_all(path, "kind", ((kind, kind) for kind in found), kinds)
    for name, rows in found.items():
        for label, *fields in rows:
            for field in fields:
                expect(path, f"{name}, {label}", field, lambda cell, kind=kinds[name]: _leads(kind, cell))
    return found


def _leads(kind: Any, path: str) -> str:
    """The fields that a path should go on with instead; empty for one that leads to a value."""
    for step in path.split("."):
        owners = [one for one in (kind, *get_args(kind)) if hasattr(one, "__struct_fields__")]
        types = {field.name: field.type for one in owners for field in msgspec.structs.fields(one)}
        types |= {
            name: Any for one in owners for name in dir(one) if isinstance(getattr(one, name), property)
        }
        if step not in types:
            return f"in the place of {step!r} one of: {', '.join(types)}"
        kind = types[step]
    return ""


_ROWS: Final = read_results()
_LATENCIES: Final[tuple[tuple[str, Phase, str], ...]] = (
    ("TTFT", "first_token", "ttft"),
    ("ITL", "decode", "tg"),
    ("E2EL", "workload", "e2el"),
)


def result_panels(record: Record) -> Iterator[Panel]:
    """The figures of a result; of a load also its levels; without a title those of what a page shows otherwise.

    None for a plain generation, whose speeds are derived from its samples, and for a run without a result.
    """
    result = record.result
    if result is None or isinstance(result, Generation):
        return
    if isinstance(result, Load):
        yield _levels(record, result)
    kind = str(result.__struct_config__.tag)
    listed = _ROWS.get(kind) or [[name.replace("_", " "), name] for name in result.__struct_fields__]
    whole: Any = result

    def shown(path: str) -> str:
        return figure(path, reduce(lambda part, name: getattr(part, name, None), path.split("."), whole))

    rows = [(label, *map(shown, paths), "")[:3] for label, *paths in listed]
    rows = [row for row in rows if row[1]]
    if record.memory is not None:
        peak_bytes = record.memory.cgroup_peak_bytes or record.memory.peak_rss_bytes
        rows.append(("peak memory", format_bytes(peak_bytes), ""))
    if isinstance(result, Speculation) and not result.speculative.drafted_count:
        rows = [row for row in rows if not row[0].startswith("acceptance")]
        rows.append(("drafted", "nothing", ""))
    columns = ("", "measured", "predicted") if any(row[2] for row in rows) else ("", "value")
    yield Panel(
        _TITLES.get(kind, ""),
        f"{record.name}: {kind}",
        record.outcome,
        columns,
        [row[: len(columns)] for row in rows],
    )


def figure(name: str, value: Any) -> str:
    """A value in the unit that its name says; empty where there is none."""
    shown = str(value)
    if value is None or isinstance(value, msgspec.Struct):
        shown = ""
    elif isinstance(value, bool):
        shown = "yes" if value else "no"
    elif isinstance(value, int | float):
        unit = next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), format_number)
        shown = unit(value)
    elif isinstance(value, dict | tuple | list):
        items = list(value.items()) if isinstance(value, dict) else [("", part) for part in value]
        shown = str(len(items))
        is_deep = any(isinstance(part, msgspec.Struct | dict | tuple | list) for _, part in items)
        if len(items) <= SERIES_MAX and not is_deep:
            shown = ", ".join(f"{key}: " * bool(key) + figure(name, part) for key, part in items)
    return shown


def _levels(record: Record, load: Load) -> Panel:
    """Throughput, and the median and 99th percentile of each latency with its upper bound, of each level of load."""
    columns = ["load", "requests/s", "tokens/s", "predicted", "good requests/s"]
    for name, *_ in _LATENCIES:
        columns += [f"{name} p50", f"{name} p99"]
    rows = []
    label = f"{record.name} under load"
    for level in load.levels:
        users = level.label.removeprefix("@ ")
        rates = (level.requests_per_s, level.new_tokens_per_s, level.predicted_tokens_per_s)
        row = [users]
        row += ["-" if rate is None else f"{rate:.2f}" for rate in (*rates, level.goodput_requests_per_s)]
        for _, phase, test in _LATENCIES:
            times_s = times_of(record, phase, f"{test} {level.label}")
            if not times_s:
                row += ["-", "-"]
                continue
            slow = quantile_interval(times_s, 0.99)
            most = f" (to {format_seconds(slow.high)})" if slow.high else ""
            row += [format_seconds(quantile_interval(times_s).mid), format_seconds(slow.mid) + most]
        rows.append(row)
        for cause, count in level.failures.items():
            label += f"; {users}: {count} x {cause}"
    return Panel("Load on a server, by level", label, record.outcome, columns, rows)
