"""Who may ask: by host, origin and token."""

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")
pytest.importorskip("uvicorn", reason="the serve extra is not installed")

from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from harness.serve.guard import COOKIE, Guard, is_same


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
