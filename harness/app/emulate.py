"""Run a model as if on a device: held to the memory an app may use there, on no more cores than it has.

What is emulated: the memory limit (a control group where one can be made) and the number of threads. What is not: the
device's bandwidth, instruction sets, clock, storage, GPU and NPU, heat, and what its system does under pressure (a
phone kills, a laptop swaps).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from harness.catalog.gguf import read_gguf
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError
from harness.measure.child import Limits, run_child
from harness.predict.memory import predict_memory
from harness.runtimes._threads import default_thread_count

TARGET: Final = "harness.app.emulate:hold"
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
_UBATCH_TOKENS: Final = 64
_MOST_TOKENS: Final = 1 << 21


class Emulation(Frozen, frozen=True, kw_only=True):
    """What of a device is imposed on a run here.

    Attributes:
        device: The device.
        memory_limit_bytes: What an app may use on it.
        thread_count: Its cores, at most those of this machine.
        core_count: Cores of its CPU; 0 where unknown.
        not_emulated: What a result must not be read for.
    """

    device: str
    memory_limit_bytes: int
    thread_count: int
    core_count: int
    not_emulated: tuple[str, ...] = NOT_EMULATED


class Boundary(Frozen, frozen=True, kw_only=True):
    """Longest context that a model can be run with under a limit.

    Attributes:
        emulation: The limit.
        model: Model file.
        predicted_tokens: Longest context whose predicted memory is within the limit.
        found_tokens: Longest context that ran.
        failed_tokens: Shortest context that did not; 0 when all that were tried ran.
        predicted_bytes: Memory predicted at the found context.
        found_peak_bytes: Memory charged at the found context.
        enforced: Whether a control group held the runs to the limit.
        run_count: Runs made.
    """

    emulation: Emulation
    model: str
    predicted_tokens: int
    found_tokens: int
    failed_tokens: int
    predicted_bytes: int
    found_peak_bytes: int
    enforced: bool
    run_count: int

    @property
    def error_ratio(self) -> float:
        """(predicted - found) / found, in memory: the contexts' bytes beside the same weights."""
        return self.predicted_bytes / self.found_peak_bytes - 1.0 if self.found_peak_bytes else float("nan")


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


def hold(arguments: dict[str, Any], emit: Callable[..., None]) -> None:
    """Child's entry: open a model with a context, use it once, and end."""
    import msgspec

    from harness.runtimes.llamacpp.session import LlamaSession

    scenario = msgspec.convert(arguments["scenario"], Scenario)
    with LlamaSession(Path(arguments["model"]), scenario, batch_tokens=_UBATCH_TOKENS, output_tokens=1) as session:
        session.decode([0] * min(_UBATCH_TOKENS, scenario.context_tokens - 1), position=0)
        session.decode([0], position=_UBATCH_TOKENS)
        emit("held", scenario.context_tokens)


def find_boundary(
    path: Path, emulation: Emulation, *, tolerance_ratio: float = 0.01, say: Callable[[str], None] = lambda _: None
) -> Boundary:
    """Bisect on the context length with real runs; the weights are read into memory, so that none can be dropped.

    Args:
        path: GGUF file.
        emulation: The limit.
        tolerance_ratio: Ends when the contexts that ran and that did not are that close.
        say: Told of each run.

    Raises:
        BadDataError: The file is no GGUF file.
        RefusedError: The model does not fit with any context, or no control group can be made.
        EngineError: A run failed for another reason than memory.
    """
    weights = read_gguf(path).weights()
    predicted = predicted_context(weights, emulation)
    peaks: dict[int, int] = {}
    enforced = True

    def runs(tokens: int) -> bool:
        nonlocal enforced
        result = run_child(
            TARGET,
            {"model": str(path.absolute()), "scenario": _scenario(tokens, emulation)},
            limits=Limits(wall_s=300.0, memory_bytes=emulation.memory_limit_bytes),
        )
        enforced &= result.memory.cgroup_peak_bytes is not None
        say(f"context {tokens}: {result.outcome}")
        if result.outcome == "ok":
            peaks[tokens] = result.memory.cgroup_peak_bytes or result.memory.peak_anonymous_bytes
            return True
        if result.outcome == "out of memory" or "made no context" in result.detail:
            return False
        raise EngineError(f"{result.outcome}: {result.detail}")

    low, high, count = 0, 0, 0
    trial = max(predicted, _STEP_TOKENS)
    while not (low and high) or high - low > max(_STEP_TOKENS, int(tolerance_ratio * high)):
        count += 1
        if runs(trial):
            low = trial
            if low >= _MOST_TOKENS:
                break
        else:
            high = trial
            if high <= _STEP_TOKENS:
                raise RefusedError(f"{path.name} does not run within {emulation.memory_limit_bytes} bytes at all")
        # The prediction is believed first: its neighbourhood is tried before the whole range.
        if not low:
            trial = _rounded(high * 0.95 if count < 3 else high / 2)
        elif not high:
            trial = _rounded(low * 1.05 if count < 3 else low * 2)
        else:
            trial = _rounded((low + high) / 2)
        if trial in {low, high}:
            break
    return Boundary(
        emulation=emulation,
        model=path.name,
        predicted_tokens=predicted,
        found_tokens=low,
        failed_tokens=high,
        predicted_bytes=predicted_bytes(weights, low, emulation),
        found_peak_bytes=peaks.get(low, 0),
        enforced=enforced,
        run_count=count,
    )


def _scenario(tokens: int, emulation: Emulation) -> Scenario:
    return Scenario(
        context_tokens=tokens,
        ubatch_tokens=_UBATCH_TOKENS,
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
