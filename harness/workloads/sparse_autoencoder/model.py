"""A sparse autoencoder as arrays: encode, decode densely or only the rows that are active, in numpy.

h = (x - b_dec) W_enc + b_enc          the subtraction only where ``centred`` says so
z = activation(h)                      relu: max(h, 0); topk: its k largest values; jumprelu: h where h > threshold
y = z W_dec + b_dec

x [token_count, input_dim], W_enc [input_dim, feature_count], z [token_count, feature_count], W_dec [feature_count,
input_dim]. Sources: Bricken et al. 2023 (ReLU with L1), Gao et al. 2024 arXiv:2406.04093 (TopK), Rajamanoharan et al.
2024 arXiv:2407.14435 (JumpReLU). Names of the arrays are SAELens's.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import RefusedError

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

_PAGE_BYTES: Final = 4096
_GAP_ELEMENTS: Final = 80

ACTIVATIONS: Final = ("relu", "topk", "jumprelu")


class Codes(NamedTuple):
    """Active features of a batch, row after row.

    Attributes:
        starts: [token_count + 1]; row i has ``indices[starts[i]:starts[i + 1]]``.
        indices: Feature of each entry, growing within a row.
        values: Its activation, never zero.
    """

    starts: Indices
    indices: Indices
    values: Floats

    def row(self, index: int) -> tuple[Indices, Floats]:
        """Features and activations of one token."""
        part = slice(self.starts[index], self.starts[index + 1])
        return self.indices[part], self.values[part]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparseAutoencoder:
    """One trained dictionary.

    Attributes:
        encoder: W_enc [input_dim, feature_count].
        encoder_bias: b_enc [feature_count].
        decoder: W_dec [feature_count, input_dim].
        decoder_bias: b_dec [input_dim].
        activation: ``relu``, ``topk`` or ``jumprelu``.
        active_count: k of ``topk``; 0 for the others.
        threshold: [feature_count] of ``jumprelu``; None for the others.
        centred: Whether b_dec is taken from the input before encoding.

    Raises:
        RefusedError: Shapes that do not fit each other, or an activation without its parameter.
    """

    encoder: Floats
    encoder_bias: Floats
    decoder: Floats
    decoder_bias: Floats
    activation: str
    active_count: int = 0
    threshold: Floats | None = None
    centred: bool = True

    def __post_init__(self) -> None:
        """Refuse what no arithmetic below could make sense of."""
        if self.activation not in ACTIVATIONS:
            raise RefusedError(f"no activation {self.activation!r}; one of: {', '.join(ACTIVATIONS)}")
        if self.encoder.ndim != 2:
            raise RefusedError(f"the encoder has shape {self.encoder.shape}, expected [input_dim, feature_count]")
        d, m = self.encoder.shape
        expected = {"encoder_bias": (m,), "decoder": (m, d), "decoder_bias": (d,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise RefusedError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if self.activation == "topk" and not 0 < self.active_count <= m:
            raise RefusedError(f"topk keeps between 1 and {m} features, not {self.active_count}")
        if self.activation == "jumprelu" and (self.threshold is None or self.threshold.shape != (m,)):
            raise RefusedError(f"jumprelu needs a threshold of shape ({m},)")

    @property
    def input_dim(self) -> int:
        """Width of the activations."""
        return int(self.encoder.shape[0])

    @property
    def feature_count(self) -> int:
        """Size of the dictionary."""
        return int(self.encoder.shape[1])

    def hidden(self, x: Floats) -> Floats:
        """Pre-activations h [token_count, feature_count]."""
        centred: Floats = x - self.decoder_bias if self.centred else x
        h: Floats = centred @ self.encoder
        h += self.encoder_bias
        return h

    def encode(self, x: Floats) -> Floats:
        """Activations z [token_count, feature_count], mostly zeros."""
        h = self.hidden(x)
        if self.activation == "jumprelu":
            assert self.threshold is not None
            h[h <= self.threshold] = 0
            h[h < 0] = 0
            return h
        np.maximum(h, 0, out=h)
        if self.activation == "topk":
            keep_largest(h, self.active_count)
        return h

    def encode_sparse(self, x: Floats) -> Codes:
        """Only the active features of each token."""
        if self.activation != "topk":
            return sparse(self.encode(x))
        return largest(self.hidden(x), self.active_count)

    def decode(self, z: Floats) -> Floats:
        """Reconstruction y [token_count, input_dim] of dense activations: 2 m d operations a token."""
        y: Floats = z @ self.decoder
        y += self.decoder_bias
        return y

    def decode_sparse(self, codes: Codes) -> Floats:
        """Reconstruction y [token_count, input_dim] from the active rows only: 2 L0 d operations a token."""
        y = np.empty((len(codes.starts) - 1, self.input_dim), np.float32)
        for i in range(len(y)):
            indices, values = codes.row(i)
            np.dot(values, self.decoder[indices], out=y[i])
        y += self.decoder_bias
        return y

    def reconstruct(self, x: Floats, *, block_tokens: int = 512) -> Floats:
        """decode(encode(x)), in blocks so that no [token_count, feature_count] matrix is ever held."""
        blocks = [
            self.decode_sparse(self.encode_sparse(x[i : i + block_tokens])) for i in range(0, len(x), block_tokens)
        ]
        return np.concatenate(blocks) if blocks else np.empty_like(x)


def empty_rows(row_count: int, column_count: int) -> Floats:
    """An array [row_count, column_count] to be filled, whose rows are not a multiple of a page apart.

    A matrix-vector kernel reads several rows at once. Where they lie whole pages apart they fall into the same sets of
    the caches and push each other's prefetched lines out: 0.76 of the bandwidth at 2048 x 32768, and 0.87 with 320
    bytes between the rows.
    """
    gap = _GAP_ELEMENTS if 4 * column_count % _PAGE_BYTES == 0 else 0
    return np.empty((row_count, column_count + gap), np.float32)[:, :column_count]


def keep_largest(h: Floats, count: int) -> None:
    """Zero all but the ``count`` largest values of each row of h >= 0, in place; of equals any may stay."""
    drop = h.shape[1] - count
    if drop <= 0:
        return
    border = np.partition(h, drop, axis=1)[:, drop]
    h *= h >= border[:, None]
    for row in np.flatnonzero(np.count_nonzero(h, axis=1) > count):
        equal = np.flatnonzero(h[row] == border[row])
        h[row, equal[: np.count_nonzero(h[row]) - count]] = 0


def largest(h: Floats, count: int) -> Codes:
    """The ``count`` largest values of each row of h, of them those above zero."""
    chosen = np.argpartition(h, h.shape[1] - count, axis=1)[:, -count:]
    chosen.sort(axis=1)
    return positive(chosen, np.take_along_axis(h, chosen, axis=1))


def positive(chosen: Indices, values: Floats) -> Codes:
    """The entries above zero of the features chosen for each row [token_count, k]."""
    active = values > 0
    return Codes(np.concatenate([[0], np.cumsum(active.sum(axis=1))]), chosen[active], values[active])


def sparse(z: Floats) -> Codes:
    """The entries of dense activations that are not zero."""
    rows, indices = np.nonzero(z)
    starts = np.searchsorted(rows, np.arange(len(z) + 1))
    return Codes(starts, indices, z[rows, indices])
