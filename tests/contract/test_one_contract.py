"""One contract for Python, HTTP and MCP: nothing is passed over, and what is wrong is one sentence in our words."""

import json
import random
import re
from typing import Any

import pytest

import harness
from harness.answer.contract import Compared, Past, Ranked, Why, fields_of, read, schema_of
from harness.core.errors import InputError
from harness.core.question import Question

KINDS = {"fit": Question, "recommend": Ranked, "compare": Compared, "explain": Why, "history": Past}
FOREIGN = re.compile(r"typing\.|msgspec|pydantic|Traceback|Annotated|Literal\[|NoneType|validation error")
GOOD: dict[str, list[Any]] = {
    "model": ["llama-3.2-1b", "qwen3-0.6b"],
    "device": ["iphone-16-pro", "raspberry pi 5", "rtx 4060 + 32GB"],
    "context_tokens": [4096, "max", None],
    "users": [1, 2],
    "quant": ["Q8_0", ""],
    "kv_type": ["F16", "Q8_0"],
    "without": [["repack"], []],
    "entitled": [False],
    "minutes": [None, 10],
    "new_tokens": [64],
    "measured": [3.0, None],
    "limit": [5],
    "task": ["chat"],
    "models": [["llama-3.2-1b", "qwen3-0.6b"]],
    "devices": [["iphone-16-pro"]],
}
BAD: list[Any] = ["many", -1, 1e99, [1], {"x": 1}, "", True, None, 0.5, "a" * 5000, float("nan"), ["\x00"]]


def calls(count: int, seed: int = 59) -> list[tuple[str, dict[str, Any]]]:
    """Random requests: of the fields of each kind good ones, bad ones, misspelled ones, unknown ones."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        door = chance.choice([*KINDS])
        names = [*fields_of(KINDS[door])]
        given: dict[str, Any] = {}
        for name in chance.sample(names, chance.randint(0, min(4, len(names)))):
            given[name] = chance.choice(GOOD[name]) if name in GOOD and chance.random() < 0.7 else chance.choice(BAD)
        if "model" in names and chance.random() < 0.9:
            given.setdefault("model", chance.choice(GOOD["model"]))
            given.setdefault("device", chance.choice(GOOD["device"]))
        if door == "compare" and chance.random() < 0.8:
            given |= {"models": GOOD["models"][0], "devices": GOOD["devices"][0]}
        if chance.random() < 0.3:
            wrong = chance.choice(names)
            given[wrong[:-1] + "x"] = 1
        found.append((door, given))
    return found


def unknown(door: str, given: dict[str, Any]) -> set[str]:
    return set(given) - set(fields_of(KINDS[door]))


def test_five_hundred_random_requests_are_read_or_refused_in_one_sentence() -> None:
    refused = 0
    for door, given in calls(500):
        try:
            request = read(given, KINDS[door])
        except InputError as error:
            refused += 1
            assert not FOREIGN.search(str(error)), str(error)
            assert "\n" not in str(error)
            continue
        assert not unknown(door, given)
        for name, value in given.items():  # what was asked for is what will be answered
            kept = getattr(request, name)
            taken = list(kept) if isinstance(kept, tuple) else kept
            assert taken in (value, [value]) or (value == "" and taken == []) or name == "placement"
    assert refused > 100


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model": "a", "users": "many"}, "users: found 'many', expected a whole number from 1 to 4,096, or"),
        ({"model": "a", "contxt_tokens": 1}, "Did you mean context_tokens?"),
        ({}, "model: found nothing"),
        ({"model": "a", "without": ["mmap", "x"]}, "without: found an array, expected a list of flash"),
        ({"model": "a", "placement": "-ngl x"}, "placement: found '-ngl x'"),
        ({"model": "a", "entitled": 3}, "entitled: found 3, expected true or false"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_said_with_what_was_expected(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        read(given, Question)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_a_schema_has_each_field_and_takes_no_other(kind: type) -> None:
    schema = schema_of(kind)
    assert tuple(schema["properties"]) == kind.__struct_fields__
    assert schema["additionalProperties"] is False
    assert "$ref" not in json.dumps(schema)


def test_python_refuses_and_answers_by_the_same_contract() -> None:
    assert {"fit", "compare", "recommend", "matrix", "learn", "history"} <= set(dir(harness))
    with pytest.raises(InputError, match="Did you mean context_tokens"):
        harness.fit("llama-3.2-1b", "iphone-16-pro", context_token=8192)  # type: ignore[call-arg]
    assert harness.fit("llama-3.2-1b", "rtx 4060", placement="-ngl 5").answer.scenario.placement.gpu_layers == 5  # type: ignore[arg-type]
    table = harness.matrix("qwen3-0.6b", "iphone-16-pro")
    assert len(table) == 1
    assert {"first_token_s", "prefill_tokens_per_s", "needed_bytes", "joules_per_token"} <= set(table.names)
    both = harness.compare(["qwen3-0.6b", "llama-3.2-1b"], "iphone-16-pro")
    speeds = [row["decode_tokens_per_s"] for row in both]
    assert speeds == sorted(speeds, reverse=True)
    slow = harness.fit("llama-3.1-8b", "rtx 3090").why(12)
    assert slow.causes[0].kind == "layers"
    for shown in (both, table, harness.fit("qwen3-0.6b", "iphone-16-pro")):
        assert shown._repr_html_().startswith(("<table", "<pre"))


class Door:
    """The application, asked without a socket."""

    def __init__(self, application: Any) -> None:
        self.application = application

    def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, Any]:
        import anyio

        path, _, query = target.partition("?")
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": query.encode(), "headers": [(b"host", b"127.0.0.1")], "scheme": "http", "root_path": "",
            "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        anyio.run(self.application, scope, receive, send)
        return sent[0]["status"], json.loads(b"".join(one.get("body", b"") for one in sent[1:]))


@pytest.fixture(scope="module")
def app() -> Door:
    pytest.importorskip("starlette", reason="the serve extra is not installed")
    pytest.importorskip("mcp", reason="the serve extra is not installed")
    from harness.cli.serve import _fit, _said
    from harness.serve.sources import sources_of
    from harness.serve.web import application

    return Door(application(sources_of(_fit, _said), host="127.0.0.1", token=""))


def test_http_answers_or_says_in_one_json_sentence_what_is_wrong(app: Door) -> None:
    for door, given in [one for one in calls(120, seed=7) if one[0] not in {"history", "recommend"}]:
        try:
            body = json.dumps(given, allow_nan=False)
        except ValueError:
            continue
        status, said = app.ask("POST", f"/v1/{door}", body.encode())
        if status == 200:
            assert not unknown(door, given)
            continue
        assert status in {400, 404}, said
        assert not FOREIGN.search(said["error"]), said


def test_a_brief_answer_is_small(app: Door) -> None:
    for path in (
        "fit?model=llama-3.1-8b&device=rtx+3060+12GB",
        "explain?model=llama-3.1-8b&device=rtx+3060+12GB&measured=9",
        "explain?model=llama-3.1-8b&device=rtx+3060+12GB",
        "recommend?device=raspberry+pi+5",
    ):
        status, said = app.ask("GET", f"/v1/{path}&brief=1")
        assert status == 200, said
        assert len(json.dumps(said)) <= 3000, path
        assert said["words"]
    assert app.ask("GET", "/v1/nothing")[1]["error"]
    assert app.ask("PUT", "/v1/fit")[1]["error"]


def test_an_agent_asks_by_the_protocols_own_client() -> None:
    pytest.importorskip("mcp", reason="the serve extra is not installed")
    import anyio
    from mcp import Client

    from harness.serve.agent_tools import tools

    async def use() -> None:
        async with Client(tools()) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(listed) == set(KINDS)
            for name, tool in listed.items():
                assert tool.annotations is not None and tool.annotations.read_only_hint
                assert set(tool.input_schema["properties"]) == {*fields_of(KINDS[name]), "whole"}
            good = await client.call_tool("fit", {"model": "llama-3.1-8b", "device": "rtx 3060 12GB", "users": 2})
            assert not good.is_error
            assert good.content[0].text.startswith("Yes. An RTX 3060 12 GB serves Llama 3.1 8B to 2 people")
            assert good.structured_content["verdict"] == "fits"
            assert len(good.content[0].text) + len(json.dumps(good.structured_content)) <= 3000
            whole = await client.call_tool("fit", {"model": "llama-3.1-8b", "device": "rtx 3060 12GB", "whole": True})
            assert whole.structured_content["prediction"]["memory"]["parts"]
            why = await client.call_tool("explain", {"model": "llama-3.1-8b", "device": "rtx 3090", "measured": 12})
            assert why.structured_content["slow"]["causes"][0]["kind"] == "layers"
            files = await client.call_tool("fit", {"model": "/etc/passwd"})
            assert files.is_error and "not for files" in files.content[0].text
            for door, given in calls(150, seed=11):
                if door == "recommend" and not unknown(door, given):
                    continue
                said = await client.call_tool(door, json.loads(json.dumps(given).replace("NaN", "-7")))
                if said.is_error:
                    assert not FOREIGN.search(said.content[0].text), said.content[0].text
                else:
                    assert not unknown(door, given)

    anyio.run(use)
