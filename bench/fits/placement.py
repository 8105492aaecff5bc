"""Fit of the few terms of the law of placement, each card predicted without its own rows, and sweeps of placements."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.predict.coefficients import shipped
from harness.predict.placement import Terms
from harness.published.placement_rows import PlacedRow, as_row, predicted_s, read_placed_rows
from harness.published.row_work import ModelOf
from harness.published.rows import TRUSTED
from harness.published.score import Judged, judge_shipped

Array = NDArray[np.float64]
GROUPS: Final = frozenset({"split placement, decode", "split placement, prefill"})
NOISE: Final = 0.15
"""Spread of one measurement in ln t, with what a row does not tell of its host."""


def judged_by(row: PlacedRow) -> bool:
    """Whether it counts: predictable, of trust A or B."""
    return row.split is not None and row.raw.get("trust", "") in TRUSTED


def left_out(model_of: ModelOf) -> list[Judged]:
    """Published splits by terms fitted without any row of the card in question."""
    rows = [row for row in read_placed_rows(None, model_of) if judged_by(row)]
    fitted = {gpu: fit_terms([row for row in rows if row.gpu != gpu]) for gpu in {row.gpu for row in rows}}
    return judge_shipped([as_row(row, fitted[row.gpu]) for row in rows], shipped())


def sweep_of(row: PlacedRow) -> tuple[str, ...]:
    """What stays the same while a sweep moves layers or experts."""
    same = ("device", "model", "quant", "kv_type", "n_ubatch", "n_threads", "runtime", "context_depth", "backend")
    return (row.phase, row.raw.get("test", ""), *(row.raw.get(name, "") for name in same))


def sweeps_found(rows: Sequence[PlacedRow], predicted: Mapping[int, float]) -> list[bool]:
    """Of each sweep of three placements or more, whether the law finds its best within a step, or 0.9 of its speed."""
    sweeps: dict[tuple[str, ...], dict[float, list[PlacedRow]]] = {}
    for row in rows:
        sweeps.setdefault(sweep_of(row), {}).setdefault(round(row.step, 4), []).append(row)
    found = []
    for steps in sweeps.values():
        if len(steps) < 3:
            continue
        order = sorted(steps)
        measured = [float(np.median([r.tokens_per_s for r in steps[s]])) for s in order]
        said = [float(np.median([predicted[id(r)] for r in steps[s]])) for s in order]
        best, chosen = int(np.argmax(measured)), int(np.argmax(said))
        found.append(abs(best - chosen) <= 1 or measured[chosen] >= 0.9 * measured[best])
    return found


_PRIOR_SD: Final = Terms(
    gpu=0.3, cpu=0.3, experts=0.3, crossing=0.7, prefill=0.3, link=0.1, ik=0.3, memory=0.1, cpu_prefill=0.3
)


def fit_terms(rows: Sequence[PlacedRow]) -> Terms:
    """Terms of the law from rows of trust A and B: robust least squares in ln t, pulled to the priors.

    A vote (GPU x model x quantisation x phase) weighs 1 whatever its rows, a GPU no more than the root of its votes.
    """
    from scipy.optimize import least_squares

    rows = [row for row in rows if judged_by(row)]
    if not rows:
        return Terms()
    vote_of = [(row.gpu, row.raw["model"], row.raw["quant"], row.phase) for row in rows]
    rows_in, votes_in = Counter(vote_of), Counter((gpu, phase) for gpu, _, _, phase in set(vote_of))
    weight = np.array([1 / rows_in[v] / np.sqrt(votes_in[v[0], v[3]]) for v in vote_of])
    target = np.log([row.token_count / row.tokens_per_s for row in rows])
    prior, sd = np.array(Terms()), np.array(_PRIOR_SD)

    def residuals(theta: Array) -> Array:
        terms = Terms(*theta.tolist())
        error = (np.log([predicted_s(row, terms) for row in rows]) - target) / NOISE
        robust = np.sign(error) * np.sqrt(2 * (np.sqrt(1 + error**2) - 1))
        pulled: Array = np.concatenate([np.sqrt(weight) * robust, (theta - prior) / sd])
        return pulled

    return Terms(*least_squares(residuals, prior, diff_step=1e-4, ftol=1e-4).x.tolist())
