"""The laws against published measurements, by what ships."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.app.published import model_of, shipped_rows
from harness.predict.coefficients import shipped
from harness.published.cells import Kind, kind_of
from harness.published.heat_rows import heat_rows
from harness.published.other_rows import batch_rows, speculation_rows, streaming_rows
from harness.published.placement_rows import placed_rows
from harness.published.rows import Row, read_rows
from harness.published.score import Report, judge_shipped, report


def validate(rows: Path | None = None) -> Report:
    """Predictions by what ships against a file of rows, all shipped ones by default.

    Raises:
        BadDataError: The file has not the columns, or a number that is none.
    """
    if rows is None:
        judged = [*shipped_rows(), *shipped_others()]
    else:
        judged = rows_of(rows)
    return report(judged, judge_shipped(judged, shipped()))


def rows_of(path: Path) -> list[Row]:
    """Rows of a file of any kind, told by its columns.

    Raises:
        BadDataError: It cannot be read, lacks columns, or has a number that is none.
    """
    return _READERS[kind_of(path)](path)


def shipped_others() -> list[Row]:
    """All published rows that ship with the package but speeds of one sequence."""
    return [row for kind, read in _READERS.items() if kind != "speed" for row in read(None)]


_READERS: Final[dict[Kind, Callable[[Path | None], list[Row]]]] = {
    "speed": lambda path: read_rows(path, model_of),
    "batch": lambda path: batch_rows(path, model_of),
    "placement": lambda path: [row for row, _ in placed_rows(path, model_of)],
    "speculation": speculation_rows,
    "streaming": lambda path: streaming_rows(path, model_of),
    "energy": lambda path: [row for row, _ in heat_rows("energy", model_of, path)],
    "thermal": lambda path: [row for row, _ in heat_rows("thermal", model_of, path)],
}
