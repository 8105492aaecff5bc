"""``edge-harness matrix``: which models fit which devices, for many at once."""

from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._command import Verb
from harness.cli._output import Answer, answers, say, table
from harness.units import format_bytes, format_number

if TYPE_CHECKING:
    from harness.predict.sweep import Grid

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
@click.option("--entitled", is_flag=True, help="Apps have the higher memory limit their system offers.")
@answers
def matrix(kv_type: str, api: str, **asked: Any) -> Answer:
    """Predict every combination of devices, models, quantisation mixtures and contexts."""
    from harness.app.matrix import ask, columns, plain
    from harness.app.resolve import scenario_from

    grid = ask(scenario=scenario_from({"kv_type": kv_type, "api": api}), **asked)

    def show() -> None:
        say(_summary(grid) if grid.verdict.size > _MOST_ROWS else _all_cells(columns(grid)))

    return Answer(lambda: plain(columns(grid)), show)


def _all_cells(cells: dict[str, Any]) -> Any:
    asked = [cells[name] for name in ("device", "model", "quant", "context_tokens")]
    sizes = [map(format_bytes, cells[name]) for name in ("needed_bytes", "available_bytes")]
    speeds = [format_number(speed) if speed > 0 else "" for speed in cells["decode_tokens_per_s"]]
    rows = zip(*asked, *sizes, cells["verdict"], speeds, strict=True)
    names = ("device", "model", "quant", "context", "needs", "of", "verdict", "tokens/s")
    return table("", names, rows, right=(3, 4, 5, 7), spare=("context", "of", "needs", "quant"))


def _summary(grid: "Grid") -> Any:
    """A row a device: how many cells fit, whole, split or read from storage, and the largest model that does."""
    rows = []
    for d, device in enumerate(grid.devices):
        verdicts = grid.verdict[d]
        fits = verdicts == 0
        most = [
            int(needed[ok].max()) if ok.any() else -1 for needed, ok in zip(grid.needed_bytes[d], fits, strict=True)
        ]
        best = max(range(len(most)), key=lambda m: most[m])
        counts = [str(int((verdicts == word).sum())) for word in (0, 3, 1, 2)]
        rows.append((device, grid.apis[d], *counts, grid.models[best] if most[best] >= 0 else "none"))
    names = ("device", "api", "fit", "fit split", "fit with streaming", "do not", "largest that fits")
    return table(f"{grid.verdict.size} cells", names, rows, right=(2, 3, 4, 5), spare=("api",))
