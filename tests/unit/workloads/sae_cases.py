"""Small autoencoders and planted features that tests of sparse autoencoders share."""

import numpy as np

from harness.workloads.sparse_autoencoder.model import SparseAutoencoder
from harness.workloads.sparse_autoencoder.workload import planted_tokens, random_autoencoder


def f32(*rows):
    return np.array(rows, np.float32)


def small():
    """Two inputs, three features; b_dec = (1, 0)."""
    return SparseAutoencoder(
        encoder=f32([1, 0, 2], [0, 1, 1]),
        encoder_bias=np.array([0, 0.5, -1], np.float32),
        decoder=f32([1, 0], [0, 1], [2, 2]),
        decoder_bias=np.array([1, 0], np.float32),
        active_count=1,
    )


X = f32([2, 3])
# x = (2, 3); x - b_dec = (1, 3); h = (1*1 + 3*0 + 0, 1*0 + 3*1 + .5, 1*2 + 3*1 - 1) = (1, 3.5, 4)


def planted(seed=3):
    truth = random_autoencoder(16, 24, 3, seed)
    return truth, planted_tokens(truth, 3000, seed)
