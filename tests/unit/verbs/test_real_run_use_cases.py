"""Advice, prompts, frontier, and budgets: the arithmetic around the real runs."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.core.errors import BadDataError
from harness.measure.jobs.speculate import advise
from harness.measure.probe.tiny_model import tiny_shape, write_tiny
from harness.models.gguf import read_weights
from harness.runtimes.llamacpp.speculative import CostTable, DraftPolicy
from harness.verbs.speculate import PROMPT_CLASSES, fastest_copy, load_prompts


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
    assert advice.words.startswith("draft 3 tokens: 1.48 x")


@pytest.mark.parametrize(
    ("table", "draft_s", "length", "speedup"),
    [
        # five tokens in 4 x 14 + 216 where plain passes take 60 each; three drafted tokens would be faster
        ({1: 60.0, 2: 101.0, 3: 120.0, 4: 120.0, 5: 216.0, 16: 700.0}, 14.0, 4, 5 * 60 / 272),
        ({1: 30.0, 5: 125.0, 16: 400.0}, 22.0, 4, 5 * 30 / (88 + 125)),  # slower than plain, and so it says
        ({1: 60.0, 2: 60.0, 16: 700.0}, 20.0, 1, 2 * 60 / 80),
    ],
)
def test_advice_on_a_fixed_length_is_about_that_length(
    table: dict[int, float], draft_s: float, length: int, speedup: float
) -> None:
    answer = [(7, True)] * 100
    advice = advise(DraftPolicy(CostTable(table, draft_s), draft_tokens=length, seen=answer), [answer])
    assert (advice.draft_tokens, advice.speedup_ratio) == (length, pytest.approx(speedup))
    assert advice.words.startswith(f"draft {length} token{'s' * (length > 1)}: {speedup:.2f} x")


def test_advice_says_no_where_agreement_comes_in_runs_that_do_not_pay() -> None:
    # One token drafted at a time, half of them accepted: 1.5 tokens a pass were they independent, some 1.1 times as
    # fast. In runs a pass gives 2 or 1: 4 tokens in 3 passes of 1.3, a gain of 2.6 %.
    answers = [[(7, True)] * 20, [(7, False)] * 20] * 5
    policy = DraftPolicy(CostTable({1: 1.0, 2: 1.2, 3: 3.0}, 0.1), seen=[pair for a in answers for pair in a])
    assert policy.best()[0] == 1
    assert policy.replay(answers) == pytest.approx(4 / 3.9)
    advice = advise(policy, answers)
    assert (advice.draft_tokens, advice.speedup_ratio) == (0, 1.0)
    assert "do not" in advice.words


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


@pytest.mark.engine
def test_a_draft_s_copy_has_every_matrix_in_its_fastest_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "draft.gguf"
    write_tiny(path, tiny_shape(2, 256, 512, 4, 2), "F16")
    copy = fastest_copy(path)
    assert {t.type_name for t in read_weights(copy).tensors if len(t.dims) > 1} == {"Q4_0"}
    assert fastest_copy(path) == copy
