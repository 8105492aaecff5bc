"""The fit finds costs that were put in; tiny models load; a real calibration of one type runs end to end."""

from pathlib import Path

import msgspec
import pytest

from harness.catalog.gguf import read_gguf
from harness.domain.device import Calibration, TypeCost
from harness.domain.ggml import row_bytes
from harness.errors import EngineError, RefusedError
from harness.measure import calibrate
from harness.measure._calibrate_child import DEPTH_TOKENS, Bench, dimensions, plan
from harness.measure.tiny_model import TINY_TYPES, tiny_shape, write_tiny
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
PER_KV_BYTE, PER_FLOP, PER_PREFILL_FLOP = 1e-10, 3e-11, 2e-11
WEIGHTY = {"narrow", "mid", "wide", "head", "narrow few", "wide few", "narrow few apart", "wide few apart"}
C, R, U = 4e-11, 9e-9, 2e-6
LINK, WAITING = 5e9, 0.6


def invented_time(role: str, batch: int, depth: int) -> float:
    """Time of a bench on an imaginary engine whose costs are the constants above."""
    s = dimensions(role, "Q8_0" if role in WEIGHTY else "F16", FILL)
    time = T0 + s.layer_count * (L0 + batch * L1)
    if role in WEIGHTY:
        bench = Bench(role, "Q8_0", s, ())
        growth = 1 + 0.5 * (batch - 1)
        q, kv = s.head_count * s.head_dim, s.kv_head_count * s.head_dim
        row_count = s.layer_count * (q + 2 * kv + 2 * s.hidden_dim + 2 * s.feed_forward_dim) + s.vocab_count
        products = growth * (bench.weight_bytes * C + row_count * R + (7 * s.layer_count + 1) * U)
        time += products
        if role.endswith("apart"):
            time += bench.weight_bytes / LINK + WAITING * products
        if batch >= 32:
            time += s.layer_count * 4 * s.head_count * s.head_dim * batch * (batch + 1) / 2 * PER_PREFILL_FLOP
    if role in {"grouped", "ungrouped"}:
        q, kv = s.head_count * s.head_dim, s.kv_head_count * s.head_dim
        if batch == 512:
            time += s.layer_count * 4 * q * 512 * depth * PER_PREFILL_FLOP
        else:
            time += s.layer_count * depth * (kv * 4 * PER_KV_BYTE + 4 * q * PER_FLOP)
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
    assert found.decode_attention_flops_per_s == pytest.approx(1 / PER_FLOP, rel=1e-6)
    assert found.attention_flops_per_s == pytest.approx(1 / PER_PREFILL_FLOP, rel=1e-6)
    (cost,) = found.types
    for table, unit in (
        (cost.batch_seconds_per_byte, C),
        (cost.batch_seconds_per_row, R),
        (cost.batch_seconds_per_product, U),
    ):
        assert table[0] == (1, pytest.approx(unit, rel=1e-4))
        assert table[1] == (4, pytest.approx(2.5 * unit, rel=1e-4))


def test_copies_for_a_long_prompt_are_told_from_the_waiting_for_them() -> None:
    roles = [f"{width} few{apart}" for width in ("narrow", "wide") for apart in ("", " apart")]
    events = [event("Q8_0", role, b, 0, [invented_time(role, b, 0)]) for role in roles for b in (64, 512)]
    found = calibrate.fit([*invented_events(), *events], ["Q8_0"], FILL)
    assert found.link_bytes_per_s == pytest.approx(LINK, rel=0.01)
    assert found.copied_product_ratio == pytest.approx(WAITING, rel=0.01)
    alone = calibrate.fit(invented_events(), ["Q8_0"], FILL)
    assert (alone.link_bytes_per_s, alone.copied_product_ratio) == (0.0, 0.0)


def test_middle_of_the_undisturbed_stretches() -> None:
    events = [
        event("F16", "deep", 1, 0, [1.0, 3.0]),  # mean 2
        event("F16", "deep", 1, 0, [4.0, 4.0], turn=1),
        event("F16", "deep", 1, 0, [1.0, 9.0], turn=2),  # mean 5
        event("F16", "deep", 1, 0, [90.0, 91.0], doubted=True, turn=3),
        event("F16", "wide", 1, 0, [6.0], doubted=True),
        event("F16", "wide", 1, 0, [7.0], doubted=True, turn=1),
    ]
    times = calibrate.stretches(events)
    assert times == {("F16", "deep", 1, 0): {0: 2.0, 1: 4.0, 2: 5.0}, ("F16", "wide", 1, 0): {0: 6.0}}
    assert calibrate.typical_s(times, ("F16", "deep", 1, 0)) == 4.0
    assert calibrate.typical_s(times, ("F16", "wide", 1, 0)) == 6.0
    # of six the two in the middle: neither the one hiccup nor the faster half of a machine with two speeds
    key = ("F16", "mid", 1, 0)
    assert calibrate.typical_s({key: dict(enumerate([24.0, 90.0, 40.0, 24.0, 40.0, 24.0]))}, key) == 32.0


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


def test_a_missing_bench_is_named() -> None:
    with pytest.raises(EngineError, match="deep"):
        calibrate.fit([e for e in invented_events() if e["role"] != "deep"], ["Q8_0"], FILL)


def test_benches_exceed_the_cache_they_are_meant_for() -> None:
    for group in plan(["Q4_1", "F16"], 96 << 20):
        for bench in group:
            if bench.role in {"narrow", "mid", "wide", "head"}:
                assert bench.weight_bytes > 0.75 * (96 << 20)


def test_types_that_no_tiny_model_has_are_refused() -> None:
    with pytest.raises(RefusedError, match="F32"):
        calibrate.calibrate(["F32"])


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

    from harness.domain.scenario import Scenario
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
    asked = {"types": ["Q8_0"], "fill_bytes": 4 << 20, "thread_count": 2, "visits": 2, "rounds": 1, "stretch_s": 0.02}
    asked |= {"retries": 0, "repack": True, "api": "cpu", "software": False}
    events, process = calibrate._run(asked, lambda _line: None, 300.0)
    # Every bench is timed at both visits, its long batches at the first alone.
    deep = [(event["batch"], event["turn"]) for event in events if event["role"] == "deep"]
    assert {(1, 0), (1, 1), (512, 0)} <= set(deep) and (512, 1) not in deep
    found = calibrate.fit(events, ["Q8_0"], 4 << 20)
    (cost,) = found.types
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
        calibrate.calibrate(["Q4_0"], limit_s=0.2)


@pytest.mark.parametrize(("disturbed", "kept"), [(0, True), (5, False)])
def test_a_calibration_is_kept_unless_it_was_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disturbed: int, kept: bool
) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    monkeypatch.setattr(calibrate, "MINIMUM_FILL_BYTES", FILL)
    monkeypatch.setattr(calibrate, "CACHE_MULTIPLE", 0)
    monkeypatch.setattr(calibrate, "_engine_version", lambda: "engine 1")
    events = invented_events()
    for index in range(len(events) * disturbed // 10):
        events[index]["doubted"] = True
    runs: list[list[str]] = []

    def run(types: list[str], *_: object) -> tuple[list[dict], dict[str, int]]:
        runs.append(types)
        return events, {"anonymous_bytes": 33, "file_bytes": 44}

    monkeypatch.setattr(calibrate, "_run", run)
    lines: list[str] = []
    first = calibrate.calibrate(["Q8_0", "F32"], progress=lines.append)
    assert [c.type_name for c in first.types] == ["Q8_0"]
    assert first.machine
    assert (first.process_anonymous_bytes, first.process_file_bytes) == (33, 44)
    again = calibrate.calibrate(["Q8_0"])
    assert again == first
    assert len(runs) == (1 if kept else 2)
    assert any("disturbed" in line for line in lines) is not kept
    assert calibrate.kept() == (first if kept else None)
    assert calibrate.kept(thread_count=7) is None  # threads that were never timed
    assert calibrate.kept(repack=False) is None


def test_a_spoilt_store_is_timed_again(tmp_path: Path) -> None:
    place = tmp_path / "kept.json"
    assert calibrate._load(place) is None
    kept = Calibration(
        api="cpu", engine_version="x", thread_count=1, token_overhead_s=0.0, layer_overhead_s=0.0,
        kv_read_bytes_per_s=1.0, attention_flops_per_s=1.0,
        types=(TypeCost(type_name="F16", batch_seconds_per_byte=((1, 1e-9),)),),
    )  # fmt: skip
    write_atomically(place, msgspec.json.encode(kept))
    assert calibrate._load(place) == kept
    place.write_text("{")
    assert calibrate._load(place) is None
    assert msgspec.json.encode(kept)
