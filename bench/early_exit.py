"""Early exit by layer: what quality and what time each exit gives, and whether a calibrated exit pays.

``python -m bench.early_exit MODEL.gguf [--tokens 256] [--threads 2]``

The engine itself computes the logits of an exit: a tap keeps the residual stream after block k and puts it in place of
the last block's, so that norm and output matrix read it (the logit lens, nostalgebraist 2020). The time of an exit is
that of a pass that ends after block k, plus what norm and output matrix take. The exit rule: leave at the first of the
candidate layers whose most likely token has at least probability t; t is the smallest at which, on the first half of
the tokens, 95 % of the exits agree with the last layer (Schuster et al. 2022, "Confident Adaptive Language Modeling").
Every candidate that is looked at costs one output matrix. As a drafter that the whole model verifies, the same exit is
exact, and is paid with the whole pass besides.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.catalog.gguf import read_gguf
from harness.domain.scenario import Scenario
from harness.ports import EndPass
from harness.runtimes.llamacpp.session import LlamaSession
from harness.workloads._language.texts import shipped_text

Floats = NDArray[np.float32]
_AGREE = 0.95


class Exit:
    """Puts the residual stream after one block in place of the last one's."""

    def __init__(self, last: int) -> None:
        self.last, self.layer = last, last
        self._kept: Floats | None = None

    def wants(self, name: str) -> bool:
        """Every block's result."""
        return name.startswith("l_out-")

    def __call__(self, name: str, values: Floats) -> Floats | None:
        """Keep one, replace the last."""
        at = int(name.rpartition("-")[2])
        if at == self.layer:
            self._kept = values
        return self._kept if at == self.last and self.layer != self.last else None


class Stop:
    """Ends the pass after one block."""

    def __init__(self, layer: int) -> None:
        self._name = f"l_out-{layer}"

    def wants(self, name: str) -> bool:
        """The one block's result."""
        return name == self._name

    def __call__(self, name: str, values: Floats) -> Floats | None:
        """End, whatever it is."""
        del name, values
        raise EndPass


def qualities(
    path: Path, layer_count: int, tokens: Sequence[int], threads: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Top token [layers, n], its probability [layers, n] and the negative log-probability of what came [layers, n]."""
    tap = Exit(layer_count - 1)
    n = len(tokens)
    scenario = Scenario(context_tokens=n + 64, ubatch_tokens=n, thread_count=threads)
    tops, sure, lost = (np.zeros((layer_count, n - 1)) for _ in range(3))
    with closing(LlamaSession(path, scenario, tap=tap, batch_tokens=n)) as session:
        for layer in range(layer_count):
            tap.layer = layer
            session.clear()
            session.decode(tokens, position=0, logits="all")
            for at in range(n - 1):
                row = session.logits(at)
                gaps = row - row.max()
                total = float(np.exp(gaps).sum())
                tops[layer, at], sure[layer, at] = row.argmax(), 1 / total
                lost[layer, at] = np.log(total) - float(gaps[tokens[at + 1]])
    return tops, sure, lost


def seconds(
    path: Path, layer_count: int, tokens: Sequence[int], threads: int, repeats: int = 5
) -> tuple[NDArray[Any], float]:
    """Median time of one decoded token that ends after each block, and of norm and output matrix; taken in turns."""
    scenario = Scenario(context_tokens=len(tokens) + 64, thread_count=threads)
    whole = LlamaSession(path, scenario)
    taps = [LlamaSession(path, scenario, tap=Stop(layer)) for layer in range(layer_count)]
    times = np.zeros((repeats, len(taps) + 1))
    for turn in range(repeats):
        for at, session in enumerate([*taps, whole]):
            start = time.perf_counter()
            session.decode([tokens[0]], position=0)
            times[turn, at] = time.perf_counter() - start
            session.clear()
    for session in (*taps, whole):
        session.close()
    middle = np.median(times, 0)
    return middle[:-1], float(max(middle[-1] - middle[-2], 0.0))


def main() -> None:
    """Print the curve and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    layer_count = read_gguf(args.model).shape().layer_count
    with LlamaSession(args.model, Scenario()) as session:
        tokens = session.tokenize(shipped_text()[: 8 * args.tokens])[: args.tokens]
    tops, sure, lost = qualities(args.model, layer_count, tokens, args.threads)
    blocks_s, head_s = seconds(args.model, layer_count, tokens, args.threads)
    last = layer_count - 1
    print(f"{args.model.stem}, {len(tokens)} tokens; norm and output matrix {head_s * 1e3:.2f} ms")
    print("layer  agrees   NLL    ms/token  speed")
    for layer in range(layer_count):
        agrees = float((tops[layer] == tops[last]).mean())
        exit_s = blocks_s[layer] + head_s
        print(
            f"{layer:5d}  {agrees:6.3f}  {lost[layer].mean():5.2f}  {exit_s * 1e3:8.2f}  "
            f"{(blocks_s[last] + head_s) / exit_s:5.2f} x"
        )
    half = (len(tokens) - 1) // 2
    best = (1.0, "", 0.0, 0.0)
    for step in (2, 4, 8):
        candidates = list(range(last - step, last // 3, -step))[::-1]
        fits = [
            t for t in np.linspace(0.3, 0.999, 100) if _agreement(tops, sure, candidates, t, slice(0, half)) >= _AGREE
        ]
        if not fits:
            continue
        held = slice(half, None)
        layers, looks = _exits(sure, candidates, fits[0], held)
        spent = blocks_s[layers].mean() + head_s * looks.mean()
        gain = (blocks_s[last] + head_s) / spent
        agreed = _agreement(tops, sure, candidates, fits[0], held)
        best = max(best, (gain, f"every {step} layers, t = {fits[0]:.2f}", float(layers.mean()), agreed))
    if best[0] >= 1.15:
        print(f"pays: {best[0]:.2f} x with {best[1]}, mean exit {best[2]:.1f} of {last}, agreement {best[3]:.3f}")
    else:
        print(f"does not pay here: at most {best[0]:.2f} x {best[1]} at {_AGREE:.0%} agreement on the fitting half")


def _exits(sure: NDArray[Any], candidates: Sequence[int], t: float, rows: slice) -> tuple[NDArray[Any], NDArray[Any]]:
    """Exit layer of each token, and how many output matrices it was looked at with."""
    count = sure[0, rows].shape[0]
    layers = np.full(count, sure.shape[0] - 1)
    looks = np.full(count, len(candidates) + 1.0)
    for at, layer in reversed(list(enumerate(candidates))):
        leaves = sure[layer, rows] >= t
        layers[leaves], looks[leaves] = layer, at + 1
    return layers, looks


def _agreement(tops: NDArray[Any], sure: NDArray[Any], candidates: Sequence[int], t: float, rows: slice) -> float:
    layers, _ = _exits(sure, candidates, t, rows)
    chosen = tops[:, rows][layers, np.arange(len(layers))]
    return float((chosen == tops[-1, rows]).mean())


if __name__ == "__main__":
    main()
