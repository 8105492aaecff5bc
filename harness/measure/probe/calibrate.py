"""Learn an engine's own costs on this machine from tiny models, before any real one runs.

Nothing here has seen a real model: the tiny ones have random weights and shapes of their own. What is fitted
are the terms of ``harness.speed.timed``, each from the benches that show it, in several rounds. A
difference between two benches is that of the same round, since a machine may change its speed between two:

    shallow, deep         t0 and l(B) = l0 + B l1: two models that differ in depth only, with next to no weights
    grouped, ungrouped    attention: time that 2,048 tokens of depth add, with few and with many KV heads
    narrow, mid, wide,    bytes c(B) + rows r(B) + products u(B): weights of one type, several times the last-level
    head                  cache, in rows of 512 to 2,048 weights, and as one product of very many rows; fewer layers
                          of the same for batches of prefill size, and for a GPU once more with the weights
                          left with the CPU: bytes that are copied, and the waiting for each
"""

import contextlib
import hashlib
import math
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from harness.core import plugins
from harness.core.device import Calibration, TypeCost
from harness.core.errors import EngineError, HarnessError, RefusedError
from harness.core.grouping import grouped
from harness.core.paths import home_dir
from harness.core.placement import OFFLOAD_TOKENS
from harness.core.units import format_bytes
from harness.hardware.cpus import cores
from harness.hardware.threads import default_thread_count
from harness.measure import machine
from harness.measure.child import Limits, run_helper
from harness.measure.probe.bandwidth import WorkingSets, cache_found, cached_shares, sweep
from harness.measure.probe.calibrate_child import DEPTH_TOKENS, TABLE, UNEVEN_RATIO, Job, dimensions
from harness.measure.probe.tiny_model import TINY_TYPES, matrices
from harness.records.store import write_atomically

if TYPE_CHECKING:
    from harness.measure.pipeline import Listener

_LOOKING_BACK: Final = ("grouped", "ungrouped")
_WEIGHTY: Final = ("narrow", "mid", "wide", "head", "narrow few", "wide few")
_OF_PRODUCTS: Final = ("byte", "row", "product")
_OF_NO_PRODUCT: Final = ("pass", "layer", "token layer", "prompt flop", "row", "product")
"""Parts of a pass that are told before the bytes of a type."""

DEFAULT_TYPES: Final = (
    "F16",
    "Q8_0",
    "Q4_0",
    "Q4_1",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q2_K",
    "Q3_K",
    "Q5_0",
    "IQ4_XS",
)

MINIMUM_FILL_BYTES: Final = 96 * 2**20
LEAST_FILL_BYTES: Final = 4 * 2**20
"""Smaller models say nothing of weights any more."""
CACHE_MULTIPLE: Final = 3
_CACHED_SHARE: Final = 0.4
_LEAST_CACHED_BYTES: Final = 8 * 2**20
_GROUP_FILLS: Final = 13 / 3
"""Tiny models of a type that are open at once, in fills: four whole ones, two of a sixth."""
_WRITE_BYTES_PER_S: Final = 0.7e9
_PASS_S_PER_BYTE: Final = 1.2e-8
"""Of all passes of a type's benches in one round, with one thread: 140 tokens together, each reading the
weights."""
_OVERHEADS_S, _TYPE_S = 6.0, 9.0
_LEAST_BUDGET_S: Final = 25.0
_GPU_TYPE_S: Final = 60.0
"""Told beforehand; it may take until its limit."""
_ONE_BY_ONE_RATIO: Final = 2.0
"""Three tokens multiplied one by one, over four together."""
_SLOWEST_ATTENTION: Final = 16
"""Attention of a prompt over that of one token, at most: the same products, of many rows at once. 3.5 on
AVX2."""
_PAIR_FLOPS: Final = 256.0
"""Of a query and a position, with heads of 64 as tiny models have them."""
_SLOWEST_CACHE: Final = 8
"""Reading weights over reading a KV cache, at most."""
_FASTER_THAN_SWEEP: Final = 1.5
"""An engine's best reading over that of the sweep's kernel, at most."""
_QUOTA_STRETCH_S: Final = 0.6
"""Several periods of a quota: what it takes is part of the speed."""
_CACHE_VERSION: Final = 13
DISTURBED_RATIO: Final = 0.25
"""Share of benches that were disturbed each time, above which a calibration is used but not kept."""
USELESS_RATIO: Final = 0.6
"""The same, above which published costs know more of the machine."""
_LACKING_SPREAD_RATIO: Final = 0.1
"""What the interval of a speed gains for each bench that failed."""

Key = tuple[str, str, int, int]
"""Type, role, batch and depth."""
Times = Mapping[Key, Mapping[int, float]]
"""Mean time of a pass in each round, by what was timed."""


def sized(
    cache_bytes: int, limit_bytes: int, folder_bytes: int, budget_s: float, *, threads: int = 1
) -> tuple[int, str]:
    """Bytes of a tiny model's weights, and what decided that they are not more: cache, memory, disk or time.

    Args:
        cache_bytes: What the caches hold, as it was found.
        limit_bytes: Memory that this process may use; a quarter of it holds all models of a type, and what
            the engine rewrites of them. A mapped file shares its pages with a folder that lies in memory.
        folder_bytes: Free where temporary files lie; a quarter of it may be filled.
        budget_s: For one visit of a type.
        threads: That compute.

    Raises:
        RefusedError: There is no room for models that would say anything.
    """
    second_s = _GROUP_FILLS / _WRITE_BYTES_PER_S + _PASS_S_PER_BYTE / threads
    bounds = [
        (max(MINIMUM_FILL_BYTES, CACHE_MULTIPLE * cache_bytes), "several times the cache"),
        (limit_bytes / 4 / (2 * _GROUP_FILLS), "a quarter of the memory limit"),
        (folder_bytes / 4 / _GROUP_FILLS, f"a quarter of what is free in {tempfile.gettempdir()}"),
        (budget_s / second_s, "time"),
    ]
    size, bound = min(bounds)
    if size < LEAST_FILL_BYTES:
        raise RefusedError(
            f"the engine is not timed: {bound} leaves {format_bytes(size)} for each tiny model, expected at least "
            f"{format_bytes(LEAST_FILL_BYTES)}"
        )
    return int(size), bound


def calibrate(
    types: Iterable[str],
    *,
    heard: "Listener",
    title: str = "the engine",
    thread_count: int = 0,
    repack: bool = True,
    fresh: bool = False,
    api: str = "cpu",
    runtime: str = "llamacpp",
    working_sets: WorkingSets = (),
    limit_s: float = 1800.0,
) -> Calibration:
    """Costs of a runtime on this machine for those types.

    Timed in a child process and kept for the next time.

    Some 9 s a type on two cores and 6 s for the overheads, 25 s at least; a minute of each on a GPU. Types
    that no tiny model can be made of, and F32, are left out; ``fresh`` times again what was kept. A
    ``thread_count`` of 0 takes what runs take. The api says which engine is timed; a GPU gets its link and
    its crossings timed too. ``working_sets`` are those of the profile, measured where none are given.
    ``heard`` is told when something is timed, and of what, the ``title``; what was kept is told nobody.

    Raises:
        MissingPackageError: No package that brings the runtime is installed.
        EngineError: Nothing was timed within ``limit_s``, other programs disturbed most of it, the child
            ended again and again, or the engine has no device of that api.
        RefusedError: None of the types can be timed, or there is no room for it.
    """
    wanted = sorted(set(types) & TINY_TYPES - {"F32"})
    if not wanted:
        raise RefusedError(f"none of the types {sorted(set(types))} can be calibrated")
    place = _place(thread_count, repack, api, runtime)
    before = None
    if not fresh:
        before = kept(thread_count=thread_count, repack=repack, api=api, runtime=runtime)
    timed = before.types if before is not None else ()
    missing = [name for name in wanted if name not in {cost.type_name for cost in timed}]
    if before is not None and not missing:
        return before
    limit = machine.memory().limit_bytes
    threads = thread_count or default_thread_count()
    least_s = min(max(_LEAST_BUDGET_S, _OVERHEADS_S + _TYPE_S * len(missing)), limit_s)
    sets: WorkingSets = ()
    if api == "cpu":
        sets = working_sets or sweep(threads, machine.cpu().last_cache_bytes, limit)
        table, budget_s, within_s = TABLE["cpu"], least_s, least_s
    else:
        table, budget_s, within_s = TABLE["gpu"], limit_s, _GPU_TYPE_S * len(missing)
    heard.begin(f"timing {title}", within_s=within_s)
    cache = cache_found(sets)
    free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    size_bytes, bound = sized(cache, limit, free_bytes, least_s / len(missing) / 2, threads=threads)
    cached_bytes = int(min(_CACHED_SHARE * cache, size_bytes / 4))
    if cached_bytes < _LEAST_CACHED_BYTES:
        cached_bytes = 0
    timing = dict(table["timing"])
    if (cores().quota_count or threads) < threads:
        timing["stretch_s"] = _QUOTA_STRETCH_S
    job = Job(
        types=tuple(missing),
        fill_bytes=size_bytes,
        cached_bytes=cached_bytes,
        thread_count=threads,
        runtime=runtime,
        api=api,
        repack=repack,
        budget_s=budget_s,
        limit_s=limit_s,
        **timing,
    )
    heard.say(
        f"timing {title} on tiny models of {format_bytes(size_bytes)} ({bound}): about {within_s:.0f} s"
    )
    events = _run(job, heard.say)
    costs = fit(events["timing"], missing, size_bytes, cached_bytes, failed_count=len(events["failed"]))
    loads = load_seconds_per_byte(events["built"])
    repacked = {model["type_name"] for model in events["built"] if model["repacked"]}
    every = list(timed)
    for timed_cost in costs.types:
        name = timed_cost.type_name
        cost = no_faster(timed_cost, sets)
        every.append(cost.replace(repacked=name in repacked, load_s_per_byte=loads.get(name, 0.0)))
    about = dict(*events["process"])
    rounds = _by_bench(events["timing"]).values()
    disturbed = fmean(all(event["doubted"] for event in told) for told in rounds)
    costs = costs.replace(
        api=api,
        engine_version=plugins.usable_runtime(runtime).package(),
        thread_count=threads,
        machine=machine.fingerprint().fingerprint,
        cached_shares=cached_shares(sets, cached_bytes) if cached_bytes else (),
        process_anonymous_bytes=about.get("anonymous_bytes", 0),
        process_file_bytes=about.get("file_bytes", 0),
        isa=tuple(about["isa"]) if about.get("isa") is not None else None,
        types=tuple(every),
        disturbed_ratio=disturbed if disturbed > DISTURBED_RATIO else 0.0,
    )
    if disturbed > USELESS_RATIO:
        raise EngineError(
            f"other programs disturbed {disturbed:.0%} of the benches each time: stop them and try again"
        )
    if costs.disturbed_ratio:
        heard.say(
            f"the machine was disturbed during {disturbed:.0%} of the calibration: it is not kept; stop other programs"
        )
    else:
        write_atomically(place, msgspec.json.encode(costs))
    return costs


def kept(
    *, thread_count: int = 0, repack: bool = True, api: str = "cpu", runtime: str = "llamacpp"
) -> Calibration | None:
    """The times that were kept of this machine, with this engine and these settings.

    It is None where nothing was timed with just these settings.
    """
    # no engine, no folder to keep anything in, nothing kept, or of an older shape: time again
    with contextlib.suppress(HarnessError, OSError, msgspec.DecodeError):
        place = _place(thread_count, repack, api, runtime)
        return msgspec.json.decode(place.read_bytes(), type=Calibration)
    return None


def fit(
    events: Sequence[Mapping[str, Any]],
    types: Sequence[str],
    fill_bytes: int,
    cached_bytes: int = 0,
    *,
    failed_count: int = 0,
) -> Calibration:
    """Costs from the child's timings; the engine's name and threads are the caller's to fill in.

    What a bench that failed would have told is left at no cost, or at that of its neighbours, and widens the
    interval.

    Raises:
        EngineError: No type was timed at all.
    """
    times = stretches(events)
    seconds: dict[str, float] = defaultdict(float)
    lacking_count = failed_count

    def bench(role: str, batch: int = 1, depth: int = 0) -> Key:
        return "F16", role, batch, depth

    small = [b for t, role, b, _ in times if t == "F16" and role == "shallow" and b < OFFLOAD_TOKENS]
    back, before = DEPTH_TOKENS, DEPTH_TOKENS - 512
    for parts, rows in (
        # Differences: a hiccup while the lesser one ran says nothing of them.
        (("layer", "token layer"), [(bench("deep", b), bench("shallow", b)) for b in small or [1]]),
        (("pass",), [(bench("shallow"), None)]),
        (("pair", "kv byte"), [(bench(role, 1, back), bench(role)) for role in _LOOKING_BACK]),
        (("prompt flop",), [(bench(role, 512, before), bench(role, 512)) for role in _LOOKING_BACK]),
    ):
        try:
            seconds |= solved(times, parts, rows, seconds, fill_bytes)
        except KeyError:
            lacking_count += 1
    known = [
        _type_cost(times, name, fill_bytes, cached_bytes, seconds)
        for name in types
        if any((name, role, 1, 0) in times for role in _WEIGHTY)
    ]
    if not known:
        raise EngineError(f"the engine was timed on none of the types {', '.join(types)}")
    lacking_count += len(types) - len(known)
    byte_s = min(cost.batch_seconds_per_byte[0][1] for cost in known)
    crossings_s = 0.0
    with contextlib.suppress(KeyError):  # no GPU
        crossings_s = max(typical_s(times, bench("deep apart"), bench("deep")), 0.0)
    kv_byte_s, prompt_s = byte_s, seconds["prompt flop"]
    if prompt_s:
        # A byte of the cache that costs nothing is hidden behind the products.
        kv_byte_s = min(max(seconds["kv byte"], 1e-12), _SLOWEST_CACHE * byte_s)
    return Calibration(
        api="cpu",
        engine_version="",
        thread_count=0,
        types=tuple(known),
        token_overhead_s=seconds["pass"],
        layer_overhead_s=seconds["layer"],
        token_layer_s=seconds["token layer"],
        kv_read_bytes_per_s=1 / kv_byte_s,
        attention_pair_s=min(seconds["pair"], _SLOWEST_ATTENTION * _PAIR_FLOPS * (prompt_s or 1.0)),
        attention_flops_per_s=1 / (prompt_s or byte_s),
        spread_ratio=_LACKING_SPREAD_RATIO * lacking_count,
        # One change to the CPU and back: what a layer with its cache left behind takes longer.
        crossing_s=crossings_s / dimensions("deep", "F16", 0).layer_count,
        link_bytes_per_s=_link_bytes_per_s(times, fill_bytes),
    )


def stretches(events: Iterable[Mapping[str, Any]]) -> dict[Key, dict[int, float]]:
    """Mean time of a pass in each round, by what was timed: a run is timed so too, tokens over the time of a stretch.

    Passes that took several times as long as the bench's fastest waited for another program, and are left
    out. Where every round was disturbed, the fastest pass of all counts: a disturbance only ever slows one
    down. Nothing takes longer than the same with more tokens, but for the kernels: few tokens may be
    multiplied one by one, where several go together.
    """
    times: dict[Key, dict[int, float]] = {}
    for key, told in _by_bench(events).items():
        fastest = min(told, key=lambda event: float(min(event["times"])))
        least = min(fastest["times"])
        means = {}
        for event in told:
            even = [seconds for seconds in event["times"] if seconds <= UNEVEN_RATIO * least]
            if even and not event["doubted"]:
                means[event["turn"]] = fmean(even)
        times[key] = means or {fastest["turn"]: least}
    bounds: dict[tuple[str, str, int], float] = defaultdict(lambda: math.inf)
    for key in sorted(times, key=lambda key: -key[2]):
        type_name, role, batch, depth = key
        own, bench = times[key], (type_name, role, depth)
        most = bounds[bench] * (1.0 if batch == 1 else _ONE_BY_ONE_RATIO)
        bounds[bench] = min(bounds[bench], *own.values())
        times[key] = {turn: min(seconds, most) for turn, seconds in own.items()}
    return times


def _by_bench(events: Iterable[Mapping[str, Any]]) -> dict[Key, list[Mapping[str, Any]]]:
    """Every round's event of each bench."""
    return grouped(events, itemgetter("type_name", "role", "batch", "depth"))


def typical_s(times: Times, key: Key, less: Key | None = None) -> float:
    """Time of a pass: the median of its rounds.

    With ``less``: what it takes longer than that one, both in the same round where one has both.

    Raises:
        KeyError: One of them was not timed.
    """
    mine = times[key]
    if less is not None:
        mine = {turn: value - times[less][turn] for turn, value in mine.items() if turn in times[less]}
        if not mine:
            return typical_s(times, key) - typical_s(times, less)
    return median(mine.values())


def nonnegative_fit(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Coefficients of at least 0 with the least sum of squared relative errors."""
    from scipy.optimize import nnls

    table = np.asarray(rows, float) / np.asarray(values, float)[:, None]
    scale = np.maximum(table.max(axis=0), 1e-300)  # bytes and products differ by nine orders of magnitude
    return [float(value) for value in nnls(table / scale, np.ones(len(table)))[0] / scale]


def work_of(key: Key, size_bytes: int) -> dict[str, float]:
    """What a pass of a tiny model does, by what each of it takes seconds of its own."""
    type_name, role, batch, depth = key
    shape = dimensions(role, type_name, size_bytes)
    products = matrices(shape, type_name)
    pairs = shape.layer_count * shape.head_count * batch * (depth + (batch + 1) / 2)
    return {
        "pass": 1.0,
        "layer": shape.layer_count,
        "token layer": shape.layer_count * batch,
        "kv byte": shape.layer_count * depth * shape.kv_head_count * shape.head_dim * 2 * 2.0,
        "pair": pairs,
        "prompt flop": pairs * _PAIR_FLOPS if batch >= OFFLOAD_TOKENS else 0.0,
        "byte": sum(tensor.size_bytes for tensor in products),
        "row": sum(tensor.dims[1] for tensor in products),
        "product": len(products),
    }


def solved(
    times: Times,
    parts: Sequence[str],
    rows: Iterable[tuple[Key, Key | None]],
    known: Mapping[str, float],
    size_bytes: int,
) -> dict[str, float]:
    """Seconds of each part, from the times of passes, or from what one takes longer than another.

    A part that no pass shows has 0. The time of ``known`` parts is taken from each pass first, and at least a
    twentieth of the pass is left.

    Raises:
        KeyError: A pass was not timed.
    """
    table, values = [], []
    for key, less in rows:
        taken_s, work = typical_s(times, key, less), work_of(key, size_bytes)
        if less is not None:
            work = {part: count - work_of(less, size_bytes)[part] for part, count in work.items()}
        own_s = max(
            taken_s - sum(known[part] * work[part] for part in _OF_NO_PRODUCT if part in known), taken_s / 20
        )
        if own_s > 0:
            table.append([work[part] for part in parts])
            values.append(own_s)
    told = parts[: len(table)]
    found = nonnegative_fit([row[: len(told)] for row in table], values) if table else ()
    return dict.fromkeys(parts, 0.0) | dict(zip(told, found, strict=True))


def _type_cost(
    times: Times, type_name: str, fill_bytes: int, cached_bytes: int, seconds: Mapping[str, float]
) -> TypeCost:
    """c, r and u of one type at every batch that was timed."""
    tables: dict[str, list[tuple[int, float]]] = {part: [] for part in _OF_PRODUCTS}
    ratios = []
    for batch in sorted({b for t, role, b, _ in times if t == type_name and role in _WEIGHTY}):
        rows = [(key, None) for role in _WEIGHTY if (key := (type_name, role, batch, 0)) in times]
        own = solved(times, _OF_PRODUCTS, rows, seconds, fill_bytes)
        own["byte"] = max(own["byte"], 1e-15)
        for part in _OF_PRODUCTS:
            tables[part].append((batch, own[part]))
        cached = type_name, "mid cached", batch, 0
        if cached in times:
            known = {**seconds, "row": own["row"], "product": own["product"]}
            byte_s = solved(times, ("byte",), [(cached, None)], known, cached_bytes)["byte"]
            ratios.append((batch, min(max(byte_s / own["byte"], 0.1), 1.0)))
    return TypeCost(
        type_name=type_name,
        batch_seconds_per_byte=tuple(tables["byte"]),
        batch_seconds_per_row=tuple(tables["row"]),
        batch_seconds_per_product=tuple(tables["product"]),
        cached_ratios=tuple(ratios),
    )


def load_seconds_per_byte(built: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds that a load takes for each byte of a type, mapped and rewritten: what a large model takes longer.

    Of loads of one model the fastest counts: whatever disturbs one only makes it longer.
    """
    fastest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for model in sorted(built, key=lambda model: -model["load_s"]):
        fastest[model["type_name"], model["role"]] = model
    found = {}
    for (type_name, role), small in fastest.items():
        large = fastest.get((type_name, "wide"))
        if role == "wide few" and large is not None:
            more_s, more_bytes = (large[name] - small[name] for name in ("load_s", "size_bytes"))
            found[type_name] = max(more_s / more_bytes, 1e-15)  # 0 is a type that was not timed
    return found


def no_faster(cost: TypeCost, working_sets: WorkingSets) -> TypeCost:
    """The cost of a type none of whose bytes comes faster than memory gives it, where that was read."""
    if not working_sets:
        return cost
    least_s = 1 / (_FASTER_THAN_SWEEP * max(speed for _, speed in working_sets[-2:]))
    costs = tuple((batch, max(seconds, least_s)) for batch, seconds in cost.batch_seconds_per_byte)
    return cost.replace(batch_seconds_per_byte=costs)


def _link_bytes_per_s(times: Times, fill_bytes: int) -> float:
    """Bytes/s of weights that are copied to a GPU for their products; 0 where none were."""
    rates = []
    for key in times:
        type_name, role, batch, depth = key
        if role.endswith(" few apart"):
            more_s = typical_s(times, key, (type_name, role.removesuffix(" apart"), batch, depth))
            rates.append(work_of(key, fill_bytes)["byte"] / max(more_s, 0.01 * typical_s(times, key)))
    return median(rates) if rates else 0.0


def _run(job: Job, say: Callable[[str], None]) -> dict[str, list[Any]]:
    """Events of the child by name.

    A bench that ends it is left out, and it is started again for others.

    Raises:
        EngineError: The job's ``limit_s`` passed before anything was timed, or it ended without a bench, or
            twice at one.
    """
    events: dict[str, list[Any]] = defaultdict(list)

    def on_event(name: str, data: Any) -> None:
        if name == "group":
            say(f"timing the engine: {data}")

    while True:
        limits = Limits(wall_s=job.limit_s)
        result = run_helper(
            "harness.measure.probe.calibrate_child:run", job, limits=limits, on_event=on_event
        )
        for name, data in result.events:
            events[name].append(data)
        if result.outcome == "ok":
            return events
        begun = events["begin"][-1] if events["begin"] else {"type_name": "", "role": ""}
        bench = begun["type_name"], begun["role"]
        events["failed"].append({**begun, "why": result.outcome})
        is_late = result.outcome == "timed out"
        if is_late and events["timing"]:  # on a busy machine something is better than nothing
            return events
        if is_late or bench in job.skipped:
            raise EngineError(f"the engine's calibration ended: {result.outcome}. {result.detail}")
        say(f"the engine ended at a tiny model ({' '.join(bench)}: {result.outcome}): it is left out")
        left_s = job.limit_s - result.duration_s
        job = job.replace(skipped=(*job.skipped, bench), limit_s=left_s)


def _place(thread_count: int, repack: bool, api: str, runtime: str) -> Path:
    """File of what was timed with this engine's version, these settings and this machine."""
    engine = plugins.usable_runtime(runtime).package()
    key = engine, thread_count or default_thread_count(), repack, machine.fingerprint().fingerprint, api
    digest = hashlib.sha256(repr((_CACHE_VERSION, *key)).encode()).hexdigest()[:16]
    return home_dir() / "calibrations" / f"{digest}.json"
