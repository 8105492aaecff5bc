"""Gradient-boosted trees on the published rows, beside the laws: ``python -m bench.black_box [source|chip|...]``.

The same rows, votes and groups as ``edge-harness validate --leave-out``; the trees learn ln(measured / promised by the
data sheet) from bandwidth, bytes, weights, peak, api, runtime, family, class of quantisation, bits, threads, depth,
prompt and build year. Groups are left out a tenth at a time, and the laws are fitted again for each tenth, widths and
all: the fair comparison, and the check of the closed form that ``validate`` leaves out with. What is printed is kept in
``reports/validation/black-box.json``.
"""

import sys
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from bench._kept import REPORTS, write
from harness.app.published import shipped_rows
from harness.published.fitting import fit, model, problem_of, votes
from harness.published.leaving_out import GROUPS, folds_of
from harness.published.rows import Row, is_trusted, predictable

Array = NDArray[np.float64]
_WORDS = (0, 1, 2, 3)


def _columns(rows: list[Row]) -> Array:
    numbers: list[dict[str, int]] = [{} for _ in _WORDS]
    table = []
    for row in rows:
        assert row.work is not None
        work, machine = row.work, row.machine
        words = (machine.api, machine.runtime, machine.traits.family, work.quant_class)
        table.append([
            *(float(known.setdefault(word, len(known))) for known, word in zip(numbers, words, strict=True)),
            np.log(machine.bandwidth_bytes_per_s), np.log(work.weight_bytes), np.log(work.weight_count),
            work.kv_bytes / work.weight_bytes, np.log(machine.traits.matrix_flops_per_s),
            8 * work.weight_bytes / work.weight_count, float(row.raw.get("n_threads") or 0), row.depth_tokens,
            machine.build_year, row.prompt.tokens, float(work.moe), float(machine.phone),
        ])  # fmt: skip
    return np.array(table)


def _promised(row: Row) -> float:
    """Ln t by the data sheet alone."""
    assert row.work is not None
    if row.phase == "decode":
        return float(np.log(row.work.weight_bytes / row.machine.bandwidth_bytes_per_s))
    return float(np.log(2 * row.prompt.tokens * row.work.weight_count / row.machine.traits.matrix_flops_per_s))


def main(by: str) -> None:
    """Print median and 90th percentile of the error by group."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    rows = predictable(shipped_rows())
    columns, part = _columns(rows), folds_of([GROUPS[by](row) for row in rows])
    decode, promised = np.array([r.phase == "decode" for r in rows]), np.array([_promised(r) for r in rows])
    measured = np.array([np.log((r.prompt.tokens if r.phase == "prefill" else 1) / r.tokens_per_s) for r in rows])
    weight = votes(rows) * np.where([is_trusted(r) for r in rows], 1, 0.3)
    predicted = np.zeros(len(rows))
    for number in range(int(part.max()) + 1):
        for phase in (decode, ~decode):
            seen, out = (part != number) & phase, (part == number) & phase
            trees = HistGradientBoostingRegressor(
                loss="absolute_error",
                max_iter=200,
                learning_rate=0.06,
                min_samples_leaf=10,
                categorical_features=_WORDS,
            ).fit(columns[seen], (measured - promised)[seen], sample_weight=weight[seen])
            predicted[out] = trees.predict(columns[out]) + promised[out]
    problem, laws = problem_of(rows), np.zeros(len(rows))
    for number in range(int(part.max()) + 1):
        out = part == number
        laws[out] = model(problem, fit(problem, ~out, steps=7).theta)[0][out]
    found = {"laws": _errors(rows, measured - laws), "trees": _errors(rows, measured - predicted)}
    told = {
        "columns": ["median, 90th percentile", "votes", *found],
        "rows": [[group, str(of[2]), *(f"{e[group][0]:.1%}, {e[group][1]:.0%}" for e in found.values())]
                 for group, of in sorted(found["laws"].items())],
    }  # fmt: skip
    print(write(REPORTS / "validation" / "black-box.json", f"python -m bench black_box {by}", told), end="")


def _errors(rows: list[Row], gaps: Array) -> dict[str, tuple[float, float, int]]:
    """Median and 90th percentile of the error by group, and votes."""
    errors: dict[str, dict[tuple[str, ...], list[float]]] = defaultdict(lambda: defaultdict(list))
    for row, gap in zip(rows, gaps, strict=True):
        if is_trusted(row):
            errors[row.group][row.vote].append(abs(float(np.exp(gap)) - 1))
    middles = {group: [float(np.median(v)) for v in of.values()] for group, of in errors.items()}
    return {g: (float(np.median(m)), float(np.quantile(m, 0.9)), len(m)) for g, m in middles.items()}


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "source")
