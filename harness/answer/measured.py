"""What was measured beside what is predicted: a run of the same thing here, and what may explain a difference."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from harness.answer.case import Case
from harness.answer.ways import predict
from harness.core.base import Frozen
from harness.core.device import Pool
from harness.core.errors import HarnessError
from harness.core.placement import Placement
from harness.core.prediction import Interval
from harness.core.way import Way
from harness.models.weights import weights_of
from harness.speed.energy import Sustained

if TYPE_CHECKING:
    from harness.core.record import Record  # it brings every kind of result, and questions need none

_NEAR_RATIO = 1.3
"""Between a measured speed and that of a cause which may explain it."""
_CLEARLY_SLOWER = 0.9


class MeasuredHere(Frozen):
    """What the newest undisturbed run of the same thing on this machine measured.

    Attributes:
        created: When, RFC 3339, UTC.
        runtime: Software that ran it.
        first_token_s: None where the run timed none.
        peak_bytes: None where nobody watched.
    """

    run_id: str
    created: str
    runtime: str
    decode_tokens_per_s: float
    first_token_s: float | None = None
    peak_bytes: int | None = None


def measured_here(case: Case, way: Way) -> MeasuredHere | None:
    """The newest run on this machine of the same file, engine, threads and context; None without one."""
    from harness.measure.pipeline import open_history
    from harness.records.derive import summarise  # it brings numpy, and most questions need no history

    with suppress(HarnessError):
        history = open_history()
        if not history.path.exists():
            return None
        for record in history.records(limit=50, workload="generate", outcome="ok", model=case.model.name):
            if not _is_same(record, case, way):
                continue
            tests = summarise(record)
            decode = tests.test("decode")
            first = tests.test("first_token")
            if decode is None or decode.value is None:
                continue
            return MeasuredHere(
                run_id=record.run_id,
                created=record.created,
                runtime=record.runtime,
                decode_tokens_per_s=decode.value,
                first_token_s=first.value if first else None,
                peak_bytes=(record.memory.peak_rss_bytes or None) if record.memory else None,
            )
    return None


def _is_same(record: "Record", case: Case, way: Way) -> bool:
    """Whether a run was of this model, as it is asked about, on this machine as it is now."""
    model = record.model
    asked = way.scenario
    ran = record.scenario
    if model is None or record.target != "local" or record.machine.fingerprint != case.device.machine:
        return False
    same_file = model.name == case.model.name and model.quant == case.model.quant
    same = all(getattr(asked, name) == getattr(ran, name) for name in _SAME_FIELDS)
    threads = asked.thread_count or ran.thread_count
    return same_file and same and threads == ran.thread_count and ran.api in {"", asked.api}


_SAME_FIELDS: Final = (
    *("context_tokens", "prompt_tokens", "depth_tokens", "batch_count"),
    *("kv_type", "repack", "mmap", "placement"),
)
"""Fields of a scenario in which two runs must agree."""


class SpeedCause(Frozen, kw_only=False):
    """One thing that may be otherwise than asked, the decode speed that it would give, and what to try."""

    cause: str
    tokens_per_s: float
    advice: str


def causes(measured: float, case: Case, decode: Interval, late: Sustained | None) -> list[SpeedCause]:
    """What is predicted to be about as slow as what was measured, the nearest first; at most three.

    ``case`` is placed as it was predicted to run, at ``decode`` tokens/s.
    """

    def distance(one: SpeedCause) -> float:
        return max(one.tokens_per_s / measured, measured / one.tokens_per_s)

    found = []
    if late is not None:
        warm = f"the device is warm, as after {late.minutes:g} minutes"
        found.append(SpeedCause(warm, late.tokens_per_s.mid, "let it cool, or raise its power limit"))
    for cause, advice, other in _otherwise(case):
        with suppress(HarnessError):  # the device has no such engine
            found.append(SpeedCause(cause, predict(other).speed.decode_tokens_per_s.mid, advice))
    slowest = _CLEARLY_SLOWER * decode.mid
    near = [one for one in found if distance(one) < _NEAR_RATIO and one.tokens_per_s < slowest]
    return sorted(near, key=distance)[:3]


def _otherwise(case: Case) -> Iterator[tuple[str, str, Case]]:
    """What is known to make it slower, what to try, and the case as it then is."""
    model = case.model
    device = case.device
    read_log = "look for `offloaded` in the program's log"
    room = max(case.scenario.context_tokens // case.scenario.batch_count - case.scenario.new_tokens, 0)
    yield f"{room:,} tokens are in the cache", "start a new conversation", case.at(depth_tokens=room)
    if any(engine.kind == "gpu" for engine in device.engines):
        on_cpu = case.at(api="cpu", placement=Placement())
        yield "all layers are run by the CPU", f"install the build for your GPU, and {read_log}", on_cpu
        half = case.at(placement=Placement(gpu_layers=model.weights.shape.layer_count // 2))
        yield "half of the layers are run by the CPU", f"-ngl 99, a shorter context, and {read_log}", half
    halved = case._replace(device=device.replace(pools=tuple(map(_halved, device.pools)), calibrations=()))
    slots = "fill both channels, switch on its profile (XMP, EXPO), leave power saving"
    if device.kind not in {"desktop", "workstation", "server"}:
        slots = "look for a power-saving mode, heat, and a weak power supply"
    yield "memory is at half its speed", slots, halved
    yield "one thread computes", "-t with the number of fast cores", case.at(thread_count=1)
    for quant in ("Q8_0", "F16"):
        with suppress(HarnessError):  # no table of tensors for this architecture
            bigger = model._replace(quant=quant, weights=weights_of(model.weights.shape, quant))
            cause = f"the file is {quant}, not {model.quant}"
            yield cause, "read its type in the program's log", case._replace(model=bigger)


def _halved(pool: Pool) -> Pool:
    bandwidth = pool.bandwidth_bytes_per_s
    return pool.replace(bandwidth_bytes_per_s=bandwidth.replace(value=bandwidth.value / 2))
