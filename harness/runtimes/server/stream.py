"""One HTTP exchange with a server whose answer comes piece by piece: each line with the moment it arrived.

Whatever a server does wrong ends as a :class:`ServerError` that says what and when, within the two limits of
:class:`Patience`: a server that falls silent, one that sends a byte a second for ever, one that closes half
way.
"""

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from harness.core.errors import EngineError, RefusedError
from harness.core.printable import clean
from harness.core.record import Outcome

KEY_VARIABLE: Final = "EDGE_HARNESS_API_KEY"
_LINE_BYTES: Final = 1 << 20
_BODY_BYTES: Final = 16 << 20
_PAGE_S: Final = 30.0
"""For a page that tells of the server itself, whatever it sends until then."""
_REFUSALS: Final = {
    401: "the key is missing or wrong",
    403: "the key may not do this",
    404: "no such page or model",
    429: "too many requests",
}


class ServerError(EngineError):
    """A server did not do what was asked of it; ``status`` is that of HTTP, 0 when it is none of those."""

    def __init__(self, detail: str, outcome: Outcome = "failed", status: int = 0) -> None:
        super().__init__(detail, outcome)
        self.status = status


class Patience(NamedTuple):
    """How long a server is waited for: without a byte, for a whole answer, and while it says ``503`` as it loads."""

    silence_s: float = 60.0
    answer_s: float = 600.0
    ready_s: float = 120.0


class Line(NamedTuple):
    """One line of an answer and when its last byte was here, on ``time.perf_counter``."""

    at_s: float
    text: str


class Endpoint:
    """A server's address, with the key that it wants, which is read from :data:`KEY_VARIABLE` and never stored.

    Args:
        url: ``http://host:port`` with an optional path in front of the API's own; a final ``/v1`` is left
            out.
        patience: How long the server is waited for.

    Raises:
        RefusedError: The address is none of an HTTP server, or has a name and password in it.
    """

    def __init__(self, url: str, *, patience: Patience = Patience()) -> None:  # noqa: B008  immutable
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1:
            raise RefusedError(f"server: found {url!r}, expected http://host:port")
        if parts.username or parts.query or parts.fragment:
            raise RefusedError("server: found a name, a query or a fragment, expected http://host:port with the key in "
                               f"the environment variable {KEY_VARIABLE}")  # fmt: skip
        self.host = parts.hostname
        self.secure = parts.scheme == "https"
        self.port = port or (443 if self.secure else 80)
        self.base = parts.path.rstrip("/").removesuffix("/v1")
        self.patience = patience
        self.key = os.environ.get(KEY_VARIABLE, "")

    def json(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON at ``path`` or in answer to ``body``; None if there is no such page.

        An error of the server, or its silence, raises what :meth:`exchange` raises.
        """
        try:
            with self.exchange(path, body) as answer:
                text = "\n".join(line.text for line in answer.lines())
        except ServerError as error:
            if error.status in {400, 404, 405, 422, 501}:
                return None
            raise
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None  # a page for people

    def exchange(self, path: str, body: Mapping[str, Any] | None) -> "Exchange":
        """Send a request (a ``POST`` if it has a body), and wait while the server loads its model.

        Raises:
            ServerError: The server answers with an error, or not at all.
        """
        ready_s = self.patience.ready_s
        deadline_s = time.monotonic() + ready_s
        while True:
            try:
                return Exchange(self, path, body)
            except ServerError as error:
                if error.status != 503:
                    raise
                if time.monotonic() > deadline_s:
                    raise ServerError(f"not ready after {ready_s:g} s: {error}", "timed out", 503) from error
            time.sleep(0.25)


class Exchange(contextlib.AbstractContextManager["Exchange"]):
    """A request that was sent and whose answer has begun. Closing it early tells the server to stop.

    Attributes:
        sent_s: When the request was handed to the system, the connection having been made before.
    """

    def __init__(self, endpoint: Endpoint, path: str, body: Mapping[str, Any] | None) -> None:
        self._patience = endpoint.patience
        self._expired = False
        self._path = path
        kind = http.client.HTTPSConnection if endpoint.secure else http.client.HTTPConnection
        self._connection = kind(endpoint.host, endpoint.port, timeout=self._patience.silence_s)
        try:
            self._connection.connect()
        except OSError as error:
            where = f"port {endpoint.port}"
            raise ServerError(f"nothing answers at {where}: {error.strerror or error}", "refused") from error
        self._socket = self._connection.sock
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._within_s = self._patience.answer_s
        method, payload = "POST", json.dumps(body).encode()
        if body is None:
            self._within_s = min(_PAGE_S, self._within_s)
            method, payload = "GET", b""
        # Ends what no timeout of a single read ends: a server that goes on sending a little.
        self._watch = threading.Timer(self._within_s, self._expire)
        self._watch.daemon = True
        self._watch.start()
        headers = {"Content-Type": "application/json", "Accept": "*/*", "Connection": "close"}
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        self.sent_s = time.perf_counter()
        try:
            self._connection.request(method, endpoint.base + path, payload, headers)
            self._response = self._connection.getresponse()
            if not 200 <= self._response.status < 300:
                raise self._refusal()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._fault(error, "before its answer began") from error
        except ServerError:
            self.close()
            raise

    @property
    def content_type(self) -> str:
        """The answer's media type, such as ``text/event-stream``."""
        return self._response.headers.get_content_type()

    def lines(self) -> Iterator[Line]:
        """The lines as they come; ServerError where the server fell silent, closed half way, or sent no end."""
        held, total, count = b"", 0, 0
        while True:
            try:
                data = self._response.read1(1 << 16)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._fault(error, f"after {count} lines") from error
            at_s = time.perf_counter()
            if self._expired:
                raise self._fault(TimeoutError(), f"after {count} lines")
            if not data:
                if held:
                    yield Line(at_s, held.decode("utf-8", "replace"))
                return
            total += len(data)
            *whole, held = (held + data).split(b"\n")
            if len(held) > _LINE_BYTES or total > _BODY_BYTES:
                raise ServerError(
                    f"{self._path} sent {total} bytes after {count} lines: no answer is that long"
                )
            for line in whole:
                count += 1
                yield Line(at_s, line.rstrip(b"\r").decode("utf-8", "replace"))

    def close(self) -> None:
        """End it; a server that still computes sees the connection go. Safe to call twice."""
        self._watch.cancel()
        self._connection.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _expire(self) -> None:
        self._expired = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _refusal(self) -> ServerError:
        status = self._response.status
        said = self._response.read(2000).decode("utf-8", "replace")
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            error = json.loads(said)["error"]
            said = str(error.get("message", error) if isinstance(error, dict) else error)
        if status < 400:
            said = f"it is elsewhere: {self._response.headers.get('Location')}"
        why = _REFUSALS.get(status, self._response.reason)
        outcome: Outcome = "refused" if status < 500 else "failed"
        return ServerError(f"{self._path} answered {status} ({why}): {clean(said, 300)}", outcome, status)

    def _fault(self, error: BaseException, when: str) -> ServerError:
        if self._expired:
            return ServerError(f"{self._path} was not done in {self._within_s:g} s ({when})", "timed out")
        if isinstance(error, TimeoutError):
            return ServerError(
                f"{self._path} stalled: no byte for {self._patience.silence_s:g} s {when}", "timed out"
            )
        if isinstance(error, (ConnectionError, http.client.IncompleteRead)):
            return ServerError(f"{self._path}: the server closed the connection {when}", "crashed")
        return ServerError(f"{self._path}: no HTTP answer {when}: {type(error).__name__} {error}")
