"""Changes that would make a model fit, or fit better: each with its predicted gain and its cost in quality."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import ModelShape
from harness.domain.prediction import Prediction, VerdictWord
from harness.domain.scenario import Scenario
from harness.errors import HarnessError
from harness.feasibility.quality import perplexity_growth_percent
from harness.feasibility.quant_mix import BASE_TYPE

TRIED_QUANTS: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q4_0", "Q3_K_M", "IQ3_XXS", "Q2_K", "IQ2_M")
"""Mixtures worth a look: the usual one at each width."""

_RANK: Final[dict[VerdictWord, int]] = {"fits": 0, "fits with streaming": 1, "does not fit": 2}


class Variant(NamedTuple):
    """One thing to ask: a mixture, a scenario, a device."""

    quant: str
    scenario: Scenario
    device: DeviceProfile


Evaluate = Callable[[Variant], Prediction]
"""The whole model, as one call; the advice tries variants through it."""


class Advice(Frozen, frozen=True, kw_only=True):
    """One change.

    Attributes:
        kind: ``quant``, ``kv``, ``context``, ``backend``, ``repack``, ``mmap`` or ``device``.
        change: What to do, in words.
        word: Verdict after it.
        needed_bytes: Memory needed after it.
        saved_bytes: Memory saved by it.
        decode_tokens_per_s: Predicted decode speed after it.
        speed_ratio: That speed over the speed before.
        quality_percent: Growth of perplexity against the mixture asked about, in percent; None where unpublished,
            0 where the weights stay the same.
    """

    kind: str
    change: str
    word: VerdictWord
    needed_bytes: int
    saved_bytes: int
    decode_tokens_per_s: float
    speed_ratio: float
    quality_percent: float | None = 0.0


def advise(
    now: Prediction,
    shape: ModelShape,
    asked: Variant,
    evaluate: Evaluate,
    *,
    parameter_count: int,
    others: Iterable[DeviceProfile] = (),
    most: int = 8,
) -> list[Advice]:
    """Ranked changes: first those that reach a better verdict, by cost in quality; then those that only save or speed.

    Args:
        now: What was predicted for ``asked``.
        shape: Shape of the model; its longest context bounds nothing here, its window decides what context saves.
        asked: What was asked.
        evaluate: Predicts one variant.
        parameter_count: Weights of the model, to pick the nearer published perplexities.
        others: Other devices to try, nearest first.
        most: How many to return.
    """
    found = []
    for kind, change, variant in _variants(shape, asked, others):
        try:
            then = evaluate(variant)
        except (HarnessError, ValueError):  # no such tensor table, or a KV row that its blocks do not divide
            continue
        advice = _compare(now, then, kind, change, _quality(kind, asked, variant, parameter_count))
        if _worth(now, advice):
            found.append(advice)
    found.sort(key=lambda a: (_RANK[a.word], a.kind == "device", a.quality_percent or 0.0, -a.speed_ratio))
    return found[:most]


def _variants(shape: ModelShape, asked: Variant, others: Iterable[DeviceProfile]) -> Iterator[tuple[str, str, Variant]]:
    scenario = asked.scenario
    order = list(BASE_TYPE)
    for quant in TRIED_QUANTS:
        if order.index(quant) > order.index(asked.quant):
            yield "quant", f"quantise to {quant}", asked._replace(quant=quant)
    if scenario.kv_type in {"F16", "BF16", "F32"} and shape.kv_head_count:
        for kv_type in ("Q8_0", "Q4_0"):
            smaller = replace(scenario, kv_type=kv_type, flash_attention=True)
            yield "kv", f"keep the KV cache in {kv_type}", asked._replace(scenario=smaller)
    context = scenario.context_tokens // 2
    while context >= max(1024, scenario.prompt_tokens + scenario.new_tokens + scenario.depth_tokens):
        yield (
            "context",
            f"cut the context to {context}",
            asked._replace(scenario=replace(scenario, context_tokens=context)),
        )
        context //= 2
    backends = {backend for engine in asked.device.engines for backend in engine.backends[:1]} - {scenario.backend}
    for backend in sorted(backends):
        yield "backend", f"run on {backend}", asked._replace(scenario=replace(scenario, backend=backend))
    if scenario.repack and scenario.backend in {"", "cpu"}:
        plain = replace(scenario, repack=False)
        yield "repack", "load without repacking (slower prompts)", asked._replace(scenario=plain)
    for device in others:
        yield "device", f"use {device.title}", asked._replace(device=device, scenario=replace(scenario, backend=""))


def _quality(kind: str, asked: Variant, variant: Variant, parameter_count: int) -> float | None:
    """Perplexity of the new mixture over that of the old one, in percent growth."""
    if kind == "kv":
        return None
    if kind != "quant":
        return 0.0
    before = perplexity_growth_percent(asked.quant, parameter_count)
    after = perplexity_growth_percent(variant.quant, parameter_count)
    if before is None or after is None:
        return None
    return 100 * ((100 + after) / (100 + before) - 1)


def _compare(now: Prediction, then: Prediction, kind: str, change: str, quality: float | None) -> Advice:
    speed = then.speed.decode_tokens_per_s.mid
    before = now.speed.decode_tokens_per_s.mid
    return Advice(
        kind=kind,
        change=change,
        word=then.verdict.word,
        needed_bytes=then.verdict.needed_bytes,
        saved_bytes=now.verdict.needed_bytes - then.verdict.needed_bytes,
        decode_tokens_per_s=speed,
        speed_ratio=speed / before if before else 0.0,
        quality_percent=quality,
    )


def _worth(now: Prediction, advice: Advice) -> bool:
    """A better verdict; or, with the same one, clearly less memory or clearly more speed."""
    if _RANK[advice.word] != _RANK[now.verdict.word]:
        return _RANK[advice.word] < _RANK[now.verdict.word]
    if advice.kind == "device" or advice.word == "does not fit":
        return False
    return advice.saved_bytes > 0.05 * now.verdict.needed_bytes or advice.speed_ratio > 1.05
