"""A model's files on disk, in every format: which there are, how many bytes, their hash.

The weights of an ONNX model should lie in an external file: the engine maps that file, while weights inside
the model file are parsed into memory and kept beside the copy that the kernels repack (measured: a model of
428 MB takes 769 MB inline and 470 MB external). Above 2 GiB there is no choice: protobuf holds no larger
message.
"""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Final

from harness.core.errors import BadDataError
from harness.models.file_hash import sha256_of
from harness.models.gguf import parts_of
from harness.onnx.graph import OnnxGraph, read_graph

MODEL_FILE: Final = "model.onnx"
OPENVINO_FILE: Final = "openvino_model.xml"
_INT8: Final = dict.fromkeys(
    ("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"), "dynamic int8"
) | dict.fromkeys(("QLinearMatMul", "QLinearConv", "QGemm", "QuantizeLinear"), "static int8")
"""Operations of graphs whose weights are bytes, by when activations are quantised."""


def onnx_model(path: Path) -> Path | None:
    """The ONNX file that a path names: itself, or ``model.onnx`` in a folder; None when it names none."""
    file = path / MODEL_FILE if path.is_dir() else path
    return file if file.suffix == ".onnx" and file.is_file() else None


def model_files(path: Path) -> tuple[Path, ...]:
    """Every file that is read when the model at ``path`` is loaded.

    A GGUF in parts in their order, else itself first.

    Raises:
        BadDataError: An ONNX file that cannot be read, or one that points out of its folder.
    """
    if path.suffix == ".safetensors":
        return (path, *sorted(set(path.parent.glob("model*.safetensors")) - {path}))
    if path.name == OPENVINO_FILE:
        return (path, path.with_suffix(".bin"))
    if path.suffix != ".onnx":
        return tuple(path.with_name(name) for name in parts_of(path.name))
    names = sorted({t.location for t in read_graph(path).tensors if t.location})
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BadDataError(path, "external_data.location", repr(name), "a file inside the model's folder")
    return (path, *(path.parent / name for name in names))


def size_bytes(path: Path) -> int:
    """Bytes on disk of a model with all its files; BadDataError where one is missing."""
    total = 0
    for file in model_files(path):
        try:
            total += file.stat().st_size
        except OSError as error:
            raise BadDataError(file, "", f"unreadable ({error.strerror})", "a file of the model") from error
    return total


def combined_hash(files: tuple[Path, ...]) -> str:
    """One SHA-256 for a model: the file's own when it is one, else the hash of the lines ``hash  name``."""
    if len(files) == 1:
        return sha256_of(files[0])
    lines = "".join(f"{sha256_of(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def quantization(graph: OnnxGraph) -> str:
    """What the weights are, in one line: ``int4 b32 a4``, ``dynamic int8``, ``static int8``, or most bytes' type.

    ``b`` is the block size and ``a`` the accuracy level (4: activations are rounded to int8 too, the fast
    kernels).
    """
    parts = set()
    for node in graph.nodes:
        made = f"int{node.attributes.get('bits', 4)} b{node.attributes.get('block_size', 128)}"
        if node.op_type == "MatMulNBits":
            level = node.attributes.get("accuracy_level", 0)
            parts.add(f"{made} a{level}" if level else made)
        elif node.op_type == "GatherBlockQuantized":
            parts.add(f"table {made}")
        elif node.op_type in _INT8:
            parts.add(_INT8[node.op_type])
    if parts:
        return " + ".join(sorted(parts))
    sums: Counter[str] = Counter()
    for tensor in graph.tensors:
        sums[tensor.dtype] += tensor.size_bytes
    return next((dtype for dtype, _ in sums.most_common(1)), "")


def quant_label(graph: OnnxGraph) -> str:
    """The mixture's short name for tables and records: ``INT4``, ``INT8``, ``F32``, ``F16`` ..."""
    named = quantization(graph)
    kind = re.search("int[248]", named)
    return kind[0].upper() if kind else named
