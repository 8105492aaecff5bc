"""Recommendations: what is published, what fits, what is fast enough, and every way to a model's quality."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from harness.app.case import Case
from harness.app.recommend import _TABLE, TASKS, recommend
from harness.app.resolve import resolve_device, resolve_model
from harness.app.ways import ways
from harness.catalog.models import model_names
from harness.cli.recommend import recommend as COMMAND
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.records.store import load

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
    ranking = recommend(device, "code", SCENARIO, min_tokens_per_s=30)
    choices = ranking.choices

    assert choices
    assert [c.rank_score for c in choices] == sorted((c.rank_score for c in choices), reverse=True)
    for choice in choices:
        now = ways(Case.of(resolve_model(choice.model, choice.quant), device, SCENARIO))[0].prediction
        assert now.verdict.word == "fits"
        assert now.speed.decode_tokens_per_s.mid >= 30
        assert choice.score == _TABLE["scores"][choice.model]["code"]
    for choice in choices:  # the front: nothing is both better and faster
        beaten = any(c.rank_score > choice.rank_score and c.tokens_per_s >= choice.tokens_per_s for c in choices)
        assert choice.is_front != beaten


def test_several_cards_are_recommended_what_they_hold_together() -> None:
    one, two, unlike = (
        {c.model: c for c in recommend(resolve_device(name), "chat", SCENARIO).choices}
        for name in ("rtx-3090-desktop", "2x rtx 3090", "rtx 3090 + rtx 3060")
    )
    # 70B in Q4_K_M are 40 GiB, for which there is room on two cards of 24, and not on one
    split = one["llama-3.3-70b"]
    assert (split.quant, split.how) == ("Q4_K_M", "layers")
    assert (two["llama-3.3-70b"].quant, two["llama-3.3-70b"].how) == ("Q4_K_M", "")
    # 32B in Q6_K are 25 GiB: whole on 24 and 12 together, and on no card alone
    choice = unlike["qwen2.5-32b"]
    assert (choice.quant, choice.how) == ("Q6_K", "")
    assert choice.needed_bytes > 24 * 2**30


@pytest.mark.parametrize(("requantized_from", "counts"), [("", True), ("Q4_K_M", False)])
def test_a_ladder_on_record_says_what_a_mixture_costs(requantized_from: str, counts: bool) -> None:
    device = resolve_device("rtx-3060-desktop")
    (plain,) = (c for c in recommend(device, "code", SCENARIO).choices if c.model == "qwen2.5-coder-7b")
    weights = resolve_model("qwen2.5-coder-7b", plain.quant).weights
    record = load(Path("tests/records/v2-quality.json"))
    change = replace(record.result.calibration.nll_change, value=0.05)
    enough = replace(record.result.score, token_count=1024)
    ladder = replace(
        record,
        model=replace(
            record.model, quant=plain.quant, architecture="qwen2", parameter_count=weights.weight_count + 64,
            requantized_from=requantized_from,
        ),
        result=replace(record.result, score=enough, calibration=replace(record.result.calibration, nll_change=change)),
    )  # fmt: skip
    brief = replace(ladder, result=replace(ladder.result, score=replace(enough, token_count=255)))
    records = [brief, ladder] if counts else [brief]
    (told,) = (c for c in recommend(device, "code", SCENARIO, records=records).choices if c.model == plain.model)
    if not counts:
        assert told == plain
        return
    # 0.05 nats a token more are exp(0.05) - 1 = 5.13 % of perplexity
    assert told.perplexity_percent == pytest.approx(5.127, abs=1e-3)
    assert told.rank_score == pytest.approx(plain.score * (1 - 0.05127), abs=0.01)
    assert told.source.endswith("a ladder here of a model of this shape")
    assert (told.quant, told.score) == (plain.quant, plain.score)


def test_every_model_is_recommended_or_left_out_for_a_reason() -> None:
    ranking = recommend(resolve_device("raspberry-pi-5"), "chat", SCENARIO, min_tokens_per_s=5)
    chosen = {choice.model for choice in ranking.choices}
    assert chosen | set(ranking.left_out) == set(model_names())
    assert not chosen & set(ranking.left_out)
    # 405B weights at 2 bits are 100 GB, and a Pi 5 has 8; 8B at 2 bits are 2.4 GB of 17 GB/s, on a CPU; gpt2 is of 2019
    assert ranking.left_out["llama-3.1-405b"] == "it does not fit"
    assert ranking.left_out["llama-3.1-8b"].startswith("too slow: ")
    assert ranking.left_out["gpt2"] == "no published MMLU-Pro is known here"


def test_no_mixture_is_recommended_that_leaves_little_of_a_model() -> None:
    # 32B in IQ3_XXS are 12.8 GB, too many beside a cache in 12 GB; Q2_K costs such a model 68.73 % of perplexity
    ranking = recommend(resolve_device("rtx-4070-desktop"), "code", SCENARIO, min_tokens_per_s=20)
    assert all((choice.perplexity_percent or 0) <= 30 for choice in ranking.choices)
    assert all(choice.rank_score > 0.7 * choice.score for choice in ranking.choices)
    reason = ranking.left_out["qwen2.5-coder-32b"]
    assert reason.startswith(("what fits of it loses too much: ", "too slow: "))


def test_the_verb_says_what_to_run_and_how() -> None:
    asked = ["rtx-4070-desktop", "--task", "code", "--min-speed", "20"]
    first, command, *_ = CliRunner().invoke(COMMAND, asked).stdout.splitlines()
    document = json.loads(CliRunner().invoke(COMMAND, [*asked, "--json"]).stdout)
    best = document["choices"][0]
    assert first.startswith(f"Run {best['model']} {best['quant']}: about ")
    assert command == document["commands"][0]
    assert command.startswith("llama-server -hf ")
    assert f":{best['quant']} " in command
    phone = json.loads(CliRunner().invoke(COMMAND, ["iphone-16-pro", "--json"]).stdout)
    assert phone["choices"]
    assert phone["commands"] == []


def test_a_higher_wish_leaves_fewer_models() -> None:
    device = resolve_device("macbook-air-m2")
    slow, fast = (recommend(device, "chat", SCENARIO, min_tokens_per_s=v).choices for v in (5, 40))
    assert {c.model for c in fast} < {c.model for c in slow}


def test_minutes_count_what_a_phone_keeps() -> None:
    phone = resolve_device("iphone-17-pro")
    burst, kept = (recommend(phone, "chat", SCENARIO, minutes=m).choices for m in (0, 10))
    speeds = {(c.model, c.quant): c.tokens_per_s for c in burst}
    for choice in (c for c in kept if not c.how):  # published runs of iPhones keep 38 to 67 % after ten minutes
        assert 0.3 * speeds[choice.model, choice.quant] < choice.tokens_per_s < 0.9 * speeds[choice.model, choice.quant]


def test_what_is_as_good_as_a_model_has_its_score_or_more() -> None:
    device = resolve_device("macbook-pro-m3-max")
    listed, equal = (recommend(device, "chat", SCENARIO, quality_of=name).choices for name in ("", "llama3.1:70b"))
    # Llama 3.1 70B has 66.4; a point less is the same.
    assert [c.model for c in equal] == [c.model for c in listed if c.score >= 66.4 - 1]
    assert 0 < len(equal) < len(listed)


def test_a_model_without_a_published_score_is_refused() -> None:
    with pytest.raises(RefusedError, match="no published MMMU of llama-3\\.1-70b"):
        recommend(resolve_device("iphone-16-pro"), "vision", SCENARIO, quality_of="llama-3.1-70b")


def test_the_verb_speaks_json_and_fails_when_nothing_fits() -> None:
    done = CliRunner().invoke(COMMAND, ["iphone-16-pro", "--quality-of", "llama-3.1-8b", "--json"])
    assert json.loads(done.stdout)["choices"]
    none = CliRunner().invoke(
        COMMAND, ["raspberry-pi-4", "--task", "vision", "--min-speed", "50"], standalone_mode=False
    )
    assert none.return_value == 1
