"""Who may ask, and how much: hosts, origins, a token beyond loopback, sizes, and how many at once."""

import asyncio
import hmac
import socket
from collections import Counter
from ipaddress import ip_address
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

BODY_MAX: Final = 64 * 1024
HEADERS_MAX: Final = 16 * 1024
_AT_ONCE: Final = 64
"""Requests that are answered at once; a further one is told to come again."""
_OF_ONE: Final = 48
"""Of those, the ones of one client beyond this machine."""
_READING: Final = 128
"""Bodies that are on their way; for a further one the one that takes longest is given up."""
_SILENCE_S: Final = 10.0
"""How long a connection may say nothing."""
_WINDOW_S: Final = 20.0
_LEAST_BYTES_PER_S: Final = 512
"""Over each window of a body: slower than a line of the last century is nobody who wants an answer."""
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
COOKIE: Final = "edge-harness-token"


class Guard:
    """Stands before the application.

    Args:
        app: What answers.
        host: Address that is listened on.
        token: What everybody has to show; empty on loopback.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str) -> None:
        self.app = app
        self.host = host
        self.token = token
        self.active: Counter[str] = Counter()
        self.reading: list[asyncio.Future[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer: ASGIApp = self.app
            try:
                refusal = self._refusal(HTTPConnection(scope))
                body = b"" if refusal else await self._whole(receive)
            except HTTPException as error:
                refusal = PlainTextResponse(f"{error.detail}\n", error.status_code)
            if refusal:
                await refusal(scope, receive, _with_headers(send))
                return
            # A place is taken by what is whole: who sends slowly holds none.
            client = (scope.get("client") or ("",))[0]
            if self.active.total() >= _AT_ONCE or (self.token and self.active[client] >= _OF_ONE):
                answer = PlainTextResponse("busy: come again\n", 503)
            self.active[client] += 1
            try:
                await answer(scope, _replayed(body, receive), _with_headers(send))
            finally:
                self.active[client] -= 1

    async def _whole(self, receive: Receive) -> bytes:
        """The body of a request.

        Raises:
            HTTPException: It is too long, too slow over a window of 20 s, or the slowest of too many.
        """
        loop = asyncio.get_running_loop()
        given_up: asyncio.Future[None] = loop.create_future()
        self.reading.append(given_up)
        if len(self.reading) > _READING and not self.reading[0].done():
            self.reading[0].set_result(None)
        body = b""
        window_s, window_bytes = loop.time(), 0
        try:
            while True:
                part = asyncio.ensure_future(receive())
                waited: set[asyncio.Future[Any]] = {part, given_up}
                await asyncio.wait(waited, timeout=_SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
                if not part.done():
                    part.cancel()
                    raise HTTPException(408, "the rest of the request did not come")
                message = part.result()
                body += bytes(message.get("body", b""))
                if len(body) > BODY_MAX:
                    raise HTTPException(413, f"found more than {BODY_MAX} bytes")
                if not message.get("more_body", False):
                    return body
                if loop.time() - window_s > _WINDOW_S:
                    if len(body) - window_bytes < _LEAST_BYTES_PER_S * _WINDOW_S:
                        raise HTTPException(408, f"found less than {_LEAST_BYTES_PER_S} bytes a second")
                    window_s, window_bytes = loop.time(), len(body)
        finally:
            self.reading.remove(given_up)

    def _refusal(self, asked: HTTPConnection) -> Response | None:
        headers = asked.headers
        size = sum(map(len, headers.values()))
        host = headers.get("host", "")
        shown = headers.get("authorization", "").removeprefix("Bearer ") or asked.cookies.get(COOKIE, "")
        is_open = (
            not self.token or asked.url.path == "/enter"
        )  # which compares it itself, and gives the cookie
        faults = (
            (size > HEADERS_MAX, 431, f"found more than {HEADERS_MAX} bytes of headers"),
            (not self.is_own(host), 421, "Host: found another one than this server's"),
            (headers.get("origin", f"http://{host}") != f"http://{host}", 403, "Origin: found another page"),
            (_is_from_elsewhere(headers), 403, "Sec-Fetch-Site: found another page"),
            (
                not (is_open or is_same(shown, self.token)),
                401,
                "Authorization: expected Bearer and the token",
            ),
        )
        for is_at_fault, status, said in faults:
            if is_at_fault:
                if asked.url.path.startswith("/v1"):
                    return JSONResponse({"error": said}, status)
                return PlainTextResponse(f"{said}\n", status)
        return None

    def is_own(self, host: str) -> bool:
        """Whether a Host is this server's: an address, which no name server can turn, or this machine's name."""
        name, _, port = host.lower().rpartition(":")
        if not port.isdigit():
            name = host.lower()
        if name == "localhost":
            return True
        try:
            address = ip_address(name.strip("[]"))
        except ValueError:
            return bool(self.token) and name in {self.host, socket.gethostname().lower()}
        return bool(self.token) or address.is_loopback


def is_same(shown: str, token: str) -> bool:
    """Whether a token is the right one, in a time that says nothing of it."""
    return hmac.compare_digest(shown.encode(), token.encode())


def _is_from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that a page of another site asks; a link that somebody follows is none."""
    site = headers.get("sec-fetch-site", "none")
    is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return site in {"cross-site", "same-site"} and not is_link


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, then what comes after it."""
    is_told = False

    async def replayed() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return sent


class Impatient(H11Protocol):
    """A connection that is closed where nobody asks anything."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self.loop.call_later(_SILENCE_S, self._hang_up)

    def _hang_up(self) -> None:
        if self.cycle is None:
            self.transport.close()
