"""What ``fit`` says beyond one verdict: whether speculation pays on this device, and how streaming would split."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from harness.app.fit import in_memory, predict, within_budget
from harness.app.resolve import ResolvedModel, resolve_device, resolve_model
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.prediction import Prediction
from harness.domain.scenario import Scenario
from harness.errors import InputError, RefusedError
from harness.predict.fitted import machine_of
from harness.predict.passes import Pass
from harness.predict.speculative import HEADS, VERIFIED_S, BestLength, best_gamma, draft_s, expected_tokens_per_cycle
from harness.predict.speed import pass_seconds, predict_speed
from harness.predict.streamed import StreamingOutlook, plan_under_budget
from harness.predict.weights import matrix_types

ACCEPTANCES: Final = (0.4, 0.6, 0.8, 0.9)
"""Per-token acceptance rates asked about: prose with a small draft lies near the first two, code near the others."""

_MAX_GAMMA: Final = 8
_PASS_TOKENS: Final = 32
"""Most tokens of a pass while weights are streamed."""


class SpeculationCase(BestLength):
    """Advice for one acceptance rate."""

    acceptance_ratio: float


class SpeculationPlan(Frozen):
    """Whether drafting pays, by a draft model, a head on the target or ``prompt lookup`` (whose drafts cost nothing).

    Costs are the time of a drafted token over that of a decoded one, and of a pass over 2, 3, ... tokens over that of
    one; ``measured`` says whether the latter come from this machine's own calibration.
    """

    drafter: str
    draft_cost_ratio: float
    verify_cost_ratio: tuple[float, ...]
    measured: bool
    cases: tuple[SpeculationCase, ...]


def predicted(device: str, model: str) -> Prediction:
    """What a device does with a model in the usual scenario; its name may hold a quantisation, as everywhere."""
    return predict(resolve_model(model), resolve_device(device), Scenario())


def plan_speculation(
    model: ResolvedModel,
    device: DeviceProfile,
    scenario: Scenario,
    draft: ResolvedModel | str | None = None,
) -> SpeculationPlan:
    """Best draft length for each acceptance rate, or "do not".

    ``draft`` is a model, one of ``HEADS`` (a head of a few layers on the target: ``mtp``, ``eagle``; ``dflash`` drafts
    all tokens in one pass), or None for prompt lookup. The scenario's depth counts; its ``draft_tokens`` fix the length
    where they are given.
    """
    verify, measured = _verify_cost(model.weights, device, scenario)
    cost, ratio, drafter = verify, 0.0, "prompt lookup"
    acceptances = list(ACCEPTANCES)
    target = predict_speed(model.weights, device, scenario)
    if isinstance(draft, str):
        machine = machine_of(device, scenario)
        drafting = draft_s(draft, machine, 0.0, target.active_bytes) * target.decode_tokens_per_s.mid
        drafter = f"{draft} (published runs accept {HEADS[draft]:.2f})"
        acceptances = sorted({*acceptances, HEADS[draft]})
        if draft == "dflash":
            drafter += f", {drafting:.2f} of a decoded token for a whole draft"
            cost = lambda k: verify(k) + drafting  # noqa: E731 - one draft, whatever its length
        else:
            ratio = drafting
    elif draft is not None:
        drafter = f"{draft.name} {draft.quant}"
        own = predict_speed(draft.weights, device, scenario)
        ratio = target.decode_tokens_per_s.mid / own.decode_tokens_per_s.mid
    fixed = scenario.draft_tokens
    best = {alpha: best_gamma(alpha, ratio, cost, fixed or _MAX_GAMMA, fixed or 1) for alpha in acceptances}
    return SpeculationPlan(
        drafter=drafter,
        draft_cost_ratio=ratio,
        verify_cost_ratio=tuple(verify(k) for k in range(2, _MAX_GAMMA + 2)),
        measured=measured,
        cases=tuple(SpeculationCase(acceptance_ratio=a, gamma=b.gamma, speedup=b.speedup) for a, b in best.items()),
    )


class RemoteCase(SpeculationCase):
    """The same with the verifier elsewhere, at the round trip that was asked about.

    ``break_even_s`` is the longest one at which it is as fast as decoding here; 0 where it never is.
    """

    tokens_per_s: float
    break_even_s: float


class RemotePlan(Frozen):
    """A draft on this device, verified by the model on another over a network.

    Beside it the model on this device alone (0 where it does not fit), and on the other, which sends every token.
    """

    verifier: str
    round_trip_s: float
    here_tokens_per_s: float
    there_tokens_per_s: float
    cases: tuple[RemoteCase, ...]


def plan_remote(
    now: Prediction,
    model: ResolvedModel,
    draft: ResolvedModel,
    device: DeviceProfile,
    verifier: DeviceProfile,
    scenario: Scenario,
    round_trip_s: float,
) -> RemotePlan:
    """Draft here, verify there: the length of draft that is fastest at each acceptance rate.

        v = E(a, g) / (g t_d + r + t_v(g + 1))          [tokens/s]

    E: tokens of a cycle (Leviathan et al. 2023, equation 1); g: tokens drafted; t_d: time of one here; r: round trip;
    t_v: one pass over g + 1 tokens there, the prefix kept. A few bytes a token go over the line, which r holds.

    Raises:
        RefusedError: The model does not fit on the verifier.
    """
    there = predict(model, verifier, replace(scenario, api=""))
    if there.verdict.word != "fits":
        raise RefusedError(f"{model.name} {model.quant} does not fit on {verifier.title}: it cannot verify there")
    cost = _verify_cost(model.weights, verifier, replace(scenario, api=""))[0]
    draft_s = 1 / predict_speed(draft.weights, device, scenario).decode_tokens_per_s.mid
    there_rate = there.speed.decode_tokens_per_s.mid
    here_rate = now.speed.decode_tokens_per_s.mid if now.verdict.word in {"fits", "too slow"} else 0.0
    cases = []
    for alpha in ACCEPTANCES:
        computing = {g: g * draft_s + cost(g + 1) / there_rate for g in range(1, _PASS_TOKENS)}
        rates = {g: expected_tokens_per_cycle(alpha, g) / (s + round_trip_s) for g, s in computing.items()}
        gamma = max(rates, key=lambda g: rates[g])
        slack = [expected_tokens_per_cycle(alpha, g) / here_rate - s for g, s in computing.items()] if here_rate else []
        cases.append(
            RemoteCase(
                acceptance_ratio=alpha,
                gamma=gamma,
                speedup=rates[gamma] / here_rate if here_rate else 0.0,
                tokens_per_s=rates[gamma],
                break_even_s=max(0.0, *slack) if slack else 0.0,
            )
        )
    return RemotePlan(
        verifier=verifier.title,
        round_trip_s=round_trip_s,
        here_tokens_per_s=here_rate,
        there_tokens_per_s=there_rate,
        cases=tuple(cases),
    )


def stream_outlook(
    path: Path, budget_bytes: int, scenario: Scenario, *, say: Callable[[str], None]
) -> StreamingOutlook | None:
    """What streaming a file under a budget will do on this machine, said before it runs.

    From the machine's storage and memory and the engine's costs on tiny models; None where the file cannot be
    predicted. Weights are not repacked while they are streamed. ``say`` is told what is timed first, where that was not
    kept.
    """
    from harness.app.this_machine import probed  # engines and sensors, which no other plan asks

    try:
        plain = replace(scenario, repack=False, ubatch_tokens=_PASS_TOKENS)
        model = resolve_model(str(path))
        device = probed(matrix_types(model.weights), plain, say=say)
        now = in_memory(model, within_budget(device, budget_bytes), plain)
        return plan_under_budget(model.weights, device, now, limited=True)
    except InputError:
        return None


def _verify_cost(weights: Weights, device: DeviceProfile, scenario: Scenario) -> tuple[Callable[[int], float], bool]:
    """Cost of a pass over k tokens relative to one, and whether it was measured on this machine."""

    def seconds(tokens: int) -> float:
        return pass_seconds(weights, device, scenario, Pass(tokens, scenario.depth_tokens, verified=True))

    one_s = seconds(1)
    measured = device.calibration(device.api(scenario.api)) is not None
    beside_s = 0.0 if measured else VERIFIED_S
    return (lambda k: (seconds(k) + (k - 1) * beside_s) / one_s), measured
