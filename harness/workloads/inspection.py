"""Looking inside: what a tap on the residual stream costs, what a dictionary of features explains, what a probe reads.

``encode``: a text's activations as few features out of a dictionary, the folder of SAELens that the cache has for
the model, or a TopK trained on the model's own activations.
``loss``: the loss of the model with the reconstruction in its stream, beside zeros, the mean, as many
principal components and as many features of a dictionary that was never trained. ``probe``: what the
difference of two means reads from a text's mean activation (Hewitt and Liang 2019, arXiv:1909.03368).

Some tokens, the first of a text mostly, have norms many times the others': attention sinks, not content (Sun
et al. 2024, "Massive Activations in Large Language Models"). They are told apart, and left as they are.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from harness.arrays import Flags, Singles
from harness.catalog.gguf import read_gguf
from harness.domain.base import REFERENCE, shipped_text
from harness.domain.model import Weights
from harness.domain.result import Score
from harness.errors import EngineError, RefusedError
from harness.ports import EndPass
from harness.runtimes.llamacpp.quality import log_probabilities
from harness.workloads.dictionary import Dictionary
from harness.workloads.parts import LanguageModel, Parts
from harness.workloads.passes import Op, Pass
from harness.workloads.scores import always, of_kind, resampled, share
from harness.workloads.system import Answers, Case, Context, Size, System

WINDOW_TOKENS: Final = 512
"""Most tokens of a text that are read: one physical batch, so that a tap sees them together."""
MASSIVE_RATIO: Final = 8.0
"""A token whose norm is more than this multiple of the median is massive."""
_TRAIN_SHARE: Final = 0.9
_CASE_CHARS: Final = 1000
_CASE_TOKENS: Final = 250
"""Of such a piece, about."""
_LOGIT_COPIES: Final = 6
"""In the engine, as rows, as one array, and thrice on the way to their logarithms."""
_WORDS: Final = 24
Change = Callable[[Singles], Singles]


class Encode(Case, tag="encode"):
    """A text whose activations are encoded and decoded."""

    needs = ("language",)
    text: str


class Loss(Case, tag="loss"):
    """A text whose loss is taken with reconstructions in the stream."""

    needs = ("language",)
    text: str


class Probe(Case, tag="probe"):
    """A text and its label."""

    needs = ("language",)
    text: str
    label: bool


class Stream:
    """The residual stream after the middle block; the tap of a session of its own."""

    def __init__(self, parts: Parts, *, thread_count: int = 1) -> None:
        path = parts.language.path
        shape = read_gguf(path).shape()
        self.dim, self.layer = shape.hidden_dim, shape.layer_count // 2
        self._share = (self.layer + 1) / shape.layer_count
        self._taken: Singles | None = None
        self._change: Change | None = None
        self.language = LanguageModel.open(
            path, parts.meter, thread_count=thread_count, context_tokens=WINDOW_TOKENS, tap=self
        )

    def wants(self, name: str) -> bool:
        """That result alone."""
        return name == f"l_out-{self.layer}"

    def __call__(self, name: str, values: Singles) -> Singles | None:
        """Keep the values and end the pass there, or change the ordinary tokens' and go on."""
        self._taken = values
        if self._change is None:
            raise EndPass
        usual = ordinary(values)
        values[usual] = self._change(values[usual])
        return values

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text's beginning; RefusedError for fewer than three."""
        ids = self.language.session.tokenize(text)[:WINDOW_TOKENS]
        if len(ids) < 3:
            raise RefusedError(f"a text of {len(ids)} tokens has no activations to look at: {text[:40]!r}")
        return ids

    def read(self, tokens: Sequence[int]) -> Singles:
        """Activations [tokens, dim]; EngineError where the model computes none of that name for each token."""
        self._taken = None
        self._run(tokens, None, logits="none", share=self._share)
        if self._taken is None or len(self._taken) != len(tokens):
            raise EngineError(f"no result l_out-{self.layer} for each of {len(tokens)} tokens")
        return self._taken

    def loss(self, tokens: Sequence[int], change: Change) -> float:
        """Mean loss of the tokens from the third on, nats, with ordinary tokens of the stream changed."""
        self._run(tokens, change, logits="all")
        session = self.language.session
        logs = log_probabilities(np.stack([session.logits(at) for at in range(1, len(tokens) - 1)]))
        return -float(logs[range(len(logs)), tokens[2:]].mean(dtype=np.float64))

    def _run(self, tokens: Sequence[int], change: Change | None, logits: str, share: float = 1.0) -> None:
        self._change = change
        self.language.forget()
        self.language.read(tokens, op=Op.TAP, logits=logits, share=share)
        self.language.forget()


def ordinary(values: Singles) -> Flags:
    """Which tokens [tokens] are not massive."""
    norms = np.linalg.norm(values, axis=1)
    usual: Flags = norms <= MASSIVE_RATIO * np.median(norms)
    return usual


class InspectState(NamedTuple):
    """The stream, the dictionary, and what replaces activations in a loss, by name."""

    stream: Stream
    dictionary: Dictionary
    changes: dict[str, Change]
    parts: Parts


class InspectSystem(System):
    """A tap, a dictionary and a probe on the stream of a language model."""

    name = "inspect"
    title = "Looking inside: the cost of a tap, sparse features beside principal components, probes of labels"
    kinds = (Encode, Loss, Probe)
    extra = "llama"
    context_tokens = WINDOW_TOKENS
    sizes = {
        "default": {"expansion_ratio": 4, "active_count": 32, "train_tokens": 16384, "step_count": 300},
        "small": {"expansion_ratio": 2, "active_count": 16, "train_tokens": 4096, "step_count": 20},
    }

    def cases(self, size: Size, seed: int) -> Sequence[Any]:
        """Pieces of the last tenth of the text that ships; stretches of it with their words in order or not."""
        text = shipped_text(REFERENCE)
        starts = range(int(len(text) * _TRAIN_SHARE), len(text) - _CASE_CHARS, _CASE_CHARS)
        pieces = [text[at : at + _CASE_CHARS] for at in starts]
        rng = random.Random(seed)
        words = text.split()
        probes = []
        for number, place in enumerate(rng.sample(range(len(words) // _WORDS), 60)):
            stretch = words[place * _WORDS : (place + 1) * _WORDS]
            if number % 2:
                rng.shuffle(stretch)
            probes.append(Probe(text=" ".join(stretch), label=number % 2 == 0))
        return [
            *(Encode(text=piece) for piece in pieces),
            *(Loss(text=piece) for piece in pieces[:4]),
            *probes,
        ]

    def prepare(self, parts: Parts, size: Size, context: Context) -> InspectState:
        """Open the model with a tap; load the dictionary from the cache, or train it and keep it there."""
        stream = Stream(parts, thread_count=context.thread_count)
        text = shipped_text(REFERENCE)
        ids = stream.language.session.tokenize(text[: int(len(text) * _TRAIN_SHARE)])[: size["train_tokens"]]
        windows = [ids[at : at + WINDOW_TOKENS] for at in range(0, len(ids) - 1, WINDOW_TOKENS)]
        read = [stream.read(window) for window in windows]
        x = np.concatenate([values[ordinary(values)] for values in read])
        made = (x, size["expansion_ratio"], size["active_count"])
        random_one = Dictionary.untrained(*made, context.seed + 1)
        folder = context.cache / "autoencoders" / stream.language.path.stem
        if folder.is_dir():
            dictionary = Dictionary.read(folder, stream.dim)
        else:
            dictionary = Dictionary.untrained(*made, context.seed)
            dictionary.train(x, size["step_count"])
        mean = x.mean(axis=0)
        axes = np.linalg.eigh(np.cov((x - mean).T))[1][:, -dictionary.active_count :].astype(np.float32)
        changes: dict[str, Change] = {
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
        with state.parts.meter.timed(Pass(part="dictionary", op=Op.ENCODE, tokens=len(x))):
            z = state.dictionary.encode(x)
        return {"active_count": float(np.count_nonzero(z)) / len(x)}

    def held_bytes(self, size: Size, weights: Mapping[str, Weights]) -> int:
        """Dictionaries, their training, activations, and the copies of a text's logits that a loss makes."""
        shape = weights["language"].shape
        features = size["expansion_ratio"] * shape.hidden_dim
        logits = _LOGIT_COPIES * _CASE_TOKENS * shape.vocab_count
        return 4 * (shape.hidden_dim * (6 * features + 4 * size["train_tokens"]) + logits)

    def score(self, cases: Sequence[Any], answers: Answers) -> Sequence[Score]:
        """Loss recovered against zeros, (zeros - spliced) / (zeros - clean), and the accuracy of a probe."""
        scores = []
        losses = [answer for _, answer in of_kind(cases, answers, Loss)]
        if losses:
            rows_by_name = {
                name: np.array([(answer["zeros"], answer["clean"], answer[name]) for answer in losses])
                for name in losses[0]
                if name not in {"clean", "zeros"}
            }
            spliced = rows_by_name.pop("dictionary")
            nulls = {name: _recovered(rows) for name, rows in rows_by_name.items()}
            scores.append(resampled("recovered_ratio", spliced, _recovered, "loss", nulls))
        probed = of_kind(cases, answers, Probe)
        labels = np.array([case.label for case, _ in probed], np.bool_)
        if min(labels.sum(), (~labels).sum()) > 1:
            right = left_out(np.array([answer["activation"] for _, answer in probed]), labels)
            nulls = {"the commoner label": always(labels.tolist())}
            scores.append(share("right_ratio", right, "probe", nulls))
        return scores


def _recovered(rows: Any) -> float:
    """Of rows [n, (zeros, clean, spliced)]."""
    zeros, clean, spliced = rows.mean(axis=0)
    return float((zeros - spliced) / (zeros - clean))


def left_out(x: Any, labels: Flags) -> list[bool]:
    """Whether each row [rows, dim] is nearer the mean of its own label, both means taken of the other rows."""
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    right = []
    for row, label in enumerate(labels):
        others = np.arange(len(x)) != row
        distances = [
            np.sum((x[row] - x[others & (labels == one)].mean(axis=0)) ** 2) for one in (label, not label)
        ]
        right.append(bool(distances[0] < distances[1]))
    return right


SYSTEM = InspectSystem()
