"""What a user may name, and what comes of it."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.answer.case import Case
from harness.answer.resolve import published_file, resolve_device, resolve_model, scenario_from, with_kept_costs
from harness.answer.ways import predict, timing_notes
from harness.core.device import Calibration, TypeCost
from harness.core.errors import BadDataError, InputError, RefusedError, UnknownNameError
from harness.core.scenario import Scenario
from harness.hardware.devices import dump_device, load_device
from harness.measure import machine
from harness.measure.probe import calibrate

LLAMA_3_1_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}


def test_a_card_by_name() -> None:
    model = resolve_model("llama-3.1-8b", "q4_k_m")
    assert (model.name, model.quant, model.path) == ("llama-3.1-8b", "Q4_K_M", None)
    assert model.card is not None
    assert sum(t.element_count for t in model.weights.tensors) == 8_030_261_248  # the published count


def test_a_card_is_held_against_its_own_count_of_weights(tmp_path: Path) -> None:
    """A shape without its sliding heads or its experts has another count than its maker states."""
    shipped = (Path(__file__).parents[3] / "models" / "llama-3.2-1b.toml").read_text(encoding="utf-8")
    card = tmp_path / "mine.toml"
    card.write_text(shipped, encoding="utf-8")
    assert resolve_model(str(card)).name == "mine"
    card.write_text(shipped.replace("feed_forward_dim = 8192", "feed_forward_dim = 4096"), encoding="utf-8")
    with pytest.raises(BadDataError, match=r"parameter_count: .*1235814400, expected about 8331[0-9]+: "):
        resolve_model(str(card))


def test_a_card_s_own_mixture_is_the_default() -> None:
    assert resolve_model("smollm2-135m").quant == "Q4_1"


def test_a_published_file_that_unties_its_output_is_noticed() -> None:
    model = resolve_model("qwen2.5-coder-1.5b", "Q4_K_M")
    assert any(t.name == "output.weight" for t in model.weights.tensors)
    assert model.weights.file_bytes == pytest.approx(1_117_320_768, rel=0.005)  # the size on the card
    assert "apart" in model.notes[0]


def test_a_config_json_gives_the_same_weights_as_the_card(tmp_path: Path) -> None:
    folder = tmp_path / "my-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_3_1_8B))
    model = resolve_model(str(folder / "config.json"))
    assert model.name == "my-llama"
    assert model.quant == "Q4_K_M"
    assert model.weights.file_bytes == resolve_model("llama-3.1-8b", "Q4_K_M").weights.file_bytes


@pytest.mark.parametrize(
    ("ref", "quant", "error"),
    [
        ("llama-3.1-8bb", None, UnknownNameError),
        ("llama-3.1-8b", "Q4_K_X", UnknownNameError),
        ("./nowhere.gguf", None, BadDataError),
        ("./nowhere/config.json", None, BadDataError),
    ],
)
def test_what_is_not_there(ref: str, quant: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        resolve_model(ref, quant)


def test_this_machine_is_the_probed_one_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    assert resolve_device("this").chip == machine.cpu().model
    assert "read from its parts" in resolve_device("this").doubts[0]
    (tmp_path / "devices").mkdir()
    board = replace(load_device("raspberry-pi-5"), machine=machine.fingerprint().fingerprint)
    (tmp_path / "devices" / "this-machine.toml").write_text(dump_device(board))
    for name in ("this", "here", "this-machine"):
        assert resolve_device(name).chip == load_device("raspberry-pi-5").chip
    assert with_kept_costs(resolve_device("this"), Scenario()).calibrations == ()


def test_this_machine_carries_what_was_timed_with_the_scenario_s_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    (tmp_path / "devices").mkdir()
    board = replace(load_device("raspberry-pi-5"), machine=machine.fingerprint().fingerprint)
    (tmp_path / "devices" / "this-machine.toml").write_text(dump_device(board))
    model = resolve_model("smollm2-135m", "Q4_0")  # Q4_0 in the blocks, and the tied table in Q8_0
    (told,) = timing_notes(Case.of(model, with_kept_costs(resolve_device("this"), Scenario()), Scenario()))
    assert "edge-harness check" in told
    # 1 ns a byte and nothing else: 1e9 bytes take a second
    timed = Calibration(
        api="cpu",
        engine_version="engine 1",
        thread_count=3,
        types=(TypeCost(type_name="Q4_0", batch_seconds_per_byte=((1, 1e-9),)),),
        token_overhead_s=0.0,
        layer_overhead_s=0.0,
        kv_read_bytes_per_s=1e18,
        attention_flops_per_s=1e18,
    )

    def kept(*, thread_count: int, api: str, **_: object) -> Calibration | None:
        return timed if (thread_count, api) == (3, "cpu") else None

    monkeypatch.setattr(calibrate, "kept", kept)
    assert with_kept_costs(resolve_device("this"), Scenario()).calibrations == ()
    scenario = Scenario(thread_count=3)
    device = with_kept_costs(resolve_device("this"), scenario)
    (told,) = timing_notes(Case.of(model, device, scenario))
    assert told.startswith("never timed here: Q8_0;")
    speed = predict(Case.of(resolve_model("llama-3.2-1b", "Q4_0"), device, scenario)).speed
    assert speed is not None
    # at 1 ns a byte: 973,078,528 weights in Q4_0 at 4.5 bits, and 262,668,288 of the tied table in Q6_K at 6.5625,
    # which was not timed and costs a byte what Q4_0 does
    assert 1 / speed.decode_tokens_per_s.mid == pytest.approx(0.547356672 + 0.215470080, rel=1e-6)


def test_a_device_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(dump_device(load_device("iphone-16-pro")))
    assert resolve_device(str(path)).name == "mine"


@pytest.mark.parametrize("name", ["qwen3-8b", "nobody-7b"])  # one with a card, and one that is guessed
def test_a_name_and_an_option_ask_for_one_quantisation(name: str) -> None:
    with pytest.raises(RefusedError, match="names q4_k_m, and Q8_0 is asked for"):
        resolve_model(f"{name}-q4_k_m", "Q8_0")
    assert resolve_model(f"{name}-q4_k_m", "Q4_K_M").quant == resolve_model(f"{name}-q4_k_m").quant == "Q4_K_M"


def test_scenarios() -> None:
    assert scenario_from({"kv_type": "q8_0", "context_tokens": 8192}).kv_type == "Q8_0"
    with pytest.raises(UnknownNameError):
        scenario_from({"kv_type": "Q7"})
    with pytest.raises(UnknownNameError, match="no KV type named 'I64'"):  # a type of tensors, not of caches
        scenario_from({"kv_type": "I64"})
    with pytest.raises(InputError, match="needs flash attention"):
        scenario_from({"kv_type": "Q8_0", "flash_attention": False})
    with pytest.raises(BadDataError, match="nonsense"):
        scenario_from({"nonsense": 1})
    with pytest.raises(InputError, match="do not fit"):
        scenario_from({"depth_tokens": 4000, "context_tokens": 4096})


@pytest.mark.parametrize(
    ("name", "quant"),
    [("hf.co/unsloth/gemma-4-26B-A4B-it-qat-GGUF:UD-Q4_K_XL", None), ("gemma-4-26b-a4b-it-qat", "UD-Q4_K_XL")],
)
def test_a_dynamic_recipe_of_a_model_trained_for_q4_0_is_as_large_as_its_file(name: str, quant: str | None) -> None:
    model = resolve_model(name, quant)
    # Its file has 13.3 GiB (ollama/ollama#16637); the usual recipe of that name would have 15.
    assert model.weights.file_bytes / 2**30 == pytest.approx(13.3, rel=0.03)
    assert resolve_model("gemma-4-26b-a4b", "UD-Q4_K_XL").weights.file_bytes / 2**30 > 14.5


def test_how_a_model_was_trained_is_no_quantisation() -> None:
    assert resolve_model("gemma-3-12b-it-qat", "Q6_K").quant == "Q6_K"


@pytest.mark.parametrize(
    ("name", "repo", "file"),
    [
        ("unsloth/Qwen3-8B-GGUF:Q5_K_M", "unsloth/Qwen3-8B-GGUF", "unsloth/Qwen3-8B-GGUF:Q5_K_M"),
        ("hf.co/unsloth/gemma-4-26B-A4B-it-qat-GGUF:UD-Q4_K_XL", "unsloth/gemma-4-26B-A4B-it-qat-GGUF",
         "unsloth/gemma-4-26B-A4B-it-qat-GGUF:UD-Q4_K_XL"),
        ("mlx-community/phi-4-8bit", "mlx-community/phi-4-8bit", ""),
        ("Qwen/Qwen3-8B", "", "unsloth/Qwen3-8B-GGUF:Q4_K_M"),
    ],
)  # fmt: skip
def test_a_repository_that_was_typed_is_the_one_of_the_command(name: str, repo: str, file: str) -> None:
    model = resolve_model(name)
    assert (model.repo, published_file(model)) == (repo, file)


def test_the_name_that_llama_cpp_has_for_an_api_is_heard() -> None:
    assert scenario_from({"api": "Hexagon"}).api == "npu"
