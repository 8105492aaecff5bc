"""A small real training loop whose MFU is predicted and measured: a two-layer network, forward, backward, SGD."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.domain.workload import Cost, new_page_bytes
from harness.errors import WrongAnswerError
from harness.ports import Operation, WorkloadContext


class Network:
    """y = relu(x A) B trained on a teacher of the same shape by mean squared error."""

    def __init__(self, dim: int, batch: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        scale = np.float32(np.sqrt(2 / dim))
        self.a = rng.standard_normal((dim, 4 * dim), dtype=np.float32) * scale
        self.b = rng.standard_normal((4 * dim, dim), dtype=np.float32) * scale / 2
        self.x = rng.standard_normal((batch, dim), dtype=np.float32)
        teacher = rng.standard_normal((dim, dim), dtype=np.float32) * np.float32(1 / np.sqrt(dim))
        self.y = self.x @ teacher

    def gradients(self) -> tuple[float, Any, Any]:
        """(loss, dA, dB): two products forward, three backward (the input needs no gradient)."""
        hidden = self.x @ self.a
        np.maximum(hidden, 0, out=hidden)
        error = hidden @ self.b - self.y
        loss = float(np.mean(error**2))
        error *= np.float32(2 / error.size)
        back = error @ self.b.T
        back *= hidden > 0
        return loss, self.x.T @ back, hidden.T @ error

    def step(self, rate: float = 0.3) -> float:
        """One step; returns the loss before it."""
        loss, da, db = self.gradients()
        self.a -= np.float32(rate) * da
        self.b -= np.float32(rate) * db
        return loss


class TrainingWorkload:
    """Training steps of a small network."""

    name = "training_efficiency"
    title = "Training efficiency: a real training loop, its FLOPs counted, its MFU predicted and measured"
    extra = ""
    needs_model = False
    sizes: Mapping[str, Mapping[str, int]] = {
        "small": {"dim": 128, "batch_count": 128},
        "default": {"dim": 512, "batch_count": 512},
    }

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Five products of batch x dim x 4 dim, 2 FLOPs each, and passes in float32 beside them.

        Over the hidden layer (4 n d values): a maximum in place, a comparison, and a product with its answer, which is
        cast. Over the error (n d): a difference, a square, its sum, a scaling. Over both gradients (8 d^2): a scaling
        into a new array and a difference. New in each step: hidden layer, what comes back to it, error, its square,
        answers, gradients and their scaled ones.
        """
        d, n = size["dim"], size["batch_count"]
        weights, hidden, error = 4 * 8 * d * d, 4 * 4 * n * d, 4 * n * d
        largest = max(weights / 2, hidden)
        fresh = 2.25 * hidden + 2 * error + weights + weights / 2
        cost = Cost(
            operation="step",
            flops_count=5.0 * 2 * n * d * 4 * d,
            moved_bytes=0.0,
            resident_bytes=round(2.5 * weights + 2.25 * hidden + 4 * error),
            product_dim=min(d, n),
            pass_bytes=(2 + 1.25 + 4.75) * hidden + (3 + 2 + 2 + 2) * error + 5 * weights,
            pass_set_bytes=weights + hidden * 2.0,
            fresh_bytes=new_page_bytes(fresh, largest),
            numpy_calls_count=20,
            python_ops_count=322,
        )
        return (cost,)

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> Network:
        """A network with random weights."""
        return Network(size["dim"], size["batch_count"], context.seed)

    def operations(self, state: Network) -> Sequence[Operation]:
        """One training step."""
        return (Operation("step", state.step),)

    def check(self, state: Network) -> Mapping[str, Any]:
        """Gradients equal finite differences; the loss falls; the published example comes out exactly."""
        from harness.workloads.training_efficiency.figures import DEEPSEEK_V3, efficiency

        first = state.gradients()[0]
        if not gradient_error(state) < 0.02:
            raise WrongAnswerError("a gradient is not the slope of the loss")
        for _ in range(20):
            state.step()
        last = state.gradients()[0]
        if not last < first:
            raise WrongAnswerError(f"the loss did not fall: {first} to {last}")
        done = efficiency(DEEPSEEK_V3)
        return {"loss_before": first, "loss_after": last, "deepseek_v3_mfu": str(done.mfu_ratio)}


def gradient_error(network: Network, step: float = 1e-2) -> float:
    """Relative difference between the gradient of A and a central difference along it."""
    _, da, _ = network.gradients()
    norm = float(np.linalg.norm(da))
    if norm == 0.0:
        return 0.0
    direction = (da / np.float32(norm)).astype(np.float32)
    saved, losses = network.a.copy(), []
    for sign in (1, -1):
        network.a = saved + np.float32(sign * step) * direction
        losses.append(network.gradients()[0])
    network.a = saved
    return abs((losses[0] - losses[1]) / (2 * step) - norm) / norm
