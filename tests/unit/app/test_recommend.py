"""Recommendations: what is published, what fits, what is fast enough, and every way to a model's quality."""

import json

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from harness.app.fit import override, predict
from harness.app.recommend import _TABLE, TASKS, recommend, routes
from harness.app.resolve import resolve_device, resolve_model
from harness.app.ways import ways
from harness.catalog.models import model_names
from harness.cli.fit import fit as FIT
from harness.cli.recommend import recommend as COMMAND
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.units import GB, GIB

SCENARIO = Scenario()


def test_every_score_is_of_a_card_and_has_a_source() -> None:
    table = _TABLE
    for name, row in table["scores"].items():
        assert name in model_names()
        assert row["source"] in table["sources"]
        assert set(row) - {"source"} <= set(TASKS)
        assert all(0 < row[task] <= 100 for task in row if task != "source")
    assert set(table["benchmarks"]) == set(TASKS)


def test_what_is_recommended_fits_and_is_fast_enough() -> None:
    device = resolve_device("rtx-4090-desktop")
    choices = recommend(device, "code", SCENARIO, min_tokens_per_s=30)

    assert choices
    assert [c.rank_score for c in choices] == sorted((c.rank_score for c in choices), reverse=True)
    for choice in choices:
        now = ways(resolve_model(choice.model, choice.quant), device, SCENARIO)[0].prediction
        assert now.verdict.word == "fits"
        assert now.speed.decode_tokens_per_s.mid >= 30
        assert choice.score == _TABLE["scores"][choice.model]["code"]
    for choice in choices:  # the front: nothing is both better and faster
        beaten = any(c.rank_score > choice.rank_score and c.tokens_per_s >= choice.tokens_per_s for c in choices)
        assert choice.is_front != beaten


def test_a_higher_wish_leaves_fewer_models() -> None:
    device = resolve_device("macbook-air-m2")
    slow, fast = (recommend(device, "chat", SCENARIO, min_tokens_per_s=v) for v in (5, 40))
    assert {c.model for c in fast} < {c.model for c in slow}


def test_minutes_count_what_a_phone_keeps() -> None:
    phone = resolve_device("iphone-17-pro")
    burst, kept = (recommend(phone, "chat", SCENARIO, minutes=m) for m in (0, 10))
    speeds = {(c.model, c.quant): c.tokens_per_s for c in burst}
    for choice in kept:  # published runs of iPhones keep 38 to 67 % after ten minutes
        assert 0.3 * speeds[choice.model, choice.quant] < choice.tokens_per_s < 0.9 * speeds[choice.model, choice.quant]


def test_every_route_of_the_article_stands_side_by_side() -> None:
    found = {r.route: r for r in routes(resolve_device("iphone-16-pro"), "llama3.1:70b", "chat", SCENARIO)}

    assert list(found) == [
        "the model itself", "the model in 2 bits", "ternary weights", "a smaller model",
        "a mixture of experts", "a draft here, the verifier there",
    ]  # fmt: skip
    assert found["the model itself"].fit == "does not fit"
    assert all(r.evidence for r in found.values())
    small = found["a smaller model"]
    assert _TABLE["scores"][small.model]["chat"] >= 66.4 - 1  # Llama 3.1 70B has 66.4
    streamed = found["a mixture of experts"].tokens_per_s
    whole = found["the model in 2 bits"].tokens_per_s
    assert streamed
    assert whole
    assert streamed > 5 * whole  # a few experts a token, instead of all weights


def test_a_model_without_a_published_score_is_refused() -> None:
    with pytest.raises(RefusedError, match="no published MMMU of llama-3\\.1-70b"):
        routes(resolve_device("iphone-16-pro"), "llama-3.1-70b", "vision", SCENARIO)


def test_the_verb_speaks_json_and_fails_when_nothing_fits() -> None:
    done = CliRunner().invoke(COMMAND, ["iphone-16-pro", "--quality-of", "llama-3.1-70b", "--json"])
    assert len(json.loads(done.stdout)["items"]) == 6
    none = CliRunner().invoke(
        COMMAND, ["raspberry-pi-4", "--task", "vision", "--min-speed", "50"], standalone_mode=False
    )
    assert none.return_value == 1


def test_an_override_changes_what_it_names() -> None:
    device = resolve_device("rtx-4060-desktop")
    other = override(device, ram_bytes=32 * GIB, vram_bytes=16 * GIB, bandwidth_bytes_per_s=68 * GB)

    assert other.pool("ram").total_bytes.value == 32 * GIB
    assert other.pool("vram").total_bytes.value == 16 * GIB
    share = device.pool("vram").usable_bytes.value / device.pool("vram").total_bytes.value
    assert other.pool("vram").usable_bytes.value == pytest.approx(share * 16 * GIB)
    assert other.pool("vram").bandwidth_bytes_per_s.value == 68 * GB  # the memory that the card reads
    assert other.pool("ram").bandwidth_bytes_per_s == device.pool("ram").bandwidth_bytes_per_s
    model = resolve_model("llama-3.1-8b", "Q8_0")
    before, after = (predict(model, d, SCENARIO) for d in (device, replace(other)))
    assert before.verdict.word == "fits with streaming" or before.verdict.word == "does not fit"
    assert after.verdict.word == "fits"
    assert after.speed.decode_tokens_per_s.mid < before.speed.decode_tokens_per_s.mid


def test_an_override_of_memory_that_is_not_there_is_refused() -> None:
    with pytest.raises(RefusedError, match="no vram"):
        override(resolve_device("iphone-16-pro"), vram_bytes=GIB)


def test_fit_takes_overrides() -> None:
    asked = ["llama3.1:8b", "-d", "iphone-16-pro", "--no-advice", "--json"]
    small, large = (CliRunner().invoke(FIT, [*asked, *more]) for more in ([], ["--ram", "16GiB", "--bandwidth", "120"]))
    before, after = json.loads(small.stdout)["prediction"], json.loads(large.stdout)["prediction"]
    assert (before["verdict"]["word"], after["verdict"]["word"]) != ("fits", "fits")
    assert after["verdict"]["word"] == "fits"
    assert after["speed"]["decode_tokens_per_s"]["mid"] > before["speed"]["decode_tokens_per_s"]["mid"]
