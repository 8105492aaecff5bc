"""Does a layer know whether a statement is true? A linear probe on the last token, tested on countries it has not seen.

    python -m bench probe_truth MODEL.gguf

Statements name a capital rightly or wrongly, in three forms. Each capital is named once rightly and once wrongly in
each form, so that words alone decide nothing. Countries are split into five parts: a probe learns on four and is tested
on the fifth. Control task (Hewitt and Liang 2019): a random label for each pair of country and capital, split in the
same way over forms instead, where it can be learnt; selectivity is accuracy less control accuracy. Sources: Azaria and
Mitchell 2023, "The Internal State of an LLM Knows When It's Lying"; Marks and Tegmark 2023, "The Geometry of Truth".
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from bench._kept import keep
from bench.patching import CAPITALS
from harness.catalog.gguf import read_gguf
from harness.runtimes.llamacpp import RUNTIME
from harness.stats.intervals import cluster_interval
from harness.workloads._language.activations import BLOCK, LayerTap, scenario_of
from harness.workloads._language.judgement import signal
from harness.workloads.probe.linear import fit

FORMS: Final = ("The capital of {country} is {capital}.", "{capital} is the capital of {country}.",
                "The government of {country} sits in its capital, {capital}.")  # fmt: skip
FOLDS: Final = 5
_LAYERS: Final = 8


class Statement(NamedTuple):
    """A statement, its form and its country by number, and whether it is true."""

    text: str
    form: int
    country: int
    is_true: bool


def statements(seed: int = 1) -> list[Statement]:
    """All of them; wrong capitals are those of the next country in an order drawn at random, so never the right one."""
    order = np.random.default_rng(seed).permutation(len(CAPITALS))
    names, capitals = list(CAPITALS), list(CAPITALS.values())
    wrong = {int(at): int(after) for at, after in zip(order, np.roll(order, 1), strict=True)}
    return [
        Statement(form.format(country=name, capital=capitals[at if is_true else wrong[at]]), number, at, is_true)
        for number, form in enumerate(FORMS)
        for at, name in enumerate(names)
        for is_true in (True, False)
    ]


def streams(path: Path, made: Sequence[Statement], threads: int) -> dict[int, NDArray[np.float32]]:
    """Residual stream after each block at the last token of each statement [statements, dim]."""
    found: dict[int, list[NDArray[np.float32]]] = {}

    def keep_last(layer: int, values: NDArray[np.float32]) -> None:
        found.setdefault(layer, []).append(values[-1].copy())

    with closing(RUNTIME.open(path, scenario_of(threads, 64), tap=LayerTap(BLOCK, keep_last))) as session:
        for one in made:
            session.clear()
            session.decode(session.tokenize(one.text), position=0, logits="last")
    return {layer: np.stack(rows) for layer, rows in found.items()}


def held_out(x: NDArray[np.float32], labels: NDArray[np.bool_], parts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a probe that has not seen its part is right, for each row."""
    right = np.zeros(len(x), np.bool_)
    for part in np.unique(parts):
        out = parts == part
        right[out] = fit(x[~out], labels[~out], l2=1.0).predict(x[out]) == labels[out]
    return right


def row_of(layer: int, x: NDArray[np.float32], made: Sequence[Statement]) -> list[str]:
    """Accuracy on unseen countries with its interval over countries, control, selectivity, and the exact test."""
    truth, country = np.array([s.is_true for s in made]), np.array([s.country for s in made])
    right = held_out(x, truth, country % FOLDS)
    found = cluster_interval(np.bincount(country, weights=right), np.bincount(country))
    drawn = np.random.default_rng(2).permutation(np.repeat([True, False], len(CAPITALS)))
    random_label = drawn[2 * country + truth]
    control = float(held_out(x, random_label, np.array([s.form for s in made])).mean())
    # Rows of one country are alike: the test counts countries of which more than half of the statements are right.
    sides = np.sign(np.bincount(country, weights=right) - np.bincount(country) / 2)
    said = signal(int((sides > 0).sum()), int((sides != 0).sum()))
    interval = f"{found.mid:.3f} ({found.low:.3f} to {found.high:.3f})"
    return [str(layer), interval, f"{control:.3f}", f"{found.mid - control:+.3f}", f"{said.p:.2g}", said.says]


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(model: Path, threads: int) -> None:
    """Print how well the truth of a statement can be read from layers of MODEL."""
    made = statements()
    last = read_gguf(model).shape().layer_count - 1
    values = streams(model, made, threads)
    layers = sorted({round(share * last) for share in np.linspace(0, 1, _LAYERS)})
    rows = [row_of(layer, values[layer], made) for layer in layers]
    columns = ["block", "accuracy, unseen countries", "control task", "selectivity", "exact p, by country", "says"]
    keep("workloads/probe-truth.json", columns, rows, f"python -m bench probe_truth {model.name}")


if __name__ == "__main__":
    main()
