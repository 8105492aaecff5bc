"""``edge-harness devices``: the device profiles there are, and what each one says."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from harness.cli import _options as options
from harness.cli._command import Verbs
from harness.cli._output import Answer, say, table
from harness.domain.option import Option
from harness.errors import MissingPackageError
from harness.units import GB, GIB, TERA, format_bytes, format_rate

if TYPE_CHECKING:
    from harness.domain.device import Calibration, DeviceProfile
    from harness.published.cells import Cells

_WORDS: "Final[dict[str, Callable[[float], str]]]" = {
    "_bytes_per_s": format_rate,
    "_bytes": format_bytes,
    "_flops_per_s": lambda value: f"{value / TERA:.3g} TFLOP/s",
    "_ratio": "{:.0%}".format,
    "_joules": lambda value: f"{value / 3600:.1f} Wh",
    "_watts": "{:g} W".format,
}
"""How figures are shown, by how the name of their field ends."""


_SHOWN_COUNT: Final = 12
"""Of what others measured of a device: a page."""


@click.group(cls=Verbs)
def devices() -> None:
    """Show and probe device profiles."""


@devices.command()
def show(device: Annotated[str | None, Option(metavar="[DEVICE]", names="devices")] = None) -> Answer:
    """Show every figure of DEVICE with its source and confidence, and what others measured of its chip.

    Without a DEVICE, list those with a full profile.

    DEVICE is a name, a path to a .toml, or a line of parts: "rtx 4070 super + 64GB ddr5-6000", "m6: 16GB,
    170GB/s".

    Example: edge-harness devices show iphone-15-pro
    """
    if device is None:
        return _list()
    from harness.app.published import measured_of
    from harness.app.resolve import resolve_device
    from harness.catalog.machine import power_modes

    profile = resolve_device(device)
    measured = measured_of(profile)

    lines = []
    for engine in profile.engines:
        parts = [f"{engine.name} ({engine.pool}, {'/'.join(engine.apis)})"]
        if engine.core_count:
            parts += [f"{engine.core_count} cores"]
        if engine.isa:
            parts += ["+".join(engine.isa)]
        lines.append(f"{engine.kind}: {', '.join(parts)}")
    for calibration in profile.calibrations:
        kinds = ", ".join(cost.type_name for cost in calibration.types)
        lines.append(f"calibrated: {calibration.api}, {calibration.engine_version}: {kinds}")
    if profile.learned:
        lines += [f"speeds learnt from measurements: {profile.learned}"]
    if modes := power_modes(profile):
        watts = ", ".join(f"{watts:g}" for watts in sorted(modes))
        lines.append(f"power modes of {watts} W: name one behind the device, such as {min(modes):g}W")
    lines += filter(None, (*profile.readings, profile.notes))

    def shown() -> None:
        say(_figures_table(profile))
        click.echo("\n".join(f"  {line}" for line in lines))
        if measured:
            say(_measured_table(measured))

    return Answer(profile, shown)


def _measured_table(measured: "list[Cells]") -> str:
    """What others measured: the latest of each model."""
    from harness.published.rows import source_key

    latest = {cells["model"]: cells for cells in reversed(measured)}
    listed = list(reversed(latest.values()))[:_SHOWN_COUNT]
    columns = ("model", "quant", "test", "tokens/s", "date", "source")
    rows = [
        (
            cells["model"],
            cells["quant"],
            cells["test"],
            cells["tokens_per_s"],
            cells.get("date", ""),
            source_key(cells["source"]),
        )
        for cells in listed
    ]
    title = f"{len(measured)} speeds of this chip that others measured, of {len(latest)} models; the latest:"
    return table(title, columns, rows)


def _list() -> Answer:
    from harness.catalog.devices import device_names, load_device

    profiles = [load_device(name) for name in device_names()]

    def row(p: "DeviceProfile") -> tuple[str, ...]:
        pool = p.pool(p.engine().pool)
        sizes = f"{pool.total_bytes.value / GIB:g}", f"{pool.usable_bytes.value / GIB:.1f}"
        return p.name, p.kind, *sizes, f"{pool.bandwidth_bytes_per_s.value / GB:.1f}"

    columns = ("device", "kind", "GiB", "for one app", "GB/s")
    others = (
        "and any card, phone, computer, chip or CPU by its name: edge-harness devices show 'rtx 3080 laptop'"
    )
    return Answer(
        profiles, lambda: say(table(f"{len(profiles)} devices", columns, map(row, profiles)), others)
    )


@devices.command()
def probe(
    quick: Annotated[bool, Option("--quick", "Take about ten seconds: the engine is not timed.")] = False,
    out: Annotated[
        Path | None,
        Option(
            "--out -o",
            "File to write.",
            "Output",
            metavar="FILE",
            reads=options.ending(".toml"),
            default="in your own devices folder, where --device finds it",
        ),
    ] = None,
    target: options.On = "local",
    programs: options.Programs = None,
) -> Answer:
    """Measure this machine, or the one named by --on, and write its profile (here: --device this-machine).

    Example: edge-harness devices probe --quick
    """
    if target != "local" or programs is not None:
        from harness.app.on_target import probe_on

        profile, path = probe_on(target, programs, out)
    else:
        from harness.cli._progress import RunProgress
        from harness.measure.calibrate import DEFAULT_TYPES, calibrate
        from harness.measure.lock import alone
        from harness.measure.probe import DEVICE_NAME, probe_machine, save_profile

        costs: tuple[Calibration, ...] = ()
        with RunProgress() as progress, alone(progress.say):
            try:
                if not quick:
                    costs = (calibrate(DEFAULT_TYPES, heard=progress),)
            except MissingPackageError as error:
                progress.say(f"the engine is not timed: {error}")
            progress.begin("probing this machine", within_s=10.0)
            profile = probe_machine(progress=progress.say, name=out.stem if out else DEVICE_NAME)
        profile = profile.replace(calibrations=costs)
        path = save_profile(profile, out)

    def show() -> None:
        say(_figures_table(profile))
        click.echo(f"  {profile.notes}\n  written to {path}: --device {profile.name}")

    return Answer(profile, show)


def _figures_table(profile: "DeviceProfile") -> str:
    rows: list[tuple[str, ...]] = []
    named: list[tuple[str, Any]] = [(pool.name, pool) for pool in profile.pools]
    named += [(engine.kind, engine) for engine in profile.engines]
    cards = {card.engine().name: card for card in profile.cards}
    if len(cards) > 1:  # each as it is, in place of their mean
        named = [(name, part) for name, part in named if name not in {"vram", "gpu"}]
        for name, card in cards.items():
            named += [(f"{name}: vram", card.pool("vram")), (f"{name}:", card.engine())]
    for part_name, part in (*named, ("storage", profile.storage), ("power", profile.power)):
        for field in part.__struct_fields__:
            value = getattr(part, field)
            name, show = next(
                ((field.removesuffix(end), words) for end, words in _WORDS.items() if field.endswith(end)),
                (field, str),
            )
            label = f"{part_name} {name.replace('_', ' ')}"
            figures = {label: value}
            if isinstance(value, dict):
                figures = {f"{label} {dtype}": peak for dtype, peak in value.items()}
            rows += [
                (
                    words,
                    show(figure.value).replace("FLOP", "OP" if "int" in words else "FLOP"),
                    figure.known_by,
                    figure.source,
                )
                for words, figure in figures.items()
                if hasattr(figure, "confidence")
            ]
    title = f"{profile.title} ({profile.chip}, {profile.os}, {profile.year})"
    return table(title, ("figure", "value", "known by", "source"), rows)
