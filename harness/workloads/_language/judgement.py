"""Yes or no, one of a few letters, or one of several texts, by log-probability: no parsing of what a model says."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.ports import Session
from harness.stats.intervals import binomial_test, share_interval
from harness.workloads._language.generate import Branches, read_together
from harness.workloads._language.sampling import log_softmax_at
from harness.workloads._language.templates import ChatTemplate

Floats = NDArray[np.float64]

YES_NO: Final = ("Yes", "No")
_MOST_ROWS: Final = 512


class Signal(NamedTuple):
    """Whether answers tell more than a guess: right ones, all, the two-sided exact p, and what may be said of it."""

    right_count: int
    asked_count: int
    p: float
    says: str


def signal(right_count: int, count: int, *, chance: float = 0.5) -> Signal:
    """``better than chance``, ``worse than chance`` or ``no signal``, by the exact two-sided binomial test at 5 %."""
    p = binomial_test(right_count, count, chance)
    side = "better than chance" if right_count > chance * count else "worse than chance"
    return Signal(right_count, count, p, side if p <= 0.05 else "no signal")


def precision_recall(right_count: int, said_count: int, true_count: int) -> dict[str, Any]:
    """Precision, the right ones of all that were said, and recall, of all that are true, with their 95 % intervals."""
    found: dict[str, Any] = {}
    for name, count in (("precision", said_count), ("recall", true_count)):
        share = share_interval(right_count, count)
        found |= {name: share.mid, f"{name}_interval": [share.low, share.high]}
    return found


class Judge:
    """Asks one model short questions that begin alike; BadDataError where the template cannot be rendered.

    Args:
        session: With ``together`` sequences after ``home``.
        template: The model's chat template.
        instruction: What every question begins with.
        examples: Questions and their right answers, shown before each question.
        options: The answers that are weighed; their spellings in lower case and after a space count with them.
        together: Questions in one batch.
        home: Sequence that keeps the prefix; the questions run in those after it.
    """

    def __init__(
        self,
        session: Session,
        template: ChatTemplate,
        instruction: str,
        examples: Iterable[Sequence[str]] = (),
        *,
        options: Sequence[str] = YES_NO,
        together: int = 8,
        home: int = 0,
    ) -> None:
        self._session, self._together, self._home = session, together, home
        self._prefix, self._after = template.around(session, instruction, examples)
        self._is_kept = False
        self._options = [
            sorted({t for s in (o, o.lower(), f" {o}", f" {o.lower()}") for t in _first(session, s)}) for o in options
        ]
        self.read_count = 0

    def logits(self, questions: Sequence[str]) -> Floats:
        """Log-probability of each option as the first token of the answer, its spellings summed [questions, options].

        What comes before every question is read once and kept in ``home``; each question runs in a sequence of its
        own, several in one batch.
        """
        self.keep()
        start = len(self._prefix)
        found: list[Floats] = []
        waiting: list[tuple[int, list[int]]] = []
        for question in questions:
            prompt = self.tokens(question)
            if len(waiting) == self._together or sum(len(p) for _, p in waiting) + len(prompt) > _MOST_ROWS:
                found += self._run(self._home, waiting)
                waiting = []
            waiting.append((start, prompt))
        found += self._run(self._home, waiting)
        return np.stack(found) if found else np.empty((0, len(self._options)))

    def tokens(self, question: str) -> list[int]:
        """What is read of a question, after what comes before all of them."""
        return self._session.tokenize(question, add_special=False) + self._after

    def margins(self, questions: Sequence[str]) -> Floats:
        """Log-odds of the first option against the second [questions]."""
        both = self.logits(questions)
        return np.asarray(both[:, 0] - both[:, 1])

    def keep(self) -> None:
        """Read the prefix now, unless it is kept: where it lies in the cache decides how later sums are rounded."""
        if not self._is_kept:
            self._session.truncate(0, sequence=self._home)
            self._session.decode(self._prefix, position=0, sequence=self._home, logits="none")
            self._is_kept = True
            self.read_count += len(self._prefix)

    def _run(self, source: int, asked: Sequence[tuple[int, Sequence[int]]]) -> list[Floats]:
        """Answers to questions, each after the first so many tokens of a sequence; all in one batch."""
        if not asked:
            return []
        self.read_count += read_together(self._session, source, asked)
        found = [self._weighed(self._session.logits(at)) for at in range(len(asked))]
        for sequence in range(source + 1, source + 1 + len(asked)):
            self._session.truncate(0, sequence=sequence)
        return found

    def _weighed(self, row: NDArray[np.float32]) -> Floats:
        top = float(row.max())
        chances = np.exp(row.astype(np.float64) - top)
        sums = [max(float(chances[option].sum()), 1e-300) for option in self._options]
        weighed: Floats = np.log(sums) - np.log(chances.sum())
        return weighed

    def forget(self) -> None:
        """Read the prefix again before the next question: needed once something else has cleared the session."""
        self._is_kept = False


def _first(session: Session, text: str) -> list[int]:
    """The token of a text that is one token; nothing where it is more."""
    tokens = session.tokenize(text, add_special=False)
    return tokens if len(tokens) == 1 else tokens[:1] if not text.startswith(" ") else []


class Choice(NamedTuple):
    """What the model prefers.

    Attributes:
        best: Index of the option with the highest score; the first of equal ones.
        scores: Mean log-probability of each option's tokens, nats [options].
        shares: softmax(scores): a confidence in each option [options].
        token_count: Tokens read, the kept prefix left out.
    """

    best: int
    scores: NDArray[np.float64]
    shares: NDArray[np.float64]
    token_count: int


def choose(session: Session, prompt: Sequence[int], options: Sequence[Sequence[int]], *, kept_count: int = 0) -> Choice:
    """Score each option as the continuation of the prompt: (1 / m) sum over its m tokens of log P(token | before).

    Length normalisation as in ``acc_norm`` of lm-evaluation-harness, by tokens instead of bytes. The prompt is read
    once; the options, of one token or more each, share it and go through the model in one batch. The session has one
    sequence more than there are options; its sequence 0 holds ``kept_count`` tokens of the prompt, but not the last.
    """
    prompted = Branches(session, prompt, kept_count=kept_count)
    sums = np.array([log_softmax_at(prompted.first, option[0]) for option in options])
    rows = [(token, len(prompt) + at, n) for n, o in enumerate(options) for at, token in enumerate(o[:-1])]
    if rows:
        for n in range(len(options)):
            session.fork(0, n + 1)
        session.decode_rows([t for t, _, _ in rows], [p for _, p, _ in rows], [n + 1 for _, _, n in rows])
        for row, (_, position, n) in enumerate(rows):
            sums[n] += log_softmax_at(session.logits(row), options[n][position - len(prompt) + 1])
        for n in range(len(options)):
            session.truncate(0, sequence=n + 1)
    scores = sums / [len(o) for o in options]
    weights = np.exp(scores - scores.max())
    return Choice(int(scores.argmax()), scores, weights / weights.sum(), prompted.read_count + len(rows))
