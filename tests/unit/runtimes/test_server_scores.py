"""Log-probabilities of a prompt that a server echoes: by hand from what it tells, and servers that tell none."""

import socket

import pytest

from harness.domain.base import REFERENCE, shipped_text
from harness.errors import RefusedError
from harness.runtimes.server import RUNTIME
from harness.runtimes.server.prompt_scores import text_nll
from tests.faults.replay_server import page, replay


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ({"/v1/models": page({"data": [{"id": "m"}]})}, "gives no log-probabilities of a prompt"),
        (
            {
                "/v1/models": page({"data": [{"id": "m"}]}),
                "/v1/completions": page({"choices": [{"text": "One, two, three,", "logprobs": None}]}),
            },
            "gives no log-probabilities of a prompt",
        ),
        (
            {
                "/v1/models": page({"data": [{"id": "m"}]}),
                "/v1/completions": page({"error": {"message": "logprobs is not supported"}}, 500, reason="Error"),
            },
            "logprobs is not supported",
        ),
    ],
)
def test_a_server_that_cannot_is_refused(pages: dict, said: str) -> None:
    with replay(pages) as server, pytest.raises(RefusedError, match=said):
        text_nll(RUNTIME.attach(server.url), "One, two, three", 1, chunk_tokens=4)


@pytest.mark.parametrize(
    "scores",
    [
        {"tokens": ["z"], "top_logprobs": [{"z": -0.1}], "text_offset": [0]},
        {"tokens": ["z"], "top_logprobs": [{"z": -0.1}], "text_offset": [9999]},
        {"tokens": ["a", "b", "z"], "top_logprobs": [None, None, {"z": -0.1}], "text_offset": [0, 1, 9999]},
        {"tokens": ["a", "b", "z"], "top_logprobs": [None, "abc", None], "text_offset": [0, 1, 9999]},
    ],
)
def test_a_server_that_echoes_no_prompt_is_refused_at_once(scores: dict) -> None:
    """Not after hundreds of ever longer prompts."""
    pages = {
        "/v1/models": page({"data": [{"id": "m"}]}),
        "/v1/completions": page({"choices": [{"text": "z", "logprobs": scores}]}),
    }
    with replay(pages) as server:
        with pytest.raises(RefusedError, match="gives no log-probabilities of a prompt"):
            text_nll(RUNTIME.attach(server.url), shipped_text(REFERENCE), 4)
        assert [path for path, _ in server.asked].count("/v1/completions") == 1


def test_perplexity_is_of_the_second_half_of_each_chunk() -> None:
    """Chunks of 4 tokens: the fourth is scored, given the three before it; by hand from what the server tells."""
    known = {
        "a": -0.1,
        "b": -0.2,
        "c": -0.3,
        "d": -0.4,
        "e": -0.5,
        "f": -0.6,
        "g": -0.7,
        "h": -0.8,
        "i": -0.9,
        "j": -1.0,
    }

    def reply(connection: socket.socket, asked: dict) -> None:
        tokens = [*asked["prompt"]]
        tops = [None, *({t: known[t], "x": -2.0} for t in tokens[1:]), {"z": -0.1}]
        made = {"tokens": [*tokens, "z"], "top_logprobs": tops, "text_offset": [*range(len(tokens)), 99]}
        connection.sendall(page({"choices": [{"text": "z", "logprobs": made}]}))

    with replay({"/v1/models": page({"data": [{"id": "m"}]}), "/v1/completions": reply}) as server:
        attached = RUNTIME.attach(server.url)
        assert text_nll(attached, "abcdefghij", 2, chunk_tokens=4) == [0.4, 0.8]
        with pytest.raises(ValueError, match="fewer than 12"):
            text_nll(attached, "abcdefghij", 3, chunk_tokens=4)
