"""Published rows with the shapes of the models they name, from the catalog."""

from functools import lru_cache
from importlib.resources import as_file, files

from harness.catalog.names import key, match
from harness.errors import RefusedError, UnknownNameError
from harness.predict.quant_mix import quant_named
from harness.predict.weights import read_of, weights_of
from harness.published.row_work import Known
from harness.published.rows import Row, read_rows


@lru_cache(maxsize=4096)
def model_of(name: str, params_b: float, quant: str, active_b: float = 0.0) -> Known | None:
    """What the catalog knows of a model in a quantisation, or guesses of one that it does not know.

    Of a quantisation that llama.cpp does not have, and of a guess, shares of an evenly quantised file, and no size.
    """
    try:
        found = match(name, params_b=params_b, active_b=active_b)
    except (UnknownNameError, RefusedError):
        return None
    shape = found.card.shape if found.card is not None else found.guess.shape if found.guess is not None else None
    if shape is None:
        return None
    try:
        weights = weights_of(shape, quant_named(quant.split(" ", maxsplit=1)[0])) if found.card is not None else None
    except (UnknownNameError, RefusedError):
        weights = None
    even = weights_of(shape, "F16") if weights is None else weights
    read = read_of(even)
    return Known(
        name=found.card.name if found.card is not None else key(name),
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
        return read_rows(path, model_of)
