"""``stream`` over a mixture of experts in its child process, under a limit that does not hold all of its experts."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.made_models import synthesize
from harness.cli import cli
from harness.core.model import Experts, ModelShape
from harness.core.record import MemoryUse
from harness.core.result import Stream
from harness.core.scenario import Scenario
from harness.measure.jobs.stream import StreamJob
from harness.measure.pipeline import open_history
from harness.models.weights import weights_of
from harness.verbs.speculate import stream as run_stream

pytest.importorskip("llama_cpp")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.platform != "linux", reason="streaming needs mremap"),
]

PROMPTS = ("Which experts?",)
SCENARIO = Scenario(context_tokens=128, thread_count=1)


def job(model: Path, budget_bytes: int, **fields) -> StreamJob:
    fields = {"prompts": PROMPTS, "new_tokens": 24, "scenario": SCENARIO} | fields
    return StreamJob(model=str(model), budget_bytes=budget_bytes, **fields)


def stream(model: Path, budget_bytes: int, **fields) -> Stream:
    result = run_stream(job(model, budget_bytes, **fields)).result
    assert isinstance(result, Stream)
    return result


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = ModelShape(
        architecture="olmoe", layer_count=4, hidden_dim=512, vocab_count=4096, head_count=8, kv_head_count=8,
        head_dim=64, feed_forward_dim=0, context_max_tokens=4096, qk_norm=True,
        experts=Experts(expert_count=32, used_count=4, feed_forward_dim=512),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("moe") / "mixture.gguf"
    return synthesize(weights_of(shape, "Q8_0"), path)


def test_tokens_limit_and_figures(mixture: Path) -> None:
    unlimited = 2 << 30
    expected = stream(mixture, unlimited, mode="mapped")
    whole = stream(mixture, unlimited)
    assert whole.schedule == "experts"
    assert whole.expert_plan is not None
    assert not whole.expert_plan.streams
    assert whole.bound_ratio is None  # nothing was read

    plan = whole.expert_plan
    budget = unlimited - plan.available_bytes + plan.pinned_bytes + plan.expert_bytes // 2
    record = run_stream(job(mixture, budget))
    half, memory = record.result, record.memory
    assert isinstance(half, Stream)
    assert isinstance(memory, MemoryUse)
    # Each prompt is a sample with its validity, and the run is one of the history.
    assert [(s.phase, s.label, s.token_count) for s in record.samples] == [("decode", "tg24", 23)]
    assert open_history().get(record.run_id).result == half
    assert half.outputs == whole.outputs == expected.outputs
    assert half.expert_plan is not None
    assert half.expert_plan.streams
    if memory.cgroup_peak_bytes is not None:
        assert memory.cgroup_peak_bytes <= budget
    use = half.expert_use
    assert use is not None
    assert use.single_pass_count == 23
    assert use.single_wanted_count == 23 * 4 * 4
    # a miss reads its slices once, pages that neighbours have in memory excepted
    missed = (use.single_wanted_count - use.single_hit_count) * plan.expert_bytes / (32 * 4)
    assert use.single_read_bytes == pytest.approx(missed, rel=0.03)
    assert half.bound_ratio is not None
    assert half.bound_ratio > 0


def test_one_command_compares_with_the_mapped_file(mixture: Path) -> None:
    given = ("--ram-budget", "2GiB", "--plain-mmap", "--no-predict", "--prompt-count", "1", "-n", "4", "-t", "1")
    told = CliRunner().invoke(cli, ["stream", str(mixture), *given, "--json"])
    assert told.exit_code in {0, 3}, told.output
    streamed, mapped = (record["result"] for record in json.loads(told.stdout)["items"])
    assert (streamed["mode"], mapped["mode"]) == ("streamed", "mapped")
    assert streamed["outputs"] == mapped["outputs"]
    shown = CliRunner().invoke(cli, ["stream", str(mixture), *given]).output
    assert " against " in shown
