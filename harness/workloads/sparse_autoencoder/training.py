"""Training of a TopK autoencoder in NumPy with Adam: gradients by hand, unit-norm decoder, pre-bias, AuxK.

The loss of a batch, activations scaled so that their mean square norm is dim:

    mean over tokens of |y - x|^2 / V  +  auxiliary term,     V = mean |x - mean x|^2

AuxK, the auxiliary term: features that were silent for ``dead_after_tokens`` reconstruct what the living ones left
over: aux_coefficient * |e_hat - e|^2 / V; Gao et al. 2024, arXiv:2406.04093, appendix A.2. The decoder's gradient is
freed of its part along each row, and rows are scaled back to norm 1 after every step (Bricken et al. 2023). Adam:
Kingma and Ba 2015; the mean of squares forgets after a hundred steps, since there are some hundreds of them.
"""

from typing import Final

import numpy as np

from harness.arrays import Flags, Singles
from harness.domain.base import Frozen
from harness.errors import RefusedError
from harness.workloads.sparse_autoencoder.model import SparseAutoencoder, largest

ENCODER_START: Final = 0.1
"""Length of the encoder's columns before the first step: at full length the sum of the k loudest of many random
directions overshoots, and the first steps are spent on shrinking it."""
_BETAS: Final = (0.9, 0.99)


class Plan(Frozen):
    """How to train.

    Attributes:
        active_count: k.
        batch_tokens: Tokens of a step.
        rate: Of Adam; it rises over the first twentieth of the steps and falls to zero over the last two fifths.
        dead_after_tokens: A feature silent for so many tokens counts as dead while training.
    """

    feature_count: int
    active_count: int = 32
    step_count: int = 500
    batch_tokens: int = 512
    rate: float = 3e-3
    aux_coefficient: float = 0.25
    dead_after_tokens: int = 10_000
    seed: int = 1


class Trainer:
    """One run on activations [tokens, dim], massive tokens left out.

    Raises:
        RefusedError: No activations, values that are not finite, or more active features than there are.
    """

    def __init__(self, x: Singles, plan: Plan) -> None:
        if len(x) == 0 or not np.isfinite(x).all():
            raise RefusedError("training needs activations, all of them finite")
        if not 0 < plan.active_count <= plan.feature_count:
            raise RefusedError(f"{plan.active_count} of {plan.feature_count} features cannot be active")
        self.plan = plan
        self._rng = np.random.default_rng(plan.seed)
        dim, features = x.shape[1], plan.feature_count
        self.scale = float(np.sqrt(dim / np.mean(np.einsum("ij,ij->i", x, x, dtype=np.float64))))
        self._x: Singles = x * self.scale
        mean = self._x.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._variance = float(np.mean(np.sum((self._x - mean) ** 2, axis=1, dtype=np.float64)))
        decoder = self._rng.standard_normal((features, dim), dtype=np.float32)
        decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
        encoder = np.ascontiguousarray(decoder.T) * ENCODER_START
        self.parameters = {"W_enc": encoder, "b_enc": np.zeros(features, np.float32), "W_dec": decoder, "b_dec": mean}
        self._moments = {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in self.parameters.items()}
        self.silent_tokens = np.zeros(features, np.int64)
        self._step_index = 0

    def gradients(self, x: Singles) -> tuple[dict[str, Singles], Flags]:
        """(gradients, whether each feature is active) of one scaled batch."""
        p = self.parameters
        centred: Singles = x - p["b_dec"]
        h: Singles = centred @ p["W_enc"] + p["b_enc"]
        z = self._chosen(h, self.plan.active_count)
        error: Singles = z @ p["W_dec"] + p["b_dec"] - x
        factor = 2 / (len(x) * self._variance)
        d_y = error * factor
        d_h: Singles = (d_y @ p["W_dec"].T) * (z > 0)
        d_decoder: Singles = z.T @ d_y
        dead = np.flatnonzero(self.silent_tokens >= self.plan.dead_after_tokens)
        if self.plan.aux_coefficient and len(dead):
            half = max(1, x.shape[1] // 2)
            left = self._chosen(h[:, dead], min(len(dead), half))
            # Few dead features cannot explain much: their term weighs less (as in SAELens).
            weight = factor * self.plan.aux_coefficient * min(1.0, len(dead) / half)
            d_left = (left @ p["W_dec"][dead] + error) * weight
            d_h[:, dead] += (d_left @ p["W_dec"][dead].T) * (left > 0)
            d_decoder[dead] += left.T @ d_left
        d_bias: Singles = d_h.sum(axis=0)
        d_b_dec = d_y.sum(axis=0) - d_bias @ p["W_enc"].T
        active: Flags = np.any(z > 0, axis=0)
        return {"W_enc": centred.T @ d_h, "b_enc": d_bias, "W_dec": d_decoder, "b_dec": d_b_dec}, active

    def step(self) -> None:
        """One step of Adam on a batch that is drawn."""
        x = self._x[self._rng.integers(0, len(self._x), self.plan.batch_tokens)]
        gradients, active = self.gradients(x)
        decoder, along = self.parameters["W_dec"], gradients["W_dec"]
        along -= np.einsum("ij,ij->i", along, decoder)[:, None] * decoder
        self._step_index += 1
        done = self._step_index / self.plan.step_count
        rate = self.plan.rate * min(1.0, done / 0.05, (1 - done) / 0.4 + 1e-3)
        for name, g in gradients.items():
            usual = []
            for beta, moment, value in zip(_BETAS, self._moments[name], (g, g * g), strict=True):
                np.add(moment, (value - moment) * (1 - beta), out=moment)
                usual.append(moment / (1 - beta**self._step_index))
            self.parameters[name] -= rate * usual[0] / (np.sqrt(usual[1]) + 1e-8)
        decoder /= np.maximum(np.linalg.norm(decoder, axis=1, keepdims=True), 1e-12)
        self.silent_tokens += len(x)
        self.silent_tokens[active] = 0

    def run(self) -> SparseAutoencoder:
        """All steps of the plan.

        The input's scale s folds into the biases alone: with k fixed, z(s x) / s needs b_enc / s and b_dec / s, and the
        decoder keeps its unit norm.
        """
        for _ in range(self.plan.step_count):
            self.step()
        p = self.parameters
        return SparseAutoencoder(
            encoder=p["W_enc"],
            encoder_bias=p["b_enc"] / self.scale,
            decoder=p["W_dec"],
            decoder_bias=p["b_dec"] / self.scale,
            active_count=self.plan.active_count,
        )

    @staticmethod
    def _chosen(h: Singles, count: int) -> Singles:
        """The ``count`` largest values of each row where they are above zero, and zeros."""
        codes = largest(h, count)
        z = np.zeros_like(h)
        np.put_along_axis(z, codes.indices, np.maximum(codes.values, 0), axis=1)
        return z
