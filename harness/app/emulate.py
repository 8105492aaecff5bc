"""Run a model as if on a device: held to the memory an app may use there, on no more cores than it has.

What is emulated: the memory limit (a control group where one can be made) and the number of threads. What is not: the
device's bandwidth, instruction sets, clock, storage, GPU and NPU, heat, and what its system does under pressure (a
phone kills, a laptop swaps).
"""

from bisect import bisect_right
from pathlib import Path
from typing import Final

from harness.catalog.gguf import read_weights
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.record import Outcome, RunRecord
from harness.domain.result import Boundary
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.measure.child import ChildResult
from harness.measure.jobs.hold import UBATCH_TOKENS, HoldJob
from harness.measure.pipeline import How, Pipeline
from harness.measure.runner import identify, new_record
from harness.predict.memory import predict_memory
from harness.predict.verdict import available_bytes_of, check_entitlement
from harness.runtimes._threads import default_thread_count
from harness.units import format_bytes

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
    """What of a device is imposed on a run here; threads are at most its cores (0 where unknown) and those of here."""

    device: str
    memory_limit_bytes: int
    thread_count: int
    core_count: int


def emulation_of(
    device: DeviceProfile, *, entitled: bool = False, memory_bytes: int | None = None, thread_count: int = 0
) -> Emulation:
    """What of ``device`` can be imposed here; with less memory, or other threads, where they are given.

    Raises:
        RefusedError: More memory than the device gives, or ``entitled`` where it has one limit for all apps.
    """
    check_entitlement(entitled, device)
    usable = available_bytes_of(device.pool("ram"), entitled=entitled)
    if memory_bytes and memory_bytes > usable:
        found = f"{format_bytes(memory_bytes)}, expected at most the {format_bytes(usable)} of one app on {device.name}"
        raise RefusedError(f"--memory-limit: found {found}")
    cores = next((e.core_count for e in device.engines if e.kind == "cpu"), 0)
    here = default_thread_count()
    return Emulation(
        device=device.name,
        memory_limit_bytes=memory_bytes or usable,
        thread_count=thread_count or (min(cores, here) if cores else here),
        core_count=cores,
    )


def find_boundary(path: Path, emulation: Emulation, *, tolerance_ratio: float = 0.01, how: How = How()) -> RunRecord:
    """Bisect on the context length with real runs; the weights are read into memory, so that none can be dropped.

    The record's result is a :class:`~harness.domain.result.Boundary`. Its outcome is ``out of memory`` when the model
    does not run within the limit at all, and that of a run that failed for another reason than memory.

    Raises:
        BadDataError: The file is no GGUF file.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    weights = read_weights(path)
    predicted = predicted_context(weights, emulation)
    how = how._replace(limits=how.limits._replace(memory_bytes=emulation.memory_limit_bytes))
    tried: dict[int, ChildResult] = {}
    outcome: Outcome = "ok"
    detail = ""
    low = high = 0
    trial = max(predicted, _STEP_TOKENS)
    with Pipeline(how) as pipeline:
        while trial not in tried:
            job = HoldJob(model=str(path.absolute()), scenario=_scenario(trial, emulation))
            ended = tried[trial] = pipeline.trial("harness.measure.jobs.hold:run", job)
            pipeline.heard.say(f"context {trial}: {ended.outcome}")
            if ended.outcome == "ok":
                low = trial
            elif ended.outcome == "out of memory" or "made no context" in ended.detail:
                high = trial
            else:
                outcome, detail = ended.outcome, ended.detail
                break
            if high == _STEP_TOKENS:
                outcome = "out of memory"
                detail = f"it does not run within {emulation.memory_limit_bytes} bytes at all"
                break
            near = high - low <= max(_STEP_TOKENS, int(tolerance_ratio * high))
            if low >= _MOST_TOKENS or (low and high and near):
                break
            trial = _next_trial(low, high, len(tried))
        went_well = {tokens: ended.memory for tokens, ended in tried.items() if ended.outcome == "ok"}
        held = went_well.get(low)
        result = Boundary(
            device=emulation.device,
            memory_limit_bytes=emulation.memory_limit_bytes,
            predicted_tokens=predicted,
            found_tokens=low,
            failed_tokens=high,
            predicted_bytes=predicted_bytes(weights, low, emulation),
            found_peak_bytes=(held.cgroup_peak_bytes or held.peak_anonymous_bytes) if held else 0,
            enforced=all(ended.memory.cgroup_peak_bytes is not None for ended in tried.values()),
            tried=tuple((tokens, ended.outcome) for tokens, ended in tried.items()),
            not_emulated=NOT_EMULATED,
        )
        record = new_record(
            scenario=_scenario(low or _STEP_TOKENS, emulation),
            workload="boundary",
            outcome=outcome,
            detail=detail,
            machine=pipeline.machine,
            model=identify(path, weights),
            memory=next(reversed(went_well.values()), None),
            runtime="llamacpp",
            result=result,
        )
        return pipeline.keep(record)


def _next_trial(low: int, high: int, count: int) -> int:
    """The context to try next between the longest that ran and the shortest that did not, 0 for none.

    The prediction is believed first: its neighbourhood is tried before the whole range.
    """
    if not low:
        tokens = high * 0.95 if count < 3 else high / 2
    elif not high:
        tokens = low * 1.05 if count < 3 else low * 2
    else:
        tokens = (low + high) / 2
    return max(_STEP_TOKENS, int(tokens) // _STEP_TOKENS * _STEP_TOKENS)


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
    contexts = range(_STEP_TOKENS, _MOST_TOKENS + 1, _STEP_TOKENS)
    limit_bytes = emulation.memory_limit_bytes
    return _STEP_TOKENS * bisect_right(contexts, limit_bytes, key=lambda n: predicted_bytes(weights, n, emulation))
