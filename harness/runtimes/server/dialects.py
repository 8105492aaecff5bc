"""The languages of servers: how each one is recognised, asked, and what it says of itself and of its answers.

Sources: llama.cpp tools/server/README.md (``/completion``, ``/props``, ``/tokenize``); Ollama docs/api.md
(``/api/generate``, ``/api/show``, ``/api/ps``, times in nanoseconds); LM Studio REST API v0 (``/api/v0/models``,
``/api/v0/completions`` with ``stats``); OpenAI's API reference (``/v1/completions``, server-sent events) and what vLLM
and llama-cpp-python's server add to it (``/tokenize``, ``/extras/tokenize/count``, ``ignore_eos``).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Any, ClassVar, Final

from harness.domain.base import Frozen
from harness.domain.quant import mixture_in
from harness.errors import RefusedError
from harness.printable import clean
from harness.runtimes.server.answer import Answer, Collector, Request
from harness.runtimes.server.stream import Endpoint, Exchange, Line, ServerError


class Described(Frozen, frozen=True, kw_only=True):
    """What a server says of itself and of its model; empty or 0 where it says nothing.

    ``software`` is ``llama-server ollama lmstudio`` or ``openai`` for any other, ``context_tokens`` the longest of one
    request, ``vocab_count`` 0 where prompts cannot be given as ids, ``slot_count`` requests computed together.
    """

    software: str
    version: str = ""
    model: str = ""
    quant: str = ""
    architecture: str = ""
    parameter_count: int = 0
    size_bytes: int = 0
    context_tokens: int = 0
    vocab_count: int = 0
    slot_count: int = 0

    def differs(self, *, parameter_count: float, size_bytes: float, architecture: str) -> str:
        """What the server says of its model that cannot be said of this one; empty where nothing speaks against it."""
        if self.architecture and architecture and self.architecture != architecture:
            return f"its architecture is {self.architecture}, not {architecture}"
        for own, asked, least, most, what in (
            (self.parameter_count, parameter_count, 0.85, 1.2, "parameters"),
            (self.size_bytes, size_bytes, 0.8, 1.3, "bytes"),
        ):
            if own and asked and not least < own / asked < most:
                return f"it has {own:,} {what}, not {asked:,.0f}"
        return ""


class OpenAI:
    """Any server with OpenAI's completions; ``chat`` where it has only the chat form of them."""

    software: ClassVar[str] = "openai"
    path = "/v1/completions"

    def __init__(self, endpoint: Endpoint, model: str = "") -> None:
        self.endpoint, self.model, self.chat = endpoint, model, False
        self.described = self.describe()

    def describe(self) -> Described:
        """Ask the server what it is and which model it runs.

        RefusedError where it has no model of that name, or several and none was named.
        """
        card = self._choose(_rows(self.endpoint.json("/v1/models"), "data"), "id")
        return Described(
            software="vllm" if card.get("owned_by") == "vllm" else self.software,
            version=_text(_dict(self.endpoint.json("/version")).get("version")),
            model=_file_name(self.model),
            context_tokens=_count(card.get("max_model_len")) or 0,
        )

    def _choose(self, rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
        """The model's own row; the only one where none was named."""
        names = [_text(r.get(key)) for r in rows]
        if self.model and names and self.model not in names:
            raise RefusedError(f"--model: found {self.model!r}, expected one of the server's: {', '.join(names[:8])}")
        if not self.model and len(names) > 1:
            raise RefusedError(f"the server has {len(names)} models: choose with --model: {', '.join(names[:8])}")
        self.model = self.model or (names[0] if names else "")
        return rows[names.index(self.model)] if self.model in names else {}

    def count_tokens(self, text: str) -> int | None:
        """Tokens of ``text`` as the server's tokenizer has them; None where it has no page for that."""
        count = _count(_dict(self.endpoint.json("/tokenize", {"model": self.model, "prompt": text})).get("count"))
        if count is not None:
            return count
        return _count(_dict(self.endpoint.json("/extras/tokenize/count", {"input": text})).get("count"))

    def token_ids(self, text: str) -> tuple[int, ...] | None:
        """The tokens of ``text`` where prompts can be given as ids; None elsewhere."""
        del text
        return None

    def unload(self) -> bool:
        """Have the server drop its model from memory; False where it cannot."""
        return False

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON that asks for ``request``."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,  # vLLM and llama.cpp go on after an end token; others leave it out
        }
        said = request.prompt
        return body | ({"messages": [{"role": "user", "content": said}]} if self.chat else {"prompt": said})

    def ask(self, request: Request) -> Answer:
        """One completion, streamed; ServerError where the server did wrong, or was too slow."""
        try:
            return self._ask(request)
        except ServerError as error:
            if self.chat or self.software != "openai" or error.status not in {404, 405, 501}:
                raise
        self.chat = True
        self.path = "/v1/chat/completions"
        return self._ask(request)

    def _ask(self, request: Request) -> Answer:
        with self.endpoint.exchange("POST", self.path, self.body(request)) as sent:
            found = Collector(request.new_tokens, sent.sent_s)
            for line, data in self.events(sent, found):
                if "error" in data:
                    error = data["error"]
                    said = error.get("message", error) if isinstance(error, dict) else error
                    raise ServerError(f"the server failed after {len(found.counts)} pieces: {_text(said, 300)}")
                self._is_same_model(data)
                self.read(line, data, found)
            return found.answer()

    def _is_same_model(self, data: dict[str, Any]) -> None:
        """Whether an event is of the model that was asked for (ServerError where it names another)."""
        told, asked = (_file_name(name).removesuffix(":latest") for name in (_text(data.get("model")), self.model))
        if told and asked and told != asked:
            raise ServerError(f"the stream is of the model {told!r}, asked for was {asked!r}")

    def events(self, sent: Exchange, found: Collector) -> Iterator[tuple[Line, dict[str, Any]]]:
        """The JSON objects of an answer: server-sent events, or one a line; ServerError where a line is neither."""
        if sent.content_type == "application/json":
            raise ServerError("the server sent its answer whole: it does not stream")
        events, pings = sent.content_type == "text/event-stream", 0
        for line in sent.lines():
            text = line.text.strip()
            if events:
                name, _, text = line.text.partition(":")
                if name.strip() in {"", "event", "id", "retry"}:
                    pings += bool(line.text.strip())
                    if pings > _PINGS_MAX + len(found.counts):
                        raise ServerError(f"{pings} lines that keep a connection alive, and {len(found.counts)} pieces")
                    continue
                text = text.strip()
                if name != "data":
                    raise ServerError(f"malformed event after {len(found.counts)} pieces: {line.text[:80]!r}")
                if text == "[DONE]":
                    found.complete = True
                    return
            if not text:
                continue
            try:
                data = json.loads(text)
            except (ValueError, RecursionError):
                data = None
            if not isinstance(data, dict):
                raise ServerError(f"malformed event after {len(found.counts)} pieces: no JSON object: {text[:80]!r}")
            yield line, data

    def read(self, line: Line, data: dict[str, Any], found: Collector) -> None:
        """One event of OpenAI's form, with llama.cpp's ``timings`` and LM Studio's ``stats`` where they are there."""
        for choice in _rows(data, "choices"):
            text = choice.get("text")
            delta = _dict(choice.get("delta"))
            text = delta.get("content") or delta.get("reasoning_content") if text is None else text
            if text:
                found.piece(line.at_s, str(text))
            if choice.get("finish_reason"):
                found.tell(finish=_text(choice["finish_reason"]))
        usage, timings, stats = (_dict(data.get(k)) for k in ("usage", "timings", "stats"))
        found.tell(
            new_tokens=_count(usage.get("completion_tokens"), "usage.completion_tokens"),
            prompt_tokens=_count(usage.get("prompt_tokens"), "usage.prompt_tokens"),
            cached_tokens=_count(_dict(usage.get("prompt_tokens_details")).get("cached_tokens"), "cached_tokens"),
            prompt_s=_seconds(timings.get("prompt_ms"), 1e-3),
            decode_s=_seconds(timings.get("predicted_ms"), 1e-3) or _seconds(stats.get("generation_time"), 1.0),
        )


class LlamaServer(OpenAI):
    """llama.cpp's own server, through the interface that numbers tokens and gives its timings."""

    software = "llama-server"
    path = "/completion"

    def describe(self) -> Described:
        """``/props`` and the model's own card; errors as :meth:`OpenAI.describe`."""
        props = _dict(self.endpoint.json("/props"))
        rows = _rows(self.endpoint.json("/v1/models"), "data")
        meta = _dict(self._choose(rows, "id").get("meta"))
        return Described(
            software=self.software,
            version=_text(props.get("build_info")),
            model=_file_name(self.model),
            quant=mixture_in(_text(props.get("model_ftype") or meta.get("ftype"))),
            parameter_count=_count(meta.get("n_params")) or 0,
            size_bytes=_count(meta.get("size")) or 0,
            context_tokens=_count(_dict(props.get("default_generation_settings")).get("n_ctx")) or 0,
            vocab_count=_count(meta.get("n_vocab")) or 0,
            slot_count=_count(props.get("total_slots")) or 0,
        )

    def count_tokens(self, text: str) -> int | None:
        """Tokens of ``text``, by ``/tokenize``."""
        ids = self.token_ids(text)
        return None if ids is None else len(ids)

    def token_ids(self, text: str) -> tuple[int, ...] | None:
        """The tokens themselves; None where the server does not tell them."""
        tokens = _dict(self.endpoint.json("/tokenize", {"content": text, "add_special": True})).get("tokens")
        vocab = self.described.vocab_count
        if not isinstance(tokens, list) or not all(type(one) is int and 0 <= one < vocab for one in tokens):
            return None
        return tuple(tokens)

    def body(self, request: Request) -> dict[str, Any]:
        """Greedy, past end tokens, with the cache used only on purpose."""
        return {
            "model": self.model,
            "prompt": request.prompt,
            "n_predict": request.new_tokens,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "ignore_eos": True,
            "cache_prompt": request.reuse,
            "return_tokens": True,
            "stream": True,
        }

    def read(self, line: Line, data: dict[str, Any], found: Collector) -> None:
        """One event of ``/completion``; the last one has ``stop`` and the timings."""
        if data.get("content") or data.get("tokens"):
            # Tokens of an unfinished character come with the piece that ends it: the count says how many.
            count = _count(data.get("tokens_predicted"), "tokens_predicted")
            found.piece(line.at_s, str(data.get("content") or ""), count)
        if data.get("stop") is not True:
            return
        timings = _dict(data.get("timings"))
        found.complete = True
        new_tokens = _count(data.get("tokens_predicted"), "tokens_predicted") or 0
        if found.token_count < new_tokens <= found.wanted:
            found.piece(line.at_s, "", new_tokens)  # the last ones are no whole character: they come with the end
        found.tell(
            new_tokens=new_tokens,
            prompt_tokens=_count(data.get("tokens_evaluated"), "tokens_evaluated"),
            cached_tokens=_count(timings.get("cache_n"), "timings.cache_n"),
            prompt_s=_seconds(timings.get("prompt_ms"), 1e-3),
            decode_s=_seconds(timings.get("predicted_ms"), 1e-3),
            finish=_text(data.get("stop_type")),
        )


class LMStudio(OpenAI):
    """LM Studio, by the interface that tells quantisation, state and its own times."""

    software = "lmstudio"
    path = "/api/v0/completions"

    def describe(self) -> Described:
        """The model's row of ``/api/v0/models``: the loaded one where none was named."""
        rows = [r for r in _rows(self.endpoint.json("/api/v0/models"), "data") if r.get("type") != "embeddings"]
        loaded = [r for r in rows if r.get("state") == "loaded"]
        card = self._choose(loaded if loaded and not self.model else rows, "id")
        return Described(
            software=self.software,
            model=self.model,
            quant=_text(card.get("quantization")),
            architecture=_text(card.get("arch")),
            context_tokens=_count(card.get("loaded_context_length") or card.get("max_context_length")) or 0,
        )


class Ollama(OpenAI):
    """Ollama's own interface: one JSON object a line, times in nanoseconds, a model that can be unloaded."""

    software = "ollama"
    path = "/api/generate"

    def describe(self) -> Described:
        """``/api/show`` of the model: the running one where none was named, else the only one."""
        running = _rows(self.endpoint.json("/api/ps"), "models")
        rows = _rows(self.endpoint.json("/api/tags"), "models")
        if self.model and ":" not in self.model:
            self.model += ":latest"
        card = self._choose(running if len(running) == 1 and not self.model else rows, "name")
        shown = _dict(self.endpoint.json("/api/show", {"model": self.model}))
        details, info = _dict(shown.get("details")) or _dict(card.get("details")), _dict(shown.get("model_info"))
        architecture = _text(info.get("general.architecture") or details.get("family"))
        return Described(
            software=self.software,
            version=_text(_dict(self.endpoint.json("/api/version")).get("version")),
            model=self.model,
            quant=_text(details.get("quantization_level")),
            architecture=architecture,
            parameter_count=_count(info.get("general.parameter_count")) or 0,
            size_bytes=_count(card.get("size")) or 0,
            context_tokens=_count(info.get(f"{architecture}.context_length")) or 0,
        )

    def unload(self) -> bool:
        """By ``keep_alive: 0``."""
        done = _dict(self.endpoint.json(self.path, {"model": self.model, "keep_alive": 0, "stream": False}))
        return done.get("done") is True

    def body(self, request: Request) -> dict[str, Any]:
        """Greedy, without a template."""
        options = {"num_predict": request.new_tokens, "temperature": 0, "num_ctx": request.context_tokens}
        return {"model": self.model, "prompt": request.prompt, "raw": True, "stream": True, "options": options}

    def read(self, line: Line, data: dict[str, Any], found: Collector) -> None:
        """One line of ``/api/generate``; the last one has ``done`` and the times."""
        if text := data.get("response") or data.get("thinking"):
            found.piece(line.at_s, str(text))
        if data.get("done") is not True:
            return
        found.complete = True
        found.tell(
            new_tokens=_count(data.get("eval_count"), "eval_count"),
            prompt_tokens=_count(data.get("prompt_eval_count"), "prompt_eval_count"),
            cached_tokens=_count(data.get("prompt_eval_cached_count"), "prompt_eval_cached_count"),
            prompt_s=_seconds(data.get("prompt_eval_duration"), 1e-9),
            decode_s=_seconds(data.get("eval_duration"), 1e-9),
            load_s=_seconds(data.get("load_duration"), 1e-9),
            finish=_text(data.get("done_reason")),
        )


_PINGS_MAX: Final = 10_000
"""Lines of a stream that say nothing, beyond one for each piece."""
_SPEAKS: Final[tuple[tuple[type[OpenAI], Callable[[Endpoint], bool]], ...]] = (
    (LlamaServer, lambda e: "default_generation_settings" in _dict(e.json("/props"))),
    (LMStudio, lambda e: bool(_rows(e.json("/api/v0/models"), "data"))),
    (Ollama, lambda e: "version" in _dict(e.json("/api/version")) and "models" in _dict(e.json("/api/tags"))),
    (OpenAI, lambda e: isinstance(e.json("/v1/models"), dict)),
)
"""How each dialect is recognised, the one that tells most first."""


def dialect_of(endpoint: Endpoint, model: str = "") -> OpenAI:
    """The dialect that a server speaks.

    Raises:
        ServerError: It cannot be reached, or speaks none of them.
        RefusedError: It has no such model.
    """
    for dialect, speaks in _SPEAKS:
        if speaks(endpoint):
            return dialect(endpoint, model)
    raise ServerError(f"what answers at port {endpoint.port} is no server of models: it has no /v1/models", "refused")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any, key: str) -> list[dict[str, Any]]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _text(value: Any, most: int = 200) -> str:
    return "" if value is None else clean(str(value), most)


def _file_name(name: str) -> str:
    """A model's name; of a path on the server's machine the file alone: folders of a home are nobody's business."""
    return PureWindowsPath(name).name if name[:1] in {"/", "\\"} or name[1:3] in {":\\", ":/"} else name


def _count(value: Any, field: str = "") -> int | None:
    """A count; None where there is none, ServerError where a ``field`` must have one and has something else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if value is not None and field:
        raise ServerError(f"malformed event: {field}: found {_text(value, 40)!r}, expected a count")
    return None


def _seconds(value: Any, unit_s: float) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
    return value * unit_s if good else None
