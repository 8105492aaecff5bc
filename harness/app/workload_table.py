"""All workloads in one table: measured here beside what was predicted, and predicted for other devices."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from msgspec.structs import asdict, replace

from harness import plugins
from harness.app.check import DEFAULT_MODEL
from harness.app.locate import locate
from harness.app.run import Options
from harness.app.workloads import WorkloadResult, load, run
from harness.domain.base import Frozen
from harness.domain.record import RunRecord
from harness.domain.result import System
from harness.errors import HarnessError, UnknownNameError
from harness.measure.pipeline import How
from harness.predict.workload_cost import OperationPrediction
from harness.records.store import write_atomically, write_document
from harness.units import format_bytes, format_seconds

DEVICES: Final = ("iphone-16-pro", "pixel-9-pro", "raspberry-pi-5", "macbook-air-m3", "ryzen-7-7840hs")
"""A phone of each system, a board, and two portables: what a table predicts for unless others are named."""

_PIP: Final = re.compile(r"pip install '[^']+'")


class Row(Frozen, frozen=True, kw_only=True):
    """One operation of one workload.

    Times are seconds of one call; ``elsewhere`` is by device. ``basis`` is where the units of the prediction come from:
    ``probe`` of this machine, or ``profile``; with a language model its speed comes from this machine's calibration.
    """

    workload: str
    size: dict[str, int]
    operation: str
    sample_count: int
    doubted_count: int
    p50_s: float
    p95_s: float
    predicted_s: float | None
    error_ratio: float | None
    limit: str
    basis: str
    peak_rss_bytes: int
    predicted_peak_bytes: int
    elsewhere: dict[str, float]


class Skipped(Frozen, frozen=True, kw_only=True):
    """A workload that was not run, and why; ``command`` installs what it lacks, if that is it."""

    workload: str
    why: str
    command: str = ""


class Table(Frozen, frozen=True, kw_only=True):
    """Every workload asked for; ``failed`` ran and did not end well: of one that stayed disturbed rows are shown too.

    The median is that of the absolute errors of operations of undisturbed runs; None without any.
    """

    devices: tuple[str, ...]
    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]
    failed: tuple[RunRecord, ...]
    median_error_ratio: float | None


def tabulate(
    names: Iterable[str] = (),
    *,
    size: str = "default",
    devices: Sequence[str] = (),
    model: Path | None = None,
    how: How = How(),
    keep: Callable[[RunRecord], object] = lambda _: None,
    **asked: Any,
) -> Table:
    """Run workloads (all, without names) one after the other; what cannot run is told and the rest goes on.

    One that has no size of that name is run at its default; ``keep`` is called with each record, samples and all;
    ``asked`` are the other arguments of :func:`harness.app.workloads.run`.

    Raises:
        UnknownNameError: No such workload or device, or no workload with a size of that name.
    """
    asked |= {"devices": devices or DEVICES, "model": model, "how": how}
    chosen = [load(name) for name in (list(names) or plugins.names("harness.workloads"))]
    if not any(size in workload.sizes for workload in chosen):
        raise UnknownNameError("size", size, dict.fromkeys(name for workload in chosen for name in workload.sizes))
    rows: list[Row] = []
    skipped: list[Skipped] = []
    failed: list[RunRecord] = []
    partial: list[Skipped] = []
    believed: list[float] = []
    for workload in chosen:
        if workload.needs_model and model is None:
            skipped.append(Skipped(workload=workload.name, why="it runs a language model: name one with --model"))
            continue
        how.listener.say(f"running {workload.name}")
        try:
            result = run(workload.name, size=size if size in workload.sizes else "default", **asked)
        except HarnessError as error:
            skipped.append(_skipped(workload.name, str(error)))
            continue
        record = result.record
        keep(record)
        if record.outcome in {"ok", "inconclusive"}:
            rows += rows_of(result)
            quality = record.result.quality if isinstance(record.result, System) else {}
            if missing := quality.get("left_out"):  # operations, for want of a package, as the workload itself tells
                left_out, command = ", ".join(missing), f"pip install 'edge-harness[{workload.extra}]'"
                why = "an optional package is missing"
                partial.append(Skipped(workload=f"{workload.name}: {left_out}", why=why, command=command))
        if record.outcome == "ok":  # rows of the others say how many samples are doubted, and are not believed
            believed += [abs(o.error_ratio) for o in result.operations if o.error_ratio is not None]
        elif record.outcome != "inconclusive" and _PIP.search(record.detail):
            skipped.append(_skipped(workload.name, record.detail))
        else:
            failed.append(record)
    return Table(
        devices=tuple(devices or DEVICES),
        rows=tuple(rows),
        skipped=(*skipped, *partial),
        failed=tuple(replace(r, samples=()) for r in failed),
        median_error_ratio=median(believed) if believed else None,
    )


def rows_of(result: WorkloadResult) -> list[Row]:
    """A row for each operation."""
    record = result.record
    there = {d: {p.operation: p.latency_s.mid for p in predictions} for d, predictions in result.elsewhere.items()}
    rows = []
    for operation in result.operations:
        same = asdict(operation)
        predicted: OperationPrediction | None = same.pop("predicted")
        from_model = predicted is not None and "language model" in predicted.parts_s
        rows.append(
            Row(
                **same,
                workload=record.workload,
                size=record.result.size if isinstance(record.result, System) else {},
                predicted_s=predicted.latency_s.mid if predicted else None,
                limit=predicted.limit if predicted else "",
                basis=predicted.basis + ", model's speed" * from_model if predicted else "",
                peak_rss_bytes=record.memory.peak_rss_bytes if record.memory else 0,
                predicted_peak_bytes=result.predicted_peak_bytes,
                elsewhere={d: found[operation.operation] for d, found in there.items() if operation.operation in found},
            )
        )
    return rows


def cells(row: Row) -> list[str]:
    """A row as text: operation, percentiles, prediction, its error, and what limits it."""
    predicted = "-" if row.predicted_s is None else format_seconds(row.predicted_s)
    error = "-" if row.error_ratio is None else f"{row.error_ratio:+.0%}"
    return [row.operation, format_seconds(row.p50_s), format_seconds(row.p95_s), predicted, error, row.limit]


View = tuple[str, list[str], list[list[str]], Sequence[int]]
"""A table as text: its title, columns and rows, and which columns are numbers."""


def views(found: Table) -> tuple[View, View, View]:
    """What was measured here beside its prediction, what is predicted elsewhere, and at which sizes."""
    here, there, sizes = [], [], []
    for at, row in enumerate(found.rows):
        first = at == 0 or found.rows[at - 1].workload != row.workload
        if first:
            sizes.append([row.workload, ", ".join(f"{k} {v}" for k, v in row.size.items())])
        peaks = [format_bytes(size) if first else "" for size in (row.peak_rss_bytes, row.predicted_peak_bytes)]
        here.append([row.workload if first else "", *cells(row), row.basis, *peaks])
        seconds = [format_seconds(row.elsewhere[d]) if d in row.elsewhere else "-" for d in found.devices]
        there.append([row.workload if first else "", row.operation, *seconds])
    columns = ["workload", "operation", "p50", "p95", "predicted", "error", "limit", "from", "peak", "predicted"]
    elsewhere = ["workload", "operation", *found.devices]
    return (
        ("measured here", columns, here, (2, 3, 4, 5, 8, 9)),
        ("predicted from profiles", elsewhere, there, range(2, len(elsewhere))),
        ("sizes", ["workload", "size"], sizes, ()),
    )


def notes(found: Table) -> list[str]:
    """What stands under the table."""
    lines = []
    if found.median_error_ratio is not None:
        count = sum(r.error_ratio is not None for r in found.rows)
        lines.append(f"median error of {count} operations: {found.median_error_ratio:.1%}")
    lines += [f"skipped {s.workload}: {s.command or s.why}" for s in found.skipped]
    lines += [f"{r.workload}: {r.outcome}: {r.detail}" for r in found.failed]
    return lines


def markdown(found: Table) -> str:
    """The table in Markdown."""
    text = ""
    for title, columns, rows, right in views(found):
        ruler = "|".join("--:" if at in right else "---" for at in range(len(columns)))
        lines = [f"| {' | '.join(columns)} |", f"|{ruler}|", *(f"| {' | '.join(row)} |" for row in rows)]
        text += f"## {title.capitalize()}\n\n" + "\n".join(lines) + "\n\n"
    told = "\n".join(f"- {line}" for line in notes(found))
    return (
        f"# Workloads\n\n{text}{told}\n\nPredictions were made before the runs, from a probe of this machine and "
        "each device's profile. Error = predicted / measured median - 1. Peak is the process's VmHWM once prepared.\n"
    )


def after_check(
    models: Sequence[str],
    quant: str,
    options: Options,
    report: Path,
    *,
    keep: Callable[[RunRecord], object],
) -> tuple[Table, Path]:
    """All workloads after a check of models, the first of which answers for those that need one.

    The table, and where it was written: at the end of a Markdown report, else beside the report.
    """
    model = locate((*models, DEFAULT_MODEL)[0], quant).path
    how = options.how._replace(resume=False, folder=None, notes={})
    found = tabulate(repetitions=max(3, options.repetitions), model=model, how=how, keep=keep)
    if report.suffix.lower() == ".md":
        write_atomically(report, f"{report.read_text(encoding='utf-8')}\n{markdown(found)}".encode())
        return found, report
    beside = report.with_name(f"{report.stem}-workloads{'.json' if report.suffix == '.json' else '.md'}")
    write_document(beside, found, lambda: markdown(found))
    return found, beside


def _skipped(name: str, text: str) -> Skipped:
    command = _PIP.search(text)
    return Skipped(workload=name, why=text, command=command.group() if command else "")
