"""Training of TopK in numpy with Adam: gradients by hand, unit-norm decoder, pre-bias, revival of dead features.

The loss of a batch, activations scaled so that their mean square norm is input_dim:

    mean over tokens of |y - x|^2 / V  +  auxiliary term,     V = mean |x - mean x|^2

AuxK, the auxiliary term: features that were silent for ``dead_after_tokens`` reconstruct what the living ones left
over: aux_coefficient * |e_hat - e|^2 / V; Gao et al. 2024, arXiv:2406.04093, appendix A.2.

The decoder's gradient is freed of its part along each row, and rows are scaled back to norm 1 after every step
(Bricken et al. 2023). The rate warms up over ``warm_up_share`` of the steps and falls to zero over ``decay_share``.
"""

from typing import Final

import numpy as np

from harness.domain.base import Frozen
from harness.errors import RefusedError
from harness.workloads._adam import Adam
from harness.workloads.sparse_autoencoder.model import Floats, Indices, SparseAutoencoder, largest

ENCODER_START: Final = 0.1
"""Length of the encoder's columns before the first step. The k features that answer loudest among random directions
overlap, and at full length their sum overshoots: steps are then spent on shrinking it. Unexplained variance after 400
steps of 512 tokens of SmolLM2-135M, held out: 0.174 from 1, 0.163 from 0.3, 0.164 from 0.1 at a rate of 2e-3."""
_TINY: Final = np.float32(1e-12)
_GATHERED_TOKENS: Final = 32  # so that the gathered rows stay in the second-level cache


class Plan(Frozen, frozen=True, kw_only=True):
    """How to train.

    Attributes:
        active_count: k.
        batch_tokens: Tokens of a step, drawn without replacement within an epoch.
        warm_up_share: Share of the steps over which the rate grows from zero.
        decay_share: Share of the steps, at the end, over which it falls to zero.
        aux_coefficient: Weight of the auxiliary term; 0 for no revival.
        dead_after_tokens: A feature silent for so many tokens counts as dead while training.
    """

    feature_count: int
    active_count: int = 32
    step_count: int = 500
    batch_tokens: int = 1024
    rate: float = 3e-3
    warm_up_share: float = 0.05
    decay_share: float = 0.4
    aux_coefficient: float = 0.25
    dead_after_tokens: int = 10_000
    seed: int = 1


class Trainer:
    """One training run on activations [token_count, input_dim], outliers left out; :meth:`run` is the short way.

    Raises:
        RefusedError: No activations, values that are not finite, or more active features than there are.
    """

    def __init__(self, x: Floats, plan: Plan) -> None:
        if len(x) == 0 or not np.isfinite(x).all():
            raise RefusedError("training needs activations, all of them finite")
        if not 0 < plan.active_count <= plan.feature_count:
            raise RefusedError(f"{plan.active_count} of {plan.feature_count} features cannot be active")
        self.plan = plan
        self._rng = np.random.default_rng(plan.seed)
        d, m = x.shape[1], plan.feature_count
        self.scale = float(np.sqrt(d / np.mean(np.einsum("ij,ij->i", x, x, dtype=np.float64))))
        self._x = (x * np.float32(self.scale)).astype(np.float32)
        mean = self._x.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._variance = float(np.mean(np.sum((self._x - mean) ** 2, axis=1, dtype=np.float64)))
        decoder = self._rng.standard_normal((m, d), dtype=np.float32)
        decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
        # Each feature starts as a faint detector of its own direction, and the pre-bias as the mean.
        self.parameters: dict[str, Floats] = {
            "W_enc": np.ascontiguousarray(decoder.T) * np.float32(ENCODER_START),
            "b_enc": np.zeros(m, np.float32),
            "W_dec": decoder,
            "b_dec": mean,
        }
        self._adam = Adam(self.parameters)
        self._silent_tokens = np.zeros(m, np.int64)
        self._order = np.empty(0, np.int64)
        self.step_index = 0

    def draw(self) -> Indices:
        """Rows of the next batch."""
        size = min(self.plan.batch_tokens, len(self._x))
        if len(self._order) < size:
            self._order = self._rng.permutation(len(self._x))
        chosen, self._order = self._order[:size], self._order[size:]
        return chosen

    def _rate(self) -> float:
        done = self.step_index / self.plan.step_count
        rising = (self.step_index + 1) / max(1.0, self.plan.warm_up_share * self.plan.step_count)
        falling = (1 - done) / self.plan.decay_share if self.plan.decay_share else 1.0
        return self.plan.rate * min(1.0, rising, falling)

    def gradients(self, x: Floats) -> tuple[dict[str, Floats], Indices]:
        """(gradients, tokens that each feature is active on) of one scaled batch.

        The k rows of each token are gathered, which saves two of five dense products.
        """
        plan, p = self.plan, self.parameters
        factor = np.float32(2 / (len(x) * self._variance))
        centred: Floats = x - p["b_dec"]
        h: Floats = centred @ p["W_enc"]
        h += p["b_enc"]
        chosen, values = largest(h, plan.active_count)
        error, slopes = np.empty_like(x), np.empty_like(values)
        for start in range(0, len(x), _GATHERED_TOKENS):
            part = slice(start, start + _GATHERED_TOKENS)
            rows = p["W_dec"][chosen[part]]
            error[part] = np.matmul(values[part, None, :], rows)[:, 0]
            error[part] += p["b_dec"] - x[part]
            slopes[part] = np.matmul(rows, (error[part] * factor)[:, :, None])[:, :, 0]
        slopes *= values > 0
        z, d_h = np.zeros_like(h), np.zeros_like(h)
        np.put_along_axis(z, chosen, values, axis=1)
        np.put_along_axis(d_h, chosen, slopes, axis=1)
        g = error * factor
        d_decoder = z.T @ g
        dead = np.flatnonzero(self._silent_tokens >= plan.dead_after_tokens)
        if plan.aux_coefficient and len(dead):
            self._revive(h, -error, dead, factor, d_h, d_decoder)
        out = {
            "W_enc": centred.T @ d_h,
            "b_enc": d_h.sum(axis=0),
            "W_dec": d_decoder,
            "b_dec": g.sum(axis=0) - d_h.sum(axis=0) @ p["W_enc"].T,
        }
        return out, np.count_nonzero(z, axis=0)

    def _revive(
        self, h: Floats, left: Floats, dead: Indices, factor: np.float32, d_h: Floats, d_decoder: Floats
    ) -> None:
        """Add the auxiliary term's gradients for the dead features."""
        half = self.parameters["b_dec"].size // 2
        chosen, values = largest(h[:, dead], min(len(dead), h.shape[1] // 2, half))
        z = np.zeros((len(h), len(dead)), np.float32)
        np.put_along_axis(z, chosen, values, axis=1)
        rows = self.parameters["W_dec"][dead]
        # Few dead features cannot explain much: their term weighs less (as in SAELens).
        weight = self.plan.aux_coefficient * min(1.0, len(dead) / half)
        g = (z @ rows - left) * np.float32(factor * weight)
        d_h[:, dead] += (g @ rows.T) * (z > 0)
        d_decoder[dead] += z.T @ g

    def step(self, rows: Indices | None = None) -> None:
        """One Adam step on these rows, or on those that :meth:`draw` gives."""
        x = self._x[self.draw() if rows is None else rows]
        gradients, active = self.gradients(x)
        decoder, along = self.parameters["W_dec"], gradients["W_dec"]
        along -= np.einsum("ij,ij->i", along, decoder)[:, None] * decoder
        self._adam.step(gradients, self._rate())
        decoder /= np.maximum(np.linalg.norm(decoder, axis=1, keepdims=True), _TINY)
        self._silent_tokens += len(x)
        self._silent_tokens[active > 0] = 0
        self.step_index += 1

    def run(self) -> SparseAutoencoder:
        """All steps of the plan."""
        for _ in range(self.plan.step_count):
            self.step()
        return self.result()

    def result(self) -> SparseAutoencoder:
        """The autoencoder for activations as they were given.

        The input's scale s folds into the biases alone: the activations are positively homogeneous, so
        z(s x) / s needs b_enc / s and b_dec / s, and the decoder keeps its unit norm.
        """
        p, s = self.parameters, np.float32(self.scale)
        return SparseAutoencoder(
            encoder=p["W_enc"].copy(),
            encoder_bias=p["b_enc"] / s,
            decoder=p["W_dec"].copy(),
            decoder_bias=p["b_dec"] / s,
            active_count=self.plan.active_count,
        )
