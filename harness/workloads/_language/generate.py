"""Many answers in one batch: to one prompt, which is read once, or to prompts that begin alike.

Each sample draws with numbers of its own, so that it is the same whatever else is in the batch, wherever the engine's
batched arithmetic gives the same logits; where two tokens are nearly tied it may not.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.ports import Session
from harness.workloads._language.sampling import Pick, numbers, pick

Row = NDArray[np.float32]
_WORTH_SHARING: Final = 8
"""Tokens that two prompts have in common at least to be read once: a batch of its own costs as much as a few tokens."""


class Sample(NamedTuple):
    """One answer.

    Attributes:
        tokens: What was drawn, the token that ended it left out.
        log_probability: Sum over all tokens drawn, the ending one included (nats, at temperature 1).
        step_count: Tokens drawn, the ending one included.
    """

    tokens: tuple[int, ...]
    log_probability: float
    step_count: int


class Plan(NamedTuple):
    """How to draw.

    Attributes:
        new_tokens: Most tokens of an answer.
        temperature: 0 for greedy.
        seed: Sample i draws with the numbers of (seed, i).
        ends: Says whether a token ends an answer; None: only ``new_tokens`` does.
    """

    new_tokens: int
    temperature: float = 0.7
    seed: int = 0
    ends: Callable[[int], bool] | None = None


class Branches:
    """Answers to one prompt, as many at a time as wanted: the prompt is read once and shared.

    Sequence 0 keeps the prompt; sample number i of a batch runs in sequence i + 1. The session needs one sequence more
    than a batch has samples, and room for prompt + samples x tokens in a unified cache. It is cleared first, but for
    the first ``kept_count`` tokens of the prompt, where sequence 0 holds those already: they are not read again.

    Attributes:
        first: Logits [vocab_count] after the prompt.
    """

    def __init__(self, session: Session, prompt: Sequence[int], *, kept_count: int = 0) -> None:
        self._session = session
        self.prompt_count = len(prompt)
        kept_count = min(kept_count, len(prompt) - 1)
        if kept_count:
            session.truncate(kept_count)
        else:
            session.clear()
        session.decode(prompt[kept_count:], position=kept_count)
        self.read_count = len(prompt) - kept_count
        # Kept as a copy: reading the last token again by itself takes other kernels, and gives other logits.
        self.first = session.logits().copy()

    def draw(self, samples: Sequence[int], plan: Plan) -> list[Sample]:
        """Draw the samples of these numbers in one batch, one token of each a step."""
        for at in range(len(samples)):
            self._session.fork(0, at + 1)
        return draw(self._session, [self.first] * len(samples), [self.prompt_count] * len(samples), samples, plan)


def draw(
    session: Session, rows: Sequence[Row], lengths: Sequence[int], samples: Sequence[int], plan: Plan
) -> list[Sample]:
    """Go on from several prompts in one batch, one token of each a step; prompt i is in sequence i + 1, then freed.

    ``rows`` are the logits after each prompt, read before the session's next pass, ``lengths`` the tokens of each;
    ``samples`` the number of each sample, which gives it its random numbers.
    """
    drawn: list[list[Pick]] = [[] for _ in samples]
    given = [numbers(plan.seed, number, plan.new_tokens) for number in samples]
    waiting = list(range(len(samples)))
    for step in range(plan.new_tokens):
        for at, row in zip(waiting, rows, strict=True):
            drawn[at].append(pick(row, plan.temperature, given[at][step]))
        waiting = [at for at in waiting if plan.ends is None or not plan.ends(drawn[at][-1].token)]
        if not waiting or step + 1 == plan.new_tokens:
            break
        tokens = [drawn[at][-1].token for at in waiting]
        session.decode_rows(tokens, [lengths[at] + step for at in waiting], [at + 1 for at in waiting])
        rows = [session.logits(row) for row in range(len(waiting))]
    for sequence in range(1, len(samples) + 1):
        session.truncate(0, sequence=sequence)
    return [
        Sample(
            tuple(p.token for p in picks if plan.ends is None or not plan.ends(p.token)),
            sum(p.log_probability for p in picks),
            len(picks),
        )
        for picks in drawn
    ]


def answers(
    session: Session, kept_count: int, prompts: Sequence[Sequence[int]], samples: Sequence[int], plan: Plan
) -> list[Sample]:
    """One answer to each of several prompts, read and drawn together; sequence 0 holds what comes before all."""
    read_together(session, 0, [(kept_count, prompt) for prompt in prompts])
    rows = [session.logits(at) for at in range(len(prompts))]
    return draw(session, rows, [kept_count + len(prompt) for prompt in prompts], samples, plan)


def read_together(session: Session, source: int, prompts: Sequence[tuple[int, Sequence[int]]]) -> int:
    """Read several prompts in one batch, each in a sequence of its own after ``source``; the tokens that were read.

    Prompt i goes on after the first so many tokens of ``source``, in sequence source + 1 + i, and its last token's
    logits are kept as number i. Neighbours that go on at one place and begin alike (questions about one passage) share
    what they begin with: that is read once, in a batch before.
    """
    heads: list[tuple[int, int]] = []  # where a prompt's group begins, and the tokens that the group shares
    for at, (start, tokens) in enumerate(prompts):
        first, shared = heads[-1] if heads else (at, 0)
        known_start, known = prompts[first]
        most = min(len(tokens), len(known)) - 1 if start == known_start else 0
        alike = next((n for n in range(most) if tokens[n] != known[n]), most)
        if at and alike >= _WORTH_SHARING:
            shared = min(alike, shared) if first < at - 1 else alike
            heads[first:] = [(first, shared)] * (at + 1 - first)
        else:
            heads.append((at, 0))
    early: list[tuple[int, int, int, bool]] = []
    late: list[tuple[int, int, int, bool]] = []
    for at, ((start, tokens), (first, shared)) in enumerate(zip(prompts, heads, strict=True)):
        session.fork(source, source + 1 + at)
        session.truncate(start, sequence=source + 1 + at)
        rows = [(t, start + n, source + 1 + at, n == len(tokens) - 1) for n, t in enumerate(tokens)]
        early += rows[:shared] if first == at else []
        late += rows[shared:]
    if early:
        session.decode_rows(*map(list, zip(*early, strict=True)))
        for at, (first, shared) in enumerate(heads):
            if shared and first < at:
                session.fork(source + 1 + first, source + 1 + at)
    session.decode_rows(*map(list, zip(*late, strict=True)))
    return len(early) + len(late)


def in_one_batch(session: Session, prompt: Sequence[int], sample_count: int, plan: Plan) -> list[Sample]:
    """All samples at once, the prompt read once."""
    return Branches(session, prompt).draw(range(sample_count), plan)


def line_end(session: Session) -> Callable[[int], bool]:
    """Says of a token whether it ends a line or the generation; each token is looked up once."""
    known: dict[int, bool] = {}

    def ends(token: int) -> bool:
        if token not in known:
            known[token] = session.is_end(token) or "\n" in session.detokenize([token])
        return known[token]

    return ends
