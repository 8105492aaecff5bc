"""The law against published measurements, by what ships."""

from pathlib import Path

from harness.app.published import model_of, shipped_rows
from harness.predict.coefficients import shipped
from harness.published.rows import read_rows
from harness.published.score import Report, judge_shipped, report


def validate(rows: Path | None = None) -> Report:
    """Predictions by what ships against a file of speeds, the shipped ones by default.

    Raises:
        BadDataError: The file has not the columns, or a number that is none.
    """
    judged = shipped_rows()
    if rows is not None:
        judged = read_rows(rows, model_of)
    return report(judged, judge_shipped(judged, shipped()))
