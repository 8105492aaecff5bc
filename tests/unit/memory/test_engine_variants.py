"""Every buffer of the variants of an engine, beside start-ups of three of them on a machine with AVX-512 and AMX."""

import csv
from pathlib import Path

import pytest

from harness.core.device import Device
from harness.core.model import Tensor, Weights
from harness.core.prediction import MemoryPrediction, PartKind
from harness.core.scenario import Scenario
from harness.core.units import MIB
from harness.hardware.devices import load_device
from harness.memory.peak import (
    RUNTIME_ANONYMOUS_BYTES,
    memory_of,
)
from harness.memory.repack import kept_bytes, mapped_bytes, repacked_bytes, rewritten_bytes
from harness.models.names import load_model
from harness.models.weights import weights_of

TABLE = Path(__file__).parents[4] / "shared" / "engines" / "intel-amx" / "engines.csv"
ROWS = list(csv.DictReader(TABLE.open(encoding="utf-8"))) if TABLE.is_file() else []
AMX = ("avx2", "avx512", "avx512_vnni", "amx")
VARIANTS = {
    "sapphirerapids": AMX,
    "icelake": ("avx2", "avx512", "avx512_vnni"),
    "skylakex": ("avx2", "avx512"),
    "haswell": ("avx2",),
}


def _on(isa: tuple[str, ...]) -> Device:
    device = load_device("raspberry-pi-5")
    cpu = device.engine_for("cpu")
    assert cpu is not None
    return device.replace(engines=(cpu.replace(isa=isa),))


def _weights(file: str) -> Weights:
    """Of a file by its name; those of Qwen2.5 have an output matrix of their own, others are random."""
    name, _, quant = file.removesuffix(".gguf").rpartition("-")
    shape = load_model(name).shape
    if "coder" in name:
        shape = shape.replace(tied_embeddings=False)
    weights = weights_of(shape, "MXFP4_MOE" if quant == "MXFP4" else quant)
    return weights.replace(synthetic=name.startswith(("qwen3", "gemma")))


def _predicted(row: dict[str, str]) -> MemoryPrediction:
    is_wheel = row["library"].startswith("xllamacpp")
    isa = VARIANTS["haswell"] if is_wheel else VARIANTS.get(row["variant"], AMX)
    scenario = Scenario(
        context_tokens=4096,
        prompt_tokens=512,
        depth_tokens=512,
        repack=row["repack"] == "1",
        program="xllamacpp" if is_wheel else "",
    )
    return memory_of(_weights(row["file"]), scenario, _on(isa))


@pytest.mark.skipif(not ROWS, reason="no table of start-ups beside this folder")
def test_every_start_up_is_predicted_within_two_percent() -> None:
    """Buffers of the weights, anonymous memory after the runs, and the peak; an empty process has some 20 MiB."""
    assert len(ROWS) == 114
    errors = []
    for row in ROWS:
        found = {name: float(cell or 0) * MIB for name, cell in row.items() if name.endswith("_mib")}
        memory = _predicted(row)
        parts = [part for part in memory.parts if part.kind in {PartKind.WEIGHTS, PartKind.REPACKED}]
        cells = ("mapped_model_mib", "cpu_model_mib", "amx_model_mib", "repack_model_mib")
        before = found["anonymous_before_mib"] - RUNTIME_ANONYMOUS_BYTES
        pairs = (
            (sum(part.size_bytes for part in parts), sum(found[cell] for cell in cells)),
            (memory.anonymous_bytes + before, found["anonymous_after_runs_mib"]),
            (memory.peak_bytes.mid + before, found["peak_mib"]),
        )
        errors += [(abs(told / measured - 1), row["library"], row["file"]) for told, measured in pairs]
    assert max(errors)[0] < 0.02, max(errors)


@pytest.mark.skipif(not ROWS, reason="no table of start-ups beside this folder")
@pytest.mark.parametrize("file", sorted({row["file"] for row in ROWS}))
def test_where_the_variant_is_not_known_the_interval_spans_them(file: str) -> None:
    rows = [row for row in ROWS if row["file"] == file and row["repack"] == "1"]
    told = _predicted(next(row for row in rows if row["variant"] == "sapphirerapids")).peak_bytes
    for row in rows:
        measured = (float(row["peak_mib"]) - float(row["anonymous_before_mib"])) * MIB + RUNTIME_ANONYMOUS_BYTES
        assert told.low < measured < told.high


@pytest.mark.parametrize(
    ("type_name", "dims", "size", "rewritten"),
    [
        ("Q4_0", (256, 64), 18, 18),
        ("Q8_0", (256, 64), 34, 38),  # a sum of each block beside it
        ("Q4_K", (256, 64), 144, 148),  # scales and offsets as whole bytes
        ("Q6_K", (256, 64), 210, 210),
        ("IQ4_XS", (256, 64), 136, 138),
        ("Q3_K", (256, 64), 110, 0),  # neither has kernels for it
        ("F16", (256, 64), 2, 2),
        ("BF16", (256, 64), 2, 0),
        ("Q8_0", (256, 48), 34, 0),  # 48 rows are no whole tiles
        ("Q4_0", (256, 48), 18, 18),  # but six times eight, interleaved
    ],
)
def test_a_matrix_in_tiles_takes_what_its_blocks_do(
    type_name: str, dims: tuple[int, int], size: int, rewritten: int
) -> None:
    elements = {"F16": 1, "BF16": 1, "Q4_0": 32, "Q8_0": 32}.get(type_name, 256)
    blocks = dims[0] * dims[1] // elements
    tensor = Tensor(name="blk.0.ffn_up.weight", dims=dims, type_name=type_name, size_bytes=size * blocks)
    assert rewritten_bytes(tensor, AMX) == rewritten * blocks


def test_experts_are_never_laid_into_tiles() -> None:
    stack = Tensor(name="blk.0.ffn_up_exps.weight", dims=(256, 64, 8), type_name="Q6_K", size_bytes=64 * 8 * 210)
    assert rewritten_bytes(stack, AMX) == 0


def test_the_mapping_ends_with_the_last_tensor_that_is_computed_from_it() -> None:
    shape = load_model("llama-3.1-8b").shape
    names = ("output.weight", "token_embd.weight", "blk.0.attn_norm.weight", "blk.0.ffn_up.weight")
    tensors = tuple(
        Tensor(name=name, dims=(256, 64) if "norm" not in name else (256,), type_name="Q4_0", size_bytes=100 + place)
        for place, name in enumerate(names)
    )
    weights = Weights(shape=shape, tensors=tensors, file_bytes=500, quant="Q4_0")
    assert repacked_bytes(weights, AMX) == 100 + 103
    assert mapped_bytes(weights, AMX) == kept_bytes(weights, AMX) == 101 + 102
