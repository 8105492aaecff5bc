"""Read the tensors of a PyTorch checkpoint of the old format, without PyTorch and without running its pickles.

The file (``torch.save`` before 1.6) is five pickles - magic number, protocol, system, the state dictionary, the keys
of its storages - and then each storage: its length as int64, then its values. Only the names that such a dictionary of
tensors needs can be looked up; any other pickle is refused.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadDataError

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_STORAGES: Final[dict[str, str]] = {"FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8"}


class _Storage(NamedTuple):
    key: str
    dtype: str
    value_count: int


class _View(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild(storage: _Storage, offset: int, shape: Sequence[int], stride: Sequence[int], *_: object) -> _View:
    return _View(storage, offset, tuple(shape), tuple(stride))


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown kind {kind!r}")
        return _Storage(str(key), str(dtype), int(count))


def read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of the state dictionary by name.

    Raises:
        BadDataError: Not such a file, or one whose pickle asks for more than tensors.
    """
    data = path.read_bytes()
    stream = io.BytesIO(data)
    try:
        if _Reader(stream).load() != _MAGIC:
            raise BadDataError(path, "", "another magic number", "a checkpoint of the old torch.save format")
        _Reader(stream).load()
        _Reader(stream).load()
        state: dict[str, Any] = _Reader(stream).load()
        keys: list[str] = _Reader(stream).load()
        views = {name: v for name, v in state.items() if isinstance(v, _View)}
        dtypes = {v.storage.key: np.dtype(v.storage.dtype) for v in views.values()}
        at, storages = stream.tell(), {}
        for key in keys:
            count = int.from_bytes(data[at : at + 8], "little")
            storages[key] = np.frombuffer(data, dtypes[key], count, at + 8)
            at += 8 + storages[key].nbytes
        return {name: _tensor(v, storages[v.storage.key]) for name, v in views.items()}
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise BadDataError(path, "", str(error), "a checkpoint of the old torch.save format") from error


def _tensor(view: _View, storage: NDArray[Any]) -> NDArray[Any]:
    part = storage[view.offset :]
    last = sum((n - 1) * s for n, s in zip(view.shape, view.stride, strict=True)) if all(view.shape) else -1
    if last >= len(part) or min(view.stride, default=0) < 0:
        raise ValueError("a tensor reaches beyond its storage")
    strides = tuple(s * part.itemsize for s in view.stride)
    return np.lib.stride_tricks.as_strided(part, view.shape, strides, writeable=False)
