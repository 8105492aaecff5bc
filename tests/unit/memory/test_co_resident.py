"""A model and what lives beside it in one app: sums by hand."""

import pytest

from harness.answer.case import Case, companion
from harness.answer.resolve import resolve_model
from harness.answer.ways import advice_for, predict, ways
from harness.core.errors import RefusedError, UnknownNameError
from harness.core.prediction import Limit
from harness.core.scenario import Scenario
from harness.core.units import GIB, MIB
from harness.hardware.devices import load_device
from harness.memory.co_resident import Companion, read_bytes_per_s, shared_speed, with_companions

PHONE = load_device("iphone-16-pro")  # 3 GiB for one app
MODEL = resolve_model("llama-3.2-1b")
HUNGRY = Companion("hungry", 0, drawn_bytes_per_s=lambda _device: 1e15)
"""Draws the whole bus, and no more than there is."""


def made(name: str, held: int, *, mapped: int = 0) -> Companion:
    return Companion(name, held, mapped)


def test_bytes_are_added_once_for_each_companion():
    alone = predict(Case.of(MODEL, PHONE, Scenario()))
    both = predict(
        Case.of(MODEL, PHONE, Scenario())._replace(beside=(made("a", 200 * MIB, mapped=30 * MIB), made("b", 70 * MIB)))
    )
    # 200 + 70 held, 30 mapped
    assert both.memory.anonymous_bytes - alone.memory.anonymous_bytes == 270 * MIB
    assert both.memory.file_bytes - alone.memory.file_bytes == 30 * MIB
    assert both.verdict.needed_bytes - alone.verdict.needed_bytes == 300 * MIB
    assert both.memory.peak_bytes.mid - alone.memory.peak_bytes.mid == 300 * MIB
    assert [part.label for part in both.memory.parts][-2:] == ["a", "b"]
    assert both.verdict.available_bytes == 3 * GIB


def test_a_companion_changes_the_verdict_and_leaving_it_out_is_the_first_advice():
    alone = predict(Case.of(MODEL, PHONE, Scenario()))
    spare = alone.verdict.available_bytes - alone.verdict.needed_bytes
    fits = predict(Case.of(MODEL, PHONE, Scenario())._replace(beside=(made("a", spare),)))
    assert fits.verdict.word == "fits"  # exactly full
    beside = (made("a", spare), made("b", 2 * MIB))
    over = predict(Case.of(MODEL, PHONE, Scenario())._replace(beside=beside))
    assert over.verdict.word != "fits"
    assert over.verdict.needed_bytes - over.verdict.available_bytes == 2 * MIB
    case = Case.of(MODEL, PHONE, Scenario())._replace(beside=beside, is_placed=True)
    found = advice_for(case, ways(case)[0])
    left = {a.change: a for a in found if a.kind == "beside"}
    assert left["leave out b"].word == "fits"
    assert over.verdict.needed_bytes - left["leave out b"].needed_bytes == 2 * MIB
    assert over.verdict.needed_bytes - left["leave out a"].needed_bytes == spare


def test_two_that_draw_alike_halve_the_bus():
    speed = predict(Case.of(MODEL, PHONE, Scenario())).speed
    shared, told = shared_speed(speed, PHONE, (HUNGRY,), "ram")
    # the model keeps W / (W + W)
    assert shared.decode_tokens_per_s.mid == pytest.approx(speed.decode_tokens_per_s.mid / 2)
    assert "shared in proportion" in told[0]
    three, _ = shared_speed(speed, PHONE, (HUNGRY, HUNGRY), "ram")
    assert three.decode_tokens_per_s.mid == pytest.approx(speed.decode_tokens_per_s.mid / 3)


def test_a_resting_companion_draws_nothing_and_a_card_shares_no_bus():
    speed = predict(Case.of(MODEL, PHONE, Scenario())).speed
    assert shared_speed(speed, PHONE, (made("resting", MIB),), "ram")[0] == speed
    assert shared_speed(speed, PHONE, (HUNGRY,), "vram")[0] == speed


def test_a_target_must_hold_when_all_run_at_once():
    reached = predict(Case.of(MODEL, PHONE, Scenario())).speed.decode_tokens_per_s.mid
    wanted = 0.75 * reached  # half of it is left
    assert predict(Case.of(MODEL, PHONE, Scenario())._replace(target_tokens_per_s=wanted)).verdict.word == "fits"
    together = predict(Case.of(MODEL, PHONE, Scenario())._replace(target_tokens_per_s=wanted, beside=(HUNGRY,)))
    assert together.verdict.word == "too slow"
    assert together.verdict.binding_limit is Limit.DECODE_SPEED


def test_the_bus_is_what_was_measured_or_a_share_of_the_data_sheet():
    # iphone-16-pro: 60 GB/s LPDDR5X by its profile, of which CPU cores draw 0.54 where nobody measured it
    pool = PHONE.pool("ram")
    assert pool.measured_read_bytes_per_s is None
    assert read_bytes_per_s(PHONE) == pytest.approx(0.54 * pool.bandwidth_bytes_per_s.value)


def test_companions_by_name():
    pytest.importorskip("harness.workloads")
    small, large = companion("see:image_px=1000", MODEL.weights), companion("see:image_px=2000", MODEL.weights)
    # a picture of red, green and blue at least
    assert large.anonymous_bytes - small.anonymous_bytes > 3 * (2000**2 - 1000**2)
    assert (
        with_companions(predict(Case.of(MODEL, PHONE, Scenario())).memory, (small,)).parts[-1].name
        == "see image_px=1000"
    )
    with pytest.raises(UnknownNameError):
        companion("answr", MODEL.weights)
    with pytest.raises(RefusedError):
        companion("answer:huge", MODEL.weights)
    with pytest.raises(RefusedError):
        companion("answer:rows=3", MODEL.weights)
