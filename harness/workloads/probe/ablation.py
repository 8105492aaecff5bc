"""What induction heads do, by taking them out: loss on repeated text with them, without them, and without others.

A head is taken out by setting what it writes to its mean over the tokens of the pass (mean ablation: Wang et al. 2022,
"Interpretability in the wild"), before the layer's output matrix mixes heads. Heads are found on some sequences and
taken out on others. The null: as many other heads of the same layers, drawn anew each time;
p = (1 + draws that hurt at least as much) / (1 + draws). Loss on ordinary text tells whether what was taken
out does only that.
"""

from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.base import Frozen
from harness.errors import RefusedError
from harness.workloads._language.activations import OpenSession, scenario_of
from harness.workloads._language.texts import shipped_text
from harness.workloads.probe.induction import (
    LENGTH_TOKENS,
    SEQUENCE_COUNT,
    STRONG_SCORE,
    Head,
    copied,
    random_tokens,
    token_losses,
)

Floats = NDArray[np.float32]
Place = tuple[int, int]
"""(layer, head)."""

WRITTEN: Final = "kqv_out-"
"""llama.cpp's name of what a layer's heads write, one beside the other, before its output matrix."""
MOST_HEADS: Final = 12


class HeadsOut:
    """A tap that sets some heads to their mean over the tokens of a pass.

    Attributes:
        places: Heads to take out; may change between passes.
    """

    def __init__(self, head_count: int) -> None:
        self.head_count = head_count
        self.places: Collection[Place] = ()

    def wants(self, name: str) -> bool:
        """What the heads of every layer write."""
        return name.startswith(WRITTEN) and name[len(WRITTEN) :].isdigit()

    def __call__(self, name: str, values: Floats) -> Floats | None:
        """Take [token_count, heads x head width]."""
        heads = [head for layer, head in self.places if layer == int(name[len(WRITTEN) :])]
        if not heads:
            return None
        parts = values.reshape(len(values), self.head_count, -1).copy()
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


def null_draw(heads: Sequence[Head], taken: Sequence[Head], rng: np.random.Generator) -> list[Place]:
    """As many heads of each layer as were taken, from the others.

    Raises:
        RefusedError: A layer has too few of them.
    """
    gone = {(h.layer, h.head) for h in taken}
    out: list[Place] = []
    for layer in sorted({h.layer for h in taken}):
        wanted = sum(at == layer for at, _ in gone)
        others = [h.head for h in heads if h.layer == layer and (layer, h.head) not in gone]
        if len(others) < wanted:
            raise RefusedError(f"layer {layer} has {len(others)} other heads to stand for {wanted} induction heads")
        out += [(layer, int(head)) for head in rng.choice(others, wanted, replace=False)]
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
    """Take induction heads out, on other sequences than those that :func:`~.induction.induction` found them on.

    ``heads`` are all of the model by their score, the strongest first.

    Raises:
        RefusedError: No head scores above a half.
        EngineError: The engine refused the model.
    """
    strong = [h for h in heads if h.score > STRONG_SCORE][:MOST_HEADS]
    if not strong:
        raise RefusedError(f"{path.name}: no head scores above {STRONG_SCORE}, so there is none to take out")
    tap = HeadsOut(len(heads) // (1 + max(h.layer for h in heads)))
    scenario = scenario_of(thread_count, 2 * LENGTH_TOKENS, flash_attention=False)
    with closing(open_session(path, scenario, tap=tap)) as session:
        sequences = random_tokens(session, LENGTH_TOKENS, SEQUENCE_COUNT, seed + 1)
        text = session.tokenize(shipped_text()[:4000])[: 2 * LENGTH_TOKENS]

        def losses() -> Losses:
            first, second, _ = copied(session, sequences)
            return Losses(first, second, float(token_losses(session, text)[0].mean()))

        intact = losses()
        tap.places = {(h.layer, h.head) for h in strong}
        ablated = losses()
        rng = np.random.default_rng(seed)
        null = []
        for _ in range(draw_count):
            tap.places = null_draw(heads, strong, rng)
            null.append(copied(session, sequences)[1])
    return AblationReport(
        heads=tuple(strong),
        intact=intact,
        ablated=ablated,
        null_second_losses=tuple(null),
        p_value=(1 + sum(loss >= ablated.second for loss in null)) / (1 + draw_count),
        head_share=len(strong) / len(heads),
    )
