"""What a change of a model does to its calibration: both models' answers to the same rows, side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.domain.base import Frozen
from harness.workloads._language.confidence import TokenScores, at_temperature, best_temperature, part
from harness.workloads.calibration.metrics import ece, equal_width
from harness.workloads.calibration.paired import PairedReport, compare, smooth_change
from harness.workloads.calibration.smooth import smooth_ece


class Triple(Frozen, frozen=True, kw_only=True):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class Temperature(Frozen, frozen=True, kw_only=True):
    """A temperature fitted on the first half of the rows, judged on the second.

    Attributes:
        temperature: The fitted one; above 1: the model was too sure.
        ece: Of the second half as it is.
        ece_scaled: Of the second half at that temperature.
        nll: Of the second half as it is.
        nll_scaled: Of the second half at that temperature.
    """

    temperature: float
    ece: float
    ece_scaled: float
    nll: float
    nll_scaled: float


class Calibration(Frozen, frozen=True, kw_only=True):
    """Calibration of one model on one kind of rows, beside the reference's.

    Differences are this model minus the reference, with 95 % intervals from a bootstrap over the rows.

    Attributes:
        row_count: Rows.
        accuracy: Share of right answers.
        mean_confidence: Mean confidence.
        ece: Expected calibration error, ten bins.
        smooth_ece: Smooth ECE.
        nll: Mean negative log-likelihood, nats.
        nll_change: Paired difference.
        ece_change: Difference.
        smooth_ece_change: Difference.
        accuracy_change: Paired difference.
        lost_count: Rows the reference had right and this one has wrong.
        gained_count: The other way round.
        temperature: None where only the options were scored.
    """

    row_count: int
    accuracy: float
    mean_confidence: float
    ece: float
    smooth_ece: float
    nll: float
    nll_change: Triple
    ece_change: Triple
    smooth_ece_change: Triple
    accuracy_change: Triple
    lost_count: int
    gained_count: int
    temperature: Temperature | None = None


def scaled(tokens: TokenScores) -> Temperature:
    """Fit a temperature on the first half of the rows, judge it on the second."""
    half = len(tokens.nll) // 2
    fitted = best_temperature(part(tokens, slice(half)))
    held = part(tokens, slice(half, None))
    confidence, loss = at_temperature(held, fitted)
    return Temperature(
        temperature=fitted,
        ece=ece(equal_width(held.top_probability, held.is_top_right, allow_few=True)),
        ece_scaled=ece(equal_width(np.minimum(confidence, 1.0), held.is_top_right, allow_few=True)),
        nll=float(held.nll.mean()),
        nll_scaled=float(loss.mean()),
    )


def calibration_change(
    before: Sequence[Any], after: Sequence[Any], temperature: Temperature | None = None
) -> Calibration:
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
    return Calibration(
        row_count=paired.row_count,
        accuracy=float(np.mean(right)),
        mean_confidence=float(np.mean(confidence)),
        ece=ece(equal_width(confidence, right, allow_few=True)),
        smooth_ece=smooth_ece(confidence, right, allow_few=True),
        nll=float(np.mean(loss)),
        nll_change=Triple(**paired.nll._asdict()),
        ece_change=Triple(**paired.ece._asdict()),
        smooth_ece_change=Triple(**smooth_change(tuple(before[:2]), tuple(after[:2]))._asdict()),
        accuracy_change=Triple(**paired.accuracy._asdict()),
        lost_count=paired.lost_count,
        gained_count=paired.gained_count,
        temperature=temperature,
    )
