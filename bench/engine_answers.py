"""What a model answers, whatever engine runs it: its greedy continuation, and how likely it finds a given text.

A child's entry: engines are compared on the same tokens, each in a process of its own, outside any clock.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness import plugins
from harness.domain.base import Frozen
from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError
from harness.measure.child import run_child
from harness.ports import Session
from harness.runtimes.llamacpp.quality import chunks_of


class AnswersJob(Frozen):
    """What to ask.

    Attributes:
        path: Model file.
        runtime: Runtime module.
        thread_count: Threads; 0 for the physical cores.
        prompt_tokens: Tokens to continue; empty to tokenize ``prompt``.
        prompt: Text to continue.
        greedy_count: Tokens of the continuation; 0 for none.
        text: Text file to score; empty for none.
        chunk_tokens: Length of a chunk; its second half is scored, as llama-perplexity does it.
        chunk_count: Chunks from the beginning.
        prefill_tokens: Tokens of a first prompt after which memory is read; 0 for none.
    """

    path: str
    runtime: str
    thread_count: int = 0
    prompt_tokens: tuple[int, ...] = ()
    prompt: str = ""
    greedy_count: int = 0
    text: str = ""
    chunk_tokens: int = 512
    chunk_count: int = 4
    prefill_tokens: int = 0


class Answers(Frozen):
    """What the model said.

    Attributes:
        greedy: Continuation, each token the most likely one.
        prompt: Tokens that were continued.
        nll: Negative log-likelihood of each scored token, nats.
        tokens_hash: Names the scored tokens: equal for two models with the same tokenizer.
        rss_bytes: Resident memory after the first prompt; 0 where it was not asked for.
        peak_rss_bytes: Its peak until then (loading included).
        base_rss_bytes: Before the model was loaded.
    """

    greedy: tuple[int, ...] = ()
    prompt: tuple[int, ...] = ()
    nll: tuple[float, ...] = ()
    tokens_hash: str = ""
    rss_bytes: int = 0
    peak_rss_bytes: int = 0
    base_rss_bytes: int = 0


def run_answers(arguments: Mapping[str, Any], emit: Callable[..., None]) -> None:
    """Child's entry; emits ``answers``.

    Raises:
        HarnessError: The runtime or the model cannot be used, or the text is too short.
    """
    from harness.measure.memory_watch import read_memory

    job = msgspec.convert(arguments, AnswersJob)
    runtime = plugins.load("harness.runtimes", job.runtime, "RUNTIME")
    if reason := runtime.missing():
        raise EngineError(reason)
    need = max(job.chunk_tokens, len(job.prompt_tokens) + job.greedy_count + 256, job.prefill_tokens)
    scenario = Scenario(context_tokens=need, thread_count=job.thread_count)
    before = read_memory()
    session: Session = runtime.open(Path(job.path), scenario)
    base = rss = peak = 0
    if job.prefill_tokens:
        session.decode([100 + i for i in range(job.prefill_tokens)], position=0)
        after = read_memory()
        base = before.rss_bytes if before else 0
        rss, peak = (after.rss_bytes, after.peak_rss_bytes) if after else (0, 0)
    prompt = list(job.prompt_tokens) or (session.tokenize(job.prompt) if job.prompt else [])
    found = Answers(rss_bytes=rss, peak_rss_bytes=peak, base_rss_bytes=base, prompt=tuple(prompt))
    if job.greedy_count:
        found = msgspec.structs.replace(found, greedy=tuple(greedy_tokens(session, prompt, job.greedy_count)))
    if job.text:
        # Without what a tokenizer may put before a text: engines differ in that, and the tokens must be the same.
        tokens = session.tokenize(Path(job.text).read_text(encoding="utf-8"), add_special=False)
        nll, name = score_text(session, tokens, job.chunk_tokens, job.chunk_count)
        found = msgspec.structs.replace(found, nll=tuple(nll), tokens_hash=name)
    emit("answers", found)


def ask(job: AnswersJob) -> Answers:
    """What a model answers, asked in a process of its own.

    Raises:
        EngineError: It could not be asked.
    """
    result = run_child("bench.engine_answers:run_answers", job)
    told = next((msgspec.convert(data, Answers) for name, data in result.events if name == "answers"), None)
    if told is None:
        raise EngineError(f"{job.runtime} on {Path(job.path).name}: {result.outcome}: {result.detail}")
    return told


def greedy_tokens(session: Session, prompt: list[int], count: int) -> list[int]:
    """The ``count`` tokens after ``prompt``, each the most likely one."""
    session.clear()
    session.decode(prompt, position=0)
    tokens = [session.greedy()]
    while len(tokens) < count:
        session.decode(tokens[-1:], position=len(prompt) + len(tokens) - 1)
        tokens.append(session.greedy())
    return tokens


def score_text(session: Session, tokens: list[int], size: int, most: int) -> tuple[list[float], str]:
    """Negative log-likelihood of the second half of each whole chunk, and a name for the tokens scored.

    Chunks are those of ``ladder`` and llama-perplexity: each begins with the model's own first token.

    Raises:
        RefusedError: The text is shorter than one chunk.
    """
    import hashlib  # takes 5 MB, which would count as the model's where memory is read

    begin = getattr(getattr(session, "model", session), "begin_token", None)
    chunks = chunks_of(tokens, size, most, begin)
    if not chunks:
        raise RefusedError(f"the text has {len(tokens)} tokens: at least {size} are needed")
    nll: list[float] = []
    for chunk in chunks:
        first = size // 2
        session.clear()
        session.decode(chunk[:first], position=0, logits="none")
        session.decode(chunk[first:-1], position=first, logits="all")
        nll += [surprise(session.logits(i), token) for i, token in enumerate(chunk[first + 1 :])]
    used = np.asarray(tokens[: len(chunks) * size], np.int64)
    return nll, hashlib.sha256(used.tobytes()).hexdigest()[:16]


def surprise(logits: NDArray[np.float32], token: int) -> float:
    """-log softmax(logits)[token], summed in double precision."""
    row = logits.astype(np.float64)
    top = row.max()
    return float(np.log(np.exp(row - top).sum()) + top - row[token])
