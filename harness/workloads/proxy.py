"""A proxy before any server that speaks OpenAI's API: it passes everything on, and writes down what was asked.

It listens on the loopback address alone. Headers, keys and texts are passed on and not kept; ``texts`` keeps the
messages and the answers. Tokens are the server's own counts (``usage``, or ``timings`` of llama-server). Where a
streamed request does not ask for ``usage`` the proxy does, and keeps that piece from the app. What a server does not
say of its cache is taken from what a prompt has in common with an earlier one, by its characters.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os.path import commonprefix
from pathlib import Path
from platform import node
from typing import Any
from urllib.parse import urlsplit

import psutil

from harness.core.errors import CouldNotRunError, InputError
from harness.measure.memory_watch import read_memory
from harness.workloads.trace import App, Call, Chat, Embed, Trace

_MOST_BYTES = 256 << 20
"""Of a request, pictures included, and of an answer that is not streamed."""
_TIMEOUT_S = 600.0
_WATCH_S = 0.1
_LATE_S = 5.0
"""So long calls may stay open once their app has ended: it may leave before its server closes a stream."""
_PROMPTS = 64
"""Earlier prompts that a prompt is compared with."""
_OWN_HEADERS = {"host", "content-length", "connection", "transfer-encoding", "accept-encoding", "keep-alive"}
VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_BASE")
"""Where an app looks for the address of its server: OpenAI's client, and clients older than it."""
_COUNTS = {"prompt_tokens": ("cache_n", "prompt_n"), "completion_tokens": ("predicted_n",)}
"""Names of counts in ``usage`` -> counts in llama-server's ``timings`` that add up to them."""


class Recorder(ThreadingHTTPServer):
    """The proxy, and the calls that went through it.

    Args:
        upstream: Address of the server, such as ``http://127.0.0.1:8080/v1``.
        port: Port to listen on; 0 for any free port.
        texts: Whether messages and answers are kept.

    Raises:
        InputError: The address has no scheme or host.
        CouldNotRunError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, upstream: str, port: int = 0, *, texts: bool = False) -> None:
        self.upstream, self.texts = urlsplit(upstream), texts
        if self.upstream.scheme not in {"http", "https"} or not self.upstream.hostname:
            raise InputError(
                f"--upstream: found {upstream!r}, expected an address such as http://127.0.0.1:8080/v1"
            )
        self.calls: list[Call] = []
        self.models: dict[str, None] = {}
        self.failed_count = 0
        self.lock = threading.Condition()
        self._prompts: list[str] = []
        self._open_count = 0
        self._app_pid = self._most_bytes = 0
        self._first_s = self._idle_s = 0.0
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise CouldNotRunError(f"port {port}: {error.strerror}") from error

    @property
    def url(self) -> str:
        """Address for the app, with the path of the server's."""
        return f"http://127.0.0.1:{self.server_address[1]}{self.upstream.path.rstrip('/')}"

    def began(self, now_s: float) -> dict[str, float]:
        """Seconds after the first call of a call that is sent now, and of the app's own work before it."""
        with self.lock:
            self._first_s = self._first_s or now_s
            gap_s = now_s - self._idle_s if self._idle_s and not self._open_count else 0.0
            self._open_count += 1
        return {"at_s": now_s - self._first_s, "gap_s": gap_s}

    def ended(self, call: Call | None) -> None:
        """Keep a call that ended; None for a call that failed, or of which nobody counted tokens."""
        # The app is alive now, which an app of half a second may not be at any other look; its children cost a scan.
        if self._app_pid:
            self._look([self._app_pid])
        with self.lock:
            self._open_count -= 1
            self._idle_s = time.perf_counter()
            self.failed_count += call is None
            self.calls += filter(None, [call])
            self.lock.notify_all()

    def shared_ratio(self, prompt: str) -> float:
        """Share of a prompt's characters with which an earlier prompt began too."""
        with self.lock:
            most = max((len(commonprefix([prompt, other])) for other in self._prompts), default=0)  # noqa: RUF071
            self._prompts = [*self._prompts[1 - _PROMPTS :], prompt]
        return most / max(1, len(prompt))

    def record(self, command: Sequence[str] = ()) -> Trace:
        """Run an app that finds the proxy in its environment, or listen until Ctrl-C; the trace of its calls.

        Raises:
            CouldNotRunError: The command cannot be started, or failed.
        """
        threading.Thread(target=self.serve_forever, daemon=True).start()
        begin_s = time.perf_counter()
        with suppress(KeyboardInterrupt):
            if command:
                self._watch(command)
            while not command:
                time.sleep(_WATCH_S)
        with self.lock:
            self.lock.wait_for(lambda: not self._open_count, _LATE_S)
        self.shutdown()
        app = App(
            command=tuple(word for word in command[:2] if Path(word).is_file() or word is command[0]),
            models=tuple(self.models),
            server=self.upstream._replace(netloc=self.upstream.netloc.rpartition("@")[2]).geturl(),
            machine=node(),
            duration_s=time.perf_counter() - begin_s,
            peak_anonymous_bytes=self._most_bytes,
            failed_count=self.failed_count,
        )
        calls: Any = sorted(self.calls, key=lambda call: call.at_s)
        return Trace(app=app, calls=tuple(calls))

    def _watch(self, command: Sequence[str]) -> None:
        """Run a command to its end and look at the memory of its processes meanwhile."""
        environment = {"OPENAI_API_KEY": "none", **os.environ, **dict.fromkeys(VARIABLES, self.url)}
        try:
            process = subprocess.Popen(command, env=environment)
        except OSError as error:
            raise CouldNotRunError(f"{command[0]}: {error.strerror}") from error
        self._app_pid = process.pid
        while process.poll() is None:
            with suppress(psutil.Error):
                children = psutil.Process(process.pid).children(recursive=True)
                self._look([process.pid, *(child.pid for child in children)])
            time.sleep(_WATCH_S)
        if process.returncode:
            raise CouldNotRunError(f"{command[0]} ended with status {process.returncode}: nothing was kept")

    def _look(self, pids: Sequence[int]) -> None:
        """Keep the anonymous memory of these processes together, if it is the most so far."""
        held = sum(memory.anonymous_bytes for memory in map(read_memory, pids) if memory)
        with self.lock:
            self._most_bytes = max(self._most_bytes, held)


class _Handler(BaseHTTPRequestHandler):
    """One connection of the app."""

    server: Recorder
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is the app's."""

    def do_GET(self) -> None:
        """Pass the request on to the server without recording it."""
        self._pass_on(b"", _Completion(), hides_usage=False)

    def do_POST(self) -> None:
        """Pass on, and record a completion or texts that are embedded."""
        size = self.headers.get("content-length", "0")
        if not size.isdigit() or int(size) > _MOST_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(int(size))
        kind = self.path.partition("?")[0].rstrip("/").rpartition("/")[2]
        told = _Completion()
        asked = told.read(body)
        if kind not in {"completions", "embeddings"} or not asked:
            self._pass_on(body, told, hides_usage=False)
            return
        hides_usage = bool(asked.get("stream")) and "stream_options" not in asked
        if hides_usage:
            body = json.dumps({**asked, "stream_options": {"include_usage": True}}).encode()
        begin_s = time.perf_counter()
        times = self.server.began(begin_s)
        call = None
        try:
            if self._pass_on(body, told, hides_usage=hides_usage):
                times["duration_s"] = time.perf_counter() - begin_s
                call = self._call(kind, asked, told, times, begin_s)
        finally:
            self.server.ended(call)

    def _pass_on(self, body: bytes, told: "_Completion", *, hides_usage: bool) -> bool:
        """Send the request on and its answer back, and read what that says; whether it is no error."""
        address = self.server.upstream
        kind = HTTPSConnection if address.scheme == "https" else HTTPConnection
        upstream = kind(address.hostname or "", address.port, timeout=_TIMEOUT_S)
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _OWN_HEADERS}
        try:
            upstream.request(self.command, self.path, body or None, sent)
            answer = upstream.getresponse()
            is_stream = "event-stream" in answer.headers.get("content-type", "")
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _OWN_HEADERS:
                    self.send_header(name, value)
            whole = b"" if is_stream else answer.read(_MOST_BYTES)
            self.send_header(*(("connection", "close") if is_stream else ("content-length", str(len(whole)))))
            self.end_headers()
            self.wfile.write(whole)
            told.read(whole)
            for line in answer if is_stream else ():
                document = told.read(line[6:]) if line.startswith(b"data: {") else {}
                if document.get("choices", True) or not hides_usage:
                    with suppress(OSError):  # the app may have left; the counts of tokens are still to come
                        self.wfile.write(line)
        except (OSError, HTTPException) as error:  # the server's fault or the app's: neither is ours to mend
            self.close_connection = True
            with suppress(OSError):
                self.send_error(502, f"no answer of the server: {type(error).__name__}")
            return False
        finally:
            upstream.close()
        return answer.status < 400

    def _call(
        self,
        kind: str,
        asked: Mapping[str, Any],
        told: "_Completion",
        times: Mapping[str, float],
        begin_s: float,
    ) -> Call | None:
        """The call that a request and its answer were; None where nobody counted its tokens."""
        server, prompt_tokens = self.server, told.count("prompt_tokens")
        server.models[str(asked.get("model", ""))[:80]] = None
        given = asked.get("input") or ""
        inputs = [given] if isinstance(given, str) else given
        if not prompt_tokens:
            return None
        if kind == "embeddings":
            letters = sum(len(text) for text in inputs)
            tokens = tuple(max(1, round(prompt_tokens * len(text) / max(1, letters))) for text in inputs)
            return Embed(tokens=tokens, texts=tuple(map(str, inputs)) if server.texts else (), **times)
        text = json.dumps(asked.get("messages") or asked.get("prompt"))
        shared_tokens = round(server.shared_ratio(text) * prompt_tokens)
        cached_tokens = told.cached_tokens(shared_tokens)
        new_tokens = told.count("completion_tokens")
        return Chat(
            prompt_tokens=prompt_tokens,
            new_tokens=len(told.texts) if new_tokens is None else new_tokens,
            cached_tokens=min(cached_tokens, prompt_tokens - 1),
            first_s=told.first_s - begin_s if asked.get("stream") and told.first_s else None,
            image_count=text.count('"image_url": {'),
            texts=(text, "".join(told.texts)) if server.texts else (),
            **times,
        )


class _Completion:
    """What an answer says of itself, whole or in pieces."""

    def __init__(self) -> None:
        self.usage: dict[str, Any] = {}
        self.timings: dict[str, Any] = {}
        self.texts: list[str] = []
        self.first_s = 0.0

    def read(self, body: bytes) -> dict[str, Any]:
        """Read one document; empty for no JSON object."""
        try:
            document = json.loads(body or b"0")
        except ValueError:
            document = 0
        if not isinstance(document, dict):
            return {}
        self.usage = document.get("usage") or self.usage
        self.timings = document.get("timings") or self.timings
        for choice in document.get("choices") or ():
            piece = choice.get("delta") or choice.get("message") or choice
            if any(piece.get(name) for name in ("content", "text", "reasoning_content", "tool_calls")):
                self.first_s = self.first_s or time.perf_counter()
                self.texts.append(str(piece.get("content") or piece.get("text") or ""))
        return document

    def count(self, name: str) -> int | None:
        """Tokens by the name that ``usage`` has for them; None if the server does not say."""
        spoken = [self.usage.get(name)]
        if spoken[0] is None:
            spoken = [self.timings.get(each) for each in _COUNTS[name]]
        return None if None in spoken else sum(map(int, filter(None, spoken)))

    def cached_tokens(self, otherwise: int) -> int:
        """Tokens of the prompt that the server took from its cache, as it says, or otherwise."""
        details = self.usage.get("prompt_tokens_details") or {}
        return int(details.get("cached_tokens", self.timings.get("cache_n", otherwise)))
