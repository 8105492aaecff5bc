"""Probing as a workload: fit a probe, and apply it to the activations of a batch; a real model on request."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from harness.domain.workload import MOST_KEPT_BYTES, Cost, new_page_bytes
from harness.errors import RefusedError, WrongAnswerError
from harness.ports import Operation, WorkloadContext
from harness.workloads._described import Described
from harness.workloads.probe.induction import ablation, induction
from harness.workloads.probe.linear import Floats, Labels, LinearProbe, fit
from harness.workloads.probe.study import sweep

NOISE_RATIO: Final = 0.05
_STEPS: Final = 5


class State(NamedTuple):
    """Activations with a planted direction, labels of which a twentieth is turned over, and a fitted probe."""

    x: Floats
    labels: Labels
    direction: Floats
    fitted: LinearProbe
    held_x: Floats
    held_labels: Labels


class ProbeWorkload(Described):
    """Fit and apply a linear probe."""

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Newton steps: the curvature is one product of dim x tokens x dim, solving takes 2/3 dim^3.

        Planted data end after five steps. A step weights the transposed design matrix (m = 8 n d bytes) into a new one,
        and multiplies the matrix by one vector three times (margins, gradient, loss). Before them: mean and deviation
        (two sums, a difference and its square in doubles), standardising and a copy, 15 m read or written. A float64
        operation counts as two of float32. Losses take a logaddexp of each token, probabilities an exp.
        """
        n, d = size["token_count"], size["dim"] + 1
        steps = _STEPS
        matrix = 8.0 * n * d
        fresh = new_page_bytes(4 * matrix, matrix)
        return (
            Cost(
                operation="fit",
                flops_count=steps * 2 * (2.0 * n * d * d + 2 / 3 * d**3),
                moved_bytes=(3 * steps + 1) * matrix,
                working_set_bytes=2 * matrix,
                pass_bytes=(2 * steps + 15) * matrix,
                pass_set_bytes=3 * matrix,
                # Beyond 32 MiB each weighted matrix is new; below, what a whole call held.
                fresh_bytes=fresh + (new_page_bytes(steps * matrix, matrix) if matrix > MOST_KEPT_BYTES else 0.0),
                array_steps_count=n * (steps * 0.5 + (steps + 1) * 10.0),
                resident_bytes=int(4.5 * matrix + 16 * d * d),
                product_dim=d,
                numpy_calls_count=steps * 45 + 40,
                python_ops_count=steps * 200 + 400,
            ),
            Cost(
                operation="apply",
                # float32 rows are made doubles, then multiplied by one vector.
                moved_bytes=512 * d * 8.0,
                working_set_bytes=512 * d * 12.0,
                pass_bytes=512 * d * 12.0,
                pass_set_bytes=512 * d * 12.0,
                fresh_bytes=new_page_bytes(512 * d * 8.0, 512 * d * 8.0),
                resident_bytes=int(2.5 * matrix),
                numpy_calls_count=4,
                python_ops_count=30,
                parallel=False,
            ),
        )

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Gaussian activations whose label is the side of a random plane, a twentieth of the labels turned over."""
        n, d = size["token_count"], size["dim"]
        rng = np.random.default_rng(context.seed)
        direction = rng.standard_normal(d, dtype=np.float32)
        direction /= np.linalg.norm(direction)
        x = rng.standard_normal((n + 2000, d), dtype=np.float32) * rng.uniform(0.5, 2, d).astype(np.float32) + 3
        labels = (x - 3) @ direction > 0
        train = labels[:n] ^ (rng.random(n) < NOISE_RATIO)
        return State(x[:n], train, direction, fit(x[:n], train), x[n:], labels[n:])

    def operations(self, state: State) -> Sequence[Operation]:
        """A whole fit, and the labels of 512 tokens."""
        batch = state.x[:512]
        return (
            Operation("fit", lambda: fit(state.x, state.labels)),
            Operation("apply", lambda: state.fitted.predict(batch)),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """The probe points where the labels came from, and finds them in data it has not seen.

        With n tokens of d dimensions the direction is found up to an angle of about sqrt(d / n): the bounds follow it.
        WrongAnswerError where it does not.
        """
        n, d = state.x.shape
        cosine = float(state.fitted.weights @ state.direction / np.linalg.norm(state.fitted.weights))
        accuracy = float(np.mean(state.fitted.predict(state.held_x) == state.held_labels))
        least = 1 - 1.2 * float(np.sqrt(d / n))
        if not (cosine > least and accuracy > least):
            raise WrongAnswerError(f"cosine {cosine:.3f} and accuracy {accuracy:.3f}, expected above {least:.3f}")
        return {"cosine": cosine, "held_out_accuracy": accuracy}

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """Probes over the layers, induction heads, and taking them out; needs ``--model`` (RefusedError without)."""
        if context.model_path is None or context.open_session is None:
            raise RefusedError("an evaluation of probe reads a model's activations: give --model FILE")
        folder = context.data / "text" if context.data and (context.data / "text").is_dir() else None
        opener, path, threads = context.open_session, context.model_path, context.thread_count
        report, heads = induction(opener, path, thread_count=threads, seed=context.seed)
        found: dict[str, Any] = {
            "probes": [msgspec.to_builtins(s) for s in sweep(opener, path, folder, thread_count=threads)],
            "induction": msgspec.to_builtins(report),
        }
        try:
            taken_out = ablation(opener, path, heads, thread_count=threads, seed=context.seed)
            found["ablation"] = msgspec.to_builtins(taken_out)
        except RefusedError as error:  # a model without induction heads is a result
            found["ablation"] = str(error)
        return found
