"""The broadcast sweep equals the scalar path in every cell, to the byte."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.app.matrix import ask
from harness.app.resolve import resolve_model
from harness.app.ways import ways
from harness.catalog.devices import device_names, load_device
from harness.catalog.names import load_model
from harness.domain.scenario import Scenario
from harness.predict.memory import predict_memory
from harness.predict.speed import predict_speed
from harness.predict.sweep import IMPOSSIBLE, SPLIT, WORDS, sweep
from harness.predict.verdict import judge
from harness.predict.weights import weights_of

DEVICES = [load_device(name) for name in device_names()]
MODELS = [
    (name, load_model(name).shape)
    for name in ("smollm2-135m", "llama-3.1-8b", "gemma-3-27b", "gpt-oss-20b", "deepseek-v2-lite", "mamba2-2.7b")
]
QUANTS = ("F16", "Q8_0", "Q4_K_M", "Q2_K", "IQ2_XXS")
CONTEXTS = (512, 4000, 32768)

scenarios = st.builds(
    Scenario,
    kv_type=st.sampled_from(["F16", "Q8_0", "Q4_0"]),
    api=st.sampled_from(["", "cpu"]),
    repack=st.booleans(),
    mmap=st.booleans(),
    batch_count=st.integers(1, 4),
    ubatch_tokens=st.sampled_from([64, 512]),
    prompt_tokens=st.integers(1, 2000),
    flash_attention=st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(
    scenario=scenarios,
    entitled=st.booleans(),
    devices=st.lists(st.sampled_from(DEVICES), min_size=1, max_size=3, unique_by=lambda d: d.name),
)
def test_every_cell_is_the_scalar_answer(scenario: Scenario, entitled: bool, devices: list) -> None:
    grid = sweep(devices, MODELS, QUANTS, CONTEXTS, scenario=scenario, entitled=entitled)
    for (d, m, q, c), number in np.ndenumerate(grid.verdict):
        asked = Scenario(
            **{f: getattr(scenario, f) for f in scenario.__struct_fields__} | {"context_tokens": CONTEXTS[c]}
        )
        weights = weights_of(MODELS[m][1], QUANTS[q])
        memory = predict_memory(weights, asked, device=devices[d])
        verdict = judge(memory, None, devices[d], entitled=entitled)
        # a model that does not fit whole may run by another way, as the test below has it
        assert WORDS[number] == verdict.word or (verdict.word == "does not fit" and number in {1, SPLIT})
        assert grid.needed_bytes[d, m, q, c] == verdict.needed_bytes
        assert grid.available_bytes[d, m, q, c] == verdict.available_bytes
        if c == 0:
            speed = predict_speed(weights, devices[d], asked).decode_tokens_per_s.mid
            assert grid.decode_tokens_per_s[d, m, q] == pytest.approx(speed, rel=1e-12)


def test_a_kv_type_that_no_row_holds_is_marked_impossible() -> None:
    models = [MODELS[0]]  # a row of keys has 3 x 64 = 192 entries; Q4_K stores 256 in a block
    grid = sweep(DEVICES[:2], models, ("Q8_0",), (512,), scenario=Scenario(kv_type="Q4_K"))
    assert set(grid.verdict.ravel()) == {IMPOSSIBLE}
    assert np.isnan(grid.decode_tokens_per_s).all()


def test_a_backend_that_a_device_lacks_is_marked_impossible() -> None:
    devices = [load_device("iphone-16-pro"), load_device("rtx-4090-desktop")]
    grid = sweep(devices, MODELS[:2], ("Q4_K_M",), (512,), scenario=Scenario(api="cuda"))
    assert (grid.verdict[0] == IMPOSSIBLE).all()
    assert np.isnan(grid.decode_tokens_per_s[0]).all()
    assert (grid.verdict[1] == 0).all()


@pytest.mark.parametrize("axis", range(4))
def test_order_of_an_axis_does_not_matter(axis: int) -> None:
    args = [DEVICES[:6], MODELS, QUANTS, CONTEXTS]
    turned = [list(reversed(a)) if i == axis else a for i, a in enumerate(args)]
    assert (np.flip(sweep(*turned).verdict, axis) == sweep(*args).verdict).all()


@pytest.mark.parametrize("context", [4096, 32768])
def test_the_best_way_of_a_cell_is_the_one_that_a_search_finds(context: int) -> None:
    names = ("rtx-4060-desktop", "rtx-3090-desktop", "gtx-1050-ti-desktop", "macbook-pro-m3-max", "raspberry-pi-5-16gb")
    models = ("qwen3-30b-a3b", "llama-3.3-70b", "gpt-oss-120b", "qwen3-32b", "deepseek-r1", "llama-3.1-8b")
    grid = ask(devices=names, models=models, contexts=(context,))
    seen = set()
    for d, m in np.ndindex(len(names), len(models)):
        model, device = resolve_model(grid.models[m], "Q4_K_M"), load_device(grid.devices[d])
        best = ways(model, device, Scenario(context_tokens=context))[0]
        word = best.prediction.verdict.word
        seen.add(WORDS[grid.verdict[d, m, 0, 0]])
        assert WORDS[grid.verdict[d, m, 0, 0]] == ("fits split" if word == "fits" and not best.is_usual else word)
        if best.runs:
            speed = best.prediction.speed.decode_tokens_per_s.mid
            assert grid.reached_tokens_per_s[d, m, 0, 0] == pytest.approx(speed, rel=0.2)
    assert seen == set(WORDS)
