"""``edge-harness devices``: the device profiles there are, and what each one says."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import _options as options
from harness.cli._output import console, emit_json, json_option, table

if TYPE_CHECKING:
    from rich.table import Table

    from harness.domain.device import Calibration, DeviceProfile, Figure


@click.group()
def devices() -> None:
    """List, show and probe device profiles; calibrate one from measurements."""


@devices.command("list")
@json_option
def list_devices(as_json: bool) -> None:
    """List every device with its RAM, what one app may use of it, and its bandwidth."""
    from harness.catalog.devices import device_names, load_device
    from harness.units import gb, gib

    profiles = [load_device(name) for name in device_names()]
    if as_json:
        emit_json([_summary(p) for p in profiles])
        return
    rows = []
    for p in profiles:
        pool = p.pool(p.engine().pool)
        rows.append(
            (
                p.name,
                p.kind,
                f"{gib(pool.total_bytes.value):g}",
                f"{gib(pool.usable_bytes.value):.1f}",
                f"{gb(pool.bandwidth_bytes_per_s.value):.1f}",
            )
        )
    columns = ("device", "kind", "GiB", "for one app", "GB/s")
    view = table(f"{len(rows)} devices", columns, rows, right=(2, 3, 4))
    view.columns[0].no_wrap = True
    console().print(view)


@devices.command()
@click.argument("device")
@json_option
def show(device: str, as_json: bool) -> None:
    """Show every figure of DEVICE (a name, or a path to a .toml) with its source and confidence."""
    from harness.catalog.devices import load_device

    profile = load_device(device)
    if as_json:
        emit_json(profile)
        return
    console().print(_figures_table(profile))
    for engine in profile.engines:
        parts = [f"{engine.name} ({engine.pool}, {'/'.join(engine.apis)})"]
        parts += [f"{engine.core_count} cores"] * bool(engine.core_count) + ["+".join(engine.isa)] * bool(engine.isa)
        click.echo(f"  {engine.kind}: {', '.join(parts)}")
    for calibration in profile.calibrations:
        kinds = ", ".join(cost.type_name for cost in calibration.types)
        click.echo(f"  calibrated: {calibration.api}, {calibration.engine_version}: {kinds}")
    if profile.learned:
        click.echo(f"  speeds learnt from measurements: {profile.learned}")
    if profile.notes:
        click.echo(f"  {profile.notes}")


@devices.command()
@click.option("--quick", is_flag=True, help="Some ten seconds: fewer passes, and the engine is not timed.")
@click.option(
    "--out",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; your own devices folder unless given.",
)
@options.on_target
@json_option
def probe(quick: bool, out: Path | None, target: str, programs: Path | None, as_json: bool) -> None:
    """Measure this machine and write its profile (then usable as --device this-machine); or one behind --on."""
    if target != "local":
        from harness.app.on_target import probe_on

        profile, path = probe_on(target, programs, out)
        if as_json:
            emit_json(profile)
            return
        console().print(_figures_table(profile))
        click.echo(f"  {profile.notes}\n  written to {path}: --device {profile.name}")
        return
    from harness.measure.probe import DEVICE_NAME, probe_machine, save_profile

    progress = console(stderr=True)
    name = out.stem if out else DEVICE_NAME

    def say(line: str) -> None:
        progress.print(f"  {line} ...")

    calibrations = () if quick else _calibrations(say)
    profile = probe_machine(quick=quick, progress=say, name=name, calibrations=calibrations)
    path = save_profile(profile, out)
    if as_json:
        emit_json(profile)
        return
    console().print(_figures_table(profile))
    click.echo(f"  {profile.notes}\n  written to {path}")


@devices.command()
@click.argument("device")
@click.option(
    "--from",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Records, llama-bench's output or table, a server's answers as JSON, pasted lines; repeatable.",
)
@click.option("--line", "lines", multiple=True, help='One measurement: "qwen3-8b Q4_K_M 512.3 45.1" (pp512, tg128).')
@click.option("--forget", "forgotten", is_flag=True, help="Forget what measurements taught of DEVICE.")
@json_option
def calibrate(device: str, files: tuple[Path, ...], lines: tuple[str, ...], forgotten: bool, as_json: bool) -> None:
    """Learn from measurements of DEVICE, whoever made them; every later prediction for it uses that.

    What was learnt before is kept; without a file or a line, it is learnt again.
    """
    from harness.app.learn import forget, learn, measurements_in, pasted_line
    from harness.catalog.devices import load_device
    from harness.cli._lessons import render_lesson

    if forgotten:
        if files or lines:
            raise click.UsageError("--forget takes no measurements")
        path = forget(device)
        emit_json({"forgotten": str(path)}) if as_json else click.echo(f"forgotten: {path}")
        return
    new = [one for file in files for _, one in measurements_in(file)]
    lesson = learn(load_device(device), [*new, *(one for line in lines for one in pasted_line(line))])
    emit_json(lesson) if as_json else render_lesson(lesson)


def _calibrations(say: Callable[[str], None]) -> "tuple[Calibration, ...]":
    """The engine's costs by weight type; none where it is not installed."""
    from harness.errors import MissingPackageError
    from harness.measure.calibrate import DEFAULT_TYPES, calibrate

    try:
        return (calibrate(DEFAULT_TYPES, progress=say),)
    except MissingPackageError as error:
        say(f"the engine is not timed: {error}")
        return ()


def _summary(profile: "DeviceProfile") -> dict[str, object]:
    pool = profile.pool(profile.engine().pool)
    return {
        "name": profile.name,
        "title": profile.title,
        "kind": profile.kind,
        "chip": profile.chip,
        "os": profile.os,
        "year": profile.year,
        "pool": pool.name,
        "total_bytes": pool.total_bytes.value,
        "usable_bytes": pool.usable_bytes.value,
        "bandwidth_bytes_per_s": pool.bandwidth_bytes_per_s.value,
        "bandwidth_confidence": pool.bandwidth_bytes_per_s.confidence,
        "apis": [b for engine in profile.engines for b in engine.apis],
        "calibrated": [c.api for c in profile.calibrations],
    }


def _figures_table(profile: "DeviceProfile") -> "Table":
    from harness.units import TERA, format_bytes, format_rate

    rows: list[tuple[str, ...]] = []

    def add(name: str, figure: "Figure | None", words: str) -> None:
        if figure is not None:
            rows.append((name, words, figure.confidence, figure.source))

    def add_bytes(name: str, figure: "Figure | None") -> None:
        add(name, figure, format_bytes(figure.value) if figure else "")

    def add_rate(name: str, figure: "Figure | None") -> None:
        add(name, figure, format_rate(figure.value) if figure else "")

    for pool in profile.pools:
        add_bytes(f"{pool.name} total ({pool.technology})", pool.total_bytes)
        add_bytes(f"{pool.name} for one app", pool.usable_bytes)
        add_bytes(f"{pool.name} on request", pool.entitled_bytes)
        add_rate(f"{pool.name} bandwidth", pool.bandwidth_bytes_per_s)
        add_rate(f"{pool.name} read, measured", pool.measured_read_bytes_per_s)
        add_rate(f"{pool.name} copy, measured", pool.measured_copy_bytes_per_s)
    for engine in profile.engines:
        for dtype, peak in engine.peak_flops_per_s.items():
            add(f"{engine.kind} peak {dtype}", peak, f"{peak.value / TERA:.3g} T/s")
        kept = engine.sustained_ratio
        add(f"{engine.kind} kept after ten minutes", kept, f"{kept.value:.0%}" if kept else "")
    add_rate(f"storage, in sequence ({profile.storage.technology})", profile.storage.sequential_read_bytes_per_s)
    add_rate("storage, at random", profile.storage.random_read_bytes_per_s)
    add_rate("storage, mapped", profile.storage.mapped_read_bytes_per_s)
    power = profile.power
    add("battery", power.battery_joules, f"{power.battery_joules.value / 3600:.1f} Wh" if power.battery_joules else "")
    add(
        "power, sustained", power.sustained_watts, f"{power.sustained_watts.value:g} W" if power.sustained_watts else ""
    )
    add("power, peak", power.peak_watts, f"{power.peak_watts.value:g} W" if power.peak_watts else "")
    title = f"{profile.title} ({profile.chip}, {profile.os}, {profile.year})"
    return table(title, ("figure", "value", "known by", "source"), rows, right=(1,))


COMMAND = devices
