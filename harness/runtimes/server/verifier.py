"""A server as the verifier of drafts made elsewhere: one request over a text and its draft tells where it agrees.

OpenAI's completions with ``echo`` and ``logprobs`` give log-probabilities of the prompt's own tokens, by which the
server's greedy choice before each of them is known. llama-cpp-python's server gives them where it was started with
``--logits_all true``, vLLM always. Where the model has no begin token, llama-cpp-python 0.3.36 gives those *after* each
token in place of those before it: its list then ends with the prompt, and the other form with the token that was made.

What is sent is text, and the server cuts it into tokens itself: a draft counts as far as its tokens are the server's.
"""

import timeit
from typing import Any, NamedTuple

from harness.errors import RefusedError
from harness.runtimes.server import AttachedServer
from harness.runtimes.server.answer import Request
from harness.runtimes.server.stream import ServerError


class Echo(NamedTuple):
    """What a server says of a prompt.

    Attributes:
        tokens: Text of the prompt's tokens.
        tops: Before each of them: log-probability (nats) of the likeliest tokens by their text; empty where not told.
        next_text: The server's own token after the prompt.
    """

    tokens: list[str]
    tops: list[dict[str, float]]
    next_text: str


def is_text(token: str) -> bool:
    """Whether a token is text: an end and a part of a character are none."""
    return bool(token) and "\ufffd" not in token


class Verifier:
    """Asks a server which drafted tokens are its own.

    The connection is kept, so that a request costs one round trip.

    Raises:
        RefusedError: The server gives no log-probabilities of a prompt.
        ServerError: It failed.
    """

    def __init__(self, server: AttachedServer) -> None:
        self.server = server
        server.dialect.endpoint.keeps = True
        try:
            self.echo("One, two, three")
        except ServerError as error:
            if error.outcome in {"crashed", "timed out"}:
                raise
            raise RefusedError(
                f"found a server ({server.described.software}) that gives no log-probabilities of a prompt, expected "
                "one whose /v1/completions honours echo and logprobs: llama-cpp-python's with --logits_all true, or "
                f"vLLM ({str(error)[:120]})"
            ) from error

    def round_trip_s(self) -> float:
        """Least time of five requests that compute nothing."""
        times = timeit.repeat(lambda: self.server.dialect.endpoint.json("/v1/models"), number=1, repeat=6)
        return min(times[1:])  # the first one connects

    def echo(self, prompt: str, likeliest: int = 1) -> Echo:
        """Log-probabilities of ``prompt`` and the greedy token after it; of the ``likeliest`` tokens and its own.

        Raises:
            ServerError: The server failed, or gives none.
        """
        choice = self._complete(prompt, 1, echo=True, logprobs=likeliest)
        try:
            told = choice["logprobs"]
            tokens, tops = list(told["tokens"]), [dict(top or {}) for top in told["top_logprobs"]]
            whole = told["text_offset"][-1] >= len(prompt)
        except (KeyError, TypeError, IndexError) as error:
            raise ServerError(f"an answer without log-probabilities: {error}") from error
        if len(tokens) != len(tops) or len(tokens) < 2 or not tops[1]:
            raise ServerError(f"log-probabilities of {len(tokens)} tokens, expected those of the prompt")
        if whole:
            return Echo(tokens[:-1], tops[:-1], tokens[-1])
        return Echo(tokens, [{}, *tops[:-1]], str(choice.get("text"))[len(prompt) :])

    def verify(self, text: str, draft: str) -> list[str]:
        """The server's greedy tokens after ``text``: those of ``draft`` that it agrees to, then its own next one.

        Empty where the server cuts the text into tokens across the place where the draft begins.
        """
        echo = self.echo(text + draft)
        start, tail = len(echo.tokens), ""
        while len(tail) < len(draft) and start:
            start -= 1
            tail = echo.tokens[start] + tail
        found: list[str] = []
        if tail != draft:
            return found
        for token, top in zip(echo.tokens[start:], echo.tops[start:], strict=True):
            found.append(max(top, key=top.__getitem__, default=""))
            if found[-1] != token:
                return found
        return [*found, echo.next_text]

    def text_nll(self, text: str, chunk_count: int, chunk_tokens: int = 512) -> list[float]:
        """Negative log-probability (nats) of each scored token of the first chunks of ``text``.

        The chunks are those of :mod:`harness.runtimes.llamacpp.quality`, cut by the server's own tokens; a begin token
        that it puts before them is one more than there.

        Raises:
            KeyError: It tells only its likeliest tokens, and others came.
            ValueError: The text is too short.
        """
        place, found = 0, []
        for _ in range(chunk_count):
            size = 3 * chunk_tokens
            while len((echo := self.echo(text[place : place + size])).tokens) <= chunk_tokens:
                if place + size >= len(text):
                    raise ValueError(f"the text has fewer than {chunk_count * chunk_tokens} tokens")
                size += chunk_tokens
            scored = slice(chunk_tokens // 2 + 1, chunk_tokens)
            found += [-top[token] for token, top in zip(echo.tokens[scored], echo.tops[scored], strict=True)]
            place += sum(map(len, echo.tokens[:chunk_tokens]))
        return found

    def rest(self, text: str, new_tokens: int) -> str:
        """The server's own plain generation of at most so many tokens after ``text``, in one request."""
        return str(self._complete(text, new_tokens).get("text") or "")

    def _complete(self, prompt: str, new_tokens: int, **further: Any) -> dict[str, Any]:
        dialect = self.server.dialect
        body = dialect.body(Request(prompt=prompt, new_tokens=new_tokens)) | {"stream": False, **further}
        body.pop("stream_options", None)
        answer = dialect.endpoint.json(dialect.path, body)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise ServerError("an answer that is no completion")
        return choices[0]
