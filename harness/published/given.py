"""What a few measurements of a machine tell of the rest: the same Bayesian update that the fit is made of."""

import random
from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace

from harness.predict.coefficients import NOISE, Coefficient, Coefficients, Covariance, noise_class
from harness.predict.decode import decode_gradient, decode_seconds
from harness.predict.prefill import prefill_gradient, prefill_seconds
from harness.predict.terms import kind_of, prior_of
from harness.published import fitting
from harness.published.leaving_out import fitted, judge_left_out
from harness.published.rows import Row, is_trusted, predictable
from harness.published.validation import Judged

UPDATES: Final = 4
"""Linearisations; the law is close to linear in its terms, and the third changes nothing visible."""
LEAST_MODELS: Final = 3
"""Models that a chip must have been measured with to be judged."""


def posterior(coefficients: Coefficients, rows: Sequence[Row]) -> Coefficients:
    """What is believed of one machine after some rows of it.

    With prior theta ~ N(m, S) and rows z = f(theta) + noise of width n, linearised at theta:

        K = S J' (J S J' + n^2)^-1,    theta = m + K (z - f(theta) + J (theta - m)),    S' = S - K J S

    (the iterated Kalman update; Bell & Cathey 1993). All terms that hang together move: what one type at one depth
    tells of a chip goes to its other types, depths and prompts. How its owner measures is part of the machine from then
    on, so the result is for this machine alone.

    Args:
        coefficients: Belief before.
        rows: Predictable rows of the machine, of decode, prefill or both.

    Raises:
        ValueError: No row is predictable.
    """
    found = predictable(rows)
    if not found:
        raise ValueError("no row has what a prediction needs: " + ", ".join(sorted({r.reason for r in rows})))
    values = dict(coefficients.values)
    listed = [_gradient(row, values) for row in found]
    keys = sorted({*coefficients.covariance.keys, *(key for one in listed for key in one)})
    mean = np.array([values.get(key, prior_of(key)[0]) for key in keys])
    before = coefficients.covariance_of(keys)
    for i, key in enumerate(keys):
        letter, _, side = kind_of(key).partition("/chip ")
        if side == found[0].machine.side and letter in {"s", "g"}:
            before[i, i] += prior_of(f"{letter}/source {side}:", coefficients.widths)[1] ** 2
    noise = [coefficients.noise.get(noise_class(row.phase, row.machine), NOISE) for row in found]
    target, theta, gain, jacobian = np.array([_target(row) for row in found]), mean, before, before
    for _ in range(UPDATES):
        values |= dict(zip(keys, map(float, theta), strict=True))
        listed = [_gradient(row, values) for row in found]
        jacobian = np.array([[one.get(key, 0.0) for key in keys] for one in listed])
        carried = before @ jacobian.T
        gain = np.linalg.solve(jacobian @ carried + np.diag(np.square(noise)), carried.T).T
        predicted = np.array([_ln_t(row, values) for row in found])
        theta = mean + gain @ (target - predicted + jacobian @ (theta - mean))
    after = before - gain @ jacobian @ before
    spread = np.sqrt(np.maximum(np.diag(after), 1e-12))
    terms = dict(coefficients.terms)
    for i, key in enumerate(keys):
        old = terms.get(key, Coefficient(value=0.0))
        terms[key] = Coefficient(value=float(theta[i]), rows_count=old.rows_count, spread=float(spread[i]))
    for phase in {row.phase for row in found}:
        source = f"{'s' if phase == 'decode' else 'g'}/source {found[0].machine.side}:"
        terms[source] = Coefficient(value=0.0, rows_count=len(found))
    return replace(coefficients, terms=terms, covariance=Covariance.of(keys, after))


def leave_out_given(rows: Sequence[Row], count: int, seed: int = 0) -> list[Judged]:
    """Each chip's rows by a fit that saw no other row of it than some; at least ``LEAST_MODELS`` models a chip.

    Args:
        rows: Published measurements.
        count: Measurements given of each chip and api: decode of a model in a quantisation, and its prompt where there
            is one.
        seed: Of the choice.
    """
    whole = fitted(rows)
    machines = [f"{row.chip}|{row.machine.api}" for row in whole.rows]
    at: list[int] = []
    predicted, variance = [], []
    for name in sorted(set(machines)):
        own = [i for i, one in enumerate(machines) if one == name and is_trusted(whole.rows[i])]
        kept = {own[i] for i in _chosen([whole.rows[i] for i in own], count, random.Random(f"{seed} {name}"))}
        out = np.array([one == name and i not in kept for i, one in enumerate(machines)])
        if len({whole.rows[i].raw["model"] for i in own}) >= LEAST_MODELS and kept and out.any():
            ln_t, of = fitting.without(whole.problem, whole.fit, out)
            at += map(int, np.flatnonzero(out))
            predicted.append(ln_t)
            variance.append(of + whole.fit.noise[out] ** 2)
    spread = np.sqrt(np.concatenate(variance))
    return judge_left_out(whole, at, [machines[i] for i in at], np.concatenate(predicted), spread)


def _chosen(rows: Sequence[Row], count: int, chance: random.Random) -> list[int]:
    """Numbers of the rows given: one of decode and one of prefill of each of ``count`` models in a quantisation."""
    pairs = sorted({(r.raw["model"], r.raw["quant"]) for r in rows if r.phase == "decode"})
    result = []
    for pair in chance.sample(pairs, min(count, len(pairs))):
        for phase in ("decode", "prefill"):
            same = [i for i, r in enumerate(rows) if (r.raw["model"], r.raw["quant"], r.phase) == (*pair, phase)]
            result += [chance.choice(same)] if same else []
    return result


def _gradient(row: Row, values: dict[str, float]) -> dict[str, float]:
    assert row.work is not None
    if row.phase == "decode":
        return decode_gradient(row.work, row.machine, values)
    return prefill_gradient(row.work, row.machine, row.prompt, values)


def _ln_t(row: Row, values: dict[str, float]) -> float:
    assert row.work is not None
    if row.phase == "decode":
        return float(np.log(decode_seconds(row.work, row.machine, values).total_s))
    return float(np.log(prefill_seconds(row.work, row.machine, row.prompt, values)))


def _target(row: Row) -> float:
    return float(np.log((row.prompt.tokens if row.phase == "prefill" else 1) / row.tokens_per_s))
