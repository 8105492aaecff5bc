"""Sparse autoencoder: a text's activations as few features out of a dictionary, and what the model loses by them.

The dictionary is a TopK trained on the language model's own activations, kept in the cache as a folder of SAELens; a
folder of SAELens that is put there is used in its place. Time and quality are of that dictionary. Two kinds of case:
``encode`` encodes and decodes the activations of a text; ``loss`` also puts the reconstruction into the model's
stream, beside zeros, and compares the losses.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.arrays import Singles
from harness.domain.base import REFERENCE, shipped_text
from harness.errors import RefusedError
from harness.workloads.activations import WINDOW_TOKENS, ResidualStream, ordinary
from harness.workloads.parts import SystemParts
from harness.workloads.probe import FOLDS, held_out
from harness.workloads.scores import signal
from harness.workloads.sparse_autoencoder.model import CONFIG, SparseAutoencoder, load, save
from harness.workloads.sparse_autoencoder.training import Plan, Trainer
from harness.workloads.system import (
    Answers,
    Case,
    Cases,
    Context,
    Cost,
    Costs,
    Figures,
    PartNames,
    PartPass,
    Size,
    System,
)

_TRAIN_SHARE: Final = 0.9
_CASE_CHARS: Final = 1000
_KEPT_FEATURES: Final = 64


class DictionaryState(NamedTuple):
    """The stream and the dictionary."""

    stream: ResidualStream
    autoencoder: SparseAutoencoder


class SparseAutoencoderSystem(System, table="sparse_autoencoder"):
    """A dictionary on the stream of a language model."""

    def cases(self, size: Size, seed: int) -> Cases:
        """Pieces of the last tenth of the text that ships, not trained on; the first ones for losses too."""
        later = _split()[1]
        pieces = [later[at : at + _CASE_CHARS] for at in range(0, len(later) - _CASE_CHARS, _CASE_CHARS)]
        losses = [{"kind": "loss", "text": piece} for piece in pieces[:4]]
        return [*({"kind": "encode", "text": piece} for piece in pieces), *losses]

    def prepare(self, parts: SystemParts, size: Size, context: Context) -> DictionaryState:
        """Open the model with a tap; load the dictionary from the cache, or train it and keep it there."""
        stream = ResidualStream(parts, size["layer"], thread_count=context.thread_count)
        if stream.dim != size["dim"]:
            raise RefusedError(f"{stream.path.name} is {stream.dim} wide: ask for it with --size dim={stream.dim}")
        folder = dictionary_folder(context.cache, stream, size)
        if not (folder / CONFIG).is_file():
            x = training_rows(stream, size["train_tokens"])
            plan = Plan(
                feature_count=size["expansion_ratio"] * x.shape[1],
                active_count=size["active_count"],
                step_count=size["step_count"],
                seed=context.seed,
            )
            save(Trainer(x, plan).run(), folder, hook_name=f"l_out-{stream.layer}", train_tokens=len(x))
        autoencoder = load(folder)
        width = len(autoencoder.decoder_bias)
        if width != stream.dim:
            raise RefusedError(f"{folder}: a dictionary for {width} values; the model's activations have {stream.dim}")
        return DictionaryState(stream, autoencoder)

    def step(self, state: DictionaryState, case: Case) -> dict[str, Any]:
        """Encode and decode the ordinary tokens of a text; for ``loss`` the three losses, in nats."""
        stream = state.stream
        tokens = stream.tokens(case["text"])
        if case["kind"] == "loss":
            spliced = stream.loss(tokens, lambda x: state.autoencoder.decode(state.autoencoder.encode(x)))
            return {"clean": stream.loss(tokens), "spliced": spliced, "zeroed": stream.loss(tokens, np.zeros_like)}
        values = stream.read(tokens)
        x = values[ordinary(values)]
        codes = state.autoencoder.encode(x)
        y = state.autoencoder.decode(codes)
        totals = np.bincount(codes.indices.ravel(), codes.values.ravel(), state.autoencoder.decoder.shape[0]) / len(x)
        top = np.argsort(-totals, kind="stable")[:_KEPT_FEATURES]
        return {
            "token_count": len(x),
            "massive_count": len(values) - len(x),
            "active_count": int(np.count_nonzero(codes.values)) / len(x),
            "squared_error": float(np.sum((y - x) ** 2, dtype=np.float64)),
            "squared_spread": float(np.sum((x - x.mean(axis=0, dtype=np.float64)) ** 2)),
            "features": {str(at): float(totals[at]) for at in top if totals[at] > 0},
        }

    def cost(self, parts: PartNames, size: Size) -> Costs:
        """Half a pass over some 230 tokens and the encoder's product; for losses three whole passes."""
        dim, tokens = size["dim"], 230
        features = dim * size["expansion_ratio"]
        product = 2.0 * tokens * dim * features
        glue = 1e-3 + tokens * (8e-6 + 4e-9 * features + 2e-6)
        weights = dim * features
        held: dict[str, Any] = {"moved_bytes": 4.0 * weights, "resident_bytes": 8 * weights}
        half, whole = (PartPass(part="language", tokens=tokens, count=count) for count in (0.5, 3.0))
        return {
            "encode": Cost(passes=(half,), flops_count=product, glue_s=glue, **held),
            "loss": Cost(passes=(whole,), flops_count=product, glue_s=glue + 3 * tokens * 1e-3, **held),
        }

    def score(self, cases: Cases, answers: Answers) -> Figures:
        """Unexplained variance, features active at once, loss recovered against zeros, and sparse probes of labels.

        Unexplained variance is sum |y - x|^2 / sum |x - mean x|^2, the mean of each text. Loss recovered is
        (zeroed - spliced) / (zeroed - clean). A sparse probe sees one feature, or five, chosen on other texts.
        """
        rows = list(zip(cases, answers, strict=True))
        coded = [(c, a) for c, a in rows if c["kind"] == "encode"]
        losses = [a for c, a in rows if c["kind"] == "loss"]
        scores: dict[str, Any] = {}
        if coded:
            spread = sum(a["squared_spread"] for _, a in coded)
            tokens = sum(a["token_count"] for _, a in coded)
            scores["fvu_ratio"] = sum(a["squared_error"] for _, a in coded) / spread
            scores["active_count"] = sum(a["active_count"] * a["token_count"] for _, a in coded) / tokens
            scores["held_out_tokens"] = tokens
        if losses:
            means = {key: float(np.mean([a[key] for a in losses])) for key in ("clean", "spliced", "zeroed")}
            gap = means["zeroed"] - means["clean"]
            recovered = (means["zeroed"] - means["spliced"]) / gap if gap > 0 else None
            scores["loss"] = means | {"recovered_ratio": recovered}
        labelled = [(c["label"], a["features"]) for c, a in coded if "label" in c]
        labels = np.array([label for label, _ in labelled], np.bool_)
        if len(labels) and min(labels.sum(), (~labels).sum()) >= FOLDS:
            known = sorted({name for _, features in labelled for name in features})
            x = np.array([[features.get(name, 0.0) for name in known] for _, features in labelled])
            majority = float(max(labels.mean(), 1 - labels.mean()))
            right = {k: int(held_out(x, labels, k).sum()) for k in (1, 5)}
            scores["sparse_probe"] = {str(k): signal(hits, len(labels), majority) for k, hits in right.items()}
        return scores


def dictionary_folder(cache: Path, stream: ResidualStream, size: Size) -> Path:
    """Where the dictionary of a model, a layer and a size lies."""
    sizes = f"x{size['expansion_ratio']}-k{size['active_count']}-t{size['train_tokens']}-s{size['step_count']}"
    return cache / "autoencoders" / f"{stream.path.stem}-l{stream.layer}-{sizes}"


def training_rows(stream: ResidualStream, most_tokens: int) -> Singles:
    """Activations of the ordinary tokens of the first nine tenths of the text that ships, or of their beginning."""
    tokens = stream.language.session.tokenize(_split()[0])[:most_tokens]
    windows = [tokens[at : at + WINDOW_TOKENS] for at in range(0, len(tokens) - 1, WINDOW_TOKENS)]
    read = [stream.read(window) for window in windows]
    return np.concatenate([values[ordinary(values)] for values in read])


def _split() -> tuple[str, str]:
    text = shipped_text(REFERENCE)
    cut = int(len(text) * _TRAIN_SHARE)
    return text[:cut], text[cut:]


SYSTEM = SparseAutoencoderSystem()
