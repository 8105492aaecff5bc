"""How long a step takes: passes of its parts by their own laws, and the rest scaled by single-core speed.

t = sum of passes + max(F / P, M / W) + g r

A language model's passes are predicted as any run of it (``harness.predict``). A graph's pass of n tokens takes
a + b n, two figures timed on this machine before the first step. F are FLOP of dense products of one thread and P its
rate, M bytes read in order and W the bandwidth of one thread. g is the rest, measured once on the reference core, and
r how much slower the machine's core is on scalar code: timed here, by published single-core scores on a device.
"""

import copy
import csv
import difflib
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from importlib.resources import files
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.prediction import Interval
from harness.domain.scenario import Scenario
from harness.predict.co_resident import read_bytes_per_s
from harness.predict.speed import predict_speed
from harness.workloads.system import Cost, Pass

if TYPE_CHECKING:
    from harness.workloads.parts import Parts

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
_SPREAD_HERE: Final = 1.35
_SPREAD_THERE: Final = 2.0
_PROBED_SHAPES: Final = ((1, 16), (8, 64))
_TEXT: Final = "The harbour was quiet when they came back, and nobody on the pier asked where the two boats had been."


class Law(Frozen, frozen=True, kw_only=True):
    """Seconds of a graph's pass: ``base_s`` + ``token_s`` for each token of each row."""

    base_s: float
    token_s: float

    def seconds(self, one: Pass) -> float:
        """Seconds of passes that are alike."""
        return one.count * (self.base_s + self.token_s * one.rows * one.tokens)


class Machine(NamedTuple):
    """What decides the time of a step.

    Attributes:
        slowness: Time of scalar code over that on the reference core.
        read_bytes_per_s: Of one thread.
        flops_per_s: Of dense fp32 products on one thread.
        language: Seconds of passes of the language model; None where there is none.
        laws: Of each graph that runs there; one that is missing has no number.
        spread_ratio: The interval is mid / spread to mid x spread.
        basis: Where the figures come from, in words.
    """

    slowness: float
    read_bytes_per_s: float
    flops_per_s: float
    language: Callable[[Pass], float] | None = None
    laws: Mapping[str, Law] = {}
    spread_ratio: float = _SPREAD_THERE
    basis: str = ""

    def with_laws(self, laws: Mapping[str, Any]) -> "Machine":
        """The same with the laws of graphs that a child timed."""
        return self._replace(laws={name: Law(**law) for name, law in laws.items()})


class StepPrediction(Frozen, frozen=True, kw_only=True):
    """What a step should take.

    Attributes:
        kind: Of the step.
        latency_s: None where a part cannot run there.
        parts_s: Seconds of each part, of ``products``, ``reading`` and ``glue``; they add up but for the shorter of
            products and reading.
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


def predict_steps(costs: Mapping[str, Cost], machine: Machine) -> tuple[StepPrediction, ...]:
    """Every kind of step on a machine."""
    return tuple(_predict(kind, cost, machine) for kind, cost in costs.items())


def _predict(kind: str, cost: Cost, machine: Machine) -> StepPrediction:
    held = cost.resident_bytes + cost.file_bytes
    parts: dict[str, float] = {}
    for one in cost.passes:
        law = machine.language if one.part == "language" else getattr(machine.laws.get(one.part), "seconds", None)
        if law is None:
            note = f"its {one.part} passes cannot run there, or nobody timed them"
            return StepPrediction(kind=kind, latency_s=None, resident_bytes=held, note=note)
        parts[one.part] = parts.get(one.part, 0.0) + law(one)
    products_s, reading_s = cost.flops_count / machine.flops_per_s, cost.moved_bytes / machine.read_bytes_per_s
    longer = {"products": products_s} if products_s > reading_s else {"reading": reading_s}
    parts |= longer | {"glue": cost.glue_s * machine.slowness}
    mid, spread = sum(parts.values()), machine.spread_ratio
    return StepPrediction(
        kind=kind,
        latency_s=Interval(mid=mid, low=mid / spread, high=mid * spread),
        parts_s={name: value for name, value in parts.items() if value},
        resident_bytes=held,
        note=machine.basis,
    )


def language_law(weights: Weights, device: DeviceProfile, scenario: Scenario) -> Callable[[Pass], float]:
    """Seconds of passes of that model on that device, from the prediction of a run of it."""

    @cache
    def seconds_of(tokens: int, depth_tokens: int) -> float:
        asked = replace(scenario, prompt_tokens=tokens, depth_tokens=depth_tokens, new_tokens=1)
        speed = predict_speed(weights, device, asked)
        return tokens / speed.prefill_tokens_per_s.mid if tokens > 1 else 1 / speed.decode_tokens_per_s.mid

    return lambda one: one.count * seconds_of(one.rows * one.tokens, one.depth_tokens)


def machine_here(language: Callable[[Pass], float] | None) -> Machine:
    """The machine that this runs on, timed now in half a second; the laws of graphs come with the run."""
    from harness.measure.bandwidth import read_bandwidth

    return Machine(
        slowness=core_s() / REFERENCE_TASK_S,
        read_bytes_per_s=read_bandwidth(1, 256 << 20, pass_count=3).bytes_per_s,
        flops_per_s=_product_flops_per_s(),
        language=language,
        spread_ratio=_SPREAD_HERE,
        basis="timed here before the run",
    )


def machine_there(device: DeviceProfile, here: Machine | None, language: Callable[[Pass], float] | None) -> Machine:
    """A device by its profile; graphs by what they take here, where that is known, scaled by single-core speed."""
    cpu = next((engine for engine in device.engines if engine.kind == "cpu"), None)
    cores = max(1, cpu.core_count if cpu else 1)
    peak = cpu.peak_flops_per_s.get("fp32") if cpu else None
    slowness = REFERENCE_SCORE / single_core(device)
    ratio = slowness / here.slowness if here else 1.0
    laws = here.laws if here else {}
    return Machine(
        slowness=slowness,
        read_bytes_per_s=read_bytes_per_s(device) * (SERIAL_SHARE if cores > 1 else 1.0),
        flops_per_s=peak.value / cores if peak else CORE_FLOPS_PER_S,
        language=language,
        laws={name: Law(base_s=law.base_s * ratio, token_s=law.token_s * ratio) for name, law in laws.items()},
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
    lines = (files("harness.workloads") / "data" / "single_core.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return [(row["pattern"], float(row["score"])) for row in rows]


def core_s() -> float:
    """Seconds of one round of scalar code in this process: text, objects, fractions and short calls of NumPy."""
    tree = {"a": [1, 2, (3, 4)], "b": {"c": ["x", "y", {"z": (5.0, None)}], "d": [[1], [2], [3]]}}
    few = np.arange(8.0)

    def task() -> None:
        for _ in range(4):
            difflib.SequenceMatcher(None, _TEXT[:40], _TEXT[30:70]).ratio()
            copy.deepcopy(tree)
            sum((Fraction(n, n + 7) for n in range(1, 9)), Fraction(0))
            for _ in range(20):
                np.maximum(few + few, 1.0).sum()

    return _usual_s(task)


def _product_flops_per_s() -> float:
    one = np.ones((512, 512), np.float32)
    return 2 * 512**3 / _usual_s(lambda: one @ one)


def _usual_s(task: Callable[[], object], *, rounds: int = 25) -> float:
    times = []
    for _ in range(rounds):
        begin = perf_counter()
        task()
        times.append(perf_counter() - begin)
    return median(times)


def laws_of(parts: "Parts") -> dict[str, Law]:
    """The law of each graph among the parts, from passes of two shapes, the faster of five each."""
    graphs = {"encoder": parts.encoder, "nli": parts.nli}
    return {
        name: _law(graph.forward, graph.fixed_rows, graph.fixed_tokens)
        for name, graph in graphs.items()
        if graph is not None
    }


def _law(forward: Callable[..., object], fixed_rows: int | None, fixed_tokens: int | None) -> Law:
    times = []
    shapes = [(fixed_rows or rows, fixed_tokens or tokens) for rows, tokens in _PROBED_SHAPES]
    for rows, tokens in shapes:
        ids = np.full((rows, tokens), 7, np.int64)
        arguments = (ids, np.ones_like(ids), np.zeros_like(ids))
        forward(*arguments)
        times.append(_usual_s(lambda: forward(*arguments), rounds=5))  # noqa: B023  called before the next turn
    (small, large), counts = times, [rows * tokens for rows, tokens in shapes]
    if counts[0] == counts[1]:  # every pass of this graph is alike
        return Law(base_s=min(times), token_s=0.0)
    token_s = max((large - small) / (counts[1] - counts[0]), 0.0)
    return Law(base_s=max(small - token_s * counts[0], 0.0), token_s=token_s)
