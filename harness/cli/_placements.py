"""Tables of placements: the best one, the next best, and the curve between all on the GPU and all with the CPU."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from harness.cli._output import console, table
from harness.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from harness.predict.placed import Choice, Choices

F = TypeVar("F", bound=Callable[..., Any])


class _Layers(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value in {"all", "auto"} or isinstance(value, int):
            return value  # type: ignore[no-any-return]
        if not str(value).isdigit():
            self.fail(f"{value!r} is no number of layers, nor `all` or `auto`", param, ctx)
        return int(value)


def _shares(_context: click.Context, param: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        shares = (-1.0,)
    if any(share < 0 for share in shares) or (shares and not sum(shares)):
        raise click.BadParameter(f"{text!r} is no list of shares such as 3,1", param=param)
    return shares


def placement_options(function: F) -> F:
    """Add the options of a placement: fields of :class:`harness.domain.placement.Placement`."""
    for option in (
        click.option("--kv-on-gpu/--no-kv-on-gpu", default=True, help="The cache lies with its block."),
        click.option("--main-gpu", type=click.IntRange(0), default=0, help="Card for what is not split."),
        click.option("--split-mode", type=click.Choice(["layer", "row"]), default="layer", show_default=True),
        click.option("--tensor-split", default="", callback=_shares, metavar="A,B", help="Share of each card."),
        click.option("--cpu-moe", type=click.IntRange(0), default=0, help="Experts of so many blocks on the CPU."),
        click.option("--gpu-layers", type=_Layers(), default="all", show_default=True, help="Layers on the GPU."),
    ):
        function = option(function)
    return function


CURVE_ROWS: Final = 14
"""Most rows of the table; ``--json`` has every step."""


def render_placements(found: "Choices", names: tuple[str, str]) -> None:
    """Print them; ``names`` are the model's and the device's."""
    out = console()
    if found.best is None:
        out.print(f"{names[0]} on {names[1]}: no split fits; the host's memory does not hold the rest", style="bold")
    else:
        out.print(f"llama.cpp: {found.best.flags}", style="bold", markup=False)
    marks = {id(found.best): "best", id(found.next_best): "next best"}
    every = max(len(found.curve) // CURVE_ROWS, 1)
    rows = [
        _cells(choice, marks.get(id(choice), ""))
        for number, choice in enumerate(found.curve)
        if number % every == 0 or id(choice) in marks
    ]
    columns = ("flags", "", "card", "RAM", "fits", "tokens/s", "90 %", "prefill", "90 %", "request")
    title = f"{names[0]} on {names[1]}: {found.moved} from the GPU to the CPU, step by step"
    out.print(table(title, columns, rows, right=(2, 3, 5, 7, 9)))


def _cells(choice: "Choice", mark: str) -> tuple[str, ...]:
    decode, prefill = choice.decode_tokens_per_s, choice.prefill_tokens_per_s
    return (
        choice.flags,
        mark,
        format_bytes(choice.vram_bytes),
        format_bytes(choice.ram_bytes),
        "yes" if choice.fits else "no",
        f"{decode.mid:.3g}",
        f"{decode.low:.3g} to {decode.high:.3g}",
        f"{prefill.mid:.3g}",
        f"{prefill.low:.3g} to {prefill.high:.3g}",
        format_seconds(choice.request_s),
    )
