"""Changes that would make a model fit, or fit better: each with its predicted gain and its published cost in quality."""

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.model import ModelShape
from harness.core.prediction import Prediction, VerdictWord
from harness.core.scenario import Scenario
from harness.core.tables import Row, maybe, shipped_rows
from harness.core.units import MIB
from harness.core.way import Way, WayKind
from harness.memory.verdict import SEVERITY
from harness.models.quant import MIXTURES
from harness.models.quant_mix import BASE_TYPE

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
_CLEARLY_FASTER: Final = 1.05
MOST_OF_A_KIND: Final = 3
"""More of one kind would hide the other kinds."""
_NARROW: Final = ("Q8_0", "Q4_0")
WIDE_CACHES: Final = frozenset({"F16", "BF16", "F32"})


class Variant(NamedTuple):
    """One thing to ask: a mixture, a scenario, a device."""

    quant: str
    scenario: Scenario
    device: Device


class Change(NamedTuple):
    """What to do, in words, and what is asked after it."""

    kind: str
    words: str
    asked: Variant


class Advice(Frozen):
    """One change.

    Attributes:
        kind: ``quant``, ``kv``, ``context``, ``entitlement`` or ``beside``.
        change: What to do, in words.
        word: Verdict after it.
        way: What lies where after it.
        needed_bytes: Memory needed after it.
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
    decode_tokens_per_s: float
    speed_ratio: float
    quality_percent: float | None = 0.0


class Adviser:
    """Looks for changes that reach a better verdict, or the same one faster.

    Whoever has one asks what each of its :meth:`changes` gives, tells it by :meth:`take`, and reads what is
    worth its while from :meth:`ranked`.

    Attributes:
        now: What was predicted for ``asked``.
        shape: Of the model.
        parameter_count: Picks the nearer published perplexities.
        is_split: Whether a part of it lies with the CPU now.
        found: What is worth its while so far.
    """

    def __init__(
        self,
        now: Prediction,
        asked: Variant,
        shape: ModelShape,
        parameter_count: int,
        *,
        is_split: bool = False,
    ) -> None:
        self.now = now
        self.is_split = is_split
        self.asked = asked
        self.shape = shape
        self.parameter_count = parameter_count
        self.found: list[Advice] = []
        self._fitting: Counter[str] = Counter()
        self._last: dict[tuple[str, str], Advice] = {}

    def changes(self) -> Iterator[Change]:
        """One change each: narrower weights, a narrower cache, a shorter context, the system's higher limit.

        What follows many of a kind that fit costs more quality, and is left out.
        """
        for change in self._listed():
            if self._fitting[change.kind] < MOST_OF_A_KIND:
                yield change

    def _listed(self) -> Iterator[Change]:
        asked = self.asked
        scenario = asked.scenario
        for quant in _narrower(asked.quant):
            yield Change("quant", f"quantise to {quant}", asked._replace(quant=quant))
        if self.shape.kv_head_count:
            # That a narrow cache makes a card faster, users deny of long prompts and deep contexts: it only makes
            # room.
            if (self.is_split or self.now.verdict.word != "fits") and scenario.kv_type in WIDE_CACHES:
                for kv_type in _NARROW:
                    narrow = scenario.replace(kv_type=kv_type, flash_attention=True)
                    yield Change("kv", f"keep the KV cache in {kv_type}", asked._replace(scenario=narrow))
            for context in _shorter(scenario):
                cut = scenario.replace(context_tokens=context)
                yield Change("context", f"cut the context to {context}", asked._replace(scenario=cut))
        device = asked.device
        limits = [pool.entitled_bytes.value for pool in device.pools if pool.entitled_bytes]
        if limits:
            words = "ask for the higher memory limit"
            if device.os == "macos":  # what Metal may wire, until the next start of the system
                words = f"raise the GPU's limit: sudo sysctl iogpu.wired_limit_mb={max(limits) / MIB:.0f}"
            pools = tuple(p.replace(usable_bytes=p.entitled_bytes or p.usable_bytes) for p in device.pools)
            yield Change("entitlement", words, asked._replace(device=device.replace(pools=pools)))

    def take(self, change: Change, way: Way) -> None:
        """Keep a change by the best way after it, if it is worth its while.

        A further step of one kind, such as a still shorter context, counts only if it gives more than the one
        before.
        """
        then = way.prediction
        before = _speed_of(self.now)
        speed_ratio = 0.0
        if before:
            speed_ratio = _speed_of(then) / before
        quality = None
        if change.kind != "kv":
            quality = _quality(self.asked.quant, change.asked.quant, self.parameter_count)
        one = Advice(
            kind=change.kind,
            change=change.words,
            word=then.verdict.word,
            way=way.kind,
            needed_bytes=then.verdict.needed_bytes,
            decode_tokens_per_s=_speed_of(then),
            speed_ratio=speed_ratio,
            quality_percent=quality,
        )
        last = self._last.get((change.kind, change.asked.quant))
        if last is not None and change.kind != "beside" and one.word == last.word:
            more_ratio = one.decode_tokens_per_s / (last.decode_tokens_per_s or 1.0)
            if more_ratio < _MORE_RATIO:
                return
        self._last[change.kind, change.asked.quant] = one
        if self._is_worth(one):
            self.found.append(one)
            self._fitting[change.kind] += one.word == "fits"

    def _is_worth(self, one: Advice) -> bool:
        """A better verdict; or, with the same one and by one change, clearly more speed."""
        word = self.now.verdict.word
        if SEVERITY[one.word] != SEVERITY[word]:
            return SEVERITY[one.word] < SEVERITY[word]
        if one.kind == "kv" and word != "fits with streaming":
            return self.is_split and one.way.is_whole and one.speed_ratio > _CLEARLY_FASTER
        return one.speed_ratio > _CLEARLY_FASTER

    def ranked(self, most: int = 8) -> list[Advice]:
        """By verdict, cheap in quality before dear, fast before slow; of no kind too many."""
        kept: list[Advice] = []
        for one in sorted(self.found, key=_order):
            if sum(other.kind == one.kind for other in kept) < MOST_OF_A_KIND:
                kept.append(one)
        return kept[:most]


def _speed_of(one: Prediction) -> float:
    """Decode speed, tokens/s; 0 for what does not run."""
    if one.verdict.word == "does not fit":
        return 0.0
    return one.speed.decode_tokens_per_s.mid


def _order(advice: Advice) -> tuple[int, float, float]:
    return SEVERITY[advice.word], advice.quality_percent or 0.0, -advice.decode_tokens_per_s


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
    """Growth of perplexity from the old mixture to the new one, in percent; None if nobody published it."""
    if before == after:
        return 0.0
    old, new = (perplexity_growth_percent(quant, parameter_count) for quant in (before, after))
    if old is None or new is None:
        return None
    return 100 * ((100 + new) / (100 + old) - 1)


LARGE_MODEL_PARAMETERS: Final = 3e10
"""From here on the figures of a 70B model are the nearer ones; below, those of an 8B model."""


def read_perplexities() -> dict[str, Row]:
    """Rows of ``data/quant_quality.csv`` by mixture.

    Raises:
        BadDataError: A mixture that there is not or that stands twice, or a growth that is no number.
    """
    columns = {"quant": MIXTURES, "small_percent": float, "large_percent": maybe(float)}
    return {
        row["quant"]: row
        for row in shipped_rows("data/quant_quality.csv", columns=columns, unique=("quant",))
    }


_PERPLEXITIES: Final = read_perplexities()


def perplexity_growth_percent(quant: str, parameter_count: float) -> float | None:
    """Growth of WikiText-2 perplexity over F16, in percent, for a model of about that size.

    The result is None if nobody published one for that quantisation.

    Source: data/quant_quality.csv, which names the source of each row.
    """
    row = _PERPLEXITIES.get(quant, Row())
    found = row.get("small_percent")
    if parameter_count >= LARGE_MODEL_PARAMETERS:
        found = row.get("large_percent") or found
    if found:
        return float(found)
    return None
