"""Learn an engine's own costs on this machine from tiny models, before any real one runs.

Nothing here has seen a real model: the tiny ones have random weights and shapes of their own. What is fitted are the
terms of ``harness.predict.timed``, each from the benches that show it, in several rounds. A difference between
two benches is that of the same round, since a machine may change its speed between two:

    shallow, deep         t0 and l(B) = l0 + B l1: two models that differ in depth only, with next to no weights
    grouped, ungrouped    attention: time that 2,048 tokens of depth add, with few and with many KV heads
    narrow, mid, wide,    bytes c(B) + rows r(B) + products u(B): weights of one type, several times the last-level
    head                  cache, in rows of 512 to 2,048 weights, and as one product of very many rows; fewer layers
                          of the same for batches of prefill size, and for a GPU once more with the weights left with
                          the CPU: bytes that are copied, and the waiting for each
"""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from harness.catalog.paths import home_dir
from harness.domain.device import Calibration, TypeCost
from harness.errors import EngineError, MissingPackageError, RefusedError
from harness.measure import machine
from harness.measure._calibrate_child import DEPTH_TOKENS, dimensions
from harness.measure.child import Limits, run_child
from harness.measure.tiny_model import TINY_TYPES, matrices
from harness.predict.repack import repacked_types
from harness.predict.timed import PREFILL_TOKENS, Matrix, product_seconds
from harness.records.store import write_atomically

DEFAULT_TYPES: Final = ("F16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K", "Q5_0", "IQ4_XS")
CHECK_TYPES: Final = ("Q4_1", "Q8_0")
"""What the default model is made of."""

MINIMUM_FILL_BYTES: Final = 96 * 2**20
CACHE_MULTIPLE: Final = 3
_CACHE_VERSION: Final = 5
DISTURBED_RATIO: Final = 0.25
"""Share of disturbed stretches above which a calibration is used but not kept."""

Progress = Callable[[str], None]
Key = tuple[str, str, int, int]
"""Type, role, batch and depth."""
Times = Mapping[Key, Mapping[int, float]]
"""Mean time of a pass in each round, by what was timed."""


def calibrate(
    types: Iterable[str] = CHECK_TYPES,
    *,
    thread_count: int = 0,
    repack: bool = True,
    fresh: bool = False,
    progress: Progress | None = None,
    api: str = "cpu",
    fill_bytes: int = 0,
    limit_s: float = 1800.0,
) -> Calibration:
    """Costs of llama.cpp on this machine for those types; timed in a child process and kept for the next time.

    Some 12 s a type on two cores and 8 s for the overheads; a minute of each on a GPU. Types that no tiny model can be
    made of, and F32, are left out; ``fresh`` times again what was kept. A ``thread_count`` of 0 takes the physical
    cores, held down by a quota. The api says which engine is timed; a GPU gets its link and its crossings timed too.
    ``fill_bytes`` are a tiny model's weights; 0: several times the last-level cache. Fewer suit one played by the CPU.

    Raises:
        MissingPackageError: llama-cpp-python is not installed.
        EngineError: The child died or took longer than ``limit_s``, or the engine has no device of that api.
        RefusedError: None of the types can be timed.
    """
    wanted = sorted({t for t in types if t in TINY_TYPES and t != "F32"})
    if not wanted:
        raise RefusedError(f"none of the types {sorted(set(types))} can be calibrated")
    host, place, say = machine.fingerprint(), _place(thread_count, repack, api), progress or (lambda _line: None)
    before = None if fresh else _load(place)
    timed = before.types if before is not None else ()
    missing = [t for t in wanted if t not in {c.type_name for c in timed}]
    if before is not None and not missing:
        return before
    # A GPU's speed changes in stretches of up to seconds, and one visit of its benches takes a minute and more.
    visits, rounds, stretch_s = (2, 2, 0.12) if api == "cpu" else (1, 5, 0.4)
    arguments: dict[str, Any] = {
        "types": missing,
        "fill_bytes": fill_bytes or max(MINIMUM_FILL_BYTES, CACHE_MULTIPLE * machine.cpu().last_cache_bytes),
        "thread_count": thread_count or machine.cpu().thread_count,
        "visits": visits,
        "rounds": rounds,
        "stretch_s": stretch_s,
        "retries": 1 if fill_bytes else 2,
        "repack": repack,
        "api": api,
        "software": bool(fill_bytes),
    }
    events, process = _run(arguments, say, limit_s)
    found = fit(events, missing, arguments["fill_bytes"])
    rewritten = repacked_types(host.isa) if api == "cpu" and repack else frozenset()
    found = msgspec.structs.replace(
        found,
        api=api,
        engine_version=_engine_version(),
        thread_count=arguments["thread_count"],
        machine=host.fingerprint,
        process_anonymous_bytes=process.get("anonymous_bytes", 0),
        process_file_bytes=process.get("file_bytes", 0),
        types=(*timed, *(msgspec.structs.replace(c, repacked=c.type_name in rewritten) for c in found.types)),
    )
    disturbed = sum(bool(e["doubted"]) for e in events) / max(len(events), 1)
    if disturbed > DISTURBED_RATIO:
        found = msgspec.structs.replace(found, disturbed_ratio=disturbed)
        say(f"the machine was disturbed during {disturbed:.0%} of the calibration: it is not kept; stop other programs")
    else:
        write_atomically(place, msgspec.json.encode(found))
    return found


def kept(*, thread_count: int = 0, repack: bool = True, api: str = "cpu") -> Calibration | None:
    """What was timed before on this machine with this engine and these settings; None where nothing is kept."""
    with contextlib.suppress(MissingPackageError):
        return _load(_place(thread_count, repack, api))
    return None


def fit(events: Sequence[Mapping[str, Any]], types: Sequence[str], fill_bytes: int) -> Calibration:
    """Costs from the child's timings; the engine's name and threads are the caller's to fill in.

    Raises:
        EngineError: A bench that is needed is missing.
    """
    times = stretches(events)
    try:
        token_s, layer_s, token_layer_s = _overheads(times)
        kv_speed, decode_flops, prefill_flops = _attention(times)
        costs = [
            _type_cost(times, name, fill_bytes, (token_s, layer_s, token_layer_s, prefill_flops)) for name in types
        ]
    except KeyError as error:
        raise EngineError(f"the calibration lacks the timing of {error}") from None
    deep, apart = ("F16", "deep", 1, 0), ("F16", "deep apart", 1, 0)
    away_s = typical_s(times, apart, deep) if apart in times else 0.0
    found = Calibration(
        api="cpu",
        engine_version="",
        thread_count=0,
        types=tuple(costs),
        token_overhead_s=token_s,
        layer_overhead_s=layer_s,
        token_layer_s=token_layer_s,
        kv_read_bytes_per_s=kv_speed,
        decode_attention_flops_per_s=decode_flops,
        attention_flops_per_s=prefill_flops,
        spread_ratio=_spread(times),
        # One change to the CPU and back: what a layer with its cache left behind takes longer; 0 without a GPU.
        crossing_s=max(away_s, 0.0) / dimensions("deep", "F16", 0).layer_count,
    )
    link, ratio = _copies(times, found, fill_bytes)
    return msgspec.structs.replace(found, link_bytes_per_s=link, copied_product_ratio=ratio)


def stretches(events: Iterable[Mapping[str, Any]]) -> dict[Key, dict[int, float]]:
    """Mean time of a pass in each round, by what was timed: a run is timed so too, tokens over the time of a stretch.

    Rounds that were disturbed count only where there is no other, and of them the fastest.
    """
    found: dict[Key, dict[bool, dict[int, float]]] = defaultdict(lambda: {True: {}, False: {}})
    for event in events:
        key = (event["type_name"], event["role"], event["batch"], event["depth"])
        found[key][event["doubted"]][event["turn"]] = float(np.mean(event["times"]))
    return {key: of[False] or dict([min(of[True].items(), key=lambda item: item[1])]) for key, of in found.items()}


def typical_s(times: Times, key: Key, less: Key | None = None) -> float:
    """Time of a pass: the mean of the rounds without the fastest and the slowest third; of three that is the median.

    With ``less``: what it takes longer than that one, both in the same round where one has both.

    Raises:
        KeyError: One of them was not timed.
    """
    mine = times[key]
    if less is not None:
        mine = {turn: value - times[less][turn] for turn, value in mine.items() if turn in times[less]}
        if not mine:
            return typical_s(times, key) - typical_s(times, less)
    ordered, cut = sorted(mine.values()), len(mine) // 3
    return float(np.mean(ordered[cut : len(ordered) - cut]))


def nonnegative_fit(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Coefficients of at least 0 with the least sum of squared relative errors."""
    from scipy.optimize import nnls

    table = np.asarray(rows, float) / np.asarray(values, float)[:, None]
    scale = table.max(axis=0)  # bytes and products differ by nine orders of magnitude
    return [float(value) for value in nnls(table / scale, np.ones(len(table)))[0] / scale]


def _overheads(times: Times) -> tuple[float, float, float]:
    """t0, l0, l1: l(B) = (deep - shallow) / layers between; a line through the small batches."""
    shallow, deep = dimensions("shallow", "F16", 0), dimensions("deep", "F16", 0)
    between = deep.layer_count - shallow.layer_count
    batches = [b for t, role, b, _ in times if t == "F16" and role == "shallow" and b < PREFILL_TOKENS]
    found = {b: typical_s(times, ("F16", "deep", b, 0), ("F16", "shallow", b, 0)) / between for b in sorted(batches)}
    # A hiccup while the shallow one ran would say that layers cost nothing, and outweigh the other batches.
    layer = {b: seconds for b, seconds in found.items() if seconds > 0} or {1: 1e-9}
    layer_s, token_layer_s = nonnegative_fit([(1.0, float(b)) for b in layer], list(layer.values()))
    token_s = max(typical_s(times, ("F16", "shallow", 1, 0)) - shallow.layer_count * (layer_s + token_layer_s), 0.0)
    return token_s, layer_s, token_layer_s


def _attention(times: Times) -> tuple[float, float, float]:
    """KV read speed, speed of products in decode, and in prefill."""
    rows, values, prefill = [], [], []
    for role in ("grouped", "ungrouped"):
        shape = dimensions(role, "F16", 0)
        kv_bytes = shape.layer_count * DEPTH_TOKENS * shape.kv_head_count * shape.head_dim * 2 * 2.0
        flops = shape.layer_count * DEPTH_TOKENS * shape.head_count * shape.head_dim * 4.0
        added = typical_s(times, ("F16", role, 1, DEPTH_TOKENS), ("F16", role, 1, 0))
        rows.append((kv_bytes, flops))
        values.append(max(added, 1e-9))
        start = DEPTH_TOKENS - 512
        more = typical_s(times, ("F16", role, 512, start), ("F16", role, 512, 0))
        prefill.append(shape.layer_count * 512.0 * start * shape.head_count * shape.head_dim * 4.0 / max(more, 1e-9))
    per_byte, per_flop = nonnegative_fit(rows, values)
    return 1 / max(per_byte, 1e-12), 1 / per_flop if per_flop > 0 else 0.0, float(np.mean(prefill))


def _type_cost(times: Times, type_name: str, fill_bytes: int, shared: tuple[float, float, float, float]) -> TypeCost:
    """c, r and u of one type at every batch that was timed."""
    token_s, layer_s, token_layer_s, prefill_flops = shared
    batches = sorted({b for t, role, b, _ in times if t == type_name and role.startswith("wide")})
    per_byte, per_row, per_product = [], [], []
    for batch in batches:
        rows, values = [], []
        for role in ("narrow", "mid", "wide", "head", "narrow few", "wide few"):
            key = (type_name, role, batch, 0)
            if key not in times:
                continue
            s = dimensions(role, type_name, fill_bytes)
            own = token_s + s.layer_count * (layer_s + batch * token_layer_s)  # what is no matrix product's
            if batch >= PREFILL_TOKENS:
                own += s.layer_count * 4.0 * s.head_count * s.head_dim * batch * (batch + 1) / 2 / prefill_flops
            products = matrices(s, type_name)
            sizes = sum(t.size_bytes for t in products), sum(t.dims[1] for t in products), len(products)
            rows.append(tuple(map(float, sizes)))
            middle = typical_s(times, key)
            values.append(max(middle - own, middle * 0.05))
        unknowns = 3 if len(rows) >= 3 else 2
        found = nonnegative_fit([r[:unknowns] for r in rows], values) + [0.0] * (3 - unknowns)
        per_byte.append((batch, max(found[0], 1e-15)))
        per_row.append((batch, found[1]))
        per_product.append((batch, found[2]))
    return TypeCost(
        type_name=type_name,
        batch_seconds_per_byte=tuple(per_byte),
        batch_seconds_per_row=tuple(per_row),
        batch_seconds_per_product=tuple(per_product),
    )


def _copies(times: Times, found: Calibration, fill_bytes: int) -> tuple[float, float]:
    """Bytes/s of weights that are copied to a GPU for their products, and the waiting as a share of those products."""
    rows, values = [], []
    for key in times:
        type_name, role, batch, depth = key
        if role.endswith(" few apart"):
            products = matrices(dimensions(role, type_name, fill_bytes), type_name)
            own_s = sum(product_seconds(Matrix(tensor, 0), found, batch) for tensor in products)
            rows.append((float(sum(tensor.size_bytes for tensor in products)), own_s))
            more = typical_s(times, key, (type_name, role.removesuffix(" apart"), batch, depth))
            values.append(max(more, 0.01 * typical_s(times, key)))
    per_byte, ratio = nonnegative_fit(rows, values) if rows else (0.0, 0.0)
    return 1 / per_byte if per_byte else 0.0, ratio


def _spread(times: Times) -> float:
    """Half-width that holds 90 % of the rounds about their common middle, from all single-token benches."""
    deviations = [
        abs(value / float(np.median(list(rounds.values()))) - 1)
        for (_, _, batch, _), rounds in times.items()
        if batch == 1 and len(rounds) >= 2
        for value in rounds.values()
    ]
    return float(np.quantile(deviations, 0.9)) if deviations else 0.0


def _run(arguments: dict[str, Any], say: Progress, limit_s: float) -> tuple[list[Mapping[str, Any]], Mapping[str, int]]:
    """Timings of the child, and what its process held without a model."""

    def on_event(name: str, data: Any) -> None:
        if name == "group":
            say(f"timing the engine, {data['number'] + 1} of {data['count']}: {data['name']}")

    result = run_child(
        "harness.measure._calibrate_child:run",
        arguments,
        limits=Limits(wall_s=limit_s),
        on_event=on_event,
    )
    if result.outcome != "ok":
        raise EngineError(f"the engine's calibration ended: {result.outcome}. {result.detail}")
    process: Mapping[str, int] = next((data for name, data in result.events if name == "process"), {})
    return [data for name, data in result.events if name == "timing"], process


def _engine_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"llama-cpp-python {version('llama-cpp-python')}"
    except PackageNotFoundError:
        raise MissingPackageError("llama-cpp-python", "llama") from None


def _place(thread_count: int, repack: bool, api: str) -> Path:
    """File of what was timed with this engine's version, these settings and this machine."""
    key = _engine_version(), thread_count or machine.cpu().thread_count, repack, machine.fingerprint().fingerprint, api
    digest = hashlib.sha256(repr((_CACHE_VERSION, *key)).encode()).hexdigest()[:16]
    return home_dir() / "calibrations" / f"{digest}.json"


def _load(path: Path) -> Calibration | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError):  # nothing kept, or of an older shape: time again
        return None
