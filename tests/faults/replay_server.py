"""A real socket server that says what a test wrote down: exchanges from documentation, and every way to go wrong."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Reply = bytes | Callable[[socket.socket, dict[str, Any]], None]
"""Bytes to send, or what to do with the connection and the body that was asked."""


def page(body: object, status: int = 200, kind: str = "application/json", reason: str = "OK") -> bytes:
    """A whole answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = (
        f"HTTP/1.1 {status} {reason}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        "Connection: close",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


NO_PAGE = page({"error": {"message": "File Not Found"}}, 404, reason="Not Found")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LINES_HEAD = STREAM_HEAD.replace(b"text/event-stream", b"application/x-ndjson")
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """A part of a chunked answer."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(data: object) -> bytes:
    """A server-sent event."""
    return chunk(b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n")


def line(data: object) -> bytes:
    """A line of JSON."""
    return chunk(json.dumps(data).encode() + b"\n")


class Replay:
    """Answers by path; ``asked`` keeps the bodies it got."""

    def __init__(self, pages: dict[str, Reply]) -> None:
        self.pages = pages
        self.asked: list[tuple[str, Any]] = []
        self.headers: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                got = connection.recv(1 << 16)
                if not got:
                    return
                data += got
            head, _, body = data.partition(b"\r\n\r\n")
            length = next((int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-l")), 0)
            while len(body) < length:
                body += connection.recv(1 << 16)
            path = head.split(b" ")[1].decode()
            asked = json.loads(body) if body else {}
            self.asked.append((path, asked))
            self.headers.append(head.decode())
            reply = self.pages.get(path, NO_PAGE)
            if callable(reply):
                reply(connection, asked)
            else:
                connection.sendall(reply)

    def close(self) -> None:
        """Listen no more."""
        self._over.set()
        self._socket.close()


@contextmanager
def replay(pages: dict[str, Reply]) -> Iterator[Replay]:
    """A server with those pages, for as long as the block runs."""
    server = Replay(pages)
    try:
        yield server
    finally:
        server.close()


def sends(*parts: bytes, gap_s: float = 0.0) -> Reply:
    """A reply in several writes."""

    def reply(connection: socket.socket, _asked: dict[str, Any]) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(gap_s)

    return reply


def reset(connection: socket.socket) -> None:
    """Close with a reset instead of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()
