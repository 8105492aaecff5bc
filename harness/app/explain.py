"""What an answer rests on: every term behind it, the measurements nearest to it, and what would disprove it."""

import math
from typing import Any, Final

from harness.app.published import shipped_rows
from harness.app.resolve import ResolvedModel
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.scenario import Scenario
from harness.predict.coefficients import Coefficients
from harness.predict.decode import Machine, Work, decode_base, decode_gradient, decode_seconds, features
from harness.predict.fitted import machine_of, work_of
from harness.predict.learned import believed
from harness.predict.prefill import Prompt, prefill_base, prefill_features, prefill_gradient, prefill_seconds, prompt_of
from harness.predict.terms import laws_of, words_of
from harness.published.rows import Row, is_trusted, predictable

_NEAREST: Final = 6
_LEAST_DOUBT: Final = 0.005
"""Share of the interval's square below which a term is not listed, if it is also near 1."""


class Law(Frozen, frozen=True, kw_only=True):
    """One physical quantity of a prediction; ``share`` of the time that it stands for, None where it scales several."""

    phase: str
    name: str
    value: float
    unit: str
    share: float | None = None


class TermBehind(Frozen, frozen=True, kw_only=True):
    """One fitted term behind a prediction: a factor on its quantity, and how far it may be off (one standard error).

    ``votes`` are published measurements that speak for it, 0 where only the prior does; ``doubt_share`` is its share
    of the square of the interval's width.
    """

    phase: str
    term: str
    key: str
    factor: float
    spread_ratio: float
    votes: int
    doubt_share: float


class Neighbour(Frozen, frozen=True, kw_only=True):
    """A published measurement near what is asked, and the law's error on it."""

    phase: str
    chip: str
    api: str
    model: str
    quant: str
    test: str
    measured_tokens_per_s: float
    predicted_tokens_per_s: float
    error_ratio: float
    source: str


class Explanation(Frozen, frozen=True, kw_only=True):
    """All of it; ``commands`` are those that would disprove the answer on the device."""

    laws: tuple[Law, ...]
    terms: tuple[TermBehind, ...]
    neighbours: tuple[Neighbour, ...]
    commands: tuple[str, ...]


def explain(model: ResolvedModel, device: DeviceProfile, scenario: Scenario) -> Explanation:
    """What the speed of a model on a device rests on.

    A device whose engine was timed on it answers from those costs alone, and shows them.
    """
    api = device.api(scenario.api)
    test = f"-p {scenario.prompt_tokens} --tokens {scenario.new_tokens}"
    run = f"edge-harness run {model.name} -q {model.quant} --api {api} {test} --out RUN"
    if (costs := device.calibration(api)) is not None:
        timed: list[tuple[str, str, float, str]] = [
            *(("decode", f"reads {c.type_name}", 1e-9 / c.batch_seconds_per_byte[0][1], "GB/s") for c in costs.types),
            ("decode", "fixed time of a token", 1e6 * costs.token_overhead_s, "us"),
            ("decode", "fixed time of a layer", 1e6 * costs.layer_overhead_s, "us"),
            ("decode", "reads the cache", costs.kv_read_bytes_per_s / 1e9, "GB/s"),
            ("prefill", "attention", costs.attention_flops_per_s / 1e9, "GFLOP/s"),
        ]
        laws = [Law(phase=p, name=n, value=v, unit=u) for p, n, v, u in timed]
        check = f"edge-harness check {model.name} -q {model.quant}"
        return Explanation(laws=tuple(laws), terms=(), neighbours=(), commands=(check,))
    belief, machine = believed(device), machine_of(device, scenario)
    work = work_of(model.weights, scenario, scenario.depth_tokens + scenario.new_tokens / 2)
    prompt = prompt_of(model.weights.shape, max(scenario.prompt_tokens, 1), scenario.depth_tokens)
    terms = (
        *_terms("decode", decode_gradient(work, machine, belief.values), belief, machine),
        *_terms("prefill", prefill_gradient(work, machine, prompt, belief.values), belief, machine),
    )
    near = (*_neighbours("decode", work, machine, belief), *_neighbours("prefill", work, machine, belief))
    learn = f"edge-harness learn RUN --device {device.name}"
    return Explanation(laws=_laws(work, machine, prompt, belief), terms=terms, neighbours=near, commands=(run, learn))


def _laws(work: Work, machine: Machine, prompt: Prompt, belief: Coefficients) -> tuple[Law, ...]:
    laws = laws_of(features(work, machine), belief.values)
    parts = decode_seconds(work, machine, belief.values)
    base, whole = decode_base(work, machine), parts.total_s
    total_s = prefill_seconds(work, machine, prompt, belief.values)
    found = laws_of(prefill_features(work, machine, prompt), belief.values)
    needs = prefill_base(work, machine, prompt)
    gb_s, gflops = machine.bandwidth_bytes_per_s / 1e9, machine.traits.matrix_flops_per_s / 1e9
    listed: list[tuple[str, str, float, str, float | None]] = [
        ("decode", "fixed time of a layer", laws["overhead"] * 1e6, "us", parts.overhead_s / whole),
        ("decode", "weights read of a token", work.weight_bytes / 1e9, "GB", parts.weights_s / whole),
        ("decode", "memory speed reached", min(laws["efficiency"], 1.0), f"of {gb_s:.4g} GB/s", None),
        ("decode", "operations to unpack a weight", laws["compute"], "FLOP", parts.dequantisation_s / whole),
        ("decode", "cache read of a token", work.kv_bytes / 1e9, "GB", parts.kv_s / whole),
        ("decode", "beyond all of that", laws["scale"], "x the time", None),
        ("decode", "reading alone, at the specification", (base["bytes"] + base["kv"]) / whole, "of the time", None),
        ("prefill", "arithmetic peak reached", found["mfu"], f"of {gflops:.4g} GFLOP/s", None),
        ("prefill", "arithmetic of the weights at the peak", needs["weights"] / total_s, "of the time", None),
        ("prefill", "beyond all of that", found["scale"], "x the time", None),
    ]
    return tuple(Law(phase=p, name=n, value=v, unit=u, share=s) for p, n, v, u, s in listed)


def _terms(phase: str, slopes: dict[str, float], belief: Coefficients, machine: Machine) -> tuple[TermBehind, ...]:
    """Terms by what they add to the interval, most first; those that say and doubt nothing are left out."""
    keys = list(slopes)
    spreads = [math.sqrt(v) for v in belief.covariance_of(keys).diagonal()]
    whole = belief.spread(slopes, phase, machine) ** 2
    found = []
    for key, spread in zip(keys, spreads, strict=True):
        term = belief.terms.get(key)
        value, doubt = belief.values.get(key, 0.0), (slopes[key] * spread) ** 2 / whole
        if doubt < _LEAST_DOUBT and abs(value) < 0.02:
            continue
        found.append(
            TermBehind(
                phase=phase,
                term=words_of(key),
                key=key,
                factor=math.exp(value),
                spread_ratio=math.expm1(spread),
                votes=term.rows_count if term else 0,
                doubt_share=doubt,
            )
        )
    return tuple(sorted(found, key=lambda one: -one.doubt_share))


def _neighbours(phase: str, work: Work, machine: Machine, belief: Coefficients) -> tuple[Neighbour, ...]:
    """Trusted published measurements nearest by chip, family, api, bytes of a token, quantisation and experts."""

    def distance(row: Row) -> float:
        assert row.work is not None
        own, other = machine, row.machine
        silicon = 0.0 if own.chip == other.chip else 1.0 if own.traits.family == other.traits.family else 3.0
        kind = (work.moe != row.work.moe) + 0.5 * (work.quant_class != row.work.quant_class)
        bytes_ratio = work.weight_bytes / row.work.weight_bytes
        return silicon + 2.0 * (own.api != other.api) + kind + abs(math.log(bytes_ratio))

    rows = [row for row in predictable(shipped_rows()) if row.phase == phase and is_trusted(row)]
    nearest: dict[object, Row] = {}
    for row in sorted(rows, key=distance):
        nearest.setdefault(row.vote, row)
    found = []
    for row in list(nearest.values())[:_NEAREST]:
        said = row.token_count / math.exp(row.predicted(belief.values)[0])
        told: dict[str, Any] = {
            **row.described,
            "phase": phase,
            "source": row.source,
            "measured_tokens_per_s": row.measured,
        }
        found.append(Neighbour(**told, predicted_tokens_per_s=said, error_ratio=said / row.measured - 1))
    return tuple(found)
