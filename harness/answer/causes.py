"""Why is mine slow: what may cost a measured speed, the likeliest first, each with the check that tells.

A cause is a question of its own: the same model on the same device, otherwise placed, deeper, without a
feature; or the case itself at the share of its speed that published threads report. Each has a speed with an
interval. What cannot be on this device, or does not fit the measured figure, is dropped. The rest is ranked
by the weight s f(ln v), where s is the share of the threads in which it could have been the cause and was
(``data/slow_causes.toml``), and f the density of the cause's speed at the measured one v. A log that was
pasted confirms or excludes causes. "Nothing is wrong" is one of them.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from statistics import NormalDist
from typing import Final, Literal

from harness.answer.answer import Answer
from harness.answer.case import Case
from harness.answer.circumstances import CIRCUMSTANCES, DEEP_TOKENS, Circumstances
from harness.answer.pasted import Seen
from harness.answer.ways import judged, memory_in
from harness.core.base import Frozen
from harness.core.device import Pool, Sourced
from harness.core.errors import HarnessError
from harness.core.placement import Placement
from harness.core.prediction import Interval
from harness.core.tables import expect_all, shipped_table
from harness.core.units import GIB
from harness.memory.verdict import needed_bytes_of
from harness.models.weights import weights_of
from harness.speed.estimate import predict_speed
from harness.speed.fitted import machine_of
from harness.speed.passes import link_bytes_per_s

_PREDICTED: Final = ("layers", "spill", "projector", "attention", "memory", "heat", "cache", "depth", "file")
"""Causes that are predicted as questions of their own."""
_BY_RATIO: Final = (
    *(
        "build",
        "threads",
        "background",
        "quota",
        "avx",
        "container",
        "sockets",
        "draft",
        "power",
        "cards",
        "link",
    ),
    *("disk", "others"),
)
"""Causes that are known by the share of the speed that threads report."""


class CauseRow(Frozen):
    """A row of ``data/slow_causes.toml``, which says what each column is."""

    says: str
    tells: str
    mend: str
    share: dict[str, float]
    all: str = ""
    modules: str = ""
    of: Literal["", "cpu", "undrafted"] = ""
    ratio: tuple[float, float] = (0.0, 1.0)
    usual: float = 0.0


def read_causes() -> dict[str, CauseRow]:
    """``data/slow_causes.toml``, whose words are declared.

    Raises:
        BadDataError: A cause that nothing looks for, a circumstance that there is not, or a slip in a row.
    """
    path = "data/slow_causes.toml"
    found = shipped_table(path, "harness.answer", into=dict[str, CauseRow])
    expect_all(path, "cause", ((cause, cause) for cause in found), {*_PREDICTED, *_BY_RATIO})
    for cause, row in found.items():
        expect_all(path, f"{cause}, share", ((word, word) for word in row.share), {"else", *CIRCUMSTANCES})
    return found


_TABLE: Final = read_causes()
_NOTHING_SHARE: Final = 0.6
"""Of threads whose figure lies inside what is predicted: nothing was wrong, or nobody found out."""
_MOST_SHOWN: Final = 3
_SLACK: Final = math.log(1.1)
"""By which a figure may lie outside of a cause's interval: figures are rounded by whoever posts them."""
_CONFIRMED: Final = 25.0
_SIGMAS: Final = 1.645
"""From the middle to an end of a 90 % interval."""
_MODULES_RATIO: Final = 3600 / 5200
"""Speed of four modules of DDR5 over that of two on the usual boards of its years."""
_SPILLED_SHARES: Final = (0.15, 0.3, 0.6)
"""Of a link's specification that reads of lent memory reach: least, middle, most. Pages come one by one."""
_TOWER_BYTES: Final = 1.1 * GIB
_CPU_SHARE: Final = 0.9
"""Of the time of a split that the CPU's part takes."""


class SlowCause(Frozen, kw_only=False):
    """One thing that may cost the speed.

    Attributes:
        kind: Its key in the table.
        cause: What is otherwise, in words.
        tokens_per_s: Speed that follows, with its 90 % interval.
        share: Its weight among all that fit, "nothing is wrong" included, 0 to 1.
        tells: How to find out.
        mend: What to do then.
    """

    kind: str
    cause: str
    tokens_per_s: Interval
    share: float
    tells: str
    mend: str


class Slow(Frozen):
    """A measured speed beside what was predicted.

    Attributes:
        expected: Speed of the answer, drafting included where it was asked for.
        is_expected: Whether nothing being wrong explains it best.
        causes: At most three, the likeliest first.
    """

    measured_tokens_per_s: float
    expected: Interval
    is_expected: bool
    causes: tuple[SlowCause, ...]


def slow(measured: float, found: Answer, case: Case, seen: Seen = Seen()) -> Slow:  # noqa: B008 - frozen
    """What may explain a measured decode speed; ``case`` is the answer's, as its best way runs it."""
    return _Search(measured, found, case, seen).result()


class _Search(Circumstances):
    """The causes that are looked at for one measured speed."""

    def __init__(self, measured: float, found: Answer, case: Case, seen: Seen) -> None:
        super().__init__(found, case, seen)
        self.measured = measured
        self.base = self._speed(case)
        self.expected = found.drafted_tokens_per_s or found.prediction.speed.decode_tokens_per_s

    def result(self) -> Slow:
        """All that fits, weighed."""
        weighed = list[tuple[float, SlowCause]]()
        for kind, make in self._makers.items():
            row = _TABLE[kind]
            confirmed = self._told(kind)
            share = self._share(row)
            if confirmed is False or not (share or confirmed):
                continue
            with suppress(HarnessError, ValueError, KeyError):  # no such engine, no table of tensors
                for words, speed, density in make(row):
                    weight = (share or 0.05) * density * (_CONFIRMED if confirmed else 1.0)
                    one = SlowCause(kind, words, speed, 0.0, row.tells, row.mend)
                    weighed.append((weight, one))
        inside = self.expected.low <= self.measured
        nothing = _NOTHING_SHARE * _density(self.measured, self.expected) if inside else 0.0
        total = nothing + sum(weight for weight, _ in weighed)
        best: dict[str, tuple[float, SlowCause]] = {}
        for weight, one in sorted(weighed, key=lambda pair: -pair[0]):
            before = best.get(one.kind)
            best[one.kind] = (weight + before[0], before[1]) if before else (weight, one)
        ranked = sorted(best.values(), key=lambda pair: -pair[0])[:_MOST_SHOWN]
        causes = tuple(one.replace(share=round(weight / total, 3)) for weight, one in ranked)
        is_expected = inside and (not ranked or nothing >= ranked[0][0])
        return Slow(
            measured_tokens_per_s=self.measured,
            expected=self.expected,
            is_expected=is_expected,
            causes=causes,
        )

    @property
    def _makers(self) -> dict[str, Callable[[CauseRow], Iterator[tuple[str, Interval, float]]]]:
        predicted = {kind: getattr(self, f"_{kind}") for kind in _PREDICTED}
        return predicted | dict.fromkeys(_BY_RATIO, self._of_share)

    def _share(self, row: CauseRow) -> float:
        shares = row.share
        return next((share for word, share in shares.items() if word in self.there or word == "else"), 0.0)

    # Causes, by their key in the table.

    def _speed(self, case: Case) -> Interval:
        """Decode speed of a case behind its prompt where that is long."""
        scenario = case.scenario
        depth = scenario.depth_tokens + (
            scenario.prompt_tokens if scenario.prompt_tokens >= DEEP_TOKENS else 0
        )
        speed = predict_speed(case.model.weights, case.device, scenario.replace(depth_tokens=depth))
        return speed.decode_tokens_per_s

    def _fits(self, interval: Interval) -> bool:
        at = math.log(self.measured)
        return math.log(interval.low) - _SLACK <= at <= math.log(interval.high) + _SLACK

    def _asked(self, words: str, interval: Interval) -> Iterator[tuple[str, Interval, float]]:
        """A cause whose speed is predicted, if it fits and is slower than the case."""
        if self._fits(interval) and interval.mid < 0.97 * self.expected.mid:
            yield words, interval, _density(self.measured, interval)

    @cached_property
    def _on_cpu(self) -> Interval:
        """Speed where the CPU computes all; where nobody told the host, down to half of its usual one."""
        cpu = self._speed(self.case.at(api="cpu", placement=Placement()))
        told = self.case.device.pool("ram").bandwidth_bytes_per_s.confidence != "assumed"
        return cpu if told or not self.has_card else cpu.replace(low=cpu.low / 2)

    def _layers(self, row: CauseRow) -> Iterator[tuple[str, Interval, float]]:
        if not self.has_gpu:
            return
        yield from self._asked(row.all, self._on_cpu)
        blocks = self.case.model.weights.shape.layer_count
        if self.seen.layers_on_card is not None:
            count = min(self.seen.layers_on_card, blocks + 1)
            speed = self._with_layers(count)
            if count <= blocks and self._fits(speed):
                yield (
                    row.says.format(layers=f"{count} of {blocks + 1} layers"),
                    speed,
                    _density(self.measured, speed),
                )
            return
        low, high = self._on_cpu.mid, self.base.mid
        if not low < self.measured < high:
            return
        placed = self.case.scenario.placement.first_gpu_block(blocks)
        first, last = 0, blocks - placed
        while first < last:  # the speed grows with the layers on the card
            middle = (first + last) // 2
            if self._with_layers(middle).mid < self.measured:
                first = middle + 1
            else:
                last = middle
        words = row.says.format(layers=f"about {first} of {blocks + 1} layers")
        yield words, self._with_layers(first), 0.8 / math.log(high / low)

    def _with_layers(self, count: int) -> Interval:
        placement = self.case.scenario.placement.replace(gpu_layers=count)
        return self._speed(self.case.at(placement=placement))

    def _spilled(self, base: Interval, least: float, most: float) -> Interval:
        """Speed where so many bytes of each token come over the card's link."""
        told = self.case.device.pool_of(self.case.scenario.api).link_bytes_per_s
        rate = (
            told.value
            if told
            else link_bytes_per_s(machine_of(self.case.device, self.case.scenario), self.case.device.chip)
        )
        slow, usual, fast = (share * rate for share in _SPILLED_SHARES)
        middle = math.sqrt(least * most)
        return Interval(
            mid=1 / (1 / base.mid + middle / usual),
            low=1 / (1 / base.low + most / slow),
            high=1 / (1 / base.high + least / fast),
        )

    def _spill(self, row: CauseRow) -> Iterator[tuple[str, Interval, float]]:
        if not self.has_card or ("full" not in self.there and not self.seen.card_is_full):
            return
        case = self.case.at(placement=self.case.scenario.placement.replace(gpu_layers="all", cpu_moe=0))
        pool = self.case.device.pool("vram")
        held = sum(needed_bytes_of(memory_in(case).parts, "vram"))
        over = held - pool.usable_bytes.value * max(len(self.case.scenario.placement.tensor_split), 1)
        base, least, most = self.base, 0.2 * GIB, 2.5 * GIB
        if 0 < over < 0.5 * pool.total_bytes.value:
            base, least, most = self._speed(case), max(0.5 * over, 0.2 * GIB), over + GIB
        yield from self._asked(row.says, self._spilled(base, least, most))

    def _projector(self, row: CauseRow) -> Iterator[tuple[str, Interval, float]]:
        model = self.case.model
        if self.has_card and model.tower is not None and "full" in self.there:
            yield from self._asked(row.says, self._spilled(self.base, 0.4 * _TOWER_BYTES, 2 * _TOWER_BYTES))

    def _attention(self, row: CauseRow) -> Iterator[tuple[str, Interval, float]]:
        if self.has_gpu and self.case.scenario.flash_attention:
            yield from self._asked(row.says, self._speed(self.case.at(flash_attention=False)))

    def _memory(self, row: CauseRow) -> Iterator[tuple[str, Interval, float]]:
        if not self.cpu_computes or "slots" not in self.there:
            return
        ratio, words = 0.5, row.says
        if "modules" in self.there:
            ratio, words = _MODULES_RATIO, row.modules
        slower = self._speed(self._with_bandwidth(ratio))
        yield from self._asked(words, slower.replace(high=self._speed(self._with_bandwidth(0.8)).high))

    def _with_bandwidth(self, ratio: float) -> Case:
        def cut(pool: Pool) -> Pool:
            if pool.name != "ram":
                return pool
            rate = pool.bandwidth_bytes_per_s
            return pool.replace(bandwidth_bytes_per_s=Sourced(rate.value * ratio, "asked for", "assumed"))

        device = self.case.device
        return self.case._replace(device=device.replace(pools=tuple(map(cut, device.pools)), calibrations=()))

    def _heat(self, row: CauseRow) -> Iterator[tuple[str, Interval, float]]:
        late = self.found.sustained
        if late is not None and late.tokens_per_s.mid < 0.9 * self.base.mid:
            yield from self._asked(row.says.format(minutes=late.minutes), late.tokens_per_s)

    def _cache(self, row: CauseRow) -> Iterator[tuple[str, Interval, float]]:
        shape = self.case.model.weights.shape
        if self.has_card and shape.kv_head_count and self.case.scenario.placement.kv_on_gpu:
            scenario = self.case.scenario
            full = max(scenario.context_tokens // scenario.batch_count - scenario.new_tokens, 0)
            placement = scenario.placement.replace(kv_on_gpu=False)
            now = self._speed(self.case.at(placement=placement))
            deep = self._speed(self.case.at(placement=placement, depth_tokens=full))
            between = Interval(mid=math.sqrt(now.mid * deep.mid), low=deep.low, high=now.high)
            yield from self._asked(row.says, between)

    def _depth(self, row: CauseRow) -> Iterator[tuple[str, Interval, float]]:
        scenario = self.case.scenario
        full = max(scenario.context_tokens // scenario.batch_count - scenario.new_tokens, 0)
        if full > scenario.depth_tokens:
            yield from self._asked(row.says.format(depth=full), self._speed(self.case.at(depth_tokens=full)))

    def _file(self, row: CauseRow) -> Iterator[tuple[str, Interval, float]]:
        model = self.case.model
        for quant in ("Q8_0", "F16"):
            with suppress(HarnessError):  # no table of tensors for this architecture
                bigger = model._replace(quant=quant, weights=weights_of(model.weights.shape, quant))
                if bigger.weights.tensor_bytes < 1.1 * model.weights.tensor_bytes:
                    continue
                case = self.case._replace(model=bigger)
                speed = predict_speed(bigger.weights, case.device, case.scenario)
                if judged(case, memory_in(case), speed).verdict.word == "fits":
                    words = row.says.format(quant=quant, asked=model.quant)
                    yield from self._asked(words, speed.decode_tokens_per_s)

    def _of_share(self, row: CauseRow) -> Iterator[tuple[str, Interval, float]]:
        """A cause that is known by the share of the speed that threads report."""
        kind = next(name for name, other in _TABLE.items() if other is row)
        if not self._may_be(kind):
            return
        low, high = row.ratio
        of = self._base_of(kind, row.of)
        reached = Interval(mid=of.mid * math.sqrt(low * high), low=of.low * low, high=of.high * high)
        if not self._fits(reached) or self.measured > self.expected.high:
            return
        if usual := row.usual:
            density = 0.85 * _even_density(self.measured, of, usual, high) + 0.15 * _even_density(
                self.measured, of, low, usual
            )
        else:
            density = _even_density(self.measured, of, low, high)
        near = Interval(
            mid=min(max(self.measured, reached.low), reached.high), low=reached.low, high=reached.high
        )
        yield row.says, near, density

    def _may_be(self, kind: str) -> bool:
        computes = self.cpu_computes
        return {
            "threads": computes,
            "background": computes
            and ("phone" in self.there or self.case.device.os != "linux" or "hybrid" in self.there),
            "quota": self.found.prediction.api == "cpu" and self.case.device.os == "linux",
            "avx": computes and self.case.device.os in {"windows", "linux"},
            "container": self.case.device.kind not in {"phone", "tablet"}
            and self.found.prediction.api != "npu",
            "sockets": computes,
            "disk": not self.has_card or self.is_split,
            "link": self.has_card,
            "power": "npu" in self.there
            or not (self.found.prediction.api == "cpu" and "server" in self.there),
        }.get(kind, True)

    def _base_of(self, kind: str, of: str) -> Interval:
        if of == "undrafted":
            return self.base
        if kind == "cards" and self.one_card is not None:
            return self.one_card
        if kind == "container" and not self.cpu_computes:
            return self._on_cpu
        return self.expected if not of else self.base

    def _told(self, kind: str) -> bool | None:
        """Whether the log says that it is so, or that it is not; None where it says neither."""
        seen = self.seen
        on_card = None
        if seen.layers_on_card is not None and seen.layer_count:
            on_card = seen.layers_on_card >= seen.layer_count
        if seen.gpu_share is not None:
            on_card = seen.gpu_share >= 1.0
        if seen.gpu_found is False:
            on_card = False
        threads = None
        if seen.thread_count and seen.cpu_count:
            threads = True if seen.thread_count > seen.cpu_count / 2 + 1 else None
        told: dict[str, bool | None] = {
            "layers": None if on_card is None else not on_card,
            "spill": None if seen.card_is_full is None else seen.card_is_full,
            "projector": True if seen.loads_projector else None,
            "attention": None if seen.flash_attention is None else not seen.flash_attention,
            "threads": threads if self.cpu_computes else None,
            "avx": None if seen.has_avx is None else not seen.has_avx,
            "container": True if seen.gpu_found is False else (False if on_card else None),
            "sockets": None if seen.numa_nodes is None else seen.numa_nodes > 1,
            "draft": None if seen.acceptance_ratio is None else seen.acceptance_ratio < 0.6,
            "power": None if seen.is_clocked_down is None else seen.is_clocked_down,
            "cards": None if seen.card_count is None else seen.card_count > 1,
            "cache": None if seen.cache_on_card is None else not seen.cache_on_card,
        }
        return told.get(kind)


def _density(measured: float, interval: Interval) -> float:
    """Density of ln speed at the measured one: a normal one of two widths, whose 90 % are the interval."""
    off = math.log(measured / interval.mid)
    below = math.log(interval.mid / interval.low) / _SIGMAS
    above = math.log(interval.high / interval.mid) / _SIGMAS
    width = max(below if off < 0 else above, 0.03)
    return 2 / (max(below, 0.03) + max(above, 0.03)) * width * NormalDist(0, width).pdf(off)


def _even_density(measured: float, interval: Interval, low: float, high: float) -> float:
    """The same where the speed is a share of the interval's, each order of size between two shares as likely."""
    at = math.log(measured / interval.mid)
    width = max(math.log(interval.high / interval.low) / (2 * _SIGMAS), 0.03)
    normal = NormalDist(0, width)
    return (normal.cdf(at - math.log(low)) - normal.cdf(at - math.log(high))) / math.log(high / low)
