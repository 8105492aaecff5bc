"""How long a step takes: passes of its parts by their own laws, and the rest scaled by single-core speed.

t = sum of passes + max(F / P, M / W) + n f + g r

A language model's passes are predicted as any run of it (``harness.predict``). A graph's pass of n tokens takes
a + b n, two figures timed on this machine before the first step. F are FLOP of dense products of one thread and P its
rate, M bytes read in order and W the bandwidth of one thread, n flushes to the disk and f what one takes. g is the
rest, measured once on the reference core, and r how much slower the machine's core is on scalar code: timed here, by
published single-core scores on a device.
"""

import copy
import difflib
import os
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache, partial
from statistics import median
from tempfile import NamedTemporaryFile
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from harness.domain.base import Frozen, shipped_rows
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.prediction import Interval
from harness.domain.scenario import Scenario
from harness.predict.co_resident import read_bytes_per_s
from harness.predict.speed import predict_speed
from harness.workloads.system import Cost, Costs, PartPass

if TYPE_CHECKING:
    from harness.workloads.parts import SystemParts
    from harness.workloads.parts.onnx_model import OnnxModel

REFERENCE_SCORE: Final = 2600.0
"""Single-core score of the reference core, a Zen 5 server core in a virtual machine, on the table's scale. Assumed:
2050, from published scores of EPYC 9004 parts (Zen 4), times the ratio of the interpreter's speed on the two, 1.27."""
REFERENCE_TASK_S: Final = 5.1e-4
"""Seconds of :func:`core_s` on the reference core."""
SERIAL_SHARE: Final = 0.6
"""Share of all cores' bandwidth that one thread draws where it was not measured."""
CORE_FLOPS_PER_S: Final = 2.0e10
"""Peak of one core where a profile gives none: 2 fused operations x 4 lanes x 2.5 GHz, NEON's least."""
_KIND_SCORES: Final = {"phone": 1700.0, "tablet": 1700.0, "board": 750.0, "laptop": 2300.0, "edge-server": 1300.0}
FLUSH_S: Final = 2e-3
"""Seconds of a flush to the disk where nobody timed one: between a workstation's NVMe and a phone's flash. Assumed."""
_SPREAD_HERE: Final = 1.35
_SPREAD_THERE: Final = 2.0
_PROBED_SHAPES: Final = ((1, 16), (8, 64))
_TEXT: Final = "The harbour was quiet when they came back, and nobody on the pier asked where the two boats had been."


PassLaw = Callable[[PartPass], float]
"""Seconds of passes that are alike."""


class Law(NamedTuple):
    """A graph's passes: ``base_s`` for each and ``token_s`` for each token of each row."""

    base_s: float
    token_s: float

    def seconds(self, one: PartPass) -> float:
        """Seconds of passes that are alike."""
        return one.count * (self.base_s + self.token_s * one.rows * one.tokens)


class StepMachine(NamedTuple):
    """What decides the time of a step.

    Attributes:
        slowness: Time of scalar code over that on the reference core.
        read_bytes_per_s: Of one thread.
        flops_per_s: Of dense fp32 products on one thread.
        flush_s: To force a few pages to the disk.
        laws: Of each part that runs there; a step with a part that has none gets no number.
        spread_ratio: The interval is mid / spread to mid x spread.
        basis: Where the figures come from, in words.
    """

    slowness: float
    read_bytes_per_s: float
    flops_per_s: float
    flush_s: float = FLUSH_S
    laws: Mapping[str, PassLaw] = {}
    spread_ratio: float = _SPREAD_THERE
    basis: str = ""


class StepPrediction(Frozen):
    """What a step should take.

    Attributes:
        kind: Of the step.
        latency_s: None where a part cannot run there.
        parts_s: Seconds of each part, of ``products`` or ``reading``, whichever takes longer, ``disk`` and ``glue``.
        resident_bytes: Held beside the parts.
        note: Why there is no number, or what it rests on.
    """

    kind: str
    latency_s: Interval | None
    parts_s: dict[str, float] = {}
    resident_bytes: int = 0
    note: str = ""

    @property
    def limit(self) -> str:
        """What takes most of it."""
        return max(self.parts_s, key=lambda name: self.parts_s[name], default="")


def predict_steps(costs: Costs, machine: StepMachine) -> tuple[StepPrediction, ...]:
    """Every kind of step on a machine."""
    return tuple(_predict(kind, cost, machine) for kind, cost in costs.items())


def _predict(kind: str, cost: Cost, machine: StepMachine) -> StepPrediction:
    held = cost.resident_bytes + cost.file_bytes
    parts: dict[str, float] = {}
    for one in cost.passes:
        law = machine.laws.get(one.part)
        if law is None:
            note = f"its {one.part} passes cannot run there, or nobody timed them"
            return StepPrediction(kind=kind, latency_s=None, resident_bytes=held, note=note)
        parts[one.part] = parts.get(one.part, 0.0) + law(one)
    products_s, reading_s = cost.flops_count / machine.flops_per_s, cost.moved_bytes / machine.read_bytes_per_s
    longer = {"products": products_s} if products_s > reading_s else {"reading": reading_s}
    parts |= longer | {"disk": cost.flush_count * machine.flush_s, "glue": cost.glue_s * machine.slowness}
    mid, spread = sum(parts.values()), machine.spread_ratio
    return StepPrediction(
        kind=kind,
        latency_s=Interval(mid, mid / spread, mid * spread),
        parts_s={name: value for name, value in parts.items() if value},
        resident_bytes=held,
        note=machine.basis,
    )


def language_law(weights: Weights, device: DeviceProfile, scenario: Scenario) -> PassLaw:
    """Seconds of passes of that model on that device, from the prediction of a run of it."""

    @cache
    def seconds_of(tokens: int, depth_tokens: int) -> float:
        asked = scenario.replace(prompt_tokens=tokens, depth_tokens=depth_tokens, new_tokens=1)
        speed = predict_speed(weights, device, asked)
        return tokens / speed.prefill_tokens_per_s.mid if tokens > 1 else 1 / speed.decode_tokens_per_s.mid

    return lambda one: one.count * seconds_of(one.rows * one.tokens, one.depth_tokens)


def machine_here(laws: Mapping[str, PassLaw]) -> StepMachine:
    """The machine that this runs on, timed now, with the laws of the parts; :func:`core_here` times its core."""
    from harness.measure.bandwidth import read_bandwidth

    return StepMachine(
        slowness=1.0,
        read_bytes_per_s=read_bandwidth(1, 256 << 20, pass_count=3),
        flops_per_s=CORE_FLOPS_PER_S,
        flush_s=min(_flush_s() for _ in range(3)),
        laws=laws,
        spread_ratio=_SPREAD_HERE,
        basis="timed here before the run",
    )


def machine_there(device: DeviceProfile, here: StepMachine | None, laws: Mapping[str, PassLaw]) -> StepMachine:
    """A device by its profile, with laws of its own; parts that have none by what they take here, scaled."""
    cpu = next((engine for engine in device.engines if engine.kind == "cpu"), None)
    cores = max(1, cpu.core_count if cpu else 1)
    peak = cpu.peak_flops_per_s.get("fp32") if cpu else None
    slowness = REFERENCE_SCORE / single_core(device)

    def scaled(law: PassLaw, ratio: float) -> PassLaw:
        return lambda one: ratio * law(one)

    known = {name: scaled(law, slowness / here.slowness) for name, law in here.laws.items()} if here else {}
    return StepMachine(
        slowness=slowness,
        read_bytes_per_s=read_bytes_per_s(device) * (SERIAL_SHARE if cores > 1 else 1.0),
        flops_per_s=peak.value / cores if peak else CORE_FLOPS_PER_S,
        laws=known | dict(laws),
        basis="graphs and glue measured here and scaled by single-core speed, the language model by its own law",
    )


def single_core(device: DeviceProfile) -> float:
    """Published score of a device's best core on scalar code, by chip or core name; else typical of its kind."""
    cpu = next((engine.name for engine in device.engines if engine.kind == "cpu"), "")
    text = f"{device.chip} | {cpu}".lower()
    score = next((score for pattern, score in _scores() if re.search(pattern, text)), None)
    return score or _KIND_SCORES.get(device.kind, REFERENCE_SCORE)


@cache
def _scores() -> list[tuple[str, float]]:
    rows = shipped_rows("data/single_core.csv", "harness.workloads")
    return [(row["pattern"], float(row["score"])) for row in rows]


def _least_s(task: Callable[[], object], seconds: float) -> float:
    """The least time that the task took in so long: a disturbance, which may last a second, only ever slows it down."""
    until = perf_counter() + seconds
    times = [_once_s(task)]
    while perf_counter() < until:
        times.append(_once_s(task))
    return min(times)


def core_here() -> dict[str, float]:
    """Seconds of :func:`core_s` and FLOP/s of dense products: of this process, with the threads that its steps have."""
    one = np.ones((512, 512), np.float32)
    return {"best_s": core_s(), "flops_per_s": 2 * 512**3 / _least_s(lambda: one @ one, 0.5)}


def core_s() -> float:
    """Seconds of one round of scalar code when nothing slows it: text, objects, fractions, short calls of NumPy."""
    tree = {"a": [1, 2, (3, 4)], "b": {"c": ["x", "y", {"z": (5.0, None)}], "d": [[1], [2], [3]]}}
    few = np.arange(8.0)

    def task() -> None:
        for _ in range(4):
            difflib.SequenceMatcher(None, _TEXT[:40], _TEXT[30:70]).ratio()
            copy.deepcopy(tree)
            sum((Fraction(n, n + 7) for n in range(1, 9)), Fraction(0))
            for _ in range(20):
                np.maximum(few + few, 1.0).sum()

    return _least_s(task, 1.5)


def _flush_s() -> float:
    with NamedTemporaryFile() as file:

        def append() -> None:
            file.write(bytes(32 << 10))
            file.flush()
            os.fsync(file.fileno())

        return median(_once_s(append) for _ in range(9))


def _once_s(task: Callable[[], object]) -> float:
    begin = perf_counter()
    task()
    return perf_counter() - begin


def laws_of(parts: "SystemParts") -> dict[str, Law]:
    """The law of each graph among the parts, from passes of two shapes."""
    graphs = {"encoder": parts.encoder, "nli": parts.nli}
    return {name: _law(graph) for name, graph in graphs.items() if graph is not None}


def _law(graph: "OnnxModel") -> Law:
    times = {}
    for rows, tokens in _PROBED_SHAPES:
        ids = np.full((rows, graph.fixed_tokens or tokens), 7, np.int64)
        forward = partial(graph.forward, ids, np.ones_like(ids), np.zeros_like(ids))
        forward()
        times[ids.size] = _least_s(forward, 0.6)
    (small, small_s), (large, large_s) = min(times.items()), max(times.items())
    token_s = max((large_s - small_s) / (large - small), 0.0)
    return Law(base_s=max(small_s - token_s * small, 0.0), token_s=token_s)
