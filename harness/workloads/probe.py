"""Probing: what a linear classifier can read from a layer of a language model, beside what it must be compared with.

A text's activations, massive tokens left out, are averaged over its tokens. Labels are predicted by logistic regression
in five folds. Accuracy alone says little (Hewitt and Liang 2019, arXiv:1909.03368): beside it stand the share of the
commoner label, the same classifier on labels in random order, and one that sees only which words a text has.
"""

import base64
import random
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.arrays import Doubles, Flags
from harness.domain.base import REFERENCE, shipped_text
from harness.stats.logistic import logistic
from harness.workloads.activations import ResidualStream, ordinary
from harness.workloads.parts import SystemParts
from harness.workloads.scores import signal
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

FOLDS: Final = 5
_WORDS: Final = 24
_PENALTY: Final = 1e-2


class Probe(System, table="probe"):
    """Activations of labelled texts."""

    def cases(self, size: Size, seed: int) -> Cases:
        """Stretches of 24 words of a text, half of them with their words in random order: no word tells the label."""
        rng = random.Random(seed)
        words = shipped_text(REFERENCE).split()
        places = rng.sample(range(len(words) // _WORDS), size["case_count"])
        cases = []
        for number, place in enumerate(places):
            stretch = words[place * _WORDS : (place + 1) * _WORDS]
            is_whole = number % 2 == 0
            cases.append({"text": " ".join(stretch if is_whole else rng.sample(stretch, _WORDS)), "label": is_whole})
        return cases

    def prepare(self, parts: SystemParts, size: Size, context: Context) -> ResidualStream:
        """Open the model with a tap on the block ``layer``, the middle one for 0."""
        return ResidualStream(parts, size["layer"], thread_count=context.thread_count)

    def step(self, state: ResidualStream, case: Case) -> dict[str, Any]:
        """The mean activation of the text's ordinary tokens, float16 in base64."""
        tokens = state.tokens(case["text"])
        values = state.read(tokens)
        mean = values[ordinary(values)].mean(axis=0, dtype=np.float64)
        return {"token_count": len(tokens), "layer": state.layer, "activation": packed(mean)}

    def cost(self, parts: PartNames, size: Size) -> Costs:
        """Half a pass over some 40 tokens: it ends at the layer."""
        return {"step": Cost(passes=(PartPass(part="language", tokens=40, count=0.5),), glue_s=3e-4)}

    def score(self, cases: Cases, answers: Answers) -> Figures:
        """Accuracy in five folds beside the commoner label, labels in random order, and the words alone."""
        labels = np.array([case["label"] for case in cases], np.bool_)
        if min(labels.sum(), (~labels).sum()) < FOLDS:
            return {"case_count": len(labels), "says": f"fewer than {FOLDS} texts of a label: nothing to learn from"}
        x = np.stack([unpacked(answer["activation"]) for answer in answers])
        right = held_out(x, labels)
        majority = float(max(labels.mean(), 1 - labels.mean()))
        mixed = np.random.default_rng(0).permutation(labels)
        return {
            "layer": answers[0]["layer"],
            "accuracy": signal(int(right.sum()), len(right), majority),
            "majority": majority,
            "random_labels": float(held_out(x, mixed).mean()),
            "words_alone": float(held_out(words_of([case["text"] for case in cases]), labels).mean()),
        }


def held_out(x: Doubles, labels: Flags, feature_count: int = 0) -> Flags:
    """Whether each row [rows, dim] is predicted rightly by a classifier fitted on the other four folds.

    Labels are spread evenly over the folds. With ``feature_count`` only so many columns are used: those whose means
    under both labels differ most in the training rows (a sparse probe; Gurnee et al. 2023, arXiv:2305.01610).
    """
    fold = np.empty(len(labels), np.int64)
    for label in (True, False):
        rows = np.flatnonzero(labels == label)
        fold[rows] = np.arange(len(rows)) % FOLDS
    right = np.zeros(len(labels), np.bool_)
    for number in range(FOLDS):
        train, test = fold != number, fold == number
        columns = np.arange(x.shape[1])
        if feature_count:
            gap = x[train & labels].mean(axis=0) - x[train & ~labels].mean(axis=0)
            columns = np.argsort(-np.abs(gap), kind="stable")[:feature_count]
        weights, bias = fit(x[train][:, columns], labels[train])
        right[test] = (x[test][:, columns] @ weights + bias > 0) == labels[test]
    return right


def fit(x: Doubles, labels: Flags) -> tuple[Doubles, float]:
    """Weights [dim] and bias of a logistic regression on standardised columns, with a ridge penalty; of both labels."""
    mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    design = np.column_stack([(x - mean) / deviation, np.ones(len(x))])
    penalty = np.append(np.full(x.shape[1], _PENALTY), 0.0)
    solved = logistic(design, labels, penalty)
    weights: Doubles = solved[:-1] / deviation
    return weights, float(solved[-1] - mean @ weights)


def words_of(texts: Sequence[str]) -> Doubles:
    """Which words each text has [texts, words]."""
    known = {word: at for at, word in enumerate(sorted({w for text in texts for w in text.lower().split()}))}
    table = np.zeros((len(texts), len(known)))
    for row, text in zip(table, texts, strict=True):
        row[[known[word] for word in text.lower().split()]] = 1.0
    return table


def packed(vector: NDArray[Any]) -> str:
    """A vector as float16 in base64, for a record; values beyond float16 are cut to its range."""
    return base64.b64encode(np.clip(vector, -65504, 65504).astype("<f2").tobytes()).decode()


def unpacked(text: str) -> Doubles:
    """What :func:`packed` gave."""
    return np.frombuffer(base64.b64decode(text), "<f2").astype(np.float64)


SYSTEM = Probe()
