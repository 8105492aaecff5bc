"""Who may ask, and how much: hosts, origins, a token beyond loopback, sizes, and how many at once."""

import asyncio
import hmac
import socket
from ipaddress import ip_address
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

BODY_MAX: Final = 64 * 1024
HEADERS_MAX: Final = 16 * 1024
_AT_ONCE: Final = 64
"""Requests that wait or are answered; a further one is told to come again."""
_SILENCE_S: Final = 10.0
"""How long a connection may say nothing."""
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
        self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            self.active += 1
            try:
                refusal = self._refusal(HTTPConnection(scope))
                await (refusal or self.app)(scope, _bounded(receive), _with_headers(send))
            finally:
                self.active -= 1

    def _refusal(self, asked: HTTPConnection) -> Response | None:
        headers = asked.headers
        size = sum(map(len, headers.values()))
        host = headers.get("host", "")
        shown = headers.get("authorization", "").removeprefix("Bearer ") or asked.cookies.get(COOKIE, "")
        is_open = (
            not self.token or asked.url.path == "/enter"
        )  # which compares it itself, and gives the cookie
        faults = (
            (self.active > _AT_ONCE, 503, "busy: come again"),
            (size > HEADERS_MAX, 431, f"found more than {HEADERS_MAX} bytes of headers"),
            (not self.is_own(host), 421, "Host: found another one than this server's"),
            (headers.get("origin", f"http://{host}") != f"http://{host}", 403, "Origin: found another page"),
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


def _bounded(receive: Receive) -> Receive:
    """What a request brings: not more than so many bytes, and each part of it soon."""
    taken = 0
    is_whole = False

    async def bounded() -> Message:
        nonlocal taken, is_whole
        if is_whole:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), _SILENCE_S)
        except TimeoutError:
            raise HTTPException(408, "the rest of the request did not come") from None
        is_whole = not message.get("more_body", False)
        taken += len(message.get("body", b""))
        if taken > BODY_MAX:
            raise HTTPException(413, f"found more than {BODY_MAX} bytes")
        return message

    return bounded


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
