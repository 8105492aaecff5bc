"""The commands that llama.cpp's programs get, and what is read of their output; the programs here are scripts."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.core.errors import EngineError, RefusedError
from harness.core.placement import Placement
from harness.core.record import MemoryUse
from harness.core.scenario import Scenario
from harness.measure.child import ChildResult
from harness.measure.jobs import bench_program as jobs_executable
from harness.measure.protocol import GenerateJob
from harness.measure.runner import memory_of
from harness.runtimes import executable

NEW = "-fa <on|off|auto> --load-mode --repack --no-op-offload"
OLD = "-fa <0|1> -mmp <0|1>"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def make(text: str, *names: str) -> None:
        for name in names or ("llama-bench",):
            path = tmp_path / name
            path.write_text(f"#!/bin/sh\necho '{text}'\n")
            path.chmod(0o755)
        monkeypatch.setenv(executable.FOLDER_VARIABLE, str(tmp_path))
        executable._output.cache_clear()

    yield make
    executable._output.cache_clear()


def words(scenario: Scenario) -> str:
    return " ".join(executable.command(Path("m.gguf"), scenario, 5)[1:])


def test_a_new_and_an_old_program_get_their_own_words(programs) -> None:
    s = Scenario(prompt_tokens=512, new_tokens=128, depth_tokens=64, thread_count=3, kv_type="Q8_0", mmap=False)
    programs(NEW)
    assert words(s) == (
        "-m m.gguf -t 3 -ub 512 -ctk q8_0 -ctv q8_0 -fa on -ngl 0 -nopo 1 -lm none -p 512 -n 128 -d 64 -r 5 -o jsonl"
    )
    programs(OLD)
    assert words(s) == (
        "-m m.gguf -t 3 -ub 512 -ctk q8_0 -ctv q8_0 -fa 1 -ngl 0 -nopo 1 -mmp 0 -p 512 -n 128 -d 64 -r 5 -o jsonl"
    )


def test_placement_on_a_gpu(programs) -> None:
    programs(NEW)
    split = Placement(gpu_layers=20, cpu_moe=8, tensor_split=(3.0, 1.0), kv_on_gpu=False)
    s = Scenario(api="cuda", thread_count=1, placement=split, new_tokens=1, prompt_tokens=1)
    assert "-ngl 20 --n-cpu-moe 8 -ts 3/1 -nkvo 1" in words(s)
    programs(NEW + " -dev, --device <none>")
    s = Scenario(thread_count=1, new_tokens=1, prompt_tokens=1)
    assert "-ngl 0 -dev none" in words(s)
    assert "-nopo" not in words(s)
    layers = words(replace(s, api="cuda")).split()
    assert int(layers[layers.index("-ngl") + 1]) > 500  # llama-bench cut models of more than 98 layers at 99


def test_llama_bench_makes_a_context_of_its_tokens_alone() -> None:
    s = Scenario(context_tokens=32768, prompt_tokens=512, new_tokens=128, depth_tokens=1024)
    assert executable.as_made(s).context_tokens == 1792  # 1024 + 512 and two more, in whole 256
    # Of several sequences the program says itself that it has one: no longer context would help.
    assert executable.as_made(replace(s, batch_count=4)).context_tokens == 6400  # 4 x 1536 and two more


def test_what_a_program_lacks_is_refused(programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs(OLD, "llama-bench")
    with pytest.raises(RefusedError, match="no such option"):
        words(Scenario(repack=False))
    with pytest.raises(RefusedError, match="llama-bench runs one sequence"):
        words(Scenario(batch_count=2, context_tokens=8192))
    monkeypatch.setenv(executable.FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    place = f"in {executable.FOLDER_VARIABLE}={tmp_path / 'nowhere'}: name"
    assert f"no llama-bench {place}" in (executable.RUNTIME.missing() or "")
    with pytest.raises(EngineError, match="no llama-bench in"):
        words(Scenario())


def test_rows_are_read_among_other_lines() -> None:
    assert executable.rows('main: n_kv_max = 4096\n\n{"n_prompt": 64}\n[1, 2]\n') == [{"n_prompt": 64}]


def test_a_run_without_patience_takes_each_test_once(programs, tmp_path: Path) -> None:
    from harness.measure.jobs.bench_program import run_executable

    programs('{"n_prompt": 4, "n_gen": 0, "samples_ns": [2000000], "build_commit": "c"}')
    told: list[str] = []
    scenario = Scenario(prompt_tokens=4, new_tokens=2)
    job = GenerateJob(path=str(tmp_path / "m.gguf"), scenario=scenario, repetitions=1, patience_s=0.0)
    run_executable(job, lambda event, _data: told.append(event))
    assert told.count("sample") == 1


@pytest.mark.parametrize("breaks_off", [False, True])
def test_memory_is_that_of_the_program(
    programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks_off: bool
) -> None:
    """It held 900 bytes; this process itself held 5,000, which are none of the program's."""

    class Watched:
        def __init__(self, _pid: int) -> None: ...

        def start(self) -> None: ...

        def stop(self) -> MemoryUse:
            return MemoryUse(peak_rss_bytes=900)

    programs('{"n_prompt": 4, "n_gen": 0, "samples_ns": [2000000], "build_commit": "c"}')
    if breaks_off:
        (tmp_path / "llama-bench").write_text("#!/bin/sh\n[ $# = 1 ] || exit 3\n")
    monkeypatch.setattr(jobs_executable, "MemoryWatch", Watched)
    told: list[tuple[str, object]] = []
    scenario = Scenario(prompt_tokens=4, new_tokens=2)
    job = GenerateJob(path=str(tmp_path / "m.gguf"), scenario=scenario, repetitions=1, patience_s=0.0)
    with pytest.raises(EngineError, match="status 3") if breaks_off else nullcontext():
        jobs_executable.run_executable(job, lambda event, data: told.append((event, data)))
    memory = memory_of(ChildResult("ok", "", tuple(told), MemoryUse(peak_rss_bytes=5000), 1.0))
    assert (memory and memory.peak_rss_bytes) == (None if breaks_off else 900)
