"""Run a model as if on a device: held to the memory an app may use there, on no more cores than it has.

What is emulated: the memory limit (a control group where one can be made) and the number of threads. What is not: the
device's bandwidth, instruction sets, clock, storage, GPU and NPU, heat, and what its system does under pressure (a
phone kills, a laptop swaps).
"""

from pathlib import Path
from typing import Final

from harness.app.run import hashed
from harness.catalog.gguf import read_gguf
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.record import MemoryUse, Outcome, RunRecord
from harness.domain.result import Boundary
from harness.domain.scenario import Scenario
from harness.measure.child import Limits
from harness.measure.jobs.hold import UBATCH_TOKENS, HoldJob
from harness.measure.pipeline import How, Listener, Pipeline
from harness.measure.runner import identify, new_record
from harness.predict.memory import predict_memory
from harness.runtimes._threads import default_thread_count

ENTRY: Final = "harness.measure.jobs.hold:run"
NOT_EMULATED: Final = (
    "memory bandwidth",
    "instruction sets and clock",
    "storage",
    "GPU and NPU",
    "heat",
    "the system's own behaviour under memory pressure",
)
_STEP_TOKENS: Final = 256
"""llama.cpp rounds a context up to a multiple of this."""
_MOST_TOKENS: Final = 1 << 21


class Emulation(Frozen, frozen=True, kw_only=True):
    """What of a device is imposed on a run here.

    Attributes:
        thread_count: Its cores, at most those of this machine.
        core_count: Cores of its CPU; 0 where unknown.
        not_emulated: What a result must not be read for.
    """

    device: str
    memory_limit_bytes: int
    thread_count: int
    core_count: int
    not_emulated: tuple[str, ...] = NOT_EMULATED


def emulation_of(device: DeviceProfile, *, entitled: bool = False) -> Emulation:
    """What of ``device`` can be imposed here."""
    ram = device.pool("ram")
    usable = ram.entitled_bytes if entitled and ram.entitled_bytes else ram.usable_bytes
    cores = next((e.core_count for e in device.engines if e.kind == "cpu"), 0)
    here = default_thread_count()
    return Emulation(
        device=device.name,
        memory_limit_bytes=int(usable.value),
        thread_count=min(cores, here) if cores else here,
        core_count=cores,
    )


def find_boundary(
    path: Path,
    emulation: Emulation,
    *,
    tolerance_ratio: float = 0.01,
    wall_s: float = 300.0,
    how: How = How(),  # noqa: B008  an immutable tuple
    listener: Listener | None = None,
) -> RunRecord:
    """Bisect on the context length with real runs; the weights are read into memory, so that none can be dropped.

    Returns:
        The record, its result a :class:`~harness.domain.result.Boundary`. It is ``out of memory`` when the model does
        not run within the limit at all, and has the outcome of a run that failed for another reason than memory.

    Raises:
        BadDataError: The file is no GGUF file.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    weights = read_gguf(path).weights()
    predicted = predicted_context(weights, emulation)
    with Pipeline(how, listener) as pipeline:
        trials = Trials(path, emulation, wall_s, pipeline)
        low, high = trials.bisect(max(predicted, _STEP_TOKENS), tolerance_ratio)
        result = Boundary(
            device=emulation.device,
            memory_limit_bytes=emulation.memory_limit_bytes,
            predicted_tokens=predicted,
            found_tokens=low,
            failed_tokens=high,
            predicted_bytes=predicted_bytes(weights, low, emulation),
            found_peak_bytes=trials.peaks.get(low, 0),
            enforced=trials.enforced,
            tried=tuple(trials.tried),
            not_emulated=emulation.not_emulated,
        )
        record = new_record(
            scenario=_scenario(low or _STEP_TOKENS, emulation),
            workload="boundary",
            outcome=trials.outcome,
            detail=trials.detail,
            machine=pipeline.machine,
            model=identify(path, weights, sha256=hashed(path)),
            memory=trials.memory,
            runtime="llamacpp",
            result=result,
        )
        return pipeline.keep(record)


class Trials:
    """Runs of one model with contexts of different lengths under one limit.

    Attributes:
        peaks: Memory charged by context, of the runs that went well.
        enforced: Whether a control group held every run to the limit.
    """

    def __init__(self, path: Path, emulation: Emulation, wall_s: float, pipeline: Pipeline) -> None:
        self._path, self._emulation, self._wall_s, self._pipeline = path, emulation, wall_s, pipeline
        self.peaks: dict[int, int] = {}
        self.tried: list[tuple[int, str]] = []
        self.enforced = True
        self.outcome: Outcome = "ok"
        self.detail = ""
        self.memory: MemoryUse | None = None

    def bisect(self, trial: int, tolerance_ratio: float) -> tuple[int, int]:
        """Longest context that ran and shortest that did not, 0 for none; the prediction is believed first."""
        low, high = 0, 0
        while not (low and high) or high - low > max(_STEP_TOKENS, int(tolerance_ratio * high)):
            count = len(self.tried) + 1
            if self._runs(trial):
                low = trial
                if low >= _MOST_TOKENS:
                    break
            elif self.outcome != "ok":
                break
            else:
                high = trial
                if high <= _STEP_TOKENS:
                    self.outcome = "out of memory"
                    self.detail = f"it does not run within {self._emulation.memory_limit_bytes} bytes at all"
                    break
            # The prediction's neighbourhood is tried before the whole range.
            if not low:
                trial = _rounded(high * 0.95 if count < 3 else high / 2)
            elif not high:
                trial = _rounded(low * 1.05 if count < 3 else low * 2)
            else:
                trial = _rounded((low + high) / 2)
            if trial in {low, high}:
                break
        return low, high

    def _runs(self, tokens: int) -> bool:
        job = HoldJob(model=str(self._path.absolute()), scenario=_scenario(tokens, self._emulation))
        limits = Limits(wall_s=self._wall_s, memory_bytes=self._emulation.memory_limit_bytes)
        ended = self._pipeline.trial(ENTRY, job, limits=limits)
        self.enforced &= ended.memory.cgroup_peak_bytes is not None
        self.tried.append((tokens, ended.outcome))
        self._pipeline.heard.say(f"context {tokens}: {ended.outcome}")
        if ended.outcome == "ok":
            self.peaks[tokens] = ended.memory.cgroup_peak_bytes or ended.memory.peak_anonymous_bytes
            self.memory = ended.memory
            return True
        if not (ended.outcome == "out of memory" or "made no context" in ended.detail):
            self.outcome, self.detail = ended.outcome, ended.detail
        return False


def _scenario(tokens: int, emulation: Emulation) -> Scenario:
    return Scenario(
        context_tokens=tokens,
        ubatch_tokens=UBATCH_TOKENS,
        thread_count=emulation.thread_count,
        mmap=False,
        repack=False,
        api="cpu",
    )


def predicted_bytes(weights: Weights, tokens: int, emulation: Emulation) -> int:
    """Anonymous memory predicted for that context."""
    return predict_memory(weights, _scenario(tokens, emulation), api="cpu").anonymous_bytes


def predicted_context(weights: Weights, emulation: Emulation) -> int:
    """Longest context (a multiple of 256 tokens) whose predicted memory is within the limit; 0 for none."""
    low, high = 0, _MOST_TOKENS // _STEP_TOKENS
    while low < high:
        middle = (low + high + 1) // 2
        if predicted_bytes(weights, middle * _STEP_TOKENS, emulation) <= emulation.memory_limit_bytes:
            low = middle
        else:
            high = middle - 1
    return low * _STEP_TOKENS


def _rounded(tokens: float) -> int:
    return max(_STEP_TOKENS, int(tokens) // _STEP_TOKENS * _STEP_TOKENS)
