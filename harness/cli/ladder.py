"""``edge-harness ladder``: every quantisation of one model, with its size, speed, memory, quality and calibration."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._command import Verb
from harness.cli._output import Answer, Table, model_file, say, table
from harness.errors import Exit
from harness.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.app.ladder import RungAdvice
    from harness.domain.quality import Change
    from harness.records.ladder import Ladder, Rung


@click.command("ladder", cls=Verb)
@click.argument("model")
@click.option(
    "--quants", callback=options.words, metavar="Q,Q,...", help="Quantisations to try. [default: fifteen usual ones]"
)
@click.option(
    "--text", type=options.FILE_HERE, help="Text to measure quality on. [default: one that ships with edge-harness]"
)
@click.option(
    "--chunks",
    default=8,
    type=click.IntRange(0),
    show_default=True,
    help="Chunks of 512 tokens of the text to score; 0 for all.",
)
@click.option("--no-speed", is_flag=True, help="Measure size and quality only.")
@options.tokens(64)
@options.prompt()
@options.threads
@options.api
@options.placement()
@options.repetitions(3)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="DEVICE",
    help="Recommend a quantisation for this device (name, pattern or file); may be repeated.",
)
@options.context()
@options.memory_limit
@options.emulated
@click.option("--folder", type=options.FOLDER_HERE, help="Folder for temporary files.")
@click.option("--keep", type=options.FOLDER, help="Folder to keep the quantised files in.")
@options.on_target
@options.measuring()
def ladder(
    model: str,
    quants: tuple[str, ...],
    chunks: int,
    no_speed: bool,
    repetitions: int,
    devices: tuple[str, ...],
    target: str,
    programs: Path | None,
    how: "options.How",
    **given: Any,
) -> Answer:
    """Measure size, speed, memory and quality of each quantisation of a model.

    MODEL is quantised to each one, and each is compared with the least quantised. With --resume the work can be done in
    parts: first --no-speed, then the speeds of a few --quants at a time; what was measured in the last 24 hours is
    reused. With --on and --programs the files are made and scored here, and pushed to the other machine to be timed.
    """
    from harness.app.ladder import DEFAULT_QUANTS, Asked, advise, ladder
    from harness.app.matrix import matching
    from harness.app.resolve import resolve_device, scenario_from
    from harness.catalog.devices import device_names
    from harness.domain.scenario import Scenario
    from harness.targets import target_named

    path = model_file(model)
    profiles = [resolve_device(name) for name in matching("device", devices, device_names())]
    there = Scenario(context_tokens=given.pop("context_tokens"))
    fields = options.fields_of(Scenario, given)
    fields["context_tokens"] = max(1024, fields["prompt_tokens"], fields["new_tokens"])
    timed = scenario_from(fields)
    asked = Asked(
        chunk_count=chunks,
        scenario=None if no_speed else timed,
        repetitions=repetitions,
        target=target_named(target) if programs else None,
        programs=programs or Path(),
    )
    wanted = tuple(dict.fromkeys(map(str.upper, quants))) or DEFAULT_QUANTS
    result, records = ladder(path, wanted, asked=asked, how=how, **given)
    advice = advise(path, result, profiles, there)
    made = any(rung.outcome == "ok" for rung in result.rungs)
    takes = {a.device: a.quant or None for a in advice}
    document = {"ladder": result, "recommended": takes, "advice": advice, "records": records}
    return Answer(document, lambda: say(*ladder_tables(result, advice)), Exit.OK if made else Exit.COULD_NOT_RUN)


def ladder_tables(result: "Ladder", advice: "Sequence[RungAdvice]") -> "Iterator[Table | str]":
    """Size, speed and quality; what happened to calibration; what each device takes; what to keep in mind."""
    title = f"{result.model} (source {result.source_quant}, compared with {result.reference_quant})"
    names = ["quant", "MB", "bits", "mostly", "tg/s", "pp/s", "peak MB", "perplexity", "KL", "same top", ""]
    yield table(title, names, map(_size, result.rungs), right=(1, 2, 4, 5, 6, 7, 8, 9))
    if told := [(r.quant, r.calibration) for r in result.rungs if r.calibration]:
        base = result.reference
        title = f"Calibration beside {result.reference_quant}, the same tokens"
        if base:
            title += f" ({base.token_count}; NLL {base.nll:.4f}, ECE {base.ece:.4f}, right {base.accuracy:.3f})"
        names = ["quant", "NLL change, 95 %", "flips", "lost", "gained", "ECE", "ECE change, 95 %"]
        rows = []
        for quant, c in told:
            flips = (c.lost_count + c.gained_count, c.lost_count, c.gained_count)
            rows.append((quant, _change(c.nll_change), *map(str, flips), f"{c.ece:.4f}", _change(c.ece_change)))
        yield table(title, names, rows, right=(1, 2, 3, 4, 5, 6))
    if advice:
        names = ["device", "takes", "KL", "tokens/s there", "memory there", ""]
        yield table("Which rung each device should take", names, map(_advice, advice), right=(2, 3, 4))
    if any(r.requantized_from for r in result.rungs):
        yield (
            f"Requantized from {result.source_quant}: the loss of that first step is in no figure here, and "
            f"{result.reference_quant} is as good as {result.source_quant}, no better."
        )
    # A mixture is named after the family of most of its weights: Q4 of Q4_K_M, IQ4 of IQ4_XS.
    family = [(r.quant, next(iter(r.types)).partition("_")[0]) for r in result.rungs if r.types]
    if renamed := [quant for quant, most in family if most != quant.partition("_")[0]]:
        yield (
            f"{', '.join(renamed)}: most weights are of a wider type (see mostly), since this model's rows are no "
            "multiple of 256."
        )
    if disturbed := [r.quant for r in result.rungs if r.speed_outcome == "inconclusive"]:
        yield f"~ {', '.join(disturbed)}: the machine was disturbed all along; no speed to believe."


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _size(rung: "Rung") -> tuple[str, ...]:
    if rung.outcome != "ok":
        return (rung.quant, *[""] * 9, rung.outcome)
    q = rung.quality
    main = next(iter(rung.types.items()), None)
    unsure = "~" if rung.speed_outcome == "inconclusive" else ""
    failed = rung.speed_outcome if rung.speed_outcome not in {"", "ok", "inconclusive"} else ""
    return (
        rung.quant,
        f"{rung.size_bytes / 1e6:.0f}",
        f"{rung.bits_per_weight:.2f}",
        f"{main[0]} {main[1]:.0%}" if main else "",
        unsure + _number(rung.decode_tokens_per_s, ".1f"),
        unsure + _number(rung.prefill_tokens_per_s, ".0f"),
        _number((rung.peak_memory_bytes or 0) / 1e6 or None, ".0f"),
        f"{q.perplexity:.4f} ± {q.perplexity_error:.3f}" if q else "",
        f"{_number(q.kl_divergence, '.4f')} ± {_number(q.kl_divergence_error, '.4f')}" if q else "",
        _number(q.top1_agreement_ratio, ".3f") if q else "",
        failed or ("frontier" if rung.on_frontier else ""),
    )


def _change(found: "Change") -> str:
    clear = "" if found.low <= 0 <= found.high else "*"
    return f"{clear}{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _advice(advice: "RungAdvice") -> tuple[str, ...]:
    if not advice.quant:
        return advice.device, "no rung fits", "", "", "", ""
    speed, peak = advice.decode_tokens_per_s, advice.peak_bytes
    return (
        advice.device,
        advice.quant,
        _number(advice.kl_divergence, ".4f"),
        f"{speed.mid:.1f} [{speed.low:.1f}, {speed.high:.1f}]" if speed else "",
        format_bytes(peak.mid) if peak else "",
        "" if advice.is_faithful else "no rung within 0.1 nats fits: the closest one",
    )
