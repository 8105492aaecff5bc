"""Traces: what a proxy writes down before a server, and what of it is asked again."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from harness.answer.resolve import resolve_model
from harness.core.errors import BadDataError, CouldNotRunError, InputError, RefusedError
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.measure.child import run_helper
from harness.workloads.chain import Op, StepTime
from harness.workloads.hooks import companion
from harness.workloads.measuring import CHILD, plan_of, result_of, timed_here
from harness.workloads.proxy import Recorder
from harness.workloads.system import load
from harness.workloads.system_child import SystemJob
from harness.workloads.trace import App, Chat, Embed, Trace, read_trace

PIECES = [
    {"choices": [{"delta": {"role": "assistant"}}]},
    {"choices": [{"delta": {"content": "se"}}]},
    {"choices": [{"delta": {"content": "ven"}}]},
    {"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 2}},
]


class Server(BaseHTTPRequestHandler):
    """Answers as OpenAI's API does, and remembers what came."""

    seen: list = []

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((self.path, asked, self.headers.get("authorization")))
        if "fail" in str(asked):
            self.send_error(503)
        elif asked.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for piece in PIECES:
                if piece["choices"] or asked.get("stream_options"):
                    self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
            time.sleep(0.8 if "linger" in str(asked) else 0)
        else:
            told = {
                "choices": [{"message": {"content": "7"}}],
                "timings": {"prompt_n": 8, "cache_n": 32, "predicted_n": 1},
            }
            if "embeddings" in self.path:
                told = {"data": [], "usage": {"prompt_tokens": 12}}
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


@pytest.fixture
def server():
    Server.seen = []
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}/v1"
    made.shutdown()


APP = """
import json, os, sys, urllib.request
def ask(path, **asked):
    data = json.dumps(asked).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer secret-key"}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + path, data, headers)
    return urllib.request.urlopen(request).read().decode()
turns = [{"role": "user", "content": "How many days has a week? " * 8}]
first = ask("/chat/completions", model="m", messages=turns, stream=True)
assert "usage" not in first and first.endswith("data: [DONE]\\n\\n"), first
with_usage = ask("/chat/completions", model="m", messages=turns, stream=True, stream_options={"include_usage": True})
assert "usage" in with_usage
assert json.loads(ask("/chat/completions", model="m", messages=turns))["choices"][0]["message"]["content"] == "7"
ask("/embeddings", model="e", input=["one two", "three four five six seven"])
try:
    ask("/chat/completions", model="m", messages="fail")
except urllib.error.HTTPError as error:
    assert error.code == 503
"""


def test_calls_are_passed_on_and_written_down_without_texts_or_keys(server):
    recorder = Recorder(server)
    trace = recorder.record([sys.executable, "-c", APP])
    first, second, third, fourth = trace.calls
    assert [key for _, _, key in Server.seen] == ["Bearer secret-key"] * 5
    assert (first.prompt_tokens, first.new_tokens, first.cached_tokens) == (40, 2, 0)
    assert 0 < first.first_s <= first.duration_s
    # the same prompt again, of which the server says nothing: all but the last token
    assert (second.prompt_tokens, second.cached_tokens) == (40, 39)
    # llama-server's own count: 8 read, 32 from its cache
    assert (third.prompt_tokens, third.cached_tokens, third.new_tokens, third.first_s) == (40, 32, 1, None)
    # 12 tokens by the letters of each text, 7 and 25 of them
    assert fourth.tokens == (3, 9)
    assert trace.app.models == ("m", "e") and trace.app.failed_count == 1
    assert trace.app.peak_anonymous_bytes > 1 << 20
    kept = msgspec.json.encode(trace).decode()
    assert "secret" not in kept and "week" not in kept and "three" not in kept


def test_a_call_whose_app_left_before_the_stream_was_closed_is_written_down(server):
    app = APP.partition("turns =")[0].replace("urlopen(request).read().decode()", "urlopen(request).readline()")
    app += "ask('/completions', prompt='linger', stream=True, stream_options={'include_usage': True}); os._exit(0)"
    assert [call.prompt_tokens for call in Recorder(server).record([sys.executable, "-c", app]).calls] == [40]


def test_texts_are_kept_where_they_are_wanted(server):
    trace = Recorder(server, texts=True).record([sys.executable, "-c", APP])
    assert "week" in trace.calls[0].texts[0] and trace.calls[0].texts[1] == "seven"


def test_a_command_that_fails_or_is_not_there_is_an_error(server):
    for command, says in (
        ([sys.executable, "-c", "raise SystemExit(3)"], "status 3"),
        (["no-such-app"], "No such file"),
    ):
        with pytest.raises(CouldNotRunError, match=says):
            Recorder(server).record(command)
    with pytest.raises(InputError, match=r"--upstream: found 'localhost:8080'"):
        Recorder("localhost:8080")


def test_a_server_that_is_gone_is_told_to_the_app_and_is_no_call():
    app = APP.partition("first =")[0] + "try:\n    ask('/completions', prompt='x')\n"
    app += "except urllib.error.HTTPError as error:\n    assert error.code == 502\n"
    trace = Recorder("http://127.0.0.1:9/v1").record([sys.executable, "-c", app])
    assert (trace.calls, trace.app.failed_count) == ((), 1)


CALLS = (
    Chat(prompt_tokens=100, new_tokens=11, duration_s=1.0),
    Chat(prompt_tokens=140, cached_tokens=100, new_tokens=1, image_count=1, gap_s=0.5),
    Embed(tokens=(5, 9)),
)


def written(path, calls=CALLS, **app):
    path.write_bytes(msgspec.json.encode(Trace(app=App(**app), calls=calls)))
    return str(path)


def test_the_calls_of_a_trace_are_passes(tmp_path):
    system = load(written(tmp_path / "mine.trace.json"))
    assert (system.name, system.context_tokens) == ("mine", 256)
    passes = {
        step: [[(one.part, one.op, one.tokens, one.depth) for one in call] for call in calls]
        for step, calls in system.passes({}).items()
    }
    assert passes == {
        "chat": [
            [("language", Op.READ, 100, 0), ("language", Op.WRITE, 10, 100)],
            [("language", Op.READ, 40, 100), ("images", Op.IMAGE, 1, 0)],
        ],
        "embed": [[("encoder", Op.EMBED, 5, 0), ("encoder", Op.EMBED, 9, 0)]],
    }
    # of one call that ran: 2 ms a token read, 10 ms a token written
    ran = [
        StepTime(
            step="chat",
            duration_s=0.3,
            passes=tuple(
                one.replace(seconds=0.002 * one.tokens if one.op is Op.READ else 0.01 * one.tokens)
                for one in system.passes({})["chat"][0]
            ),
        )
    ]
    taken = {each.step: each.duration_s for each in timed_here(system, ran)}
    assert taken["chat"] == pytest.approx(0.08)  # of the second call


def test_a_trace_beside_a_model_is_its_apps_memory_and_the_time_of_its_calls(tmp_path):
    path = written(tmp_path / "mine.trace.json", CALLS[:1], peak_anonymous_bytes=90 << 20)
    held = companion(path, resolve_model("smollm2-135m").weights)
    assert (held.name, held.anonymous_bytes) == ("mine", 90 << 20)
    fast, slow = (
        held.steps(load_device(name), Scenario())["chat"] for name in ("apple-m3-ultra", "raspberry-pi-4-1gb")
    )
    assert 0 < fast < slow


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version: found 2"),
        ({"calls": []}, "holds no call"),
        ({"calls": [{"kind": "chat", "prompt_tokens": 5, "new_tokens": 1, "cached_tokens": 5}]}, "cached_tokens"),
        ({"calls": [{"kind": "sing"}]}, "kind"),
        ({"calls": [{"kind": "chat", "prompt_tokens": -1, "new_tokens": 1}]}, "prompt_tokens"),
    ],
)
def test_what_is_no_trace_is_named(tmp_path, change, says):
    path = tmp_path / "x.trace.json"
    written(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises((BadDataError, RefusedError), match=says):
        read_trace(path)


def test_a_trace_is_replayed_by_the_engine_with_what_its_server_had_cached(tmp_path):
    pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
    from bench.tiny_gguf import synthesize_tiny

    model = synthesize_tiny(tmp_path / "tiny.gguf", "Q8_0", layer_count=2)
    calls = (CALLS[0], CALLS[0], CALLS[0].replace(prompt_tokens=130, cached_tokens=90))
    path = written(tmp_path / "mine.trace.json", calls)
    plan = plan_of(SystemJob(name=path, size={}, parts={"language": str(model)}))
    ended = run_helper(CHILD, plan.job)
    assert ended.outcome == "ok", ended.detail
    rows = {(row.part, row.op): row for row in result_of(plan, ended, None).passes}
    # of the second and the third call: 100 and 40 read, 10 written
    assert rows["language", "read"].tokens == 70 and rows["language", "write"].tokens == 10
    assert rows["", "recorded"].p50_s == 1.0 and rows["", "recorded"].where.startswith("recorded on")
