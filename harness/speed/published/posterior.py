"""What a few measurements of a machine tell of the rest: the same Bayesian update that the fit is made of."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.speed.coefficients import NOISE, Coefficient, Coefficients, Covariance, noise_class, source_key
from harness.speed.published.rows import PublishedRow
from harness.speed.terms import kind_of, prior_of

UPDATES: Final = 4
"""Linearisations; the law is close to linear in its terms, and the third changes nothing visible."""
OWN: Final = (
    *("a", "a/moe", "c/quant", "c/type", "e/moe", "e/quant", "k", "s/model", "s/runtime"),
    *("g/model", "h", "m/long", "m/moe", "m/quant", "m/runtime", "m/short", "o"),
)
"""Terms by which a machine differs from its relatives: launches, the cache, attention, each kernel on its
instruction set, each model and runtime. What it has as a whole (its bandwidth, its api, its family) is in the
level of its chip."""
OWN_WIDTH: Final = 0.1
"""Width of such a difference, in ln: of 0, 0.05, 0.1, 0.15 ... the one under which the errors on half of the
chips left out are likeliest; the other half gives the same."""


class Belief(NamedTuple):
    """What rows of a machine taught.

    Attributes:
        coefficients: After all of them.
        ln_s: Ln of the seconds of each row as the other rows alone predict it, [rows].
        spread: Standard deviation of that, with the row's own noise, [rows].
    """

    coefficients: Coefficients
    ln_s: NDArray[np.float64]
    spread: NDArray[np.float64]


def posterior(coefficients: Coefficients, rows: Sequence[PublishedRow]) -> Belief:
    """What is believed of one machine after some rows of it.

    With prior theta ~ N(m, S) and rows z = f(theta) + noise of width n, linearised at theta:

        K = S J' (J S J' + n^2)^-1,    theta = m + K (z - f(theta) + J (theta - m)),    S' = S - K J S

    (the iterated Kalman update; Bell & Cathey 1993). All terms that hang together move: what one type at one
    depth tells of a chip goes to its other types, depths and prompts. How its owner measures is part of the
    machine from then on, so the result is for this machine alone.

    A machine may differ from its relatives in each of ``OWN``, so one row does not settle them all: S is
    wider by that where the terms are updated. It is not where S' is: the scales of intervals were set on
    errors of such machines.

    What the other rows predict for row i needs no second update. With Q = J S J' + n^2 and the innovation d =
    z - f(theta) + J (theta - m), row i is off by [Q^-1 d]_i / [Q^-1]_ii with a variance of 1 / [Q^-1]_ii
    (Rasmussen & Williams 2006, equations 5.10 to 5.12).

    Rows are predictable ones, of decode, prefill or both, on any of the machine's apis.
    """
    values = dict(coefficients.values)
    listed = [row.predicted(values)[1] for row in rows]
    keys = sorted({*coefficients.covariance.keys, *(key for one in listed for key in one)})
    mean = np.array([values.get(key, prior_of(key)[0]) for key in keys])
    before = coefficients.covariance_of(keys)
    sources = {source_key(row.phase, row.machine.side) for row in rows}
    for i, key in enumerate(keys):
        source = f"{kind_of(key).replace('/chip ', '/source ')}:"
        if source in sources:
            before[i, i] += prior_of(source, coefficients.widths)[1] ** 2
    noise = [coefficients.noise.get(noise_class(row.phase, row.machine), NOISE) for row in rows]
    target = np.array([row.ln_s for row in rows])
    theta = mean
    off = np.zeros(len(rows))
    wide = before + np.diag([own_square(key) for key in keys])
    jacobian = wide
    inverse = wide
    for _ in range(UPDATES):
        values |= dict(zip(keys, map(float, theta), strict=True))
        said = [row.predicted(values) for row in rows]
        jacobian = np.array([[one.get(key, 0.0) for key in keys] for _, one in said])
        inverse = np.linalg.inv(jacobian @ wide @ jacobian.T + np.diag(np.square(noise)))
        off = inverse @ (target - np.array([ln_s for ln_s, _ in said]) + jacobian @ (theta - mean))
        theta = mean + wide @ jacobian.T @ off
    carried = before @ jacobian.T
    after = before - carried @ np.linalg.solve(jacobian @ carried + np.diag(np.square(noise)), carried.T)
    spread = np.sqrt(np.maximum(np.diag(after), 1e-12))
    terms = dict(coefficients.terms)
    for i, key in enumerate(keys):
        old = terms.get(key, Coefficient(value=0.0))
        terms[key] = Coefficient(value=float(theta[i]), rows_count=old.rows_count, spread=float(spread[i]))
    for source in sources:
        terms[source] = Coefficient(value=0.0, rows_count=len(rows))
    found = coefficients.replace(terms=terms, covariance=Covariance.of(keys, after))
    known = np.diag(inverse)
    return Belief(found, target - off / known, known**-0.5)


def own_square(key: str) -> float:
    """Variance of what a term differs by on one machine."""
    name = (
        (kind_of(key) or key).partition(" ")[0].removesuffix("/cpu").removesuffix("/gpu").removesuffix("/npu")
    )
    if name in OWN:
        return OWN_WIDTH**2
    return 0.0
