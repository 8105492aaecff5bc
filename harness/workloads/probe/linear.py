"""A linear probe: logistic regression by Newton's method, its held-out accuracy, a baseline and a control.

Minimise mean over tokens of log(1 + exp(-s (w x + b))) + l2 / 2 |w|^2, s = +-1, x standardised with the training set's
mean and deviation. The problem is convex and a step solves a dim x dim system, so some ten steps end at the optimum.

Accuracy alone says little: a probe of many dimensions can memorise words. Beside it stand the share of the majority
class, a rule that knows only the token itself (its majority label in training), and a control task: each token id gets
a random label, with the same share of ones. Selectivity is accuracy minus control accuracy. Source: Hewitt and Liang
2019, "Designing and interpreting probes with control tasks", arXiv:1909.03368.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.domain.base import Frozen
from harness.errors import RefusedError
from harness.stats.intervals import cluster_interval, share_interval
from harness.stats.logistic import logistic

Floats = NDArray[np.float32]
Labels = NDArray[np.bool_]

_STEP_COUNT: Final = 25
_TOLERANCE: Final = 1e-5
RESAMPLE_COUNT: Final = 1000


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """label = weights x + bias > 0, on activations as they are; weights [dim]."""

    weights: NDArray[np.float64]
    bias: float

    def predict(self, x: Floats) -> Labels:
        """Labels [token_count]."""
        said: Labels = x @ self.weights + self.bias > 0
        return said


def fit(x: Floats, labels: Labels, *, l2: float = 1e-2) -> LinearProbe:
    """Train on activations [token_count, dim] and labels of both kinds; else, or where lengths differ, RefusedError."""
    if len(x) != len(labels) or not 0 < np.count_nonzero(labels) < len(labels):
        raise RefusedError(f"a probe needs labels of both kinds, one for each of {len(x)} tokens")
    mean = x.mean(axis=0, dtype=np.float64)
    deviation = np.maximum(x.std(axis=0, dtype=np.float64), 1e-9)
    n, d = x.shape
    design = np.ones((n, d + 1))
    design[:, :d] = (x - mean) / deviation
    penalty = np.full(d + 1, l2)
    penalty[d] = 0.0
    w = logistic(design, labels, penalty, tolerance=_TOLERANCE, step_count=_STEP_COUNT)
    weights = w[:d] / deviation
    return LinearProbe(weights, float(w[d] - mean @ weights))


class Accuracy(Frozen, frozen=True, kw_only=True):
    """Share of held-out tokens with the right label, and its 95 % interval."""

    mid: float
    low: float
    high: float
    token_count: int


class ProbeReport(Frozen, frozen=True, kw_only=True):
    """One property on one layer.

    Attributes:
        accuracy: Of the probe, held out; the interval resamples whole windows, since neighbours are alike.
        balanced_accuracy: Mean of the shares found among ones and among zeros.
        majority: Accuracy of always saying the label that is commoner in training.
        token_rule: Accuracy of each token's own commoner label in training.
        control: Accuracy of a probe for random labels of token ids.
        shuffled: Accuracy, against the true labels, of a probe trained on labels in random order.
        selectivity: ``accuracy`` - ``control``.
        beats_majority: Whether the interval of ``accuracy`` lies above ``majority``.
    """

    name: str
    train_tokens: int
    accuracy: Accuracy
    balanced_accuracy: float
    majority: float
    token_rule: float
    control: Accuracy
    shuffled: float
    selectivity: float
    beats_majority: bool


class Rows(Frozen, frozen=True, kw_only=True):
    """Activations [token_count, dim], token ids, labels and the window of each row."""

    x: NDArray[np.float32]
    tokens: NDArray[np.int64]
    labels: NDArray[np.bool_]
    windows: NDArray[np.int64]


def accuracy_of(right: Labels, windows: NDArray[np.int64], *, seed: int = 1) -> Accuracy:
    """Share of True with an interval from resampling whole windows; Wilson's where there are fewer than ten windows."""
    _, owner = np.unique(windows, return_inverse=True)
    hits = np.bincount(owner, weights=right)
    sizes = np.bincount(owner)
    found = (
        share_interval(int(right.sum()), len(right))
        if len(sizes) < 10
        else cluster_interval(hits, sizes, draws=RESAMPLE_COUNT, seed=seed)
    )
    return Accuracy(mid=found.mid, low=found.low or 0.0, high=found.high or 0.0, token_count=len(right))


def control_labels(tokens: NDArray[np.int64], share: float, seed: int) -> Labels:
    """A random label for each token id, the same wherever it stands; True for about ``share`` of the rows."""
    ids, owner, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(ids))
    chosen = np.zeros(len(ids), np.bool_)
    # Ids in random order until the rows they cover are enough: frequent ids would overshoot, and are passed over.
    covered, wanted = 0, share * len(tokens)
    for index in order:
        if covered + counts[index] <= wanted:
            chosen[index] = True
            covered += int(counts[index])
    labels: Labels = chosen[owner]
    return labels


def token_rule(train: Rows, held_out: Rows) -> Labels:
    """What each token's own commoner label in training says; unseen tokens get the majority."""
    top = int(max(train.tokens.max(), held_out.tokens.max())) + 1
    ones = np.bincount(train.tokens, weights=train.labels, minlength=top)
    count = np.bincount(train.tokens, minlength=top)
    majority = np.mean(train.labels) > 0.5
    said: Labels = np.where(count > 0, ones * 2 > count, majority)[held_out.tokens]
    return said


def report(name: str, train: Rows, held_out: Rows, *, seed: int = 1) -> ProbeReport:
    """Train a probe and everything it must be compared with; RefusedError where all labels of one part are alike."""
    if not 0 < np.count_nonzero(held_out.labels) < len(held_out.labels):
        raise RefusedError(f"{name}: all held-out labels are alike")
    right = fit(train.x, train.labels).predict(held_out.x) == held_out.labels
    accuracy = accuracy_of(right, held_out.windows, seed=seed)
    share = float(np.mean(train.labels))
    # One draw for both parts: a token id must have the same label in training and held out.
    both = control_labels(np.concatenate([train.tokens, held_out.tokens]), share, seed)
    first, later = both[: len(train.tokens)], both[len(train.tokens) :]
    control = accuracy_of(fit(train.x, first).predict(held_out.x) == later, held_out.windows, seed=seed)
    mixed = np.random.default_rng(seed).permutation(train.labels)
    shuffled = float(np.mean(fit(train.x, mixed).predict(held_out.x) == held_out.labels))
    majority = float(np.mean(held_out.labels == (share > 0.5)))
    return ProbeReport(
        name=name,
        train_tokens=len(train.labels),
        accuracy=accuracy,
        balanced_accuracy=float((np.mean(right[held_out.labels]) + np.mean(right[~held_out.labels])) / 2),
        majority=majority,
        token_rule=float(np.mean(token_rule(train, held_out) == held_out.labels)),
        control=control,
        shuffled=shuffled,
        selectivity=accuracy.mid - control.mid,
        beats_majority=accuracy.low > majority,
    )
