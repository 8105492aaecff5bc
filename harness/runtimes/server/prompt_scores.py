"""How well a server's model predicts a text: log-probabilities of a prompt that it echoes.

OpenAI's completions with ``echo`` and ``logprobs`` give those of the prompt's own tokens. llama-cpp-python's
server gives them where it was started with ``--logits_all true``, vLLM always. Where the model has no begin
token, llama-cpp-python 0.3.36 gives those *after* each token in place of those before it: its list then ends
with the prompt, and the other form with the token that was made.

What is sent is text, and the server cuts it into tokens itself.
"""

from harness.errors import RefusedError
from harness.runtimes.server import AttachedServer
from harness.runtimes.server.answer import Request
from harness.runtimes.server.stream import ServerError


def text_nll(server: AttachedServer, text: str, chunk_count: int, chunk_tokens: int = 512) -> list[float]:
    """Negative log-probability (nats) of each scored token of the first chunks of ``text``.

    The chunks are those of :mod:`harness.runtimes.llamacpp.quality`, cut by the server's own tokens; a begin
    token that it puts before them is one more than there.

    Raises:
        RefusedError: The server gives no log-probabilities of a prompt, or those of its likeliest tokens
            alone.
        ServerError: It crashed, or was too slow.
        ValueError: The text is too short.
    """
    place = 0
    losses = list[float]()
    try:
        for _ in range(chunk_count):
            size = 3 * chunk_tokens
            while len(echoed := _echo(server, text[place : place + size])) <= chunk_tokens:
                if place + size >= len(text):
                    raise ValueError(f"the text has fewer than {chunk_count * chunk_tokens} tokens")
                size += chunk_tokens
            losses += [-top[token] for token, top in echoed[chunk_tokens // 2 + 1 : chunk_tokens]]
            place += sum(len(token) for token, _ in echoed[:chunk_tokens])
    except (KeyError, TypeError, IndexError, ServerError) as error:
        if isinstance(error, ServerError) and error.outcome in {"crashed", "timed out"}:
            raise
        raise RefusedError(
            f"found a server ({server.described.software}) that gives no log-probabilities of a prompt, expected one "
            "whose /v1/completions honours echo and logprobs: llama-cpp-python's with --logits_all true, or vLLM "
            f"({str(error)[:120]})"
        ) from error
    return losses


def _echo(server: AttachedServer, prompt: str) -> list[tuple[str, dict[str, float]]]:
    """Text of each token of ``prompt``, and log-probabilities (nats) of the likeliest before it, by their text.

    None are told before the first. KeyError, TypeError or IndexError where the server tells none.
    """
    dialect = server.dialect
    asked = dialect.body(Request(prompt=prompt, new_tokens=1)) | {
        "stream": False,
        "echo": True,
        "logprobs": 1,
    }
    asked.pop("stream_options", None)
    scores = dialect.endpoint.json(dialect.path, asked)["choices"][0]["logprobs"]
    tokens = list(scores["tokens"])
    tops = [{**(top or {})} for top in scores["top_logprobs"]]
    is_usual = scores["text_offset"][-1] >= len(prompt)
    told = list(zip(tokens[:-1] if is_usual else tokens, tops if is_usual else [{}, *tops], strict=False))
    if not told[1][1]:
        raise KeyError("none of the prompt's second token")
    return told
