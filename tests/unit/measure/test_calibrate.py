"""The fit finds costs that were put in; tiny models load; a real calibration of one type runs end to end."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.core.device import Calibration, TypeCost
from harness.core.errors import EngineError, RefusedError
from harness.core.record import MemoryUse
from harness.measure.child import ChildResult, Limits
from harness.measure.pipeline import Listener
from harness.measure.probe import calibrate
from harness.measure.probe.calibrate_child import DEPTH_TOKENS, MAX_LAYERS, Bench, Job, _Timing, dimensions, plan
from harness.measure.probe.tiny_model import TINY_TYPES, matrices, tiny_shape, write_tiny
from harness.models.ggml import row_bytes
from harness.models.gguf import read_gguf
from harness.records.store import write_atomically

FILL = 8 << 20


@pytest.mark.parametrize(
    ("rows", "values", "expected"),
    [
        ([(1, 0), (0, 1)], [2, 3], [2, 3]),
        ([(1, 1), (1, 2), (1, 3)], [5, 7, 9], [3, 2]),  # 3 + 2 x
        # the free solution would be 4 - x; with nothing below 0 the slope is 0, and of constants the best in relative
        # error is (1/3 + 1/2 + 1/1) / (1/9 + 1/4 + 1/1) = 1.3469
        ([(1, 1), (1, 2), (1, 3)], [3, 2, 1], [66 / 49, 0]),
    ],
)
def test_least_squares_without_negatives(rows: list, values: list, expected: list) -> None:
    assert calibrate.nonnegative_fit(rows, values) == pytest.approx(expected)


T0, L0, L1 = 2e-4, 3e-5, 5e-6
PER_KV_BYTE, PER_PAIR, PER_PREFILL_FLOP = 1e-10, 7e-9, 2e-11
WEIGHTY = {"narrow", "mid", "wide", "head", "narrow few", "wide few", "narrow few apart", "wide few apart"}
C, R, U = 4e-11, 9e-9, 2e-6
LINK = 5e9


def weight_bytes(bench: Bench) -> int:
    """Bytes of all matrices that a pass reads, the tied output matrix included."""
    return sum(tensor.size_bytes for tensor in matrices(bench.shape, bench.type_name))


def invented_time(role: str, batch: int, depth: int) -> float:
    """Time of a bench on an imaginary engine whose costs are the constants above."""
    s = dimensions(role, "Q8_0" if role in WEIGHTY else "F16", FILL)
    time = T0 + s.layer_count * (L0 + batch * L1)
    if role in WEIGHTY:
        bench = Bench(role, "Q8_0", s, ())
        growth = 1 + 0.5 * (batch - 1)
        q, kv = s.head_count * s.head_dim, s.kv_head_count * s.head_dim
        row_count = s.layer_count * (q + 2 * kv + 2 * s.hidden_dim + 2 * s.feed_forward_dim) + s.vocab_count
        products = growth * (weight_bytes(bench) * C + row_count * R + (7 * s.layer_count + 1) * U)
        time += products
        if role.endswith("apart"):
            time += weight_bytes(bench) / LINK
        if batch >= 32:
            time += s.layer_count * 4 * s.head_count * s.head_dim * batch * (batch + 1) / 2 * PER_PREFILL_FLOP
    if role in {"grouped", "ungrouped"}:
        q, kv = s.head_count * s.head_dim, s.kv_head_count * s.head_dim
        if batch == 512:
            time += s.layer_count * 4 * q * 512 * depth * PER_PREFILL_FLOP
        else:
            time += s.layer_count * depth * (kv * 4 * PER_KV_BYTE + s.head_count * PER_PAIR)
    return time


def event(type_name: str, role: str, batch: int, depth: int, times: list[float], **more: object) -> dict:
    plain = {"type_name": type_name, "role": role, "batch": batch, "depth": depth, "times": times}
    return plain | {"turn": 0, "doubted": False} | more


def invented_events() -> list[dict]:
    events = []
    for role in ("shallow", "deep"):
        events += [event("F16", role, b, 0, [invented_time(role, b, 0)]) for b in (1, 2, 4, 8)]
    for role in ("grouped", "ungrouped"):
        events += [event("F16", role, 1, d, [invented_time(role, 1, d)]) for d in (0, DEPTH_TOKENS)]
        events += [event("F16", role, 512, d, [invented_time(role, 512, d)]) for d in range(0, DEPTH_TOKENS, 512)]
    for role in ("narrow", "mid", "wide", "head"):
        events += [event("Q8_0", role, b, 0, [invented_time(role, b, 0)]) for b in (1, 4)]
    events += [event("Q8_0", role, 64, 0, [invented_time(role, 64, 0)]) for role in ("narrow few", "wide few")]
    return events


def test_fit_finds_what_was_put_in() -> None:
    found = calibrate.fit(invented_events(), ["Q8_0"], FILL)
    assert found.token_overhead_s == pytest.approx(T0, rel=1e-6)
    assert found.layer_overhead_s == pytest.approx(L0, rel=1e-6)
    assert found.token_layer_s == pytest.approx(L1, rel=1e-6)
    assert found.kv_read_bytes_per_s == pytest.approx(1 / PER_KV_BYTE, rel=1e-6)
    assert found.attention_pair_s == pytest.approx(PER_PAIR, rel=1e-6)
    assert found.attention_flops_per_s == pytest.approx(1 / PER_PREFILL_FLOP, rel=1e-6)
    (cost,) = found.types
    for table, unit in (
        (cost.batch_seconds_per_byte, C),
        (cost.batch_seconds_per_row, R),
        (cost.batch_seconds_per_product, U),
    ):
        assert table[0] == (1, pytest.approx(unit, rel=1e-4))
        assert table[1] == (4, pytest.approx(2.5 * unit, rel=1e-4))


def test_a_type_has_the_batches_that_its_products_were_timed_at() -> None:
    """A GPU's overheads are timed on F16 at 16 tokens, its products at no more than 8: 16 tokens are not free."""
    products = [
        event("F16", r, b, 0, [invented_time(r, b, 0)]) for r in ("narrow", "mid", "wide", "head") for b in (1, 8)
    ]
    more = [event("F16", role, 16, 0, [invented_time(role, 16, 0)]) for role in ("shallow", "deep")]
    (cost,) = calibrate.fit([*invented_events(), *more, *products], ["F16"], FILL).types
    assert [batch for batch, _ in cost.batch_seconds_per_byte] == [1, 8]


def test_a_load_is_told_by_what_a_large_model_takes_longer() -> None:
    """0.02 s beside 3 ns a byte of Q4_0 and 0.2 ns a byte of Q8_0."""
    built = [
        {"role": role, "type_name": name, "size_bytes": size, "load_s": 0.02 + each * size}
        for name, each in (("Q4_0", 3e-9), ("Q8_0", 2e-10))
        for role, size in (("wide few", 16e6), ("wide", 96e6), ("head", 98e6))
    ]
    waited = {**built[0], "load_s": 3 * built[0]["load_s"]}  # of one model the fastest counts
    byte_s = calibrate.load_seconds_per_byte([waited, *built])
    assert byte_s == {"Q4_0": pytest.approx(3e-9), "Q8_0": pytest.approx(2e-10)}
    assert calibrate.load_seconds_per_byte([]) == {}


def test_copies_for_a_long_prompt_are_told() -> None:
    roles = [f"{width} few{apart}" for width in ("narrow", "wide") for apart in ("", " apart")]
    events = [event("Q8_0", role, b, 0, [invented_time(role, b, 0)]) for role in roles for b in (64, 512)]
    found = calibrate.fit([*invented_events(), *events], ["Q8_0"], FILL)
    assert found.link_bytes_per_s == pytest.approx(LINK, rel=0.01)
    alone = calibrate.fit(invented_events(), ["Q8_0"], FILL)
    assert alone.link_bytes_per_s == 0.0


def test_middle_of_the_undisturbed_stretches() -> None:
    events = [
        event("F16", "deep", 1, 0, [2.0, 4.0]),  # mean 3
        event("F16", "deep", 1, 0, [4.0, 4.0], turn=1),
        event("F16", "deep", 1, 0, [5.0, 90.0], turn=2),  # 90 is 45 times the fastest: it waited
        event("F16", "deep", 1, 0, [90.0, 91.0], turn=3),
        event("F16", "deep", 1, 0, [2.5, 2.5], doubted=True, turn=4),
        event("F16", "wide", 1, 0, [8.0, 6.0], doubted=True),
        event("F16", "wide", 1, 0, [7.0], doubted=True, turn=1),
    ]
    times = calibrate.stretches(events)
    assert times == {("F16", "deep", 1, 0): {0: 3.0, 1: 4.0, 2: 5.0}, ("F16", "wide", 1, 0): {0: 6.0}}
    assert calibrate.typical_s(times, ("F16", "deep", 1, 0)) == 4.0
    assert calibrate.typical_s(times, ("F16", "wide", 1, 0)) == 6.0
    # of six the two in the middle: neither the one hiccup nor the faster half of a machine with two speeds
    key = ("F16", "mid", 1, 0)
    assert calibrate.typical_s({key: dict(enumerate([24.0, 90.0, 40.0, 24.0, 40.0, 24.0]))}, key) == 32.0


def test_few_tokens_take_no_longer_than_many() -> None:
    """One of 4 may take twice as long as eight together, by kernels of one token each; one alone may not."""
    held_back = {1: 140.0, 2: 1.0, 4: 3.5, 8: 1.5, 16: 2.0}
    times = calibrate.stretches(event("F16", "shallow", b, 0, [seconds]) for b, seconds in held_back.items())
    assert [of[0] for _, of in sorted(times.items())] == [1.0, 1.0, 3.0, 1.5, 2.0]


def test_beside_another_program_costs_are_those_of_the_passes_that_were_let_through() -> None:
    """Of three passes two wait for 12 ms, as a scheduler's slices do, in every bench and every round."""
    quiet = calibrate.fit(invented_events(), ["Q8_0"], FILL)
    waits = [[0.012, 0.0, 0.024], [0.012, 0.012, 0.0]]
    busy = [
        e | {"times": [e["times"][0] + wait for wait in waits[turn]], "turn": turn, "doubted": True}
        for e in invented_events()
        for turn in (0, 1)
    ]
    found = calibrate.fit(busy, ["Q8_0"], FILL)
    assert found.types == quiet.types
    assert found.kv_read_bytes_per_s == quiet.kv_read_bytes_per_s


def test_attention_that_was_held_back_is_bounded_by_that_of_a_prompt() -> None:
    """One pass at depth, which took a second: the speed of products is a sixteenth of a prompt's, not a thousandth."""
    events = [e | {"times": [1.0]} if e["batch"] == 1 and e["depth"] else e for e in invented_events()]
    found = calibrate.fit(events, ["Q8_0"], FILL)
    assert found.attention_pair_s == pytest.approx(16 * 4 * 64 * PER_PREFILL_FLOP, rel=1e-3)  # heads of 64
    assert found.kv_read_bytes_per_s >= 1 / found.types[0].batch_seconds_per_byte[0][1] / 8.001


def test_layers_are_told_from_the_minute_they_ran_in() -> None:
    """Of a machine that is 1.7 times slower in two rounds, each bench was disturbed in two: one round is common."""
    disturbed = {"shallow": (2, 3), "deep": (0, 1)}
    rounds = [
        event("F16", role, b, 0, [time * (1.7 if turn < 2 else 1)], turn=turn, doubted=turn in disturbed[role])
        for role in disturbed
        for b in (1, 2, 4, 8)
        for turn, time in enumerate([invented_time(role, b, 0)] * 5)
    ]
    others = [e for e in invented_events() if e["role"] not in disturbed]
    found = calibrate.fit([*rounds, *others], ["Q8_0"], FILL)
    assert found.layer_overhead_s == pytest.approx(L0, rel=1e-6)
    assert found.token_layer_s == pytest.approx(L1, rel=1e-6)


def test_without_a_common_round_the_difference_is_that_of_the_typical_times() -> None:
    a, b = ("F16", "deep", 1, 0), ("F16", "shallow", 1, 0)
    assert calibrate.typical_s({a: {0: 5.0, 1: 7.0}, b: {2: 1.0}}, a, b) == 5.0
    # in common: 2, 3 and 9, of which the middle; the middles alone would differ by 1
    assert calibrate.typical_s({a: {0: 3.0, 1: 6.0, 2: 10.0}, b: {0: 1.0, 1: 3.0, 2: 1.0, 3: 8.0, 4: 9.0}}, a, b) == 3.0


def test_a_missing_bench_costs_itself_and_widens_the_interval() -> None:
    whole = calibrate.fit(invented_events(), ["Q8_0"], FILL)
    found = calibrate.fit([e for e in invented_events() if e["role"] != "deep"], ["Q8_0"], FILL)
    assert found.spread_ratio == pytest.approx(whole.spread_ratio + 0.1)
    assert found.types[0].batch_seconds_per_byte[0][1] > 0
    without = calibrate.fit([e for e in invented_events() if e["role"] != "mid"], ["Q8_0"], FILL)
    assert without.types[0].batch_seconds_per_byte[0] == (1, pytest.approx(C, rel=1e-3))
    with pytest.raises(EngineError, match="none of the types Q4_0"):
        calibrate.fit(invented_events(), ["Q4_0"], FILL)


def test_the_cache_s_speed_is_that_of_a_model_that_fits_it() -> None:
    """A model of 2 MiB whose bytes cost 0.6 of what they cost out of memory."""
    size, shape = 2 << 20, dimensions("mid cached", "Q8_0", 2 << 20)
    bench = Bench("mid cached", "Q8_0", shape, ())
    q, kv = shape.head_count * shape.head_dim, shape.kv_head_count * shape.head_dim
    rows = shape.layer_count * (q + 2 * kv + 2 * shape.hidden_dim + 2 * shape.feed_forward_dim) + shape.vocab_count
    seconds = T0 + shape.layer_count * (L0 + L1) + weight_bytes(bench) * 0.6 * C + rows * R
    seconds += (7 * shape.layer_count + 1) * U
    events = [*invented_events(), event("Q8_0", "mid cached", 1, 0, [seconds])]
    (cost,) = calibrate.fit(events, ["Q8_0"], FILL, size).types
    assert cost.cached_ratios == ((1, pytest.approx(0.6, rel=1e-3)),)


def test_no_byte_comes_faster_than_memory_gives_it() -> None:
    """0.05 ns a byte was timed, and memory gives one in 0.1 ns: an engine may read 1.5 times as fast as the sweep."""
    timed = TypeCost(type_name="Q8_0", batch_seconds_per_byte=((1, 5e-11), (8, 1e-10), (512, 4e-9)))
    found = calibrate.no_faster(timed, ((1 << 28, 1e10),))
    assert found.batch_seconds_per_byte == ((1, pytest.approx(1e-10 / 1.5)), (8, 1e-10), (512, 4e-9))


MIB, GIB = 1 << 20, 1 << 30
ROOM = {"limit_bytes": 64 * GIB, "folder_bytes": 500 * GIB, "budget_s": 1000.0}


@pytest.mark.parametrize(
    ("cache", "room", "expected", "bound"),
    [
        (0, {}, 96 * MIB, "several times the cache"),
        (32 * MIB, {}, 96 * MIB, "several times the cache"),
        (260 * MIB, {}, 780 * MIB, "several times the cache"),
        # 4 1/3 models, each also rewritten: 150 MiB / (26 / 3)
        (260 * MIB, {"limit_bytes": 600 * MIB}, 150 * MIB * 3 // 26, "a quarter of the memory limit"),
        (GIB, {"folder_bytes": GIB}, GIB * 3 // 52, "a quarter of what is free"),
        # (4 1/3 / 0.7e9 + 1.2e-8 / 2) s a byte
        (GIB, {"budget_s": 10.0, "threads": 2}, int(10 / (13 / 3 / 0.7e9 + 0.6e-8)), "time"),
    ],
)
def test_one_function_says_how_large_tiny_models_are(cache: int, room: dict, expected: int, bound: str) -> None:
    size, why = calibrate.sized(cache, **(ROOM | room))
    assert size == pytest.approx(expected, abs=1)
    assert why.startswith(bound)


def test_without_room_one_sentence_says_what_is_missing() -> None:
    with pytest.raises(RefusedError, match=r"a quarter of the memory limit leaves .* expected at least 4 MiB"):
        calibrate.sized(0, **(ROOM | {"limit_bytes": 100 * MIB}))


@pytest.mark.parametrize("fill", [96 * MIB, 2304 * MIB, 15_612 * MIB])
def test_no_tiny_model_has_more_layers_than_the_engine_takes(fill: int) -> None:
    for group in plan(["IQ1_S", "Q4_1", "F16"], fill):
        for bench in group:
            assert bench.shape.layer_count <= MAX_LAYERS
            if bench.role in {"narrow", "mid", "wide", "head"}:
                assert 0.75 * fill < weight_bytes(bench) < 1.5 * fill


PLAIN = {"types": ("Q8_0",), "fill_bytes": FILL, "cached_bytes": 0, "thread_count": 2, "runtime": "llamacpp"}


@pytest.mark.parametrize(
    ("budget_s", "limit_s", "left_s"), [(60.0, 1800.0, 60.0), (60.0, 50.0, 45.0), (300.0, 300.0, 270.0)]
)
def test_timing_ends_before_the_child_is_killed(
    monkeypatch: pytest.MonkeyPatch, budget_s: float, limit_s: float, left_s: float
) -> None:
    """A tenth of the limit is for the start and the end."""
    monkeypatch.setattr("harness.core.plugins.usable_runtime", lambda _name: None)
    timing = _Timing(Job(**PLAIN, budget_s=budget_s, limit_s=limit_s), lambda *_: None)
    assert timing._left_s() == pytest.approx(left_s, abs=5)


def test_a_bench_that_ends_the_engine_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first child dies at a model; the second one is told to leave it out, and goes on."""
    begun = ("begin", {"type_name": "Q8_0", "role": "narrow"})
    timings = [("timing", e) for e in invented_events()]
    ends = iter([("crashed", (timings[0], begun)), ("ok", tuple(timings[1:]))])
    asked: list[Job] = []
    walls_s: list[float] = []

    def child(_target: str, job: Job, limits: Limits, **_: object) -> ChildResult:
        asked.append(job)
        walls_s.append(limits.wall_s)
        outcome, events = next(ends)
        return ChildResult(outcome, "GGML_ASSERT", events, MemoryUse(peak_rss_bytes=0), 3.0)

    monkeypatch.setattr(calibrate, "run_helper", child)
    job = Job(**PLAIN, limit_s=100.0)
    lines: list[str] = []
    events = calibrate._run(job, lines.append)
    assert [one.limit_s for one in asked] == walls_s == [100.0, 97.0]  # each child knows when it is killed
    assert [one.skipped for one in asked] == [(), (("Q8_0", "narrow"),)]
    assert len(events["timing"]) == len(timings)
    assert any("Q8_0 narrow" in line for line in lines)
    assert events["failed"] == [{"type_name": "Q8_0", "role": "narrow", "why": "crashed"}]


def test_benches_exceed_the_cache_they_are_meant_for() -> None:
    for group in plan(["Q4_1", "F16"], 96 << 20):
        for bench in group:
            if bench.role in {"narrow", "mid", "wide", "head"}:
                assert weight_bytes(bench) > 0.75 * (96 << 20)


def test_types_that_no_tiny_model_has_are_refused() -> None:
    with pytest.raises(RefusedError, match="F32"):
        calibrate.calibrate(["F32"], heard=Listener())


SMALL = tiny_shape(2, 256, 512, 4, 2)


@pytest.mark.parametrize("type_name", sorted(TINY_TYPES))
def test_a_tiny_file_is_what_it_says(tmp_path: Path, type_name: str) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny(path, SMALL, type_name)
    file = read_gguf(path)
    weights = file.weights()
    assert weights.shape.layer_count == 2
    assert weights.shape.kv_head_count == 2
    matrices = [t for t in weights.tensors if t.name.startswith("blk.") and len(t.dims) == 2]
    assert {t.type_name for t in matrices} == {type_name}
    # q 256 x 256, k and v 256 x 128, output 256 x 256, gate and up 256 x 512, down 512 x 256
    element_count = 2 * (65_536 * 2 + 32_768 * 2 + 131_072 * 3)
    assert sum(t.element_count for t in matrices) == element_count
    assert sum(t.size_bytes for t in matrices) == row_bytes(type_name, element_count)


@pytest.mark.engine
@pytest.mark.parametrize("type_name", ["F16", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS", "Q2_K"])
def test_the_engine_runs_tiny_models_without_a_nan(tmp_path: Path, type_name: str) -> None:
    pytest.importorskip("llama_cpp")
    import numpy as np

    from harness.core.scenario import Scenario
    from harness.runtimes.llamacpp.session import LlamaSession

    path = tmp_path / "tiny.gguf"
    write_tiny(path, SMALL, type_name)
    with LlamaSession(path, Scenario(context_tokens=256, thread_count=1), batch_tokens=64) as session:
        session.decode([1, 2, 3, 4], position=0, logits="all")
        logits = np.array(session.all_logits())  # a copy: the session owns what it shows
    assert np.isfinite(logits).all()
    assert logits.std() > 0


@pytest.mark.slow
@pytest.mark.engine
def test_a_calibration_runs_in_a_child() -> None:
    pytest.importorskip("llama_cpp")
    asked = {"types": ("Q8_0",), "fill_bytes": 4 << 20, "cached_bytes": 1 << 20, "rounds": 1, "stretch_s": 0.02}
    job = Job(**asked, thread_count=2, runtime="llamacpp", budget_s=300.0)
    told = calibrate._run(job.replace(limit_s=300.0), lambda _line: None)
    events, (process,) = told["timing"], told["process"]
    # Every bench is timed at both visits, its long batches again only where they were disturbed.
    deep = [event for event in events if event["role"] == "deep"]
    assert {(1, 0), (1, 1), (512, 0)} <= {(event["batch"], event["turn"]) for event in deep}
    assert all(event["doubted"] for event in [event for event in deep if event["batch"] == 512][:-1])
    found = calibrate.fit(events, ["Q8_0"], job.fill_bytes, job.cached_bytes)
    assert process.pop("isa") is not None and not told["failed"]
    assert sum(model["size_bytes"] for model in told["built"]) > 4 * (4 << 20)
    (cost,) = found.types
    assert [batch for batch, _ in cost.cached_ratios] == [1, 4]
    assert [batch for batch, _ in cost.batch_seconds_per_byte] == [1, 2, 3, 4, 5, 8, 16, 64, 512]
    assert all(seconds > 0 for _, seconds in cost.batch_seconds_per_byte)
    assert found.attention_flops_per_s > 1e8
    # An interpreter with numpy and the engine: tens of MiB of each kind, and no model among them.
    assert all(10 << 20 < size < 200 << 20 for size in process.values()) and len(process) == 2


@pytest.mark.engine
def test_a_calibration_ends_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is too busy `check` goes on without it, instead of after a quarter of an hour."""
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    with pytest.raises(EngineError, match="timed out"):
        calibrate.calibrate(["Q4_0"], heard=Listener(), limit_s=0.2)


class Begun(Listener):
    """Keeps what was said to begin, and how long it may take."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(say)
        self.begun: list[tuple[str, float]] = []

    def begin(self, title: str, step_count: int = 0, within_s: float = 0.0) -> None:
        self.begun.append((title, within_s))


@pytest.mark.parametrize(("disturbed", "kept"), [(0, True), (5, False)])
def test_a_calibration_is_kept_unless_it_was_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disturbed: int, kept: bool
) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    monkeypatch.setattr(calibrate, "MINIMUM_FILL_BYTES", FILL)
    monkeypatch.setattr(calibrate, "CACHE_MULTIPLE", 0)
    monkeypatch.setattr(calibrate, "sweep", lambda *_: ())
    events = invented_events()
    for index in range(len(events) * disturbed // 10):
        events[index]["doubted"] = True
    runs: list[Job] = []

    def run(job: Job, *_: object) -> dict[str, list[dict]]:
        runs.append(job)
        process = {"anonymous_bytes": 33, "file_bytes": 44}
        return defaultdict(list, {"timing": events, "process": [process]})

    monkeypatch.setattr(calibrate, "_run", run)
    lines: list[str] = []
    heard = Begun(lines.append)
    first = calibrate.calibrate(["Q8_0", "F32"], heard=heard)
    assert heard.begun == [("timing the engine", 25.0)]
    assert [c.type_name for c in first.types] == ["Q8_0"]
    assert first.machine
    assert (first.process_anonymous_bytes, first.process_file_bytes) == (33, 44)
    again = calibrate.calibrate(["Q8_0"], heard=heard)
    assert again == first
    assert len(heard.begun) == len(runs)  # what was kept is not said to be timed
    assert len(runs) == (1 if kept else 2)
    assert any("disturbed" in line for line in lines) is not kept
    assert calibrate.kept() == (first if kept else None)
    assert calibrate.kept(thread_count=7) is None  # threads that were never timed
    assert calibrate.kept(repack=False) is None


def test_costs_that_were_disturbed_throughout_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    events = {"timing": [e | {"doubted": True} for e in invented_events()]}
    monkeypatch.setattr(calibrate, "_run", lambda *_: defaultdict(list, events))
    with pytest.raises(EngineError, match="disturbed 100% of the benches each time"):
        calibrate.calibrate(["Q8_0"], heard=Listener(), working_sets=((1 << 20, 1e11),))
    assert calibrate.kept() is None


def test_a_spoilt_store_is_timed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "kept.json"
    monkeypatch.setattr(calibrate, "_place", lambda *_: place)
    assert calibrate.kept() is None
    timed = Calibration(
        api="cpu", engine_version="x", thread_count=1, token_overhead_s=0.0, layer_overhead_s=0.0,
        kv_read_bytes_per_s=1.0, attention_flops_per_s=1.0,
        types=(TypeCost(type_name="F16", batch_seconds_per_byte=((1, 1e-9),)),),
    )  # fmt: skip
    write_atomically(place, msgspec.json.encode(timed))
    assert calibrate.kept() == timed
    place.write_text("{")
    assert calibrate.kept() is None
