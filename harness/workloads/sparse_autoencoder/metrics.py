"""What an autoencoder keeps of activations: L0, unexplained variance, dead features, norms.

FVU = sum |y - x|^2 / sum |x - mean x|^2, both over all tokens and dimensions (1 - explained variance, as in SAELens and
Gao et al. 2024); mean x is that of the same tokens. A feature is dead when no token of the set activates it.
"""

import numpy as np

from harness.domain.base import Frozen
from harness.errors import RefusedError
from harness.workloads.sparse_autoencoder.model import Codes, Floats, Indices, SparseAutoencoder


class Quality(Frozen, frozen=True, kw_only=True):
    """Quality on a set of activations.

    Attributes:
        active_count: Mean number of active features of a token (L0).
        fvu_ratio: Fraction of variance unexplained.
        dead_ratio: Share of features that no token activates.
        cosine: Mean cosine of reconstruction and activation.
    """

    token_count: int
    active_count: float
    fvu_ratio: float
    explained_ratio: float
    dead_ratio: float
    cosine: float


def fvu(x: Floats, y: Floats) -> float:
    """Fraction of variance unexplained by the reconstruction y of x; RefusedError where x has no variance."""
    spread = float(np.sum((x - x.mean(axis=0, dtype=np.float64)) ** 2, dtype=np.float64))
    if spread == 0:
        raise RefusedError("activations that are all alike have no variance to explain")
    return float(np.sum((y - x) ** 2, dtype=np.float64)) / spread


def quality(autoencoder: SparseAutoencoder, x: Floats) -> Quality:
    """All figures on activations [token_count, input_dim]. Errors as :func:`fvu`."""
    codes = autoencoder.encode_blocks(x)
    fired = np.bincount(codes.indices[codes.values > 0], minlength=autoencoder.feature_count)
    y = autoencoder.decode_sparse(codes)
    unexplained = fvu(x, y)
    products = np.einsum("ij,ij->i", x, y, dtype=np.float64)
    norms = np.linalg.norm(x.astype(np.float64), axis=1) * np.linalg.norm(y.astype(np.float64), axis=1)
    return Quality(
        token_count=len(x),
        active_count=int(np.count_nonzero(codes.values)) / len(x),
        fvu_ratio=unexplained,
        explained_ratio=1 - unexplained,
        dead_ratio=float(np.mean(fired == 0)),
        cosine=float(np.mean(products / np.maximum(norms, 1e-30))),
    )


def recovered(clean: float, spliced: float, ablated: float) -> float | None:
    """Share of the loss that an ablation costs which the reconstruction gets back.

    (L_ablated - L_spliced) / (L_ablated - L_clean); say which ablation. None where the ablation costs nothing, so that
    there is nothing to get back.
    """
    return (ablated - spliced) / (ablated - clean) if ablated > clean else None


def codes_overlap(codes: Codes, right: Indices) -> float:
    """Mean share of the right features [token_count, k] that the codes contain."""
    shared = [len(np.intersect1d(*rows)) / len(rows[1]) for rows in zip(codes.indices, right, strict=True)]
    return float(np.mean(shared))
