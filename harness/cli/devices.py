"""``edge-harness devices``: the device profiles there are, and what each one says."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from harness.cli import _options as options
from harness.cli.command import Verbs
from harness.core.option import Option
from harness.core.units import GB, GIB, TERA, format_bytes, format_rate
from harness.show.output import Output, say, table

if TYPE_CHECKING:
    from harness.core.device import Device
    from harness.speed.published.cells import Cells

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
def show(device: Annotated[str | None, Option(metavar="[DEVICE]")] = None) -> Output:
    """Show every figure of DEVICE with its source and confidence, and what others measured of its chip.

    Without a DEVICE, list the devices that have a full profile. DEVICE is a name, a path to a .toml, or a
    line of parts: "rtx 4070 super + 64GB ddr5-6000", "m6: 16GB, 170GB/s".

    Example: edge-harness devices show iphone-15-pro
    """
    if device is None:
        return _list()
    from harness.answer.nearest import measured_of
    from harness.answer.resolve import resolve_device
    from harness.hardware.built import power_modes

    profile = resolve_device(device)
    lines = []
    for engine in profile.engines:
        cores = f", {engine.core_count} cores" * bool(engine.core_count)
        parts = "/".join(engine.apis), *(engine.isa or ())
        lines.append(f"{engine.kind}: {engine.name} ({engine.pool}{cores}): {' '.join(parts)}")
    for calibration in profile.calibrations:
        types = ", ".join(cost.type_name for cost in calibration.types)
        lines += [f"calibrated: {calibration.api}, {calibration.engine_version}: {types}"]
    if profile.learned:
        lines.append(f"speeds learnt from measurements: {profile.learned}")
    if modes := power_modes(profile):
        watts = ", ".join(f"{watts:g}" for watts in sorted(modes))
        lines.append(f"power modes of {watts} W: name one behind the device, such as {min(modes):g}W")
    lines += [*profile.readings, profile.notes]

    def shown() -> None:
        say(_figures_table(profile), *(f"  {line}" for line in lines if line))
        if measured := measured_of(profile):
            say(_measured_table(measured))

    return Output(profile, shown)


def _measured_table(measured: "list[Cells]") -> str:
    """What others measured: the latest of each model."""
    from harness.speed.published.rows import source_key

    latest = {cells["model"]: cells for cells in reversed(measured)}
    names = ("model", "quant", "test", "tokens_per_s", "date")
    rows = [
        [*(cells.get(name, "") for name in names), source_key(cells["source"])]
        for cells in list(reversed(latest.values()))[:_SHOWN_COUNT]
    ]
    title = f"{len(measured)} speeds of this chip that others measured, of {len(latest)} models; the latest:"
    return table(title, ("model", "quant", "test", "tokens/s", "date", "source"), rows)


def _list() -> Output:
    from harness.hardware.devices import device_names, load_device

    profiles = [load_device(name) for name in device_names()]
    rows = []
    for profile in profiles:
        pool = profile.pool(profile.engine().pool)
        sizes = f"{pool.total_bytes.value / GIB:g}", f"{pool.usable_bytes.value / GIB:.1f}"
        rows.append((profile.name, profile.kind, *sizes, f"{pool.bandwidth_bytes_per_s.value / GB:.1f}"))
    listed = table(f"{len(rows)} devices", ("device", "kind", "GiB", "for one app", "GB/s"), rows)
    others = (
        "and any card, phone, computer, chip or CPU by its name: edge-harness devices show 'rtx 3080 laptop'"
    )
    return Output(profiles, lambda: say(listed, others))


@devices.command()
def probe(
    quick: Annotated[bool, Option("--quick", "Take about ten seconds: the engine is not timed.")] = False,
    out: Annotated[
        Path | None,
        Option(
            "--out -o",
            "File to write.",
            "Output",
            reads=options.ending(".toml"),
            default="in your own devices folder, where --device finds it",
        ),
    ] = None,
    target: options.On = "local",
    programs: options.Programs = None,
) -> Output:
    """Measure this machine, or the one named by --on, and write its profile (here: --device this-machine).

    Example: edge-harness devices probe --quick
    """
    if target != "local" or programs is not None:
        from harness.verbs.on_target import probe_on

        profile, path = probe_on(target, programs, out)
    else:
        from harness.core.scenario import Scenario
        from harness.measure.probe.calibrate import DEFAULT_TYPES
        from harness.measure.probe.machine_profile import save_profile
        from harness.show.progress_line import RunProgress
        from harness.verbs.this_machine import probed

        with RunProgress() as progress:
            types = set() if quick else set(DEFAULT_TYPES)
            profile = probed(types, Scenario(), heard=progress, again=True)
        path = save_profile(profile.replace(name=out.stem) if out else profile, out)

    def show() -> None:
        say(_figures_table(profile))
        click.echo(f"  {profile.notes}\n  written to {path}: --device {profile.name}")

    return Output(profile, show)


def _figures_table(profile: "Device") -> str:
    """Every figure of each part, in the unit that its field's name ends in; unlike cards each as it is."""
    parts: list[tuple[str, Any]] = [(pool.name, pool) for pool in profile.pools]
    parts += [(engine.kind, engine) for engine in profile.engines]
    cards = {card.engine().name: card for card in profile.cards}
    if len(cards) > 1:  # in place of their mean
        own = profile.own_pool
        replaced = {"gpu", own.name if own else ""}
        parts = [(name, part) for name, part in parts if name not in replaced]
        for name, card in cards.items():
            parts += [(f"{name}: {pool.name}", pool) for pool in card.pools if pool.is_own]
            parts.append((f"{name}:", card.engine()))
    rows = []
    for part_name, part in (*parts, ("storage", profile.storage), ("power", profile.power)):
        for field in part.__struct_fields__:
            value = getattr(part, field)
            end = next((end for end in _WORDS if field.endswith(end)), "")
            label = f"{part_name} {field.removesuffix(end).replace('_', ' ')}"
            figures = value if isinstance(value, dict) else {"": value}
            for kind, figure in figures.items():
                if hasattr(figure, "confidence"):
                    shown = _WORDS.get(end, str)(figure.value)
                    if "int" in kind:
                        shown = shown.replace("FLOP", "OP")
                    rows.append((f"{label} {kind}", shown, figure.known_by, figure.source))
    title = f"{profile.title} ({profile.chip}, {profile.os}, {profile.year})"
    return table(title, ("figure", "value", "known by", "source"), rows)
