"""Faults of a server, each by a real socket: what a run on it says of them, and that none hangs."""

import random
import time
from typing import Any, Final

from harness.core.scenario import Scenario
from harness.measure.jobs.served import ServedJob
from harness.runtimes.server.stream import Patience
from tests.faults.children import Inject, told_of
from tests.faults.place import Injected, Place
from tests.faults.replay_server import END, NO_PAGE, STREAM_HEAD, chunk, event, page, replay, reset, sends

PATIENCE: Final = Patience(silence_s=0.3, answer_s=1.0, ready_s=0.6)
_SCENARIO: Final = Scenario(context_tokens=64, prompt_tokens=0, new_tokens=2, thread_count=1)
PROPS = page({"default_generation_settings": {"n_ctx": 4096}, "total_slots": 1, "model_ftype": "Q4_0"})
MODELS = page({"object": "list", "data": [{"id": "m", "meta": {"n_vocab": 100}}]})


def token(count: Any, text: str = "a", **more: Any) -> bytes:
    """One token of llama-server's stream."""
    return event({"content": text, "tokens": [5], "tokens_predicted": count, "stop": False, **more})


def last(count: int = 3, **more: Any) -> bytes:
    """Its last event."""
    timings = {"prompt_n": 3, "prompt_ms": 9.0, "predicted_n": count, "predicted_ms": 20.0, "cache_n": 0}
    return event(
        {"content": "", "stop": True, "stop_type": "limit", "tokens_predicted": count, "tokens_evaluated": 3,
         "timings": timings, **more}
    )  # fmt: skip


THREE = (token(1), token(2), token(3))


def drip(connection: Any, _asked: Any) -> None:
    """A byte now and then, for ever."""
    connection.sendall(STREAM_HEAD)
    for _ in range(200):
        connection.sendall(chunk(b":"))
        time.sleep(0.02)


def endless_head(connection: Any, _asked: Any) -> None:
    """Headers that do not end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        connection.sendall(b"X-A: 1\r\n"[:1])
        time.sleep(0.02)


def stall(*parts: bytes) -> Any:
    """Some parts, then silence."""

    def reply(connection: Any, _asked: Any) -> None:
        for part in parts:
            connection.sendall(part)
        time.sleep(2)

    return reply


def cut(*parts: bytes) -> Any:
    """Some parts, then a reset."""

    def reply(connection: Any, _asked: Any) -> None:
        for part in parts:
            connection.sendall(part)
        time.sleep(0.05)
        reset(connection)

    return reply


FAULTS: Final[dict[str, tuple[Any, str, str]]] = {
    "stalls before the answer": (stall(), "timed out", "no byte for 0.3 s before its answer began"),
    "stalls after the headers": (stall(STREAM_HEAD), "timed out", "stalled"),
    "stalls after two tokens": (stall(STREAM_HEAD, *THREE[:2]), "timed out", "stalled"),
    "sends a byte now and then for ever": (drip, "timed out", "not done in 1 s"),
    "headers without an end": (endless_head, "timed out", "not done in 1 s"),
    "closes at once": (lambda c, _: c.close(), "crashed", "closed the connection before its answer began"),
    "closes in mid-stream": (sends(STREAM_HEAD, *THREE[:2]), "crashed", "closed the connection"),
    "resets in mid-stream": (cut(STREAM_HEAD, *THREE[:2]), "crashed", "closed the connection"),
    "ends politely without its last event": (sends(STREAM_HEAD, *THREE, END), "crashed", "without its end"),
    "500": (page({"error": {"message": "out of slots"}}, 500, reason="Internal"), "failed", "500 (Internal): out of"),
    "429": (page({"error": "slow down"}, 429, reason="Too Many"), "refused", "429 (too many requests): slow down"),
    "401": (page(b"no", 401, "text/plain", "Unauthorized"), "refused", "key is missing or wrong"),
    "404": (NO_PAGE, "refused", "no such page or model"),
    "503 for ever": (page({"error": {"message": "Loading model"}}, 503), "timed out", "not ready after 0.6 s"),
    "no HTTP": (b"\x00\x01\x02 nonsense\r\n\r\n", "failed", "no HTTP answer"),
    "bytes that are no JSON": (sends(STREAM_HEAD, event(b"{half"), END), "failed", "malformed event"),
    "JSON that is no object": (sends(STREAM_HEAD, event([1]), END), "failed", "malformed event"),
    "a line that is no event": (sends(STREAM_HEAD, chunk(b"<html>\n"), END), "failed", "malformed event"),
    "a count that is no number": (sends(STREAM_HEAD, token("x"), END), "failed", "tokens_predicted: found 'x'"),
    "a line without end": (sends(STREAM_HEAD, *[chunk(b"a" * 65536)] * 17), "failed", "no answer is that long"),
    "more tokens than asked for": (sends(STREAM_HEAD, *THREE, last(9), END), "failed", "wrong token count"),
    "fewer tokens than it sent": (sends(STREAM_HEAD, *THREE, last(1), END), "failed", "wrong token count"),
    "token numbers that go down": (sends(STREAM_HEAD, token(2), token(1), END), "failed", "wrong token count"),
    "ends for length too early": (sends(STREAM_HEAD, token(1), last(1), END), "failed", "its context may be full"),
    "no token at all": (sends(STREAM_HEAD, last(0), END), "failed", "without a token"),
    "an answer in one piece": (page({"content": "aaa", "stop": True}), "failed", "does not stream"),
    "an error in mid-stream": (
        sends(STREAM_HEAD, *THREE[:1], event({"error": {"message": "KV cache full"}}), END), "failed", "KV cache full"
    ),
}  # fmt: skip


"""What it does, the outcome that is recorded, and words that its cause must have."""


def pages_of(reply: Any) -> dict[str, Any]:
    """A llama-server whose completions go wrong in that way."""
    return {"/props": PROPS, "/v1/models": MODELS, "/completion": reply}


def _kind(name: str) -> Inject:
    reply, outcome, words = FAULTS[name]

    def inject(place: Place, _draw: random.Random) -> Injected:
        with replay(pages_of(reply)) as server:
            job = ServedJob(url=server.url, patience=PATIENCE, repetitions=1, cold_loads=0, patience_s=0.0)
            return told_of(place.run(place.model(), scenario=_SCENARIO, job=job), {outcome}, (words,))

    return inject


KINDS: Final[dict[str, Inject]] = {f"server: {name}": _kind(name) for name in FAULTS}
