"""A sparse autoencoder as a workload: encode and decode with planted features; quality with a real model."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from harness.domain.workload import Cost, Kernel
from harness.errors import RefusedError, WrongAnswerError
from harness.ports import Operation, WorkloadContext
from harness.workloads._described import Described
from harness.workloads.sparse_autoencoder.encoders import KINDS, Encoder, kinds, make_encoder, weight_bytes
from harness.workloads.sparse_autoencoder.metrics import codes_overlap
from harness.workloads.sparse_autoencoder.model import Codes, Floats, SparseAutoencoder, empty_rows
from harness.workloads.sparse_autoencoder.study import gather, study

LEAST_OVERLAP: Final = {
    "fp32": 0.999,
    "fp16": 0.98,
    "int8": 0.9,
    "ort fp32": 0.999,
    "ort int8": 0.95,
    "ort int4": 0.6,
}
"""Share of the k largest features that must be those of float64; four bits lose a tenth and more by nature."""


class State(NamedTuple):
    """One autoencoder, its encoders, a batch of tokens, and the codes of the first one."""

    autoencoder: SparseAutoencoder
    encoders: tuple[Encoder, ...]
    x: Floats
    first: Codes
    dense: Floats


class SparseAutoencoderWorkload(Described):
    """Encode one token, encode a batch, decode sparsely and densely."""

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Products of x with W_enc, the choice of the k largest (a partition of m values), and the decoder's rows.

        Counted from the code, see ``_encode_cost``. Decoding sparsely copies k rows of d values and multiplies them by
        one vector; densely the whole decoder by one vector.
        """
        d, n, k = size["input_dim"], size["batch_count"], size["active_count"]
        m = d * size["expansion_ratio"]
        return (
            *(self._encode_cost(kind, d, m, 1) for kind in kinds(d, m)),
            self._encode_cost("fp32", d, m, n),
            Cost(
                operation="decode sparse",
                moved_bytes=4.0 * k * d,
                working_set_bytes=4.0 * 2 * k * d,
                pass_bytes=4.0 * 2 * k * d,
                pass_set_bytes=4.0 * 2 * k * d,
                resident_bytes=4 * m * d,
                numpy_calls_count=7,
                python_ops_count=82,
                parallel=False,
            ),
            Cost(
                operation="decode dense",
                moved_bytes=4.0 * m * d,
                working_set_bytes=4.0 * m * d,
                resident_bytes=4 * m * d,
                numpy_calls_count=2,
                python_ops_count=20,
            ),
        )

    def _encode_cost(self, kind: str, d: int, m: int, n: int) -> Cost:
        """One encoder on n tokens.

        numpy: the weights by one vector, or a product; a bias; the k largest of m. Widening is done on blocks of 65,536
        weights in the cache while they come as they are stored: INT8 one cast (1 + 4 bytes a weight, twice), FP16 one
        cast (2 + 4 bytes, twice), a shift, a mask and a product (8 bytes each), by 5 functions of numpy and some 116
        instructions a block, INT8 by 1 and 60; then the wide block by the vector. ONNX Runtime: a kernel that reads
        the weights as they are stored, and three passes and a choice over m values.
        """
        stored = weight_bytes(kind, d, m)
        result: dict[str, Any] = {
            "operation": f"encode {kind}" if n == 1 else f"encode {kind} x{n}",
            "resident_bytes": stored + 4 * m,
            "array_steps_count": float(n * m),
        }
        if kind.startswith("ort"):
            dtype = kind.removeprefix("ort ")
            passes = Kernel(kind="pass", moved_bytes=24.0 * m, working_set_bytes=12.0 * m)
            product = Kernel(kind="vector", dtype=dtype, flops_count=2.0 * m * d, moved_bytes=float(stored))
            return Cost(
                kernels=(product, passes),
                session_calls_count=1,
                numpy_calls_count=2,
                python_ops_count=175,
                **result,
            )
        result |= {"numpy_calls_count": 10, "python_ops_count": 349}
        if kind == "fp32":
            passes_bytes = n * (12.0 * m + 12.0 * d)
            result |= {"pass_bytes": passes_bytes, "pass_set_bytes": n * 8.0 * m}
            if n > 1:
                return Cost(flops_count=2.0 * n * m * d, product_dim=n, **result)
            return Cost(moved_bytes=float(stored), working_set_bytes=float(stored), **result)
        functions, instructions, bytes_a_weight = (5, 116, 36.0) if kind == "fp16" else (1, 60, 10.0)
        blocks = -(-m // max(1, (1 << 16) // d))
        result["numpy_calls_count"] += (functions + 1) * blocks
        result["python_ops_count"] += instructions * blocks
        return Cost(
            # A pass waits for what comes from memory, half as fast as it could; the wide blocks are read once more.
            moved_bytes=2.0 * stored,
            working_set_bytes=float(stored),
            pass_bytes=(bytes_a_weight + 8.0) * m * d + 12.0 * m,
            pass_set_bytes=float(1 << 19),
            parallel=False,
            **result,
        )

    def prepared_bytes(self, size: Mapping[str, int]) -> int:
        """Encoder and decoder in float32, and the weights of every other encoder beside them.

        ONNX Runtime maps float32 weights and packs a copy of all weights for its kernels.
        """
        d = size["input_dim"]
        m = d * size["expansion_ratio"]
        others = sum(weight_bytes(k, d, m) * (2 if k.startswith("ort") else 1) for k in kinds(d, m) if k != "fp32")
        return 2 * weight_bytes("fp32", d, m) + others

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Random unit features; tokens are sums of k of them and noise, so that the right answer is known."""
        d, k = size["input_dim"], size["active_count"]
        sae = random_autoencoder(d, d * size["expansion_ratio"], k, context.seed)
        x = planted_tokens(sae, size["batch_count"], context.seed + 1)
        found = tuple(
            make_encoder(sae, kind, context.folder, thread_count=context.thread_count)
            for kind in kinds(d, sae.feature_count)
        )
        return State(sae, found, x, sae.encode_sparse(x[:1]), sae.encode(x[:1]))

    def operations(self, state: State) -> Sequence[Operation]:
        """Every encoder on one token, FP32 on a batch, and both ways to decode one token."""
        one, n = state.x[:1], len(state.x)

        def encode(encoder: Encoder, x: Floats) -> Operation:
            name = f"encode {encoder.kind}" if len(x) == 1 else f"encode {encoder.kind} x{n}"
            return Operation(name, lambda: encoder.top(x))

        return (
            *(encode(e, one) for e in state.encoders),
            encode(state.encoders[0], state.x),
            Operation("decode sparse", lambda: state.autoencoder.decode_sparse(state.first)),
            Operation("decode dense", lambda: state.autoencoder.decode(state.dense)),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """Every encoder finds float64's features, sparse decoding is dense decoding; WrongAnswerError where not so."""
        sae, x = state.autoencoder, state.x
        h = (x.astype(np.float64) - sae.decoder_bias) @ sae.encoder.astype(np.float64) + sae.encoder_bias
        right = np.sort(np.argpartition(h, -sae.active_count, axis=1)[:, -sae.active_count :], axis=1)
        found: dict[str, float] = {}
        for encoder in state.encoders:
            found[encoder.kind] = codes_overlap(encoder.top(x), right)
            if not found[encoder.kind] >= LEAST_OVERLAP[encoder.kind]:
                raise WrongAnswerError(f"encode {encoder.kind} shares {found[encoder.kind]:.3f} of the right features")
        sparse, dense = sae.decode_sparse(state.first), sae.decode(state.dense)
        difference = float(np.max(np.abs(sparse - dense)))
        if not difference <= 1e-4 * float(np.max(np.abs(dense))):
            raise WrongAnswerError(f"sparse decoding differs from dense decoding by {difference:.2g}")
        return {
            "top_overlap": found,
            "weight_bytes": {e.kind: e.weight_bytes for e in state.encoders},
            "decode_difference": difference,
            "left_out": [f"encode {kind}" for kind in KINDS if kind not in found],
        }

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """Train on a real model's activations and report quality, loss recovered and features.

        Needs ``--model``; reads the text that ships, or the texts of the ``--data`` folder's ``text`` folder.
        RefusedError where no model was given.
        """
        if context.model_path is None or context.open_session is None:
            raise RefusedError("an evaluation of sparse_autoencoder trains on a model's activations: give --model FILE")
        folder = context.data / "text" if context.data and (context.data / "text").is_dir() else None
        opener, path, threads = context.open_session, context.model_path, context.thread_count
        material = gather(opener, path, folder, thread_count=threads, cache=context.cache)
        _, report = study(opener, path, material, thread_count=threads)
        evaluation: dict[str, Any] = msgspec.to_builtins(report)
        return evaluation


def random_autoencoder(input_dim: int, feature_count: int, active_count: int, seed: int) -> SparseAutoencoder:
    """Random unit rows for the decoder, the encoder its transpose."""
    rng = np.random.default_rng(seed)
    decoder = rng.standard_normal((feature_count, input_dim), dtype=np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    encoder = empty_rows(input_dim, feature_count)
    np.copyto(encoder, decoder.T)
    return SparseAutoencoder(
        encoder=encoder,
        encoder_bias=np.zeros(feature_count, np.float32),
        decoder=decoder,
        decoder_bias=rng.standard_normal(input_dim, dtype=np.float32) * np.float32(0.1),
        active_count=active_count,
    )


def planted_tokens(sae: SparseAutoencoder, token_count: int, seed: int) -> Floats:
    """Sums of ``active_count`` features with weights of 1 to 3, and noise of a tenth of a weight's norm."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((token_count, sae.input_dim), dtype=np.float32) * np.float32(0.1 / sae.input_dim**0.5)
    x += sae.decoder_bias
    for i in range(token_count):
        chosen = rng.choice(sae.feature_count, sae.active_count, replace=False)
        x[i] += rng.uniform(1, 3, sae.active_count).astype(np.float32) @ sae.decoder[chosen]
    return x
