"""Headers of ONNX files against the package onnx, and what is wrong with how a model is stored."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import BadDataError
from harness.measure.runner import identify
from harness.onnx import files
from harness.onnx.graph import read_graph
from tests.tiny_onnx import tiny_weights, write_tiny_decoder

onnx = pytest.importorskip("onnx")
pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_decoder(tmp_path_factory.mktemp("plain"), tiny_weights())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("external", [False, True])
def test_header_as_the_package_reads_it(tmp_path: Path, fused: bool, external: bool):
    path = write_tiny_decoder(tmp_path, tiny_weights(), fused=fused, external=external)
    ours, theirs = read_graph(path), onnx.load(str(path), load_external_data=False)
    graph = theirs.graph
    assert [n.op_type for n in ours.nodes] == [n.op_type for n in graph.node]
    assert [n.attributes for n in ours.nodes] == [{a.name: a.i for a in n.attribute if a.type == 2} for n in graph.node]
    whole = onnx.load(str(path)).graph.initializer
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in whole}
    assert {t.name: (t.dims, t.size_bytes) for t in ours.tensors} == {n: (a.shape, a.nbytes) for n, a in arrays.items()}
    stored = [t for t in ours.tensors if t.location]
    assert bool(stored) == external
    # the bytes really lie in the file that the header names
    assert all((tmp_path / tensor.location).stat().st_size >= tensor.size_bytes for tensor in stored)


def test_constants_inner_graphs_and_odd_types(tmp_path: Path):
    h, t = onnx.helper, onnx.TensorProto
    constant = h.make_node("Constant", [], ["c"], value=h.make_tensor("", t.INT8, [3], b"\1\2\3", raw=True))
    branch = h.make_graph(
        [h.make_node("Identity", ["x"], ["y"])], "b", [], [h.make_tensor_value_info("y", t.FLOAT, [])]
    )
    choice = h.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch)
    half = h.make_tensor("half", t.FLOAT16, [2, 2], b"\0" * 8, raw=True)
    four = h.make_tensor("four", t.UINT4, [5], b"\0" * 3, raw=True)
    graph = h.make_graph([constant, choice], "g", [], [h.make_tensor_value_info("z", t.FLOAT, [])], [half, four])
    path = tmp_path / "odd.onnx"
    onnx.save(h.make_model(graph), str(path))
    found = read_graph(path)
    assert sorted(node.op_type for node in found.nodes) == ["Constant", "Identity", "Identity", "If"]
    # 5 values of 4 bits: 2.5 bytes, so 3.
    assert {t.name: (t.dtype, t.size_bytes) for t in found.tensors} == {
        "half": ("F16", 8), "four": ("U4", 3), "c": ("I8", 3)
    }  # fmt: skip


def test_weights_inside_the_file_are_not_read(tmp_path: Path):
    """32 MiB of weights in the file, in a constant of an inner graph and in an initializer, cost none of it to read."""
    h, t = onnx.helper, onnx.TensorProto
    large = np.zeros((2048, 2048), np.float32)
    constant = h.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(large, "c"))
    branch = h.make_graph([constant], "b", [], [h.make_tensor_value_info("c", t.FLOAT, [2048, 2048])])
    choice = h.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch)
    weight = onnx.numpy_helper.from_array(large, "w")
    graph = h.make_graph([choice], "g", [], [h.make_tensor_value_info("z", t.FLOAT, [])], [weight])
    path = tmp_path / "large.onnx"
    onnx.save(h.make_model(graph), str(path))
    read_graph(path)
    tracemalloc.start()
    header = read_graph(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(tensor.size_bytes for tensor in header.tensors) == 3 * large.nbytes
    assert peak_bytes < 1 << 20


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_never_a_traceback(model: Path, tmp_path_factory, data):
    raw = bytearray(model.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        graph = read_graph(path)
        files.quantization(graph)
    except BadDataError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("content", [b"", b"no protobuf at all, only text", b"\x08\x08"])
def test_what_is_no_model_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BadDataError, match="an ONNX model"):
        read_graph(path)


def test_files_and_sizes(model: Path, tmp_path: Path):
    data = model.with_name("model.onnx.data")
    assert files.model_files(model) == (model, data)
    assert files.size_bytes(model) == model.stat().st_size + data.stat().st_size
    other = tmp_path / "x.gguf"
    other.write_bytes(b"1234")
    assert files.model_files(other) == (other,)
    assert files.onnx_model(model.parent) == model == files.onnx_model(model)
    assert files.onnx_model(tmp_path) is None
    assert files.onnx_model(other) is None


def test_combined_hash_is_the_files_own_or_that_of_the_list(tmp_path: Path):
    import hashlib

    one, two = tmp_path / "a", tmp_path / "b"
    one.write_bytes(b"abc")
    two.write_bytes(b"")
    # FIPS 180-2, appendix B.1, and the hash of no bytes; lines as sha256sum writes them.
    of_one = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    of_two = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert files.combined_hash((one,)) == of_one
    expected = hashlib.sha256(f"{of_one}  a\n{of_two}  b\n".encode()).hexdigest()
    assert files.combined_hash((one, two)) == expected


def test_a_model_in_parts_is_one_model_whichever_part_is_named(tmp_path: Path):
    parts = tuple(tmp_path / f"m-Q8_0-{i:05d}-of-00003.gguf" for i in (1, 2, 3))
    for at, part in enumerate(parts):
        part.write_bytes(b"part " * (at + 1))
    assert {files.model_files(part) for part in parts} == {parts}
    assert {identify(part, None).size_bytes for part in parts} == {30}
    (before,) = {identify(part, None).sha256 for part in parts}
    assert before == files.combined_hash(parts) != files.combined_hash(parts[:1])
    parts[2].write_bytes(b"another part 3!")
    assert identify(parts[0], None).sha256 != before
    parts[1].unlink()
    with pytest.raises(BadDataError, match="00002-of-00003"):
        identify(parts[0], None)


def test_missing_and_wandering_weights_are_refused(tmp_path: Path):
    path = write_tiny_decoder(tmp_path, tiny_weights())
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(BadDataError, match=r"model\.onnx\.data: found unreadable"):
        files.size_bytes(path)
    path.write_bytes(path.read_bytes().replace(b"model.onnx.data", b"../another.data"))
    with pytest.raises(BadDataError, match="inside the model's folder"):
        files.model_files(path)


def test_a_sparse_file_above_two_gib_is_refused(tmp_path: Path):
    """A real file of more than 2 GiB that takes no room on the disk: one initializer with a hole as its data."""
    h, t = onnx.helper, onnx.TensorProto
    small = h.make_graph([], "g", [], [h.make_tensor_value_info("y", t.FLOAT, [1])])
    head = h.make_model(small).SerializeToString()
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:  # an unknown field 100 of 2**31 bytes: key 100 << 3 | 2 = 802, as a varint A2 06
        file.write(head + b"\xa2\x06" + bytes([0x80, 0x80, 0x80, 0x80, 0x08]))
        file.truncate(file.tell() + 2**31)
    with pytest.raises(BadDataError, match="an ONNX model below 2 GiB"):
        read_graph(path)


@pytest.mark.parametrize(
    ("told", "dims", "words"),
    [
        ({"location": "a" * 256}, [4], "w: found location 'aaa"),
        ({"location": f"{'d/' * 9}{'é' * 128}"}, [4], "expected the name of a file"),
        ({"location": "w\0.bin"}, [4], "expected the name of a file"),
        ({"location": "w"}, [1] * 65, "w: found shape"),
        ({"location": "w"}, [1 << 62, 1 << 62], "w: found shape"),
        ({"location": "w"}, [-4, 4], r"w: found shape \[-4, 4\], expected a few dimensions, none negative"),
    ],
)
def test_weights_that_no_file_holds_are_refused_by_name(tmp_path: Path, told: dict, dims: list, words: str):
    t = onnx.TensorProto
    weight = t(name="w", data_type=t.FLOAT, dims=dims, data_location=t.EXTERNAL)
    for key, value in told.items():
        weight.external_data.add(key=key, value=value)
    port = onnx.helper.make_tensor_value_info("y", t.FLOAT, [1])
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [port], [weight])).SerializeToString())
    with pytest.raises(BadDataError, match=words):
        files.model_files(path)
