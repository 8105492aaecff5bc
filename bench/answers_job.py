"""What the child of a quality run does: one model's confidences over a text, and its answers to generated tasks."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.confidence import BLOCK_TOKENS, score_text
from bench.reasoning_tasks import KINDS, Task, make
from harness.domain.base import Frozen
from harness.domain.scenario import Scenario
from harness.runtimes.llamacpp.session import LlamaSession
from harness.workloads._language.judgement import choose

EXAMPLE_COUNT = 3
_FIRST_EXAMPLE_SEED = 1_000_000


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
