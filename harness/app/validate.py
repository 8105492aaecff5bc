"""The speed model against published measurements: shipped coefficients, or fits without what they predict."""

import re
from pathlib import Path

import msgspec

from harness.app.published import model_of, shipped_rows
from harness.domain.foreign import read_limited
from harness.errors import BadDataError, CouldNotRunError
from harness.predict.coefficients import Coefficients, coefficients_from, shipped
from harness.published import heat_rows
from harness.published.batch_rows import check_batches
from harness.published.cells import kind_of
from harness.published.given import leave_out_given
from harness.published.leaving_out import fit_all, leave_out
from harness.published.other_rows import Check, check_speculation, check_streaming
from harness.published.placement_rows import PlacementReport, check_placement
from harness.published.rows import read_rows
from harness.published.validation import Report, judge_shipped, report

SOURCE = "harness/published/data/decode.csv, by: edge-harness validate --write-coefficients FILE"


def validate(
    rows: Path | None = None,
    *,
    coefficients: Path | None = None,
    by: str | None = None,
    given: int | None = None,
    seed: int = 0,
) -> Report:
    """Predictions against a file of rows (the shipped ones by default), by the shipped coefficients unless told.

    ``by`` predicts each chip, source, family or runtime, or what came last in time, by a fit that saw no row of it;
    ``given`` each chip with three or more models by others, and by so many measurements of its own, chosen by ``seed``.

    Raises:
        BadDataError: The file has not the columns, or a number that is none; the coefficients are none.
    """
    found = read_rows(rows, model_of) if rows is not None else shipped_rows()
    if by is not None:
        how = "the latest rows left out of the fit" if by == "time" else f"each {by} left out of the fit"
        return report(found, leave_out(found, by), left_out=how)
    if given is not None:
        how = f"{given} random measurements of each chip given (seed {seed}), the rest of it left out of the fit"
        return report(found, leave_out_given(found, given, seed), left_out=how)
    return report(found, judge_shipped(found, shipped() if coefficients is None else _read(coefficients)))


def _read(path: Path) -> Coefficients:
    try:
        return coefficients_from(read_limited(path))
    except msgspec.DecodeError as error:
        raise BadDataError(path, "", str(error), "a file that --write-coefficients wrote") from error


def other_checks(rows: Path | None = None) -> tuple[Check, ...]:
    """Speculation, streaming, batches, heat against the shipped rows, or a file of one of them; () for any other file.

    BadDataError where the file cannot be read, lacks columns, or has a number that is none.
    """
    if rows is None:
        batches = check_batches(None, model_of)
        return check_speculation(), *check_streaming(), *batches, heat_rows.check("energy"), heat_rows.check("thermal")
    match kind_of(rows):
        case "energy" | "thermal" as kind:
            return (heat_rows.check(kind, rows),)
        case "speculation":
            return (check_speculation(rows),)
        case "streaming":
            return check_streaming(rows)
        case "batch":
            return check_batches(rows, model_of)
    return ()


def placement_report(rows: Path | None, *, left_out: bool) -> PlacementReport | None:
    """Split placements against the law of placement; None for a file of other rows. Errors as :func:`other_checks`.

    With ``left_out`` each card is judged by terms fitted on the other cards; without a file it is the shipped rows.
    """
    if rows is not None and kind_of(rows) != "placement":
        return None
    return check_placement(rows, model_of, left_out=left_out)


def write_coefficients(rows: Path | None, path: Path) -> None:
    """Write coefficients of a fit on all rows, as the package reads them (CouldNotRunError: it cannot be written).

    Errors of the rows as :func:`validate`.
    """
    found = read_rows(rows, model_of) if rows is not None else shipped_rows()
    coefficients = fit_all(found, SOURCE if rows is None else str(rows))
    try:
        text = msgspec.json.format(msgspec.json.encode(coefficients), indent=1)
        path.write_bytes(re.sub(rb"\n +(?=-?[\d.])", b"", text) + b"\n")  # lists of numbers stay on one line
    except OSError as error:
        raise CouldNotRunError(f"cannot write {path}: {error.strerror}") from error
