"""What ``fit`` says beyond one verdict: whether speculation pays on this device, and how streaming would split."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.app.case import Case, within_budget
from harness.app.resolve import THIS_MACHINE, ResolvedModel, resolve_device, resolve_model, with_kept_costs
from harness.app.ways import in_memory
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile, measured
from harness.domain.model import Weights
from harness.domain.scenario import Scenario
from harness.errors import InputError
from harness.predict.fitted import machine_of
from harness.predict.passes import Pass
from harness.predict.speculative import HEADS, VERIFIED_S, BestLength, best_gamma, draft_s
from harness.predict.speed import closed_loop_tokens_per_s, pass_seconds, predict_speed
from harness.predict.streamed import Streamed, streamed_ways
from harness.predict.weights import matrix_types

if TYPE_CHECKING:
    from harness.measure.pipeline import Listener

ACCEPTANCES: Final = (0.4, 0.6, 0.8, 0.9)
"""Per-token acceptance rates asked about: prose with a small draft lies near the first two, code near the
others."""

_MAX_GAMMA: Final = 8
_LOOK_BYTES: Final = 512 * 2**20
_PASS_TOKENS: Final = 32
"""Most tokens of a pass while weights are streamed."""


class SpeculationCase(BestLength):
    """Advice for one acceptance rate."""

    acceptance_ratio: float


class SpeculationPlan(Frozen):
    """Whether drafting pays, by a draft model or a head on the target.

    Costs are the time of a drafted token, and of a pass over 2, 3, ... tokens, over that of a token decoded
    without drafts; ``measured`` says whether the latter come from this machine's own calibration.
    """

    drafter: str
    plain_tokens_per_s: float
    draft_cost_ratio: float
    verify_cost_ratio: tuple[float, ...]
    measured: bool
    cases: tuple[SpeculationCase, ...]


def plan_speculation(case: Case, draft: ResolvedModel | str) -> SpeculationPlan:
    """Best draft length for each acceptance rate, or "do not".

    ``draft`` is a model, or one of ``HEADS`` (a head of a few layers on the target: ``mtp``, ``eagle``;
    ``dflash`` drafts all tokens in one pass). The scenario's depth counts; its ``draft_tokens`` fix the
    length where they are given.
    """
    model, device, scenario = case.model, case.device, case.scenario
    verify, measured = _verify_cost(model.weights, device, scenario)
    cost = verify
    acceptances = list(ACCEPTANCES)
    target = predict_speed(model.weights, device, scenario)
    plain_rate = target.decode_tokens_per_s.mid
    if isinstance(draft, str):
        machine = machine_of(device, scenario)
        ratio = draft_s(draft, machine, 0.0, target.active_bytes) * plain_rate
        drafter = f"{draft} (published runs accept {HEADS[draft]:.2f})"
        acceptances = sorted({*acceptances, HEADS[draft]})
        if draft == "dflash":
            whole = ratio
            ratio = 0.0
            drafter += f", {whole:.2f} of a decoded token for a whole draft"

            def cost(k: int) -> float:  # one draft, whatever its length
                return verify(k) + whole
    else:
        drafter = " ".join(draft.shown)
        own = predict_speed(draft.weights, device, scenario)
        ratio = plain_rate / own.decode_tokens_per_s.mid
    fixed = scenario.draft_tokens
    cases = []
    for acceptance in acceptances:
        best = best_gamma(acceptance, ratio, cost, fixed or _MAX_GAMMA, fixed or 1)
        cases.append(SpeculationCase(acceptance_ratio=acceptance, gamma=best.gamma, speedup=best.speedup))
    return SpeculationPlan(
        drafter=drafter,
        plain_tokens_per_s=plain_rate,
        draft_cost_ratio=ratio,
        verify_cost_ratio=tuple(verify(k) for k in range(2, _MAX_GAMMA + 2)),
        measured=measured,
        cases=tuple(cases),
    )


def stream_outlook(path: Path, budget_bytes: int, scenario: Scenario, *, heard: "Listener") -> list[Streamed]:
    """What streaming a file under a budget will do on this machine, said before it runs.

    From the file's own storage at this moment, the machine's memory and the engine's costs on tiny models;
    Fastest first; empty where the file cannot be predicted. Weights are not repacked while they are streamed. ``heard`` is
    told what is timed first, unless it was kept.
    """
    from harness.app.this_machine import probed  # engines and sensors, which no other plan asks
    from harness.measure.disk import read_rate
    from harness.measure.lock import alone

    try:
        plain = scenario.replace(repack=False, ubatch_tokens=_PASS_TOKENS)
        model = resolve_model(str(path))
        device = probed(matrix_types(model.weights), plain, heard=heard)
        # The file may lie elsewhere than the profile looked, and a storage that others share changes by the
        # hour.
        with alone(heard.say):
            looked_bytes = min(path.stat().st_size, _LOOK_BYTES)
            rates = [read_rate(path, looked_bytes, computing=computing) for computing in (False, True)]
        if all(rates):
            waited, busy = (measured(rate or 0.0, "the model's file, four reads at a time") for rate in rates)
            storage = device.storage.replace(sequential_read_bytes_per_s=waited, busy_read_bytes_per_s=busy)
            device = device.replace(storage=storage)
        device = within_budget(device, budget_bytes)
        plain = plain.replace(api=device.api(plain.api))
        now = in_memory(Case(model, device, plain))
        return streamed_ways(model.weights, device, plain, now, limited=True)
    except InputError:
        return []


def throughput_of(model: str) -> Callable[[Scenario], float]:
    """New tokens a second of a closed loop on this machine, whose server runs the model.

    Raises:
        RefusedError: This machine was never probed.
        UnknownNameError: No such model.
    """
    from harness.runtimes._threads import default_thread_count  # it asks the system of its cores

    weights, device = resolve_model(model).weights, resolve_device(THIS_MACHINE[0])

    def told(scenario: Scenario) -> float:
        s = scenario.replace(thread_count=default_thread_count())
        return closed_loop_tokens_per_s(weights, with_kept_costs(device, s), s)

    return told


def _verify_cost(
    weights: Weights, device: DeviceProfile, scenario: Scenario
) -> tuple[Callable[[int], float], bool]:
    """Cost of a pass over k tokens relative to one, and whether it was measured on that device."""

    @cache  # each acceptance rate asks for the same lengths
    def seconds(tokens: int) -> float:
        return pass_seconds(weights, device, scenario, Pass(tokens, scenario.depth_tokens, verified=True))

    measured = device.calibration(device.api(scenario.api)) is not None
    beside_s = 0.0 if measured else VERIFIED_S
    return (lambda k: (seconds(k) + (k - 1) * beside_s) / seconds(1)), measured
