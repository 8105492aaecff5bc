"""Answer only when sure: risk against coverage."""

from math import ceil, inf, log
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.calibration.metrics import Floats, checked


class RiskCoverage(NamedTuple):
    """Share answered and share wrong among those, from the surest row on; one point for each distinct confidence."""

    coverage: Floats
    risk: Floats
    threshold: Floats


def risk_coverage(confidences: ArrayLike, correct: ArrayLike, *, allow_few: bool = False) -> RiskCoverage:
    """The curve: with threshold t every row with confidence >= t is answered; equal ones go together."""
    p, y = checked(confidences, correct, allow_few=allow_few)
    order = np.argsort(-p, kind="stable")
    p, wrong = p[order], np.cumsum(1.0 - y[order])
    last = np.flatnonzero(np.append(p[1:] != p[:-1], True))
    count = last + 1.0
    return RiskCoverage(count / len(p), wrong[last] / count, p[last])


def aurc(confidences: ArrayLike, correct: ArrayLike, *, allow_few: bool = False) -> float:
    """Area under the curve: mean over rows of the risk at that row's own confidence (Geifman et al. 2019)."""
    curve = risk_coverage(confidences, correct, allow_few=allow_few)
    return float(np.diff(curve.coverage, prepend=0.0) @ curve.risk)


def accuracy_at(confidences: ArrayLike, correct: ArrayLike, coverage: float, *, allow_few: bool = False) -> float:
    """Accuracy among the surest rows that make up at least ``coverage`` of all."""
    curve = risk_coverage(confidences, correct, allow_few=allow_few)
    at = int(np.searchsorted(curve.coverage, coverage - 1e-12))
    return float(1.0 - curve.risk[min(at, len(curve.risk) - 1)])


def answer_threshold(
    confidences: ArrayLike, correct: ArrayLike, risk: float, *, doubt: float = 0.1, allow_few: bool = False
) -> float:
    """Lowest confidence to answer at so that, with probability 1 - ``doubt``, at most ``risk`` of the answers is wrong.

    From the surest rows on, thresholds are tested one after another until one fails: with n rows at or above the
    threshold and k of them wrong, P(Binomial(n, risk) <= k) <= doubt lets it pass. The sequence begins where rows
    without a mistake could pass, n = log(doubt) / log(1 - risk); tests in a fixed order need no correction for their
    number. Source: Angelopoulos et al. 2021, "Learn then Test", section on fixed-sequence testing.

    Returns:
        The threshold; infinite where none passes: then nothing may be answered.
    """
    from scipy.special import bdtr

    p, y = checked(confidences, correct, allow_few=allow_few)
    curve = risk_coverage(p, y, allow_few=True)
    least = ceil(log(doubt) / log(1 - risk))
    found = inf
    for coverage, share, threshold in zip(curve.coverage, curve.risk, curve.threshold, strict=True):
        n = round(coverage * len(p))
        if n < least:
            continue
        if bdtr(round(share * n), n, risk) > doubt:
            break
        found = float(threshold)
    return found
