"""Passes: what a step of a system asks of its parts, recorded where they run and predicted by law.

A chain is data. The parts themselves write down each pass with its tokens while a step runs here; the same
passes are then predicted by the law of a run of that model, and timed by llama-bench on a target. What the
core has no law for (a graph of ONNX Runtime, a reader of pictures) has no prediction, and none is made up.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cache

import numpy as np

from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.model import Weights
from harness.core.prediction import SpeedPrediction
from harness.core.result import PassFigures
from harness.core.scenario import Scenario
from harness.memory.co_resident import read_bytes_per_s
from harness.speed.estimate import predict_speed

SERIAL_SHARE = 0.6
"""Share of all cores' bandwidth that one thread draws."""
TRAINING_FACTOR = 3.0
"""A step of training over a pass of reading: forward once, backward twice (Kaplan et al. 2020,
arXiv:2001.08361)."""
WHOLE, GLUE = "all", "glue"
"""Rows of a step that are no pass: all of it, and what is none of its passes."""


class Op(StrEnum):
    """What a part does in a pass."""

    EMBED = "embed"
    READ = "read"
    WRITE = "write"
    JUDGE = "judge"
    SEARCH = "search"
    TAP = "tap"
    ENCODE = "encode"
    IMAGE = "image"
    TRAIN = "train"


class RecordedPass(Frozen):
    """One pass of a part.

    Attributes:
        part: ``language``, ``encoder``; ``store``, ``dictionary``, ``reader`` for what is a system's own.
        tokens: That are read or written.
        depth: Tokens in the cache before.
        share: Of the part's layers that are computed.
        moved_bytes: Read from memory in order, of arrays.
        seconds: That it took; None before it ran.
    """

    part: str
    op: Op
    tokens: int = 0
    depth: int = 0
    share: float = 1.0
    moved_bytes: int = 0
    seconds: float | None = None


def read(tokens: int, depth: int = 0, *, op: Op = Op.READ, share: float = 1.0) -> RecordedPass:
    """A prompt of a language model after so many cached tokens."""
    return RecordedPass(part="language", op=op, tokens=tokens, depth=depth, share=share)


def written(tokens: int, depth: int) -> RecordedPass:
    """An answer of a language model after a prompt."""
    return read(tokens, depth, op=Op.WRITE)


class StepTime(Frozen):
    """Seconds of one step, and its passes in the order in which they ran."""

    step: str
    duration_s: float
    passes: tuple[RecordedPass, ...] = ()


class Meter:
    """Times the passes of a step, whichever part runs them."""

    def __init__(self) -> None:
        self.taken: list[RecordedPass] = []

    @contextmanager
    def timed(self, one: RecordedPass) -> Iterator[None]:
        """Time a pass; what is written without a break is one."""
        begin = time.perf_counter()
        yield
        seconds = time.perf_counter() - begin
        if one.op is Op.WRITE and self.taken and self.taken[-1].op is Op.WRITE:
            text = self.taken.pop()
            one = text.replace(tokens=text.tokens + one.tokens)
            seconds += text.seconds or 0.0
        self.taken.append(one.replace(seconds=seconds))

    def drain(self) -> tuple[RecordedPass, ...]:
        """The passes since it was asked last."""
        taken = tuple(self.taken)
        self.taken.clear()
        return taken


Law = Callable[[RecordedPass], float | None]
"""Seconds of a pass; None where nobody knows."""


def unknown(_pass: RecordedPass) -> None:
    """The law where no device is known."""


def law_of(weights: Mapping[str, Weights], device: Device, scenario: Scenario) -> Law:
    """Seconds of passes on a device: models by their weights, arrays by what they read."""

    @cache
    def speed_of(part: str, asked: Scenario) -> SpeedPrediction:
        return predict_speed(weights[part], device, asked)

    def seconds(one: RecordedPass) -> float | None:
        if one.moved_bytes:
            return one.moved_bytes / (SERIAL_SHARE * read_bytes_per_s(device))
        if one.part not in weights:
            return None
        is_prompt = one.op is not Op.WRITE and one.tokens > 1
        asked = scenario.replace(
            prompt_tokens=one.tokens if is_prompt else 1, depth_tokens=one.depth, new_tokens=1
        )
        speed = speed_of(one.part, asked)
        rate = speed.prefill_tokens_per_s if is_prompt else speed.decode_tokens_per_s
        factor = TRAINING_FACTOR if one.op is Op.TRAIN else one.share
        return factor * one.tokens / rate.mid

    return seconds


Points = Mapping[tuple[int, int], float]
"""Seconds of passes by their tokens and the cached tokens before them."""


def fitted_seconds(points: Points, tokens: int, depth: int = 0) -> float:
    """Seconds of a pass by a + b tokens + c tokens depth, none negative, relatively nearest to the points.

    Points of one depth tell no c, and a single point tells b alone.
    """
    from scipy.optimize import nnls

    at = np.array([(1, count, count * before) for count, before in points], float)
    seconds = np.array([*points.values()])
    is_told = np.array([len(points) > 1, True, len({before for _, before in points}) > 1])
    weighted, _ = nnls((at * is_told) / seconds[:, None], np.ones(len(points)))
    return float(weighted @ (1, tokens, tokens * depth))


def quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile."""
    p50, p95 = np.quantile(seconds, [0.5, 0.95]).tolist()
    return p50, p95


def seconds_of(passes: Iterable[RecordedPass]) -> float:
    """What they took together."""
    return sum(one.seconds or 0.0 for one in passes)


def rows_of(steps: Sequence[StepTime], law: Law, where: str = "") -> Iterator[PassFigures]:
    """Of each kind of step the whole, its passes by part, and what is none of them, measured beside predicted.

    A step is predicted by its passes and the glue as it was measured, which no law tells; not at all where it
    has no pass, or one without a law.
    """
    for step in dict.fromkeys(each.step for each in steps):
        own = [each for each in steps if each.step == step]
        glue = [max(0.0, each.duration_s - seconds_of(each.passes)) for each in own]
        whole = PassFigures(step=step, part="", op=WHOLE, where=where)
        passes = [each.passes for each in own]
        yield _filled(whole, [each.duration_s for each in own], passes, law, quantiles(glue)[0])
        for part, op in dict.fromkeys((one.part, one.op) for each in own for one in each.passes):
            alike = [[one for one in each if (one.part, one.op) == (part, op)] for each in passes]
            tokens = float(np.median([sum(one.tokens for one in each) for each in alike]))
            row = whole.replace(part=part, op=op, tokens=tokens)
            yield _filled(row, [*map(seconds_of, alike)], alike, law)
        if not where:
            yield _filled(whole.replace(op=GLUE), glue, [], law)


def _filled(
    row: PassFigures,
    seconds: Sequence[float],
    cases: Sequence[Sequence[RecordedPass]],
    law: Law,
    extra_s: float = 0.0,
) -> PassFigures:
    p50_s, p95_s = quantiles(seconds)
    row = row.replace(p50_s=p50_s, p95_s=p95_s)
    told = [[law(one) for one in case] for case in cases]
    if not any(told) or any(None in case for case in told):
        return row
    p50_s, p95_s = quantiles([extra_s + sum(filter(None, case)) for case in told])
    return row.replace(predicted_p50_s=p50_s, predicted_p95_s=p95_s)
