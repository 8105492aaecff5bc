"""The normal, Student's t and the binomial distribution, by the standard library alone."""

from math import cos, exp, expm1, lgamma, log, pi, sin, sqrt
from statistics import NormalDist

_NORMAL = NormalDist()


def normal_quantile(probability: float) -> float:
    """Quantile z of the standard normal distribution: P(Z <= z) = probability, 0 < probability < 1."""
    return _NORMAL.inv_cdf(probability)


def normal_cdf(z: float) -> float:
    """P(Z <= z) of the standard normal distribution."""
    return _NORMAL.cdf(z)


def binomial_chances(count: int, chance: float, most: int | None = None) -> list[float]:
    """P(B = k) for k = 0 to ``most`` (``count`` if None), B ~ Binomial(count, chance), 0 < chance < 1."""
    hit, miss, ways = log(chance), log(1 - chance), lgamma(count + 1)
    last = count if most is None else most
    return [exp(ways - lgamma(k + 1) - lgamma(count - k + 1) + k * hit + (count - k) * miss) for k in range(last + 1)]


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile t of Student's distribution with ``freedom`` degrees: P(T <= t) = probability.

    Exact for 1 and 2 degrees; Hill's expansion from 3 on, good to five digits in the tails used here.

    Raises:
        ValueError: ``freedom`` is below 1, or ``probability`` is not inside (0, 1).

    Source:
        G. W. Hill 1970, "Algorithm 396: Student's t-quantiles", CACM 13(10).
    """
    if freedom < 1 or not 0.0 < probability < 1.0:
        raise ValueError(f"need freedom >= 1 and 0 < probability < 1, got {freedom} and {probability}")
    if probability < 0.5:
        return -t_quantile(1.0 - probability, freedom)
    two_tail = 2.0 * (1.0 - probability)
    if two_tail >= 1.0:
        return 0.0
    if freedom == 1:
        return cos(two_tail * pi / 2) / sin(two_tail * pi / 2)
    if freedom == 2:
        return sqrt(2.0 / (two_tail * (2.0 - two_tail)) - 2.0)
    return _hill(two_tail, float(freedom))


def _hill(two_tail: float, n: float) -> float:
    a = 1.0 / (n - 0.5)
    b = 48.0 / (a * a)
    c = ((20700.0 * a / b - 98.0) * a - 16.0) * a + 96.36
    d = ((94.5 / (b + c) - 3.0) / b + 1.0) * sqrt(a * pi / 2.0) * n
    y = (d * two_tail) ** (2.0 / n)
    if y > 0.05 + a:
        x = normal_quantile(two_tail / 2.0)
        y = x * x
        if n < 5:
            c += 0.3 * (n - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x
        y = a * y * y
        y = expm1(y) if y > 0.002 else 0.5 * y * y + y
    else:
        y = ((1.0 / (((n + 6.0) / (n * y) - 0.089 * d - 0.822) * (n + 2.0) * 3.0) + 0.5 / (n + 4.0)) * y - 1.0) * (
            n + 1.0
        ) / (n + 2.0) + 1.0 / y
    return sqrt(n * y)
