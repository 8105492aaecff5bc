"""Speculation, streaming and quantisation on the real engine with tiny synthetic models."""

import errno
import re
import sys
import time
from collections import namedtuple
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.core.errors import EngineError, RefusedError
from harness.core.huge_pages import read_buffer
from harness.core.scenario import Scenario
from harness.models.gguf import read_gguf
from harness.runtimes.llamacpp.quantize import QuantizeJob, run_quantize
from harness.runtimes.llamacpp.session import LlamaSession
from harness.runtimes.llamacpp.speculative import (
    CostTable,
    DraftPolicy,
    LookupDrafter,
    ModelDrafter,
    check_same_vocabulary,
    explain_difference,
    generate,
)
from harness.runtimes.llamacpp.text_scores import score

pytest.importorskip("llama_cpp")
pytestmark = pytest.mark.engine

SCENARIO = Scenario(context_tokens=256, ubatch_tokens=32, thread_count=1)
PROMPT = [5, 9, 14, 20, 9, 14]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "Q8_0", layer_count=6)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_tiny(tmp_path_factory.mktemp("tiny") / "other.gguf", "Q4_0", layer_count=2, seed=5)


@pytest.mark.parametrize("draft", ["same", "other", "lookup"])
@pytest.mark.parametrize("length", [1, 4, 0])
def test_greedy_speculation_gives_the_targets_own_tokens(tiny: Path, other: Path, draft: str, length: int) -> None:
    costs = CostTable({1: 1.0, 9: 1.1} if not length else {1: 1.0}, 0.01)
    policy = DraftPolicy(costs, draft_tokens=length, most_tokens=8)
    with LlamaSession(tiny, SCENARIO) as target, LlamaSession(tiny if draft == "same" else other, SCENARIO) as small:
        expected = generate(target, PROMPT, 40)
        drafter = LookupDrafter() if draft == "lookup" else ModelDrafter(small)
        got = generate(target, PROMPT, 40, drafter, policy)
        difference = explain_difference(target, PROMPT, expected.tokens, got.tokens, 5)
    assert len(got.tokens) == 40
    assert difference is None or difference.explained
    assert sum(n + 1 for n in got.lengths) >= 39
    assert got.accepted_count <= got.drafted_count
    if draft == "same" and length == 4 and difference is None:
        assert got.accepted_count == got.drafted_count
        # 39 tokens after the first at 5 a pass: 8 passes (the last one drafts only what is still wanted)
        assert got.cycle_count == 8


@pytest.mark.parametrize(("seen_tokens", "pair_count"), [(0, 15), (90, 15), (104, 11), (112, 3)])
def test_a_draft_reads_a_long_prompt_in_pieces_of_its_room(other: Path, seen_tokens: int, pair_count: int) -> None:
    prompt = [int(t) for t in np.random.default_rng(3).integers(0, 512, 100)]
    with LlamaSession(other, SCENARIO, batch_tokens=16, output_tokens=8) as small:
        history = [*prompt, *generate(small, prompt, 16).tokens]
        history[-1] = (history[-1] + 1) % 512  # not what this model would have said
        drafter = ModelDrafter(small)
        drafter.forget()
        drafter.propose(history[:seen_tokens], min(seen_tokens, 1), lambda _: False)
        agreed = [same for _, same in drafter.agreement(history, len(prompt) + 1)]
        assert agreed == [True] * (pair_count - 1) + [False]
        assert drafter.lag_tokens(history) == 1
        with pytest.raises(ValueError, match="logits of 9 tokens do not fit one batch of 8"):
            small.decode([0] * 9, position=0, logits="all")


@pytest.mark.skipif(sys.platform != "linux", reason="streaming needs mremap")
def test_readers_without_memory_for_their_buffers_end(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.runtimes.llamacpp import laid_memory

    buffers = iter([read_buffer(laid_memory.CHUNK_BYTES)])

    def scarce(_: int) -> AbstractContextManager[memoryview]:
        if (buffer := next(buffers, None)) is None:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return buffer

    monkeypatch.setattr(laid_memory, "read_buffer", scarce)
    with LlamaSession(tiny, SCENARIO):
        memory = laid_memory.LaidMemory(tiny)
        with pytest.raises(EngineError, match="for the readers' buffers"):
            laid_memory.ReaderPool(memory, through_buffers=True)
        memory.close()


@pytest.mark.skipif(sys.platform != "linux", reason="streaming needs mremap")
def test_storage_is_not_looked_at_beside_our_own_reads() -> None:
    """What was put in line for the next pass is read first; the pass then need not wait for it."""
    from harness.runtimes.llamacpp import laid_memory
    from harness.runtimes.llamacpp.block_streaming import BudgetedSession
    from harness.runtimes.llamacpp.stream_plan import Extent

    class Slow:
        def read(self, *_: int) -> None:
            time.sleep(0.02)

        def probe_bytes_per_s(self) -> float:
            return float(pool.read_bytes)

    chunk, pool = laid_memory.CHUNK_BYTES, laid_memory.ReaderPool(Slow())
    for ticket in (1, 2, 3):
        pool.submit(ticket, [Extent(0, 4 * chunk)])
    session = SimpleNamespace(_looks=[1.0], _readers=pool, _memory=Slow())
    BudgetedSession.probe_again(session)
    assert session._looks == [1.0, 12.0 * chunk]
    assert pool.wait(3) < 0.01
    pool.stop()


def test_other_vocabulary_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = synthesize_tiny(tmp_path / "large.gguf", "Q8_0", vocab_count=1024)
    with (
        LlamaSession(tiny, SCENARIO) as target,
        LlamaSession(path, SCENARIO) as small,
        pytest.raises(RefusedError, match="other vocabulary"),
    ):
        check_same_vocabulary(target, small)


@pytest.mark.skipif(sys.platform != "linux", reason="streaming needs mremap")
def test_a_hopeless_budget_is_refused_before_any_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a real limit that holds hardly a page of the file, a pass over its mapping would not end."""
    from harness.runtimes.llamacpp import block_streaming as streaming

    path = synthesize_tiny(tmp_path / "deep.gguf", "Q8_0", layer_count=4)
    monkeypatch.setattr(LlamaSession, "decode", lambda *_, **__: pytest.fail("a pass was run"))
    with pytest.raises(RefusedError, match=r"^the budget: found 1 MiB, expected at least \d+ MiB: \d+ MiB of weights"):
        streaming.StreamedSession(path, SCENARIO, 1 << 20)


@pytest.mark.skipif(sys.platform != "linux", reason="streaming needs mremap")
@pytest.mark.parametrize("share", [1.5, 0.8, 0.6])
def test_streamed_tokens_are_those_of_the_mapped_model(tmp_path: Path, share: float) -> None:
    from harness.runtimes.llamacpp import block_streaming as streaming
    from harness.speed.storage import MARGIN_BYTES

    path = synthesize_tiny(tmp_path / "deep.gguf", "Q8_0", layer_count=12)
    with LlamaSession(path, Scenario(context_tokens=256, ubatch_tokens=32, repack=False)) as session:
        expected = generate(session, PROMPT, 24).tokens
    # The budget counts the whole process, so it is set from what this very process holds.
    with streaming.StreamedSession(path, SCENARIO, 1 << 40) as probe:
        held = probe.held_bytes
    budget = held + MARGIN_BYTES + (4 << 20) + int(share * read_gguf(path).file_bytes)
    with streaming.StreamedSession(path, SCENARIO, budget) as streamed:
        streamed.reset()
        got = generate(streamed.session, PROMPT, 24)
        streamed.end_answer(got.cycle_count)
        report = streamed.report()
        plan = streamed.plan
    assert got.tokens == expected
    if share > 1:
        assert plan.streamed_bytes == 0
    if share < 0.7:
        assert plan.streamed_bytes > 0
        assert report.pass_count == 24  # the prompt and 23 tokens
        assert len(report.answer_passes_s) == 23
        assert sum(report.parts_s.values()) * 24 == pytest.approx(report.duration_s, rel=0.03)
        # every pass reads the streamed bytes once; the slots that are read ahead are all that may differ
        expected_bytes = report.pass_count * plan.streamed_bytes
        assert abs(report.read_bytes - expected_bytes) <= plan.slot_count * plan.slot_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="streaming needs mremap")
def test_the_control_computes_the_same_with_all_weights_in_memory(tmp_path: Path) -> None:
    from harness.runtimes.llamacpp.block_streaming import StreamedSession

    path = synthesize_tiny(tmp_path / "deep.gguf", "Q8_0", layer_count=12)
    with LlamaSession(path, SCENARIO.replace(repack=False)) as session:
        expected = generate(session, PROMPT, 8).tokens
    with StreamedSession(path, SCENARIO, None) as control:
        got = generate(control.session, PROMPT, 8)
        control.end_answer(got.cycle_count)
        report = control.report()
    assert got.tokens == expected
    assert report.read_bytes == report.stall_s == report.move_s == 0
    assert report.engine_s > 0
    assert report.pass_s is not None
    assert report.bound_ratio(1 << 20, report.pass_s) is None  # nobody looked at the storage


def test_a_core_that_others_take_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, of which another program takes 0.9 of one for a second, and then nothing."""
    from harness.runtimes.llamacpp import pass_clock

    times = namedtuple("times", "user nice system idle iowait irq softirq steal")
    told = iter([times(0, 0, 0, 0, 0, 0, 0, 0), times(1.9, 0, 0, 0.1, 0, 0, 0, 0), times(2.9, 0, 0, 1.1, 0, 0, 0, 0)])
    own, clock = iter([0.0, 1.0, 2.0]), iter([1.0, 1.1, 2.0, 3.0])
    monkeypatch.setattr(pass_clock.psutil, "cpu_times", lambda: next(told))
    monkeypatch.setattr(pass_clock.psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(pass_clock.os, "times", lambda: (next(own), 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(pass_clock.time, "perf_counter", lambda: next(clock))
    company = pass_clock.Company(2)
    assert [company.thread_count() for _ in range(4)] == [2, 2, 1, 2]


def test_answers_that_differ_by_more_than_a_fifth_are_inconclusive() -> None:
    from harness.core.drafting import Decoding
    from harness.core.result import Stream

    decoding = Decoding(tokens=(1, 2), duration_s=1.0, prefill_s=1.0)
    even = Stream(
        mode="streamed", budget_bytes=1, enforced=True, decoding=decoding, outputs=(), answers_tokens_per_s=(4.0, 4.7)
    )
    assert even.doubts == ()
    uneven = even.replace(answers_tokens_per_s=(2.4, 4.6))
    assert uneven.doubts == ("its answers were written at 2.40 to 4.60 tokens/s, more than 1.2 times apart",)


@pytest.mark.skipif(sys.platform != "linux", reason="streaming needs mremap")
def test_a_budget_that_cannot_hold_the_engine_is_refused(tiny: Path) -> None:
    from harness.runtimes.llamacpp.block_streaming import StreamedSession

    with pytest.raises(RefusedError, match=r"found 10 MiB, expected at least (\d+) MiB") as told:
        StreamedSession(tiny, SCENARIO, 10 << 20)
    enough = re.search(r"at least (\d+) MiB", str(told.value))
    assert enough
    StreamedSession(tiny, SCENARIO, (int(enough[1]) + 8) << 20).close()  # other memory of this process moves a little


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sequence_count": 4, "output_tokens": 3}, r"4 sequences .* found 3 \(output_tokens\)"),
        ({"sequence_count": 8, "batch_tokens": 4}, r"8 sequences .* found 4 \(batch_tokens\)"),
    ],
)
def test_fewer_logits_than_sequences_are_refused(tiny: Path, options: dict[str, int], told: str) -> None:
    """llama.cpp aborts the process over these."""
    with pytest.raises(RefusedError, match=told):
        LlamaSession(tiny, SCENARIO, **options)
    with LlamaSession(tiny, SCENARIO, sequence_count=4, output_tokens=4) as session:
        session.decode(PROMPT, position=0)
        assert session.kept_count == 1


def test_quantize_with_and_without_importance(tmp_path: Path) -> None:
    source = synthesize_tiny(tmp_path / "f16.gguf", "F16")

    told: dict[str, dict[str, int]] = {}

    def quantize(name: str, quant: str, importance: str = "") -> None:
        job = QuantizeJob(source=str(source), target=str(tmp_path / name), quant=quant, importance=importance)
        run_quantize(job, told.__setitem__)

    quantize("q4.gguf", "Q4_0")
    assert told == {"quantized": {"size_bytes": (tmp_path / "q4.gguf").stat().st_size}}
    types = {t.name: t.type_name for t in read_gguf(tmp_path / "q4.gguf").tensors}
    assert types["blk.0.attn_q.weight"] == "Q4_0"
    with pytest.raises(EngineError):
        quantize("iq1.gguf", "IQ1_S")
    assert not (tmp_path / "iq1.gguf").exists()
    from harness.runtimes.llamacpp.quantize import _ImportanceSums

    collector = _ImportanceSums()
    with LlamaSession(source, Scenario(context_tokens=64, repack=False), eval_hook=collector.hook) as session:
        session.decode(list(range(32)), position=0, logits="all")
    names = {n for n, t in types.items() if t == "Q4_0"}
    assert names <= set(collector.sums)
    assert all(np.isfinite(s).all() and (s >= 0).all() for s in collector.sums.values())
    importance = {n: (s / collector.rows[n]).astype(np.float32) for n, s in collector.sums.items()}
    np.savez(tmp_path / "importance.npz", **importance)
    quantize("iq1.gguf", "IQ1_S", str(tmp_path / "importance.npz"))
    assert (tmp_path / "iq1.gguf").stat().st_size < (tmp_path / "q4.gguf").stat().st_size


def test_score_is_the_models_own_log_probability(tiny: Path) -> None:
    chunk = list(range(40, 72))
    with LlamaSession(tiny, SCENARIO) as session:
        logs = score(session, chunk)
        session.clear()
        session.decode(chunk[:20], position=0)
        row = session.logits().astype(np.float64)
    # the row of the token at 19 is the fourth of the second half (16, 17, 18, 19)
    expected = row - np.log(np.exp(row - row.max()).sum()) - row.max()
    assert logs.shape == (15, row.size)
    assert logs[3] == pytest.approx(expected, abs=2e-2)
