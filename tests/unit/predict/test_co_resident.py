"""A model and other systems in one app: sums by hand."""

import pytest
from msgspec.structs import replace

from harness.app.fit import advice_for, companion, predict
from harness.app.resolve import resolve_model
from harness.catalog.devices import load_device
from harness.domain.scenario import Scenario
from harness.domain.workload import Cost
from harness.errors import RefusedError, UnknownNameError
from harness.predict.co_resident import Companion, drawn_bytes_per_s, shared_speed, with_companions
from harness.predict.workload_cost import rates_of
from harness.units import GIB, MIB

PHONE = load_device("iphone-16-pro")  # 3 GiB for one app
MODEL = resolve_model("llama-3.2-1b")


def made(name: str, held: int, *, mapped: int = 0, moved: float = 0.0) -> Companion:
    one = Cost(operation="read", flops_count=0, moved_bytes=moved, resident_bytes=held, file_bytes=mapped)
    two = Cost(operation="write", flops_count=0, moved_bytes=0, resident_bytes=held // 2, disk_read_bytes=1e9)
    return Companion(name, (one, two))


def test_bytes_are_added_once_for_each_companion():
    alone = predict(MODEL, PHONE, Scenario())
    both = predict(MODEL, PHONE, Scenario(), beside=(made("a", 200 * MIB, mapped=30 * MIB), made("b", 70 * MIB)))
    # the larger operation of each: 200 + 70 held, 30 mapped
    assert both.memory.anonymous_bytes - alone.memory.anonymous_bytes == 270 * MIB
    assert both.memory.file_bytes - alone.memory.file_bytes == 30 * MIB
    assert both.verdict.needed_bytes - alone.verdict.needed_bytes == 300 * MIB
    assert both.memory.peak_bytes.mid - alone.memory.peak_bytes.mid == 300 * MIB
    assert [p.name for p in both.memory.parts][-2:] == ["a", "b"]
    assert both.verdict.available_bytes == 3 * GIB


def test_a_companion_changes_the_verdict_and_leaving_it_out_is_the_first_advice():
    alone = predict(MODEL, PHONE, Scenario())
    spare = alone.verdict.available_bytes - alone.verdict.needed_bytes
    fits = predict(MODEL, PHONE, Scenario(), beside=(made("a", spare),))
    assert fits.verdict.word == "fits"  # exactly full
    beside = (made("a", spare), made("b", 2 * MIB))
    over = predict(MODEL, PHONE, Scenario(), beside=beside)
    assert over.verdict.word != "fits"
    assert over.verdict.needed_bytes - over.verdict.available_bytes == 2 * MIB
    found = advice_for(MODEL, PHONE, Scenario(), over, beside=beside)
    left = {a.change: a for a in found if a.kind == "beside"}
    assert left["leave out b"].word == "fits"
    assert left["leave out b"].saved_bytes == 2 * MIB
    assert left["leave out a"].saved_bytes == spare


def test_two_that_draw_alike_halve_the_bus():
    total = rates_of(PHONE).read_bytes_per_s
    speed = predict(MODEL, PHONE, Scenario()).speed
    # moved by all cores at full bandwidth, nothing else: it draws the whole bus, so the model keeps W / (W + W)
    hungry = Companion("hungry", (Cost(operation="scan", flops_count=0, moved_bytes=1e9, resident_bytes=0),))
    assert drawn_bytes_per_s(hungry, PHONE)[0] == pytest.approx(total)
    shared, told = shared_speed(speed, PHONE, (hungry,), "ram")
    assert shared.decode_tokens_per_s.mid == pytest.approx(speed.decode_tokens_per_s.mid / 2)
    assert "shared in proportion" in told[0]
    three, _ = shared_speed(speed, PHONE, (hungry, hungry), "ram")
    assert three.decode_tokens_per_s.mid == pytest.approx(speed.decode_tokens_per_s.mid / 3)


def test_a_cached_or_resting_companion_draws_nothing_and_a_card_shares_no_bus():
    speed = predict(MODEL, PHONE, Scenario()).speed
    small = Cost(operation="x", flops_count=0, moved_bytes=1e9, resident_bytes=0, working_set_bytes=1e5)
    assert drawn_bytes_per_s(Companion("small", (small,)), PHONE)[0] == 0
    assert shared_speed(speed, PHONE, (Companion("small", (small,)),), "ram")[0] == speed
    hungry = Companion("hungry", (replace(small, working_set_bytes=0),))
    assert shared_speed(speed, PHONE, (hungry,), "vram")[0] == speed


def test_a_target_must_hold_when_all_run_at_once():
    hungry = Companion("hungry", (Cost(operation="scan", flops_count=0, moved_bytes=1e9, resident_bytes=0),))
    reached = predict(MODEL, PHONE, Scenario()).speed.decode_tokens_per_s.mid
    wanted = 0.75 * reached  # half of it is left
    assert predict(MODEL, PHONE, Scenario(), target_tokens_per_s=wanted).verdict.word == "fits"
    together = predict(MODEL, PHONE, Scenario(), target_tokens_per_s=wanted, beside=(hungry,))
    assert together.verdict.word == "too slow"
    assert together.verdict.binding_limit.startswith("decode speed")


def test_companions_by_name():
    small, large = companion("memory_store:small"), companion("memory_store:entry_count=100000")
    # 100,000 x 384 x 4 bytes of vectors at least
    assert large.anonymous_bytes > 100_000 * 384 * 4 > small.anonymous_bytes
    assert with_companions(predict(MODEL, PHONE, Scenario()).memory, (small,)).parts[-1].name == "memory_store small"
    with pytest.raises(UnknownNameError):
        companion("memory_stor")
    with pytest.raises(RefusedError):
        companion("memory_store:huge")
