"""Autoencoders that others train: ReLU and JumpReLU beside TopK, with or without taking b_dec from the input.

relu      z = max(h, 0)          Bricken et al. 2023
jumprelu  z = h where h > t      Rajamanoharan et al. 2024, arXiv:2407.14435; t a threshold for each feature
topk      as the harness has it, also where the input is not centred
"""

from dataclasses import dataclass

import numpy as np

from harness.errors import RefusedError
from harness.workloads.sparse_autoencoder.model import Codes, Floats, SparseAutoencoder

ACTIVATIONS = ("relu", "topk", "jumprelu")


@dataclass(frozen=True, kw_only=True, eq=False)
class OtherAutoencoder(SparseAutoencoder):
    """A dictionary of any of the three kinds.

    Attributes:
        activation: ``relu``, ``topk`` or ``jumprelu``.
        active_count: k of ``topk``; for the others all of them, whatever is given.
        threshold: [feature_count] of ``jumprelu``; None for the others.
        centred: Whether b_dec is taken from the input before encoding.

    Raises:
        RefusedError: Shapes that do not fit each other, or an activation without its parameter.
    """

    activation: str
    active_count: int = 0
    threshold: Floats | None = None
    centred: bool = True

    def __post_init__(self) -> None:
        """Refuse what no arithmetic below could make sense of."""
        if self.activation not in ACTIVATIONS:
            raise RefusedError(f"no activation {self.activation!r}; one of: {', '.join(ACTIVATIONS)}")
        if self.activation != "topk":
            object.__setattr__(self, "active_count", self.encoder.shape[-1])
        if self.encoder.ndim != 2:
            raise RefusedError(f"the encoder has shape {self.encoder.shape}, expected [input_dim, feature_count]")
        d, m = self.encoder.shape
        for name, shape in {"encoder_bias": (m,), "decoder": (m, d), "decoder_bias": (d,)}.items():
            if getattr(self, name).shape != shape:
                raise RefusedError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if not 0 < self.active_count <= m:
            raise RefusedError(f"topk keeps between 1 and {m} features, not {self.active_count}")
        if self.activation == "jumprelu" and (self.threshold is None or self.threshold.shape != (m,)):
            raise RefusedError(f"jumprelu needs a threshold of shape ({m},)")

    def hidden(self, x: Floats) -> Floats:
        """Pre-activations h [token_count, feature_count]."""
        centred: Floats = x - self.decoder_bias if self.centred else x
        h: Floats = centred @ self.encoder
        h += self.encoder_bias
        return h

    def encode_sparse(self, x: Floats) -> Codes:
        """Only the active features of each token."""
        if self.activation == "topk":
            return super().encode_sparse(x)
        h = self.hidden(x)
        h[h <= np.maximum(0 if self.threshold is None else self.threshold, 0)] = 0
        return Codes(np.broadcast_to(np.arange(self.feature_count), h.shape), h)

    def decode_sparse(self, codes: Codes) -> Floats:
        """Densely where every feature is listed."""
        return super().decode_sparse(codes) if self.activation == "topk" else self.decode(codes.values)
