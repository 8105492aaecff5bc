"""``edge-harness fit``: does this model fit on that device, how fast, and what would help."""

from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._output import console, emit_json, json_option, table
from harness.cli._plans import render_plans
from harness.errors import Exit
from harness.units import GB

if TYPE_CHECKING:
    from rich.table import Table

    from harness.domain.device import DeviceProfile
    from harness.domain.prediction import Interval, Prediction
    from harness.predict.advice import Advice


@click.command()
@click.argument("model")
@click.option("--device", "-d", default="this", show_default=True, help="Device name, profile file, or `this` machine.")
@options.quant()
@options.context()
@options.prompt()
@options.tokens(128)
@click.option("--depth", "depth_tokens", type=options.Count(0), default=0, help="Tokens already in the cache.")
@click.option("--batch", "batch_count", type=options.Count(1, 4096), default=1, help="Sequences decoded together.")
@options.ubatch
@options.kv_type
@options.api
@options.threads
@options.layout
@click.option("--entitled", is_flag=True, help="The app has the higher memory limit its system offers.")
@click.option("--target", "target_tokens_per_s", type=options.Amount(), help="Decode speed wanted.")
@click.option("--draft", help="Draft model beside it: name or file, with its mixture after a colon.")
@click.option(
    "--with", "beside", multiple=True, metavar="WORKLOAD[:SIZE]", help="What else lives in the app; repeatable."
)
@click.option("--ram-budget", metavar="SIZE", help="RAM the app may use: 2GiB, 600MB, or 0.6x of the file.")
@click.option("--ram", "ram_bytes", type=options.Size(), help="RAM of the device instead of its own: 32GiB.")
@click.option("--vram", "vram_bytes", type=options.Size(), help="Memory of its card instead: 12GiB.")
@click.option("--bandwidth", "bandwidth_gb_s", type=options.Amount(), help="GB/s of its memory instead: 68.")
@click.option("--advice/--no-advice", "with_advice", default=True)
@json_option
def fit(
    model: str,
    device: str,
    quant: str,
    target_tokens_per_s: float | None,
    entitled: bool,
    draft: str | None,
    beside: tuple[str, ...],
    ram_budget: str | None,
    ram_bytes: int | None,
    vram_bytes: int | None,
    bandwidth_gb_s: float | None,
    with_advice: bool,
    as_json: bool,
    **fields: int | str | bool,
) -> int:
    """Predict memory and speed of MODEL (name, .gguf, config.json or .toml) on a device; exit 1 if it does not fit."""
    from harness.app.fit import advice_for, companion, override, predict, timing_notes, within_budget
    from harness.app.plans import plan_speculation, plan_under_budget
    from harness.app.resolve import THIS_MACHINE, neighbours, resolve_device, resolve_model, scenario_from

    scenario = scenario_from(fields)
    resolved, profile = resolve_model(model, quant or None), resolve_device(device, scenario)
    if ram_bytes or vram_bytes or bandwidth_gb_s:
        speed = bandwidth_gb_s * GB if bandwidth_gb_s else None
        profile = override(profile, ram_bytes=ram_bytes, vram_bytes=vram_bytes, bandwidth_bytes_per_s=speed)
    if ram_budget:
        profile = within_budget(profile, options.budget_of(ram_budget, resolved.weights.file_bytes))
    small = resolve_model(draft) if draft else None
    asked: dict[str, Any] = {"target_tokens_per_s": target_tokens_per_s, "entitled": entitled, "draft": small}
    asked["beside"] = tuple(companion(text) for text in beside)
    now = predict(resolved, profile, scenario, **asked)
    notes = resolved.notes
    if device in THIS_MACHINE:
        notes = (*notes, *timing_notes(resolved, profile, scenario))
    changes: list[Advice] = []
    if with_advice:
        others = neighbours(profile) if now.verdict.word != "fits" else ()
        changes = advice_for(resolved, profile, scenario, now, others=others, **asked)
    speculation = plan_speculation(resolved, profile, scenario, small) if with_advice or small else None
    streaming = None
    if ram_budget or now.verdict.word == "fits with streaming":
        streaming = plan_under_budget(resolved, profile, now, speculation)
    if as_json:
        document = {"scenario": scenario, "prediction": now, "advice": changes, "notes": notes}
        emit_json(document | {"speculation": speculation, "streaming": streaming})
    else:
        _render(now, changes, profile, notes)
        render_plans(speculation, streaming)
    return Exit.BROKEN if now.verdict.word == "does not fit" else Exit.OK


def _render(now: "Prediction", changes: "list[Advice]", device: "DeviceProfile", notes: tuple[str, ...]) -> None:
    from harness.predict.verdict import reachable_tokens_per_s

    out = console()
    out.print(_memory_table(now, device.title))
    out.print(_speed_table(now, reachable_tokens_per_s(now, device)))
    verdict = now.verdict
    out.print(f"{verdict.word}; binds: {verdict.binding_limit}", style="bold", markup=False)
    for reason in (*verdict.reasons, *notes):
        out.print(f"  {reason}", markup=False)
    if changes:
        out.print(_advice_table(changes))


def _memory_table(now: "Prediction", title: str) -> "Table":
    from harness.units import format_bytes

    rows: list[tuple[str, ...]] = [
        (part.name, part.pool, format_bytes(part.anonymous_bytes), format_bytes(part.file_bytes), part.reason)
        for part in now.memory.parts
    ]
    peak = now.memory.peak_bytes
    between = f"90 %: {format_bytes(peak.low)} to {format_bytes(peak.high)}"
    rows.append(("peak", "", format_bytes(now.memory.anonymous_bytes), format_bytes(now.memory.file_bytes), between))
    head = f"{now.model} {now.quant} on {title}, {now.api}: {format_bytes(peak.mid)} at its peak"
    return table(head, ("part", "pool", "held", "mapped", "why"), rows, right=(2, 3))


def _speed_table(now: "Prediction", reachable_tokens_per_s: float) -> "Table":
    from harness.units import format_bytes, format_seconds

    speed = now.speed

    def row(name: str, interval: "Interval", show: str) -> tuple[str, str, str]:
        def text(value: float) -> str:
            return format_seconds(value) if show == "s" else f"{value:.3g}"

        return name, text(interval.mid), f"{text(interval.low)} to {text(interval.high)}"

    rows = [
        row("decode, tokens/s", speed.decode_tokens_per_s, ""),
        row("prefill, tokens/s", speed.prefill_tokens_per_s, ""),
        row("first token, loaded", speed.ttft_warm_s, "s"),
        row("first token, from storage", speed.ttft_cold_s, "s"),
        row("load, from storage", speed.load_cold_s, "s"),
        ("ceiling, tokens/s", f"{speed.roofline_tokens_per_s:.3g}", f"{format_bytes(speed.active_bytes)} a token"),
    ]
    if reachable_tokens_per_s < speed.decode_tokens_per_s.mid:
        rows.insert(1, ("decode in the memory there is", f"{reachable_tokens_per_s:.2g}", "at most"))
    return table("", ("speed", "expected", "90 %"), rows, right=(1,))


def _advice_table(changes: "list[Advice]") -> "Table":
    from harness.units import format_bytes

    rows = []
    for number, advice in enumerate(changes, 1):
        if advice.quality_percent is None:
            quality = "not published"
        else:
            quality = f"{advice.quality_percent:+.1f} %" if advice.quality_percent else "none"
        rows.append(
            (
                str(number),
                advice.change,
                advice.word,
                format_bytes(advice.needed_bytes),
                f"{advice.decode_tokens_per_s:.3g}",
                f"{advice.speed_ratio:.2f}x" if advice.speed_ratio else "",
                quality,
            )
        )
    columns = ("", "what would help", "then", "needs", "tokens/s", "speed", "perplexity")
    return table("", columns, rows, right=(3, 4, 5, 6))


COMMAND = fit
