"""Advice, prompts, frontier, budgets and emulation: the arithmetic around the real runs."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.app.emulate import emulation_of
from harness.app.speculate import PROMPT_CLASSES, load_prompts
from harness.catalog.devices import load_device
from harness.cli import cli
from harness.errors import BadDataError, RefusedError
from harness.measure.jobs.speculate import advise
from harness.runtimes.llamacpp.draft_policy import CostTable, DraftPolicy


def test_speedup_by_hand() -> None:
    # m = 2, a = 0.5: 1 + 0.5 + 0.25 = 1.75 tokens; (2 + 0.25) * 0.1 + 1.2 = 1.425 s; plain 1 s a token
    assert CostTable({1: 1.0, 3: 1.2}, 0.1).speedup_ratio(2, 0.5) == pytest.approx(1.75 / 1.425)


def test_advice_says_no_when_verification_is_linear() -> None:
    answer = [(7, True)] * 100
    advice = advise(DraftPolicy(CostTable({1: 30.0, 5: 125.0, 16: 400.0}, 22.0), seen=answer), [answer])
    assert advice.draft_tokens == 0
    assert advice.speedup_ratio == 1.0
    assert advice.ceiling_ratio < 1.0
    assert "do not" in advice.words


def test_advice_prefers_the_length_where_kernels_are_cheap() -> None:
    # Batches of 4 cost no more than of 3, those of 5 far more: three drafted tokens are best at high acceptance.
    table = {1: 60.0, 2: 101.0, 3: 120.0, 4: 120.0, 5: 216.0, 16: 700.0}
    answer = [(7, True)] * 100
    advice = advise(DraftPolicy(CostTable(table, 14.0), most_tokens=3, seen=answer), [answer])
    assert advice.draft_tokens == 3
    # 25 cycles of 4 tokens, each in 3 x 14 + 120, where plain passes take 60 a token
    assert advice.speedup_ratio == pytest.approx(4 * 60 / 162)


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


def test_more_memory_than_the_device_gives_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"--memory-limit: found 1024\.00 GiB, expected at most"):
        emulation_of(load_device("raspberry-pi-4"), 1 << 40)
