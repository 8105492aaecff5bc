"""Walk the fields of a protobuf message in place, without decoding what nobody asks for.

Source: the protobuf encoding guide (varints, wire types 0, 1, 2 and 5); groups (3 and 4) do not occur in ONNX.
"""

from collections.abc import Iterator
from pathlib import Path

from harness.errors import BadDataError

Field = tuple[int, int, int, int]
"""(field number, value or start, end, wire type): a varint's value stands in the second place."""


class Wire:
    """A protobuf file as bytes; every offset is checked against the message it lies in."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self.data = data
        self._path = path

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Each field of the message in [start, end).

        Raises:
            BadDataError: It is no protobuf message.
        """
        at = start
        while at < end:
            key, at = self._varint(at, end)
            number, kind = key >> 3, key & 7
            if kind == 0:
                value, at = self._varint(at, end)
                yield number, value, at, kind
                continue
            if kind == 2:
                size, at = self._varint(at, end)
            elif kind in {1, 5}:
                size = 8 if kind == 1 else 4
            else:
                raise self._bad(f"wire type {kind}")
            if number == 0 or at + size > end:
                raise self._bad(f"a field of {size} bytes with {end - at} left")
            yield number, at, at + size, kind
            at += size

    def text(self, start: int, end: int) -> str:
        """A string field."""
        return bytes(self.data[start:end]).decode("utf-8", "replace")

    def integers(self, field: Field) -> list[int]:
        """A repeated int64 field, packed or not; negative numbers are two's complement."""
        _, value, end, kind = field
        if kind == 0:
            return [signed(value)]
        found = []
        at = value
        while at < end:
            number, at = self._varint(at, end)
            found.append(signed(number))
        return found

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise self._bad("the end inside a number")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value, at
        raise self._bad("a number of more than ten bytes")

    def _bad(self, found: str) -> BadDataError:
        return BadDataError(self._path, "", found, "an ONNX model (protobuf)")


def signed(value: int) -> int:
    """An int64 from its varint."""
    return value - (1 << 64) if value >= 1 << 63 else value
