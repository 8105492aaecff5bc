"""Training as a workload: steps of a small transformer on text, FLOPs counted, MFU predicted and measured."""

import time
import timeit
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.workload import Cost, new_page_bytes
from harness.errors import WrongAnswerError
from harness.ports import Operation, WorkloadContext
from harness.workloads._described import Described
from harness.workloads._language.texts import shipped_text
from harness.workloads.training_efficiency.figures import published
from harness.workloads.training_efficiency.finetune import lora_on
from harness.workloads.training_efficiency.mixture import batches, habits, train, write
from harness.workloads.training_efficiency.transformer import Config, Transformer

_HEAD_DIM: Final = 32
_CHECK_STEPS: Final = 8
_PEAK_DIM: Final = 512
DEVICES: Final = ("iphone-16-pro", "pixel-9-pro", "raspberry-pi-5", "macbook-air-m3", "ryzen-7-7840hs")
LORA_MODELS: Final = ("smollm2-135m", "llama-3.2-1b")


class State(NamedTuple):
    """A model and one batch [batch, sequence + 1] of the text's bytes."""

    model: Transformer
    tokens: NDArray[np.int64]


class TrainingWorkload(Described):
    """Training steps of a small transformer."""

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Products by hand (``Config.step_flops``), and the passes around them.

        Products of weights have the smallest dimension d, those of attention a head's width: their FLOP-weighted
        harmonic mean stands for both, which is exact for a rate of n / (n + c). Passes a layer, forward and backward,
        in bytes read or written: 108 of an activation [N, d] (two norms 56, rotations 28, residuals and sums 24), 46 of
        an inner one, 27 of the scores; 16 of the logits; Adam 52 of all weights. exp is taken of the scores twice, of
        the inner layer twice and of the logits twice; four copies of an activation are in another order, half of the
        scores masked by an index.
        """
        c, batch, sequence = config_of(size), size["batch_count"], size["sequence_tokens"]
        tokens, layers = batch * sequence, c.layer_count
        flops = c.step_flops(batch, sequence)
        attention = 12.0 * layers * c.dim * sequence * tokens
        wide, inner, logits = 4.0 * tokens * c.dim, 4.0 * tokens * c.inner_dim, 4.0 * tokens * c.vocab_count
        scores = 4.0 * tokens * sequence * c.head_count
        tables = 2 * c.vocab_count * c.dim + (2 * layers + 1) * c.dim
        weights = 4.0 * (tables + layers * (4 * c.dim**2 + 3 * c.dim * c.inner_dim))
        kept = layers * (14 * wide + 3 * inner + scores) + 3 * logits
        largest = max(wide, inner, scores, logits)
        tensors = 9 * layers + 3
        cost = Cost(
            operation="step",
            flops_count=flops,
            product_dim=round(flops / ((flops - attention) / c.dim + attention / c.head_dim)),
            resident_bytes=round(4 * weights + kept + 4 * largest),
            pass_bytes=layers * (108 * wide + 46 * inner + 27 * scores) + 16 * logits + 52 * weights,
            pass_set_bytes=3 * largest,
            array_steps_count=layers * (wide + 3 * scores / 8 + inner / 4) + logits / 4,
            fresh_bytes=new_page_bytes(kept, largest),
            numpy_calls_count=115 * layers + 22 * tensors,
            python_ops_count=4640 * layers + 1450,
        )
        return (cost,)

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Random weights, and a batch of the text that ships."""
        tokens = next(batches(shipped_text().encode(), size["sequence_tokens"], size["batch_count"], context.seed))
        return State(Transformer(config_of(size), context.seed), tokens)

    def operations(self, state: State) -> Sequence[Operation]:
        """One training step."""
        return (Operation("step", lambda: state.model.step(state.tokens)),)

    def check(self, state: State) -> Mapping[str, Any]:
        """Gradients equal finite differences, FLOPs multiplied are those counted by hand, and the loss falls.

        Beside them: MFU of a step against the best that this process multiplies, published runs by both conventions of
        attention, and memory and hours of LoRA (a million tokens) on five devices. WrongAnswerError where one of these
        is not so.
        """
        # Untrained: how far the timed steps have come differs from run to run, and near a minimum a slope is too flat.
        model, (batch, more) = Transformer(state.model.config, 0), state.tokens.shape
        error = gradient_error(model, state.tokens)
        if not error < 0.02:
            raise WrongAnswerError(f"the gradient is not the slope of the loss: {error:.1%} apart")
        model.flops_count, begin = 0.0, time.perf_counter()
        losses = [model.step(state.tokens) for _ in range(_CHECK_STEPS)]
        step_s = (time.perf_counter() - begin) / _CHECK_STEPS
        by_hand = model.config.step_flops(batch, more - 1)
        if model.flops_count != _CHECK_STEPS * by_hand:
            raise WrongAnswerError(f"{model.flops_count / _CHECK_STEPS} FLOPs a step, by hand {by_hand}")
        if not losses[-1] < losses[0]:
            raise WrongAnswerError(f"the loss did not fall: {losses[0]} to {losses[-1]}")
        matrix = np.random.default_rng(1).random((_PEAK_DIM, _PEAK_DIM), np.float32)
        peak = 2.0 * _PEAK_DIM**3 / min(timeit.repeat(lambda: matrix @ matrix, number=1, repeat=8))
        return {
            "loss_before": losses[0],
            "loss_after": losses[-1],
            "gradient_error": error,
            "flops_count": by_hand,
            "peak_flops_per_s": peak,
            "mfu_ratio": by_hand / step_s / peak,
            "published_mfu": {name: float(run.mfu_ratio) for name, run in published().items()},
            "lora": {model: lora_on(model, DEVICES) for model in LORA_MODELS},
        }

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """Train a small mixture of experts, write it as a GGUF file, and tell its router's habits."""
        model = train(seed=context.seed)
        path = write(model, context.cache / "training" / "trained-mixture.gguf")
        return {"file": path.name, **habits(model)}


def config_of(size: Mapping[str, int]) -> Config:
    """A dense model of that width: heads of 32, an inner layer three times as wide."""
    dim = size["dim"]
    return Config(dim=dim, layer_count=size["layer_count"], head_count=max(1, dim // _HEAD_DIM), inner_dim=3 * dim)


def gradient_error(model: Transformer, tokens: NDArray[np.int64]) -> float:
    """Relative difference between the gradient's norm and a central difference of the loss along the gradient."""
    step = 2e-2
    model.backward(tokens)
    norm = np.sqrt(sum(float(np.vdot(g, g)) for g in model.gradients.values()))
    saved = {name: value.copy() for name, value in model.weights.items()}
    losses = []
    for sign in (1, -1):
        for name, value in saved.items():
            model.weights[name] = value + np.float32(sign * step / norm) * model.gradients[name]
        losses.append(model.loss(tokens))
    model.weights |= saved
    return float(abs((losses[0] - losses[1]) / (2 * step) - norm) / norm)
