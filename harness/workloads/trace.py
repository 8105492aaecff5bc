"""Traces: what an app really asks of its models, recorded by a proxy, replayed here and on targets, and predicted.

A trace is one JSON file: a line on the app, then its calls in the order in which they began. A call holds counts
of tokens and times, no texts unless they were wanted. Replaying asks the same of another engine or device: prompts
of as many tokens, of which as many stand in the cache, and as many written. The tokens themselves are drawn by a
seed, since no time depends on them. What the app does between its calls (tools, stores, parsing) ran where the
trace was recorded; no other machine's time stands in for it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from harness.core.base import Frozen
from harness.core.device import Time
from harness.core.errors import BadDataError, RefusedError
from harness.core.foreign import json_of, read_limited, typed
from harness.core.model import Count
from harness.core.result import PassFigures
from harness.workloads import TRACE_ENDING
from harness.workloads.chain import GLUE, Op, RecordedPass, quantiles
from harness.workloads.system import Context, Size, System, WorkloadCase, kind_of
from harness.workloads.system_parts import ENCODER_TOKENS

_MOST_BYTES = 256 << 20
Tokens = Annotated[int, Meta(ge=0, le=1 << 20)]


class Call(WorkloadCase):
    """One request of an app to a model.

    Attributes:
        at_s: When it was sent, in seconds after the first call of the trace.
        duration_s: From sending it to the end of its answer, on the machine that recorded.
        gap_s: The app's own work before it, in which no call was open.
    """

    at_s: Time = 0.0
    duration_s: Time = 0.0
    gap_s: Time = 0.0


class Chat(Call):
    """A completion, of a chat or of plain text.

    Attributes:
        prompt_tokens: Of the whole prompt, pictures included, as the server counted.
        cached_tokens: Of them, the ones that it did not read again.
        new_tokens: Of the answer.
        first_s: From sending it to the first piece of a streamed answer; None of one that came whole.
        image_count: Pictures in the prompt.
        texts: The messages as JSON and the answer, where they were wanted.
    """

    needs = ("language",)
    prompt_tokens: Tokens
    new_tokens: Tokens
    cached_tokens: Tokens = 0
    first_s: Time | None = None
    image_count: Count = 0
    texts: tuple[str, ...] = ()


class Embed(Call):
    """Texts that are embedded together, by their tokens."""

    needs = ("encoder",)
    tokens: tuple[Tokens, ...]
    texts: tuple[str, ...] = ()


class App(Frozen):
    """What was recorded.

    Attributes:
        command: The program that started it and its first file, no further words; empty for an app that runs by itself.
        models: Names under which it asked for models.
        peak_anonymous_bytes: Most memory of its processes together, the server's apart; 0 if nobody watched.
        failed_count: Calls that the server refused; they are no part of the trace.
    """

    command: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    server: str = ""
    machine: str = ""
    duration_s: Time = 0.0
    peak_anonymous_bytes: Count = 0
    failed_count: Count = 0


class Trace(Frozen):
    """A trace as its file holds it."""

    app: App
    calls: tuple[Chat | Embed, ...]
    version: Literal[1] = 1


def read_trace(path: Path) -> Trace:
    """A trace from its file.

    Raises:
        BadDataError: The file is no trace: names the field, what was found and what was expected.
        RefusedError: It holds no call.
    """
    place = str(path)
    trace: Trace = typed(
        json_of(read_limited(path, _MOST_BYTES, "a trace"), place, "a JSON object"), Trace, place
    )
    if not trace.calls:
        raise RefusedError(f"{path} holds no call")
    for at, call in enumerate(trace.calls):
        if isinstance(call, Chat) and call.cached_tokens >= max(1, call.prompt_tokens):
            expected = f"fewer than prompt_tokens ({call.prompt_tokens})"
            raise BadDataError(path, f"calls[{at}].cached_tokens", str(call.cached_tokens), expected)
    return trace


class TraceSystem(System):
    """The calls of an app, asked again."""

    title = "The calls of a recorded app"
    kinds = (Chat, Embed)

    def __init__(self, path: Path) -> None:
        self.name = path.name.removesuffix(TRACE_ENDING)
        self.trace = read_trace(path)
        chats = [call for call in self.trace.calls if isinstance(call, Chat)]
        longest = max((call.prompt_tokens + call.new_tokens for call in chats), default=0)
        self.apart_bytes = self.trace.app.peak_anonymous_bytes
        self.context_tokens = 256 * (longest // 256 + 1)

    def cases(self, size: Size) -> Sequence[Any]:
        """Its calls."""
        return self.trace.calls

    def prepare(self, context: Context) -> Any:
        """What it runs with, and tokens that every vocabulary has, from which prompts are cut."""
        return context, np.random.default_rng(1).integers(100, 250, 1 << 17).tolist()

    def ready(self, state: Any, case: Any) -> Any:
        """Lay what the server had cached into the cache, off the clock."""
        context, drawn = state
        if isinstance(case, Chat):
            context.parts.language.hold(drawn[: case.cached_tokens])
            context.parts.meter.drain()
        return case

    def step(self, state: Any, case: Any) -> Any:
        """Ask for as much as the app did."""
        context, drawn = state
        if isinstance(case, Embed):
            for count in case.tokens:
                context.parts.encoder.embed_tokens(drawn[: max(1, min(count, ENCODER_TOKENS))])
            return {}
        language = context.parts.language
        language.read(drawn[: case.prompt_tokens])
        for at in range(1, case.new_tokens):
            language.read(drawn[: case.prompt_tokens + at], op=Op.WRITE)
        return {}

    def passes(self, size: Size) -> dict[str, list[tuple[RecordedPass, ...]]]:
        """The passes of each kind of call, as the trace tells them: nothing has to run."""
        found: dict[str, list[tuple[RecordedPass, ...]]] = {}
        for call in self.trace.calls:
            if isinstance(call, Embed):
                passes = [
                    RecordedPass(part="encoder", op=Op.EMBED, tokens=max(1, count)) for count in call.tokens
                ]
                found.setdefault("embed", []).append(tuple(passes))
                continue
            read = RecordedPass(part="language", op=Op.READ, tokens=call.prompt_tokens - call.cached_tokens)
            passes = [read.replace(depth=call.cached_tokens)]
            if call.new_tokens > 1:
                written = read.replace(op=Op.WRITE, tokens=call.new_tokens - 1, depth=call.prompt_tokens)
                passes.append(written)
            if call.image_count:
                passes.append(RecordedPass(part="images", op=Op.IMAGE, tokens=call.image_count))
            found.setdefault("chat", []).append(tuple(passes))
        return found


def recorded_rows(trace: Trace) -> list[PassFigures]:
    """Seconds of each kind of call, and of the app's own work before it, where the trace was recorded."""
    rows = []
    for kind in dict.fromkeys(map(type, trace.calls)):
        own = [call for call in trace.calls if type(call) is kind]
        for part, op, values in (
            ("", "recorded", [call.duration_s for call in own]),
            ("app", GLUE, [call.gap_s for call in own]),
        ):
            p50_s, p95_s = quantiles(values)
            where = f"recorded on {trace.app.machine}"
            rows.append(
                PassFigures(step=kind_of(kind), part=part, op=op, p50_s=p50_s, p95_s=p95_s, where=where)
            )
    return rows
