"""Read the header of a GGUF file: metadata, tensors, shape.

Token tables are skipped, not decoded: a 151,000-token header takes some tens of milliseconds. Every count and
length is checked against what is left of the file before anything is read, so that memory and time are
bounded by the file.

Source: the GGUF specification, docs/gguf.md of the ggml repository.
"""

import mmap
import re
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.core.errors import BadDataError
from harness.core.model import ModelShape, Tensor, Weights
from harness.core.printable import clean, clean_lines
from harness.models.ggml import BLOCKS, TYPE_NAMES, row_bytes
from harness.models.gguf_shape import quant_name, shape_from_metadata

SYNTHETIC_KEY: Final = "edge_harness.weights"
"""Metadata key by which a file says that its weights are random."""

SPLIT: Final = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
"""How llama.cpp ends the names of the files of a model in parts."""

_CODES: Final = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Types of numbers by their codes in ``struct``."""
_STRING: Final = 8
_ARRAY: Final = 9

# Far above any real file, far below what could hurt.
_MAX_METADATA: Final = 65_536
_MAX_TENSORS: Final = 1_000_000
_MAX_KEY_BYTES: Final = 65_535
_MAX_NAME_BYTES: Final = 64
_MAX_TEXT_BYTES: Final = 8 << 20
_MAX_ARRAY: Final = 16_000_000
_KEPT_ARRAY: Final = 4_096
_MAX_DIMS: Final = 4
_MAX_HEADER_BYTES: Final = 1 << 30


@dataclass(frozen=True)
class SkippedArray:
    """The element type and the length of an array whose values were skipped.

    A class of its own, since a tuple among the metadata is an array with one value for each layer.
    """

    type_id: int
    element_count: int


class GgufFile(NamedTuple):
    """The header of one file; offsets count from its start, and ``version`` is that of the format (2 or 3).

    Metadata are strings, numbers, short arrays of numbers as tuples, and longer ones as ``SkippedArray``.
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    data_offset_bytes: int
    file_bytes: int

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture; BadDataError where the file does not say."""
        value = self.metadata.get("general.architecture")
        if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Za-z._-]{1,64}", value):
            raise BadDataError(
                self.path, "general.architecture", repr(value)[:80], "the name of an architecture"
            )
        return value

    @property
    def name(self) -> str:
        """The model's own name; the file's stem where it has none."""
        value = self.metadata.get("general.name")
        return (clean(value) if isinstance(value, str) else "") or clean(self.path.stem)

    @property
    def synthetic(self) -> bool:
        """Whether the file says that its weights are random."""
        return self.metadata.get(SYNTHETIC_KEY) == "synthetic"

    def shape(self) -> ModelShape:
        """Shape of the model.

        Raises:
            BadDataError: A key that the architecture needs is missing or makes no sense.
        """
        return shape_from_metadata(self.path, self.architecture, self.metadata, self.tensors)

    def weights(self) -> Weights:
        """Every tensor with the model's shape.

        Raises:
            BadDataError: As ``shape``; or it holds no tensor, or those of a part of a model, or of something
                else.
        """
        if (parts := self.metadata.get("split.count", 1)) not in {0, 1}:
            raise BadDataError(
                self.path, "split.count", repr(parts)[:80], "1: join them (llama-gguf-split --merge)"
            )
        kind = self.metadata.get("general.type", "model")
        if kind != "model":
            raise BadDataError(
                self.path, "general.type", repr(kind)[:80], "'model': this is a part beside one"
            )
        if not self.tensors:
            raise BadDataError(self.path, "tensor count", "0", "the tensors of a model")
        return Weights(
            shape=self.shape(),
            tensors=self.tensors,
            file_bytes=self.file_bytes,
            quant=quant_name(self.metadata.get("general.file_type"), self.tensors),
            synthetic=self.synthetic,
        )


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file.

    Raises:
        BadDataError: No readable file, not GGUF, big-endian, an unsupported version, or a header that
            contradicts itself or the file's size; the message names the place.
    """
    try:
        size = path.stat().st_size  # asked before it is opened: a pipe would wait for its writer
        if size < 24:
            raise BadDataError(path, "", f"{size} bytes", "a GGUF file (its header alone has 24)")
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _GgufReader(path, view, size).read()
    except OSError as error:
        raise BadDataError(path, "", error.strerror or str(error), "a readable GGUF file") from error


def parts_of(name: str) -> list[str]:
    """Names of all files of a split model, from the name of any of them; of any other model its one name."""
    part = SPLIT.search(name)
    if part is None or not 1 <= int(part[1]) <= int(part[2]):
        return [name]
    return [SPLIT.sub(f"-{i:05d}-of-{part[2]}.gguf", name) for i in range(1, int(part[2]) + 1)]


def joined(headers: list[GgufFile]) -> GgufFile:
    """The headers of all files of a model as one: metadata of the first, the tensors and bytes of all.

    Raises:
        BadDataError: They are not the parts of one model, in their order; or two of them hold the same
            tensor.
    """
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    for number, header in enumerate(headers):
        for key, count in (("no", number), ("count", len(headers)), ("tensors.count", len(tensors))):
            stated = header.metadata.get(f"split.{key}", count)
            if stated != count and (len(headers) > 1 or stated not in {0, 1}):
                raise BadDataError(
                    header.path, f"split.{key}", repr(stated)[:80], f"{count}, by the names of the files"
                )
    for name, count in Counter(tensor.name for tensor in tensors).items():
        if count > 1:
            raise BadDataError(headers[0].path, name, "the tensor in several parts", "each name once")
    metadata = {key: value for key, value in headers[0].metadata.items() if not key.startswith("split.")}
    size = sum(header.file_bytes for header in headers)
    return headers[0]._replace(metadata=metadata, tensors=tensors, file_bytes=size)


def read_weights(path: Path) -> Weights:
    """Every tensor of a model in all its files, whichever of them is named.

    Raises:
        BadDataError: ``read_gguf`` cannot read a file, or ``joined`` finds that one is missing.
    """
    return joined([read_gguf(path.with_name(name)) for name in parts_of(path.name)]).weights()


def header_of(head: bytes, size: int, path: Path) -> GgufFile | None:
    """Read the header of a file of ``size`` bytes from its first bytes; None if these do not hold all of it.

    Raises:
        BadDataError: The file is none that ``read_gguf`` would read.
    """
    try:
        header = _GgufReader(path, head, size).read()
    except struct.error:  # a number past what is here; lengths are checked against the whole file's size
        return None
    if header.data_offset_bytes <= len(head):
        return header
    return None


class _GgufReader:
    """Walks over one mapped file; ``at`` is the next byte to read."""

    def __init__(self, path: Path, view: mmap.mmap | bytes, size: int) -> None:
        self.path = path
        self.view = view
        self.size = size
        self.at = 4
        self.end = min(size, _MAX_HEADER_BYTES)

    def read(self) -> GgufFile:
        magic = bytes(self.view[:4])
        if magic != b"GGUF":
            raise self.bad("magic", repr(magic), "b'GGUF'")
        version = self.scalar("I", "version")
        if version > 0xFFFF and version & 0xFFFF == 0:
            raise self.bad("version", "a big-endian file", "a little-endian one")
        if version not in {2, 3}:
            raise self.bad("version", version, "2 or 3")
        tensor_count = self.count("tensor count", _MAX_TENSORS, least_bytes=24)
        metadata: dict[str, Any] = {}
        for _ in range(self.count("metadata count", _MAX_METADATA, least_bytes=13)):
            key = clean(self.text("metadata key", _MAX_KEY_BYTES))
            if key in metadata:
                raise self.bad(key, "the key twice", "each key once")
            metadata[key] = self.value(key)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self.bad("general.alignment", repr(alignment), "a power of two")
        infos = [self.tensor(alignment) for _ in range(tensor_count)]
        start = -(-self.at // alignment) * alignment
        return GgufFile(self.path, version, metadata, self.placed(infos, start), start, self.size)

    def bad(self, place: str, found: object, expected: str) -> BadDataError:
        """An error that names the place."""
        return BadDataError(self.path, place[:120], str(found)[:200], expected)

    def take(self, length: int, place: str) -> int:
        """Move over ``length`` bytes and return where they begin."""
        begin = self.at
        left = self.end - begin
        if length > left:
            raise self.bad(place, f"{length} bytes at offset {begin}", f"at most the {left} that are left")
        self.at = begin + length
        return begin

    def scalar(self, code: str, place: str) -> Any:
        """Next number."""
        return struct.unpack_from(f"<{code}", self.view, self.take(struct.calcsize(f"<{code}"), place))[0]

    def count(self, place: str, most: int, *, least_bytes: int) -> int:
        """Next count, of things that take at least ``least_bytes`` each."""
        value: int = self.scalar("Q", place)
        most = min(most, (self.end - self.at) // least_bytes)
        if value > most:
            raise self.bad(place, value, f"at most {most}")
        return value

    def text(self, place: str, most: int) -> str:
        """Next string."""
        length = self.scalar("Q", place)
        if length > most:
            raise self.bad(place, f"a string of {length} bytes", f"at most {most}")
        begin = self.take(length, place)
        return clean_lines(self.view[begin : self.at].decode(errors="replace"))

    def value(self, key: str) -> Any:
        """Next typed value: of arrays numbers as a tuple when few, else skipped."""
        type_id = self.scalar("I", key)
        if type_id == _STRING:
            return self.text(key, _MAX_TEXT_BYTES)
        is_array = type_id == _ARRAY
        if is_array:
            type_id = self.scalar("I", key)
        if type_id == _STRING:
            count = self.count(key, _MAX_ARRAY, least_bytes=8)
            self.skip_strings(key, count)
            return SkippedArray(type_id, count)
        if type_id not in _CODES:
            what = f"{'an array of' if is_array else 'value'} type {type_id}"
            raise self.bad(key, what, "numbers or strings, types 0 to 12, or an array of them")
        code = _CODES[type_id]
        if not is_array:
            return self.scalar(code, key)
        size = struct.calcsize(f"<{code}")
        count = self.count(key, _MAX_ARRAY, least_bytes=size)
        begin = self.take(count * size, key)
        if count > _KEPT_ARRAY:
            return SkippedArray(type_id, count)
        return struct.unpack_from(f"<{count}{code}", self.view, begin)

    def skip_strings(self, key: str, count: int) -> None:
        """Walk over ``count`` strings: the one hot loop, 150,000 rounds for a large vocabulary."""
        view = self.view
        at = self.at
        last = self.end - 8
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if at > last:
                break
            at += 8 + unpack(view, at)[0]
        else:
            self.at = at
        if self.at != at or at > self.end:
            raise self.bad(key, "a string past the end of the file", f"{count} strings")

    def tensor(self, alignment: int) -> Tensor:
        """Next tensor, its offset from where the data begin."""
        name = clean(self.text("tensor name", _MAX_NAME_BYTES))
        dim_count = self.scalar("I", name)
        if not 1 <= dim_count <= _MAX_DIMS:
            raise self.bad(name, f"{dim_count} dimensions", f"1 to {_MAX_DIMS}")
        dims = tuple(self.scalar("Q", name) for _ in range(dim_count))
        type_id = self.scalar("I", name)
        offset = self.scalar("Q", name)
        type_name = TYPE_NAMES.get(type_id)
        if type_name is None:
            raise self.bad(name, f"tensor type {type_id}", f"one of {', '.join(BLOCKS)}")
        elements = prod(dims)
        in_block = BLOCKS[type_name].elements
        if not elements:
            raise self.bad(name, f"dimensions {dims}", "none of them 0")
        if elements >= 1 << 63:
            raise self.bad(name, f"{elements} weights", "fewer than 2**63")
        if dims[0] % in_block:
            raise self.bad(name, f"a row of {dims[0]} weights", f"a multiple of {in_block} for {type_name}")
        if offset % alignment:
            raise self.bad(name, f"offset {offset}", f"a multiple of {alignment}")
        size_bytes = row_bytes(type_name, dims[0]) * (elements // dims[0])
        return Tensor(name=name, dims=dims, type_name=type_name, size_bytes=size_bytes, offset_bytes=offset)

    def placed(self, tensors: list[Tensor], start: int) -> tuple[Tensor, ...]:
        """Tensors with offsets in the file, once they are known not to overlap and to lie inside it."""
        for name, count in Counter(tensor.name for tensor in tensors).items():
            if count > 1:
                raise self.bad(name, "the tensor twice", "each name once")
        end = 0
        for t in sorted(tensors, key=lambda t: t.offset_bytes):
            if t.offset_bytes < end:
                raise self.bad(t.name, f"data at {t.offset_bytes}", f"at least {end}: it overlaps another")
            end = t.offset_bytes + t.size_bytes
            if start + end > self.size:
                found = f"data up to byte {start + end}"
                raise self.bad(t.name, found, f"a file of that size, it has {self.size}")
        return tuple(t.replace(offset_bytes=start + t.offset_bytes) for t in tensors)
