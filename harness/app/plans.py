"""What ``fit`` says beyond one verdict: whether speculation pays on this device, and how streaming would split."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import asdict, replace

from harness.app.fit import predict, within_budget
from harness.app.resolve import ResolvedModel, resolve_device, resolve_model
from harness.app.this_machine import probed
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.prediction import Prediction
from harness.domain.scenario import Scenario
from harness.errors import InputError, RefusedError
from harness.measure.machine import cpu
from harness.predict.moe import expert_bytes, hit_ratio, streamed_token_s
from harness.predict.passes import Pass
from harness.predict.repack import rewrites_all
from harness.predict.speculative import VERIFIED_S, BestLength, best_gamma, expected_tokens_per_cycle
from harness.predict.speed import pass_seconds, predict_speed
from harness.predict.splits import Choices, choose
from harness.predict.streaming import BUSY_DISK_RATIO, StreamingPlan, plan_even_split
from harness.predict.weights import has_output, matrix_types, role_of
from harness.units import format_number

ACCEPTANCES: Final = (0.4, 0.6, 0.8, 0.9)
"""Per-token acceptance rates asked about: prose with a small draft lies near the first two, code near the others."""

_MAX_GAMMA: Final = 8
_PASS_TOKENS: Final = 32
"""Most tokens of a pass while weights are streamed."""


class SpeculationCase(BestLength, frozen=True, kw_only=True):
    """Advice for one acceptance rate."""

    acceptance_ratio: float


class SpeculationPlan(Frozen, frozen=True, kw_only=True):
    """Whether drafting pays, by a draft model or by ``prompt lookup`` (whose drafts cost nothing).

    Costs are the time of a drafted token over that of a decoded one, and of a pass over 2, 3, ... tokens over that of
    one; ``measured`` says whether the latter come from this machine's own calibration.
    """

    drafter: str
    draft_cost_ratio: float
    verify_cost_ratio: tuple[float, ...]
    measured: bool
    cases: tuple[SpeculationCase, ...]


class StreamingOutlook(StreamingPlan, frozen=True, kw_only=True):
    """How a model larger than the memory there is would run: the split, and what other ways would give.

    Attributes:
        naive_tokens_per_s: The same file mapped, and left to the system.
        speculative_tokens_per_s: Streaming with drafts of the best length at an acceptance of 0.8; 0 without a draft.
        expert_cache_tokens_per_s: Keeping the most wanted experts instead of layers; None for a dense model.
        expert_hit_ratio: Share of wanted experts that such a cache holds.
    """

    budget_bytes: int
    naive_tokens_per_s: float
    speculative_tokens_per_s: float = 0.0
    expert_cache_tokens_per_s: float | None = None
    expert_hit_ratio: float | None = None


def predicted(device: str, model: str) -> Prediction:
    """What a device does with a ``model[:quant]`` in the usual scenario."""
    name, _, quant = model.partition(":")
    return predict(resolve_model(name, quant or None), resolve_device(device), Scenario())


def plan_speculation(
    model: ResolvedModel,
    device: DeviceProfile,
    scenario: Scenario,
    draft: ResolvedModel | None = None,
    *,
    draft_device: DeviceProfile | None = None,
) -> SpeculationPlan:
    """Best draft length for each acceptance rate, or "do not"; without a draft model, prompt lookup is judged.

    ``draft_device`` is the same device with the costs of a draft that is repacked beside a target that is not.
    """
    cost, measured = _verify_cost(model.weights, device, scenario)
    ratio = 0.0
    if draft is not None:
        target_rate = predict_speed(model.weights, device, scenario).decode_tokens_per_s.mid
        ratio = target_rate / predict_speed(draft.weights, draft_device or device, scenario).decode_tokens_per_s.mid
    best = {alpha: best_gamma(alpha, ratio, cost, _MAX_GAMMA) for alpha in ACCEPTANCES}
    return SpeculationPlan(
        drafter=f"{draft.name} {draft.quant}" if draft else "prompt lookup",
        draft_cost_ratio=ratio,
        verify_cost_ratio=tuple(cost(k) for k in range(2, _MAX_GAMMA + 2)),
        measured=measured,
        cases=tuple(SpeculationCase(acceptance_ratio=a, gamma=b.gamma, speedup=b.speedup) for a, b in best.items()),
    )


class RemoteCase(SpeculationCase, frozen=True, kw_only=True):
    """The same with the verifier elsewhere, at the round trip that was asked about.

    ``break_even_s`` is the longest one at which it is as fast as decoding here; 0 where it never is.
    """

    tokens_per_s: float
    break_even_s: float


class RemotePlan(Frozen, frozen=True, kw_only=True):
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


def plan_under_budget(
    model: ResolvedModel,
    device: DeviceProfile,
    now: Prediction,
    speculation: SpeculationPlan | None = None,
    *,
    evictable_bytes: int = 0,
    limited: bool = False,
) -> StreamingOutlook:
    """Split into pinned and streamed layers in the memory that the verdict of ``now`` (a draft included) counted with.

    ``evictable_bytes`` need not stay, of what the prediction counts beside the model. ``limited``: a control group
    keeps the process to the budget.
    """
    budget = now.verdict.available_bytes
    layers = layer_bytes(model.weights)
    total = sum(layers)
    # What is needed beside the layers: cache, scratch, output matrix, runtime, draft. A repacked copy is not made
    # while streaming, and the verdict's need counts each layer once.
    repacked = sum(p.anonymous_bytes for p in now.memory.parts if p.name == "repacked weights")
    # Of a token table that is no output matrix, a pass looks up a few rows; its pages can go.
    held = max(0, now.verdict.needed_bytes - total - repacked - _looked_up_bytes(model.weights) - evictable_bytes)
    busy, mapped = device.storage.busy_read_bytes_per_s, device.storage.mapped_read_bytes_per_s
    disk = busy.value if busy else BUSY_DISK_RATIO * device.storage.sequential_read_bytes_per_s.value
    compute_s = 1.0 / now.speed.decode_tokens_per_s.mid
    asked = layers, held, budget, disk, compute_s
    plan = plan_even_split(*asked, mapped_bytes_per_s=mapped.value if mapped else None, limited=limited)
    with_drafts = 0.0
    if speculation is not None and plan.bound != "memory":
        with_drafts = max(
            plan_even_split(
                *asked,
                expected_tokens_per_pass=expected_tokens_per_cycle(0.8, gamma),
                batch_cost_ratio=speculation.verify_cost_ratio[gamma - 1] + gamma * speculation.draft_cost_ratio,
            ).tokens_per_s
            for gamma in range(1, _MAX_GAMMA + 1)
        )
    cached_rate, hit = _expert_cache(model.weights, held, budget, disk, compute_s)
    return StreamingOutlook(
        **asdict(plan),
        budget_bytes=budget,
        naive_tokens_per_s=1.0 / plan.naive_seconds_per_pass,
        speculative_tokens_per_s=with_drafts,
        expert_cache_tokens_per_s=cached_rate,
        expert_hit_ratio=hit,
    )


def stream_outlook(
    path: Path, budget_bytes: int, scenario: Scenario, draft: Path | None = None, *, say: Callable[[str], None]
) -> StreamingOutlook | None:
    """What streaming a file under a budget will do on this machine, said before it runs.

    From the machine's storage and memory and the engine's costs on tiny models; None where the file cannot be
    predicted. Weights are not repacked while they are streamed; a draft, held beside them, is. ``say`` is told what is
    timed first, where that was not kept.
    """
    try:
        plain = replace(scenario, repack=False, ubatch_tokens=_PASS_TOKENS)
        model = resolve_model(str(path))
        device = probed(matrix_types(model.weights), plain, say=say)
        small = resolve_model(str(draft)) if draft else None
        now = predict(model, within_budget(device, budget_bytes), plain, draft=small)
        plan, evictable = None, 0
        if small is not None:
            beside = probed(matrix_types(small.weights), replace(scenario, repack=True), say=say)
            plan = plan_speculation(model, device, plain, small, draft_device=beside)
            # A draft that is rewritten stays mapped, and of its token table a few rows are looked up.
            evictable = _looked_up_bytes(small.weights) if rewrites_all(small.weights, cpu().isa) else 0
        return plan_under_budget(model, device, now, plan, evictable_bytes=evictable, limited=True)
    except InputError:
        return None


def layer_bytes(weights: Weights) -> list[int]:
    """Bytes of each transformer block's weights, by its number."""
    sizes: dict[int, int] = {}
    for tensor in weights.tensors:
        if match := re.match(r"blk\.(\d+)\.", tensor.name):
            sizes[int(match[1])] = sizes.get(int(match[1]), 0) + tensor.size_bytes
    return [sizes[index] for index in sorted(sizes)]


def _looked_up_bytes(weights: Weights) -> int:
    """Bytes of a token table that is only looked up; 0 where it is the output matrix too."""
    if not has_output(weights):
        return 0
    return sum(t.size_bytes for t in weights.tensors if t.name == "token_embd.weight")


def _verify_cost(weights: Weights, device: DeviceProfile, scenario: Scenario) -> tuple[Callable[[int], float], bool]:
    """Cost of a pass over k tokens relative to one, and whether it was measured on this machine."""

    def seconds(tokens: int) -> float:
        return pass_seconds(weights, device, scenario, Pass(tokens, scenario.depth_tokens, verified=True))

    one_s = seconds(1)
    measured = device.calibration(device.api(scenario.api)) is not None
    beside_s = 0.0 if measured else VERIFIED_S
    return (lambda k: (seconds(k) + (k - 1) * beside_s) / one_s), measured


def _expert_cache(
    weights: Weights, held: int, budget: int, disk_bytes_per_s: float, compute_s: float
) -> tuple[float | None, float | None]:
    """Decode speed with the most wanted experts in memory and the others read when the router asks for them."""
    experts = weights.shape.experts
    if experts is None:
        return None, None
    all_experts, _ = expert_bytes(weights)
    # ``held`` leaves out every block: what of the blocks is no expert stays in memory too.
    rest = sum(t.size_bytes for t in weights.tensors if t.name.startswith("blk.") and role_of(t.name) != "expert")
    room = budget - held - rest
    if room <= 0:
        return 0.0, 0.0
    cached = min(float(experts.expert_count), experts.expert_count * room / all_experts)
    hit = hit_ratio(experts.expert_count, cached, policy="lfu", used_count=experts.used_count)
    active = all_experts * experts.used_count / experts.expert_count
    return 1.0 / streamed_token_s(active, hit, disk_bytes_per_s, compute_s), hit


def best_placement(model: ResolvedModel, device: DeviceProfile, scenario: Scenario, card_count: int = 1) -> Choices:
    """Every step of the split over so many cards, and the best of those that fit for the scenario's tokens.

    Raises:
        RefusedError: The device has no GPU, or no such api; the KV type cannot hold this model's keys.
    """
    api = device.api(scenario.api)
    engine = device.engine_for(api)
    if engine is None or engine.kind != "gpu":
        raise RefusedError(f"a placement needs a GPU beside the CPU: {device.name} drives {api} on no GPU")
    if device.engine_for("cpu") is None:
        raise RefusedError(f"{device.name} names no CPU engine: its profile needs one before a model can be split")
    try:
        return choose(model.weights, device, scenario, card_count)
    except ValueError as error:
        raise RefusedError(f"{model.name}: a KV cache of type {scenario.kv_type} is impossible: {error}") from error


def split_note(model: ResolvedModel, device: DeviceProfile, scenario: Scenario) -> tuple[str, ...]:
    """One line that tells of the best split, for a model that a card does not hold whole; none where no split helps."""
    split = device.pool_for(device.api(scenario.api)) == "vram" and device.engine_for("cpu") is not None
    if not split or scenario.batch_count > 1:
        return ()
    best = best_placement(model, device, scenario).best
    if best is None:
        return ()
    speed = f"{format_number(best.decode_tokens_per_s.mid)} tokens/s"
    return (f"split between the card and the CPU it runs: {best.flags}, {speed}; --placement auto shows every split",)
