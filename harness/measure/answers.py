"""What a model answers, whatever engine runs it: its greedy continuation, in a process of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from harness import plugins
from harness.domain.base import Frozen
from harness.domain.scenario import Scenario
from harness.ports import Session


class AnswersJob(Frozen, frozen=True, kw_only=True):
    """What to ask: a model file in a runtime, the tokens to continue, and how many are to follow."""

    path: str
    runtime: str
    prompt_tokens: tuple[int, ...]
    greedy_count: int


def run_answers(arguments: Mapping[str, Any], emit: Callable[..., None]) -> None:
    """Child's entry; emits ``greedy``, the likeliest tokens; HarnessError where runtime or model cannot be used."""
    job = msgspec.convert(arguments, AnswersJob)
    runtime = plugins.usable_runtime(job.runtime)
    context_tokens = max(512, len(job.prompt_tokens) + job.greedy_count + 256)
    session: Session = runtime.open(Path(job.path), Scenario(context_tokens=context_tokens))
    emit("greedy", greedy_tokens(session, list(job.prompt_tokens), job.greedy_count))


def greedy_tokens(session: Session, prompt: list[int], count: int) -> list[int]:
    """The ``count`` tokens after ``prompt``, each the most likely one."""
    session.clear()
    session.decode(prompt, position=0)
    tokens = [session.greedy()]
    while len(tokens) < count:
        session.decode(tokens[-1:], position=len(prompt) + len(tokens) - 1)
        tokens.append(session.greedy())
    return tokens
