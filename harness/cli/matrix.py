"""``edge-harness matrix``: which models fit which devices, for many at once."""

from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from harness.cli import _options as options
from harness.cli._command import verb
from harness.cli._output import Answer, say, table
from harness.domain.option import Option
from harness.domain.question import Api, Asked, KvType
from harness.units import format_bytes, format_number

if TYPE_CHECKING:
    from harness.app.matrix import Cell

_MOST_ROWS = 40


@verb
def matrix(
    devices: Annotated[
        tuple[tuple[str, ...], ...],
        Meta(description="Devices: names or patterns, such as `iphone-*,pixel-*`; repeatable."),
        Option("--devices -d", is_repeated=True, default="all"),
    ] = (("*",),),
    models: Annotated[
        tuple[tuple[str, ...], ...],
        Meta(description="Models: names or patterns, such as `llama-3*`; repeatable."),
        Option("--models -m", is_repeated=True, default="all"),
    ] = (("*",),),
    quants: Annotated[
        tuple[str, ...],
        Meta(description="Quantisations, with commas: `Q4_K_M,Q8_0`."),
        Option("--quants -q"),
    ] = ("Q4_K_M",),
    contexts: options.ContextLengths = (4096,),
    kv_type: KvType = "F16",
    api: Api = "",
) -> Answer:
    """Predict every combination of devices, models, quantisations and context lengths.

    Each is answered by the best way to run it, as by `edge-harness fit`. Name devices or models: all of both
    are more than one table holds.
    """
    from harness.app.matrix import ask, columns
    from harness.cli._progress import RunProgress

    grid = ask(
        devices=list(chain(*devices)),
        models=list(chain(*models)),
        quants=quants,
        contexts=contexts,
        asked=Asked(kv_type=kv_type, api=api),
    )
    with RunProgress("predicting") as progress:
        cells = list(progress.each(grid.cells(), grid.cell_count))

    if len(cells) > _MOST_ROWS:
        view = _summary
    else:
        view = _all_cells
    return Answer(lambda: columns(cells), lambda: say(view(cells)))


def _all_cells(cells: "list[Cell]") -> Any:
    rows = []
    for cell in cells:
        sizes = format_bytes(cell.needed_bytes), format_bytes(cell.available_bytes)
        speed = ""
        if cell.decode_tokens_per_s:
            speed = format_number(cell.decode_tokens_per_s.mid)
        rows.append(
            (cell.device, cell.model, cell.quant, str(cell.context_tokens), *sizes, cell.verdict, speed)
        )
    names = ("device", "model", "quant", "context", "needs", "of", "verdict", "tokens/s")
    return table("", names, rows, spare=("context", "of", "needs", "quant"))


def _summary(cells: "list[Cell]") -> Any:
    """A row a device: how many cells fit, whole, split or read from storage, and the largest model that does."""
    rows = []
    for device in dict.fromkeys(cell.device for cell in cells):
        own = [cell for cell in cells if cell.device == device]
        whole = [cell for cell in own if cell.verdict == "fits"]
        words = ("fits", "fits split", "fits with streaming", "does not fit")
        counts = [str(sum(cell.verdict == word for cell in own)) for word in words]
        largest = "none"
        if whole:
            largest = max(whole, key=lambda cell: cell.needed_bytes).model
        rows.append((device, own[0].api, *counts, largest))
    names = ("device", "api", "fit", "fit split", "fit with streaming", "do not", "largest that fits")
    return table(f"{len(cells)} cells", names, rows, spare=("api",))
