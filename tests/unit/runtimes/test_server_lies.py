"""Servers that lie: none of what they say becomes a figure that stands as good."""

import json
import time

import pytest

from harness.answer.resolve import resolve_model
from harness.core.errors import HarnessError
from harness.core.scenario import Scenario
from harness.measure.jobs.load import LoadJob, run_load
from harness.measure.jobs.served import ServedJob, run_served
from harness.runtimes.server import RUNTIME
from harness.verbs.run import _contradicted
from tests.faults.replay_server import END, LINES_HEAD, STREAM_HEAD, chunk, event, line, page, replay
from tests.faults.servers import MODELS, PATIENCE, PROPS, last, pages_of, token

pytestmark = pytest.mark.alone

SCENARIO = Scenario(context_tokens=64, prompt_tokens=3, new_tokens=4, thread_count=1)


def streams(*parts, first_s=0.0, gap_s=0.0):
    """A stream whose first part waits, and each of the others."""

    def reply(connection, _asked):
        connection.sendall(STREAM_HEAD)
        time.sleep(first_s)
        for part in parts:
            connection.sendall(part)
            time.sleep(gap_s)
        connection.sendall(END)

    return reply


class Counting:
    """A connection on which the tokens of the prompt are as many as were sent, where a page says 3."""

    def __init__(self, connection, prompt):
        self.connection, self.count = connection, len(prompt.split() if isinstance(prompt, str) else prompt)

    def sendall(self, data):
        for field in (b'"tokens_evaluated": ', b'"prompt_tokens": '):
            data = data.replace(field + b"3}", field + b"%d}" % self.count).replace(
                field + b"3,", field + b"%d," % self.count
            )
        self.connection.sendall(data)


def tokenizer(connection, asked):
    words = asked.get("content", asked.get("prompt", "")).split()
    connection.sendall(page({"tokens": [5] * len(words), "count": len(words)}))


def llama(make, **pages):
    """A llama-server that answers each request with ``make(tokens asked for)``."""

    def reply(connection, asked):
        make(asked["n_predict"])(Counting(connection, asked["prompt"]), asked)

    return pages_of(reply) | {"/tokenize": tokenizer} | pages


def openai(make):
    """Any other server, of which only the stream is known."""

    def reply(connection, asked):
        make(asked["max_tokens"])(Counting(connection, asked["prompt"]), asked)

    models = page({"object": "list", "data": [{"id": "m"}]})
    return {"/v1/models": models, "/v1/completions": reply, "/tokenize": tokenizer}


def honest(count, first_s=0.009, gap_s=0.006, **told):
    tokens = [token(i + 1) for i in range(count)]
    timings = {"prompt_ms": 1e3 * first_s, "predicted_ms": max(1e3 * gap_s * count, 1.0), "cache_n": 0}
    return streams(*tokens, last(count, **{"timings": timings, **told}), first_s=first_s, gap_s=gap_s)


def said(text, **more):
    return event({"choices": [{"text": text}], **more})


DONE = event(b"[DONE]")


def used(count, **more):
    return event({"choices": [], "usage": {"completion_tokens": count, "prompt_tokens": 3, **more}})


def ollama(make):
    """An Ollama with one model, ``m``."""

    def reply(connection, asked):
        connection.sendall(LINES_HEAD)
        for wait_s, data in make(asked["options"]["num_predict"], len(asked["prompt"].split())):
            time.sleep(wait_s)
            connection.sendall(line({"model": "m", "done": False} | data))
        connection.sendall(END)

    return {
        "/api/version": page({"version": "0.5.1"}),
        "/api/ps": page({"models": []}),
        "/api/tags": page({"models": [{"name": "m:latest", "size": 10**6, "details": {"family": "llama"}}]}),
        "/api/show": page({"details": {"family": "llama"}}),
        "/api/generate": reply,
    }


def counted(prompt, count, first_s=0.1, gap_s=0.05, **told):
    """Ollama's lines: ``count`` pieces and the last line with what it tells."""
    pieces = [(gap_s if i else first_s, {"response": "a"}) for i in range(count)]
    told = {"eval_count": count, "prompt_eval_count": prompt, "done_reason": "length"} | told
    times = {"prompt_eval_duration": int(1e9 * first_s), "eval_duration": int(1e9 * gap_s * max(count, 1))}
    return [*pieces, (0.0, {"response": "", "done": True} | times | told)]


def timed(prompt_ms, predicted_ms, first_s=0.2, gap_s=0.1):
    return lambda n: honest(n, first_s, gap_s, timings={"prompt_ms": prompt_ms, "predicted_ms": predicted_ms})


LIES = {
    # what it is: pages, words of the cause or of the doubt
    "prompt in a microsecond": (llama(timed(0.001, 2000)), "for the prompt"),
    "prompt in no time at all": (llama(timed(1e-9, 2000)), "for the prompt"),
    "prompt longer than the wait": (llama(timed(9000, 2000)), "for the prompt"),
    "tokens in a microsecond": (llama(timed(200, 0.001)), "for its tokens"),
    "tokens in a tenth of their time": (llama(timed(200, 20, gap_s=0.2)), "for its tokens"),
    "another model in the stream": (llama(lambda n: streams(token(1, model="other"), last(n))), "of the model 'other'"),
    "another model in the last event": (llama(lambda n: honest(n, model="x.gguf")), "of the model 'x.gguf'"),
    "other tokens in the prompt": (llama(lambda n: honest(n, tokens_evaluated=900)), "900 tokens"),
    "a prompt from its cache": (
        llama(lambda n: honest(n, timings={"prompt_ms": 9.0, "predicted_ms": 20.0, "cache_n": 3})),
        "from the server's cache",
    ),
    "stops by itself": (llama(lambda n: streams(token(1), last(1, stop_type="eos"))), "ended after 1 of"),
    "cuts and says so": (llama(lambda n: streams(token(1), last(1, stop_type="limit"))), "context may be full"),
    "cuts without a reason": (llama(lambda n: streams(token(1), last(1, stop_type=""))), "ended after 1 of"),
    "cuts by a word": (llama(lambda n: streams(token(1), last(1, stop_type="word"))), "ended after 1 of"),
    "all tokens at once": (llama(lambda n: streams(token(n, "a" * n), last(n))), "no time between tokens"),
    "numbers that jump": (llama(lambda n: streams(token(9 * n), last(9 * n))), "wrong token count"),
    "a negative count": (llama(lambda n: streams(token(-1))), "expected a count"),
    "a count in words": (llama(lambda n: streams(token("two"))), "expected a count"),
    "a true count": (llama(lambda n: streams(token(True))), "expected a count"),
    "a count of a half": (llama(lambda n: streams(token(0.5))), "expected a count"),
    "endless pings": (llama(lambda n: streams(*[chunk(b": ping\n\n" * 2000)] * 8)), "keep a connection alive"),
    "moved": (pages_of(page(b"", 302, "text/html", "Found")), "it is elsewhere"),
    "moved for good": (pages_of(page(b"", 308, "text/html", "Permanent")), "it is elsewhere"),
    "an informal answer": (pages_of(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "304"),
    "429": (pages_of(page({"error": "slow down"}, 429)), "429"),
    "OpenAI: 4 tokens an event": (
        openai(lambda n: streams(*[said("aaaa")] * 1, used(n), DONE)),
        "no time between tokens",
    ),
    "OpenAI: cut": (openai(lambda n: streams(said("a"), used(1), DONE)), "ended after 1 of"),
    "OpenAI: cut for length": (
        openai(lambda n: streams(event({"choices": [{"text": "a", "finish_reason": "length"}]}), used(1), DONE)),
        "may be full",
    ),
    "OpenAI: another model": (openai(lambda n: streams(said("a", model="gpt"), used(n), DONE)), "of the model 'gpt'"),
    "OpenAI: more than asked": (openai(lambda n: streams(*[said("a")] * n, used(50), DONE)), "wrong token count"),
    "OpenAI: fewer than sent": (openai(lambda n: streams(*[said("a")] * 6, used(1), DONE)), "wrong token count"),
    "OpenAI: no end": (openai(lambda n: streams(*[said("a")] * n)), "without its end"),
    "OpenAI: another prompt": (
        openai(lambda n: streams(*[said("a")] * n, used(n, prompt_tokens=90), DONE)),
        "90 tokens",
    ),
    "prompt in a third of its time": (llama(timed(130, 500, first_s=0.4, gap_s=0.01)), "for the prompt"),
    "no token at all": (llama(lambda n: streams(token(0), last(0, stop_type="eos"))), "wrong token count"),
    "numbers that stand still": (llama(lambda n: streams(*[token(1)] * 3, last(3))), "wrong token count"),
    "an end that says it made more": (
        llama(lambda n: streams(*[token(i + 1) for i in range(n)], last(n + 9))),
        "wrong",
    ),
    "a negative prompt": (llama(lambda n: honest(n, tokens_evaluated=-3)), "expected a count"),
    "a negative cache": (
        llama(lambda n: honest(n, timings={"prompt_ms": 9.0, "predicted_ms": 20.0, "cache_n": -1})),
        "expected a count",
    ),
    "a cache in words": (
        llama(lambda n: honest(n, timings={"prompt_ms": 9.0, "predicted_ms": 20.0, "cache_n": "all"})),
        "expected a count",
    ),
    "no content": (pages_of(b"HTTP/1.1 204 No Content\r\n\r\n"), "without its end"),
    "a page for people": (pages_of(page(b"<html>ok</html>", 200, "text/html")), "malformed event"),
    "pressed bytes": (llama(lambda n: streams(chunk(b"\x1f\x8b\x08\x00" * 9 + b"\n"))), "malformed event"),
    "an answer shorter than it says": (
        pages_of(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\ndata: {}\n\n"),
        "without its end",
    ),
    "events of another kind": (llama(lambda n: streams(event([{"content": "a"}]))), "no JSON object"),
    "deep JSON": (llama(lambda n: streams(event(b"[" * 99_999))), "malformed event"),
    "OpenAI: a negative count": (openai(lambda n: streams(said("a"), used(-1), DONE)), "expected a count"),
    "OpenAI: a count in words": (openai(lambda n: streams(said("a"), used("four"), DONE)), "expected a count"),
    "OpenAI: from its cache": (
        openai(lambda n: streams(*[said("a")] * n, used(n, prompt_tokens_details={"cached_tokens": 3}), DONE)),
        "from the server's cache",
    ),
    "Ollama: an honest prompt, another model": (
        ollama(lambda n, p: [(0.0, {"response": "a", "model": "other"})]),
        "of the model 'other'",
    ),
    "Ollama: another prompt": (ollama(lambda n, p: counted(900, n)), "900 tokens"),
    "Ollama: cut": (ollama(lambda n, p: counted(p, 1, done_reason="stop")), "ended after 1 of"),
    "Ollama: prompt in no time": (ollama(lambda n, p: counted(p, n, 0.3, prompt_eval_duration=1000)), "for the prompt"),
    "Ollama: tokens in no time": (
        ollama(lambda n, p: counted(p, n, gap_s=0.1, eval_duration=1000)),
        "for its tokens",
    ),
    "Ollama: all tokens at once": (ollama(lambda n, p: counted(p, 1, eval_count=n)), "no time between tokens"),
    "Ollama: never done": (ollama(lambda n, p: counted(p, n)[:-1]), "without its end"),
    "Ollama: an error as a line": (ollama(lambda n, p: [(0.0, {"error": "out of memory"})]), "out of memory"),
    "OpenAI: usage of three times what came": (
        openai(lambda n: streams(*[said("a ")] * -(-n // 3), used(n), DONE, gap_s=0.05)),
        "its tokenizer finds",
    ),
    "OpenAI: usage of three times what came, and no tokenizer": (
        openai(lambda n: streams(*[said("a ")] * -(-n // 3), used(n), DONE, gap_s=0.05)) | {"/tokenize": page({}, 404)},
        "no tokenizer that tells",
    ),
    "a count of 400 digits": (llama(lambda n: honest(n, tokens_evaluated=10**400)), "expected a count"),
    "OpenAI: an error as text": (openai(lambda n: streams(event({"error": "out of memory"}))), "out of memory"),
}


def played(pages):
    """What a run on such a server left: samples, and the error that ended it."""
    samples, failure = [], None
    with replay(pages) as server:
        job = ServedJob(url=server.url, scenario=SCENARIO, patience=PATIENCE._replace(answer_s=5.0, silence_s=2.0),
                        repetitions=1, cold_loads=0)  # fmt: skip
        try:
            run_served(job, lambda name, data: samples.append(data) if name == "sample" else 0)
        except HarnessError as error:
            failure = error
    return samples, failure


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_no_good_figure(name):
    pages, words = LIES[name]
    samples, failure = played(pages)
    doubts = " | ".join(doubt for sample in samples for doubt in sample.validity.doubts)
    assert words in f"{failure} | {doubts}"
    if failure is None:
        assert any(sample.validity.doubts for sample in samples if sample.label.startswith(("tg", "pp")) and words in
                   " ".join(sample.validity.doubts))  # fmt: skip
        assert doubts


@pytest.mark.parametrize("name", ["reasoning", "thinking", "reasoning_content", "thoughts"])
def test_tokens_of_reasoning_are_tokens_under_whatever_name(name):
    """A third of the tokens is seen, all of them are told: the speed would be 2.9 times the true one."""
    thought = event({"choices": [{"delta": {name: "a ", "role": "assistant"}}]})
    answered = event({"choices": [{"delta": {"content": "a ", "role": "assistant"}}]})
    with replay(openai(lambda n: streams(*[thought] * 8, *[answered] * 4, used(12), DONE, gap_s=0.02))) as server:
        from harness.runtimes.server.pieces import Request

        answer = RUNTIME.attach(server.url).ask(Request(prompt="a", new_tokens=12))
    assert len(answer.counts) == 12
    assert answer.duration_s >= 11 * 0.02


def test_a_prompt_at_two_thirds_of_the_wait_is_timed_here():
    """The server's own time would make it 1.6 times as fast."""
    samples, failure = played(llama(timed(186, 2000, first_s=0.3)))
    assert failure is None
    assert min(sample.duration_s for sample in samples if sample.label == "pp3") >= 0.3


def test_a_time_of_400_digits_is_none():
    huge = {"prompt_ms": 10**400, "predicted_ms": 10**400, "cache_n": 0}
    samples, failure = played(llama(lambda n: honest(n, timings=huge)))
    assert failure is None
    assert all(sample.duration_s < 5 for sample in samples)


def test_an_honest_server_is_believed():
    samples, failure = played(llama(honest))
    assert failure is None
    assert {s.label: s.token_count for s in samples} == {"pp3": 3, "ttft3": 3, "tg4": 4}
    told = [d for s in samples for d in s.validity.doubts if "server" in d or "pieces" in d]
    assert not told


def test_a_short_prompt_in_no_time_is_timed_here():
    """Too short a wait to be sure that the server lies; its word would be 3,000,000 tokens/s."""
    samples, failure = played(ollama(lambda n, p: counted(p, n, 0.03, prompt_eval_duration=1000)))
    assert failure is None
    assert min(sample.duration_s for sample in samples if sample.label == "pp3") >= 0.03


def test_another_clients_clock_agrees():
    """30 tokens 20 ms apart, read by a plain socket and by the harness in turns: the time between them is one."""
    import socket
    import statistics

    from harness.runtimes.server.pieces import Request

    def plainly(port):
        body = json.dumps({"prompt": "a b c", "n_predict": 30}).encode()
        arrivals = []
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /completion HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            while data := connection.recv(1 << 16):
                arrivals += [time.perf_counter()] * data.count(b'"stop": false')
        return arrivals[-1] - arrivals[0]

    with replay(llama(lambda n: honest(n, 0.05, 0.02))) as server:
        attached, ours, theirs = RUNTIME.attach(server.url), [], []
        for _ in range(3):
            answer = attached.ask(Request(prompt="a b c", new_tokens=30))
            ours.append(answer.arrivals_s[29] - answer.arrivals_s[0])
            theirs.append(plainly(server.port))
    assert statistics.median(ours) == pytest.approx(statistics.median(theirs), rel=0.01)


def test_several_tokens_an_event_are_not_counted_twice():
    """16 tokens in 4 events 50 ms apart: 12 of them came in 150 ms."""

    def reply(n):
        return streams(*[said("a" * 4)] * (n // 4), used(n), DONE, gap_s=0.05)

    with replay(openai(reply)) as server:
        from harness.runtimes.server.pieces import Request

        answer = RUNTIME.attach(server.url).ask(Request(prompt="a", new_tokens=16))
    assert answer.later_count == 12
    assert answer.later_count / (answer.duration_s - answer.first_token_s) == pytest.approx(80, rel=0.25)


def test_cut_answers_and_refusals_are_failures_of_a_load():
    calls = []

    def reply(connection, asked):
        calls.append(1)
        if len(calls) % 3 == 0:
            connection.sendall(page({"error": "slow down"}, 429))
        elif len(calls) % 3 == 1:
            streams(token(1), last(1, stop_type="eos"))(connection, asked)
        else:
            honest(asked["n_predict"])(connection, asked)

    levels = []
    with replay(pages_of(reply)) as server:
        job = LoadJob(url=server.url, levels=(1.0,), request_count=6, prompt_tokens=(3, 3), new_tokens=(4, 4))
        run_load(job, lambda name, data: levels.append(data) if name == "level" else 0)
    assert levels[0].completed_count == 2
    assert sum(levels[0].failures.values()) == 4
    assert any("ended after 1 of 4" in cause for cause in levels[0].failures)
    assert any("429" in cause for cause in levels[0].failures)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"parameter_count": 134_515_008}, "134,515,008 parameters"),
        ({"size_bytes": 144_811_072}, "bytes"),
        ({"architecture": "qwen3"}, "architecture is qwen3"),
        ({"name": "SmolLM2-135M-Instruct-Q8_0.gguf"}, "its name says 135,000,000"),
        ({"parameter_count": 8_030_261_248, "size_bytes": 4_913_000_000}, ""),
        ({"name": "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf"}, ""),
        ({}, ""),
    ],
)
def test_a_server_of_another_model_is_found_out(fields, words):
    from harness.core.record import ModelIdentity

    told = {"name": "m", "quant": "", "size_bytes": 0, "sha256": "", "architecture": "", "parameter_count": 0}
    found = _contradicted(ModelIdentity(**(told | fields)), resolve_model("llama-3.1-8b", "Q4_K_M"))
    assert words in found
    assert bool(words) == bool(found)


def test_prompts_are_text_though_they_are_sent_as_ids():
    ids = list(range(40))
    pages = pages_of(b"") | {"/tokenize": page({"tokens": ids}), "/props": PROPS, "/v1/models": MODELS}
    with replay(pages) as server:
        import random

        prompt = RUNTIME.attach(server.url).prompt(5, random.Random(1))
        asked = [body for path, body in server.asked if path == "/tokenize"]
    assert prompt == (0, 1, 2, 3, 4)
    assert len(asked[0]["content"].split()) == 6


def test_memory_of_a_proxy_is_not_that_of_the_model():
    from harness.measure.jobs.served import memory_mark

    models = page({"object": "list", "data": [{"id": "m", "meta": {"n_vocab": 100, "size": 10**12}}]})
    with replay({"/props": PROPS, "/v1/models": models}) as server:
        attached = RUNTIME.attach(server.url)
        assert attached.local
        assert memory_mark(attached, "loaded")["elsewhere"]
