"""Runs in a child process: times the engine on tiny models, and tells every single time."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.core import plugins
from harness.core.base import Frozen
from harness.core.errors import HarnessError
from harness.core.isa import isa_of_engine
from harness.core.model import ModelShape
from harness.core.placement import Placement
from harness.core.ports import Emit
from harness.core.scenario import Scenario
from harness.core.tables import expect_all, shipped_table
from harness.measure import page_cache
from harness.measure.memory_watch import read_memory
from harness.measure.probe.tiny_model import matrices, tiny_shape, write_tiny
from harness.measure.validity import Watch, child_probe
from harness.models.ggml import row_bytes


def read_tiny() -> dict[str, dict[str, Any]]:
    """``data/tiny_models.toml``: shapes of tiny models, and what is timed of them for how long, by engine.

    Raises:
        BadDataError: A group that is never timed, or a role of no shape and no width.
    """
    path = "data/tiny_models.toml"
    document = shipped_table(path, into=dict[str, dict[str, Any]])
    expect_all(path, "table", ((table, table) for table in document), ("shapes", "widths", "cpu", "gpu"))
    roles = {*document["shapes"], *document["widths"]}
    groups = ("timing", "overheads", "attention", "products", "head", "cached", "few")
    for engine in ("cpu", "gpu"):
        expect_all(path, engine, ((group, group) for group in document[engine]), groups)
        for group in groups[1:]:
            named = document[engine][group]["roles"]
            expect_all(path, f"{engine}.{group}, roles", ((role, role.split()[0]) for role in named), roles)
    return document


TABLE: Final = read_tiny()
DEPTH_TOKENS: Final = 2048
MAX_LAYERS: Final = 500
"""llama.cpp aborts above 512. Source: llama.cpp, src/llama-hparams.h, ``LLAMA_MAX_LAYERS``."""
_LEAST_PASSES: Final = 3
"""Of a stretch, where they are short: one alone may have waited for another program at every layer."""
_LONGEST_STRETCH: Final = 5
"""In stretches of the usual length; for passes that are held back."""
UNEVEN_RATIO: Final = 3.0
"""A pass over the fastest of its stretch, above which something else ran; a stretch is in doubt where a tenth
did."""
_LIMIT_SHARE: Final = 0.9
"""Of the limit, that timing may take; the rest is for the start, the end, and a group that takes longer than
before."""


class Job(Frozen):
    """What to time: types, bytes of a tiny model's weights, and of one that the cache holds (0 for none).

    Each group is visited so often, with the others between, as long as ``budget_s`` lasts: the first visit is
    always whole. Of ``limit_s``, at which the child is killed, a tenth is left. A ``stretch_s`` is the time
    of one bench of one token. ``skipped`` are (type, role) of benches that ended the process before.
    """

    types: tuple[str, ...]
    fill_bytes: int
    cached_bytes: int
    thread_count: int
    runtime: str
    api: str = "cpu"
    repack: bool = True
    visits: int = 2
    rounds: int = 2
    stretch_s: float = 0.12
    budget_s: float = 60.0
    limit_s: float = 1800.0
    skipped: tuple[tuple[str, str], ...] = ()


class Bench(NamedTuple):
    """One tiny model to time, at which batches, and behind how many tokens in its cache."""

    role: str
    type_name: str
    shape: ModelShape
    batches: Sequence[int]
    depth: int = 0


def dimensions(role: str, type_name: str, fill_bytes: int) -> ModelShape:
    """Shape of the tiny model of that role: as many layers (or vocabulary rows) as fill ``fill_bytes``.

    ``narrow mid wide`` differ in row length, ``head`` is one big product, ``shallow deep`` have next to no
    weights. ``narrow few`` and ``wide few`` are a sixth of the others: large batches are bound by arithmetic,
    not by memory. More layers than the engine takes are made wider instead.
    """
    name, _, rest = role.partition(" ")
    if name in TABLE["shapes"]:
        shape = tiny_shape(*TABLE["shapes"][name])
        if name == "head":
            return shape.replace(vocab_count=max(fill_bytes // row_bytes(type_name, 512), 256))
        return shape
    width, wanted = TABLE["widths"][name], fill_bytes / (6 if "few" in rest else 1)
    while True:
        one = tiny_shape(1, width, 2 * width, width // 64, max(width // 256, 1))
        layer = sum(
            tensor.size_bytes for tensor in matrices(one, type_name) if tensor.name.startswith("blk.")
        )
        count = max(round(wanted / layer), 1 if rest else 2)
        if count <= MAX_LAYERS:
            return one.replace(layer_count=count)
        width *= 2


def plan(
    types: Sequence[str], fill_bytes: int, api: str = "cpu", cached_bytes: int = 0
) -> Iterator[list[Bench]]:
    """Groups of benches that are timed in turns: first the engine's own overheads and attention, then each type.

    A GPU gets fewer batches: each new one may have the driver compile a shader first. ``deep apart`` is
    ``deep`` with its cache left with the CPU: every layer crosses to the CPU and back. ``few apart`` is
    ``few`` with all weights there: batches of a prompt copy each of them. ``mid cached`` is ``mid`` of a size
    that the CPU's cache holds.
    """
    table = TABLE["cpu" if api == "cpu" else "gpu"]

    def benches(part: str, type_name: str = "F16", depth: int = 0, size: int = fill_bytes) -> list[Bench]:
        roles, batches = table[part]["roles"], table[part]["batches"]
        return [Bench(role, type_name, dimensions(role, type_name, size), batches, depth) for role in roles]

    yield benches("overheads")
    yield [*benches("attention"), *benches("attention", depth=DEPTH_TOKENS)]
    for type_name in types:
        cached = benches("cached", type_name, size=cached_bytes) if cached_bytes else []
        whole = [*benches("products", type_name), *benches("head", type_name)]
        yield [*whole, *cached, *benches("few", type_name)]


def run(job: Job, emit: Emit) -> None:
    """Time everything in ``plan``: in each round a stretch of every bench at each batch.

    What is compared runs one after the other, so that it differs by its layers and not by the minute it ran
    in. Each group is visited again, with the others between: a shared machine may change its speed for half a
    minute.

    Events: ``begin`` before a bench is opened or timed, ``built`` for each model, ``timing`` for each bench,
    batch, depth and round, ``group`` when one begins, ``failed`` for a bench that could not be made, and of a
    CPU ``process``: its instruction sets, what this process holds without a model, and its code pages.
    """
    _Timing(job, emit).run()


class _Timing:
    def __init__(self, job: Job, emit: Emit) -> None:
        self.job, self.emit, self.start_s = job, emit, time.perf_counter()
        self.runtime = plugins.usable_runtime(job.runtime)
        self.settled: set[tuple[Any, ...]] = set()
        """Type, role, batch and depth of what was timed once without a disturbance."""

    def run(self) -> None:
        job = self.job
        about: dict[str, Any] = {}
        if job.api == "cpu":
            about["isa"] = isa_of_engine(self.runtime.identity(Scenario()).build)
        before = read_memory()
        groups = list(plan(job.types, job.fill_bytes, job.api, job.cached_bytes))
        longest_s = 0.0
        for visit in range(job.visits):
            for group in groups:
                begun_s = time.perf_counter()
                if visit and self._left_s() < longest_s:
                    continue
                share_s = self._left_s() / (1 if visit else len(groups))
                self.emit("group", f"{group[0].type_name} {group[0].role}")
                with ExitStack() as stack:
                    self._time_group(group, visit, stack, share_s)
                longest_s = max(longest_s, time.perf_counter() - begun_s)
        if before is not None and (after := read_memory()):
            about |= {"anonymous_bytes": before.anonymous_bytes, "file_bytes": after.file_bytes}
        if job.api == "cpu":
            self.emit("process", about)

    def _left_s(self) -> float:
        most_s = min(self.job.budget_s, _LIMIT_SHARE * self.job.limit_s)
        return most_s - (time.perf_counter() - self.start_s)

    def _time_group(self, group: list[Bench], visit: int, stack: ExitStack, share_s: float) -> None:
        job, begun_s = self.job, time.perf_counter()
        sessions = []
        for bench in group:
            if (session := self._open(bench)) is not None:
                sessions.append((bench, stack.enter_context(session)))
                _passes(session, 1, 0, job.stretch_s / 8)
        for round_number in range(job.rounds):
            if round_number and time.perf_counter() - begun_s > share_s / 2:
                break  # another round would take the time of the groups behind this one
            turn = visit * job.rounds + round_number
            for bench, session in sessions:
                if bench.depth:
                    session.clear()
                for start in range(0, bench.depth, 512):
                    self._time(bench, session, 512, start, turn, 0.0)
            for batch in sorted({b for bench in group for b in bench.batches}):
                stretch_s = job.stretch_s / (2 if batch > 1 else 1)
                for bench, session in sessions:
                    # Long passes average by themselves.
                    is_timed = (
                        batch > 64 and (bench.type_name, bench.role, batch, bench.depth) in self.settled
                    )
                    if batch in bench.batches and not is_timed:
                        self._time(bench, session, batch, bench.depth, turn, stretch_s)

    def _tell(self, event: str, bench: Bench, **more: Any) -> None:
        self.emit(event, {"type_name": bench.type_name, "role": bench.role, **more})

    def _open(self, bench: Bench) -> Any:
        """A session on the bench's model.

        None where it cannot be had, which is told: it costs this bench alone.
        """
        if (bench.type_name, bench.role) in self.job.skipped:
            return None
        self._tell("begin", bench)
        placement = Placement()
        if bench.role.endswith(" few apart"):
            placement = Placement(gpu_layers=0)
        elif bench.role.endswith(" apart"):
            placement = Placement(kv_on_gpu=False)
        scenario = Scenario(
            context_tokens=bench.depth + 1024,
            thread_count=self.job.thread_count,
            repack=self.job.repack,
            api=self.job.api,
            placement=placement,
        )
        try:
            # What is mapped stays when the file goes; nothing is left behind when the process dies.
            with tempfile.TemporaryDirectory(
                prefix="edge-harness-tiny-", ignore_cleanup_errors=True
            ) as folder:
                path = Path(folder) / "tiny.gguf"
                write_tiny(path, bench.shape, bench.type_name)
                # A downloaded model comes into the page cache by being read, not by being written: so does
                # this one.
                page_cache.drop(path)
                page_cache.read_through(path)
                size, begin_s = path.stat().st_size, time.perf_counter()
                session = self.runtime.open(
                    path, scenario, batch_tokens=max(*bench.batches, 512 if bench.depth else 16)
                )
                load_s = time.perf_counter() - begin_s
        except (HarnessError, OSError, MemoryError) as error:
            self._tell("failed", bench, why=str(error)[:200])
            return None
        repacked = any("REPACK" in buffer.device for buffer in session.buffers)
        self._tell("built", bench, size_bytes=size, load_s=load_s, repacked=repacked)
        return session

    def _time(self, bench: Bench, session: Any, batch: int, depth: int, turn: int, stretch_s: float) -> None:
        """One stretch of passes behind so many tokens in the cache."""
        on_cpu = self.job.api == "cpu"
        self._tell("begin", bench)
        if not on_cpu and not turn:  # a driver compiles its shaders for a batch when it meets it
            _passes(session, batch, depth, 0.0)
        least_count = _LEAST_PASSES if on_cpu and stretch_s and batch <= 64 else 1
        with Watch(child_probe()) as watch:
            times = _passes(session, batch, depth, stretch_s, least_count)
        if on_cpu and sorted(times)[int(0.9 * (len(times) - 1))] > UNEVEN_RATIO * min(times):
            watch.doubt("its passes took unlike times")
        doubted = bool(watch.validity.doubts)
        if not doubted:
            self.settled.add((bench.type_name, bench.role, batch, depth))
        self._tell("timing", bench, batch=batch, depth=depth, turn=turn, doubted=doubted, times=times)


def _passes(session: Any, batch: int, depth: int, least_s: float, least_count: int = 1) -> list[float]:
    """Seconds of each of so many passes as together take ``least_s``.

    There are at least ``least_count`` of them, unless other programs hold them back.
    """
    tokens = [i % 251 for i in range(batch)]
    times: list[float] = []
    while (taken_s := sum(times)) < least_s or len(times) < least_count:
        if times and taken_s > _LONGEST_STRETCH * least_s:
            break
        session.truncate(depth)
        start_s = time.perf_counter()
        session.decode(tokens, position=depth, logits="all")
        times.append(time.perf_counter() - start_s)
    return times
