"""``edge-harness ladder``: every quantisation of one model, with its size, speed, memory and quality."""

from pathlib import Path

import click

from harness.cli._files import model_file
from harness.cli._output import console, emit_json, json_option, table


@click.command("ladder")
@click.argument("model")
@click.option("--quants", default="", metavar="Q,Q,...", help="Rungs; the usual fifteen when not given.")
@click.option("--text", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Text to score on.")
@click.option("--chunks", default=8, type=click.IntRange(1), help="Chunks of 512 tokens that are scored.")
@click.option("--no-speed", is_flag=True, help="Sizes and quality only.")
@click.option("--repetitions", default=3, type=click.IntRange(1, 50), help="Clean samples of each speed test.")
@click.option("--device", "devices", multiple=True, metavar="D", help="Say which rung this device takes; repeatable.")
@click.option("--context", "context_tokens", default=4096, type=click.IntRange(64), help="Context the rung must hold.")
@click.option("--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Where files are made.")
@json_option
def COMMAND(  # noqa: N802  verbs are found by this name
    model: str,
    quants: str,
    text: Path | None,
    chunks: int,
    no_speed: bool,
    repetitions: int,
    devices: tuple[str, ...],
    context_tokens: int,
    folder: Path | None,
    as_json: bool,
) -> int:
    """Quantize MODEL to each rung and measure size, speed, memory and quality against the least quantized one."""
    from harness.app.ladder import DEFAULT_QUANTS, ladder, recommend, rung_predictions
    from harness.app.resolve import resolve_device
    from harness.domain.scenario import Scenario
    from harness.errors import Exit

    path = model_file(model)
    profiles = [resolve_device(name) for name in devices]
    progress = console(stderr=True)
    result = ladder(
        path,
        tuple(q.strip().upper() for q in quants.split(",") if q.strip()) or DEFAULT_QUANTS,
        text=text,
        chunk_count=chunks,
        measure_speed=not no_speed,
        repetitions=repetitions,
        folder=folder,
        say=progress.print,
    )
    taken = {}
    for profile in profiles:
        rung = recommend(result, rung_predictions(path, result, profile, Scenario(context_tokens=context_tokens)))
        taken[profile.name] = rung.quant if rung else None
    if as_json:
        emit_json({"ladder": result, "recommended": taken})
        return Exit.OK

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    rows = []
    for rung in result.rungs:
        q = rung.quality
        if q is None:
            rows.append((rung.quant, *[""] * 9, rung.outcome))
            continue
        rows.append(
            (
                rung.quant,
                f"{rung.size_bytes / 1e6:.0f}",
                f"{rung.bits_per_weight:.2f}",
                number(rung.decode_tokens_per_s, ".1f"),
                number(rung.prefill_tokens_per_s, ".0f"),
                number((rung.peak_memory_bytes or 0) / 1e6 or None, ".0f"),
                f"{q.perplexity:.4f} ± {q.perplexity_error:.3f}",
                f"{number(q.kl_divergence, '.4f')} ± {number(q.kl_divergence_error, '.4f')}",
                number(q.top1_agreement_ratio, ".3f"),
                f"{q.calibration_error:.4f}",
                "frontier" if rung.on_frontier else "",
            )
        )
    names = ("quant", "MB", "bits", "tg/s", "pp/s", "peak MB", "perplexity", "KL", "top-1", "ECE", "")
    title = f"{result.model} (source {result.source_quant}, compared with {result.reference_quant})"
    console().print(table(title, names, rows, right=range(1, 10)))
    if any(r.requantized_from for r in result.rungs):
        console().print(f"Requantized from {result.source_quant}: the loss of that step is in no figure here.")
    for name, quant in taken.items():
        console().print(f"{name}: {quant or 'no rung fits'}")
    return Exit.OK
