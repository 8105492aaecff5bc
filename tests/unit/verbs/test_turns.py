"""Several runtimes in turns: order, samples put together, and what the command line takes for a runtime."""

from importlib.resources import files
from pathlib import Path

import click
import numpy as np
import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.cli._options import sides_of
from harness.core.metric import metric_values
from harness.core.record import Record, Sample
from harness.core.result import Generation
from harness.core.scenario import Scenario
from harness.measure.child import Limits
from harness.measure.jobs.served import ServedJob
from harness.measure.machine import fingerprint
from harness.measure.pipeline import How, open_history
from harness.measure.protocol import GenerateJob
from harness.measure.runner import new_record
from harness.runtimes.llamacpp import RUNTIME as LLAMACPP
from harness.verbs.run import cells_of, run_in_turns
from harness.verbs.trend import answer_beside


def test_records_hold_the_samples_of_all_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    model = tmp_path / "m.json"
    model.write_text("{}")
    job, how = GenerateJob(runtime="fake", repetitions=3, cold_loads=0), How(limits=Limits(wall_s=30.0))
    cells = cells_of([str(model)], "", Scenario(context_tokens=64, prompt_tokens=4, new_tokens=2, thread_count=1))
    ((first, second),) = run_in_turns([[(cell, job), (cell, job.replace(repetitions=2))] for cell in cells], how=how)
    assert first.outcome == second.outcome == "ok"
    assert first.run_id < second.run_id
    assert (len(first.believed("decode")), len(second.believed("decode"))) == (6, 4)
    turns = [record.result.repetitions for record in open_history().records(limit=9)]  # type: ignore[union-attr]
    assert turns == [3, 2, 2, 3], "the second round is the other way round"


def test_turns_are_resumed_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of one runtime alone is none of its turns, and a first turn is no second one."""
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    model = tmp_path / "m.json"
    model.write_text("{}")
    how = How(resume=True, limits=Limits(wall_s=30.0))
    job = GenerateJob(runtime="fake", repetitions=3, cold_loads=0)
    sides = [job, job.replace(repetitions=2)]
    cells = cells_of([str(model)], "", Scenario(context_tokens=64, prompt_tokens=4, new_tokens=2, thread_count=1))
    ((alone,),) = run_in_turns([[(cell, job)] for cell in cells], how=how)
    ((first, second),) = run_in_turns([[(cell, side) for side in sides] for cell in cells], how=how)
    assert alone.run_id != first.run_id
    assert all(len(set(record.samples)) == len(record.samples) for record in (first, second))
    ((again, _),) = run_in_turns([[(cell, side) for side in sides] for cell in cells], how=how)
    assert again == first
    assert len(list(open_history().records(limit=9))) == 1 + 4, "nothing was measured twice"


def sides(runtimes: str) -> list[tuple[str, str]]:
    jobs = sides_of(runtimes, "", has_models=True)
    return [(job.runtime, job.url if isinstance(job, ServedJob) else "") for job in jobs]


def test_runtimes_of_the_command_line() -> None:
    assert sides("llamacpp") == [("llamacpp", "")]
    assert sides("llamacpp,ik,server:http://h:1") == [("llamacpp", ""), ("ik", ""), ("server", "http://h:1")]
    assert sides("server:http://h:2, ik") == [("server", "http://h:2"), ("ik", "")]


@pytest.mark.parametrize("runtimes", ["server", "ik:http://h", "ik,", "server:"])
def test_half_a_server_is_refused(runtimes: str) -> None:
    with pytest.raises(click.UsageError):
        sides(runtimes)


@pytest.mark.engine
def test_runtimes_beside_each_other_say_how_well_they_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    model = synthesize_tiny(tmp_path / "tiny.gguf", "Q8_0")
    how = How(limits=Limits(wall_s=60.0))
    sides = [GenerateJob(repetitions=1, cold_loads=0, patience_s=0.1)] * 2
    cells = cells_of([str(model)], "", Scenario(context_tokens=512, prompt_tokens=4, new_tokens=2, thread_count=1))
    ((first, second),) = run_in_turns([[(cell, side) for side in sides] for cell in cells], how=how)
    assert isinstance(first.result, Generation)
    assert len(first.result.token_nll) == 4 * 255  # the second half of each chunk, but for its first token
    (perplexity,) = metric_values(first, "perplexity")
    # As llama-perplexity takes it: the mean over the scored tokens, here from the engine's logits one chunk at a time.
    with LLAMACPP.open(model, Scenario(context_tokens=512, thread_count=1)) as session:
        text = (files("harness") / "data" / "text" / "python-reference.txt").read_text(encoding="utf-8")
        losses = []
        for start in range(0, 4 * 512, 512):
            chunk = [session.begin_token, *session.tokenize(text)[start + 1 : start + 512]]
            session.clear()
            session.decode(chunk, position=0, logits="all")
            rows = session.all_logits().astype(np.float64)
            for i in range(256, 511):
                losses.append(np.log(np.exp(rows[i]).sum()) - rows[i][chunk[i + 1]])
    assert perplexity == pytest.approx(float(np.exp(np.mean(losses))), rel=1e-3)
    assert "ratio 1.0000" in answer_beside(first, second)
    assert not answer_beside(first, second).startswith(("worse", "faster"))


def run_with(nll: tuple[float, ...], tokens_per_s: float, runtime: str) -> Record:
    taken = [
        Sample(phase="decode", label="tg10", token_count=10, duration_s=10 / tokens_per_s * (1 + i / 1000),
               started_unix_s=1.0 + i)
        for i in range(5)
    ]  # fmt: skip
    return new_record(
        scenario=Scenario(), workload="generate", outcome="ok", machine=fingerprint(), samples=tuple(taken),
        runtime=runtime, result=Generation(repetitions=5, token_nll=nll),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("other", "speed", "word"),
    [
        ((2.1, 3.12, 1.09, 2.11), 20.0, "faster, but worse: perplexity "),
        ((2.1, 3.12, 1.09, 2.11), 5.0, "worse: perplexity "),
        ((2.1, 2.9, 1.1, 1.9), 20.0, "perplexity "),
        ((2.0005, 3.0005, 1.0005, 2.0005), 20.0, "perplexity "),  # a difference, but one that kernels make
        ((), 20.0, "perplexity: not given by ik"),
        ((2.0, 3.0), 20.0, "perplexity: ik cuts the text into other tokens than llamacpp"),
    ],
)
def test_faster_but_worse_is_said(other: tuple[float, ...], speed: float, word: str) -> None:
    before, after = run_with((2.0, 3.0, 1.0, 2.0), 10.0, "llamacpp"), run_with(other, speed, "ik")
    said = answer_beside(before, after)
    assert said.startswith(word)
    if len(other) == 4:
        ratio = float(np.exp(np.mean(np.subtract(other, (2.0, 3.0, 1.0, 2.0)))))
        assert f"{np.exp(np.mean(other)):.3f} by ik, 7.389 by llamacpp on the same 4 tokens: ratio {ratio:.4f}" in said
