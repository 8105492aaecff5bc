"""Fit of the laws to published rows: robust, hierarchical, deterministic.

    z_i = J_i theta + noise_i,    theta_j ~ N(m_j, d_kind(j)^2),    noise_i ~ Student-t (4 degrees) of width n_class(i)

The laws are linearised at theta and solved (Gauss-Newton); between steps the widths d of the kinds of level, the widths
n of the classes of row and the weights of the t are set to what maximises the marginal likelihood of this linear model
(empirical Bayes; MacKay 1992; Lange et al. 1989 for the t). Nothing is chosen by hand but where the widths start, which
counts as much as a few levels. A source is a level too, and its rows have a scatter of their own, so a source that
disagrees with others counts less.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.fits.teaching import setup_of, teaches
from harness.speed.coefficients import Coefficient, Coefficients, Covariance, Measured, engine_key, noise_class, shipped
from harness.speed.decode import decode_base, decode_parts
from harness.speed.prefill import prefill_base, prefill_parts
from harness.speed.published.rows import NEUTRAL_EXCLUSIONS, PublishedRow, is_trusted
from harness.speed.terms import LEVEL_WIDTH, features, kind_of, prior_of

Array = NDArray[np.float64]
NOISE: Final = 0.1
"""n before any row: spread of a measurement in ln t."""
FREEDOM: Final = 4.0
"""Degrees of freedom of the t: one row in fifty lies beyond four widths."""
START_WIDTH: Final = 0.12
START_LEVELS: Final = 3.0
"""Levels, or rows of a class, that the width a kind starts from counts as."""
SOURCE_VOTES: Final = 20
"""Votes that one source has at most of one chip by one api: of none, 4, 10 and 20 the choice of most tenths."""
STEPS: Final = 6
"""In which widths and weights are set, from those that ship."""
SETTLING_STEPS: Final = 4
"""Last steps, in which widths and weights stay as they are and the terms come to rest."""


_BENCHMARKED: Final = re.compile(r"(pp|tg) ?\d+k?( ?@ ?d ?\d+k?)?$")
"""A test as llama-bench names its own. Any other was timed in a chat or through a server, with whatever runs beside."""


class Problem(NamedTuple):
    """Rows as arrays.

    Attributes:
        keys: Terms, sorted.
        designs: A sparse matrix [rows, terms] for each phase and law; zero in rows of the other phase.
        target: ln of the measured time, [rows].
        weight: 1 / rows of its vote, [rows].
        base: Physical quantities by phase and name, each [rows]; 1 in rows of the other phase.
        decode: Whether a row is of decode, [rows].
        classes: Class of its noise, [rows]; and of its source within it.
        sources: The same by source.
    """

    keys: tuple[str, ...]
    designs: dict[tuple[str, str], Any]
    target: Array
    weight: Array
    base: dict[tuple[str, str], Array]
    decode: NDArray[np.bool_]
    classes: NDArray[np.int64]
    sources: NDArray[np.int64]


class Fit(NamedTuple):
    """Outcome.

    Attributes:
        theta: Terms, [terms].
        widths: Fitted width of each kind.
        noise: Width of each row's noise, [rows].
        covariance: Of the terms, [terms, terms].
        effective_count: Terms as rows see them: sum of 1 - S_jj / d_j^2.
        precision: Weight of each row in the fit, [rows]: 0 where it saw none.
    """

    theta: Array
    widths: dict[str, float]
    noise: Array
    covariance: Array
    effective_count: float
    precision: Array


def row_features(row: PublishedRow) -> dict[tuple[str, str], tuple[tuple[str, float], ...]]:
    """Terms of a row by phase and law; among them its source, and how it measured, which nobody who asks shares."""
    assert row.work is not None
    listed = features(row.phase, row.work, row.machine, row.prompt.tokens)
    letter = "s" if row.phase == "decode" else "g"
    source = f"{letter}/source {row.machine.side}{'' if is_trusted(row) else ' doubted'}:{row.source}"
    source = f"{source} {setup_of(row)}".rstrip()
    scale = listed["scale"]
    if row.phase == "decode" and row.excluded not in NEUTRAL_EXCLUSIONS:
        # bytes or protocol that a file doubts tell nothing of a chip: a phone in a test farm seemed four times slower
        scale = tuple((key, x) for key, x in scale if "/chip " not in key)
    how = [(source, 1.0)]
    if row.machine.side == "gpu" and not row.machine.phone:
        benchmarked = row.machine.other_runtime or _BENCHMARKED.match(row.raw.get("test", "").lower())
        how += [(f"{letter}/source/doubted", 1.0)] * (not is_trusted(row))
        how += [(f"{letter}/source/beside", 1.0)] * (not benchmarked)
    return {(row.phase, law): terms for law, terms in {**listed, "scale": (*scale, *how)}.items()}


def problem_of(rows: Sequence[PublishedRow]) -> Problem:
    """Arrays of predictable rows of both phases."""
    from scipy.sparse import csr_array

    listed = [row_features(row) for row in rows]
    keys = tuple(sorted({key for laws in listed for terms in laws.values() for key, _ in terms}))
    index = {key: i for i, key in enumerate(keys)}
    cells: dict[tuple[str, str], list[tuple[int, int, float]]] = {}
    base: dict[tuple[str, str], Array] = {}
    for i, (row, laws) in enumerate(zip(rows, listed, strict=True)):
        assert row.work is not None
        for law, terms in laws.items():
            cells.setdefault(law, []).extend((i, index[key], x) for key, x in terms)
        decode = row.phase == "decode"
        found = decode_base(row.work, row.machine) if decode else prefill_base(row.work, row.machine, row.prompt)
        for name, value in found.items():
            base.setdefault((row.phase, name), np.ones(len(rows)))[i] = value
    designs = {}
    for law, entries in cells.items():
        rows_at, keys_at, factors = zip(*entries, strict=True)
        designs[law] = csr_array((factors, (rows_at, keys_at)), shape=(len(rows), len(keys)))
    class_of: dict[tuple[Any, ...], int] = {}
    groups = [(noise_class(r.phase, r.machine), is_trusted(r)) for r in rows]
    return Problem(
        keys,
        designs,
        np.array([r.ln_s for r in rows]),
        votes(rows),
        base,
        np.array([r.phase == "decode" for r in rows]),
        np.array([class_of.setdefault(g, len(class_of)) for g in groups]),
        np.array([class_of.setdefault((*g, r.source), len(class_of)) for g, r in zip(groups, rows, strict=True)]),
    )


def votes(rows: Sequence[PublishedRow]) -> Array:
    """Weight of each row: 1 / rows of its vote, so that forty tests of one card weigh as one."""
    names = [(*row.vote, row.source) for row in rows]
    count = Counter(names)
    each = np.array([teaches(row) / count[name] for row, name in zip(rows, names, strict=True)])
    pulls: dict[tuple[str, ...], int] = {}
    pull = [pulls.setdefault((r.phase, engine_key(r.machine), r.source), len(pulls)) for r in rows]
    return each / np.maximum(np.bincount(pull, each)[pull] / SOURCE_VOTES, 1.0)


def model(problem: Problem, theta: Array) -> tuple[Array, Any]:
    """Ln of the predicted time, [rows], and its Jacobian, sparse [rows, terms]."""
    from scipy.sparse import diags_array

    seconds, jacobian = np.ones(len(problem.target)), None
    for phase in ("decode", "prefill"):
        base = {name: value for (of, name), value in problem.base.items() if of == phase}
        if not base:
            continue
        designs = {law: matrix for (of, law), matrix in problem.designs.items() if of == phase}
        laws = {law: np.exp(matrix @ theta) for law, matrix in designs.items()}
        if phase == "decode":
            parts, slopes = decode_parts(base, laws)
            total = parts.total_s
        else:
            total, slopes = prefill_parts(base, laws)
        seconds = np.where(problem.decode == (phase == "decode"), total, seconds)
        for law, matrix in designs.items():
            part = diags_array(slopes[law]) @ matrix
            jacobian = part if jacobian is None else jacobian + part
    return np.log(seconds), jacobian


def fit(problem: Problem, rows: NDArray[np.bool_] | None = None, steps: int = STEPS) -> Fit:
    """Terms and widths of the best fit on the rows marked (all by default).

    Widths of kinds begin with those that ship, which saves steps; terms begin at their priors.
    """
    from scipy.linalg import cho_factor, cho_solve, lapack
    from scipy.sparse import diags_array

    keep = problem.weight * (1.0 if rows is None else rows)
    kinds = [kind_of(key) for key in problem.keys]
    names = sorted({kind for kind in kinds if kind})
    at = np.array([names.index(kind) if kind else -1 for kind in kinds])
    mean = np.array([prior_of(key)[0] for key in problem.keys])
    fixed = np.array([prior_of(key)[1] for key in problem.keys])
    shipped_widths = shipped().widths
    widths = np.array([shipped_widths.get(name, LEVEL_WIDTH) for name in names])
    theta, inverse, learnt = mean.copy(), np.eye(len(mean)), np.zeros(len(mean))
    noise = np.full(len(keep), NOISE)
    scatter = noise[:]
    w = keep / noise**2
    for step_number in range(steps + SETTLING_STEPS):
        prior = np.where(at >= 0, widths[np.maximum(at, 0)], fixed) ** -2.0
        predicted, jacobian = model(problem, theta)
        residual = problem.target - predicted
        if step_number < steps:
            w = keep * (FREEDOM + 1) / (FREEDOM + (residual / noise) ** 2) / noise**2
        weighted = diags_array(w) @ jacobian
        factor = cho_factor((jacobian.T @ weighted).toarray() + np.diag(prior), lower=True)
        if step_number == steps + SETTLING_STEPS - 1:
            break
        step = cho_solve(factor, weighted.T @ residual - prior * (theta - mean))
        theta = theta + step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-9))
        if step_number >= steps:
            continue
        inverse = _inverse(lapack, factor)
        learnt = np.clip(1 - prior * np.diag(inverse), 0, 1)
        for g in range(len(names)):
            sum_of_squares = START_LEVELS * START_WIDTH**2 + float((theta[at == g] ** 2).sum())
            widths[g] = np.sqrt(sum_of_squares / (START_LEVELS + float(learnt[at == g].sum())))
        leverage = np.clip(w * np.asarray(jacobian.multiply(jacobian @ inverse).sum(axis=1)).ravel(), 0, 0.95)
        square, free = w * noise**2 * residual**2, keep * (1 - leverage)
        scatter = _pooled(problem.classes, square, free, np.full(len(keep), NOISE), START_LEVELS)
        noise = _pooled(problem.sources, square, free, scatter, 2 * START_LEVELS)
    inverse = _inverse(lapack, factor)
    learnt = 1 - prior * np.diag(inverse)
    return Fit(theta, dict(zip(names, map(float, widths), strict=True)), scatter, inverse, float(learnt.sum()), w)


def _inverse(lapack: Any, factor: tuple[Array, bool]) -> Array:
    """Inverse of a matrix from the lower triangle of its Cholesky factor."""
    lower = np.tril(lapack.dpotri(factor[0], lower=1)[0])
    return np.asarray(lower + np.tril(lower, -1).T)


def habits(problem: Problem, theta: Array) -> Array:
    """What the ways rows were measured add to ln t by these terms, [rows]: part of no prediction."""
    own = theta * ["/source/" in key for key in problem.keys]
    return np.asarray(sum(matrix @ own for matrix in problem.designs.values()))


class Spread(NamedTuple):
    """What a fit says of its own rows, [rows]: what it is ``off`` by, what its ``habits`` add to ln t, how sure it is.

    With J the slopes of all rows and S the covariance of the terms, ``between`` is J S J', [rows, rows].
    """

    off: Array
    habits: Array
    between: Array


def spread_of(problem: Problem, whole: Fit) -> Spread:
    """The slopes of a fit carried through its covariance, once for all that will be left out."""
    predicted, jacobian = model(problem, whole.theta)
    return Spread(
        problem.target - predicted,
        habits(problem, whole.theta),
        np.asarray(jacobian @ np.asarray(jacobian @ whole.covariance).T),
    )


class Without(NamedTuple):
    """A fit without some rows: what they are ``off`` by, ``habits`` unknown, and the covariance of their ln t."""

    off: Array
    covariance: Array


def taken_out(whole: Fit, spread: Spread, out: NDArray[np.int64], asked: NDArray[np.int64] | None = None) -> Without:
    """What a fit without the rows ``out`` says of them, or of those at the places ``asked`` among them.

    The fit on all rows is a linear model near its end, so rows are taken out of it exactly (Woodbury; Cook & Weisberg
    1982, section 2.2): theta' = theta - S J' (W^-1 - J S J')^-1 r. Widths and noise stay those of the whole; ``fit``
    with ``rows`` chooses them again.
    """
    from scipy.linalg import solve

    seen = spread.between[np.ix_(out, out)]
    weightless = np.diag(1 / np.maximum(whole.precision[out], 1e-9)) - seen
    own = seen if asked is None else seen[:, asked]
    off = spread.off[out] + spread.habits[out]
    off = off if asked is None else off[asked]
    back = solve(weightless, np.column_stack([spread.off[out], own]), assume_a="pos")
    inside = own if asked is None else own[asked]
    return Without(off + own.T @ back[:, 0], inside + own.T @ back[:, 1:])


def part_of(problem: Problem, at: NDArray[np.int64]) -> Problem:
    """Some rows of a problem, with all of its terms."""
    rows = ("target", "weight", "decode", "classes", "sources")
    return problem._replace(
        designs={name: matrix[at] for name, matrix in problem.designs.items()},
        base={name: values[at] for name, values in problem.base.items()},
        **{name: getattr(problem, name)[at] for name in rows},
    )


def _pooled(groups: NDArray[np.int64], square: Array, free: Array, start: Array, count: float) -> Array:
    """Width of each row's group: root of the mean square, mixed with ``count`` rows of the width it starts from."""
    above, below = np.bincount(groups, square), np.bincount(groups, free)
    return np.sqrt((count * start**2 + above[groups]) / (count + below[groups]))


CERTAIN_RATIO: Final = 0.25
"""What rows must have told of a level (1 - variance / variance before them) for its ties to other terms to be kept."""


def _told(key: str, at: int, whole: Fit, widths: Mapping[str, float]) -> bool:
    """Whether rows moved a term, or it says that a chip was measured: what stands at its prior needs no record."""
    learnt = 1 - whole.covariance[at, at] / widths[key] ** 2
    return not kind_of(key) or key.startswith("w/chip") or learnt > 0.02 or abs(whole.theta[at]) > 0.01


def coefficients_of(
    problem: Problem, whole: Fit, rows: Sequence[PublishedRow], source: str, scales: dict[str, float]
) -> Coefficients:
    """What ships: every term but the sources', which nobody who asks shares."""
    spread = np.sqrt(np.diag(whole.covariance))
    touched = sum(abs(matrix) for matrix in problem.designs.values())
    counts = np.asarray((touched.astype(bool).T.astype(float)) @ problem.weight)
    widths = {key: prior_of(key, whole.widths)[1] for key in problem.keys}
    own = [i for i, key in enumerate(problem.keys) if "/source" not in key and _told(key, i, whole, widths)]
    core = [i for i in own if spread[i] ** 2 < (1 - CERTAIN_RATIO) * widths[problem.keys[i]] ** 2]
    noise = {noise_class(r.phase, r.machine): float(n) for r, n in zip(rows, whole.noise, strict=True) if is_trusted(r)}
    return Coefficients(
        source=source,
        terms={
            problem.keys[i]: Coefficient(
                value=round(float(whole.theta[i]), 4),
                rows_count=round(float(counts[i])),
                spread=round(float(spread[i]), 4),
            )
            for i in own
        },
        widths={kind: round(width, 4) for kind, width in whole.widths.items()},
        noise={name: round(n, 4) for name, n in sorted(noise.items())},
        scales=scales,
        covariance=Covariance.of([problem.keys[i] for i in core], whole.covariance[np.ix_(core, core)]),
        effective_count=round(whole.effective_count, 1),
        measured=measured_chips(rows),
    )


def measured_chips(rows: Sequence[PublishedRow]) -> dict[str, Measured]:
    """Chips that rows are of, by :func:`engine_key`, with the votes of each phase."""
    by_engine: dict[str, list[PublishedRow]] = {}
    for row in filter(teaches, rows):
        by_engine.setdefault(engine_key(row.machine), []).append(row)
    found = {}
    for key, own in sorted(by_engine.items()):
        phases = Counter(phase for phase, *_ in {(row.phase, row.vote, row.source) for row in own})
        found[key] = Measured(
            name=Counter(row.raw["chip"] for row in own).most_common(1)[0][0],
            family=own[0].machine.traits.family,
            bandwidth_gb_s=round(own[0].machine.bandwidth_bytes_per_s / 1e9, 1),
            decode_count=phases["decode"],
            prefill_count=phases["prefill"],
        )
    return found
