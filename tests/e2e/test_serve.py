"""The server as a browser, another program, an agent and a stranger meet it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")
pytest.importorskip("mcp", reason="the serve extra is not installed")

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RECORDS = ROOT / "reports" / "check" / "grid-zen3.json"
EVENING = ROOT / "reports" / "check" / "grid-evening.json"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> dict[str, str]:
    """A home with 64 runs."""
    folder = tmp_path_factory.mktemp("home")
    environment = os.environ | {"EDGE_HARNESS_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    for file in (RECORDS, EVENING):
        words = [sys.executable, "-m", "harness", "history", "--import", str(file)]
        subprocess.run(words, check=True, env=environment, capture_output=True)
    return environment


@pytest.fixture(scope="module")
def port(home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    words = [sys.executable, "-m", "harness", "serve", "--port", str(number)]
    process = subprocess.Popen(words, env=home, stderr=subprocess.PIPE)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", number), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield number
    process.terminate()
    process.wait(20)


def asked(port: int, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def printed(home: dict[str, str], *words: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words, "--json"], env=home, capture_output=True, check=False
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "/v1/fit?model=llama-3.1-8b&device=rtx+3060+12GB&context_tokens=8192",
            ("fit", "llama-3.1-8b", "-d", "rtx 3060 12GB", "-c", "8192", "--no-advice"),
        ),
        (
            "/v1/fit?model=gpt-oss-20b&device=rtx+4060+%2B+32GB",
            ("fit", "gpt-oss-20b", "-d", "rtx 4060 + 32GB", "--no-advice"),
        ),
        ("/v1/devices?device=iphone-16-pro", ("devices", "show", "iphone-16-pro")),
        ("/v1/models?model=qwen3-8b", ("models", "show", "qwen3-8b")),
        ("/v1/history?limit=3", ("history", "--limit", "3")),
    ],
)
def test_documents_are_those_of_the_command_line(home, port, path: str, words: tuple[str, ...]) -> None:
    status, body = asked(port, path)

    assert status == 200
    assert json.loads(body) == printed(home, *words)


def test_a_question_can_be_a_document(port) -> None:
    question = {"model": "gpt-oss-20b", "device": "rtx 4060 + 32GB", "placement": {"gpu_layers": 10}}
    status, body = asked(port, "/v1/fit", method="POST", body=json.dumps(question).encode())

    assert status == 200
    assert json.loads(body)["question"]["placement"]["gpu_layers"] == 10


def test_the_description_is_of_the_types(port) -> None:
    _, body = asked(port, "/openapi.json")
    described = json.loads(body)
    names = {parameter["name"] for parameter in described["paths"]["/v1/fit"]["get"]["parameters"]}

    assert {"model", "device", "context_tokens", "users", "kv_type"} <= names
    users = described["components"]["schemas"]["Question"]["properties"]["users"]
    assert users["anyOf"][0]["maximum"] == 4096
    assert {"/v1/fit", "/v1/recommend", "/v1/compare", "/v1/explain"} <= set(described["paths"])


PATHS = """
/../etc/passwd
/%2e%2e/%2e%2e/etc/passwd
/runs/..%2f..%2fetc%2fpasswd
/runs/%00
/static/x
/.git/x
/runs/'%20OR%201=1%20--
/gate
/gate?run=..%2f&baseline=x
/v1
/v1/
/v1/check
/v1/nothing
/v1/fit
/v1/fit?device=x
/v1/fit?model=/etc/passwd
/v1/fit?model=hf:org/repo
/v1/fit?model=org/repo:Q4_K_M
/v1/fit?model=llama-3.1-8b&device=/etc/passwd
/v1/fit?model=llama-3.1-8b&device=../x.toml
/v1/fit?model=llama-3.1-8b&draft=/etc/passwd
/v1/fit?model=llama-3.1-8b&beside=~/x.gguf
/v1/fit?model=llama-3.1-8b&context_tokens=-1
/v1/fit?model=llama-3.1-8b&context_tokens=1e99
/v1/fit?model=llama-3.1-8b&users=99999999
/v1/fit?model=llama-3.1-8b&minutes=nan
/v1/fit?model=a&nothing=1
/v1/fit?model=llama-3.1-8b&prompt_tokens=0x10
/v1/fit?model=%00%ff%fe
/v1/devices?device=/etc/passwd
/v1/devices?device=~root/x.toml
/v1/models?model=/etc/hostname
/v1/history?limit=0
/v1/history?limit=-5
/v1/history?limit=10000000000
/v1/history?run=../../passwd
/v1/history?run=%27%3B%20DROP%20TABLE%20runs
/v1/models?model=..%2f..%2fpyproject.toml
"""
HOSTILE = [
    *(("GET", path, {}, {400, 404}) for path in [*PATHS.split(), "/v1/fit?model=" + "a" * 3000]),
    *(("GET", "/", headers, {421}) for headers in (
        {"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Host": "127.0.0.1.evil.example"}, {"Host": ""},
        {"Host": "localhost.evil.example"}, {"Host": "10.0.0.1"}, {"Host": "[::2]:80"}, {"Host": "a" * 300},
    )),
    *(("POST", "/v1/fit", headers, {403}) for headers in (
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "file://"}, {"Origin": "https://127.0.0.1"},
    )),
    *((method, "/v1/fit", {}, {405}) for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")),
    *((method, "/", {}, {405}) for method in ("POST", "PUT", "DELETE")),
    ("GET", "/v1/fit?model=" + "a" * 5000, {}, {400}),
    ("GET", "/" + "a" * 30_000, {}, {400, 404, 414}),
    ("GET", "/", {"X": "y" * 30_000}, {400, 431}),
    ("POST", "/v1/check?model=smollm2-135m", {}, {404, 405}),
    ("POST", "/mcp", {}, {400, 406, 415}),
]  # fmt: skip


def test_sixty_hostile_requests_are_refused_and_say_nothing(port) -> None:
    assert len(HOSTILE) >= 60
    for method, path, headers, expected in HOSTILE:
        status, body = asked(port, path.replace(" ", "%20"), method=method, **headers)
        assert status in expected, (method, path[:80], headers, status, body[:200])
        assert b"root:" not in body and b"Traceback" not in body and b"site-packages" not in body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": 1}',
        b'{"model": "a", "x": 1}',
        b"[" * 5000,
        b'{"model": "/etc/passwd"}',
        b"\xff" * 100,
    ],
)
def test_a_document_that_is_no_question_is_refused(port, body: bytes) -> None:
    status, said = asked(port, "/v1/fit", method="POST", body=body)

    assert status == 400
    assert said


def test_a_body_has_a_bound(port) -> None:
    assert asked(port, "/v1/fit", method="POST", body=b"a" * 200_000)[0] == 413


def test_a_flood_of_two_hundred_connections_holds_nobody_up(port) -> None:
    """Half of them say nothing, half send a beginning and stop."""
    crowd = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(200)]
    for one in crowd[::2]:
        one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
    began_s = time.monotonic()
    status, _ = asked(port, "/v1/fit?model=llama-3.2-1b&device=iphone-16-pro")
    waited_s = time.monotonic() - began_s
    time.sleep(11)
    crowd[1].settimeout(5)

    assert status == 200
    assert waited_s < 5
    assert crowd[0].recv(100) in {b""} or crowd[1].recv(100) == b""  # the silent are hung up on after ten seconds
    assert crowd[1].recv(100) == b""
    for one in crowd:
        one.close()


def test_pages_bring_a_policy_and_nothing_is_kept(port) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    answer = connection.getresponse()
    text = answer.read().decode()

    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src &#39;none&#39;" in text and "<script" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("scripts", [True, False])
def test_a_browser_asks_compares_copies_and_opens_the_history(port, scripts: bool) -> None:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        view = browser.new_context(java_script_enabled=scripts).new_page()
        view.goto(f"http://127.0.0.1:{port}/")
        view.fill("input[name=model]", "llama-3.1-8b")
        view.locator("input[name=device]").fill("rtx 3060 12GB")
        view.click("button")
        assert "Llama 3.1 8B" in view.locator("h1").inner_text()
        assert "tokens a second" in view.locator("h1").inner_text()
        assert view.locator(".tiles li").count() == 4
        command = view.locator("code.copy").first.inner_text()
        assert command.startswith("llama-server ")
        view.locator("code.copy").first.click()
        if scripts:
            assert view.evaluate("getSelection().toString().trim()") == command
        view.fill("input[name=model]", "no such model 99")
        view.click("button")
        assert "no such model 99" in view.locator("[role=alert]").inner_text()
        view.click("text=Compare")
        view.click("main li a")
        assert view.locator("#speeds").inner_text()
        assert view.locator("section svg .band").count() == 3
        view.click("text=History")
        assert view.locator("tbody tr").count() == 64
        view.locator("input[name=run]").first.check()
        view.locator("input[name=baseline]").nth(1).check()
        view.click("button")
        assert "budgets" in view.locator("h1").inner_text() or "nothing to compare" in view.content()
        view.go_back()
        view.locator("tbody a").first.click()
        assert "writes" in view.locator("h1").inner_text()
        browser.close()


def test_an_agent_uses_the_tools_over_both_transports(home, port) -> None:
    import anyio
    from mcp import ClientSession
    from mcp.client.stdio import StdioServerParameters, stdio_client
    from mcp.client.streamable_http import streamable_http_client

    expected = printed(home, "fit", "llama-3.1-8b", "-d", "rtx 3060 12GB", "--no-advice")
    found = []

    async def use(read, write) -> None:
        async with ClientSession(read, write) as session:
            await session.initialize()
            names = {tool.name for tool in (await session.list_tools()).tools}
            fit = await session.call_tool("fit", {"model": "llama-3.1-8b", "device": "rtx 3060 12GB"})
            ranked = await session.call_tool("recommend", {"device": "raspberry pi 5"})
            why = await session.call_tool("explain", {"model": "llama-3.1-8b", "device": "rtx 3060 12GB"})
            past = await session.call_tool("history", {"limit": 2})
            wrong = await session.call_tool("fit", {"model": "/etc/passwd"})
            found.append((names, fit, ranked, why, past, wrong))

    async def both() -> None:
        async with streamable_http_client(f"http://127.0.0.1:{port}/mcp") as streams:
            await use(streams[0], streams[1])
        words = ["-m", "harness", "serve", "--mcp"]
        async with stdio_client(StdioServerParameters(command=sys.executable, args=words, env=home)) as streams:
            await use(*streams)

    anyio.run(both)
    for names, fit, ranked, why, past, wrong in found:
        assert names == {"fit", "recommend", "compare", "explain", "history"}
        assert fit.content[0].text.startswith("Yes. Llama 3.1 8B runs on an RTX 3060 12 GB")
        assert fit.structured_content["decode_tokens_per_s"] == expected["prediction"]["speed"]["decode_tokens_per_s"]
        assert ranked.structured_content["choices"]
        assert "measured" in why.content[0].text
        assert len(past.structured_content["items"]) == 2
        assert wrong.is_error and "not for files" in wrong.content[0].text
    assert len(found) == 2
