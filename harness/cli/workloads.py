"""``edge-harness workloads``: systems that run on a device beside a language model, measured like one."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli._output import console, emit_json, json_option, table
from harness.errors import Exit

if TYPE_CHECKING:
    from harness.app.workloads import WorkloadResult


@click.group()
def workloads() -> None:
    """List and run workloads: memory, calibration, reasoning and the like."""


@workloads.command("list")
@json_option
def list_(as_json: bool) -> int:
    """List every workload with its sizes."""
    from harness.app.workloads import list_workloads

    found = list_workloads()
    if as_json:
        emit_json(found)
    else:
        rows = [[w.name, ", ".join(w.sizes), w.extra or "-", w.title] for w in found]
        console().print(table("", ["workload", "sizes", "extra", "what"], rows))
    return Exit.OK


@workloads.command("run")
@click.argument("name")
@click.option("--size", default="default", show_default=True, help="A named size, or parts such as entry_count=5000.")
@click.option("--as", "devices", multiple=True, metavar="DEVICE", help="Also predict for this device; repeatable.")
@click.option("--repetitions", "-r", type=click.IntRange(3, 10_000), default=30, show_default=True)
@click.option("--threads", "-t", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of public sets.")
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Model file, if needed.")
@click.option("--evaluate", is_flag=True, help="Also evaluate quality on the public sets (EDGE_HARNESS_DATA).")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=1800.0, show_default=True)
@json_option
def run(
    name: str,
    size: str,
    devices: tuple[str, ...],
    repetitions: int,
    threads: int,
    seed: int,
    data: Path | None,
    model: Path | None,
    evaluate: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Predict and measure workload NAME, and check its answers.

    Exit status: 0 well, 1 a wrong answer, 2 bad input, 4 it could not run.
    """
    from harness.app.workloads import run as run_workload
    from harness.measure.child import Limits

    result = run_workload(
        name,
        size=size,
        devices=devices,
        repetitions=repetitions,
        thread_count=threads,
        seed=seed,
        data=data,
        model=model,
        evaluate=evaluate,
        limits=Limits(wall_s=timeout_s),
    )
    if as_json:
        emit_json(result)
    else:
        _show(result)
    if result.record.outcome == "ok":
        return Exit.OK
    return Exit.BROKEN if "WrongAnswerError" in result.record.detail else Exit.COULD_NOT_RUN


def _show(result: "WorkloadResult") -> None:
    from harness.units import format_bytes, format_seconds

    record = result.record
    rows = [
        [
            o.operation,
            format_seconds(o.p50_s),
            format_seconds(o.p95_s),
            format_seconds(o.predicted.latency_s.mid) if o.predicted else "-",
            f"{o.error_ratio:+.0%}" if o.error_ratio is not None else "-",
            o.predicted.limit if o.predicted else "-",
            f"{o.sample_count} ({o.doubted_count})",
        ]
        for o in result.operations
    ]
    title = f"{record.workload} {record.extra['size']}: {record.outcome}"
    columns = ["operation", "p50", "p95", "predicted", "error", "limit", "samples (doubted)"]
    console().print(table(title, columns, rows, right=range(1, 5)))
    if record.memory:
        memory = record.memory
        held = f"{format_bytes(memory.peak_anonymous_bytes)} anonymous, {format_bytes(memory.peak_file_bytes)} file"
        console().print(f"peak {format_bytes(memory.peak_rss_bytes)} ({held})", markup=False)
    for key in ("quality", "evaluation"):
        if record.extra.get(key):
            console().print(f"{key}: {record.extra[key]}", markup=False)
    for device, predictions in result.elsewhere.items():
        cells = [
            [p.operation, format_seconds(p.latency_s.mid), format_bytes(p.resident_bytes), p.limit] for p in predictions
        ]
        console().print(
            table(f"predicted on {device}", ["operation", "latency", "memory", "limit"], cells, right=(1, 2))
        )
    if record.detail:
        console().print(record.detail, markup=False)


COMMAND = workloads
