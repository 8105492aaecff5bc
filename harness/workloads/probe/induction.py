"""Whether a model copies from its own context, which heads do it, and what taking them out does.

A sequence of random tokens is read twice in a row. Nothing but the first copy can predict the second one, so

    induction score = mean loss of the first copy - mean loss of the second, nats a token (first token of each left out)

A head is an induction head when, reading a token in the second copy, it attends to the token that followed the same
token in the first: its prefix-matching score is the mean attention probability from position i to i - length + 1.
Source: Olsson et al. 2022, "In-context learning and induction heads", transformer-circuits.pub.

Ablation. A head is taken out by setting what it writes to its mean over the tokens of the pass (mean ablation: Wang et
al. 2022, "Interpretability in the wild"), before the layer's output matrix mixes heads. Heads are found on some
sequences and taken out on others. The null: as many other heads of the same layers, drawn anew each time; p = (1 +
draws that hurt at least as much) / (1 + draws). Loss on ordinary text tells whether what was taken out does only that.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.base import Frozen
from harness.errors import EngineError, RefusedError
from harness.ports import Session
from harness.workloads._language.activations import LayerTap, OpenSession, scenario_of
from harness.workloads._language.sampling import token_losses
from harness.workloads._language.texts import shipped_text

Floats = NDArray[np.float32]

ATTENTION: Final = "kq_soft_max-"
"""llama.cpp's name of a layer's attention probabilities; they exist only without flash attention."""
WRITTEN: Final = "kqv_out-"
"""llama.cpp's name of what a layer's heads write, one beside the other, before its output matrix."""
LENGTH_TOKENS: Final = 64
SEQUENCE_COUNT: Final = 4
STRONG_SCORE: Final = 0.5
MOST_HEADS: Final = 12
_SHOWN_HEADS: Final = 10


class Head(Frozen, frozen=True, kw_only=True):
    """One attention head and its prefix-matching score."""

    layer: int
    head: int
    score: float


class InductionReport(Frozen, frozen=True, kw_only=True):
    """What repeated random tokens show.

    Attributes:
        first_loss: Mean loss of the first copy, nats a token; about ln(vocabulary) or worse, since it is random.
        copied_ratio: Share of the second copy's tokens that are the most likely ones.
        heads: Heads by prefix-matching score, the strongest first.
        uniform_score: What a head would score that attends to all tokens so far alike: the mean of 1 / (i + 1) over
            the positions i of the second copy.
        strong_count: Heads whose score is above a half.
    """

    sequence_count: int
    length_tokens: int
    first_loss: float
    second_loss: float
    score: float
    copied_ratio: float
    heads: tuple[Head, ...]
    uniform_score: float
    strong_count: int


def prefix_matching(attention: Floats, length_tokens: int) -> NDArray[np.float64]:
    """Score of each head [head_count] from probabilities [head_count, 2 length, at least 2 length].

    Raises:
        EngineError: The pass did not read both copies at once.
    """
    if attention.ndim != 3 or attention.shape[1] != 2 * length_tokens or attention.shape[2] < 2 * length_tokens:
        raise EngineError(f"attention of shape {attention.shape} for two copies of {length_tokens} tokens")
    at = np.arange(length_tokens, 2 * length_tokens)
    return np.asarray(attention[:, at, at - length_tokens + 1].mean(axis=1, dtype=np.float64))


def random_tokens(session: Session, length_tokens: int, count: int, seed: int) -> list[list[int]]:
    """Sequences of different ordinary tokens: control tokens and byte pieces, which print nothing, are left out."""
    rng = np.random.default_rng(seed)
    found: list[list[int]] = []
    while len(found) < count:
        drawn = dict.fromkeys(int(t) for t in rng.integers(0, session.vocab_count, 3 * length_tokens))
        ordinary = [t for t in drawn if session.detokenize([t]).strip() and "\ufffd" not in session.detokenize([t])]
        if len(ordinary) >= length_tokens:
            found.append(ordinary[:length_tokens])
    return found


def copied(session: Session, sequences: Sequence[Sequence[int]]) -> tuple[float, float, float]:
    """(mean loss of the first copy, of the second, share of the second's tokens that were the most likely ones).

    Each sequence is read twice in a row.
    """
    found = []
    for sequence in sequences:
        length = len(sequence)
        losses, hits = token_losses(session, [*sequence, *sequence])
        # Targets are tokens 1..2L-1. The second copy's first token follows the last one of the first by chance.
        found.append((losses[: length - 1].mean(), losses[length:].mean(), hits[length:].mean()))
    first, second, hit = np.mean(found, axis=0).tolist()
    return first, second, hit


def induction(
    open_session: OpenSession,
    path: Path,
    *,
    length_tokens: int = LENGTH_TOKENS,
    sequence_count: int = SEQUENCE_COUNT,
    thread_count: int = 1,
    seed: int = 1,
) -> tuple[InductionReport, list[Head]]:
    """Read repeated random tokens: how well they are copied and by which heads, and every head by its score.

    Raises:
        EngineError: The engine refused the model, or shows no attention probabilities.
    """
    scores: dict[int, list[NDArray[np.float64]]] = {}

    def keep(layer: int, attention: Floats) -> None:
        scores.setdefault(layer, []).append(prefix_matching(attention, length_tokens))

    scenario = scenario_of(thread_count, 2 * length_tokens, flash_attention=False)
    with closing(open_session(path, scenario, tap=LayerTap(ATTENTION, keep))) as session:
        first, second, hit = copied(session, random_tokens(session, length_tokens, sequence_count, seed))
    if not scores:
        raise EngineError(f"{path.name}: this engine shows no attention probabilities")
    means = {layer: np.mean(own, axis=0).tolist() for layer, own in scores.items()}
    found = [Head(layer=layer, head=at, score=s) for layer, own in means.items() for at, s in enumerate(own)]
    heads = sorted(found, key=lambda h: -h.score)
    report = InductionReport(
        sequence_count=sequence_count,
        length_tokens=length_tokens,
        first_loss=first,
        second_loss=second,
        score=first - second,
        copied_ratio=hit,
        heads=tuple(heads[:_SHOWN_HEADS]),
        uniform_score=float(np.mean(1 / (np.arange(length_tokens, 2 * length_tokens) + 1))),
        strong_count=sum(h.score > STRONG_SCORE for h in heads),
    )
    return report, heads


def without(heads: Sequence[int], values: Floats, head_count: int) -> Floats:
    """What a layer wrote [token_count, heads x head width], some heads set to their mean over the tokens."""
    parts = values.reshape(len(values), head_count, -1).copy()
    parts[:, heads] = parts[:, heads].mean(axis=0)
    return parts.reshape(values.shape)


class Losses(NamedTuple):
    """Nats a token: the first copy of random tokens, the second one, and ordinary text."""

    first: float
    second: float
    text: float


class AblationReport(Frozen, frozen=True, kw_only=True):
    """The causal effect of induction heads.

    Attributes:
        heads: Those taken out, by prefix-matching score on other sequences.
        null_second_losses: Second-copy losses without as many other heads of the same layers, one a draw.
        p_value: Chance of a loss as high by taking out others.
        head_share: Share of the model's heads that was taken out.
    """

    heads: tuple[Head, ...]
    intact: Losses
    ablated: Losses
    null_second_losses: tuple[float, ...]
    p_value: float
    head_share: float


def null_draw(heads: Sequence[Head], taken: Sequence[Head], rng: np.random.Generator) -> list[Head]:
    """As many heads of each layer as were taken, from the others; RefusedError where a layer has too few of them."""
    gone = {(h.layer, h.head) for h in taken}
    out: list[Head] = []
    for layer, wanted in sorted(Counter(h.layer for h in taken).items()):
        others = [h for h in heads if h.layer == layer and (layer, h.head) not in gone]
        if len(others) < wanted:
            raise RefusedError(f"layer {layer} has {len(others)} other heads to stand for {wanted} induction heads")
        out += [others[at] for at in rng.choice(len(others), wanted, replace=False)]
    return out


def ablation(
    open_session: OpenSession,
    path: Path,
    heads: Sequence[Head],
    *,
    draw_count: int = 39,
    thread_count: int = 1,
    seed: int = 1,
) -> AblationReport:
    """Take induction heads out, on other sequences than those that :func:`induction` found them on.

    ``heads`` are all of the model by their score, the strongest first. RefusedError where no head scores above a half,
    EngineError where the engine refused the model.
    """
    strong = [h for h in heads if h.score > STRONG_SCORE][:MOST_HEADS]
    if not strong:
        raise RefusedError(f"{path.name}: no head scores above {STRONG_SCORE}, so there is none to take out")
    head_count = len(heads) // (1 + max(h.layer for h in heads))
    out: list[Head] = []

    def take_out(layer: int, written: Floats) -> Floats | None:
        own = [h.head for h in out if h.layer == layer]
        return without(own, written, head_count) if own else None

    scenario = scenario_of(thread_count, 2 * LENGTH_TOKENS, flash_attention=False)
    with closing(open_session(path, scenario, tap=LayerTap(WRITTEN, take_out))) as session:
        sequences = random_tokens(session, LENGTH_TOKENS, SEQUENCE_COUNT, seed + 1)
        text = session.tokenize(shipped_text()[:4000])[: 2 * LENGTH_TOKENS]

        def losses() -> Losses:
            first, second, _ = copied(session, sequences)
            return Losses(first, second, float(token_losses(session, text)[0].mean()))

        intact = losses()
        out = strong
        ablated = losses()
        rng = np.random.default_rng(seed)
        null = []
        for _ in range(draw_count):
            out = null_draw(heads, strong, rng)
            null.append(copied(session, sequences)[1])
    return AblationReport(
        heads=tuple(strong),
        intact=intact,
        ablated=ablated,
        null_second_losses=tuple(null),
        p_value=(1 + sum(loss >= ablated.second for loss in null)) / (1 + draw_count),
        head_share=len(strong) / len(heads),
    )
