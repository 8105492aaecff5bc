"""The encoder of a TopK by ONNX Runtime, with weights in blocks of 8 or 4 bits (``MatMulNBits``).

At batch 1 an encoder is a matrix-vector product: every weight is read once, so its time is weight bytes over bandwidth,
and fewer bits are faster where the kernel reads them as they are, as this one does.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from harness.errors import RefusedError, optional
from harness.onnx.quantize import quantize_weights, save
from harness.onnx.session import OnnxSession
from harness.workloads.sparse_autoencoder.model import Codes, Floats, SparseAutoencoder

_GRAPH: Final = """<ir_version: 9, opset_import: ["" : 18]>
sparse_autoencoder (float[tokens, {dim}] x) => (int64[tokens, {count}] indices, float[tokens, {count}] values) {{
  centred = Sub(x, b_dec)
  product = MatMul(centred, W_enc)
  hidden = Add(product, b_enc)
  active = Relu(hidden)
  values, indices = TopK<axis = 1, largest = 1, sorted = 0>(active, k)
}}"""


def quantised(
    autoencoder: SparseAutoencoder, bits: int, folder: Path, *, thread_count: int = 1
) -> Callable[[Floats], Codes]:
    """Activations [tokens, dim] to codes, with weights of so many bits; ``folder`` takes the graphs.

    Raises:
        RefusedError: The autoencoder is no TopK, or there are no such bits.
        MissingPackageError: onnx or onnxruntime is not installed.
    """
    if not autoencoder.active_count:
        raise RefusedError("weights of fewer bits are for a TopK; this dictionary is a ReLU or a JumpReLU")
    with optional("onnx", "quantize"):
        import onnx
        import onnx.parser
    model = onnx.parser.parse_model(_GRAPH.format(dim=len(autoencoder.decoder_bias), count=autoencoder.active_count))
    constants = {
        "W_enc": autoencoder.encoder,
        "b_enc": autoencoder.encoder_bias,
        "b_dec": autoencoder.decoder_bias * np.float32(autoencoder.is_centred),
        "k": np.array([autoencoder.active_count], np.int64),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in constants.items())
    save(model, folder / "encoder.onnx")
    path = quantize_weights(folder / "encoder.onnx", folder / f"encoder-int{bits}.onnx", bits=bits)
    session = OnnxSession(path, thread_count=thread_count)
    return lambda x: Codes(*session.run({"x": np.ascontiguousarray(x)}, ["indices", "values"]))
