"""Fit of the log-linear laws to published rows: robust, pooled, deterministic, numpy alone.

Minimises  sum_i w_i huber((ln t_i - ln f_i(theta)) / s) + sum_j ((theta_j - m_j) / d_j)^2 / 2  by Gauss-Newton with
step halving. The second sum pools: a term that few rows speak for stays near its prior, so families and apis
borrow from one another (ridge regression as a hierarchical model; Gelman & Hill 2006, ch. 12).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.predict.coefficients import Coefficient, Covariance
from harness.predict.decode import SMOOTHNESS, cap_slope, capped, features
from harness.predict.prefill import prefill_base, prefill_features, prefill_model
from harness.predict.priors import MEANS, prior_of
from harness.published.rows import Row

Array = NDArray[np.float64]
NOISE: Final = 0.08
"""s: spread of one measurement in ln t. The same chip differs by a multiple of it between sources."""
HUBER: Final = 1.5
"""Residuals beyond this many s count linearly."""


class Problem(NamedTuple):
    """Rows as arrays.

    Attributes:
        keys: Terms, sorted.
        designs: One matrix [rows, terms] for each law.
        target: ln of the measured time.
        weight: Weight of each row; one vote sums to 1.
        base: Physical quantities by name, each [rows].
        phase: ``decode`` or ``prefill``.
    """

    keys: tuple[str, ...]
    designs: dict[str, Array]
    target: Array
    weight: Array
    base: dict[str, Array]
    phase: str


def decode_problem(rows: Sequence[Row]) -> Problem:
    """Arrays of predictable decode rows."""
    listed = [features(r.work, r.machine) for r in rows if r.work is not None]
    keys, designs = _designs(listed)
    base = {
        "bytes": np.array([r.work.weight_bytes / r.machine.bandwidth_bytes_per_s for r in rows if r.work]),
        "count": np.array([r.work.weight_count / r.machine.traits.peak_flops_per_s for r in rows if r.work]),
        "kv": np.array([r.work.kv_bytes / r.machine.bandwidth_bytes_per_s for r in rows if r.work]),
        "layers": np.array([float(r.work.layer_count) for r in rows if r.work]),
    }
    return Problem(keys, designs, np.array([-np.log(r.tokens_per_s) for r in rows]), votes(rows), base, "decode")


def prefill_problem(rows: Sequence[Row]) -> Problem:
    """Arrays of predictable prefill rows."""
    listed, base = [], []
    for row in rows:
        if row.work is not None:
            listed.append(prefill_features(row.work, row.machine, row.prompt))
            base.append(prefill_base(row.work, row.machine, row.prompt))
    keys, designs = _designs(listed)
    target = np.array([np.log(r.prompt.tokens / r.tokens_per_s) for r in rows])
    columns = dict(zip(("weights", "attention"), np.array(base).T, strict=True))
    return Problem(keys, designs, target, votes(rows), columns, "prefill")


def problem_of(rows: Sequence[Row], phase: str) -> Problem:
    """Arrays of predictable rows of one phase."""
    return decode_problem(rows) if phase == "decode" else prefill_problem(rows)


def _designs(listed: Sequence[dict[str, tuple[tuple[str, float], ...]]]) -> tuple[tuple[str, ...], dict[str, Array]]:
    keys = tuple(sorted({key for laws in listed for terms in laws.values() for key, _ in terms}))
    index = {key: i for i, key in enumerate(keys)}
    designs = {law: np.zeros((len(listed), len(keys))) for law in (listed[0] if listed else ())}
    for row, laws in enumerate(listed):
        for law, terms in laws.items():
            for key, value in terms:
                designs[law][row, index[key]] += value
    return keys, designs


def votes(rows: Sequence[Row]) -> Array:
    """Weight of each row: 1 / rows of its vote; less for what the file itself does not trust.

    Least where trusted rows abound: dense models on everything but phones, and prompts.
    """
    count: dict[tuple[str, ...], int] = {}
    for row in rows:
        count[row.vote] = count.get(row.vote, 0) + 1
    many, few = {"A": 1.0, "B": 1.0, "C": 0.1, "D": 0.05}, {"A": 1.0, "B": 1.0, "C": 0.3, "D": 0.2}
    weights = []
    for row in rows:
        trust, doubted = (many, 0.1) if row.group in {"dense", "deep", "prefill"} else (few, 0.3)
        weight = trust.get(row.raw.get("trust", ""), trust["C"])
        weights.append(weight * (1 if row.excluded in {"", "moe"} else doubted) / count[row.vote])
    return np.array(weights)


def model(problem: Problem, theta: Array) -> tuple[Array, Array]:
    """Ln of the predicted time, [rows], and its Jacobian, [rows, terms]."""
    if problem.phase == "prefill":
        return prefill_model(problem.base, problem.designs, theta)
    d, b = problem.designs, problem.base
    a, e, c, k = (np.exp(d[name] @ theta) for name in ("overhead", "efficiency", "compute", "attention"))
    rate = capped(e)
    over, by_bytes, by_compute, kv = a * b["layers"], b["bytes"] / rate, c * b["count"], b["kv"] / (capped(k) * rate)
    both = (by_bytes**SMOOTHNESS + by_compute**SMOOTHNESS) ** (1 / SMOOTHNESS)
    total = over + both + kv
    share = both ** (1 - SMOOTHNESS)
    bytes_part, compute_part = by_bytes**SMOOTHNESS * share, by_compute**SMOOTHNESS * share
    jacobian = (
        over[:, None] * d["overhead"]
        - ((bytes_part + kv) * cap_slope(e))[:, None] * d["efficiency"]
        + compute_part[:, None] * d["compute"]
        - (kv * cap_slope(k))[:, None] * d["attention"]
    ) / total[:, None]
    return np.log(total), jacobian


def fit(
    problem: Problem,
    rows: NDArray[np.bool_] | None = None,
    start: Array | None = None,
    steps: int = 100,
    tolerance: float = 1e-4,
) -> Array:
    """Terms of the best fit on the rows marked (all by default), starting from ``start`` or the prior.

    The laws are smooth and every start ends in one minimum; a fit without some rows still starts from the prior, so
    that nothing of them remains where the cost is flat.
    """
    prior = [prior_of(key) for key in problem.keys]
    mean, precision = np.array([m for m, _ in prior]), np.array([d**-2.0 for _, d in prior])
    theta = mean.copy() if start is None else start.copy()
    keep = problem.weight * (1.0 if rows is None else rows)
    best = _cost(problem, theta, keep, mean, precision)
    for _ in range(steps):
        predicted, jacobian = model(problem, theta)
        residual = (problem.target - predicted) / NOISE
        w = keep * np.minimum(1.0, HUBER / np.maximum(np.abs(residual), 1e-9)) / NOISE**2
        hessian = (jacobian * w[:, None]).T @ jacobian + np.diag(precision)
        gradient = (jacobian * w[:, None]).T @ (problem.target - predicted) - precision * (theta - mean)
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 1.0 / max(np.abs(step).max(), 1e-9))
        scale = 1.0
        while scale > 1e-3:
            cost = _cost(problem, theta + scale * step, keep, mean, precision)
            if cost < best:
                break
            scale /= 2
        else:
            break
        gain, best, theta = best - cost, cost, theta + scale * step
        if gain < tolerance:
            break
    return theta


def _cost(problem: Problem, theta: Array, keep: Array, mean: Array, precision: Array) -> float:
    residual = np.abs((problem.target - model(problem, theta)[0]) / NOISE)
    loss = np.where(residual < HUBER, residual**2 / 2, HUBER * (residual - HUBER / 2))
    return float(keep @ loss + precision @ (theta - mean) ** 2 / 2)


def covariance(problem: Problem, theta: Array, rows: NDArray[np.bool_] | None = None) -> Array:
    """Posterior covariance of the terms: inverse curvature of the penalised fit on the rows marked."""
    _, jacobian = model(problem, theta)
    precision = np.array([prior_of(key)[1] ** -2.0 for key in problem.keys])
    weight = problem.weight * (1.0 if rows is None else rows) / NOISE**2
    return np.asarray(np.linalg.inv((jacobian * weight[:, None]).T @ jacobian + np.diag(precision)))


def without(problem: Problem, out: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Ln of the predicted time, and its standard error, of the rows marked by a fit that saw none of them."""
    theta = fit(problem, ~out)
    predicted, jacobian = model(problem, theta)
    part = jacobian[out]
    spread = np.sqrt(np.maximum(((part @ covariance(problem, theta, ~out)) * part).sum(axis=1), 0))
    return predicted[out], spread


def as_coefficients(problem: Problem, theta: Array) -> dict[str, Coefficient]:
    """Terms with the votes behind each and its standard error."""
    spread = np.sqrt(np.diag(covariance(problem, theta)))
    unseen = {"prefill": ("m", "h", "o"), "decode": ("a", "e", "c", "k")}[problem.phase]
    rest = {k: Coefficient(value=m) for k, m in MEANS.items() if k.partition("/")[0] in unseen}
    touched = np.any([np.abs(d) > 0 for d in problem.designs.values()], axis=0)
    return rest | {
        key: Coefficient(
            value=round(float(theta[i]), 5),
            rows_count=round(float(problem.weight[touched[:, i]].sum())),
            spread=round(float(spread[i]), 4),
        )
        for i, key in enumerate(problem.keys)
    }


def as_covariance(problem: Problem, theta: Array) -> Covariance:
    """What ``covariance`` says, as it is shipped: four significant digits."""
    matrix = covariance(problem, theta)
    lower = matrix[np.tril_indices(len(matrix))]
    return Covariance(keys=problem.keys, lower=tuple(float(f"{x:.3e}") for x in lower))
