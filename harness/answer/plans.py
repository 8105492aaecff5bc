"""What ``fit`` says beyond one verdict: whether speculation pays on this device."""

from collections.abc import Callable
from functools import cache
from typing import Final

from harness.answer.case import Case
from harness.answer.resolve import Model
from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.model import Weights
from harness.core.scenario import Scenario
from harness.speed.draft_cycle import HEADS, VERIFIED_S, BestLength, best_gamma, draft_s
from harness.speed.estimate import pass_seconds, predict_speed
from harness.speed.fitted import machine_of
from harness.speed.passes import Pass

ACCEPTANCES: Final = (0.4, 0.6, 0.8, 0.9)
"""Per-token acceptance rates asked about: prose with a small draft lies near the first two, code near the
others."""

_MAX_GAMMA: Final = 8


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


def plan_speculation(case: Case, draft: Model | str) -> SpeculationPlan:
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


def _verify_cost(weights: Weights, device: Device, scenario: Scenario) -> tuple[Callable[[int], float], bool]:
    """Cost of a pass over k tokens relative to one, and whether it was measured on that device."""

    @cache  # each acceptance rate asks for the same lengths
    def seconds(tokens: int) -> float:
        return pass_seconds(weights, device, scenario, Pass(tokens, scenario.depth_tokens, verified=True))

    measured = device.calibration(device.api(scenario.api)) is not None
    beside_s = 0.0 if measured else VERIFIED_S
    return (lambda k: (seconds(k) + (k - 1) * beside_s) / seconds(1)), measured
