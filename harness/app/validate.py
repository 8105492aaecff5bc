"""The feasibility model against published measurements: shipped coefficients, or refitted without each chip."""

import re
from pathlib import Path

import msgspec

from harness.app.published import rows_of, shipped_rows
from harness.errors import BadDataError, CouldNotRunError
from harness.predict.coefficients import Coefficients, shipped
from harness.published.heat_rows import check_energy, check_heat
from harness.published.leaving_out import fit_all, leave_out
from harness.published.other_rows import Check, check_speculation, check_streaming, kind_of
from harness.published.validation import Report, judge_shipped, report

SOURCE = "harness/predict/data/decode.csv, by: edge-harness validate --leave-one-chip-out --write-coefficients FILE"


def validate(rows: Path | None = None, coefficients: Path | None = None) -> Report:
    """Predictions of the shipped coefficients, or others, against a file of rows (the shipped ones by default).

    Raises:
        BadDataError: The file has not the columns, or a number that is none; the coefficients are none.
    """
    found = rows_of(rows) if rows is not None else shipped_rows()
    return report(found, judge_shipped(found, shipped() if coefficients is None else _read(coefficients)))


def _read(path: Path) -> Coefficients:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Coefficients)
    except OSError as error:
        raise BadDataError(path, "", error.strerror or str(error), "a readable file") from error
    except msgspec.DecodeError as error:
        raise BadDataError(path, "", str(error), "a file that --write-coefficients wrote") from error


def validate_left_out(rows: Path | None = None) -> tuple[Report, Coefficients]:
    """Each chip predicted by a fit that saw no row of it; and the coefficients of a fit on all rows.

    Raises:
        BadDataError: The file has not the columns, or a number that is none.
    """
    found = rows_of(rows) if rows is not None else shipped_rows()
    coefficients, judged = fit_all(found, SOURCE if rows is None else str(rows))
    return report(found, judged, left_out="each chip left out of the fit"), coefficients


def validate_share_left_out(rows: Path | None, ratio: float, splits: int) -> Report:
    """Random shares of all chips, each predicted by a fit on the rest; the votes of all repetitions together.

    Raises:
        BadDataError: The file has not the columns, or a number that is none.
    """
    found = rows_of(rows) if rows is not None else shipped_rows()
    how = f"{100 * ratio:.0f} % of the chips left out at once, {splits} times"
    return report(found, leave_out(found, ratio, splits), left_out=how)


def other_checks(rows: Path | None = None) -> tuple[Check, ...]:
    """Speculative decoding and streaming against the shipped rows, or against a file of either; () for any other file.

    Raises:
        BadDataError: The file cannot be read, lacks columns, or has a number that is none.
    """
    if rows is None:
        return check_speculation(), *check_streaming(), check_energy(), check_heat()
    kind = kind_of(rows)
    if kind in {"energy", "thermal"}:
        return (check_energy(rows) if kind == "energy" else check_heat(rows),)
    if kind == "speculation":
        return (check_speculation(rows),)
    return check_streaming(rows) if kind == "streaming" else ()


def write_coefficients(coefficients: Coefficients, path: Path) -> None:
    """Write fitted coefficients as the package reads them.

    Raises:
        CouldNotRunError: The file cannot be written.
    """
    try:
        text = msgspec.json.format(msgspec.json.encode(coefficients), indent=1)
        path.write_bytes(re.sub(rb"\n +(?=-?[\d.])", b"", text) + b"\n")  # lists of numbers stay on one line
    except OSError as error:
        raise CouldNotRunError(f"cannot write {path}: {error.strerror}") from error
