"""A sparse autoencoder as arrays: encode, decode densely or only the rows that are active, in numpy.

h = (x - b_dec) W_enc + b_enc
z = the k largest values of h, of them those above zero
y = z W_dec + b_dec

x [token_count, input_dim], W_enc [input_dim, feature_count], z [token_count, feature_count], W_dec [feature_count,
input_dim]. Source: Gao et al. 2024, arXiv:2406.04093 (TopK). Names of the arrays are SAELens's.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

_PAGE_BYTES: Final = 4096
_GAP_ELEMENTS: Final = 80


class Codes(NamedTuple):
    """The k features of each token.

    Attributes:
        indices: [token_count, k], growing within a row where this machine chose them.
        values: [token_count, k], the activation of each; 0 where it is not active.
    """

    indices: Indices
    values: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseAutoencoder:
    """One trained dictionary.

    Attributes:
        encoder: W_enc [input_dim, feature_count].
        encoder_bias: b_enc [feature_count].
        decoder: W_dec [feature_count, input_dim].
        decoder_bias: b_dec [input_dim].
        active_count: k.
    """

    encoder: Floats
    encoder_bias: Floats
    decoder: Floats
    decoder_bias: Floats
    active_count: int

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
        centred: Floats = x - self.decoder_bias
        h: Floats = centred @ self.encoder
        h += self.encoder_bias
        return h

    def encode(self, x: Floats) -> Floats:
        """Activations z [token_count, feature_count], mostly zeros."""
        codes = self.encode_sparse(x)
        z = np.zeros((len(x), self.feature_count), np.float32)
        np.put_along_axis(z, codes.indices, codes.values, axis=1)
        return z

    def encode_sparse(self, x: Floats) -> Codes:
        """Only the active features of each token."""
        return largest(self.hidden(x), self.active_count)

    def encode_blocks(self, x: Floats, block_tokens: int = 512) -> Codes:
        """The same in blocks, so that no [token_count, feature_count] matrix is ever held."""
        parts = [self.encode_sparse(x[i : i + block_tokens]) for i in range(0, len(x), block_tokens)]
        return Codes(*map(np.concatenate, zip(*parts, strict=True)))

    def decode(self, z: Floats) -> Floats:
        """Reconstruction y [token_count, input_dim] of dense activations: 2 m d operations a token."""
        y: Floats = z @ self.decoder
        y += self.decoder_bias
        return y

    def decode_sparse(self, codes: Codes) -> Floats:
        """Reconstruction y [token_count, input_dim] from the active rows only: 2 L0 d operations a token."""
        y = np.empty((len(codes.values), self.input_dim), np.float32)
        for row, indices, values in zip(y, *codes, strict=True):
            np.dot(values, self.decoder[indices], out=row)
        y += self.decoder_bias
        return y

    def reconstruct(self, x: Floats) -> Floats:
        """decode(encode(x))."""
        return self.decode_sparse(self.encode_sparse(x))


def empty_rows(row_count: int, column_count: int) -> Floats:
    """An array [row_count, column_count] to be filled, whose rows are not a multiple of a page apart.

    A matrix-vector kernel reads several rows at once. Where they lie whole pages apart they fall into the same sets of
    the caches and push each other's prefetched lines out: 0.76 of the bandwidth at 2048 x 32768, and 0.87 with 320
    bytes between the rows.
    """
    gap = _GAP_ELEMENTS if 4 * column_count % _PAGE_BYTES == 0 else 0
    return np.empty((row_count, column_count + gap), np.float32)[:, :column_count]


def largest(h: Floats, count: int) -> Codes:
    """The ``count`` largest values of each row of h; those below zero are not active."""
    chosen = np.argpartition(h, h.shape[1] - count, axis=1)[:, -count:]
    chosen.sort(axis=1)
    return Codes(chosen, np.maximum(np.take_along_axis(h, chosen, axis=1), 0))
