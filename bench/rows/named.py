"""The device and the tensors that a published row's words name."""

import re
from contextlib import suppress
from functools import lru_cache
from typing import Final

from harness.core.device import Device
from harness.core.errors import HarnessError
from harness.core.model import Tensor, Weights
from harness.hardware.devices import load_device
from harness.models.quant_mix import quant_named
from harness.models.weights import weights_of
from harness.speed.published.row_work import Known, rest_bytes_each


@lru_cache(maxsize=512)
def row_weights(known: Known, size_bytes: float, quant: str) -> Weights:
    """The tensors of a row's model with the bytes that its file has: in proportion, or as ``rest_bytes_each`` says."""
    words = quant.upper().split()
    try:
        weights = weights_of(known.shape, quant_named(words[0] if words else ""))
    except HarnessError:
        weights = weights_of(known.shape, "F16")
    size = size_bytes or known.file_bytes
    each = rest_bytes_each(known, size_bytes or known.file_bytes)
    routed = [tensor for tensor in weights.tensors if tensor.role == "expert"]
    rest_count = weights.weight_count - sum(t.element_count for t in routed)
    in_routed = sum(tensor.size_bytes for tensor in routed)
    even = size / weights.tensor_bytes
    if each * rest_count >= size:
        each = 0.0  # The recipe quantises the tables outside of the experts too.
    if each:
        factor = (size - each * rest_count) / in_routed
    else:
        factor = even

    def held(tensor: Tensor) -> Tensor:
        is_rest = each and tensor.role != "expert"
        return tensor.replace(size_bytes=round(each * tensor.element_count if is_rest else factor * tensor.size_bytes))

    return weights.replace(tensors=tuple(map(held, weights.tensors)), quant=words[0] if words else "")


_SHORTER: Final = ("", r"[,(].*", r" .*")
"""What may stand behind the name of a device: all of it names one, or the words before this do."""


@lru_cache(maxsize=1024)
def device_named(words: str) -> Device | None:
    """The device of a row's words; None where they name none."""
    for rest in _SHORTER:
        with suppress(HarnessError):
            return load_device(re.sub(rest, "", words))
    return None
