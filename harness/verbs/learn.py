"""Measurements of a device, whoever made them, change what is believed of it: every later prediction uses that."""

import io
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import json

from harness.answer.nearest import model_of
from harness.answer.resolve import resolve_model
from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.errors import HarnessError, InputError, RefusedError
from harness.core.paths import learned_file
from harness.core.prediction import Interval
from harness.core.record import UNKNOWN_MACHINE, Record
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.models.quant import split
from harness.records.derive import speeds_of
from harness.records.imports import read_results
from harness.records.imports.pasted import from_text
from harness.records.store import write_atomically
from harness.speed.coefficients import Coefficients, Learned, TaughtSpeed, prior_digest, read_learned, shipped
from harness.speed.estimate import predict_speed
from harness.speed.fitted import machine_of
from harness.speed.interval import interval
from harness.speed.prefill import INT8_RATIO, prefill_base
from harness.speed.published.cells import Cells
from harness.speed.published.posterior import posterior
from harness.speed.published.rows import BY_BITS, PublishedRow, api_named, row_of, runtime_named

CONTRADICTS: Final = 3.0
"""Spreads from what the other measurements of the device say; one honest measurement in 370 is further off."""
IMPOSSIBLE_RATIO: Final = 1.15
"""Over the speed that the specification of the memory allows; weights kept in a cache make a small excess
possible."""
FASTEST_RATIO: Final = 2 * INT8_RATIO
"""Over the peak in fp16: 4-bit floats are the fastest products of matrix units, twice as fast as int8."""
SLOWEST_RATIO: Final = 0.01
"""Under the low end of what is believed: no test that runs where it should is slower."""
_PLAIN: Final = re.compile(r"(pp|tg)\d+( @ d\d+)?")
"""Tests of one sequence, its tokens given: no batch, no greedy choice, no users of a server."""
_REASONS: Final = {
    "no parameters": "no model of that name is known",
    "no model bytes": "its size is not known: name a model of `models show` and a mixture of llama.cpp, such as Q4_K_M",
}


class Taken(Frozen):
    """One measurement and the two beliefs around it, in tokens/s.

    ``doubt`` says why it contradicts the others of its machine, or could not be used; empty for none.
    """

    measurement: TaughtSpeed
    before: Interval | None = None
    after: Interval | None = None
    doubt: str = ""


class Lesson(Frozen):
    """What a device's measurements taught, and the file (``path``) that keeps it."""

    device: str
    taken: tuple[Taken, ...]
    path: str


def measurements_in(path: Path) -> list[tuple[str, TaughtSpeed]]:
    """Speeds in a file, each with what the file says of the device.

    The file holds records, results of another tool, pasted lines, or what was learnt elsewhere.

    Raises:
        BadDataError: It is none of these.
        InputError: No decode or prefill speed is in it that can be believed.
    """
    with path.open("rb") if path.is_file() else io.BytesIO() as file:  # no regular file is refused further on
        is_learned = b'"measurements"' in file.read(4096)
    if is_learned:
        learned = read_learned(path)
        return [(learned.device, one) for one in learned.measurements]
    found: list[tuple[str, TaughtSpeed]] = []
    for record in read_results(path):
        said = record.machine.device or record.machine.cpu_model
        if said == UNKNOWN_MACHINE.device:
            said = ""
        found += [(said, one) for one in _measurements(record)]
    if not found:
        raise InputError(
            f"{path}: no undisturbed speed of one sequence, with the whole model on one device and an F16 cache"
        )
    return found


def pasted_line(line: str) -> list[TaughtSpeed]:
    """Speeds of one pasted line, ``model quant pp tg``; BadDataError for another form."""
    return [one for record in from_text(line, "--line") for one in _measurements(record)]


def learn(device: Device, new: Iterable[TaughtSpeed]) -> Lesson:
    """Keep measurements of a device beside those that are kept already, and what follows from all of them.

    Raises:
        RefusedError: The device answers from costs that were timed on it, or no measurement can be used.
    """
    path = learned_file(device.name)
    if path.is_file():
        old = read_learned(path).measurements
    else:
        old = ()
    pairs = [
        (one, *_row(one, device)) for one in dict.fromkeys((*old, *(_by_api(one, device) for one in new)))
    ]
    used = [row for _, row, _ in pairs if row is not None]
    if not used:
        why = "; ".join(sorted({why for *_, why in pairs})) or "no measurement was given, and none is kept"
        raise RefusedError(f"nothing to learn of {device.name}: {why}")
    after, *others = posterior(shipped(), used)
    by_others = zip(*others, strict=True)
    taken = []
    for one, row, why in pairs:
        before = None
        now = None
        doubt = why
        if row is not None:
            ln_s, spread = next(by_others)
            before = _told(row, one, shipped())
            now = _told(row, one, after)
            doubt = ""
            if len(used) > 1:
                doubt = _contradiction(row, ln_s, spread)
        taken.append(Taken(measurement=one, before=before, after=now, doubt=doubt))
    kept = tuple(one for one, row, _ in pairs if row is not None)
    learned = Learned(device=device.name, measurements=kept, prior=prior_digest(), coefficients=after)
    write_atomically(path, json.encode(learned))
    return Lesson(device=device.name, taken=tuple(taken), path=str(path))


def forget(device: str) -> Path:
    """Forget what was learnt of a device; RefusedError where nothing was."""
    path = learned_file(device)
    if not path.is_file():
        raise RefusedError(f"nothing was learnt of {device}")
    path.unlink()
    return path


def devices_of(
    found: Iterable[tuple[str, TaughtSpeed]],
) -> tuple[dict[str, list[TaughtSpeed]], dict[str, int]]:
    """Measurements by the device whose name or chip the records say, and the count of those by no known one."""
    known: dict[str, list[TaughtSpeed]] = {}
    unknown: Counter[str] = Counter()
    for said, one in found:
        try:
            known.setdefault(load_device(said).name, []).append(one)
        except HarnessError:  # a name that says what cannot be, such as 0 cards, is no known device either
            unknown[said or "no device named"] += 1
    return known, unknown


def _measurements(record: Record) -> list[TaughtSpeed]:
    """One for each plain test of a record: the median of the samples that count.

    None of a run under another workload, in a batch, split over devices or with another cache: the fit would
    take its speed for the device's.
    """
    asked = record.scenario
    model = record.model
    is_plain = asked.batch_count == 1 and asked.kv_type == "F16" and asked.value_type in {"", "F16"}
    is_whole = asked.api == "cpu" or asked.placement.whole(routed=True)
    is_well = record.outcome == "ok" and record.workload == "generate"
    if model is None or not (is_plain and is_whole and is_well):
        return []
    runtime = record.runtime or (record.engine.name if record.engine else "")
    runtime = "llama.cpp" if runtime.startswith(("llama", "pasted")) else runtime_named(runtime)
    return [
        TaughtSpeed(
            model=model.name,
            quant=model.quant,
            test=label,
            tokens_per_s=float(f"{speed:.6g}"),
            api=asked.api,
            runtime=runtime,
            parameter_count=model.parameter_count,
            thread_count=asked.thread_count,
            date=record.created[:10] if record.created > "1971" else "",
        )
        for label, speed in speeds_of(record).items()
        if _PLAIN.fullmatch(label)
    ]


def _by_api(one: TaughtSpeed, device: Device) -> TaughtSpeed:
    """The measurement with the api that it means on this device."""
    named = ""
    if one.api:
        named = api_named(one.api)
    return one.replace(api=device.api("" if named == "other" else named))


def _row(one: TaughtSpeed, device: Device) -> tuple[PublishedRow | None, str]:
    """The measurement as the fit sees a published one, or why it cannot be used."""
    api = one.api
    if device.engine_for(api) is None:
        return None, f"{device.name} has no api {api!r}"
    if device.calibration(api) is not None:
        return (
            None,
            f"{device.name} answers from the costs of its engine ({api}), which `devices probe` timed on it",
        )
    machine = machine_of(device, Scenario(api=api, thread_count=one.thread_count))
    cells = {
        "chip": device.chip,
        "backend": api,
        "device_class": device.kind,
        "memory_bandwidth_gb_s": str(machine.bandwidth_bytes_per_s / 1e9),
        "model": one.model,
        "quant": one.quant or split(one.model)[1] or "Q4_K_M",  # what most people run
        "params_b": str(one.parameter_count / 1e9),
        "test": one.test,
        "tokens_per_s": str(one.tokens_per_s),
        "n_threads": str(one.thread_count),
        "date": one.date,
    }
    row = row_of(Cells(cells, f"{one.model} {one.test}", 0), model_of)
    why = _REASONS.get(row.reason, row.reason)
    if row.raw.get("derived") == BY_BITS:
        why = _REASONS["no model bytes"]
    year = row.machine.build_year if one.date else machine.build_year
    if row.work is not None and not why:
        row = row._replace(
            machine=machine, work=row.work._replace(model="")
        )  # `fit` knows no level of a model
        why = _impossible(row, device)
    if why:
        return None, f"{one.model} {one.quant}: {why}"
    measured = row.measured * _ratio_to_fit(row, device, one)
    return row._replace(measured=measured, machine=machine._replace(runtime=one.runtime, build_year=year)), ""


def _ratio_to_fit(row: PublishedRow, device: Device, one: TaughtSpeed) -> float:
    """Speed of a row by the law of published rows, over what `fit` says of the same test.

    A row knows of its model what its file tells, `fit` each tensor: what is learnt is how far a measurement
    lies from `fit`, so that its own figure teaches nothing.
    """
    try:
        weights = resolve_model(one.model, row.raw["quant"]).weights
    except HarnessError:
        return 1.0
    tokens = max(round(row.prompt.tokens), 1)
    asked = Scenario(api=one.api, thread_count=one.thread_count, prompt_tokens=tokens, new_tokens=tokens)
    depth = row.depth_tokens
    if row.phase == "decode":
        depth -= tokens / 2
    said = predict_speed(weights, device, asked.replace(depth_tokens=max(round(depth), 0)), shipped())
    speed = said.prefill_tokens_per_s.mid
    if row.phase == "decode":
        speed = said.decode_tokens_per_s.mid
    return _speed(row, shipped()).mid / speed


def _impossible(row: PublishedRow, device: Device) -> str:
    """Why nobody measures such a speed on a device where the model runs as it should; empty where one may.

    Decoding reads weights and cache at no more than the bandwidth; a prompt takes its operations at no more
    than ``FASTEST_RATIO`` of the peak in fp16.
    """
    assert row.work is not None
    held = float(row.raw["model_bytes"])
    pool = device.pool(device.pool_for(row.machine.api))
    if held > pool.total_bytes.value:
        return f"its {held / 1e9:.3g} GB do not fit in the {pool.name} of {device.name}"
    if row.phase == "decode":
        most = row.machine.bandwidth_bytes_per_s / (row.work.weight_bytes + row.work.kv_bytes)
        what = "decodes it"
        limit = "memory"
        margin = IMPOSSIBLE_RATIO
    else:
        base = prefill_base(row.work, row.machine, row.prompt)
        most = FASTEST_RATIO * row.token_count / (base["weights"] + base["attention"])
        what = "reads a prompt"
        limit = "arithmetic"
        margin = 1.0
    if row.measured > margin * most:
        return f"no {device.name} {what} at {row.measured:g} tokens/s: its {limit} allows {most:.3g}"
    low = _speed(row, shipped()).low
    if row.measured < SLOWEST_RATIO * low:
        return f"{row.measured:g} tokens/s are under a hundredth of {low:.3g}, the least that is believed"
    return ""


def _speed(row: PublishedRow, belief: Coefficients) -> Interval:
    assert row.work is not None
    ln_s, slopes = row.predicted(belief.values)
    speed = row.token_count / math.exp(ln_s)
    return interval(speed, belief.half_width(slopes, row.phase, row.work, row.machine))


def _told(row: PublishedRow, one: TaughtSpeed, belief: Coefficients) -> Interval:
    """What `fit` says of a measurement by this belief."""
    ratio = one.tokens_per_s / row.measured
    return _speed(row, belief).through(lambda speed: speed * ratio)


def _contradiction(row: PublishedRow, ln_s: float, spread: float) -> str:
    """How far a row lies from what the others let expect; empty where that is chance."""
    spreads = abs(ln_s - row.ln_s) / spread
    if spreads <= CONTRADICTS:
        return ""
    expected = row.token_count / math.exp(ln_s)
    return f"contradicts the others: they let expect {expected:.3g} tokens/s ({spreads:.1f} spreads away)"
