"""Published rows with the shapes of the models they name, from the catalog."""

import re
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from harness.catalog.models import load_model, model_names
from harness.domain.model import ModelShape
from harness.errors import RefusedError, UnknownNameError
from harness.predict.quant_mix import quant_named
from harness.predict.weights import read_of, weights_of
from harness.published.row_work import Known, slug
from harness.published.rows import Row, read_rows

_SAME: Final = {
    "llama-7b": "llama-2-7b",
    "llama-1-7b": "llama-2-7b",
    "llama-v2-7b": "llama-2-7b",
    "llama-13b": "llama-2-13b",
    "deepseek-r1-distill-14b": "qwen2.5-14b",
    "deepseek-r1-distill-qwen-14b": "qwen2.5-14b",
    "ds-r1-qwen-14b": "qwen2.5-14b",
    "ds-r1-qwen-7b": "qwen2.5-7b",
    "ds-r1-llama-8b": "llama-3.1-8b",
    "kimi-dev-72b": "qwen2.5-72b",
    "phi-4-14b": "phi-4",
    "phi-4-mini-3.8b": "phi-4-mini",
    "deepseek-r1-671b": "deepseek-r1",
    "deepseek-v3-r1-671b": "deepseek-v3",
    "qwen2-1.5b": "qwen2.5-1.5b",
    "qwen2.5-vl-7b": "qwen2.5-7b",
    "mistral-small-3.1-24b": "mistral-small-24b",
    "mistral-small-3.2-24b": "mistral-small-24b",
    "devstral-small-24b": "mistral-small-24b",
    "devstral-24b": "mistral-small-24b",
    "qwq-32b": "qwen2.5-32b",
}
"""Names of models that share another's shape."""


@lru_cache(maxsize=4096)
def shape_of(name: str, params_b: float) -> ModelShape | None:
    """Shape of the model that a row names, if the catalog has it and its size agrees within a quarter."""
    found = slug(name)
    found = _SAME.get(found, found)
    if found not in model_names():
        return None
    card = load_model(found)
    if card.parameter_count and params_b and not 0.75 < card.parameter_count / 1e9 / params_b < 1.33:
        return None
    return card.shape


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
