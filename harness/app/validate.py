"""The laws against published measurements, by what ships."""

from pathlib import Path

from harness.app.published import model_of, shipped_rows
from harness.predict.coefficients import shipped
from harness.published.cells import kind_of
from harness.published.heat_rows import KINDS, heat_rows
from harness.published.other_rows import batch_rows, speculation_rows, streaming_rows
from harness.published.placement_rows import placed_rows
from harness.published.rows import Row, read_rows
from harness.published.score import Report, judge_shipped, report


def validate(rows: Path | None = None) -> Report:
    """Predictions by what ships against a file of rows, all shipped ones by default.

    Raises:
        BadDataError: The file has not the columns, or a number that is none.
    """
    judged = [*shipped_rows(), *shipped_others()] if rows is None else rows_of(rows)
    return report(judged, judge_shipped(judged, shipped()))


def rows_of(path: Path) -> list[Row]:
    """Rows of a file of any kind, told by its columns.

    Raises:
        BadDataError: It cannot be read, lacks columns, or has a number that is none.
    """
    match kind_of(path):
        case "energy" | "thermal" as kind:
            return [row for row, _ in heat_rows(kind, model_of, path)]
        case "speculation":
            return speculation_rows(path)
        case "streaming":
            return streaming_rows(path)
        case "batch":
            return batch_rows(path, model_of)
        case "placement":
            return [row for row, _ in placed_rows(path, model_of)]
    return read_rows(path, model_of)


def shipped_others() -> list[Row]:
    """All published rows that ship with the package but speeds of one sequence."""
    return [
        *batch_rows(None, model_of),
        *(row for row, _ in placed_rows(None, model_of)),
        *speculation_rows(),
        *streaming_rows(),
        *(row for kind in KINDS for row, _ in heat_rows(kind, model_of)),
    ]
