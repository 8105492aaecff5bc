"""Runs in a child process: times the engine on tiny models, and tells every single time."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from harness.domain.ggml import row_bytes
from harness.domain.model import ModelShape
from harness.domain.placement import Placement
from harness.domain.scenario import Scenario
from harness.measure import page_cache
from harness.measure.memory_watch import read_memory
from harness.measure.tiny_model import matrices, tiny_shape, write_tiny
from harness.measure.validity import Limits, child_probe
from harness.runtimes.llamacpp.devices import devices
from harness.runtimes.llamacpp.session import LlamaSession

Emit = Callable[[str, Any], None]

DEPTH_TOKENS: Final = 2048
_ATTENTION_LAYERS: Final = 6


class Bench(NamedTuple):
    """One tiny model to time, at which batches, and behind how many tokens in its cache."""

    role: str
    type_name: str
    shape: ModelShape
    batches: Sequence[int]
    depth: int = 0

    @property
    def weight_bytes(self) -> int:
        """Bytes of all matrices that a pass reads, the tied output matrix included."""
        return sum(tensor.size_bytes for tensor in matrices(self.shape, self.type_name))


def dimensions(role: str, type_name: str, fill_bytes: int) -> ModelShape:
    """Shape of the tiny model of that role: as many layers (or vocabulary rows) as fill ``fill_bytes``.

    ``narrow mid wide`` differ in row length, ``head`` is one big product, ``shallow deep`` have next to no weights.
    ``narrow few`` and ``wide few`` are a sixth of the others: large batches are bound by arithmetic, not by memory.
    """
    if role in {"shallow", "deep", "deep apart"}:
        return tiny_shape(2 if role == "shallow" else 26, 64, 64, 1, 1)
    if role == "head":
        return tiny_shape(1, 512, 512, 8, 2, max(fill_bytes // row_bytes(type_name, 512), 256))
    if role in {"grouped", "ungrouped"}:
        return tiny_shape(_ATTENTION_LAYERS, 256, 256, 16, 2 if role == "grouped" else 16)
    name, _, few = role.partition(" ")
    width = {"narrow": 512, "mid": 1024, "wide": 2048}[name]
    one = tiny_shape(1, width, 2 * width, width // 64, max(width // 256, 1))
    wanted = fill_bytes / (6 if few else 1)
    layer = sum(tensor.size_bytes for tensor in matrices(one, type_name) if tensor.name.startswith("blk."))
    return replace(one, layer_count=max(round(wanted / layer), 1 if few else 2))


def plan(types: list[str], fill_bytes: int, api: str = "cpu") -> Iterator[list[Bench]]:
    """Groups of benches that are timed in turns: first the engine's own overheads and attention, then each type.

    A GPU gets fewer batches: each new one may have the driver compile a shader first. ``deep apart`` is ``deep`` with
    its cache left with the CPU: every layer crosses to the CPU and back. ``few apart`` is ``few`` with all weights
    there: batches of a prompt copy each of them.
    """
    few_roles: tuple[str, ...] = ("narrow few", "wide few")
    if api == "cpu":
        overheads: tuple[str, ...] = ("shallow", "deep")
        overhead, attention, products = [1, 2, 4, 8, 16, 64, 512], [1, 4], [1, 2, 3, 4, 5, 8, 16]
    else:
        overheads, few_roles = ("shallow", "deep", "deep apart"), (*few_roles, "narrow few apart", "wide few apart")
        overhead, attention, products = [1, 4, 16], [1], [1, 2, 4, 8]

    def benches(roles: Sequence[str], type_name: str, batches: Sequence[int], depth: int = 0) -> list[Bench]:
        return [Bench(role, type_name, dimensions(role, type_name, fill_bytes), batches, depth) for role in roles]

    yield benches(overheads, "F16", overhead)
    yield [bench for depth in (0, DEPTH_TOKENS) for bench in benches(("grouped", "ungrouped"), "F16", attention, depth)]
    for type_name in types:
        yield [
            *benches(("narrow", "mid", "wide"), type_name, products),
            *benches(("head",), type_name, [b for b in products if b <= 8]),
            *benches(few_roles, type_name, (64, 512)),
        ]


def run(arguments: Mapping[str, Any], emit: Emit) -> None:
    """Time everything in ``plan``: in each round a stretch of every bench at each batch.

    What is compared runs one after the other, so that it differs by its layers and not by the minute it ran in. Each
    group is visited so often, with the others between: a shared machine may change its speed for half a minute.
    ``arguments``: ``types fill_bytes thread_count visits rounds stretch_s retries repack api software``.

    Events: ``timing`` for each bench, batch, depth and round, ``group`` when one begins, and ``process``: what this
    process holds without a model (with a driver on the CPU: beside its buffers), and its code pages in the end.
    """
    devices()  # the engine loads its drivers when it is first asked for them
    before = read_memory() if arguments["api"] == "cpu" else None
    held_bytes = before.anonymous_bytes if before else 0
    rounds, groups = arguments["rounds"], list(plan(arguments["types"], arguments["fill_bytes"], arguments["api"]))
    visits = [(visit, group) for visit in range(arguments["visits"]) for group in groups]
    for number, (visit, group) in enumerate(visits):
        emit("group", {"number": number, "count": len(visits), "name": f"{group[0].type_name} {group[0].role}"})
        with tempfile.TemporaryDirectory(prefix="edge-harness-tiny-") as folder, ExitStack() as stack:
            sessions = [(bench, stack.enter_context(_open(bench, Path(folder), arguments))) for bench in group]
            for _, session in sessions:
                _passes(session, 1, 0, arguments["stretch_s"] / 8)
            if arguments["software"] and not held_bytes and (now := read_memory()):
                buffers = sum(b.size_bytes for _, s in sessions for b in s.buffers if not b.is_mapped)
                held_bytes = max(now.anonymous_bytes - buffers, 0)  # with the driver's own, which lies in this process
            for turn in range(visit * rounds, (visit + 1) * rounds):
                for bench, session in sessions:
                    if bench.depth and not (turn and arguments["software"]):  # it takes its time for long batches
                        _fill(bench, session, turn, emit)
                for batch in sorted({b for bench in group for b in bench.batches}):
                    for bench, session in sessions:
                        if batch in bench.batches and (batch <= 64 or not turn):  # long passes average by themselves
                            _time_bench(bench, session, batch, turn, emit, arguments)
    after = read_memory()
    if held_bytes and after:
        emit("process", {"anonymous_bytes": held_bytes, "file_bytes": after.file_bytes})


def _open(bench: Bench, folder: Path, arguments: Mapping[str, Any]) -> LlamaSession:
    path = folder / f"{bench.role}-{bench.type_name}.gguf"
    write_tiny(path, bench.shape, bench.type_name)
    # A downloaded model comes into the page cache by being read, not by being written: let this one do the same.
    page_cache.drop(path)
    few = bench.role.endswith(" few apart")
    scenario = Scenario(
        context_tokens=bench.depth + 1024,
        thread_count=arguments["thread_count"],
        repack=arguments["repack"],
        api=arguments["api"],
        placement=Placement(gpu_layers=0) if few else Placement(kv_on_gpu=not bench.role.endswith(" apart")),
    )
    try:
        return LlamaSession(path, scenario, batch_tokens=512)
    finally:
        path.unlink()  # what is mapped stays; nothing is left behind when the process dies


def _time_bench(
    bench: Bench, session: LlamaSession, batch: int, turn: int, emit: Emit, arguments: Mapping[str, Any]
) -> None:
    """One stretch of passes: of a single token, which most runs are made of, twice as long as of others."""
    # The threads of a driver that plays a GPU wait for each other: what others take shows in their CPU time alone.
    probe = child_probe(limits=Limits(cpu_stall_ratio=1.0) if arguments["software"] else Limits())
    if arguments["api"] != "cpu" and not turn:
        _passes(session, batch, bench.depth, 0.0)  # the driver compiles its shaders for a batch when it meets it first
    for _ in range(1 + arguments["retries"]):
        probe.start()
        times = _passes(session, batch, bench.depth, arguments["stretch_s"] / (1 if batch == 1 else 2))
        doubts = probe.finish().doubts
        if not doubts:
            break
    _tell(bench, batch, bench.depth, times, turn, bool(doubts), emit)


def _fill(bench: Bench, session: LlamaSession, turn: int, emit: Emit) -> None:
    """Prefill up to the bench's depth, telling the time of each batch at the depth it began at."""
    session.clear()
    for start in range(0, bench.depth, 512):
        begin = time.perf_counter()
        session.decode([i % 251 for i in range(512)], position=start, logits="none")
        _tell(bench, 512, start, [time.perf_counter() - begin], turn, False, emit)


def _passes(session: LlamaSession, batch: int, depth: int, least_s: float) -> list[float]:
    """Seconds of each of so many passes as together take ``least_s``; of one at least."""
    tokens = [i % 251 for i in range(batch)]
    times: list[float] = []
    while not times or sum(times) < least_s:
        session.truncate(depth)
        start = time.perf_counter()
        session.decode(tokens, position=depth, logits="all")
        times.append(time.perf_counter() - start)
    return times


def _tell(bench: Bench, batch: int, depth: int, times: list[float], turn: int, doubted: bool, emit: Emit) -> None:
    told = {"batch": batch, "depth": depth, "turn": turn, "doubted": doubted, "times": times}
    emit("timing", {"role": bench.role, "type_name": bench.type_name, **told})
