"""Where does a model keep which country was named? Activations patched from one prompt into another, layer by layer.

    python -m bench patching MODEL.gguf [--layers 8]

Two prompts differ in one country ("The capital of France is"). In the run of the corrupt prompt the residual stream
after one block is replaced, at the last token of the country alone, by that of the clean prompt. With m the clean
capital's log-probability less the corrupt one's (first tokens), the effect is

    recovered = (m patched - m corrupt) / (m clean - m corrupt)

1 where the patch brings the clean answer back, 0 where it does nothing. The null patches the stream of a third country:
it breaks the corrupt answer as well and does not name the clean one. p: exact sign test over pairs, clean patch
against null. Only prompts count that the model answers rightly. Each country is the clean one once, beside others of as
many tokens.
Sources: Vig et al. 2020; Meng et al. 2022, "Locating and Editing Factual Associations in GPT"; Zhang and Nanda 2024,
"Towards Best Practices of Activation Patching".
"""

from collections.abc import Sequence
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from bench._kept import keep
from harness.catalog.gguf import read_gguf
from harness.ports import Session
from harness.runtimes.llamacpp import RUNTIME
from harness.stats.intervals import cluster_interval
from harness.workloads._language.activations import BLOCK, LayerTap, scenario_of
from harness.workloads._language.judgement import signal
from harness.workloads._language.sampling import log_softmax_at

BEFORE, AFTER = "The capital of", " is the city of"
CAPITALS: Final = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "China": "Beijing", "Russia": "Moscow",
    "Egypt": "Cairo", "Greece": "Athens", "Germany": "Berlin", "England": "London", "Portugal": "Lisbon",
    "Austria": "Vienna", "Ireland": "Dublin", "Norway": "Oslo", "Cuba": "Havana", "Peru": "Lima", "Iran": "Tehran",
    "Poland": "Warsaw", "Turkey": "Ankara", "Canada": "Ottawa", "Kenya": "Nairobi", "Hungary": "Budapest",
}  # fmt: skip


class Prompt(NamedTuple):
    """Tokens of a prompt, where its country ends, and the first token of the capital."""

    country: str
    tokens: list[int]
    place: int
    answer: int


class Patch(LayerTap):
    """A tap that keeps one token of every block, and puts one of another run in its place in one block."""

    def __init__(self) -> None:
        super().__init__(BLOCK, self._patched)
        self.place, self.layer = 0, -1
        self.value: NDArray[np.float32] | None = None
        self.kept: dict[int, NDArray[np.float32]] = {}

    def _patched(self, layer: int, values: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Keep or replace; the last block is computed for fewer tokens and is left alone."""
        if self.place >= len(values):
            return None
        if layer != self.layer or self.value is None:
            self.kept[layer] = values[self.place].copy()
            return None
        values[self.place] = self.value
        return values


def prompts(session: Session) -> list[Prompt]:
    """One for each country."""
    found = []
    for country, capital in CAPITALS.items():
        head = session.tokenize(f"{BEFORE} {country}")
        whole = session.tokenize(f"{BEFORE} {country}{AFTER}")
        answer = session.tokenize(f" {capital}", add_special=False)[0]
        if whole[: len(head)] == head:
            found.append(Prompt(country, whole, len(head) - 1, answer))
    return found


def logits_of(session: Session, prompt: Prompt) -> NDArray[np.float32]:
    """Logits after a prompt."""
    session.clear()
    session.decode(prompt.tokens, position=0, logits="last")
    return session.logits().copy()


def effects(path: Path, layers: Sequence[int], threads: int) -> tuple[NDArray[Any], NDArray[Any], int]:
    """(recovered by the clean patch [pairs, layers], by the null [pairs, layers], prompts answered rightly)."""
    tap = Patch()
    with closing(RUNTIME.open(path, scenario_of(threads, 64), tap=tap)) as session:
        known, streams, plain = [], {}, {}
        for prompt in prompts(session):
            tap.place, tap.layer, tap.kept = prompt.place, -1, {}
            row = logits_of(session, prompt)
            if int(row.argmax()) == prompt.answer:
                known.append(prompt)
                streams[prompt.country], plain[prompt.country] = tap.kept, row
        pairs = _pairs(known)
        clean_rows: list[list[float]] = []
        null_rows: list[list[float]] = []
        for clean, corrupt, third in pairs:

            def margin(row: NDArray[np.float32], clean: Prompt = clean, corrupt: Prompt = corrupt) -> float:
                return log_softmax_at(row, clean.answer) - log_softmax_at(row, corrupt.answer)

            low, high = margin(plain[corrupt.country]), margin(plain[clean.country])
            tap.place = corrupt.place
            for source, rows in ((clean, clean_rows), (third, null_rows)):
                rows.append([])
                for layer in layers:
                    tap.layer, tap.value = layer, streams[source.country][layer]
                    rows[-1].append((margin(logits_of(session, corrupt)) - low) / (high - low))
    return np.array(clean_rows), np.array(null_rows), len(known)


def _pairs(known: Sequence[Prompt]) -> list[tuple[Prompt, Prompt, Prompt]]:
    """(clean, corrupt, third) of alike length, drawn; each country is the clean one once at most."""
    alike = [t for t in permutations(known, 3) if len({(len(p.tokens), p.place) for p in t}) == 1]
    rng = np.random.default_rng(1)
    seen: dict[str, tuple[Prompt, Prompt, Prompt]] = {}
    for at in rng.permutation(len(alike)):
        seen.setdefault(alike[int(at)][0].country, alike[int(at)])
    return list(seen.values())


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--layers", "layer_count", type=click.IntRange(2), default=8, show_default=True, help="Evenly spread.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(model: Path, layer_count: int, threads: int) -> None:
    """Print what a patch of the country's last token recovers after each block of MODEL."""
    # The last block is computed for the last token alone.
    layers = sorted({round(at) for at in np.linspace(0, read_gguf(model).shape().layer_count - 2, layer_count)})
    clean, null, known_count = effects(model, layers, threads)
    if len(clean) < 6:
        raise click.UsageError(f"{model.name} answers {known_count} prompts rightly: too few pairs for a test")
    rows = []
    for at, layer in enumerate(layers):
        said = [cluster_interval(side[:, at], np.ones(len(side))) for side in (clean, null)]
        test = signal(int((clean[:, at] > null[:, at]).sum()), len(clean))
        told = [f"{s.mid:+.2f} ({s.low:+.2f} to {s.high:+.2f})" for s in said]
        says = "causal" if test.says == "better than chance" else "no effect"
        rows.append([str(layer), *told, f"{test.p:.2g}", says])
    print(f"{known_count} of {len(CAPITALS)} prompts answered rightly, {len(clean)} pairs")
    columns = ["block", "recovered by the clean patch", "by a third country", "exact p", "says"]
    command = f"python -m bench patching {model.name} --layers {layer_count}"
    keep("workloads/patching.json", columns, rows, command)


if __name__ == "__main__":
    main()
