"""A server with OpenAI's completions that gives log-probabilities of the prompt without sorting whole vocabularies.

    python -m bench.echo_server MODEL.gguf PORT [--threads N]

llama-cpp-python's server sorts the vocabulary in Python for every token of every prompt: 0.07 s each for 49,000 tokens,
which hides what a round trip costs. This one keeps the likeliest tokens of each position beside the cache, and runs the
model once over what the cache does not hold.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from bench.running_servers import CONTEXT_TOKENS
from harness.domain.scenario import Scenario
from harness.runtimes.llamacpp.quality import log_probabilities
from harness.runtimes.llamacpp.session import LlamaSession

_BATCH_TOKENS: Final = 512


class Completer:
    """One model, one sequence: a prefix that is in the cache is not computed again."""

    def __init__(self, path: Path, threads: int) -> None:
        scenario = Scenario(context_tokens=CONTEXT_TOKENS, thread_count=threads)
        self.session = LlamaSession(path, scenario, batch_tokens=_BATCH_TOKENS)
        self.held: list[int] = []
        self.tops: list[list[tuple[int, float]]] = []
        self.lock = threading.Lock()

    def feed(self, tokens: list[int]) -> None:
        """Make ``tokens`` what the cache holds; the likeliest five after each are kept."""
        most = min(len(self.held), len(tokens) - 1)
        common = next((i for i in range(most) if self.held[i] != tokens[i]), most)
        if common and tokens[common] not in {token for token, _ in self.tops[common - 1]}:
            common -= 1  # how likely it is there was not kept
        if common < len(self.held):
            self.session.truncate(common)
            del self.held[common:], self.tops[common:]
        for start in range(common, len(tokens), _BATCH_TOKENS):
            self.session.decode(tokens[start : start + _BATCH_TOKENS], position=start, logits="all")
            logs = log_probabilities(self.session.all_logits())
            best = np.argpartition(-logs, 5, axis=1)[:, :5]
            own = tokens[start + 1 :]
            for i, (row, ids) in enumerate(zip(logs, best, strict=True)):
                kept = [*map(int, ids), *own[i : i + 1]]
                self.tops.append([(t, float(row[t])) for t in kept])
        self.held += tokens[common:]

    def words(self, tokens: list[int], index: int) -> str:
        """Text of the ``index``-th of them where it stands."""
        before = self.session.detokenize(tokens[max(0, index - 8) : index])
        return self.session.detokenize(tokens[max(0, index - 8) : index + 1])[len(before) :]

    def greedy(self, tokens: list[int], count: int) -> Iterator[str]:
        """Text of each of ``count`` greedy tokens, which are appended to ``tokens``."""
        for _ in range(count):
            self.feed(tokens)
            tokens.append(max(self.tops[-1][:5], key=lambda top: top[1])[0])
            yield self.words(tokens, len(tokens) - 1)

    def echo(self, prompt: list[int]) -> dict[str, Any]:
        """Log-probabilities as OpenAI's completions have them; the token made after the prompt is the last one."""
        tokens = list(prompt)
        made = "".join(self.greedy(tokens, 1))
        known = {t: self.session.detokenize([t]) for tops in self.tops for t, _ in tops}
        texts = [self.words(tokens, i) for i in range(len(prompt))] + [made]
        ordered = (sorted(found, key=lambda top: top[1]) for found in self.tops)
        tops = [None, *({known[t]: p for t, p in found} for found in ordered)]
        offsets = [sum(map(len, texts[:i])) for i in range(len(texts))]
        own = [None, *(t.get(w) if t else None for t, w in zip(tops[1:], texts[1:], strict=True))]
        return {"tokens": texts, "top_logprobs": tops, "token_logprobs": own, "text_offset": offsets}


def handler(completer: Completer, name: str) -> type[BaseHTTPRequestHandler]:
    """A handler of requests for one model."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            """The models."""
            if self.path == "/v1/models":
                self.page({"object": "list", "data": [{"id": name, "object": "model"}]})
            else:
                self.page({"error": {"message": "no such page"}}, 404)

        def do_POST(self) -> None:
            """A completion."""
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/completions":
                self.page({"error": {"message": "no such page"}}, 404)
                return
            with completer.lock:
                tokens = completer.session.tokenize(body["prompt"])
                count = len(tokens)
                if body.get("stream"):
                    self.stream(completer.greedy(tokens, body["max_tokens"]), count)
                    return
                told = completer.echo(tokens) if body.get("echo") else None
                made = told["tokens"][-1] if told else "".join(completer.greedy(tokens, body["max_tokens"]))
            text = (body["prompt"] if told else "") + made
            usage = {"prompt_tokens": count, "completion_tokens": body["max_tokens"]}
            self.page({"choices": [{"text": text, "logprobs": told, "finish_reason": "length"}], "usage": usage})

        def page(self, body: object, status: int = 200) -> None:
            """A whole answer."""
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def stream(self, pieces: Iterator[str], prompt_tokens: int) -> None:
            """Server-sent events, each sent when it was computed."""
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            made = 0
            for made, piece in enumerate(pieces, 1):  # noqa: B007  counted for the end
                self.event(json.dumps({"choices": [{"text": piece, "finish_reason": None}]}))
            usage = {"prompt_tokens": prompt_tokens, "completion_tokens": made}
            self.event(json.dumps({"choices": [{"text": "", "finish_reason": "length"}], "usage": usage}))
            self.event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

        def event(self, text: str) -> None:
            """One server-sent event."""
            data = f"data: {text}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    return Handler


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("port", type=int)
@click.option("--threads", default=0, help="0: all physical cores.")
def main(model: Path, port: int, threads: int) -> None:
    """Serve MODEL at PORT of this machine until stopped."""
    completer = Completer(model, threads)
    server = ThreadingHTTPServer(("127.0.0.1", port), handler(completer, model.name))
    click.echo("serving")
    server.serve_forever()


if __name__ == "__main__":
    main()
