"""The first thing a new user does: probe this machine, fetch a model, predict, run, compare, report."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from harness.app.locate import locate
from harness.app.on_target import run_on
from harness.app.run import Cell, Options, cells_of, run_cells
from harness.app.this_machine import probed
from harness.catalog.paths import home_dir
from harness.domain.device import DeviceProfile
from harness.domain.model import ModelShape
from harness.domain.placement import Placement
from harness.domain.record import RunRecord
from harness.domain.scenario import Scenario
from harness.errors import EngineError, HarnessError
from harness.measure.engine_devices import engine_devices
from harness.measure.machine import fingerprint
from harness.measure.pipeline import Listener
from harness.predict.weights import matrix_types
from harness.records.compare import Comparison, compare
from harness.records.derive import summarise
from harness.records.store import write_document
from harness.runtimes.llamacpp.devices import GgmlDevice
from harness.units import format_amount, format_bytes, format_rate, format_seconds

DEFAULT_MODEL: Final = "smollm2-135m"
REPORT_NAME: Final = "edge-harness-check.md"
_CALIBRATION_S: Final = 120.0
"""Least time for the engine's calibration, where the limit of a child allows it."""


class Checked(NamedTuple):
    """What a check found: the profile it predicted from, and each run."""

    device: DeviceProfile
    records: list[RunRecord]


def check(
    models: Sequence[str],
    quant: str,
    scenario: Scenario,
    options: Options,
    *,
    probe_again: bool = False,
    depths: Sequence[int] = (0,),
    on: tuple[str, Path | None] = ("local", None),
) -> Checked:
    """Run each model at each depth, each with its prediction made beforehand; ``on`` a target with its programs.

    Raises:
        HarnessError: A name is unknown, or the machine could not be probed.
    """
    listener = options.how.listener
    cells = cells_of(models or (DEFAULT_MODEL,), quant, scenario, depths=depths)
    if on[1] is not None:
        return Checked(*run_on(on[0], cells, options, on[1]))
    shapes, types = _seen(cells, listener)
    try:
        found = engine_devices()
    except HarnessError as error:  # a driver that dies takes no CPU with it
        found = ()
        listener.say(f"no GPU is checked: {error}")
    gpus = {d.api: d for d in reversed(found) if d.is_gpu and scenario.api in {"", d.api}}
    wall_s = options.how.limits.wall_s
    try:  # some 40 s where it is quiet; a machine too busy to time its engine still gets its answer
        limit_s = min(wall_s, max(_CALIBRATION_S, wall_s / 5))
        device = probed(types, scenario, say=listener.say, again=probe_again, gpus=gpus, limit_s=limit_s)
    except EngineError as error:
        cause = str(error).partition(" File ")[0]
        listener.say(f"predicted from the speed of the memory alone, since the engine could not be timed: {cause}")
        device = probed(set(), scenario, say=listener.say)
    if not scenario.api:
        cells = [cell._replace(scenario=asked) for cell in cells for asked in _engines(cell, shapes, gpus)]
    return Checked(device, run_cells(cells, options, device=device))


def _engines(cell: Cell, shapes: Mapping[str, ModelShape], gpus: Mapping[str, GgmlDevice]) -> Iterator[Scenario]:
    """The scenario on the CPU, and for each GPU wholly there and split: half of the experts, or of the layers."""
    replace = msgspec.structs.replace
    yield replace(cell.scenario, api="cpu")
    for api in gpus:
        yield replace(cell.scenario, api=api)
        shape = shapes.get(cell.model)
        if shape is not None:
            half = shape.layer_count // 2
            split = Placement(cpu_moe=half) if shape.experts is not None else Placement(gpu_layers=half + 1)
            yield replace(cell.scenario, api=api, placement=split)


def gate(comparisons: Sequence[Comparison | None], max_error_percent: float | None) -> list[str]:
    """One line for each run whose worst judged error is above the limit; empty without a limit."""
    if max_error_percent is None:
        return []
    lines = []
    for comparison in filter(None, comparisons):
        worst = comparison.worst()
        if worst is not None and worst.error_ratio is not None and 100 * abs(worst.error_ratio) > max_error_percent:
            lines.append(
                f"run {comparison.run_id}: {worst.name} is predicted "
                f"{worst.error_ratio:+.1%} off, allowed are {max_error_percent:g} %"
            )
    return lines


def write_report(checked: Checked, path: Path | None) -> Path:
    """Write the report: Markdown, or all records as JSON when the file is called so.

    Without a path it goes into the current folder, or into the user's own where that cannot be written.

    Raises:
        CouldNotRunError: It could not be written.
    """
    target = path or Path.cwd() / REPORT_NAME
    try:
        write_document(target, checked.records, lambda: report_text(checked))
    except HarnessError:
        if path is not None:
            raise
        target = home_dir() / REPORT_NAME
        write_document(target, checked.records, lambda: report_text(checked))
    return target


def report_text(checked: Checked) -> str:
    """The report in Markdown: the machine, then a table for each model, then how it was measured."""
    machine = checked.records[0].machine if checked.records else fingerprint()
    device = checked.device
    ram = device.pool("ram")
    read = ram.measured_read_bytes_per_s or ram.bandwidth_bytes_per_s
    lines = [
        "# edge-harness check",
        "",
        f"{machine.cpu_model}, {machine.core_count} cores, {format_bytes(machine.ram_bytes)} of RAM "
        f"({format_bytes(machine.memory_limit_bytes)} usable), {machine.system} {machine.kernel}; "
        f"memory read at {format_rate(read.value)}.",
        "",
    ]
    for record in checked.records:
        lines += _section(record)
    lines += [
        "## How it was measured",
        "",
        "Predictions were made before the models ran, from the probe of this machine alone. Each run is a child "
        "process of its own; random tokens, one warm-up, samples during which the machine was disturbed are left out. "
        "Error = (predicted - measured) / measured; a star marks a measurement outside the predicted 90 % interval.",
        "",
    ]
    return "\n".join(lines)


def _section(record: RunRecord) -> list[str]:
    name = record.model.name if record.model else str(record.extra.get("model", "run"))
    quant = f" {record.model.quant}" if record.model and record.model.quant else ""
    s = record.scenario
    lines = [
        f"## {name}{quant}: {record.outcome}",
        "",
        f"{s.prompt_tokens} prompt tokens, {s.new_tokens} new ones, depth {s.depth_tokens}, "
        f"context {s.context_tokens}, {s.thread_count} threads; run {record.run_id}.",
        "",
    ]
    if record.detail:
        lines += ["```", record.detail, "```", ""]
    if (comparison := compare(record)) is not None:
        lines += ["| | predicted | 90 % interval | measured | error |", "|---|--:|--:|--:|--:|"]
        lines += [f"| {' | '.join(cells)} |" for cells in comparison_cells(comparison, "tokens/s")]
        lines += ["", *comparison.notes, ""]
    for latency in summarise(record).latency:
        lines += [
            f"Token by token ({latency.label}): p50 {format_seconds(latency.p50_s)}, p90 "
            f"{format_seconds(latency.p90_s)}, p99 {format_seconds(latency.p99_s)} over {latency.token_count} tokens.",
            "",
        ]
    return lines


def comparison_cells(comparison: Comparison, rate: str) -> Iterator[tuple[str, ...]]:
    """Of each row its name, prediction, interval, measurement and error (a star: outside; ``disturbed``: in doubt).

    Speeds are in ``rate``.
    """

    def amount(unit: str, value: float) -> str:
        return format_amount(unit, value, f"{value:.1f} {rate}")

    for row in comparison.rows:
        error = "-" if row.error_ratio is None else f"{row.error_ratio:+.1%}{'' if row.inside else ' *'}"
        error = "disturbed" if row.doubted else error
        measured = "-" if row.measured is None else amount(row.unit, row.measured)
        between = f"{amount(row.unit, row.low)} to {amount(row.unit, row.high)}"
        yield row.name, amount(row.unit, row.predicted), between, measured, error


def _seen(cells: Sequence[Cell], listener: Listener) -> tuple[dict[str, ModelShape], set[str]]:
    """Shapes, and weight types, of all models that can be had; the others fail later, each in its own record."""
    shapes: dict[str, ModelShape] = {}
    found: set[str] = set()
    for cell in cells:
        listener.begin(cell.model, 1)
        with contextlib.suppress(HarnessError):
            located = locate(cell.model, cell.quant, progress=listener.fetched)
            if located.weights is not None:
                found |= matrix_types(located.weights)
                shapes[cell.model] = located.weights.shape
    return shapes, found
