"""Run a model that is larger than the RAM it may use, on unmodified llama.cpp.

llama.cpp maps the file. This module lays anonymous memory over that mapping, at the very addresses the engine computes
from: most of it filled once and kept (pinned), and the same number of bytes at the end of every block streamed. Few
slots of that size exist; when the evaluation callback tells that a block is done, its slot moves (``mremap``, no byte
is copied) to the place of a block further on, and readers fill it past the page cache while the engine computes the
next ones. A cyclic scan under LRU would miss always; here every pass reads exactly the streamed bytes, in large direct
reads, evenly spread over the pass.

Linux only: it needs ``mremap(MREMAP_DONTUNMAP)`` (kernel 5.13 and later for any mapping, 5.7 for anonymous ones).
Experts of mixture models are streamed as part of their block.
"""

import ctypes
import mmap
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from harness.backends.llamacpp.session import LlamaSession
from harness.backends.llamacpp.stream_plan import PAGE_BYTES, Extent, StreamReport, layout_of, plan_split, whole_pages
from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError

CHUNK_BYTES: Final = 2 * 2**20
READER_COUNT: Final = 4
MARGIN_BYTES: Final = 24 * 2**20
"""Room for mapped code and the rows of the token table that are looked up."""
PAGE_TABLE_RATIO: Final = 8 / PAGE_BYTES
"""Page tables of every byte of the model, streamed ones too: a moved slot leaves its empty table behind. They are
charged like other memory; for a file of 40 GB they are 80 MB."""

_NAME_OFFSET: Final = 256  # of ``name`` in ``struct ggml_tensor``; checked on the first node
_BLOCK_MARK: Final = b"l_out-"
_MREMAP_FLAGS: Final = 1 | 2 | 4  # MAYMOVE, FIXED, DONTUNMAP
_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x4000


class StreamedSession:
    """A session whose weights stay within a budget.

    Args:
        path: GGUF file; not split.
        scenario: Context and so on; ``mmap`` and ``repack`` are set as streaming needs them.
        budget_bytes: What this process may use in all, everything it holds already included.
        batch_tokens: Most tokens of one pass.
        reserved_bytes: Part of the budget to leave for others (a draft model loaded later).

    Attributes:
        session: Use it as any other session.
        plan: What stays and what is streamed.

    Raises:
        RefusedError: Not on this system, or the budget is too small.
        EngineError: The engine refused the file, or does not mark its blocks.
    """

    def __init__(
        self,
        path: Path,
        scenario: Scenario,
        budget_bytes: int,
        *,
        batch_tokens: int = 32,
        reserved_bytes: int = 0,
        probe: bool = True,
    ) -> None:
        if sys.platform != "linux":
            raise RefusedError(
                "layer streaming needs Linux: elsewhere the residency of mapped pages cannot be controlled"
            )
        from msgspec.structs import replace

        self._path = path
        self._layout = layout_of(path)
        self._libc = _libc()
        self._gate = threading.Condition()
        self._stopped = False
        self._active = False
        self._threads: list[threading.Thread] = []
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.session = LlamaSession(
            path,
            replace(scenario, mmap=True, repack=False, ubatch_tokens=batch_tokens),
            batch_tokens=batch_tokens,
            output_tokens=min(batch_tokens, 16),
            eval_hook=self._hook,
        )
        try:
            self._base = _mapping_base(path)
            # One pass touches every buffer of the engine, so that what it holds beside weights can be read off.
            self.session.decode([0] * min(16, batch_tokens), position=0, logits="all")
            self.session.decode([0] * batch_tokens, position=16, logits="last")
            self.session.clear()
            self._drop(path)
            always_bytes = sum(e.end - e.start for e in self._layout.others)
            mapped = self._layout.mapped
            self.held_bytes = _anonymous_bytes()
            margin_bytes = MARGIN_BYTES + int(path.stat().st_size * PAGE_TABLE_RATIO)
            self.plan = plan_split(
                self._layout.blocks,
                always_bytes,
                budget_bytes - self.held_bytes - margin_bytes - reserved_bytes,
                mapped_bytes=mapped.end - mapped.start if mapped else 0,
            )
            # Storage is shared with others on many machines: the better of two looks is nearer to what it can do.
            wanted = probe and self.plan.slot_bytes > 0
            self.probe_bytes_per_s = max(self._probe(path), self._probe(path)) if wanted else 0.0
            self._pin()
            self._start()
        except BaseException:
            self.close()
            raise
        self.reset()

    # -- setting up ---------------------------------------------------------------------------------------------

    def _drop(self, path: Path) -> None:
        """Give back all pages of the file: the engine filled the page cache when it mapped it."""
        size = path.stat().st_size
        self._libc.madvise(self._base, size, mmap.MADV_DONTNEED)
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        os.close(descriptor)
        mapped = self._layout.mapped
        if mapped is not None:
            pages = whole_pages(mapped)
            self._libc.madvise(self._base + pages.start, pages.end - pages.start, mmap.MADV_RANDOM)

    def _streamed(self, block: int) -> Extent:
        end = whole_pages(self._layout.blocks[block]).end
        return Extent(end - self.plan.slot_bytes, end)

    def _pin(self) -> None:
        """Lay anonymous memory over everything that is computed from, and fill what stays."""
        size = self.plan.slot_bytes
        pieces = [(e.start, e.end) for e in self._layout.others]
        for index, block in enumerate(self._layout.blocks):
            if size:
                streamed = self._streamed(index)
                self._lay(streamed.start, size)
                pieces += [(block.start, streamed.start), (streamed.end, block.end)]
            else:
                pieces.append((block.start, block.end))
        for start, end in _merged_pages(pieces):
            self._lay(start, end - start)
            for offset in range(start, end, 4 * CHUNK_BYTES):
                self._read(offset, min(4 * CHUNK_BYTES, end - offset))

    def _lay(self, offset: int, size: int) -> None:
        address = self._base + offset
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
        got = self._libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        if got != address:
            raise EngineError(
                f"the system would not lay {size} bytes over the mapped file (errno {ctypes.get_errno()})"
            )

    def _read(self, offset: int, size: int) -> None:
        """Fill the memory at the file's ``offset`` from the file."""
        done = 0
        while done < size:
            got = self._libc.pread(self._descriptor, self._base + offset + done, size - done, offset + done)
            if got <= 0:
                if got == 0:  # past the end of the file: the rest of its last page
                    return
                raise EngineError(f"reading the model failed (errno {ctypes.get_errno()})")
            done += got

    def _probe(self, path: Path) -> float:
        """Bandwidth of the same readers, past the page cache.

        Over pieces from everywhere in the file: parts of it may lie in a cache of the storage's own.
        """
        wanted = min(path.stat().st_size // CHUNK_BYTES, 256)
        step = path.stat().st_size // CHUNK_BYTES // max(wanted, 1)
        offsets = deque(i * step * CHUNK_BYTES for i in range(wanted))

        def work() -> None:
            # Private memory, as the slots are: into shared memory direct reads are a third slower.
            buffer = mmap.mmap(-1, CHUNK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            while True:
                try:
                    offset = offsets.popleft()
                except IndexError:
                    return
                os.preadv(self._descriptor, [buffer], offset)

        threads = [threading.Thread(target=work) for _ in range(READER_COUNT)]
        started_s = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return wanted * CHUNK_BYTES / (time.perf_counter() - started_s)

    def _start(self) -> None:
        self._active = self.plan.slot_bytes > 0
        self._count = len(self._layout.blocks)
        self._loads_done = 0  # loads finished in order: block n % count of pass n // count
        self._left: dict[int, int] = {}
        self._chunks: deque[tuple[int, int, int]] = deque()
        self._failure: EngineError | None = None
        self._reading_count = 0
        self._reading_since_s = 0.0
        self._next_load = 0
        self._finished = 0
        self._begun = False
        self._first_node = b""
        if not self._active:
            return
        for _ in range(self.plan.slot_count):
            self._enqueue()
        for number in range(READER_COUNT):
            thread = threading.Thread(target=self._work, name=f"stream-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    # -- readers ------------------------------------------------------------------------------------------------

    def _enqueue(self) -> None:
        number = self._next_load
        self._next_load += 1
        extent = self._streamed(number % self._count)
        parts = [(number, o, min(CHUNK_BYTES, extent.end - o)) for o in range(extent.start, extent.end, CHUNK_BYTES)]
        with self._gate:
            self._left[number] = len(parts)
            self._chunks.extend(parts)
            self._gate.notify_all()

    def _work(self) -> None:
        while True:
            with self._gate:
                while not self._chunks and not self._stopped:
                    self._gate.wait()
                if self._stopped:
                    return
                number, offset, size = self._chunks.popleft()
                if not self._reading_count:
                    self._reading_since_s = time.perf_counter()
                self._reading_count += 1
            try:
                self._read(offset, size)
            except EngineError as error:
                self._failure = error
            with self._gate:
                self._reading_count -= 1
                if not self._reading_count:
                    self.reading_s += time.perf_counter() - self._reading_since_s
                self.read_bytes += size
                self._left[number] -= 1
                if self._left[number] == 0:
                    while self._left.get(self._loads_done) == 0:
                        del self._left[self._loads_done]
                        self._loads_done += 1
                    self._gate.notify_all()

    # -- the engine's callback ----------------------------------------------------------------------------------

    def _hook(self, node: int, ask: bool) -> bool:
        if not self._active:
            return not ask
        name = ctypes.string_at(node + _NAME_OFFSET, 12)
        if ask:
            # The nodes after the last block belong to the pass that ends, so a new one begins with the first node.
            if not self._begun and (not self._first_node or name == self._first_node):
                self._begun = True
                self._first_node = name
                self._pass_began_s = time.perf_counter()
                self._wait(self._finished)
            return name.startswith(_BLOCK_MARK)
        block = int(name[len(_BLOCK_MARK) :].split(b"\0", 1)[0])
        if block != self._finished % self._count:
            self._failure = EngineError(f"block {block} finished out of order")
            return False
        self._release()
        if block + 1 < self._count:
            return self._wait(self._finished)
        self._begun = False
        self.pass_count += 1
        self.duration_s += time.perf_counter() - self._pass_began_s
        return True

    def _wait(self, load: int) -> bool:
        """Wait until that load is in memory."""
        if load < self._loads_done:
            return True
        started_s = time.perf_counter()
        with self._gate:
            while load >= self._loads_done and self._failure is None and not self._stopped:
                self._gate.wait(5.0)
        self.stalls_s[load % self._count] += time.perf_counter() - started_s
        return self._failure is None

    def _release(self) -> None:
        """The oldest block is done: its slot goes to the next load."""
        size = self.plan.slot_bytes
        source = self._streamed(self._finished % self._count).start
        target = self._streamed(self._next_load % self._count).start
        self._finished += 1
        if source != target:
            got = self._libc.mremap(self._base + source, size, size, _MREMAP_FLAGS, self._base + target)
            if got != self._base + target:
                self._failure = EngineError(f"the system would not move a slot (errno {ctypes.get_errno()})")
                return
        self._enqueue()

    # -- results ------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Count from here on."""
        with self._gate:
            self.read_bytes = 0
            self.reading_s = 0.0
            self._reading_since_s = time.perf_counter()
        self.pass_count = 0
        self.duration_s = 0.0
        self.stalls_s = [0.0] * len(self._layout.blocks)

    read_bytes = 0
    reading_s = 0.0
    pass_count = 0
    duration_s = 0.0

    def report(self) -> StreamReport:
        """What happened since the last reset.

        Raises:
            EngineError: The engine does not mark its blocks (no ``l_out`` in this architecture), or a read failed.
        """
        if self._failure is not None:
            raise self._failure
        if self._active and self._begun:
            raise EngineError("this architecture does not mark the end of its blocks: it cannot be streamed")
        return StreamReport(
            pass_count=self.pass_count,
            duration_s=self.duration_s,
            read_bytes=self.read_bytes,
            reading_s=self.reading_s,
            stall_s=sum(self.stalls_s),
            stall_by_block_s=tuple(round(s, 6) for s in self.stalls_s),
            probe_bytes_per_s=self.probe_bytes_per_s,
        )

    def probe_again(self) -> None:
        """Look at the storage once more, after a run: a bound must not rest on one bad moment of it."""
        if self.probe_bytes_per_s:
            self.probe_bytes_per_s = max(self.probe_bytes_per_s, self._probe(self._path))

    def close(self) -> None:
        """End the readers, then free the engine's memory and this module's with it."""
        with self._gate:
            self._stopped = True
            self._gate.notify_all()
        for thread in self._threads:
            thread.join()
        if hasattr(self, "session"):
            self.session.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self.close()


def _merged_pages(pieces: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Page-aligned cover of the pieces, overlaps merged; empty pieces left out."""
    covers = sorted(
        (start // PAGE_BYTES * PAGE_BYTES, -(-end // PAGE_BYTES) * PAGE_BYTES) for start, end in pieces if end > start
    )
    merged: list[tuple[int, int]] = []
    for start, end in covers:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _mapping_base(path: Path) -> int:
    """Address that the start of the file is mapped at in this process."""
    wanted = str(path.resolve())
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == wanted:
            return int(fields[0].split("-")[0], 16) - int(fields[2], 16)
    raise EngineError(f"{path.name} is not mapped by the engine")


def _anonymous_bytes() -> int:
    """Anonymous memory and page tables of this process."""
    held = 0
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(("RssAnon:", "VmPTE:", "RssShmem:")):
            held += int(line.split()[1]) * 1024
    return held


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    size, address = ctypes.c_size_t, ctypes.c_void_p
    for name, arguments, result in (
        ("mmap", [address, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long], address),
        ("mremap", [address, size, size, ctypes.c_int, address], address),
        ("madvise", [address, size, ctypes.c_int], ctypes.c_int),
        ("pread", [ctypes.c_int, address, size, ctypes.c_long], ctypes.c_ssize_t),
    ):
        function = getattr(libc, name)
        function.argtypes, function.restype = arguments, result
    return libc
