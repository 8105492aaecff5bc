"""Load on a server that computes nothing: a token every 20 ms, and as many requests at once as it is told."""

import threading
import time
from math import comb
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from harness.core.errors import RefusedError
from harness.core.metric import metric_values
from harness.core.result import Load, LoadLevel
from harness.core.scenario import Scenario
from harness.core.stats.intervals import quantile_interval
from harness.measure.jobs.load import LoadJob, plan, run_load
from harness.measure.pipeline import How, Pipeline
from harness.records.derive import times_of
from harness.speed import estimate as speed
from tests.faults.replay_server import END, STREAM_HEAD, event, page, replay

pytestmark = pytest.mark.alone

TOKEN_S = 0.02


def paced(slots, fail=lambda n: False):
    """Pages of a server like llama-server with so many slots; requests beyond them wait."""
    room, count, lock = threading.Semaphore(slots), [0], threading.Lock()

    def complete(connection, asked):
        with lock:
            count[0] += 1
            number = count[0]
        if fail(number):
            connection.sendall(page({"error": {"message": "busy"}}, 429, reason="Too Many"))
            return
        with room:
            connection.sendall(STREAM_HEAD)
            for n in range(1, asked["n_predict"] + 1):
                time.sleep(TOKEN_S)
                connection.sendall(event({"content": "a", "tokens": [1], "tokens_predicted": n, "stop": False}))
            last = {"content": "", "stop": True, "tokens_predicted": asked["n_predict"], "stop_type": "limit"}
            timings = {"cache_n": 0, "prompt_ms": 10.0, "predicted_ms": 1e3 * TOKEN_S * (asked["n_predict"] - 1)}
            prompt = asked["prompt"]
            size = len(prompt) if isinstance(prompt, list) else len(prompt.split())
            connection.sendall(event(last | {"tokens_evaluated": size, "timings": timings}) + END)

    def tokenize(connection, asked):
        connection.sendall(page({"tokens": [1] * len(asked["content"].split())}))

    return {
        "/props": page({"default_generation_settings": {"n_ctx": 512}, "total_slots": slots}),
        "/v1/models": page({"data": [{"id": "m", "meta": {"n_vocab": 100}}]}),
        "/completion": complete,
        "/tokenize": tokenize,
    }


def run(pages, **asked):
    events = []
    with replay(pages) as server:
        asked = {"request_count": 6, "prompt_tokens": (8, 8), "new_tokens": (5, 5), **asked}
        job = LoadJob(url=server.url, **asked)
        run_load(job, lambda name, data=None: events.append((name, data)))
    levels = [data for name, data in events if name == "level"]
    return levels, [data for name, data in events if name == "sample"], server


def test_closed_loop_fills_the_slots_and_saturates():
    levels, samples, server = run(paced(slots=2), levels=(1.0, 2.0, 4.0), request_count=8)
    assert [v.completed_count for v in levels] == [8, 8, 8]
    assert [v.new_tokens for v in levels] == [40, 40, 40]
    one, two, four = (v.new_tokens_per_s for v in levels)
    # Two slots serve two users twice as fast; four wait for each other: ratios of one run.
    assert 1.5 < two / one < 2.6
    assert 0.8 < four / two < 1.25
    waits = {
        label: [s.duration_s for s in samples if s.label == label] for label in ("ttft @ 2 users", "ttft @ 4 users")
    }
    assert np.median(waits["ttft @ 4 users"]) > 2 * np.median(waits["ttft @ 2 users"])
    assert sum(path == "/completion" for path, _ in server.asked) == 24


def test_what_is_refused_and_what_was_good_is_counted():
    levels, samples, _ = run(
        paced(slots=64, fail=lambda n: n % 3 == 0), levels=(3.0,), request_count=9,
        limits_s={"e2el": 10.0, "ttft": 1e-4},
    )  # fmt: skip
    (level,) = levels
    assert level.completed_count == 6
    assert list(level.failures.values()) == [3]
    assert "429 (too many requests): busy" in next(iter(level.failures))
    assert level.good_count == 0  # no first token within 0.1 ms
    assert {s.label for s in samples} == {"ttft @ 3 users", "tg @ 3 users", "e2el @ 3 users"}


def test_users_who_would_have_nothing_to_ask_are_refused():
    """A level of so many users would be one of fewer."""
    with pytest.raises(RefusedError, match="--users: found 3, expected at most 2"):
        plan(LoadJob(url="http://127.0.0.1:1", levels=(1.0, 3.0), request_count=2))


def test_a_request_longer_than_the_context_is_refused_before_the_run():
    with replay(paced(slots=1)) as server, pytest.raises(RefusedError, match="context of 512 tokens"):
        plan(LoadJob(url=server.url, levels=(1.0,), prompt_tokens=(500, 500), new_tokens=(20, 20)))


def test_through_the_pipeline_to_a_record(tmp_path):
    with replay(paced(slots=2)) as server, Pipeline(How(keep=False, folder=tmp_path)) as pipeline:
        record = pipeline.measure(plan(LoadJob(url=server.url, levels=(1.0, 2.0), request_count=4, new_tokens=(5, 5))))
    assert record.outcome in {"ok", "inconclusive"}
    assert isinstance(record.result, Load)
    assert len(metric_values(record, "new_tokens_per_s")) == 1
    itl_s = times_of(record, "decode", "tg @ 1 users")
    assert len(itl_s) == 16  # 4 requests, 4 gaps each
    assert np.median(itl_s) >= TOKEN_S * 0.9


def test_throughput_is_predicted_before_the_run_for_as_many_as_there_are_slots(tmp_path):
    asked = []

    def predict(scenario):
        asked.append((scenario.batch_count, scenario.prompt_tokens, scenario.new_tokens, scenario.depth_tokens))
        return 10.0 * scenario.batch_count

    lengths = {"prompt_tokens": (4, 8), "new_tokens": (4, 6), "request_count": 4}
    with replay(paced(slots=2)) as server, Pipeline(How(keep=False, folder=tmp_path)) as pipeline:
        planned = plan(LoadJob(url=server.url, levels=(1.0, 2.0, 4.0), **lengths), predict)
        assert asked == [(1, 6, 5, 0), (2, 6, 5, 0), (2, 6, 5, 0)]
        record = pipeline.measure(planned)
        assert [v.predicted_tokens_per_s for v in record.result.levels] == [10.0, 20.0, 20.0]
        assert record.result.predicted_saturation == 2


def test_throughput_of_a_closed_loop_by_hand(monkeypatch):
    """Prompts of 64 tokens at 400/s take 0.16 s; 32 tokens of each of 4 at 200/s of all take 0.64 s: 128 in 1.28 s."""
    asked = []

    def speeds(_weights, _device, scenario):
        asked.append((scenario.batch_count, scenario.depth_tokens))
        of = {"prefill_tokens_per_s": 400.0, "decode_tokens_per_s": {1: 100.0, 4: 200.0}[scenario.batch_count]}
        return SimpleNamespace(**{name: SimpleNamespace(mid=value) for name, value in of.items()})

    monkeypatch.setattr(speed, "predict_speed", speeds)
    scenario = Scenario(prompt_tokens=64, new_tokens=32, batch_count=4, depth_tokens=10)
    assert speed.closed_loop_tokens_per_s(None, None, scenario) == pytest.approx(100.0)
    assert asked == [(1, 10), (4, 74)]


def level(offered, tokens, requests=10):
    return LoadLevel(offered=offered, label="", duration_s=10.0, completed_count=requests, good_count=0,
                     prompt_tokens=0, cached_tokens=0, new_tokens=tokens)  # fmt: skip


def test_saturation_by_hand():
    closed = Load(levels=(level(4, 392), level(1, 200), level(2, 380), level(8, 400)))
    assert closed.saturation == 2  # 38.0 tokens/s are 95 % of 40
    assert Load(levels=(level(1, 200), level(2, 380))).saturation is None  # it still grows
    told = [
        msgspec.structs.replace(v, predicted_tokens_per_s=x)
        for v, x in zip(closed.levels, (39, 20, 30, 40), strict=True)
    ]
    assert Load(levels=tuple(told)).predicted_saturation == 4
    assert closed.predicted_saturation is None, "nothing was predicted"


@pytest.mark.parametrize(("n", "share"), [(40, 0.5), (200, 0.9), (400, 0.99), (100, 0.99)])
def test_quantile_interval_covers_as_the_binomial_says(n, share):
    values = np.arange(1.0, n + 1)
    found = quantile_interval(values, share)
    chance = [comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    low = int(found.low or 0)
    assert sum(chance[:low]) <= 0.025 < sum(chance[: low + 1])
    if found.high is None:
        assert sum(chance[n:]) > 0.025  # even the largest leaves too much above it
    else:
        high = int(found.high)
        assert sum(chance[high:]) <= 0.025 < sum(chance[high - 1 :])


def test_a_model_elsewhere_has_no_memory_here():
    from harness.core.record import MemoryUse
    from harness.measure.child import ChildResult
    from harness.measure.runner import memory_of

    def result(elsewhere):
        mark = {"rss_bytes": 5, "peak_rss_bytes": 7, "anonymous_bytes": 3, "file_bytes": 2, "elsewhere": elsewhere}
        events = (("memory", {"mark": "loaded", **mark}), ("memory", {"mark": "end", **mark}))
        own = MemoryUse(peak_rss_bytes=99, peak_anonymous_bytes=80, peak_file_bytes=19)
        return ChildResult("ok", "", events, own, 1.0)

    assert memory_of(result(True)) is None
    here = memory_of(result(False))
    # The marks are of another process: what the child held is none of the model's.
    assert here == MemoryUse(peak_rss_bytes=7, peak_anonymous_bytes=3, peak_file_bytes=2)
