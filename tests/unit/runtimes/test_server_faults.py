"""A server's faults: each ends as a recorded outcome with its cause, and none hangs."""

import time

import pytest

from harness.runtimes.server import RUNTIME
from harness.runtimes.server.answer import Request
from harness.runtimes.server.stream import Patience, ServerError
from tests.unit.runtimes.replay_server import END, NO_PAGE, STREAM_HEAD, chunk, event, page, replay, reset, sends

PROPS = page({"default_generation_settings": {"n_ctx": 4096}, "total_slots": 1, "model_ftype": "Q4_0"})
MODELS = page({"object": "list", "data": [{"id": "m", "meta": {"n_vocab": 100}}]})
ASKED = Request(prompt=(1, 2, 3), new_tokens=3)


def token(count, text="a", **more):
    return event({"content": text, "tokens": [5], "tokens_predicted": count, "stop": False, **more})


def last(count=3, **more):
    timings = {"prompt_n": 3, "prompt_ms": 9.0, "predicted_n": count, "predicted_ms": 20.0, "cache_n": 0}
    return event(
        {"content": "", "stop": True, "stop_type": "limit", "tokens_predicted": count, "tokens_evaluated": 3,
         "timings": timings, **more}
    )  # fmt: skip


THREE = (token(1), token(2), token(3))


def drip(connection, _asked):
    connection.sendall(STREAM_HEAD)
    for _ in range(200):
        connection.sendall(chunk(b":"))
        time.sleep(0.02)


def endless_head(connection, _asked):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        connection.sendall(b"X-A: 1\r\n"[:1])
        time.sleep(0.02)


def stall(*parts):
    def reply(connection, _asked):
        for part in parts:
            connection.sendall(part)
        time.sleep(2)

    return reply


def cut(*parts):
    def reply(connection, _asked):
        for part in parts:
            connection.sendall(part)
        time.sleep(0.05)
        reset(connection)

    return reply


FAULTS = {
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


def attach(server, **patience):
    patience = {"silence_s": 0.3, "answer_s": 1.0, "ready_s": 0.6, **patience}
    return RUNTIME.attach(server.url, patience=Patience(**patience))


@pytest.mark.parametrize("name", FAULTS)
def test_fault_has_outcome_and_cause(name):
    reply, outcome, words = FAULTS[name]
    with replay({"/props": PROPS, "/v1/models": MODELS, "/completion": reply}) as server:
        attached = attach(server)
        started_s = time.monotonic()
        with pytest.raises(ServerError) as caught:
            attached.ask(ASKED)
        assert time.monotonic() - started_s < 3
    assert caught.value.outcome == outcome
    assert words in str(caught.value)


def test_sound_answer_passes_where_faults_do_not():
    with replay({"/props": PROPS, "/v1/models": MODELS, "/completion": sends(STREAM_HEAD, *THREE, last(), END)}) as s:
        answer = attach(s).ask(ASKED)
    assert (answer.new_tokens, answer.prompt_tokens, answer.cached_tokens, answer.text) == (3, 3, 0, "aaa")
    assert answer.prompt_s == pytest.approx(0.009)


def test_nothing_listens():
    with replay({}) as server:
        url = server.url
    with pytest.raises(ServerError, match="nothing answers") as caught:
        RUNTIME.attach(url)
    assert caught.value.outcome == "refused"


def test_a_web_page_is_no_server_of_models():
    with replay({"/props": page(b"<html>", 200, "text/html")}) as server, pytest.raises(ServerError, match="no server"):
        attach(server)


def test_waits_while_the_model_loads():
    calls = []

    def loading(connection, _asked):
        calls.append(1)
        if len(calls) < 3:
            connection.sendall(page({"error": {"message": "Loading model"}}, 503))
        else:
            connection.sendall(PROPS)

    with replay({"/props": loading, "/v1/models": MODELS}) as server:
        assert attach(server, ready_s=5.0).described.quant == "Q4_0"


def test_restart_is_told_as_one(monkeypatch):
    import harness.runtimes.server as runtime

    pids = iter([11, 12])
    monkeypatch.setattr(runtime, "listener_pid", lambda _port: next(pids))
    pages = {"/props": PROPS, "/v1/models": MODELS, "/completion": sends(STREAM_HEAD, *THREE[:2])}
    with replay(pages) as server:
        attached = attach(server)
        with pytest.raises(ServerError, match="the server was restarted") as caught:
            attached.ask(ASKED)
    assert caught.value.outcome == "crashed"


def test_key_comes_from_the_environment_and_is_sent(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    with replay({"/props": PROPS, "/v1/models": MODELS}) as server:
        RUNTIME.attach(server.url, key_variable="MY_KEY")
    assert all("Authorization: Bearer s3cret" in head for head in server.headers)
