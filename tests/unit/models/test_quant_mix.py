"""Which tensor gets which type: against llama.cpp's own quantiser, exactly; and sizes against published files."""

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from harness.answer.resolve import resolve_model
from harness.core.errors import RefusedError, UnknownNameError
from harness.core.model import ModelShape
from harness.core.units import GIB
from harness.models.names import load_model
from harness.models.quant import MIXTURES, understood
from harness.models.quant_mix import NEEDS_IMPORTANCE_MATRIX, QUANTS, in_llama_order, quant_named, types_in_order
from harness.models.weights import tensor_of, tensors_of, weights_of

# What `llama-quantize --dry-run` chose (release in llama-cpp-python 0.3.36) for header-only files of these shapes:
# a hash over "name TYPE" lines sorted by name, and how many tensors got each type.
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "llama_quantize_types.json").read_text())
CASES = [(model, mixture) for model, entry in GOLDEN.items() for mixture in entry["types"]]


@pytest.mark.parametrize("model", GOLDEN)
def test_types_are_those_of_the_quantiser(model: str) -> None:
    shape = msgspec.convert(GOLDEN[model]["shape"], ModelShape)
    placed = in_llama_order(tensors_of(shape))
    for mixture, expected in GOLDEN[model]["types"].items():
        quant, _, importance = mixture.partition("+")
        types = types_in_order(shape, placed, quant, importance_matrix=bool(importance))
        counts = {kind: list(types.values()).count(kind) for kind in sorted(set(types.values()))}
        if "MXFP4" in counts and "MXFP4" not in expected["counts"]:
            continue  # published files keep these experts as they were trained, whatever the mixture; the quantiser not
        assert counts == expected["counts"], mixture
        lines = "\n".join(f"{name} {kind}" for name, kind in sorted(types.items()))
        assert hashlib.sha256(lines.encode()).hexdigest()[:16] == expected["hash"], mixture


def test_the_golden_file_covers_every_mixture() -> None:
    covered = {mixture.partition("+")[0] for _, mixture in CASES}
    throughout = {quant for quant in QUANTS if "throughout" in MIXTURES[quant].flags}
    assert covered == set(QUANTS) - throughout  # those are not made by the quantiser: see the test below
    assert {m for _, m in CASES if m.endswith("+imatrix")} >= {f"{q}+imatrix" for q in NEEDS_IMPORTANCE_MATRIX}


@pytest.mark.parametrize(("model", "bits"), [("bonsai-1.7b", 1.13), ("bonsai-4b", 1.13), ("bonsai-8b", 1.13)])
def test_models_trained_in_one_bit_have_it_in_all_matrices(model: str, bits: float) -> None:
    # llama-bench's printed sizes of the published Q1_0 files: 1.12 to 1.13 bits a weight
    weights = weights_of(load_model(model).shape, load_model(model).default_quant)
    held = sum(t.size_bytes for t in weights.tensors)
    assert 8 * held / sum(t.element_count for t in weights.tensors) == pytest.approx(bits, abs=0.02)


@pytest.mark.parametrize(
    ("model", "quant", "published_bytes"),
    [
        # llama.cpp, tools/quantize/README.md (sizes in GiB with two decimals) and llama-bench tables; bytes of GiB.
        ("llama-3.1-8b", "IQ1_S", 1.87 * GIB),
        ("llama-3.1-8b", "IQ2_XXS", 2.23 * GIB),
        ("llama-3.1-8b", "IQ2_M", 2.74 * GIB),
        ("llama-3.1-8b", "Q2_K", 2.95 * GIB),
        ("llama-3.1-8b", "IQ3_XXS", 3.04 * GIB),
        ("llama-3.1-8b", "Q3_K_L", 4.02 * GIB),
        ("llama-3.1-8b", "IQ4_XS", 4.17 * GIB),
        ("llama-3.1-8b", "Q4_K_S", 4.36 * GIB),
        ("llama-3.1-8b", "Q4_K_M", 4.58 * GIB),
        ("llama-3.1-8b", "Q5_K_M", 5.33 * GIB),
        ("llama-3.1-8b", "Q6_K", 6.14 * GIB),
        ("llama-3.1-8b", "Q8_0", 7.95 * GIB),
        ("llama-3.1-8b", "F16", 14.96 * GIB),
        ("llama-3.1-70b", "Q2_K", 24.56 * GIB),
        ("llama-3.1-70b", "Q4_K_M", 39.59 * GIB),
        ("llama-3.1-70b", "Q6_K", 53.91 * GIB),
        ("llama-2-7b", "Q4_0", 3.56 * GIB),
        ("llama-2-7b", "Q8_0", 6.67 * GIB),
        ("tinyllama-1.1b", "Q4_K_M", 636.18 * 2**20),
        ("qwen3-30b-a3b", "Q8_0", 30.25 * GIB),
        ("gpt-oss-20b", "MXFP4", 11.27 * GIB),
        ("gpt-oss-120b", "MXFP4", 59.02 * GIB),
    ],
)
def test_tensor_bytes_are_the_published_ones(model: str, quant: str, published_bytes: float) -> None:
    # llama.cpp prints the bytes of all tensors; two decimals of a GiB are up to 0.27 % of the smallest of these.
    tensor_bytes = sum(t.size_bytes for t in weights_of(load_model(model).shape, quant).tensors)
    assert tensor_bytes == pytest.approx(published_bytes, rel=0.005)


@pytest.mark.parametrize(("model", "quant"), [("smollm2-135m", "Q4_1"), ("gemma-3-270m", "Q4_K_M")])
def test_file_bytes_of_cards_with_a_file(model: str, quant: str) -> None:
    card = load_model(model)
    file = next(f for f in card.files if f.quant == quant)
    assert weights_of(card.shape, quant).file_bytes == pytest.approx(file.size_bytes, rel=0.005)


@pytest.mark.parametrize(("quant", "gib"), [("IQ4_XS", 35.30), ("IQ4_NL", 37.30)])
def test_an_importance_matrix_changes_the_size(quant: str, gib: float) -> None:
    # Llama-3-70B as published in llama.cpp pull request 6745, made with an importance matrix.
    shape = load_model("llama-3.1-70b").shape
    table = tensors_of(shape)
    types = (types_in_order(shape, in_llama_order(table), quant, importance_matrix=one) for one in (True, False))
    with_matrix, without = (
        sum(tensor_of(name, table[name], kind).size_bytes for name, kind in each.items()) for each in types
    )
    assert with_matrix / GIB == pytest.approx(gib, rel=0.001)
    assert without > 1.005 * with_matrix


def test_llama_3_1_8b_q4_k_m_by_hand() -> None:
    shape = load_model("llama-3.1-8b").shape
    by_name = {t.name: t for t in weights_of(shape, "Q4_K_M").tensors}
    assert by_name["output.weight"].type_name == "Q6_K"
    assert by_name["token_embd.weight"].type_name == "Q4_K"
    # Q4_K stores 256 weights in 144 bytes: 4096 x 4096 / 256 x 144
    assert by_name["blk.0.attn_q.weight"].size_bytes == 9_437_184
    # of 32 layers: the first 4, the last 4, and every third between from the seventh: 6, 9, ... 27
    six_bits = [i for i in range(32) if by_name[f"blk.{i}.ffn_down.weight"].type_name == "Q6_K"]
    assert six_bits == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert by_name["blk.5.attn_norm.weight"].type_name == "F32"


@pytest.mark.parametrize(
    ("given", "name"), [("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("fp16", "F16"), ("iq2-xxs", "IQ2_XXS")]
)
def test_names_as_people_write_them(given: str, name: str) -> None:
    assert quant_named(given) == name


def test_unknown_mixture_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="IQ4_XS"):
        quant_named("IQ4_X")


def test_unknown_architecture_is_refused_not_guessed() -> None:
    shape = msgspec.structs.replace(load_model("llama-3.1-8b").shape, architecture="novel")
    with pytest.raises(RefusedError, match="novel"):
        weights_of(shape, "Q4_K_M")


@pytest.mark.parametrize("quant", QUANTS)
def test_every_card_can_be_quantised(quant: str) -> None:
    for model in ("phi-2", "falcon-mamba-7b", "jamba-v0.1", "deepseek-v3", "minicpm3-4b", "olmo-2-7b", "glm-4-9b"):
        weights = weights_of(load_model(model).shape, quant)
        assert weights.file_bytes > sum(t.size_bytes for t in weights.tensors) > 0


@pytest.mark.parametrize(
    ("model", "quant", "published", "ratio"),
    [
        # sizes of files on their pages, rounded to 0.1 GiB; models that no recipe was fitted on
        ("darwin-36b-opus", "bartowski:Q6_K", 30.06e9, 0.01),
        ("darwin-36b-opus", "bartowski:Q4_K_M", 21.37e9, 0.01),
        ("cydonia-24b", "bartowski:IQ4_XS", 12.78e9, 0.01),  # made with an importance matrix
        ("hermes-4-14b", "bartowski:Q4_0", 8.59e9, 0.01),
        ("apriel-1.5-15b", "bartowski:Q4_K_M", 8.80e9, 0.01),
        # and what the recipes of 2026 were fitted on
        ("gemma-4-31b", "bartowski:Q6_K", 26.74e9, 0.01),
        ("granite-4.1-8b", "bartowski:Q4_K_M", 5.58e9, 0.015),
        ("qwen3.5-9b", "unsloth:UD-Q4_K_XL", 5.955e9, 0.02),
    ],
)
def test_files_of_owners_have_the_size_that_was_published(model: str, quant: str, published: float, ratio: float):
    assert resolve_model(model, quant).weights.file_bytes == pytest.approx(published, rel=ratio)


def test_a_recipe_for_one_architecture_is_no_other_models() -> None:
    assert understood("bartowski:Q6_K", "llama") == understood("bartowski:Q6_K")
    assert understood("bartowski:Q6_K", "gemma4").bits[3] > 7.5  # attention; llama.cpp gives it 6.56
    assert understood("Q6_K", "gemma4").bits == ()  # of nobody in particular
