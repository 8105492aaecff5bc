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

        ECE: 20 passes (checks, bins, edges by index, three bincounts). Smooth ECE: at most 13 widths of 2 x 16
        passes. AURC: a merge sort of n log2 n moves of 16 bytes and 12 passes.
        """
        n = size["row_count"]
        column, depth = 8.0 * n, log2(n)
        fixed: dict[str, Any] = {"resident_bytes": 24 * 8 * n, "parallel": False, "dtype": "fp32"}
        return (
            Cost(operation="ece", flops_count=30.0 * n, moved_bytes=20 * column, call_overhead_s=1e-4, **fixed),
            Cost(
                operation="smooth ece", flops_count=400.0 * n, moved_bytes=400 * column, call_overhead_s=5e-3, **fixed
            ),
            Cost(
                operation="aurc",
                flops_count=2.0 * n * depth,
                moved_bytes=(12 + 2 * depth) * column,
                call_overhead_s=1e-4,
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
