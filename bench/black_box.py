"""Gradient-boosted trees on the published rows, beside the laws: ``python -m bench black_box [BY]``.

The same rows, votes and groups as ``python -m bench validation``; the trees learn ln(measured / promised by the data
sheet) from bandwidth, bytes, weights, peak, api, runtime, family, class of quantisation, bits, threads, depth, prompt
and build year. Groups are left out a fifth at a time, of chips and of sources at once where both are asked for; the
laws leave out each by itself. What is printed is kept in ``reports/validation/black-box.json``.
"""

import sys
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bench._kept import REPORTS, write
from bench.fits.fitting import votes
from bench.fits.leave_out import GROUPS, fitted, folds_of, leave_out
from harness.answer.nearest import shipped_rows
from harness.speed.published.errors_of_rows import GROUPS as KINDS
from harness.speed.published.errors_of_rows import Judged, score
from harness.speed.published.rows import PublishedRow, is_trusted

Array = NDArray[np.float64]
_WORDS = (0, 1, 2, 3)
_PARTS = 5


def _columns(rows: list[PublishedRow]) -> Array:
    numbers: list[dict[str, int]] = [{} for _ in _WORDS]
    table = []
    for row in rows:
        assert row.work is not None
        work, machine = row.work, row.machine
        words = (machine.api, machine.runtime, machine.traits.family, work.quant_class)
        table.append([
            *(float(known.setdefault(word, len(known)) % 250) for known, word in zip(numbers, words, strict=True)),
            np.log(machine.bandwidth_bytes_per_s), np.log(work.weight_bytes), np.log(work.weight_count),
            work.kv_bytes / work.weight_bytes, np.log(machine.traits.matrix_flops_per_s),
            8 * work.weight_bytes / work.weight_count, row.raw.number("n_threads"), row.depth_tokens,
            machine.build_year, row.prompt.tokens, float(work.moe), float(machine.phone),
        ])  # fmt: skip
    return np.array(table)


def _trees(rows: list[PublishedRow], by: str) -> Array:
    """Tokens/s of each row by trees that saw nothing of its parts."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    columns, predicted = _columns(rows), np.zeros(len(rows))
    parts = [folds_of([GROUPS[word](row) for row in rows]) % _PARTS for word in by.split("+")]
    decode = np.array([row.phase == "decode" for row in rows])
    target = np.array([np.log(row.measured / row.promised) for row in rows])
    weight = votes(rows) * np.where([is_trusted(row) for row in rows], 1, 0.3)
    for numbers in product(range(_PARTS), repeat=len(parts)):
        inside = [part == number for part, number in zip(parts, numbers, strict=True)]
        for phase in (decode, ~decode):
            out, seen = np.all(inside, axis=0) & phase, ~np.any(inside, axis=0) & phase
            if not out.any():
                continue
            trees = HistGradientBoostingRegressor(
                loss="absolute_error",
                max_iter=200,
                learning_rate=0.06,
                min_samples_leaf=10,
                categorical_features=_WORDS,
            ).fit(columns[seen], target[seen], sample_weight=weight[seen])
            predicted[out] = trees.predict(columns[out])
    return np.asarray(np.exp(predicted) * [row.promised for row in rows])


def main(by: str) -> None:
    """Print median and 90th percentile of the error by group."""
    whole = fitted(shipped_rows())
    rows = whole.rows
    sets = {"laws": leave_out(whole, by), "trees": list(map(Judged, rows, _trees(rows, by).tolist()))}
    table = []
    for kind in KINDS:
        own = {name: score([j for j in of if j.row.group == kind and is_trusted(j.row)]) for name, of in sets.items()}
        if (first := own["laws"]) is not None:
            constant = f"{first.best_constant[1]:.1%}" if first.best_constant else "-"
            cells = [f"{one.median_ratio:.1%}, {one.p90_ratio:.0%}" for one in own.values() if one is not None]
            table.append([kind, str(first.votes_count), *cells, constant])
    columns = ["median, 90th percentile", "votes", *sets, "best constant, tuned on them"]
    told = {"columns": columns, "rows": table}
    print(write(REPORTS / "validation" / "black-box.json", f"python -m bench black_box {by}", told), end="")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "chip+source")
