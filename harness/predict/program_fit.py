"""What a program that fits a model by itself makes of a card: a shorter context, then layers or experts with the CPU.

1. All on the cards at the context wanted: if the target stays free, nothing changes. 2. Else, where no
context is asked for, the line between its least context and the model's own is read at the target. 3. Else,
and still too much, experts of a mixture, then layers go to the CPU.

A context that is asked for skips 2, a number of layers stops after it.

Source: llama.cpp, common/fit.cpp (``common_params_fit_impl``); Ollama, server/routes.go.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.placement import Placement
from harness.domain.prediction import PartKind
from harness.domain.program import ollama_batch, ollama_context, program_named
from harness.domain.scenario import Scenario
from harness.predict.memory import memory_of, total_bytes
from harness.units import MIB, format_bytes

LEAST_CONTEXT_TOKENS: Final = 4096
_STEP_TOKENS: Final = 256
_OF_GPU: Final = {PartKind.WEIGHTS, PartKind.KV_CACHE, PartKind.COMPUTE, PartKind.DRIVER}


class ProgramFit(Frozen):
    """What a user of a program gets.

    Attributes:
        scenario: With the context and the placement that the program takes.
        fits: Whether its target stays free.
        why: The same in words.
    """

    scenario: Scenario
    fits: bool
    why: str


def program_fit(
    weights: Weights,
    scenario: Scenario,
    device: DeviceProfile,
    *,
    context_asked: bool,
    layers_asked: bool = False,
) -> ProgramFit | None:
    """What the scenario's program makes of the device; None for one that takes what it is told.

    Raises:
        UnknownNameError: No such program.
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    program = program_named(scenario.program)
    if not program.fit:
        return None
    api = device.api(scenario.api)
    shape = weights.shape
    pool = device.pool(device.pool_for(api))
    trained = shape.context_max_tokens or LEAST_CONTEXT_TOKENS
    if not context_asked:
        if program.context_tokens < 0:
            wanted = ollama_context(pool.total_bytes.value)
        else:
            wanted = program.context_tokens
        context_asked = wanted > 0
        scenario = scenario.replace(context_tokens=min(wanted or trained, trained))
    if program.ubatch_tokens < 0:
        scenario = scenario.replace(ubatch_tokens=ollama_batch(scenario.context_tokens))
    room = pool.usable_bytes.value - program.fit_target_mib * MIB

    def held(one: Scenario) -> int:
        mine = [p for p in memory_of(weights, one, device).parts if p.pool == pool.name]
        if (
            pool.name == "ram" and api != "cpu"
        ):  # the GPU's limit does not bind what the CPU holds of the same memory
            mine = [part for part in mine if part.kind in _OF_GPU]
        return total_bytes(
            part for part in mine if part.kind not in {PartKind.CPU_WEIGHTS, PartKind.CPU_KV_CACHE}
        )

    def answer(one: Scenario, words: str) -> ProgramFit:
        left = pool.usable_bytes.value - held(one)
        fits = left >= 0
        return ProgramFit(scenario=one, fits=fits, why=f"{program.written} fits the model by itself: {words}")

    everything = f"you get all {scenario.context_tokens:,} tokens of context and all layers on the card"
    if (most := held(scenario)) <= room:
        return answer(scenario, everything)
    if not context_asked and trained > LEAST_CONTEXT_TOKENS:
        shortest = scenario.replace(context_tokens=LEAST_CONTEXT_TOKENS)
        least = held(shortest)
        if least <= room:
            share = (room - least) / (most - least)
            tokens = LEAST_CONTEXT_TOKENS + share * (scenario.context_tokens - LEAST_CONTEXT_TOKENS)
            shorter = scenario.replace(context_tokens=int(tokens) // _STEP_TOKENS * _STEP_TOKENS)
            got = f"you get {shorter.context_tokens:,} of {trained:,} tokens of context"
            return answer(shorter, f"{got}, all layers on the card")
        scenario = shortest
    engine = device.engine_for(api)
    if layers_asked or engine is None or engine.kind != "gpu":
        return answer(scenario, f"it leaves less than {format_bytes(program.fit_target_mib * MIB)} free")
    return answer(*_moved(weights, scenario, lambda one: held(one) <= room))


def _moved(weights: Weights, scenario: Scenario, fits: Callable[[Scenario], bool]) -> tuple[Scenario, str]:
    """With as few experts, or else layers, with the CPU as fit, and in words."""
    blocks = weights.shape.layer_count

    asked = scenario.placement

    def placed(placement: Placement) -> Scenario:
        return scenario.replace(placement=placement)

    context = f"you get {scenario.context_tokens:,} tokens of context"
    if weights.shape.experts is not None and fits(placed(asked.replace(cpu_moe=blocks))):
        moved = bisect_left(
            range(blocks + 1), True, key=lambda count: fits(placed(asked.replace(cpu_moe=count)))
        )
        return placed(
            asked.replace(cpu_moe=moved)
        ), f"{context}, experts of {moved} of {blocks} layers with the CPU"
    moved = bisect_left(
        range(blocks + 1), True, key=lambda count: fits(placed(asked.replace(gpu_layers=blocks + 1 - count)))
    )
    layers = blocks + 1 - moved
    return placed(asked.replace(gpu_layers=layers)), f"{context}, {layers} of {blocks + 1} layers on the card"
