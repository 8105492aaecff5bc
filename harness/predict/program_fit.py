"""What a program that fits a model by itself makes of a card: a shorter context, then layers or experts with the CPU.

1. All on the cards at the context wanted: if the target stays free, nothing changes. 2. Else, where no
context is asked for, the line between its least context and the model's own is read at the target. 3. Else,
and still too much, experts of a mixture, then layers go to the CPU.

A context that is asked for skips 2, a number of layers stops after it.

Source: llama.cpp, common/fit.cpp (``common_params_fit_impl``); Ollama, server/routes.go.
"""

from bisect import bisect_left
from typing import Final

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.prediction import PartKind
from harness.domain.program import ollama_batch, ollama_context, program_named
from harness.domain.scenario import Scenario
from harness.predict.memory import memory_of
from harness.units import MIB, format_bytes

LEAST_CONTEXT_TOKENS: Final = 4096
_STEP_TOKENS: Final = 256
_OF_CPU: Final = {PartKind.CPU_WEIGHTS, PartKind.CPU_KV_CACHE}
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
    pool = device.pool(device.pool_for(api))
    trained = weights.shape.context_max_tokens or LEAST_CONTEXT_TOKENS
    if not context_asked:
        wanted = program.context_tokens
        if wanted < 0:
            wanted = ollama_context(pool.total_bytes.value)
        context_asked = wanted > 0
        scenario = scenario.replace(context_tokens=min(wanted or trained, trained))
    if program.ubatch_tokens < 0:
        scenario = scenario.replace(ubatch_tokens=ollama_batch(scenario.context_tokens))
    usable = pool.usable_bytes.value
    room = usable - program.fit_target_mib * MIB
    shares_ram = pool.name == "ram" and api != "cpu"

    def held(one: Scenario) -> int:
        size = 0
        for part in memory_of(weights, one, device).parts:
            # A GPU's limit does not bind what the CPU holds of the same memory.
            is_counted = part.kind in _OF_GPU or not (shares_ram or part.kind in _OF_CPU)
            size += part.size_bytes * (part.pool == pool.name and is_counted)
        return size

    def answer(one: Scenario, words: str) -> ProgramFit:
        why = f"{program.written} fits the model by itself: {words}"
        return ProgramFit(scenario=one, fits=held(one) <= usable, why=why)

    context = scenario.context_tokens
    most = held(scenario)
    if most <= room:
        return answer(scenario, f"you get all {context:,} tokens of context and all layers on the card")
    if not context_asked and trained > LEAST_CONTEXT_TOKENS:
        scenario = scenario.replace(context_tokens=LEAST_CONTEXT_TOKENS)
        least = held(scenario)
        if least <= room:
            share = (room - least) / (most - least)
            tokens = int(LEAST_CONTEXT_TOKENS + share * (context - LEAST_CONTEXT_TOKENS))
            shorter = scenario.replace(context_tokens=tokens // _STEP_TOKENS * _STEP_TOKENS)
            got = f"you get {shorter.context_tokens:,} of {trained:,} tokens of context"
            return answer(shorter, f"{got}, all layers on the card")
    engine = device.engine_for(api)
    if layers_asked or engine is None or engine.kind != "gpu":
        return answer(scenario, f"it leaves less than {format_bytes(program.fit_target_mib * MIB)} free")
    blocks = weights.shape.layer_count
    words = f"you get {scenario.context_tokens:,} tokens of context"

    def placed(moved: int, *, experts: bool) -> Scenario:
        placement = scenario.placement.replace(gpu_layers=blocks + 1 - moved)
        if experts:
            placement = scenario.placement.replace(cpu_moe=moved)
        return scenario.replace(placement=placement)

    def least_moved(*, experts: bool) -> int:
        return bisect_left(range(blocks + 1), True, key=lambda n: held(placed(n, experts=experts)) <= room)

    if weights.shape.experts is not None and held(placed(blocks, experts=True)) <= room:
        moved = least_moved(experts=True)
        words = f"{words}, experts of {moved} of {blocks} layers with the CPU"
        return answer(placed(moved, experts=True), words)
    moved = least_moved(experts=False)
    return answer(
        placed(moved, experts=False), f"{words}, {blocks + 1 - moved} of {blocks + 1} layers on the card"
    )
