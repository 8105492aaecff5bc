"""Changes that would make a model fit, or fit better: each with its predicted gain and its cost in quality."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import ModelShape
from harness.domain.prediction import Prediction, VerdictWord
from harness.domain.scenario import Scenario
from harness.domain.way import Way, WayKind
from harness.errors import HarnessError
from harness.predict.quality import perplexity_growth_percent
from harness.predict.quant_mix import BASE_TYPE
from harness.predict.verdict import SEVERITY
from harness.units import MIB

TRIED_QUANTS: Final = (
    "Q8_0",
    "Q6_K",
    "Q5_K_M",
    "Q4_K_M",
    "IQ4_XS",
    "Q4_0",
    "Q3_K_M",
    "IQ3_XXS",
    "Q2_K",
    "IQ2_M",
)
"""Mixtures worth a look: the usual one at each width."""

_MORE_RATIO: Final = 1.02
"""Speed over that of the step before, from which a further step gives more."""
MOST_OF_A_KIND: Final = 3
"""More of one kind would hide the other kinds."""
_NARROW: Final = ("Q8_0", "Q4_0")
_WIDE_CACHES: Final = frozenset({"F16", "BF16", "F32"})


class Variant(NamedTuple):
    """One thing to ask: a mixture, a scenario, a device."""

    quant: str
    scenario: Scenario
    device: DeviceProfile


Evaluate = Callable[[Variant], Way]
"""The best way of a variant; the advice tries variants through it."""


class Advice(Frozen):
    """One change.

    Attributes:
        kind: ``quant``, ``kv``, ``context``, ``several``, ``entitlement`` or ``beside``.
        change: What to do, in words.
        word: Verdict after it.
        way: What lies where after it.
        needed_bytes: Memory needed after it.
        saved_bytes: Memory saved by it.
        decode_tokens_per_s: Decode speed after it; bounded by storage where weights are streamed.
        speed_ratio: That speed over the speed before; 0 where it did not run before.
        quality_percent: Growth of perplexity against the mixture asked about, in percent; None where
            unpublished, 0 where the weights stay the same.
    """

    kind: str
    change: str
    word: VerdictWord
    way: WayKind
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
    most: int = 8,
    more: Iterable[tuple[str, str, Way]] = (),
) -> list[Advice]:
    """Ranked changes: first those that reach a better verdict, by cost in quality.

    Then those that only speed it.

    ``now`` was predicted for ``asked``; ``parameter_count`` picks the nearer published perplexities; ``more``
    are other changes to this device's app: (kind, what to do, what is evaluated then). A further step of one
    kind, such as a still shorter context, counts only if it gives more than the one before. At most ``most``
    are returned.
    """

    def speed_of(one: Prediction) -> float:
        return 0.0 if one.verdict.word == "does not fit" else one.speed.decode_tokens_per_s.mid

    def made(kind: str, change: str, variant: Variant, way: Way) -> Advice:
        then = way.prediction
        before = speed_of(now)
        after = speed_of(then)
        return Advice(
            kind=kind,
            change=change,
            word=then.verdict.word,
            way=way.kind,
            needed_bytes=then.verdict.needed_bytes,
            saved_bytes=now.verdict.needed_bytes - then.verdict.needed_bytes,
            decode_tokens_per_s=after,
            speed_ratio=after / before if before else 0.0,
            quality_percent=None if kind == "kv" else _quality(asked.quant, variant.quant, parameter_count),
        )

    def tried(variants: Iterable[tuple[str, str, Variant]]) -> Iterator[Advice]:
        enough: Counter[str] = Counter()
        last: dict[tuple[str, str], Advice] = {}
        for kind, change, variant in variants:
            if enough[kind] == MOST_OF_A_KIND:  # what follows costs more quality
                continue
            # no such tensor table, or a KV row that its blocks do not divide
            with suppress(HarnessError, ValueError):
                one = made(kind, change, variant, evaluate(variant))
                before = last.get((kind, variant.quant))
                more_ratio = one.decode_tokens_per_s / (before.decode_tokens_per_s or 1.0) if before else 0.0
                if before and one.word == before.word and more_ratio < _MORE_RATIO:
                    continue
                last[kind, variant.quant] = one
                enough[kind] += one.word == "fits" and _worth(now, one)
                yield one

    has_cache = shape.kv_head_count > 0
    # that a narrow cache makes a card faster, users deny of long prompts and deep contexts: it only makes
    # room
    narrow = (
        _NARROW if has_cache and now.verdict.word != "fits" and asked.scenario.kv_type in _WIDE_CACHES else ()
    )
    listed = [
        *tried(_variants(asked, narrow, has_cache=has_cache)),
        *(made(k, c, asked, then) for k, c, then in more),
    ]
    found = [advice for advice in listed if _worth(now, advice)]
    if now.verdict.word != "fits" and not any(a.word == "fits" and a.kind != "entitlement" for a in found):
        combined = tried(_combinations(asked)) if has_cache else ()
        found += [a for a in combined if _worth(now, a) and SEVERITY[a.word] < SEVERITY[now.verdict.word]]
    found.sort(key=_order)
    kept: list[Advice] = []
    for one in found:
        if sum(a.kind == one.kind for a in kept) < MOST_OF_A_KIND:
            kept.append(one)
    return kept[:most]


def _order(advice: Advice) -> tuple[int, float, float]:
    """By verdict, cheap in quality before dear, fast before slow."""
    return SEVERITY[advice.word], advice.quality_percent or 0.0, -advice.decode_tokens_per_s


def _variants(
    asked: Variant, kv_types: Iterable[str], *, has_cache: bool
) -> Iterator[tuple[str, str, Variant]]:
    """One change each: narrower weights, a narrower cache, a shorter context, the system's higher limit."""
    scenario = asked.scenario
    for quant in _narrower(asked.quant):
        yield "quant", f"quantise to {quant}", asked._replace(quant=quant)
    for kv_type in kv_types:
        yield (
            "kv",
            f"keep the KV cache in {kv_type}",
            asked._replace(scenario=_narrow_cache(scenario, kv_type)),
        )
    for context in _shorter(scenario) if has_cache else ():
        cut = scenario.replace(context_tokens=context)
        yield "context", f"cut the context to {context}", asked._replace(scenario=cut)
    if any(pool.entitled_bytes for pool in asked.device.pools):
        pools = tuple(p.replace(usable_bytes=p.entitled_bytes or p.usable_bytes) for p in asked.device.pools)
        changed = asked._replace(device=asked.device.replace(pools=pools))
        words = "ask for the higher memory limit"
        if asked.device.os == "macos":  # what Metal may wire, until the next start of the system
            limit_mib = (
                max(pool.entitled_bytes.value for pool in asked.device.pools if pool.entitled_bytes) / MIB
            )
            words = f"raise the GPU's limit: sudo sysctl iogpu.wired_limit_mb={limit_mib:.0f}"
        yield "entitlement", words, changed


def _narrow_cache(scenario: Scenario, kv_type: str) -> Scenario:
    return scenario.replace(kv_type=kv_type, flash_attention=True)


def _combinations(asked: Variant) -> Iterator[tuple[str, str, Variant]]:
    """Narrower weights, a narrower cache and a shorter context together, where none of them alone is enough."""
    scenario = asked.scenario
    narrow = _narrow_cache(scenario, "Q8_0") if scenario.kv_type in _WIDE_CACHES else scenario
    for quant in (asked.quant, *_narrower(asked.quant)):
        for context in (scenario.context_tokens, *_shorter(scenario)):
            changes = (
                (quant != asked.quant, f"quantise to {quant}"),
                (narrow is not scenario, f"keep the KV cache in {narrow.kv_type}"),
                (context != scenario.context_tokens, f"cut the context to {context}"),
            )
            words = [change for made, change in changes if made]
            if len(words) > 1:
                changed = asked._replace(quant=quant, scenario=narrow.replace(context_tokens=context))
                yield "several", ", ".join(words), changed


def _narrower(quant: str) -> list[str]:
    """Usual mixtures below this one; all of them below one that has no place in the order."""
    order = list(BASE_TYPE)
    place = order.index(quant) if quant in order else -1
    return [other for other in TRIED_QUANTS if order.index(other) > place]


def _shorter(scenario: Scenario) -> Iterator[int]:
    """Half the context, a quarter, ... while the tokens asked about still fit."""
    each = scenario.prompt_tokens + scenario.new_tokens + scenario.depth_tokens
    least = max(1024, scenario.batch_count * each)
    context = scenario.context_tokens // 2
    while context >= least:
        yield context
        context //= 2


def _quality(before: str, after: str, parameter_count: int) -> float | None:
    """Perplexity of the new mixture over that of the old one, in percent growth; None where unpublished."""
    if before == after:
        return 0.0
    old, new = (perplexity_growth_percent(quant, parameter_count) for quant in (before, after))
    return None if old is None or new is None else 100 * ((100 + new) / (100 + old) - 1)


def _worth(now: Prediction, advice: Advice) -> bool:
    """A better verdict; or, with the same one, clearly more speed."""
    if SEVERITY[advice.word] != SEVERITY[now.verdict.word]:
        return SEVERITY[advice.word] < SEVERITY[now.verdict.word]
    return advice.speed_ratio > 1.05 and (advice.kind != "kv" or now.verdict.word == "fits with streaming")
