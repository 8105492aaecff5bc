"""Passes: what a step of a system asks of its parts.

Declared before they run, timed while they do, predicted by law.

A pass of the language model or of a sentence encoder is predicted as any run of a model is. A pass that the
core has no law for (a graph of ONNX Runtime, an image tower) has no prediction, and none is made up.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from math import log2
from typing import Any, NamedTuple

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.scenario import Scenario
from harness.predict.co_resident import read_bytes_per_s
from harness.predict.speed import predict_speed

SERIAL_SHARE = 0.6
"""Share of all cores' bandwidth that one thread draws."""
TRAINING_FACTOR = 3.0
"""A step of training over a pass of reading: forward once, backward twice (Kaplan et al. 2020,
arXiv:2001.08361)."""


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


class Pass(Frozen):
    """Passes of one part that are alike.

    Attributes:
        part: ``language``, ``encoder``, ``nli``, ``tower``; ``store`` or ``dictionary`` for arrays of the
            system's own.
        tokens: That are read, or written one after the other.
        depth: Tokens in the cache before.
        share: Of the part's layers that are computed.
        moved_bytes: Read from memory in order, of arrays.
        flops: Of dense fp32 products, of arrays.
    """

    part: str
    op: Op
    tokens: int = 0
    depth: int = 0
    share: float = 1.0
    moved_bytes: int = 0
    flops: int = 0


class Taken(NamedTuple):
    """A pass and its seconds."""

    one: Pass
    seconds: float


class Meter:
    """Times the passes of a step, whichever part runs them."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []

    @contextmanager
    def timed(self, one: Pass) -> Iterator[None]:
        """Time a pass."""
        begin = time.perf_counter()
        yield
        self.taken.append(Taken(one, time.perf_counter() - begin))

    def drain(self) -> list[Taken]:
        """The passes since it was asked last."""
        taken = self.taken
        self.taken = []
        return taken


Tokenize = Callable[[str, Any], Sequence[int]]
"""Token ids of a text or a prompt, by the part that reads it."""


class Chain:
    """The passes of steps, declared: what will be in the cache already is read by no pass."""

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize
        self._held: list[int] = []
        self.passes: list[Pass] = []

    def take(self) -> list[Pass]:
        """The passes of one step, which ends here."""
        passes = self.passes
        self.passes = []
        return passes

    def count(self, part: str, text: Any) -> int:
        """Tokens of a text or a prompt, by the part that reads it."""
        return len(self._tokenize(part, text))

    def embed(self, *texts: str) -> None:
        """The encoder makes a vector of each text."""
        tokens = sum(self.count("encoder", text) for text in texts)
        self.passes.append(Pass(part="encoder", op=Op.EMBED, tokens=tokens))

    def read(self, prompt: Any, op: Op = Op.READ) -> None:
        """The language model reads a prompt, from the place on where it differs from the one before."""
        tokens = list(self._tokenize("language", prompt))
        start = min(common_length(self._held, tokens), len(tokens) - 1)
        self._held = tokens
        self.passes.append(Pass(part="language", op=op, tokens=len(tokens) - start, depth=start))

    def write(self, count: int) -> None:
        """The language model writes so many tokens after what it has read.

        The first one needs no further pass.
        """
        self.passes.append(
            Pass(part="language", op=Op.WRITE, tokens=max(count - 1, 0), depth=len(self._held))
        )


def common_length(one: Sequence[int], two: Sequence[int]) -> int:
    """Tokens that two sequences begin with."""
    for at, (left, right) in enumerate(zip(one, two, strict=False)):
        if left != right:
            return at
    return min(len(one), len(two))


Law = Callable[[Pass], float | None]
"""Seconds of a pass; None where nobody knows."""


def law_of(weights: Mapping[str, Weights], device: DeviceProfile, scenario: Scenario) -> Law:
    """Seconds of passes on a device: models by their weights, arrays by what they read and compute."""

    @cache
    def rate(part: str, prompt_tokens: int, depth_tokens: int) -> float:
        asked = scenario.replace(prompt_tokens=max(prompt_tokens, 1), depth_tokens=depth_tokens, new_tokens=1)
        speed = predict_speed(weights[part], device, asked)
        if prompt_tokens:
            return speed.prefill_tokens_per_s.mid
        return speed.decode_tokens_per_s.mid

    def seconds(one: Pass) -> float | None:
        if one.part in weights:
            if not one.tokens:
                return 0.0
            is_single = one.op is Op.WRITE or one.tokens == 1
            if one.op is Op.TRAIN:
                factor = TRAINING_FACTOR
            else:
                factor = 1.0
            if is_single:
                prompt = 0
            else:
                prompt = _near(one.tokens)
            return factor * one.share * one.tokens / rate(one.part, prompt, _near(one.depth))
        if one.moved_bytes or one.flops:
            return max(one.moved_bytes / serial_bytes_per_s(device), one.flops / core_flops_per_s(device))
        return None

    return seconds


def _near(tokens: int) -> int:
    """The power of the square root of two next to a number: rates change little between two of them."""
    if tokens:
        return round(2 ** (round(2 * log2(tokens)) / 2))
    return 0


def serial_bytes_per_s(device: DeviceProfile) -> float:
    """Bytes/s that one thread reads from memory."""
    cpu = next((engine for engine in device.engines if engine.kind == "cpu"), None)
    alone = cpu is None or cpu.core_count == 1
    return read_bytes_per_s(device) * (1.0 if alone else SERIAL_SHARE)


def core_flops_per_s(device: DeviceProfile) -> float:
    """FLOP/s of dense fp32 products on one core: NEON's least where a profile gives none."""
    cpu = next((engine for engine in device.engines if engine.kind == "cpu"), None)
    peak = None
    if cpu:
        peak = cpu.peak_flops_per_s.get("fp32")
    if cpu and peak:
        return peak.value / max(1, cpu.core_count)
    return 2.0e10


def total(law: Law, passes: Sequence[Pass]) -> float | None:
    """Seconds of all passes; None where nobody knows of one."""
    seconds = [law(one) for one in passes]
    if None in seconds:
        return None
    return sum(each for each in seconds if each is not None)
