"""What a change of a model does to its calibration: both models' answers to the same rows, side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.domain.quality import CalibrationChange, Change, Temperature
from harness.stats.calibration.metrics import ece, equal_width
from harness.stats.calibration.paired import PairedReport, compare, smooth_change
from harness.stats.calibration.smooth import smooth_ece


def calibration_change(
    before: Sequence[Any], after: Sequence[Any], temperature: Temperature | None = None
) -> CalibrationChange:
    """Calibration of ``after`` beside ``before``.

    Args:
        before: Of the reference: confidence of the top answer, whether it was right, NLL of the true one in nats; each
            [n].
        after: The same of the other model, rows in the same order.
        temperature: To be kept with the rest.

    Raises:
        RefusedError: The two did not answer the same rows.
    """
    confidence, right, loss = after
    paired: PairedReport = compare(tuple(before), tuple(after), allow_few=True)
    return CalibrationChange(
        row_count=paired.row_count,
        accuracy=float(np.mean(right)),
        mean_confidence=float(np.mean(confidence)),
        ece=ece(equal_width(confidence, right, allow_few=True)),
        smooth_ece=smooth_ece(confidence, right, allow_few=True),
        nll=float(np.mean(loss)),
        nll_change=Change(**paired.nll._asdict()),
        ece_change=Change(**paired.ece._asdict()),
        smooth_ece_change=Change(**smooth_change(tuple(before[:2]), tuple(after[:2]))._asdict()),
        accuracy_change=Change(**paired.accuracy._asdict()),
        lost_count=paired.lost_count,
        gained_count=paired.gained_count,
        temperature=temperature,
    )
