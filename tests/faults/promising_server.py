"""A server of words that keeps its promises, or breaks the one that a test names: each word takes its time."""

import json
import time
from typing import Any

from tests.faults.replay_server import END, LINES_HEAD, STREAM_HEAD, chunk, event, line, page
from tests.faults.servers import MODELS, PROPS

READ_S = 0.4e-3
WRITE_S = 8e-3
LIES = {
    "answers from a cache": "cache",
    "prompts of 40 words at most": "prompts",
    "prompts in no time": "prompts",
    "half a token a piece": "tokens",
    "twice the tokens": "tokens",
    "drafts and says so": "drafts",
    "drafts easy text": "drafts",
    "drafts easy text and smooths it": "drafts",
    "eight pieces at once": "bunching",
    "all pieces at the end": "bunching",
    "two pieces at once": "bunching",
    "keeps prompts and denies it": "prefixes",
}
"""What a server does, and the promise that it breaks."""


class Promising:
    """What a server computes for a request: how long it reads, and when which pieces come."""

    def __init__(self, lie: str = "") -> None:
        self.lie = lie
        self.seen: set[str] = set()
        self.answered: set[str] = set()

    def read_s(self, prompt: Any) -> tuple[float, int]:
        """Seconds to read a prompt, and how many of its tokens come from the cache."""
        words = tokens_of(prompt)
        key = json.dumps(prompt)
        cached = len(words) if self.lie.startswith("keeps prompts") and key in self.seen else 0
        self.seen.add(key)
        count = len(words) - cached
        if self.lie == "prompts of 40 words at most":
            count = min(count, 40)
        if self.lie == "prompts in no time":
            count = 0
        return 5e-3 + READ_S * count, cached

    def pieces(self, prompt: Any, count: int) -> list[tuple[float, str]]:
        """Seconds before each piece, behind the prompt, and its text."""
        key = json.dumps(prompt)
        easy = isinstance(prompt, str) and len(set(prompt.split())) < 8
        waits = [WRITE_S] * count
        texts = [" a"] * count
        if self.lie == "answers from a cache" and key in self.answered:
            waits = [0.0] * count
        self.answered.add(key)
        if self.lie == "half a token a piece":
            waits = [WRITE_S / 2] * count
            texts = [" b" if i % 2 else "b" for i in range(count)]
            texts = [" " if i % 2 else "b" for i in range(count)]
        if self.lie == "drafts easy text" and easy:
            waits = [WRITE_S if i % 4 == 0 else 0.0 for i in range(count)]
        if self.lie == "drafts easy text and smooths it" and easy:
            waits = [WRITE_S / 3] * count
        together = {"eight pieces at once": 8, "two pieces at once": 2, "all pieces at the end": count}.get(self.lie)
        if together:
            waits = [together * WRITE_S if i % together == 0 else 0.0 for i in range(count)]
        return list(zip(waits, texts, strict=True))


def tokens_of(text: Any) -> list[Any]:
    """Its words, or the ids that it is."""
    return text.split() if isinstance(text, str) else list(text)


def _sent(connection: Any, pieces: list[tuple[float, bytes]]) -> None:
    """Send pieces, each after its wait; those without a wait go with the one before."""
    held = b""
    for wait_s, data in pieces:
        if wait_s and held:
            connection.sendall(held)
            held = b""
        time.sleep(wait_s)
        held += data
    connection.sendall(held)


def llama_pages(lie: str = "") -> dict[str, Any]:
    """A llama-server, which is asked for ids and numbers its tokens."""
    promising = Promising(lie)

    def reply(connection: Any, asked: dict[str, Any]) -> None:
        prompt, count = asked["prompt"], asked["n_predict"]
        size = len(tokens_of(prompt))
        read_s, cached = promising.read_s(prompt)
        connection.sendall(STREAM_HEAD)
        begun_s = time.perf_counter()
        time.sleep(read_s)
        first_s = time.perf_counter()
        pieces = promising.pieces(prompt, count)
        told = count
        sent = []
        for index, (wait_s, text) in enumerate(pieces):
            data = {"content": text, "tokens": [5], "tokens_predicted": index + 1, "stop": False}
            if lie == "twice the tokens":
                data |= {"content": " a" if index % 2 else "", "tokens_predicted": index + 1}
            sent.append((wait_s, event(data)))
        _sent(connection, sent)
        done_s = time.perf_counter()
        timings = {
            "prompt_n": size - cached,
            "prompt_ms": 1e3 * (first_s - begun_s),
            "predicted_n": told,
            "predicted_ms": 1e3 * (done_s - first_s),
            "cache_n": cached,
        }
        if lie == "keeps prompts and denies it":
            timings |= {"cache_n": 0, "prompt_n": size}
        if lie == "drafts and says so":
            timings |= {"draft_n": count // 2, "draft_n_accepted": count // 3}
        last = {"content": "", "stop": True, "stop_type": "limit", "tokens_predicted": told, "tokens_evaluated": size}
        connection.sendall(event(last | {"timings": timings}) + END)

    def tokenizer(connection: Any, asked: dict[str, Any]) -> None:
        words = asked.get("content", "").split()
        connection.sendall(page({"tokens": [hash(word) % 100 for word in words], "count": len(words)}))

    return {"/props": PROPS, "/v1/models": MODELS, "/completion": reply, "/tokenize": tokenizer}


def openai_pages(lie: str = "") -> dict[str, Any]:
    """Any other server: its usage alone tells of tokens."""
    promising = Promising(lie)

    def reply(connection: Any, asked: dict[str, Any]) -> None:
        prompt, count = asked["prompt"], asked["max_tokens"]
        connection.sendall(STREAM_HEAD)
        time.sleep(promising.read_s(prompt)[0])
        sent = [(wait_s, event({"choices": [{"text": text}]})) for wait_s, text in promising.pieces(prompt, count)]
        _sent(connection, sent)
        usage = {"completion_tokens": count, "prompt_tokens": len(tokens_of(prompt))}
        connection.sendall(event({"choices": [], "usage": usage}) + event(b"[DONE]") + END)

    return {"/v1/models": page({"object": "list", "data": [{"id": "m"}]}), "/v1/completions": reply}


def ollama_pages(lie: str = "") -> dict[str, Any]:
    """An Ollama, which keeps every prompt and says nothing of it."""
    promising = Promising(lie or "keeps prompts")

    def reply(connection: Any, asked: dict[str, Any]) -> None:
        prompt, count = asked["prompt"], asked["options"]["num_predict"]
        read_s, _ = promising.read_s(prompt)
        connection.sendall(LINES_HEAD)
        time.sleep(read_s)
        pieces = promising.pieces(prompt, count)
        _sent(connection, [(wait_s, line({"model": "m", "done": False, "response": text})) for wait_s, text in pieces])
        told = {"eval_count": count, "prompt_eval_count": len(tokens_of(prompt)), "done_reason": "length"}
        told |= {"prompt_eval_duration": int(1e9 * read_s), "eval_duration": int(1e9 * WRITE_S * count)}
        connection.sendall(line({"model": "m", "done": True, "response": ""} | told) + END)

    return {
        "/api/version": page({"version": "0.5.1"}),
        "/api/tags": page({"models": [{"name": "m:latest", "size": 10**6, "details": {"family": "llama"}}]}),
        "/api/show": page({"details": {"family": "llama"}}),
        "/api/generate": reply,
    }


__all__ = ["LIES", "Promising", "chunk", "llama_pages", "ollama_pages", "openai_pages"]
