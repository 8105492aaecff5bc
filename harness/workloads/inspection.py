"""Looking inside: what a tap on the residual stream costs, what a dictionary of features explains, what a probe reads.

``encode``: a text's activations as few features out of a dictionary, a TopK trained on the model's own
activations and kept in the cache as a folder of SAELens; a folder that is put there is used in its place.
``loss``: the loss of the model with the reconstruction in its stream, beside zeros, the mean, as many
principal components and as many features of a dictionary that was never trained. ``probe``: what a linear
classifier reads from a text's mean activation (Hewitt and Liang 2019, arXiv:1909.03368).

Some tokens, the first of a text mostly, have norms many times the others': attention sinks, not content (Sun
et al. 2024, "Massive Activations in Large Language Models"). They are told apart, and left as they are.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from harness.arrays import Doubles, Flags, Singles
from harness.catalog.gguf import read_gguf
from harness.domain.base import REFERENCE, shipped_text
from harness.domain.model import Weights
from harness.domain.result import Score
from harness.errors import EngineError, RefusedError
from harness.ports import EndPass
from harness.runtimes.llamacpp.quality import log_probabilities
from harness.stats.logistic import logistic
from harness.workloads.dictionary import CONFIG, Dictionary, load, save, train
from harness.workloads.parts import LanguageModel, Parts
from harness.workloads.passes import Chain, Op, Pass
from harness.workloads.scores import always, resampled, rows_of, share
from harness.workloads.system import Answers, Case, Context, Size, System

WINDOW_TOKENS: Final = 512
"""Most tokens of a text that are read: one physical batch, so that a tap sees them together."""
MASSIVE_RATIO: Final = 8.0
"""A token whose norm is more than this multiple of the median is massive."""
FOLDS: Final = 5
_TRAIN_SHARE: Final = 0.9
_CASE_CHARS: Final = 1000
_WORDS: Final = 24
_PENALTY: Final = 1e-2


class Encode(Case, tag="encode"):
    """A text whose activations are encoded and decoded."""

    text: str


class Loss(Case, tag="loss"):
    """A text whose loss is taken with reconstructions in the stream."""

    text: str


class Probe(Case, tag="probe"):
    """A text and its label."""

    text: str
    label: bool


class Stream:
    """The residual stream after one block, 0 for the middle one; the tap of a session of its own.

    Raises:
        RefusedError: No such block, or the last one: llama.cpp computes it for tokens alone whose logits are
            asked for.
    """

    def __init__(self, parts: Parts, layer: int = 0, *, thread_count: int = 1) -> None:
        assert parts.language is not None
        path = parts.language.path
        shape = read_gguf(path).shape()
        self.dim = shape.hidden_dim
        self.layer = layer or shape.layer_count // 2
        if not 0 <= self.layer < shape.layer_count - 1:
            raise RefusedError(
                f"layer {layer}: {path.name} has blocks 0 to {shape.layer_count - 2} before its last one"
            )
        self._share = (self.layer + 1) / shape.layer_count
        self._taken: Singles | None = None
        self._change: Callable[[Singles], Singles] | None = None
        opened: dict[str, Any] = {"thread_count": thread_count, "context_tokens": WINDOW_TOKENS, "tap": self}
        self.language = LanguageModel.open(path, parts.meter, **opened)

    def wants(self, name: str) -> bool:
        """That result alone."""
        return name == f"l_out-{self.layer}"

    def __call__(self, name: str, values: Singles) -> Singles | None:
        """Keep the values and end the pass there, or change them and go on."""
        self._taken = values
        if self._change is None:
            raise EndPass
        return self._change(values)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text's beginning; RefusedError for fewer than two."""
        ids = self.language.session.tokenize(text)[:WINDOW_TOKENS]
        if len(ids) < 2:
            raise RefusedError(f"a text of {len(ids)} tokens has no activations to look at: {text[:40]!r}")
        return ids

    def read(self, tokens: Sequence[int]) -> Singles:
        """Activations [tokens, dim]; EngineError where the model computes none of that name for each token."""
        self._taken = None
        self._change = None
        self.language.forget()
        self.language.read(tokens, op=Op.TAP, logits="none", share=self._share)
        self.language.forget()
        if self._taken is None or len(self._taken) != len(tokens):
            raise EngineError(f"no result l_out-{self.layer} for each of {len(tokens)} tokens")
        return self._taken

    def loss(self, tokens: Sequence[int], change: Callable[[Singles], Singles]) -> float:
        """Mean loss of the tokens from the third on, nats, with ordinary tokens of the stream changed."""

        def changed(values: Singles) -> Singles:
            kept = ordinary(values)
            values[kept] = change(values[kept])
            return values

        self._change = changed
        self.language.forget()
        self.language.read(tokens, op=Op.TAP, logits="all")
        session = self.language.session
        logs = log_probabilities(np.stack([session.logits(at) for at in range(1, len(tokens) - 1)]))
        return -float(logs[range(len(logs)), tokens[2:]].mean(dtype=np.float64))


def ordinary(values: Singles) -> Flags:
    """Which tokens [tokens] are not massive."""
    norms = np.linalg.norm(values, axis=1)
    kept: Flags = norms <= MASSIVE_RATIO * np.median(norms)
    return kept


class InspectState(NamedTuple):
    """The stream, the dictionary, and what replaces activations in a loss, by name."""

    stream: Stream
    dictionary: Dictionary | None
    changes: dict[str, Callable[[Singles], Singles]]
    parts: Parts


class InspectSystem(System):
    """A tap, a dictionary and a probe on the stream of a language model."""

    name = "inspect"
    title = "Looking inside: the cost of a tap, sparse features beside principal components, probes of labels"
    kinds = (Encode, Loss, Probe)
    extra = "llama"
    parts = ("language",)
    context_tokens = WINDOW_TOKENS
    sizes = {
        "default": {
            "layer": 0,
            "expansion_ratio": 8,
            "active_count": 32,
            "train_tokens": 32768,
            "step_count": 600,
        },
        "small": {
            "layer": 0,
            "expansion_ratio": 2,
            "active_count": 16,
            "train_tokens": 4096,
            "step_count": 20,
        },
    }

    def cases(self, size: Size, seed: int) -> Sequence[Any]:
        """Pieces of the last tenth of the text that ships.

        Stretches of it with their words in order or not.
        """
        later = _split()[1]
        pieces = [later[at : at + _CASE_CHARS] for at in range(0, len(later) - _CASE_CHARS, _CASE_CHARS)]
        rng = random.Random(seed)
        words = shipped_text(REFERENCE).split()
        probes = []
        for number, place in enumerate(rng.sample(range(len(words) // _WORDS), 60)):
            stretch = words[place * _WORDS : (place + 1) * _WORDS]
            is_whole = number % 2 == 0
            probes.append(
                Probe(text=" ".join(stretch if is_whole else rng.sample(stretch, _WORDS)), label=is_whole)
            )
        return [*map(_encode, pieces), *(Loss(text=piece) for piece in pieces[:4]), *probes]

    def prepare(self, parts: Parts, size: Size, context: Context) -> InspectState:
        """Open the model with a tap; load the dictionary from the cache, or train it and keep it there."""
        stream = Stream(parts, size["layer"], thread_count=context.thread_count)
        sizes = "-".join(f"{key[0]}{value}" for key, value in size.items())
        folder = context.cache / "autoencoders" / f"{stream.language.path.stem}-l{stream.layer}-{sizes}"
        x = activations(stream, size["train_tokens"])
        features = size["expansion_ratio"] * stream.dim
        if not (folder / CONFIG).is_file():
            save(train(x, features, size["active_count"], size["step_count"], context.seed), folder)
        dictionary = load(folder)
        width = len(dictionary.arrays["b_dec"])
        if width != stream.dim:
            raise RefusedError(
                f"{folder}: a dictionary for {width} values; the model's activations have {stream.dim}"
            )
        mean = x.mean(axis=0)
        axes = np.linalg.eigh(np.cov((x - mean).T))[1][:, ::-1][:, : size["active_count"]].astype(np.float32)
        random_one = train(x, features, size["active_count"], 0, context.seed + 1)
        changes: dict[str, Callable[[Singles], Singles]] = {
            "clean": lambda values: values,
            "zeros": np.zeros_like,
            "dictionary": lambda values: dictionary.decode(dictionary.encode(values)),
            "the mean": lambda values: np.broadcast_to(mean, values.shape),
            "as many principal components": lambda values: (values - mean) @ axes @ axes.T + mean,
            "as many random features": lambda values: random_one.decode(random_one.encode(values)),
        }
        return InspectState(stream, dictionary, changes, parts)

    def step(self, state: InspectState, case: Any) -> dict[str, Any]:
        """The error of a reconstruction, the loss under each change, or the mean activation of ordinary tokens."""
        tokens = state.stream.tokens(case.text)
        if isinstance(case, Loss):
            return {name: state.stream.loss(tokens, change) for name, change in state.changes.items()}
        values = state.stream.read(tokens)
        x = values[ordinary(values)]
        if isinstance(case, Probe):
            return {"activation": [float(f"{value:.4g}") for value in x.mean(axis=0, dtype=np.float64)]}
        assert state.dictionary is not None
        features = state.dictionary.feature_count
        one = Pass(part="dictionary", op=Op.ENCODE, tokens=len(x), moved_bytes=4 * x.shape[1] * features,
                   flops=2 * x.size * features)  # fmt: skip
        with state.parts.meter.timed(one):
            z = state.dictionary.encode(x)
        y = state.dictionary.decode(z)
        return {
            "active_count": float(np.count_nonzero(z)) / len(x),
            "squared_error": float(np.sum((y - x) ** 2, dtype=np.float64)),
            "squared_spread": float(np.sum((x - x.mean(axis=0)) ** 2, dtype=np.float64)),
        }

    def chain(self, case: Any, size: Size, chain: Chain) -> None:
        """Half a pass, which ends at the layer, and the product with the dictionary.

        For losses six whole passes.
        """
        tokens = min(chain.count("language", case.text), WINDOW_TOKENS)
        if isinstance(case, Loss):
            chain.passes += [Pass(part="language", op=Op.TAP, tokens=tokens)] * 6
            return
        chain.passes.append(Pass(part="language", op=Op.TAP, tokens=tokens, share=0.5))

    def held_bytes(self, size: Size, weights: Mapping[str, Weights]) -> int:
        """Three dictionaries of two matrices each, activations, and a second cache of the model."""
        dim = weights["language"].shape.hidden_dim
        return 4 * dim * (6 * dim * size["expansion_ratio"] + 4 * size["train_tokens"])

    def score(self, cases: Sequence[Any], answers: Answers) -> Sequence[Score]:
        """Unexplained variance, loss recovered against zeros, and the accuracy of a probe, each beside its nulls.

        Unexplained variance is sum |y - x|^2 / sum |x - mean x|^2, the mean of each text. Loss recovered is
        (zeros - spliced) / (zeros - clean).
        """
        scores = []
        coded = [answer for _, answer in rows_of(cases, answers, Encode)]
        if coded:
            rows = [(answer["squared_error"], answer["squared_spread"]) for answer in coded]
            unexplained: dict[str, Any] = {"more_is_better": False, "nulls": {"the mean": 1.0}}
            scores.append(
                resampled("fvu_ratio", rows, lambda r: float(r[:, 0].sum() / r[:, 1].sum()), **unexplained)
            )
            active = float(np.mean([answer["active_count"] for answer in coded]))
            scores.append(Score(name="active_count", value=active, count=len(coded)))
        losses = [answer for _, answer in rows_of(cases, answers, Loss)]
        if losses:
            names = [name for name in losses[0] if name not in {"clean", "zeros", "dictionary"}]
            table = {
                name: [answer[name] for answer in losses] for name in ("zeros", "clean", "dictionary", *names)
            }
            nulls = {
                name: _recovered(np.array([table["zeros"], table["clean"], table[name]]).T) for name in names
            }
            spliced = list(zip(table["zeros"], table["clean"], table["dictionary"], strict=True))
            scores.append(resampled("recovered_ratio", spliced, _recovered, "loss", nulls))
        probed = rows_of(cases, answers, Probe)
        labels = np.array([case.label for case, _ in probed], np.bool_)
        if min(labels.sum(), (~labels).sum()) >= FOLDS:
            x = np.array([answer["activation"] for _, answer in probed])
            mixed = np.random.default_rng(0).permutation(labels)
            nulls = {
                "the commoner label": always(labels.tolist()),
                "labels in random order": float(held_out(x, mixed).mean()),
                "the words alone": float(
                    held_out(words_of([case.text for case, _ in probed]), labels).mean()
                ),
            }
            scores.append(share("right_ratio", held_out(x, labels).tolist(), "probe", nulls))
        return scores


def _encode(text: str) -> Encode:
    return Encode(text=text)


def _recovered(rows: Any) -> float:
    """Of rows [n, (zeros, clean, spliced)]."""
    zeros, clean, spliced = rows.mean(axis=0)
    return float((zeros - spliced) / (zeros - clean))


def activations(stream: Stream, most_tokens: int) -> Singles:
    """Of the ordinary tokens of the first nine tenths of the text that ships, or of their beginning."""
    tokens = stream.language.session.tokenize(_split()[0])[:most_tokens]
    windows = [tokens[at : at + WINDOW_TOKENS] for at in range(0, len(tokens) - 1, WINDOW_TOKENS)]
    read = [stream.read(window) for window in windows]
    return np.concatenate([values[ordinary(values)] for values in read])


def held_out(x: Doubles, labels: Flags) -> Flags:
    """Whether each row [rows, dim] is predicted rightly by a classifier fitted on the other four folds."""
    fold = np.empty(len(labels), np.int64)
    for label in (True, False):
        rows = np.flatnonzero(labels == label)
        fold[rows] = np.arange(len(rows)) % FOLDS
    right = np.zeros(len(labels), np.bool_)
    for number in range(FOLDS):
        rest = fold != number
        mean = x[rest].mean(axis=0)
        deviation = np.maximum(x[rest].std(axis=0), 1e-9)
        design = np.column_stack([(x - mean) / deviation, np.ones(len(x))])
        penalty = np.append(np.full(x.shape[1], _PENALTY), 0.0)
        solved = logistic(design[rest], labels[rest], penalty)
        right[~rest] = (design[~rest] @ solved > 0) == labels[~rest]
    return right


def words_of(texts: Sequence[str]) -> Doubles:
    """Which words each text has [texts, words]."""
    known = sorted({word for text in texts for word in text.lower().split()})
    return np.array([[word in text.lower().split() for word in known] for text in texts], np.float64)


def _split() -> tuple[str, str]:
    text = shipped_text(REFERENCE)
    cut = int(len(text) * _TRAIN_SHARE)
    return text[:cut], text[cut:]


SYSTEM = InspectSystem()
