"""Scores that several systems give: F1 with an interval, and what answering only when sure would gain."""

from collections.abc import Sequence
from statistics import harmonic_mean, mean
from typing import Any

import numpy as np

from harness.arrays import Doubles
from harness.stats.calibration.metrics import accuracy_at, aurc, ece
from harness.stats.intervals import RESAMPLES, binomial_test, share_interval
from harness.stats.logistic import platt


def share(right_count: int, count: int) -> dict[str, Any]:
    """A share, ``mid``, with its 95 % interval (Wilson), ``low`` to ``high``; None where there are no cases."""
    estimate = share_interval(right_count, count)
    return {"mid": estimate.mid if count else None, "low": estimate.low, "high": estimate.high, "count": count}


def signal(right_count: int, count: int, chance: float = 0.5) -> dict[str, Any]:
    """A share with its interval, the exact two-sided p against chance, and what may be said of it at 5 %."""
    p = binomial_test(right_count, count, chance)
    side = "better than chance" if right_count > chance * count else "worse than chance"
    return share(right_count, count) | {"p": p, "says": side if p <= 0.05 else "no signal"}


def f1(said: Sequence[bool], true: Sequence[bool]) -> dict[str, Any]:
    """Precision, recall and F1 of "yes", F1 with its 95 % bootstrap interval, beside F1 of always saying yes."""
    table = np.array([said, true], np.bool_)
    count, (said_count, true_count) = table.shape[1], table.sum(axis=1).tolist()
    both = int(table.all(axis=0).sum())
    # Cases of one kind are alike: drawing them with replacement is drawing how many there are of each kind.
    kinds = np.array([both, said_count - both, true_count - both, count - said_count - true_count + both])
    drawn = np.random.default_rng(0).multinomial(count, kinds / max(1, count), RESAMPLES)

    def of(counts: Any) -> Any:
        return 2 * counts[..., 0] / np.maximum(2 * counts[..., 0] + counts[..., 1] + counts[..., 2], 1)

    return {
        "case_count": count,
        "precision": both / max(1, said_count),
        "recall": both / max(1, true_count),
        "f1": _with_interval(float(of(kinds)), of(drawn)),
        "always_yes_f1": 2 * true_count / max(1, count + true_count),
    }


def process_f1(located: Sequence[float], accepted: Sequence[float]) -> dict[str, Any]:
    """ProcessBench's F1 with its bootstrap interval, of traces with an error and of right ones, each a share of hits.

    The harmonic mean of errors located at the very step and of right traces accepted; None where one kind is missing.
    Source: Zheng et al. 2024, "ProcessBench: Identifying Process Errors in Mathematical Reasoning" (arXiv:2412.06559).
    """
    counts = {"wrong_count": len(located), "right_count": len(accepted)}
    if not (len(located) and len(accepted)):
        return counts | {"f1": None}
    rng = np.random.default_rng(0)
    means = {"located": mean(located), "accepted": mean(accepted)}
    drawn = [rng.choice(np.array(part), (RESAMPLES, len(part))).mean(axis=1) for part in (located, accepted)]
    scores = 2 * np.prod(drawn, axis=0) / np.maximum(np.sum(drawn, axis=0), 1e-12)
    return counts | means | {"f1": _with_interval(harmonic_mean(means.values()), scores)}


def _with_interval(middle: float, drawn: Doubles) -> dict[str, float]:
    """A figure with its 95 % bootstrap interval."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"mid": middle, "low": float(low), "high": float(high)}


def selection(confidences: Sequence[float], right: Sequence[bool]) -> dict[str, Any]:
    """Calibrated abstention: confidences scaled by halves (Platt, each half by the other), risk against coverage.

    ``gain`` is the accuracy of the surer half minus that of all; None below 20 cases or without cases of both kinds in
    each half.
    """
    p, y = np.array(confidences, np.float64), np.array(right, np.bool_)
    halves = np.arange(len(p)) % 2 == 0
    if len(p) < 20 or any(y[part].all() or not y[part].any() for part in (halves, ~halves)):
        return {"case_count": len(p), "gain": None}
    scaled = np.empty_like(p)
    for part in (halves, ~halves):
        scaled[part] = platt(p[~part], y[~part])(p[part])
    coverages = (0.25, 0.5, 0.75, 1.0)
    curve = {str(c): 1 - accuracy_at(scaled, y, c) for c in coverages}
    return {
        "case_count": len(p),
        "accuracy": float(y.mean()),
        "risk_at_coverage": curve,
        "aurc": aurc(scaled, y),
        "aurc_at_random": 1 - float(y.mean()),
        "ece": ece(scaled, y),
        "gain": curve["1.0"] - curve["0.5"],
    }
