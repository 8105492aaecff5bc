"""Who may ask: by host, origin and token."""

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")
pytest.importorskip("uvicorn", reason="the serve extra is not installed")

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from harness.serve import guard
from harness.serve.guard import COOKIE, Guard, Impatient, is_same


def client(token: str = "", host: str = "127.0.0.1") -> TestClient:
    return TestClient(Guard(PlainTextResponse("yes"), host=host, token=token), base_url="http://127.0.0.1:8765")


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("127.0.0.1:8765", True),
        ("localhost:8765", True),
        ("localhost", True),
        ("[::1]:8765", True),
        ("LOCALHOST:1", True),
        ("192.168.1.7:8765", False),
        ("evil.example:8765", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[", False),
    ],
)
def test_without_a_token_only_loopback_is_answered(host: str, is_own: bool) -> None:
    answer = client().get("/", headers={"host": host})

    assert answer.status_code == (200 if is_own else 421)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "secret"}, 200),
        ({"authorization": "Bearer secret"}, 200),
        ({"cookie": f"a=b; {COOKIE}=secret"}, 200),
        ({"cookie": f"{COOKIE}=secre"}, 401),
        ({"authorization": "Bearer secret", "host": "192.168.1.7:8765"}, 200),
        ({"authorization": "Bearer secret", "host": "evil.example"}, 421),
        ({"authorization": "Bearer secret", "origin": "http://evil.example"}, 403),
    ],
)
def test_beyond_loopback_everybody_shows_the_token(headers: dict[str, str], status: int) -> None:
    assert client(token="secret", host="0.0.0.0").get("/", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"), [("http://127.0.0.1:8765", 200), ("http://127.0.0.1:1", 403), ("null", 403)]
)
def test_no_other_page_may_ask(origin: str, status: int) -> None:
    assert client().post("/", headers={"origin": origin}).status_code == status


def test_tokens_are_compared_whole() -> None:
    assert is_same("a", "a")
    assert not is_same("", "a")
    assert not is_same("ä", "a")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
    ],
)
def test_no_page_of_another_site_may_ask(headers: dict[str, str], status: int) -> None:
    assert client().get("/", headers=headers).status_code == status


@pytest.fixture
def port() -> Iterator[int]:
    app = Guard(PlainTextResponse("yes"), host="127.0.0.1", token="")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, http=Impatient, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(5)


def slow_body(port: int) -> socket.socket:
    """A request whose body of 60,000 bytes has sent one."""
    connection = socket.create_connection(("127.0.0.1", port), 5)
    connection.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\nx")
    return connection


def test_who_sends_slowly_holds_no_place(port: int) -> None:
    """The 200 of them outnumber the places, and those whose bodies are read; others are answered within 2 s."""
    slow = [slow_body(port) for _ in range(200)]
    waits_s = []
    for _ in range(3):
        begun_s = time.perf_counter()
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).status == 200
        waits_s.append(time.perf_counter() - begun_s)
    assert min(waits_s) < 2.0
    whole = urllib.request.Request(f"http://127.0.0.1:{port}/", data=b"y" * 1000)
    assert urllib.request.urlopen(whole, timeout=20).read() == b"yes"
    for connection in slow:
        connection.close()


def test_a_drip_of_bytes_ends_after_a_window(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_WINDOW_S", 0.2)
    connection = slow_body(port)
    for _ in range(20):
        time.sleep(0.05)
        try:
            connection.sendall(b"x")
        except OSError:
            break
    assert b" 408 " in connection.recv(100)
