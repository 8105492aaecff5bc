"""Names of models with a format, bits in words, types that are history, and what is no language model to load.

``model_kinds.csv`` and ``models_9.csv`` were written down before any of it was tried, with the source of each fact:
parameters in 10**9 and bytes of the file in 10**9 (several right values divided by a bar), words of a refusal, and
whether a stand-in must be said. First tried, they gave 65 of 119 and 42 of 131.
"""

import csv
import re
from pathlib import Path

import pytest

from harness.answer.resolve import resolve_model
from harness.core.errors import FetchError, HarnessError, InputError, RefusedError
from harness.core.scenario import Scenario
from harness.memory.kv_cache import kv_cache_bytes
from harness.models.cards import named
from harness.models.names import match
from harness.models.other_kinds import other_kind, without_weights
from harness.models.quant import split

LISTS = Path(__file__).parents[2] / "data" / "names"
LEAST_RIGHT_RATIO = 0.96


def rows_of(name: str) -> list[dict[str, str]]:
    with (LISTS / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=";"))


def is_near(found: float, told: str, ratio: float) -> bool:
    return not told or any(abs(found / float(value) - 1) < ratio for value in told.split("|"))


def wrong_of(row: dict[str, str]) -> str:
    """What of a row came out otherwise; empty where all is as it was written down."""
    try:
        model = resolve_model(row["name"], row["quant"] or None)
    except (InputError, FetchError) as error:
        if row["refused"] and re.search(row["refused"], str(error), re.IGNORECASE):
            return ""
        return f"refused: {error}"
    count = sum(t.element_count for t in model.weights.tensors) / 1e9
    if row["refused"] and not row["params_b"]:
        return "answered"
    if row.get("stands_in") and model.guess is None and not model.asked_name:
        return "a stand-in that is not said"
    if not is_near(count, row["params_b"], 0.05):
        return f"{count:.2f}B"
    if not is_near(model.weights.file_bytes / 1e9, row["file_gb"], 0.06):
        return f"{model.weights.file_bytes / 1e9:.2f} GB"
    return ""


@pytest.mark.parametrize("name", ["model_kinds.csv", "models_9.csv"])
def test_names_written_down_before_they_were_tried(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    rows = rows_of(name)
    wrong = {row["name"]: said for row in rows if (said := wrong_of(row))}
    assert len(wrong) <= (1 - LEAST_RIGHT_RATIO) * len(rows), wrong
    silent = {name: said for name, said in wrong.items() if not said.startswith("refused")}
    assert len(silent) <= 0.01 * len(rows), silent


def test_no_card_is_taken_for_another_kind_of_model() -> None:
    names = {name for card, others in named() for name in (card, *others)}
    assert not {name: said for name in names if (said := other_kind(name) or without_weights(name))}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openai/whisper-large-v3-turbo", "speech recogniser.*whisper.cpp"),
        ("black-forest-labs/FLUX.1-dev", "image generator.*stable-diffusion.cpp"),
        ("Wan-AI/Wan2.2-T2V-A14B", "video generator.*ComfyUI"),
        ("hexgrad/Kokoro-82M", "speech synthesiser"),
        ("gpt-5", "no weights to run: OpenAI.*gpt-oss-20b"),
        ("claude-opus-4-1", "no weights to run: Anthropic"),
        ("Qwen3.8-27B-DFlash", "draft head.*--draft"),
    ],
)
def test_what_is_no_language_model_says_what_answers_it(name: str, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        resolve_model(name)


@pytest.mark.parametrize(
    "name",
    [
        "Qwen3-14B-Claude-4.5-Opus-Distill-GGUF",
        "Llama-3.2-3B-GPT-5-Distill",
        "gpt4all-13b-snoozy",
        "gpt-j-6b",
        "Qwen3-4B-Gemini-2.5-Pro-Distill",
        "Mistral-Nemo-2407-12B-Thinking-Claude-Gemini-GPT5.2-Uncensored-HERETIC",
    ],
)
def test_a_size_is_no_service_s(name: str) -> None:
    assert without_weights(name) == ""


@pytest.mark.parametrize("name", ["MiMo-V2.5-Pro", "command-a-plus", "GLM-5.3-Flash-Pro", "DeepSeek-V3.2-Lite"])
def test_a_word_of_size_breaks_an_alias(name: str) -> None:
    """MiMo-V2.5-Pro has 1.02 trillion parameters and V2 Flash 309 billion; Command A Plus has twice Command A's."""
    try:
        card = match(name).card
    except HarnessError:
        return
    assert card is None or card.name in {"mimo-v2.5-pro", "command-a-plus"}


@pytest.mark.parametrize(
    ("name", "quant", "mixture", "said"),
    [
        ("Llama-3.1-8B-BF16-heretic", "Q4_K_M", "Q4_K_M", "BF16 in its name is what it was made of"),
        ("gemma-4-31B-it-qat-q4_0-unquantized", "Q5_K_M", "Q5_K_M", "is what it was made of"),
        ("Qwen3-14B-AWQ", "Q6_K", "Q6_K", "AWQ in its name"),
        ("gemma-4-31B-it-qat-q4_0-unquantized", None, "BF16", ""),
    ],
)
def test_a_type_in_a_name_is_history_where_another_is_asked_for(
    name: str, quant: str | None, mixture: str, said: str
) -> None:
    model = resolve_model(name, quant)
    assert model.quant == mixture
    assert said in "; ".join(model.notes)


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("bartowski/bottlecapai_ThinkingCap-Qwen3.6-27B-GGUF", "qwen3.6-27b"),  # ends of words, no ECAPA and no T5
        ("Mistral-Nemo-2407-12B-Thinking-Claude-Gemini-GPT5.2-Uncensored-HERETIC", "mistral-nemo-12b"),
    ],
)
def test_the_middle_of_a_word_names_no_other_kind_of_model(name: str, card: str) -> None:
    model = resolve_model(name, "IQ2_M")
    assert model.card and model.card.name == card


@pytest.mark.parametrize(
    ("name", "gb"),
    [
        # Sizes that a catalogue of 13 August 2026 lists, rounded to 0.1 GiB.
        ("mradermacher/Muse-Glimmer-30B-Heretic-Abliterated-BF16-GGUF:Q4_K_M", 16.97),
        ("mradermacher/Qwen3.8-27B-ABLITERATED-BF16-GGUF:Q4_K_M", 16.86),
        ("Qwen/Qwen2.5-1.5B-Instruct-GGUF:q4_0", 1.066),  # this owner stores the output matrix apart
        ("bartowski/arcee-ai_Trinity-Large-Preview-GGUF:IQ2_M", 124.98),
        ("openbmb/MiniCPM-o-4_5-GGUF:Q4_K_M", 5.05),
    ],
)
def test_a_tag_decides_beside_a_type_in_a_name(name: str, gb: float) -> None:
    assert resolve_model(name).weights.file_bytes / 1e9 == pytest.approx(gb, rel=0.09)


@pytest.mark.parametrize("name", ["Llama-3.1-8B-Q8_0.gguf", "bartowski/Llama-3.1-8B-GGUF:Q8_0", "llama-3.1-8b-Q8_0"])
def test_the_type_of_a_file_or_a_tag_is_no_history(name: str) -> None:
    with pytest.raises(RefusedError, match="leave one of the two out"):
        resolve_model(name, "Q4_K_M")


@pytest.mark.parametrize(
    ("name", "bare", "quant"),
    [
        ("llama 70b at 3 bits", "llama 70b", "Q3_K_M"),
        ("Q8 of llama 3.1 8b", "llama 3.1 8b", "Q8"),
        ("mixtral 8x7b 4-bit", "mixtral 8x7b", "Q4_K_M"),
        ("Llama-3.2-1B-Instruct-4bit", "Llama-3.2-1B-Instruct", "4bit"),
        ("llama-3.2-3b-BFP8", "llama-3.2-3b", "BFP8"),
    ],
)
def test_bits_in_words_are_the_usual_mixture(name: str, bare: str, quant: str) -> None:
    assert split(name) == (bare, quant)


@pytest.mark.parametrize(
    ("name", "params_b", "cache_gib"),
    [  # by hand: layers x heads x 2 x width x 2 bytes x tokens, of full layers all 65,536, of sliding ones their window
        ("LiquidAI/LFM3-1.7B", 1.73, 0.76),  # 6 full layers and 5 of a window of 256, 4 heads of 128
        ("ibm-granite/granite-swash-3b-a600m", 3.02, 0.45),  # 7 full layers and 21 of a window of 128, 4 heads of 64
        ("IFM/K2-Horizon-MoVA-36B-A4B", 37.4, 12.0),  # 48 full layers, 8 heads of 128
        ("XiaomiMiMo/MiMo-V2.5-Pro", 1023, None),
        ("CohereLabs/command-a-plus-05-2026", 218.5, None),
        ("deepseek-ai/DeepSeek-OCR", 2.93, 3.75),  # 12 full layers, 10 heads of 128
    ],
)
def test_shapes_of_autumn(name: str, params_b: float, cache_gib: float | None) -> None:
    """Parameters are the checkpoints' (shapes_today.csv), of readers of pages without their image tower."""
    weights = resolve_model(name).weights
    assert weights.weight_count / 1e9 == pytest.approx(params_b, rel=0.01)
    if cache_gib is not None:
        held = kv_cache_bytes(weights.shape, Scenario(context_tokens=65_536)) / 2**30
        assert held == pytest.approx(cache_gib, rel=0.02)
