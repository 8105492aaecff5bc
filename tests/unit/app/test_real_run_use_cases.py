"""Advice, prompts, frontier, budgets and emulation: the arithmetic around the real runs."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from bench.tiny_gguf import synthesize_tiny
from harness.app.emulate import emulation_of, find_boundary, predicted_bytes, predicted_context
from harness.app.speculate import PROMPT_CLASSES, load_prompts
from harness.catalog.devices import load_device
from harness.catalog.gguf import read_gguf
from harness.cli import cli
from harness.domain.record import result_of
from harness.domain.result import Boundary
from harness.errors import BadDataError, RefusedError
from harness.measure.jobs.speculate import advise
from harness.records.metrics import metric_values
from harness.runtimes.llamacpp.draft_policy import CostTable, DraftPolicy


def test_speedup_by_hand() -> None:
    # m = 2, a = 0.5: 1 + 0.5 + 0.25 = 1.75 tokens; (2 + 0.25) * 0.1 + 1.2 = 1.425 s; plain 1 s a token
    assert CostTable({1: 1.0, 3: 1.2}, 0.1).speedup_ratio(2, 0.5) == pytest.approx(1.75 / 1.425)


def test_advice_says_no_when_verification_is_linear() -> None:
    advice = advise(DraftPolicy(CostTable({1: 30.0, 5: 125.0, 16: 400.0}, 22.0), seen=[(7, True)] * 100))
    assert advice.draft_tokens == 0
    assert advice.speedup_ratio == 1.0
    assert advice.ceiling_ratio < 1.0
    assert "do not" in advice.words


def test_advice_prefers_the_length_where_kernels_are_cheap() -> None:
    # Batches of 4 cost no more than of 3, those of 5 far more: three drafted tokens are best at high acceptance.
    table = {1: 60.0, 2: 101.0, 3: 120.0, 4: 120.0, 5: 216.0, 16: 700.0}
    assert advise(DraftPolicy(CostTable(table, 14.0), seen=[(7, True)] * 100)).draft_tokens == 3


@pytest.mark.parametrize("name", PROMPT_CLASSES)
def test_shipped_prompts(name: str) -> None:
    prompts = load_prompts(name)
    assert len(prompts) >= 10
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("text", ["{", "{}", "[]", "[1]", '[""]'])
def test_bad_prompts(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadDataError):
        load_prompts(str(path))
    with pytest.raises(BadDataError, match=r"code: found .* prompts, expected at least 9999"):
        load_prompts("code", 9999)


def test_a_file_with_one_prompt_serves_where_no_number_is_given(tmp_path):
    (tmp_path / "one.json").write_text('["Once"]')
    given = ["stream", "./none.gguf", "--ram-budget", "1GB", "--prompts", str(tmp_path / "one.json")]
    assert "none.gguf" in str(CliRunner().invoke(cli, given).exception)  # the model is looked for after the prompts
    assert "1 prompts" in str(CliRunner().invoke(cli, [*given, "--prompt-count", "2"]).exception)


def test_predicted_context_is_the_longest_that_fits(tmp_path: Path) -> None:
    weights = read_gguf(synthesize_tiny(tmp_path / "t.gguf", "Q8_0")).weights()
    emulation = emulation_of(load_device("raspberry-pi-4"))
    longest = predicted_context(weights, emulation)
    assert longest % 256 == 0
    assert predicted_bytes(weights, longest, emulation) <= emulation.memory_limit_bytes
    if longest < 1 << 21:
        assert predicted_bytes(weights, longest + 256, emulation) > emulation.memory_limit_bytes


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"memory_bytes": 1 << 40}, "--memory-limit: found 1024.00 GiB, expected at most"),
        ({"entitled": True}, "--entitled changes nothing: raspberry-pi-4: one limit"),
    ],
)
def test_what_the_device_does_not_give_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        emulation_of(load_device("raspberry-pi-4"), **asked)


@pytest.mark.engine
def test_boundary_is_found_by_real_runs(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")

    path = synthesize_tiny(tmp_path / "t.gguf", "Q8_0", layer_count=8, kv_head_count=8)
    # 8 layers x 2 x 512 x 2 bytes = 16 KiB a token: 300 MB hold some 15 000 tokens beside the process.
    emulation = replace(emulation_of(load_device("raspberry-pi-4")), memory_limit_bytes=300_000_000)
    record = find_boundary(path, emulation, tolerance_ratio=0.05)
    found = result_of(record, Boundary)
    assert record.outcome == "ok"
    assert metric_values(record, "longest_context_tokens") == [found.found_tokens]
    assert dict(found.tried)[found.found_tokens] == "ok"
    assert found.found_tokens > 0
    assert found.found_tokens < found.failed_tokens
    if found.enforced:
        assert found.found_peak_bytes <= 300_000_000
