"""Do a teacher, or the order of the data, save training? A small transformer, several seeds, the same tokens.

    python -m bench training_savings [--seeds 5] [--steps 500]

Every arm of a seed starts from the same weights and reads as many bytes. The base learns from labels, windows drawn at
random. The others change one thing:

    teacher            the distribution of a larger model, for the labels (Hinton et al. 2015, temperature 1)
    teacher and labels the mean of that distribution and the labels
    easy first         windows in order of a small model's loss: at step t of T the easiest share c of them is drawn
                       from, c = min(1, sqrt(t / T (1 - c0^2) + c0^2)), c0 = 0.1 (Platanis et al. 2019,
                       "Competence-based curriculum learning")
    hard first         the same from the other end: what is left if order matters and the direction does not

Saving: 1 - cost(arm) / cost(base), each the cost of first reaching the higher of the two final held-out losses, in
tokens, and in the FLOPs that were multiplied: a teacher's passes and the small model's training and scoring count with
them, the teacher's own training does not. The rate is constant after its warm-up, so that a curve is right at every
token count. 95 % intervals over seeds (``stats.intervals.ratio_interval``). Nothing was chosen on the held-out text.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from bench._kept import keep
from harness.stats.intervals import ratio_interval
from harness.workloads._language.texts import further_text, shipped_text, split_text
from harness.workloads.training_efficiency.mixture import SEQUENCE_TOKENS, train_on
from harness.workloads.training_efficiency.transformer import Config, Transformer

TEACHER: Final = Config()
STUDENT: Final = Config(dim=64, layer_count=2, head_count=2, inner_dim=192)
SCORER: Final = Config(dim=32, layer_count=1, head_count=1, inner_dim=96)
TEXT_BYTES: Final = 500_000
BATCH: Final = 8
LOOK_STEPS: Final = 25
_RATE: Final = 2e-3
_FIRST_SHARE: Final = 0.1
_FEWEST_SEEDS: Final = 3

Windows = NDArray[np.int64]
"""[count, sequence + 1] bytes."""


class Curve(NamedTuple):
    """Held-out loss (nats a byte) of one arm as it learns, and what had been spent by then."""

    tokens: list[float]
    flops: list[float]
    losses: list[float]


def windows_of(text: str) -> Windows:
    """Windows of a text's bytes, one after the other."""
    data = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    starts = np.arange(0, len(data) - SEQUENCE_TOKENS, SEQUENCE_TOKENS)
    found: Windows = data[starts[:, None] + np.arange(SEQUENCE_TOKENS + 1)]
    return found


def drawn(order: NDArray[np.int64], step_count: int, seed: int, *, paced: bool) -> Iterator[NDArray[np.int64]]:
    """Windows of each batch: from all of them, or from a share of the order that grows."""
    rng = np.random.default_rng(seed)
    for at in range(step_count):
        competence = np.sqrt(at / step_count * (1 - _FIRST_SHARE**2) + _FIRST_SHARE**2) if paced else 1.0
        yield order[rng.integers(0, max(BATCH, round(competence * len(order))), BATCH)]


def distribution(model: Transformer, tokens: Windows) -> NDArray[Any]:
    """Softmax of the logits [batch x sequence, vocabulary]."""
    from scipy.special import softmax

    return np.asarray(softmax(model.logits(tokens[:, :-1]), axis=1))


def trained(config: Config, windows: Windows, step_count: int, seed: int) -> Transformer:
    """A model by labels, windows at random."""
    order = drawn(np.arange(len(windows)), step_count, seed, paced=False)
    return train_on((windows[rows] for rows in order), config, step_count, seed)


def curve(
    windows: Windows,
    held: Windows,
    batches: Iterator[NDArray[np.int64]],
    seed: int,
    *,
    teacher: Transformer | None = None,
    taught_share: float = 1.0,
    spent_flops: float = 0.0,
) -> Curve:
    """Train a student and look at its held-out loss every 25 steps; ``spent_flops`` were spent before."""
    model, found = Transformer(STUDENT, seed), Curve([], [], [])
    before = teacher.flops_count if teacher else 0.0
    for at, rows in enumerate(batches, 1):
        tokens, taught = windows[rows], None
        if teacher:
            taught = np.float32(taught_share) * distribution(teacher, tokens)
            taught[np.arange(len(taught)), tokens[:, 1:].ravel()] += np.float32(1 - taught_share)
        model.step(tokens, _RATE * min(1.0, at / 20), taught)
        if at % LOOK_STEPS == 0:
            own = model.flops_count
            found.tokens.append(float(at * BATCH * SEQUENCE_TOKENS))
            found.flops.append(own + (teacher.flops_count - before if teacher else 0.0) + spent_flops)
            found.losses.append(model.loss(held))
            model.flops_count = own
    return found


def reached(found: Curve, costs: Sequence[float], loss: float) -> float:
    """Cost of first reaching a loss, straight between two looks."""
    at = next(i for i, one in enumerate(found.losses) if one <= loss)
    if at == 0:
        return costs[0]
    above, below = found.losses[at - 1], found.losses[at]
    return float(costs[at - 1] + (above - loss) / (above - below) * (costs[at] - costs[at - 1]))


def saving(arms: Sequence[Curve], bases: Sequence[Curve], what: str) -> tuple[float, float, float]:
    """(middle, low, high) of 1 - cost(arm) / cost(base) over seeds."""
    goals = [max(min(a.losses), min(b.losses)) for a, b in zip(arms, bases, strict=True)]
    ours, theirs = (
        [reached(c, getattr(c, what), goal) for c, goal in zip(side, goals, strict=True)] for side in (arms, bases)
    )
    found = ratio_interval(ours, theirs)
    if found.low is None or found.high is None:
        raise click.UsageError("an interval needs at least three seeds")
    return 1 - found.mid, 1 - found.high, 1 - found.low


def arms_of(windows: Windows, held: Windows, teacher: Transformer, step_count: int, seed: int) -> dict[str, Curve]:
    """Every arm of one seed."""
    every = np.arange(len(windows))
    scorer = trained(SCORER, windows, max(1, step_count // 4), seed)
    order = np.argsort([scorer.loss(row[None]) for row in windows], kind="stable")

    def batches() -> Iterator[NDArray[np.int64]]:
        return drawn(every, step_count, seed, paced=False)

    def paced(order: NDArray[np.int64]) -> Curve:
        rows = drawn(order, step_count, seed, paced=True)
        return curve(windows, held, rows, seed, spent_flops=scorer.flops_count)

    return {
        "labels": curve(windows, held, batches(), seed),
        "teacher": curve(windows, held, batches(), seed, teacher=teacher),
        "teacher and labels": curve(windows, held, batches(), seed, teacher=teacher, taught_share=0.5),
        "easy first": paced(order),
        "hard first": paced(order[::-1]),
    }


def verdict(low: float, high: float) -> str:
    """What an interval of a saving says."""
    return "pays" if low > 0 else "does not pay" if high < 0 else "no saving shown"


def rows_of(seeds: Sequence[dict[str, Curve]]) -> list[list[str]]:
    """A row for each arm."""
    rows = []
    bases = [arms["labels"] for arms in seeds]
    for name in seeds[0]:
        arms = [found[name] for found in seeds]
        row = [name, f"{np.mean([c.losses[-1] for c in arms]):.3f}"]
        if name == "labels":
            rows.append([*row, "-", "-", "base"])
            continue
        saved = {what: saving(arms, bases, what) for what in ("tokens", "flops")}
        said = [f"{mid:+.1%} ({low:+.1%} to {high:+.1%})" for mid, low, high in saved.values()]
        told = (f"{what} {verdict(*saved[of][1:])}" for of, what in (("tokens", "tokens:"), ("flops", "FLOPs:")))
        rows.append([*row, *said, ", ".join(told)])
    return rows


@click.command()
@click.option("--seeds", "seed_count", type=click.IntRange(_FEWEST_SEEDS), default=5, show_default=True)
@click.option("--steps", "step_count", type=click.IntRange(2 * LOOK_STEPS), default=500, show_default=True)
def main(seed_count: int, step_count: int) -> None:
    """Print what a teacher and an order of the data save."""
    known, held_text = split_text(shipped_text())
    windows, held = windows_of((known + further_text([shipped_text()]))[:TEXT_BYTES]), windows_of(held_text)
    teacher = trained(TEACHER, windows, 2 * step_count, 1)
    spent = teacher.flops_count
    print(f"teacher: held-out loss {teacher.loss(held):.3f} nats a byte, {spent / 1e12:.2f} TFLOP to train")
    columns = ["learns from", "final held-out loss", "tokens saved", "FLOPs saved", "verdict"]
    seeds: list[dict[str, Curve]] = []
    for seed in range(1, seed_count + 1):
        seeds.append(arms_of(windows, held, teacher, step_count, seed))
        print(f"seed {seed}: " + ", ".join(f"{name} {c.losses[-1]:.3f}" for name, c in seeds[-1].items()), flush=True)
        if seed >= _FEWEST_SEEDS:  # kept after each, so that a run that is ended early has said something
            command = f"python -m bench training_savings --seeds {seed} --steps {step_count}"
            keep("workloads/training-savings.json", columns, rows_of(seeds), command)


if __name__ == "__main__":
    main()
