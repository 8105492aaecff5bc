"""Published rows with the shapes of the models they name, from the catalog."""

from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

from harness.catalog.names import match
from harness.domain.model import ModelShape
from harness.errors import RefusedError, UnknownNameError
from harness.predict.quant_mix import quant_named
from harness.predict.weights import read_of, weights_of
from harness.published.row_work import Known
from harness.published.rows import Row, read_rows


@lru_cache(maxsize=4096)
def shape_of(name: str, params_b: float) -> ModelShape | None:
    """Shape of the model that a row names, if the catalog has it and its size agrees within a quarter."""
    try:
        card = match(name, params_b=params_b).card
    except (UnknownNameError, RefusedError):
        return None
    return card.shape if card is not None else None


@lru_cache(maxsize=4096)
def model_of(name: str, params_b: float, quant: str) -> Known | None:
    """What the catalog knows of a model in a quantisation.

    Of a quantisation that llama.cpp does not have, shares of an evenly quantised file, and no size.
    """
    shape = shape_of(name, params_b)
    if shape is None:
        return None
    try:
        weights = weights_of(shape, quant_named(quant.split(" ", maxsplit=1)[0]))
    except (UnknownNameError, RefusedError):
        weights = None
    even = weights_of(shape, "F16") if weights is None else weights
    read = read_of(even)
    return Known(
        shape=shape,
        params_b=sum(t.element_count for t in even.tensors) / 1e9,
        file_bytes=float(even.file_bytes),
        sized=weights is not None,
        read_bytes=read.size_bytes,
        read_count=read.weight_count,
        prompt_count=read.prompt_weight_count,
        table_bytes=read.table_bytes,
    )


def shipped_rows() -> list[Row]:
    """The published rows that ship with the package."""
    with as_file(files("harness.published") / "data" / "decode.csv") as path:
        return rows_of(path)


def rows_of(path: Path) -> list[Row]:
    """Rows of any file with the same columns.

    Raises:
        BadDataError: It has not.
    """
    return read_rows(path, model_of)
