"""Calibration as a system: how far confidences are from how often they are right, by three figures of many rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import RefusedError, WrongAnswerError
from harness.stats.calibration import metrics, smooth
from harness.workloads.system import Answers, Case, Cases, Cost, Costs, Figures, PartNames, Size, System

_SETS = 12
_TOLERANCE_SIGMAS = 5
FEWEST_ROWS = 200
"""Below so many rows an ECE is noise: ten bins of perfectly calibrated data give 0.066 at 200."""


class CalibrationSystem(System, table="calibration"):
    """ECE, smooth ECE and AURC of sets of confidences.

    The built-in sets draw outcomes with the probability ``confidence ** 1.5``, so that their ECE is known but for the
    noise of the draw.
    """

    def cases(self, size: Size, seed: int) -> Cases:
        """Sets of rows whose ECE is planted."""
        rng = np.random.default_rng(seed)
        made = []
        for _ in range(_SETS):
            confidences = rng.beta(4, 2, size["row_count"])
            outcomes = rng.random(size["row_count"]) < confidences**1.5
            implied = float(np.mean(confidences - confidences**1.5))
            made.append({"confidences": confidences, "outcomes": outcomes, "implied_ece": implied})
        return made

    def step(self, state: Any, case: Case) -> Any:
        """The figures of one set."""
        confidences, outcomes = _array(case, "confidences", np.float64), _array(case, "outcomes", np.bool_)
        if len(confidences) < FEWEST_ROWS:
            raise RefusedError(f"{len(confidences)} rows: below {FEWEST_ROWS} an ECE is noise")
        return {
            "ece": metrics.ece(confidences, outcomes),
            "smooth_ece": smooth.smooth_ece(confidences, outcomes),
            "aurc": metrics.aurc(confidences, outcomes),
            "brier": float(np.mean((confidences - outcomes) ** 2)),
            "row_count": len(confidences),
        }

    def cost(self, parts: PartNames, size: Size) -> Costs:
        """Passes over columns of doubles, counted by what they take: half a microsecond a row on the reference core."""
        count = size["row_count"]
        return {"step": Cost(resident_bytes=110 * count, glue_s=2.0e-3 + 6.4e-7 * count)}

    def score(self, cases: Cases, answers: Answers) -> Figures:
        """Means over the sets, weighted by their rows, and the largest distance from a planted ECE.

        Raises:
            WrongAnswerError: An ECE is further from the planted one than the draw explains.
        """
        counts = [answer["row_count"] for answer in answers]
        means = {key: float(np.average([a[key] for a in answers], weights=counts)) for key in answers[0]}
        del means["row_count"]
        planted = [(a, case["implied_ece"]) for a, case in zip(answers, cases, strict=True) if "implied_ece" in case]
        if planted:
            gaps = [abs(answer["ece"] - implied) for answer, implied in planted]
            allowed = max(_TOLERANCE_SIGMAS * 0.5 / answer["row_count"] ** 0.5 for answer, _ in planted)
            if max(gaps) > allowed:
                raise WrongAnswerError(
                    f"an ECE is {max(gaps):.4f} from the one that is known, allowed are {allowed:.4f}"
                )
            means["largest_gap_to_planted_ece"] = max(gaps)
        return means


def _array(case: Case, name: str, dtype: Any) -> NDArray[Any]:
    try:
        return np.asarray(case[name], dtype)
    except (ValueError, TypeError) as error:
        raise RefusedError(f"{name}: {error}") from error


SYSTEM = CalibrationSystem()
