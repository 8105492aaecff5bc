"""A server's faults: each ends as a recorded outcome with its cause, and none hangs."""

import time

import pytest

from harness.runtimes.server import RUNTIME
from harness.runtimes.server.pieces import Request
from harness.runtimes.server.stream import ServerError
from tests.faults.replay_server import END, STREAM_HEAD, page, replay, sends
from tests.faults.servers import FAULTS, MODELS, PATIENCE, PROPS, THREE, last, pages_of

ASKED = Request(prompt=(1, 2, 3), new_tokens=3)


def attach(server, **patience):
    return RUNTIME.attach(server.url, patience=PATIENCE._replace(**patience))


@pytest.mark.parametrize("name", FAULTS)
def test_fault_has_outcome_and_cause(name):
    reply, outcome, words = FAULTS[name]
    with replay(pages_of(reply)) as server:
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


def test_key_comes_from_the_environment_and_is_sent(monkeypatch):
    monkeypatch.setenv("EDGE_HARNESS_API_KEY", "s3cret")
    with replay({"/props": PROPS, "/v1/models": MODELS}) as server:
        RUNTIME.attach(server.url)
    assert all("Authorization: Bearer s3cret" in head for head in server.headers)
