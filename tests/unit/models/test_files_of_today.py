"""Sizes of files that were published in 2026, beside what is computed for them.

Rows are sizes of a public catalogue of 13 to 22 August 2026 (AtomicBot-ai/atomic-chat-model-catalog), each rounded to
0.1 GiB: models whose files hold a block that drafts, tables read lazily, experts in their own type, gates, fine-tunes.
"""

import pytest

from harness.answer.answer import answer
from harness.answer.resolve import resolve_model
from harness.core.question import Question
from harness.core.scenario import Scenario
from harness.core.units import GIB
from harness.memory.peak import memory_of
from harness.models.weights import read_of

FILES = [
    ("unsloth/Qwen3.8-27B-GGUF:BF16", 51.0),
    ("unsloth/GLM-5.2-GGUF:Q8_0", 746.4),
    ("unsloth/DeepSeek-V4-Pro-0813-GGUF:UD-Q4_K_XL", 791.2),
    ("bartowski/Qwen_Qwen3.5-35B-A3B-GGUF:Q8_0", 35.2),
    ("lmstudio-community/gemma-4-E2B-it-GGUF:Q6_K", 3.6),
    ("unsloth/Laguna-S-2.1-GGUF:Q8_0", 116.4),
    ("unsloth/Inkling-Small-GGUF:Q8_0", 261.0),
    ("mradermacher/Goetia-24B-v1.4-GGUF:Q6_K", 18.0),
    ("mradermacher/Q3.5-BlueStar-27B-GGUF:Q8_0", 26.6),
    ("unsloth/Qwen3.6-27B-MTP-GGUF:Q8_0", 27.1),
    ("unsloth/Qwen3.8-Flash-Next-GGUF:UD-Q4_K_XL", 103.7),
    # trained for Q4_0: sizes that llama-bench printed, ghost91-/llama-bench@b4632ea
    ("unsloth/gemma-4-26B-A4B-it-qat-GGUF:UD-Q4_K_XL", 13.26),
    ("unsloth/gemma-4-26B-A4B-it-qat-GGUF:Q4_0", 13.43),
    ("unsloth/gemma-4-12b-it-qat-GGUF:UD-Q4_K_XL", 6.24),
]


@pytest.mark.parametrize(("name", "gib"), FILES)
def test_a_file_has_the_size_that_is_computed(name: str, gib: float) -> None:
    assert resolve_model(name).weights.file_bytes / GIB == pytest.approx(gib, rel=0.02)


def test_a_table_of_n_grams_is_on_disk_and_neither_held_nor_read() -> None:
    """One tensor of 160 x 320,001,536 weights; the maker counts 125 B beside it, and 6 B for a token."""
    weights = resolve_model("Qwen3.8-Flash-Next:Q8_0").weights
    table = 160 * 320_001_536

    assert weights.weight_count - weights.resident.weight_count == table
    assert weights.resident.weight_count / 1e9 == pytest.approx(125, rel=0.01)
    assert weights.file_bytes - weights.resident.file_bytes == table * 34 // 32
    assert read_of(weights).weight_count / 1e9 == pytest.approx(6, rel=0.02)
    held = memory_of(weights, Scenario(context_tokens=512)).peak_bytes.mid
    assert held < weights.resident.file_bytes + 4 * GIB


def test_a_block_that_drafts_is_in_the_file_and_plain_decoding_leaves_it() -> None:
    with_block = resolve_model("unsloth/Qwen3.6-27B-MTP-GGUF:Q8_0").weights
    without = resolve_model("unsloth/Qwen3.6-27B-GGUF:Q8_0").weights

    assert 1.012 < with_block.file_bytes / without.file_bytes < 1.024
    assert read_of(with_block).size_bytes == read_of(without).size_bytes


def test_memory_of_a_guess_is_as_wide_as_models_of_its_size_differ() -> None:
    known, unsure = (
        answer(Question(model=name, device="rtx 3090"), advises=False).prediction.memory.peak_bytes
        for name in ("quokka-24b", "quokka-19b")
    )
    assert unsure.high / unsure.low > 1.23 / 0.87
    assert 1.1 < known.high / known.low < unsure.high / unsure.low


@pytest.mark.parametrize("name", ["Goetia-24B-v1.4", "Artemis-31B-v1.1", "Anubis-70B-v1.2"])
def test_a_fine_tune_whose_base_nobody_tells_stays_a_guess(name: str) -> None:
    assert resolve_model(name).guess


@pytest.mark.parametrize("recipe", ["UD-Q4_K_XL", "ud-q4_k_xl", "Q8_0", "Q4_0"])
def test_a_model_trained_for_a_quantisation_is_asked_with_any_recipe(recipe: str) -> None:
    asked = resolve_model("gemma-4-26b-a4b-qat", recipe)

    assert asked.weights.file_bytes == resolve_model(f"gemma-4-26b-a4b-qat:{recipe}").weights.file_bytes
