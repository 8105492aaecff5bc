"""Yes or no, or one of a few letters, by log-probability: many questions at once behind one prefix that is read once."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.ports import Session
from harness.stats.intervals import binomial_test
from harness.workloads._language.templates import ChatTemplate, Message

Floats = NDArray[np.float64]

YES_NO: Final = ("Yes", "No")
_MOST_ROWS: Final = 512


class Signal(NamedTuple):
    """Whether answers tell more than a guess: right ones, all, the two-sided exact p, and what may be said of it."""

    right_count: int
    count: int
    p: float
    says: str


def signal(right_count: int, count: int, *, chance: float = 0.5, level: float = 0.05) -> Signal:
    """``better than chance``, ``worse than chance`` or ``no signal``, by the exact two-sided binomial test."""
    p = binomial_test(right_count, count, chance)
    side = "better than chance" if right_count > chance * count else "worse than chance"
    return Signal(right_count, count, p, side if p <= level else "no signal")


class Judge:
    """Asks one model short questions that begin alike.

    Args:
        session: With ``together`` sequences after ``home``.
        template: The model's chat template.
        instruction: What every question begins with.
        examples: Questions and their right answers, shown before each question.
        options: The answers that are weighed; their spellings in lower case and after a space count with them.
        together: Questions in one batch.
        home: Sequence that keeps the prefix; the questions run in those after it.

    Raises:
        BadDataError: The template cannot be rendered.
    """

    def __init__(
        self,
        session: Session,
        template: ChatTemplate,
        instruction: str,
        examples: Sequence[tuple[str, str]] = (),
        *,
        options: Sequence[str] = YES_NO,
        together: int = 8,
        home: int = 0,
    ) -> None:
        self._session, self._template, self._together, self._home = session, template, together, home
        self._head = [Message("system", instruction)]
        for question, answer in examples:
            self._head += [Message("user", question), Message("assistant", answer)]
        self._options = [sorted({t for s in _spellings(o) for t in _first(session, s)}) for o in options]
        self._prefix: list[int] = []
        self.read_count = 0

    def logits(self, questions: Sequence[str]) -> Floats:
        """Log-probability of each option as the first token of the answer, its spellings summed [questions, options].

        What all the questions' prompts begin with is read once and kept in ``home``; each prompt's rest runs in a
        sequence of its own, several in one batch.
        """
        prompts = [self._template.tokens(self._session, [*self._head, Message("user", q)]) for q in questions]
        if not prompts:
            return np.empty((0, len(self._options)))
        self._keep(prompts)
        found: list[Floats] = []
        rows: list[tuple[int, int, int, bool]] = []
        waiting = 0
        for at, prompt in enumerate(prompts):
            rest = prompt[len(self._prefix) :]
            start = len(self._prefix)
            rows += [(t, start + i, self._home + waiting + 1, i == len(rest) - 1) for i, t in enumerate(rest)]
            waiting += 1
            following = len(prompts[at + 1]) - start if at + 1 < len(prompts) else 0
            if not following or waiting == self._together or len(rows) + following > _MOST_ROWS:
                found += self._run(rows, waiting)
                rows, waiting = [], 0
        return np.stack(found)

    def margins(self, questions: Sequence[str]) -> Floats:
        """Log-odds of the first option against the second [questions]."""
        both = self.logits(questions)
        margins: Floats = both[:, 0] - both[:, 1]
        return margins

    def _keep(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read what all prompts share, one token less than the shortest; nothing where it is kept already."""
        bare = self._template.tokens(self._session, [*self._head, Message("user", "?")])
        shared = _shared([bare, *prompts])
        if shared == self._prefix:
            return
        self._session.truncate(0, sequence=self._home)
        self._session.decode(shared, position=0, sequence=self._home, logits="none")
        self._prefix, self.read_count = shared, self.read_count + len(shared)

    def _run(self, rows: Sequence[tuple[int, int, int, bool]], count: int) -> list[Floats]:
        session = self._session
        used = range(self._home + 1, self._home + 1 + count)
        for sequence in used:
            session.fork(self._home, sequence)
        tokens, positions, sequences, kept = zip(*rows, strict=True)
        session.decode_rows(tokens, positions, sequences, kept)
        self.read_count += len(rows)
        found = [self._weighed(session.logits(at)) for at in range(count)]
        for sequence in used:
            session.truncate(0, sequence=sequence)
        return found

    def _weighed(self, row: NDArray[np.float32]) -> Floats:
        top = float(row.max())
        chances = np.exp(row.astype(np.float64) - top)
        total = chances.sum()
        return np.log([max(float(chances[option].sum()), 1e-300) for option in self._options]) - np.log(total)

    def forget(self) -> None:
        """Drop the prefix: needed once something else has used the session."""
        self._prefix = []


def _spellings(option: str) -> tuple[str, ...]:
    return option, option.lower(), f" {option}", f" {option.lower()}"


def _first(session: Session, text: str) -> list[int]:
    """The token of a text that is one token; nothing where it is more."""
    tokens = session.tokenize(text, add_special=False)
    return tokens if len(tokens) == 1 else tokens[:1] if not text.startswith(" ") else []


def _shared(prompts: Sequence[Sequence[int]]) -> list[int]:
    shortest = min(prompts, key=len)
    for at, token in enumerate(shortest[:-1]):
        if any(prompt[at] != token for prompt in prompts):
            return list(shortest[:at])
    return list(shortest[:-1])
