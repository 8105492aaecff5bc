"""Tables of placements: the best one, the next best, and the curve between all on the GPU and all with the CPU."""

from typing import TYPE_CHECKING, Final

from harness.cli._output import console, table
from harness.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from harness.predict.placed import Choice, Choices

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
