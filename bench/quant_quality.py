"""What each quantisation of a real model does to its confidences and to its answers, with intervals.

    python -m bench.quant_quality MODEL.gguf --quants Q8_0,Q4_K_M,Q2_K [--chunks 16] [--tasks 100] [--json]

Every quantisation is made from the file given (named "from ..." when that is quantized itself) and compared with it
row by row: next-token predictions on the shipped text, and five kinds of generated tasks by multiple choice.
"""

from collections.abc import Iterable
from pathlib import Path

import click
import msgspec

from bench.quant_quality_run import Asked, QuantQuality, quant_quality
from harness.domain.quality import CalibrationChange, Change


def _change(triple: Change, digits: int = 4) -> str:
    return f"{triple.value:+.{digits}f} [{triple.low:+.{digits}f}, {triple.high:+.{digits}f}]"


def _calibration(name: str, found: CalibrationChange) -> Iterable[str]:
    yield (
        f"  {name}: n {found.row_count}, accuracy {found.accuracy:.3f}, confidence {found.mean_confidence:.3f}, "
        f"ECE {found.ece:.4f}, smooth ECE {found.smooth_ece:.4f}, NLL {found.nll:.4f}"
    )
    yield (
        f"    NLL {_change(found.nll_change)}, ECE {_change(found.ece_change)}, "
        f"smooth ECE {_change(found.smooth_ece_change)}"
    )
    yield (
        f"    accuracy {_change(found.accuracy_change)}, flips {found.lost_count + found.gained_count} "
        f"({found.lost_count} lost, {found.gained_count} gained)"
    )
    if found.temperature:
        t = found.temperature
        yield (
            f"    best temperature {t.temperature:.3f} (first half); second half: ECE {t.ece:.4f} -> "
            f"{t.ece_scaled:.4f}, NLL {t.nll:.4f} -> {t.nll_scaled:.4f}"
        )


def lines(found: QuantQuality) -> Iterable[str]:
    """A result in words."""
    origin = f", requantized from {found.requantized_from}" if found.requantized_from else ""
    yield f"{found.quant}{origin}, {found.size_bytes / 1e6:.1f} MB"
    yield from _calibration("next token", found.next_token)
    if found.choices:
        yield from _calibration("choices", found.choices)
    for task in found.tasks:
        signal = "" if task.has_signal else "  NO SIGNAL: the source does not beat chance"
        yield (
            f"  {task.kind}: {task.accuracy.value:.3f} [{task.accuracy.low:.3f}, {task.accuracy.high:.3f}], chance "
            f"{task.chance:.3f}, change {_change(task.accuracy_change, 3)}, {task.lost_count} lost, "
            f"{task.gained_count} gained{signal}"
        )


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--quants", default="Q8_0,Q4_K_M,Q2_K", show_default=True)
@click.option(
    "--text", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Instead of the shipped one."
)
@click.option("--chunks", default=16, show_default=True, help="Chunks of 512 tokens; half of each is scored.")
@click.option("--tasks", default=100, show_default=True, help="Tasks of each kind.")
@click.option("--threads", default=0, help="Threads; all physical cores by default.")
@click.option("--json", "as_json", is_flag=True)
def main(model: Path, quants: str, text: Path | None, chunks: int, tasks: int, threads: int, as_json: bool) -> None:
    """Compare quantisations of MODEL with MODEL itself."""
    asked = Asked(text=text, chunk_count=chunks, task_count=tasks, thread_count=threads)
    found = quant_quality(model, quants.split(","), asked, say=lambda word: click.echo(word, err=True))
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    for result in found:
        for line in lines(result):
            click.echo(line)


if __name__ == "__main__":
    main()
