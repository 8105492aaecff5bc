"""What a published row says of its model, by a card or by its size."""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from harness.core.model import ModelShape
from harness.memory.kv_cache import kv_read_bytes, recurrent_ratio
from harness.models.weights import Read
from harness.speed.work import Work

SAME_FILE_RATIO: Final = 0.1
"""A file whose size is another by more than this is of another recipe than its name says."""


class Known(NamedTuple):
    """What is known of the model that a row names.

    Attributes:
        name: Its card's, or its own words where the catalog has none and its shape is bounded by its size.
        shape: Its shape.
        params_b: Parameters (10**9).
        file_bytes: Of its file.
        sized: Whether that is a file in the row's quantisation, rather than an evenly quantised one.
        read: Of that file, what a token needs.
        rest_bits: Bits of a weight outside of routed experts, where the recipe of the file is not known; 0:
            as many as inside.
    """

    name: str
    shape: ModelShape
    params_b: float
    file_bytes: float
    sized: bool
    read: Read
    rest_bits: float


ModelOf = Callable[[str, float, str, float], Known | None]
"""Finds a model by its published name, its parameters as stated (10**9, 0 if not), its quantisation and its
active parameters."""


def row_work(known: Known, size_bytes: float, quant: str, depth_tokens: float) -> Work:
    """What a token of this model needs.

    Bytes are the row's own; the shape tells which share of them is read. A file that exceeds the card's by
    just the token table has an output matrix of its own. ``quant`` is a class, ``depth_tokens`` the mean of a
    decode test.
    """
    shape = known.shape
    untied = abs(size_bytes - known.file_bytes - known.read.table_bytes) < 0.02 * size_bytes
    own_output = known.sized and shape.tied_embeddings and untied
    if own_output:
        read = known.read.size_bytes
    else:
        read = _read_bytes(known, size_bytes)
    work = Work(
        read, known.read.weight_count, shape.layer_count, kv_read_bytes(shape, round(depth_tokens)), quant
    )
    return work._replace(
        prompt_weight_count=known.read.prompt_weight_count,
        recurrent_ratio=recurrent_ratio(shape),
        expert_ratio=shape.experts.used_count / shape.experts.expert_count
        if shape.experts is not None
        else 1.0,
    )


def active_named(name: str) -> float:
    """Active parameters (10**9) that a name states, as in 35B-A3B; 0 where it states none."""
    found = re.search(r"\bA(\d+(?:\.\d+)?)B\b", name)
    if found:
        return float(found[1])
    return 0.0


def rest_bytes_each(known: Known, size_bytes: float) -> float:
    """Bytes of a weight outside of routed experts, in a file of this size of another recipe than llama.cpp's.

    It is 0 for a recipe of llama.cpp, which the name and the size show. Any other saves on the routed experts, which are
    most of the file, and leaves all else in ``rest_bits``: so do Unsloth's dynamic files and antirez's for
    ds4.
    """
    same = known.sized and abs(size_bytes / known.file_bytes - 1) < SAME_FILE_RATIO
    if known.shape.experts is None or same or 8e-9 * size_bytes / known.params_b >= known.rest_bits:
        return 0.0
    return known.rest_bits / 8


def _read_bytes(known: Known, size_bytes: float) -> float:
    """Bytes of a file of this size that one token reads: in proportion for a recipe of llama.cpp."""
    experts = known.shape.experts
    even = size_bytes * known.read.size_bytes / known.file_bytes
    bytes_each = rest_bytes_each(known, size_bytes)
    if experts is None or not bytes_each:
        return even
    share = experts.used_count / experts.expert_count
    routed_bytes = size_bytes - bytes_each * (known.params_b * 1e9 - known.read.routed_count)
    rest_bytes = bytes_each * (known.read.weight_count - share * known.read.routed_count)
    return max(even, rest_bytes + share * routed_bytes)
