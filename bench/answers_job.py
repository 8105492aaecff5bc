"""What the child of a quality run does: one model's confidences over a text, and its answers to generated tasks."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.confidence import BLOCK_TOKENS, score_text
from bench.reasoning_tasks import KINDS, Task, make
from harness.domain.base import Frozen
from harness.domain.scenario import Scenario
from harness.ports import Session
from harness.runtimes.llamacpp.session import LlamaSession
from harness.workloads._language.generate import Branches
from harness.workloads._language.sampling import log_softmax_at

EXAMPLE_COUNT = 3
_FIRST_EXAMPLE_SEED = 1_000_000


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


class AnswersJob(Frozen, frozen=True, kw_only=True):
    """What to ask.

    Attributes:
        model: GGUF file.
        text: Text whose tokens are predicted.
        target: ``.npz`` file for the answers.
        chunk_tokens: Length of a chunk; its second half is scored.
        chunk_count: Chunks; 0 for all.
        task_count: Tasks of each kind; 0 for none.
        thread_count: Threads; 0 for the physical cores.
    """

    model: str
    text: str
    target: str
    chunk_tokens: int = 512
    chunk_count: int = 16
    task_count: int = 100
    thread_count: int = 0


def run_answers(arguments: dict[str, Any], emit: Callable[..., None]) -> None:
    """Child's entry; writes the answers and emits ``answers`` with the number of rows."""
    import msgspec

    job = msgspec.convert(arguments, AnswersJob)
    most_options = 8
    scenario = Scenario(context_tokens=max(1536, job.chunk_tokens), thread_count=job.thread_count)
    with LlamaSession(
        Path(job.model), scenario, sequence_count=most_options + 1, output_tokens=BLOCK_TOKENS, batch_tokens=512
    ) as session:
        tokens = session.tokenize(Path(job.text).read_text(encoding="utf-8"), add_special=False)
        scores = score_text(session, tokens, chunk_tokens=job.chunk_tokens, chunk_count=job.chunk_count)
        columns: dict[str, Any] = dict(scores._asdict())
        for kind in KINDS if job.task_count else ():
            emit("progress", kind)
            columns |= {f"{kind} {name}": column for name, column in _tasks(session, kind, job.task_count).items()}
    np.savez(job.target, **columns)
    emit("answers", {"token_count": len(scores.nll), "task_count": job.task_count * len(KINDS)})


def _tasks(session: LlamaSession, kind: str, count: int) -> dict[str, Any]:
    """Confidence in the answer chosen, whether it is right, the true one's negative log share, chance [count] each."""
    examples = [make(kind, _FIRST_EXAMPLE_SEED + n) for n in range(EXAMPLE_COUNT)]
    shown = session.tokenize("".join(f"{asked(e)} {e.answer}\n\n" for e in examples))
    session.clear()
    session.decode(shown, position=0, logits="none")
    rows = []
    tasks = [make(kind, seed) for seed in range(count)]
    chance = guessing(tasks)
    for task in tasks:
        prompt = [*shown, *session.tokenize(asked(task), add_special=False)]
        options = [session.tokenize(f" {option}", add_special=False) for option in task.options]
        chosen = choose(session, prompt, options, kept_count=len(shown))
        right = task.options.index(task.answer)
        rows.append((chosen.shares[chosen.best], chosen.best == right, -np.log(chosen.shares[right]), chance))
    names = ("confidence", "right", "nll", "chance")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def guessing(tasks: Sequence[Task]) -> float:
    """Accuracy without reading a question: of any option at random, or of always the commonest answer, the better.

    Letters mostly occur once in a word: whoever always says "1" is right far more often than one time in four.
    """
    commonest = Counter(task.answer for task in tasks).most_common(1)[0][1] / len(tasks)
    return max(commonest, sum(task.chance for task in tasks) / len(tasks))


def asked(task: Task) -> str:
    """A task as it is put to the model."""
    return f"Question: {task.question}\nAnswer:"
