"""How often the gate errs under a model of noise: no machine is needed.

A neighbour comes and goes (its states last several runs) and takes the processor from some tokens; the machine drifts.
The parameters are set so that a rule of the median token alone comes near what it came to on a shared machine: of gates
without a slowdown a quarter to four in ten inconclusive, of slowdowns of 5 % half found. Campaigns on real machines are
run by ``bench.gate_rates``.
"""

from collections.abc import Sequence
from math import exp
from random import Random
from typing import Final, NamedTuple

from harness.core.budget import Budget
from harness.core.record import SCHEMA_VERSION, MachineFingerprint, ModelIdentity, Record, Sample, Validity
from harness.core.scenario import Scenario
from harness.gates.judge import MOST_TURNS
from harness.gates.live import gate_in_turns

TOKENS: Final = 48
BUDGET: Final = Budget(metric="itl_p50_s", baseline_ratio=1.03)
MACHINE: Final = MachineFingerprint(system="Linux", kernel="", cpu_model="", core_count=2, ram_bytes=1, isa=(),
                                    memory_limit_bytes=1, python="", device="modelled")  # fmt: skip
MODEL: Final = ModelIdentity(name="m", quant="Q8_0", size_bytes=1, sha256="", architecture="llama", parameter_count=1)


class Noise(NamedTuple):
    """A machine that is shared.

    Attributes:
        token_spread: Spread of the log of a token's time on a quiet machine.
        drift: Spread of the log from run to run, of a walk that is drawn back by a tenth each run.
        busy_ratio: Share of runs in which a neighbour is there.
        stay_ratio: Chance that the neighbour does what it did before.
        hit_ratio: Least and greatest share of tokens that it takes the processor from.
        hit_delay_ratio: Mean delay of such a token, as a share of its time.
        doubts: What the runs beside the neighbour are marked with; nothing where it stays below the limits.
    """

    token_spread: float = 0.004
    drift: float = 0.003
    busy_ratio: float = 0.6
    stay_ratio: float = 0.7
    hit_ratio: tuple[float, float] = (0.25, 0.68)
    hit_delay_ratio: float = 0.35
    doubts: tuple[str, ...] = ()


QUIET: Final = Noise(busy_ratio=0.0)
SHARED: Final = Noise()


class Machine:
    """Draws runs one after the other."""

    def __init__(self, noise: Noise, seed: int) -> None:
        self.noise, self.draw = noise, Random(seed)
        self.level, self.busy, self.number = 0.0, self.draw.random() < noise.busy_ratio, 0

    def run(self, slowdown: float, slowed_ratio: float = 1.0) -> Record:
        """One run of a build that is so much slower, on every token or on a share of them."""
        noise, draw = self.noise, self.draw
        self.level = 0.9 * self.level + draw.gauss(0, noise.drift)
        if draw.random() > noise.stay_ratio:
            self.busy = draw.random() < noise.busy_ratio
        hit = draw.uniform(*noise.hit_ratio) if self.busy else 0.0
        times = []
        for _ in range(TOKENS):
            slow = slowdown if draw.random() < slowed_ratio else 0.0
            time_s = 0.01 * (1 + slow) * exp(self.level + draw.gauss(0, noise.token_spread))
            times.append(time_s * (1 + draw.expovariate(1 / noise.hit_delay_ratio) if draw.random() < hit else 1))
        self.number += 1
        sample = Sample(phase="decode", label=f"tg{TOKENS}", token_count=TOKENS, duration_s=sum(times),
                        started_unix_s=0.0, token_times_s=tuple(times),
                        validity=Validity(doubts=noise.doubts if self.busy else ()))  # fmt: skip
        return Record(
            schema_version=SCHEMA_VERSION, run_id=f"r{self.number}", harness_version="0", command=(),
            created=f"2026-01-01T00:00:00.{self.number:06}Z", workload="generate", machine=MACHINE,
            scenario=Scenario(), outcome="ok", model=MODEL, samples=(sample,),
        )  # fmt: skip


class Course(NamedTuple):
    """What one gate came to, and after how many turns."""

    answer: str
    turns: int


def run_gate(noise: Noise, slowdown: float, seed: int, max_turns: int = MOST_TURNS) -> Course:
    """One gate in turns."""
    machine = Machine(noise, seed)
    (judged,), new, _ = gate_in_turns(
        [BUDGET], lambda: machine.run(slowdown), lambda: machine.run(0.0), max_turns=max_turns
    )
    return Course(judged.answer, len(new))


def share(courses: Sequence[Course], answer: str) -> float:
    """Share of gates with that answer."""
    return sum(course.answer == answer for course in courses) / len(courses)
