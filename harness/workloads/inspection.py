"""Looking inside: what a tap on the residual stream costs, what a dictionary of features explains, what a probe reads.

``loss``: the loss of the model with a dictionary's reconstruction in its stream, beside zeros, the mean, as many
principal components and as many features of random directions. ``probe``: what the difference of two means reads
from a text's mean activation (Hewitt and Liang 2019, arXiv:1909.03368), and the time that its features take.

The dictionary is a TopK autoencoder (Gao et al. 2024, arXiv:2406.04093): z = the k largest of (x - mean) E, of
them those above zero; y = z D + mean. It is fitted to the model's own activations: D by least squares to the
features, E to its directions, in turns (Engan et al. 1999, "Method of optimal directions").

Some tokens, the first of a text mostly, have norms many times the others': attention sinks, not content (Sun
et al. 2024, "Massive Activations in Large Language Models"). They are told apart, and left as they are.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from harness.core.arrays import Flags, Singles
from harness.core.base import REFERENCE
from harness.core.errors import EngineError, RefusedError
from harness.core.ports import EndPass
from harness.core.tables import shipped_text
from harness.models.gguf import read_gguf
from harness.runtimes.llamacpp.text_scores import log_probabilities
from harness.workloads.chain import Op, RecordedPass, read
from harness.workloads.scores import always, of_kind, resampled, share
from harness.workloads.system import Answers, Cases, Context, PartWeights, Scores, Size, System, WorkloadCase
from harness.workloads.system_parts import LanguageModel, SystemParts

WINDOW_TOKENS = 512
"""Most tokens of a text that are read: one physical batch, so that a tap sees them together."""
MASSIVE_RATIO = 8.0
"""A token whose norm is more than this multiple of the median is massive."""
_TRAIN_SHARE = 0.9
_CASE_CHARS = 1000
_CASE_TOKENS = 250
"""Of such a piece, about."""
_LOGIT_COPIES = 6
"""In the engine, as rows, as one array, and thrice on the way to their logarithms."""
_WORDS = 24
_RIDGE = 1e-3
"""Added to the features' products, as a share of their mean square: some features are hardly ever active."""
Change = Callable[[Singles], Singles]


class Loss(WorkloadCase):
    """A text whose loss is taken with reconstructions in the stream."""

    needs = ("language",)
    text: str


class Probe(WorkloadCase):
    """A text and its label."""

    needs = ("language",)
    text: str
    label: bool


class ResidualStream:
    """The residual stream after the middle block; the tap of a session of its own."""

    def __init__(self, parts: SystemParts, thread_count: int = 1) -> None:
        path = parts.language.path
        shape = read_gguf(path).shape()
        self.dim, self.layer = shape.hidden_dim, shape.layer_count // 2
        self._share = (self.layer + 1) / shape.layer_count
        self._change: Change | None = None
        self.language = LanguageModel.open(path, parts.meter, WINDOW_TOKENS, thread_count, self)

    def wants(self, name: str) -> bool:
        """That result alone."""
        return name == f"l_out-{self.layer}"

    def __call__(self, name: str, values: Singles) -> Singles | None:
        """Keep the values and end the pass there, or change the ordinary tokens' and go on."""
        self._taken = values
        if self._change is None:
            raise EndPass
        flags = ordinary(values)
        values[flags] = self._change(values[flags])
        return values

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text's beginning; RefusedError for fewer than three."""
        ids = self.language.session.tokenize(text)[:WINDOW_TOKENS]
        if len(ids) < 3:
            raise RefusedError(f"a text of {len(ids)} tokens has no activations to look at: {text[:40]!r}")
        return ids

    def read(self, tokens: Sequence[int]) -> Singles:
        """Activations [tokens, dim]; EngineError where the model computes none of that name for each token."""
        self._taken = np.empty((0, self.dim), np.float32)
        self._run(tokens, None, "none", self._share)
        if len(self._taken) != len(tokens):
            raise EngineError(f"no result l_out-{self.layer} for each of {len(tokens)} tokens")
        return self._taken

    def loss(self, tokens: Sequence[int], change: Change) -> float:
        """Mean loss of the tokens from the third on, nats, with ordinary tokens of the stream changed."""
        self._run(tokens, change, "all")
        session = self.language.session
        logs = log_probabilities(np.stack([session.logits(at) for at in range(1, len(tokens) - 1)]))
        return -float(logs[range(len(logs)), tokens[2:]].mean(dtype=np.float64))

    def _run(self, tokens: Sequence[int], change: Change | None, logits: str, share: float = 1.0) -> None:
        self._change = change
        self.language.forget()
        self.language.read(tokens, op=Op.TAP, logits=logits, share=share)
        self.language.forget()


def ordinary(values: Singles) -> Any:
    """Which tokens [tokens] are not massive."""
    norms = np.linalg.norm(values, axis=1)
    return norms <= MASSIVE_RATIO * np.median(norms)


def usual(values: Singles) -> Any:
    """Activations [tokens, dim] of the ordinary tokens."""
    return values[ordinary(values)]


class Dictionary(NamedTuple):
    """An autoencoder: E [dim, features], D [features, dim], the mean [dim], and k."""

    encoder: Singles
    decoder: Singles
    mean: Singles
    active_count: int

    def encode(self, x: Singles) -> Singles:
        """Features [tokens, features] of activations [tokens, dim]; what is not active is 0."""
        h: Any = (x - self.mean) @ self.encoder
        least = np.partition(h, -self.active_count, axis=1)[:, -self.active_count, None]
        return np.where(h >= np.maximum(least, 1e-12), h, np.float32(0))

    def rebuilt(self, x: Singles) -> Singles:
        """Activations [tokens, dim] by their features alone."""
        y: Singles = self.encode(x) @ self.decoder + self.mean
        return y

    def fitted(self, x: Singles) -> Self:
        """The encoder has the decoder's directions, and then the decoder fits activations [tokens, dim] best."""
        count = len(self.decoder)
        units = self.decoder / np.maximum(np.linalg.norm(self.decoder, axis=1, keepdims=True), 1e-9)
        made = self._replace(encoder=units.T)
        products: Any = np.zeros((count, count))
        sums: Any = np.zeros(units.shape)
        for batch in np.split(x, range(WINDOW_TOKENS, len(x), WINDOW_TOKENS)):
            z = made.encode(batch)
            products += z.T @ z
            sums += z.T @ (batch - self.mean)
        products += np.eye(count) * (_RIDGE * max(products.trace() / count, 1e-9))
        return made._replace(decoder=np.linalg.solve(products, sums).astype(np.float32))


class InspectSystem(System):
    """A tap, a dictionary and a probe on the stream of a language model."""

    name = "inspect"
    title = "Looking inside: the cost of a tap, sparse features beside principal components, probes of labels"
    kinds = (Loss, Probe)
    context_tokens = WINDOW_TOKENS
    opens_again = True
    usual = {
        "loss": [read(_CASE_TOKENS, op=Op.TAP)] * 6,
        "probe": [read(2 * _WORDS, op=Op.TAP, share=0.5)],
    }
    sizes = {
        "default": {"expansion_ratio": 4, "active_count": 32, "train_tokens": 16384, "round_count": 2},
        "small": {"expansion_ratio": 2, "active_count": 16, "train_tokens": 4096, "round_count": 1},
    }

    def cases(self, size: Size) -> Cases:
        """Pieces of the last tenth of the text that ships; stretches of it with their words in order or not."""
        text = shipped_text(REFERENCE)
        start = int(len(text) * _TRAIN_SHARE)
        cases: list[Any] = [
            Loss(text=text[at:][:_CASE_CHARS]) for at in range(start, start + 4000, _CASE_CHARS)
        ]
        rng = random.Random(1)
        words = text.split()
        for number, place in enumerate(rng.sample(range(len(words) // _WORDS), 60)):
            stretch = words[place * _WORDS : (place + 1) * _WORDS]
            if number % 2:
                rng.shuffle(stretch)
            cases.append(Probe(text=" ".join(stretch), label=number % 2 == 0))
        return cases

    def prepare(self, context: Context) -> Any:
        """The stream, the dictionary fitted to it, and what replaces activations in a loss, by name."""
        size = context.size
        stream = ResidualStream(context.parts, context.thread_count)
        text = shipped_text(REFERENCE)
        ids = stream.language.session.tokenize(text[: int(len(text) * _TRAIN_SHARE)])[: size["train_tokens"]]
        places = range(0, len(ids) - 1, WINDOW_TOKENS)
        x: Singles = np.concatenate([usual(stream.read(ids[at : at + WINDOW_TOKENS])) for at in places])
        mean = x.mean(axis=0)
        rng = np.random.default_rng(1)
        count = size["expansion_ratio"] * stream.dim
        active_count = size["active_count"]
        drawn = x[rng.integers(0, len(x), count)] - mean
        dictionary = Dictionary(drawn.T, drawn, mean, active_count)
        for _ in range(size["round_count"]):
            dictionary = dictionary.fitted(x)
        other = rng.standard_normal(drawn.shape, np.float32)
        random_one = Dictionary(other.T, other, mean, active_count).fitted(x)
        axes = np.linalg.eigh(np.cov((x - mean).T))[1][:, -active_count:].astype(np.float32)
        changes: dict[str, Change] = {
            "clean": lambda values: values,
            "zeros": np.zeros_like,
            "dictionary": dictionary.rebuilt,
            "the mean": lambda values: np.broadcast_to(mean, values.shape),
            "as many principal components": lambda values: (values - mean) @ axes @ axes.T + mean,
            "as many random features": random_one.rebuilt,
        }
        return stream, dictionary, changes

    def step(self, state: Any, case: Any) -> Any:
        """The loss under each change, or the mean activation of ordinary tokens."""
        stream, dictionary, changes = state
        tokens = stream.tokens(case.text)
        if isinstance(case, Loss):
            return {name: stream.loss(tokens, change) for name, change in changes.items()}
        x = usual(stream.read(tokens))
        with stream.language.meter.timed(RecordedPass(part="dictionary", op=Op.ENCODE, tokens=len(x))):
            dictionary.encode(x)
        return {"activation": [float(f"{value:.4g}") for value in x.mean(axis=0, dtype=np.float64)]}

    def held_bytes(self, size: Size, weights: PartWeights) -> int:
        """Dictionaries, what they are fitted to, and the copies of a text's logits that a loss makes."""
        if "language" not in weights:
            return 0
        shape = weights["language"].shape
        features = size["expansion_ratio"] * shape.hidden_dim
        logits = _LOGIT_COPIES * _CASE_TOKENS * shape.vocab_count
        return 4 * (shape.hidden_dim * (6 * features + 4 * size["train_tokens"]) + logits)

    def score(self, cases: Cases, answers: Answers) -> Scores:
        """Loss recovered against zeros, (zeros - spliced) / (zeros - clean), and the accuracy of a probe."""
        scores = []
        losses = [answer for _, answer in of_kind(cases, answers, Loss)]
        if losses:
            table = np.array([list(row.values()) for row in losses])
            nulls = {}
            for at, name in enumerate([*losses[0]][3:], 3):
                nulls[name] = _recovered(table[:, [0, 1, at]])
            scores.append(resampled("recovered_ratio", table[:, :3], "loss", nulls, _recovered))
        probed = of_kind(cases, answers, Probe)
        labels = np.array([case.label for case, _ in probed], np.bool_)
        if min(labels.sum(), (~labels).sum()) > 1:
            right = left_out(np.array([answer["activation"] for _, answer in probed]), labels)
            scores.append(
                share("right_ratio", right, "probe", {"the commoner label": always(labels.tolist())})
            )
        return scores


def _recovered(rows: Any) -> float:
    """Of rows [n, (clean, zeros, spliced)]."""
    clean, zeros, spliced = rows.mean(axis=0)
    return float((zeros - spliced) / (zeros - clean))


def left_out(x: Any, labels: Flags) -> list[bool]:
    """Whether each row [rows, dim] is nearer the mean of its own label, both means taken of the other rows."""
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    right = []
    for row, label in enumerate(labels):
        alike = labels == label
        others = np.arange(len(x)) != row
        own, other = x[alike & others].mean(axis=0), x[~alike].mean(axis=0)
        right.append(bool(np.sum((x[row] - own) ** 2) < np.sum((x[row] - other) ** 2)))
    return right


SYSTEM = InspectSystem()
