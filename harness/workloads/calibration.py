"""Calibration as a workload: the metrics on a given number of rows."""

from collections.abc import Mapping, Sequence
from math import log2
from typing import Any, Final

import numpy as np

from harness.domain.workload import Cost, new_page_bytes
from harness.errors import WrongAnswerError
from harness.ports import Operation, WorkloadContext
from harness.stats.calibration import metrics, selective, smooth
from harness.workloads._described import Described

_CHUNK: Final = 32_768
"""Rows that the ECE looks at together."""


State = tuple[Any, Any]
"""Confidences and outcomes; outcomes are drawn with the probability ``confidence ** 1.5``."""


class CalibrationWorkload(Described):
    """ECE, smooth ECE and AURC of many rows."""

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Passes over columns of n doubles (8 n bytes, c of them), counted from the code line by line.

        Reading the rows: outcomes made doubles, the least and the largest confidence. ECE, in chunks of 32,768 rows:
        place, bin (a cast), distance from an edge (4 passes), where it is small, both histograms and what they ask of
        their input. Smooth ECE: 12 widths (one, ten halvings, the last) of two smoothings, each with place, a cast,
        a clip, a share (casts again), four products or sums, two histograms; three transforms of some 4,050 points and
        some twenty passes over such a grid; a kernel of 1,001 points. AURC: a stable sort, a running sum, four columns
        picked by an index, and the passes of its lines.
        """
        n = size["row_count"]
        c = 8.0 * n
        chunk, chunks = 8.0 * min(n, _CHUNK), -(-n // _CHUNK)
        smoothings, grid = 24, 4096
        reading = 18.0 * n + 2 * c

        def held(count: float, more: float = 0.0) -> float:
            """Bytes of so many columns at once, where their pages are new in each call; of ``more`` beside them."""
            return new_page_bytes(count * c + more, c)

        return (
            Cost(
                operation="ece",
                resident_bytes=round(9 * n + 8 * n + 4 * chunk),
                # 2 + 4 + 2 + 3 + 2 columns, one of them of bytes; ``at *= 2``, ``at += outcome`` and three histograms.
                pass_bytes=reading + 196.0 * n,
                pass_set_bytes=4 * chunk,
                fresh_bytes=held(1, 4 * chunk),
                array_steps_count=2.0 * n,
                numpy_calls_count=25 + 12.0 * chunks,
                python_ops_count=360 + 218.0 * chunks,
                parallel=False,
            ),
            Cost(
                operation="smooth ece",
                resident_bytes=round(9 * n + 9 * c),
                pass_bytes=reading + 6 * c + smoothings * (29.5 * c + 20 * 16.0 * grid),
                pass_set_bytes=8 * c,
                # Two columns of each width but the last, as page faults tell: others lie below a grid that is held.
                fresh_bytes=(smoothings - 2) * (held(9) and c),
                array_steps_count=smoothings * (500 + 2.0 * n + 0.75 * grid * log2(grid)),
                numpy_calls_count=smoothings * 40.0,
                python_ops_count=smoothings * 4250.0,
                parallel=False,
            ),
            Cost(
                operation="aurc",
                resident_bytes=round(9 * n + 12 * c),
                pass_bytes=reading + 252.0 * n,
                pass_set_bytes=12 * c,
                fresh_bytes=held(12),
                array_steps_count=6.5 * n + 3 * n * log2(n),
                numpy_calls_count=30,
                python_ops_count=812,
                parallel=False,
            ),
        )

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Draw rows."""
        rng = np.random.default_rng(context.seed)
        confidences = rng.beta(4, 2, size["row_count"])
        return confidences, rng.random(size["row_count"]) < confidences**1.5

    def operations(self, state: State) -> Sequence[Operation]:
        """One metric each."""
        p, y = state
        return (
            Operation("ece", lambda: metrics.ece(metrics.equal_width(p, y))),
            Operation("smooth ece", lambda: smooth.smooth_ece(p, y)),
            Operation("aurc", lambda: selective.aurc(p, y)),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """The ECE equals a plain sum over each bin's rows; all figures are near what the drawing rule implies."""
        p, y = state
        ece = metrics.ece(metrics.equal_width(p, y))
        at = np.searchsorted(np.arange(1, 10) / 10, p, side="right")
        plain = sum(abs(float(np.sum(p[at == b] - y[at == b]))) for b in range(10)) / len(p)
        if abs(ece - plain) > 1e-12:
            raise WrongAnswerError(f"ECE {ece!r} is not the plain sum's {plain!r}")
        implied = float(np.mean(p - p**1.5))
        tolerance = 4 / np.sqrt(len(p))
        if abs(ece - implied) > tolerance:
            raise WrongAnswerError(f"ECE {ece:.4f}, but the rows were drawn for {implied:.4f}")
        return {
            "ece": ece,
            "implied_ece": implied,
            "smooth_ece": smooth.smooth_ece(p, y),
            "brier": float(np.mean((p - y) ** 2)),
            "aurc": selective.aurc(p, y),
        }


WORKLOAD = CalibrationWorkload("calibration")
