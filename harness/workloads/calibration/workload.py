"""Calibration as a workload: the metrics on a given number of rows."""

from collections.abc import Mapping, Sequence
from math import log2
from typing import Any, NamedTuple

import numpy as np

from harness.domain.workload import Cost
from harness.errors import WrongAnswerError
from harness.ports import Operation, WorkloadContext


class State(NamedTuple):
    """Confidences and outcomes; outcomes are drawn with the probability ``confidence ** 1.5``."""

    confidences: Any
    correct: Any


class CalibrationWorkload:
    """ECE, smooth ECE and AURC of many rows."""

    name = "calibration"
    title = "Calibration: ECE, smooth ECE, risk-coverage of confidences"
    extra = ""
    needs_model = False
    sizes: Mapping[str, Mapping[str, int]] = {
        "small": {"row_count": 10_000},
        "default": {"row_count": 100_000},
        "large": {"row_count": 1_000_000},
    }

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Passes over columns of n doubles, counted from the code.

        ECE: 15 passes and two bincounts. Smooth ECE: 12 widths (one, ten halvings, the last) of two smoothings, each
        12 passes and two bincounts of the rows, three transforms of 4,096 points (2.5 N log2 N steps each) and a kernel
        of 1,001 points. AURC: a stable sort, 21 passes, four columns picked by an index.
        """
        n = size["row_count"]
        depth = log2(n)
        fixed: dict[str, Any] = {
            "flops_count": 0.0,
            "working_set_bytes": 24.0 * n,
            "resident_bytes": 24 * 8 * n,
            "parallel": False,
        }
        large = 8.0 * n if 8 * n >= 1 << 17 else 0.0
        chunks, widths, transform = -(-n // 32_768), 12, 2.5 * 4096 * 12
        return (
            Cost(
                operation="ece",
                moved_bytes=17 * 8.0 * n,
                fresh_bytes=7 * large,  # a chunk's temporaries
                elements_count=15.0 * n,
                gathers_count=2.0 * n,
                numpy_calls_count=25 + 15.0 * chunks,
                python_ops_count=350 + 160.0 * chunks,
                **fixed,
            ),
            Cost(
                operation="smooth ece",
                moved_bytes=widths * 29 * 8.0 * n,
                fresh_bytes=widths * 2 * 11 * large,
                elements_count=widths * (25.0 * n + 2 * 3 * transform),
                transcendentals_count=widths * 2 * 1001.0,
                gathers_count=widths * 4.0 * n,
                numpy_calls_count=widths * 2 * 40.0,
                python_ops_count=widths * 2 * 1400.0,
                **fixed,
            ),
            Cost(
                operation="aurc",
                moved_bytes=(25 + 2 * depth) * 8.0 * n,
                fresh_bytes=17 * large,
                elements_count=21.0 * n,
                gathers_count=4.0 * n,
                sort_steps_count=n * depth,
                numpy_calls_count=30,
                python_ops_count=680,
                **fixed,
            ),
        )

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Draw rows."""
        rng = np.random.default_rng(context.seed)
        confidences = rng.beta(4, 2, size["row_count"])
        return State(confidences, rng.random(size["row_count"]) < confidences**1.5)

    def operations(self, state: State) -> Sequence[Operation]:
        """One metric each."""
        from harness.workloads.calibration import metrics, selective, smooth

        p, y = state
        return (
            Operation("ece", lambda: metrics.ece(metrics.equal_width(p, y))),
            Operation("smooth ece", lambda: smooth.smooth_ece(p, y)),
            Operation("aurc", lambda: selective.aurc(p, y)),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """The ECE equals the seed's loop; all figures are near the ones that the drawing rule implies."""
        from harness.workloads.calibration import metrics, selective, smooth
        from harness.workloads.calibration.seed_baseline import compute_calibration_error

        p, y = state
        ece = metrics.ece(metrics.equal_width(p, y))
        loop = compute_calibration_error([True] * len(p), p.tolist(), y.tolist())
        if abs(ece - loop) > 1e-12:
            raise WrongAnswerError(f"ECE {ece!r} is not the plain loop's {loop!r}")
        implied = float(np.mean(p - p**1.5))
        tolerance = 4 / np.sqrt(len(p))
        if abs(ece - implied) > tolerance:
            raise WrongAnswerError(f"ECE {ece:.4f}, but the rows were drawn for {implied:.4f}")
        return {
            "ece": ece,
            "implied_ece": implied,
            "smooth_ece": smooth.smooth_ece(p, y),
            "brier": metrics.brier(p, y),
            "aurc": selective.aurc(p, y),
        }
