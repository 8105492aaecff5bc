"""``edge-harness matrix``: which models fit which devices, for many at once."""

from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._command import Verb
from harness.cli._output import Answer, answers, console, say, table
from harness.units import format_bytes, format_number

if TYPE_CHECKING:
    from harness.app.matrix import Cell

_MOST_ROWS = 40


@click.command(cls=Verb)
@click.option("--devices", "-d", default="*", callback=options.words, help="Patterns such as `iphone-*,pixel-*`.")
@click.option("--models", "-m", default="*", callback=options.words, help="Patterns such as `llama-3*`.")
@click.option("--quants", "-q", default="Q4_K_M", callback=options.words, show_default=True, help="Mixtures.")
@click.option(
    "--contexts", "-c", default="4096", callback=options.numbers(1), show_default=True, help="Tokens of KV cache."
)
@options.kv_type
@click.option("--api", default="", help="Api; each device's usual one unless given.")
@answers
def matrix(kv_type: str, api: str, **asked: Any) -> Answer:
    """Predict every combination of devices, models, quantisation mixtures and contexts.

    Each is answered by the best way there is, as `edge-harness fit` answers it. Name devices or models: all of both are
    more than one table holds.
    """
    from rich.progress import track

    from harness.app.matrix import ask, columns
    from harness.app.resolve import scenario_from, usual_program

    grid = ask(scenario=scenario_from({"kv_type": kv_type, "api": api, "program": usual_program("")}), **asked)
    screen = console(stderr=True)
    off = not screen.is_terminal
    cells = list(track(grid.cells(), "predicting", grid.cell_count, console=screen, transient=True, disable=off))

    def show() -> None:
        say(_summary(cells) if len(cells) > _MOST_ROWS else _all_cells(cells))

    return Answer(lambda: columns(cells), show)


def _all_cells(cells: "list[Cell]") -> Any:
    rows = []
    for cell in cells:
        sizes = format_bytes(cell.needed_bytes), format_bytes(cell.available_bytes)
        speed = format_number(cell.decode_tokens_per_s.mid) if cell.decode_tokens_per_s else ""
        rows.append((cell.device, cell.model, cell.quant, str(cell.context_tokens), *sizes, cell.verdict, speed))
    names = ("device", "model", "quant", "context", "needs", "of", "verdict", "tokens/s")
    return table("", names, rows, right=(3, 4, 5, 7), spare=("context", "of", "needs", "quant"))


def _summary(cells: "list[Cell]") -> Any:
    """A row a device: how many cells fit, whole, split or read from storage, and the largest model that does."""
    rows = []
    for device in dict.fromkeys(cell.device for cell in cells):
        own = [cell for cell in cells if cell.device == device]
        whole = [cell for cell in own if cell.verdict == "fits"]
        words = ("fits", "fits split", "fits with streaming", "does not fit")
        counts = [str(sum(cell.verdict == word for cell in own)) for word in words]
        largest = max(whole, key=lambda cell: cell.needed_bytes).model if whole else "none"
        rows.append((device, own[0].api, *counts, largest))
    names = ("device", "api", "fit", "fit split", "fit with streaming", "do not", "largest that fits")
    return table(f"{len(cells)} cells", names, rows, right=(2, 3, 4, 5), spare=("api",))
