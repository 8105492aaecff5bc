"""Whatever the bytes, the GGUF reader answers with a header or with one clear error."""

import struct
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.core.errors import BadDataError
from harness.models.gguf import read_gguf

counts = st.one_of(st.integers(0, 4), st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64 - 1]))
u32 = st.one_of(st.integers(0, 45), st.sampled_from([2**31, 2**32 - 1]))


@st.composite
def strings(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from([b"", b"t", b"general.alignment", b"general.architecture", b"\xff\xfe"]))
    length = draw(st.one_of(st.just(len(data)), counts))
    return struct.pack("<Q", length) + data


@st.composite
def values(draw: st.DrawFn) -> bytes:
    type_id = draw(st.integers(0, 13))
    if type_id == 9:
        body = draw(st.lists(st.one_of(strings(), st.binary(max_size=8)), max_size=3))
        return struct.pack("<IIQ", 9, draw(st.integers(0, 13)), draw(counts)) + b"".join(body)
    return struct.pack("<I", type_id) + (draw(strings()) if type_id == 8 else draw(st.binary(max_size=9)))


@st.composite
def tensors(draw: st.DrawFn) -> bytes:
    dims = draw(st.lists(st.one_of(st.sampled_from([0, 1, 32, 256]), counts), max_size=5))
    return (
        draw(strings())
        + struct.pack("<I", draw(st.one_of(st.just(len(dims)), u32)))
        + struct.pack(f"<{len(dims)}Q", *dims)
        + struct.pack("<IQ", draw(u32), draw(st.one_of(st.sampled_from([0, 32, 1024]), counts)))
    )


@st.composite
def files(draw: st.DrawFn) -> bytes:
    entries = draw(st.lists(st.tuples(strings(), values()), max_size=3))
    infos = draw(st.lists(tensors(), max_size=3))
    version = draw(st.sampled_from([3, 3, 3, 2, 1, 0x03000000]))
    numbers = (draw(st.one_of(st.just(len(infos)), counts)), draw(st.one_of(st.just(len(entries)), counts)))
    data = b"GGUF" + struct.pack("<IQQ", version, *numbers)
    data += b"".join(k + v for k, v in entries) + b"".join(infos)
    return data + bytes(draw(st.integers(0, 2048)))


@given(data=st.one_of(files(), st.binary(max_size=256), st.binary(max_size=256).map(lambda b: b"GGUF\x03\0\0\0" + b)))
@example(data=b"GGUF\x03\0\0\0" + bytes(16))
@settings(max_examples=400, deadline=2000)
def test_any_bytes(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        path.write_bytes(data)
        try:
            header = read_gguf(path)
        except BadDataError:
            return
        assert all(t.offset_bytes + t.size_bytes <= len(data) for t in header.tensors)
