"""Run a mixture of experts that is larger than the RAM it may use, on unmodified llama.cpp: expert by expert.

A token goes through a few of a layer's experts (8 of 64, say), and which ones is known only when the router
has computed: the evaluation callback sees its choice before anything is multiplied with experts. Everything
that every token reads is pinned; over the stacked tensors lies memory of which only the experts that are held
are resident. On a choice, experts that are missing are read past the page cache by parallel readers into
pages of those that go; the way back (``ffn_down``) is read while the engine multiplies with the first
matrices. Which experts stay is decided by :class:`ExpertCache`.

llama.cpp's CPU backend reads the slices of chosen experts only (``ggml_compute_forward_mul_mat_id`` skips
experts without rows), so what is not resident is never looked at. Names and fields: ggml.h (``struct
ggml_tensor``), llama-graph.cpp (``build_moe_ffn``) of the release packed in llama-cpp-python 0.3.36.

Which experts stay: those most likely to be wanted by the next token, over all layers together.

An expert's worth is the probability that the next token wants it, by byte. It is estimated from two things:

    p = s + [chosen by the last token] r (1 - s)

s: share of tokens that chose it, each token counted 2 ** (-age / half life) (LRFU: Lee et al. 2001); r: how
often, in that layer, a choice comes again in the next token beyond what its share explains, measured as the
model runs. Reasons:

- Of choices drawn independently from fixed probabilities the best a cache can do is keep the most probable
  ones (Aho, Denning & Ullman 1971); which was used last says nothing beyond that. LRU keeps what came last,
  however rare it is.
- Where tokens do choose again what the last one chose, shares alone drop an expert just read, only to read it
  again: there LRU is the better one. r tells which of the two a model is, layer by layer.
- A prompt wants nearly all experts of every layer, once a pass: a cyclic scan that LRU empties the cache for.
  Counts of tokens outlive it.
- Texts change their subject, and popularity with it: old counts must fade.
- All layers share one budget: a layer whose choices are even gains little from a place that a skewed layer
  needs.

Which pages hold which experts: slices rarely begin on a page, so neighbours share one.

A page is needed by every resident slice that has bytes in it, and always where a pinned tensor has. It is
read when the first of them comes and given back when the last of them goes; a page that a neighbour has in
use is never read again.
"""

import ctypes
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import EngineError, RefusedError
from harness.core.scenario import Scenario
from harness.core.streaming import PAGE_BYTES, ExpertPlan, ExpertUse
from harness.runtimes.llamacpp.block_streaming import BLOCK_MARK, BudgetedSession, StreamedSession
from harness.runtimes.llamacpp.session import (
    DATA_OFFSET,
    NB_OFFSET,
    NE_OFFSET,
    SOURCES_OFFSET,
    name_of,
    pointer_at,
)
from harness.runtimes.llamacpp.stream_plan import (
    ExpertLayout,
    Extent,
    FileLayout,
    expert_layout_of,
    merged_pages,
    page_range,
    plan_experts,
)

HALF_LIFE_TOKENS: Final = 64.0
"""Costs half a point of hits against 512 where popularity stays, and gains 1 to 3 points where half of the
experts change places every 150 tokens."""
_AGAIN_TOKENS: Final = 16.0  # over which r is averaged


Key = tuple[int, int]
"""An expert: (layer, number)."""


class Wanted(NamedTuple):
    """What one layer's choice means: how many experts are in memory, which to read, and which to give back before."""

    hits: int
    comes: list[Key]
    goes: list[Key]


class ExpertCache:
    """Says what comes and goes; holds no memory itself, ``held_bytes`` is what experts take.

    ``sizes`` are bytes of one expert by layer, ``capacity_bytes`` the most that experts may take at a time;
    after ``half_life_tokens`` a use counts half.
    """

    def __init__(
        self,
        sizes: Mapping[int, int],
        expert_count: int,
        capacity_bytes: int,
        *,
        half_life_tokens: float = HALF_LIFE_TOKENS,
    ) -> None:
        self._layers = sorted(sizes)
        # All below is [layer, expert].
        self._sizes = np.array([[sizes[layer]] * expert_count for layer in self._layers], np.int64)
        self._capacity_bytes = capacity_bytes
        self._half_life_tokens = half_life_tokens
        self._total = 0.0  # score of an expert that every token chose
        self._scores = np.zeros(self._sizes.shape)
        self._last = np.zeros(self._sizes.shape, np.bool_)
        self._resident = np.zeros(self._sizes.shape, np.bool_)
        self._again = np.zeros((len(self._layers), 1))
        self._last_single: set[int] = set()  # rows whose last pass was over one token
        self._last_row = -1
        self.held_bytes = 0

    def want(self, layer: int, counts: NDArray[np.int64], token_count: int) -> Wanted:
        """The router of a layer has chosen; EngineError where the wanted experts do not fit together.

        A lower layer than before, or the same, begins a new pass over ``token_count`` tokens; ``counts``
        [expert_count] says how many of them chose each expert.
        """
        row = self._layers.index(layer)
        if row <= self._last_row or not self._total:
            fade = 0.5 ** (token_count / self._half_life_tokens)
            self._scores *= fade
            self._total = self._total * fade + token_count
        self._last_row = row
        chosen = counts > 0
        self._learn(row, chosen, token_count)
        self._scores[row] += counts
        missing = np.flatnonzero(chosen & ~self._resident[row])
        missing_bytes = int(self._sizes[row, missing].sum())
        goes = self._give_back(row, chosen, self.held_bytes + missing_bytes - self._capacity_bytes)
        self._resident[row, missing] = True
        self.held_bytes += missing_bytes
        hits = int(np.count_nonzero(chosen)) - len(missing)
        return Wanted(hits, [(layer, expert) for expert in missing.tolist()], goes)

    def _learn(self, row: int, chosen: NDArray[np.bool_], token_count: int) -> None:
        """How often a choice comes again beyond what its share explains."""
        last = self._last[row]
        if token_count > 1:
            self._last_single.discard(row)
        elif row not in self._last_single:
            self._last_single.add(row)
        else:
            share = self._scores[row][last] / self._total
            left = float((1 - share).sum())  # choices that would not have come again by popularity
            if left > 0:
                again = min(max(float((chosen[last] - share).sum()) / left, 0.0), 1.0)
                self._again[row] += (again - self._again[row]) / _AGAIN_TOKENS
        self._last[row] = chosen

    def _give_back(self, row: int, chosen: NDArray[np.bool_], excess_bytes: int) -> list[Key]:
        """Those of least worth, by byte, that free so many bytes; none of them chosen now."""
        if excess_bytes <= 0:
            return []
        candidates = self._resident.copy()
        candidates[row, chosen] = False
        share = self._scores / (self._total or 1.0)
        worth = (share + self._again * self._last * (1 - share)) / self._sizes
        indices = np.flatnonzero(candidates)
        order = indices[np.argsort(worth.ravel()[indices], kind="stable")]
        room = np.cumsum(self._sizes.ravel()[order])
        needed = int(np.searchsorted(room, excess_bytes)) + 1
        if needed > len(order):
            raise EngineError("the experts that one pass wants of a layer do not fit the budget together")
        self._resident.ravel()[order[:needed]] = False
        self.held_bytes -= int(room[needed - 1])
        count = self._sizes.shape[1]
        return [(self._layers[i // count], i % count) for i in order[:needed].tolist()]


LEAST_MOVE_BYTES: Final = 16 * PAGE_BYTES
"""Shorter runs are given back and taken anew: a move costs a call, a split mapping and a flush on other
cores."""

MOST_CARRIED_SLICES: Final = 12_288
"""A slice that pages were carried to and from becomes up to five mappings, split where its first and last
pages begin and end, and Linux allows 65530 in a process (vm.max_map_count); past this many slices pages are
given back and taken anew."""


class Move(NamedTuple):
    """Resident pages to carry over."""

    source: int
    target: int
    size: int


class PageChange(NamedTuple):
    """What to do with the laid memory, in this order: pages to carry over, to give back, and to read.

    ``early`` are pages of the tensors that are used first, ``late`` of those that are used last.
    """

    moves: list[Move]
    drops: list[Extent]
    early: list[Extent]
    late: list[Extent]


class ExpertPages:
    """Counts for every page the resident slices in it, in ``users``."""

    def __init__(self, layout: ExpertLayout) -> None:
        self._layers = layout.layers
        self._carries = layout.expert_count * sum(map(len, layout.layers.values())) <= MOST_CARRIED_SLICES
        end = max(s.slice(layout.expert_count).start for stacks in layout.layers.values() for s in stacks)
        self.users: NDArray[np.int32] = np.zeros(-(-end // PAGE_BYTES) + 1, np.int32)
        for extent in layout.rest:
            pages = page_range(extent)
            self.users[pages.start : pages.stop] += 1

    def change(self, goes: Iterable[Key], comes: Sequence[Key]) -> PageChange:
        """Account for experts that go and come, none of which is both.

        Pages that go are carried over to pages that come where both are as many: carrying is cheaper than
        giving back and having the system clear new ones, and pieces of any size would split mappings ever
        further.
        """
        free = self._step(goes, -1)
        # Early ones first: a page that both kinds have bytes in is then read early.
        early = self._step(comes, 1, (False,))
        late = self._step(comes, 1, (True,))
        if not self._carries:
            return PageChange([], free, early, late)
        by_size: defaultdict[int, list[Extent]] = defaultdict(list)
        for run in free:
            by_size[run.size].append(run)
        moves: list[Move] = []
        for extent in (*early, *late):
            size = extent.size
            if size >= LEAST_MOVE_BYTES and by_size[size]:
                moves.append(Move(by_size[size].pop().start, extent.start, size))
        return PageChange(moves, [run for runs in by_size.values() for run in runs], early, late)

    def _step(
        self, experts: Iterable[Key], by: Literal[-1, 1], late: tuple[bool, ...] = (False, True)
    ) -> list[Extent]:
        """Count one user more or less of the experts' pages in these stacks.

        The returned page runs are those whose count left zero or came back to it: to be read, or to be
        dropped.
        """
        runs: list[Extent] = []
        for layer, expert in experts:
            for stack in (s for s in self._layers[layer] if s.late in late):
                pages = page_range(stack.slice(expert))
                part = self.users[pages.start : pages.stop]
                part += by
                runs += _runs(part == max(by, 0), pages.start)
        return runs


def _runs(marks: NDArray[np.bool_], first_page: int) -> list[Extent]:
    """Runs of marked pages, as bytes."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], marks, [False]))))
    return [
        Extent(int(first_page + a) * PAGE_BYTES, int(first_page + b) * PAGE_BYTES)
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]


_TYPE_I32: Final = 26


class ExpertStreamedSession(BudgetedSession):
    """A session that holds the experts that are wanted most; all else as in :class:`BudgetedSession`.

    Raises:
        RefusedError: The model has no routed experts, or the engine builds this architecture in another way.
    """

    name = "experts"
    through_buffers = True
    plan: ExpertPlan

    def __init__(
        self,
        path: Path,
        scenario: Scenario,
        budget_bytes: int,
        *,
        batch_tokens: int = 32,
    ) -> None:
        self._previous_name = b""
        self._choices: dict[bytes, int] = {}  # layers by the names of their routers' choices
        self._pauses: set[bytes] = set()  # names of nodes behind which the late pages must be there
        self._products: dict[
            bytes, tuple[int, bool]
        ] = {}  # layer of a product with experts, and whether it is late
        super().__init__(path, scenario, budget_bytes, batch_tokens=batch_tokens)
        self.session.batch_tokens = self.plan.batch_tokens

    def _read_layout(self, path: Path) -> FileLayout:
        layout = expert_layout_of(path)
        if layout is None:
            raise RefusedError(f"{path.name} has no routed experts")
        self._experts: ExpertLayout = layout
        self._stack_of = {s.name.encode(): (n, s.late) for n, stacks in layout.layers.items() for s in stacks}
        self._last_mark = BLOCK_MARK + str(len(layout.base.blocks) - 1).encode()
        return layout.base

    def _make_plan(self, room_bytes: int) -> bool:
        if set(self._choices.values()) != set(self._experts.layers):
            raise RefusedError(
                "the engine's graph does not tell which experts it chose: they cannot be streamed"
            )
        self.plan = plan_experts(self._experts, room_bytes, self.session.batch_tokens)
        return self.plan.streams

    def _place(self) -> None:
        memory = self._memory
        stacked = self._experts.stacked
        if not self.plan.streams:
            memory.pin([*self._experts.rest, *stacked])
            return
        for pages in merged_pages(stacked):
            memory.lay(pages.start, pages.size)
        memory.pin(self._experts.rest)  # later, for pages that a stacked tensor shares with another one

    def _begin(self) -> None:
        layers = self._experts.layers
        self._pages = ExpertPages(self._experts)
        self._cache = ExpertCache(
            {n: self._experts.footprint_bytes(n) for n in layers},
            self.plan.expert_count,
            self.plan.cache_bytes,
        )
        self._ticket = 0
        self._chosen = -1  # the layer whose choice was handled last

    # -- the engine's callback
    # ----------------------------------------------------------------------------------

    def _hook(self, node: int, ask: bool) -> bool:
        name = name_of(node)
        if not self._active:
            if ask:
                self._learn(node, name)
            return not ask
        if ask:
            if self._starts_pass(name):
                self._chosen = -1
                self._pass: Any = Counter()
                self._pass_counts: list[tuple[int, NDArray[np.int64]]] = []
                self._pass_tokens = 0
                self._read_before_bytes = self._readers.read_bytes
            layer, late = self._products.get(name, (self._chosen, False))
            if layer != self._chosen:
                told = f"layer {layer} multiplies with experts before it has chosen them"
                self._failure = EngineError(told)
            elif late:
                # All before it is asked first and computed later: here a missed pause is made good.
                self._await(self._ticket)
            return name in self._choices or name in self._pauses or name == self._last_mark
        if name in self._choices:
            self._choose(self._choices[name], _choice_of(node))
        elif name == self._last_mark:
            self._end_pass()
        else:
            self._await(self._ticket)
        return self._failed() is None

    def _learn(self, node: int, name: bytes) -> None:
        """Of a node of the first passes: whether it multiplies with experts, and with which choice."""
        source = pointer_at(node + SOURCES_OFFSET)
        stack = self._stack_of.get(name_of(source)) if source else None
        if stack is not None:
            layer, late = stack
            choice = pointer_at(node + SOURCES_OFFSET + 16)
            if choice and ctypes.c_int.from_address(choice).value == _TYPE_I32:
                self._choices[name_of(choice)] = layer
            self._products[name] = stack
            if late and self._previous_name not in self._products:
                self._pauses.add(self._previous_name)
        self._previous_name = name

    def _choose(self, layer: int, choice: NDArray[np.int32]) -> None:
        """The router has chosen [tokens, used]: have those experts in memory."""
        token_count = len(choice)
        self._pass_tokens = max(self._pass_tokens, token_count)
        counts = np.bincount(choice.ravel(), minlength=self.plan.expert_count)
        started_s = time.perf_counter()
        try:
            wanted = self._cache.want(layer, counts, token_count)
        except EngineError as error:
            self._failure = error
            return
        self._chosen = layer
        self._pass.update(wanted_count=wanted.hits + len(wanted.comes), hit_count=wanted.hits)
        self._pass_counts.append((layer, counts))
        if not wanted.comes:
            return
        change = self._pages.change(wanted.goes, wanted.comes)
        for move in change.moves:
            if not self._memory.move(*move):  # no room for another mapping, or the two overlap
                self._memory.drop(move.source, move.size)
        for extent in change.drops:
            self._memory.drop(extent.start, extent.size)
        self._ticket += 2
        self._readers.submit(self._ticket - 1, change.early)
        self._readers.submit(self._ticket, change.late)
        self._pass["stall_s"] += time.perf_counter() - started_s
        self._await(self._ticket - 1)

    def _await(self, ticket: int) -> None:
        self._pass["stall_s"] += self._readers.wait(ticket)

    def _end_pass(self) -> None:
        self._pass.update(
            duration_s=self._finish_pass(), read_bytes=self._readers.read_bytes - self._read_before_bytes
        )
        self._clock.stall_s += self._pass["stall_s"]
        self._all.update(self._pass)
        if self._pass_tokens == 1:
            self._single.update(self._pass, pass_count=1)
            for layer, counts in self._pass_counts:
                self._counts[layer] += counts

    # -- results
    # ------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Count from here on."""
        super().reset()
        self._all: Any = Counter()  # of all passes, as ExpertUse names what is summed; some are times
        self._single: Any = Counter()  # of those over a single token
        self._counts = {n: np.zeros(self._experts.expert_count, np.int64) for n in self._experts.layers}

    def use(self) -> ExpertUse:
        """What was wanted since the last reset."""
        names = ("wanted_count", "hit_count", "pass_count", "read_bytes", "duration_s", "stall_s")
        return ExpertUse(
            wanted_count=self._all["wanted_count"],
            hit_count=self._all["hit_count"],
            counts=tuple(tuple(c.tolist()) for c in self._counts.values()),
            held_bytes=self._cache.held_bytes if self._active else self.plan.expert_bytes,
            **{f"single_{name}": self._single[name] for name in names},
        )


def _choice_of(node: int) -> NDArray[np.int32]:
    """Ids [tokens, used] of a choice.

    It is a view of a sorted row, so rows are further apart than they are long.
    """
    used, tokens = (ctypes.c_int64 * 2).from_address(node + NE_OFFSET)
    stride, row_stride = (ctypes.c_size_t * 2).from_address(node + NB_OFFSET)
    data = pointer_at(node + DATA_OFFSET)
    if not (data and tokens and used):
        return np.zeros((0, int(used)), np.int32)
    span = (tokens - 1) * row_stride + (used - 1) * stride + 4
    block: Any = (ctypes.c_ubyte * span).from_address(data)
    return np.ndarray((tokens, used), np.int32, block, strides=(row_stride, stride))


def open_streamed(
    path: Path, scenario: Scenario, budget_bytes: int, *, batch_tokens: int = 32
) -> tuple[StreamedSession | ExpertStreamedSession, str]:
    """Open a model under a budget.

    Experts are streamed where a model has them and everything else fits, and blocks otherwise: where not even
    what every token reads fits, most of it has to be read in every pass anyway. The text says why it streams
    blocks although the model has experts; empty otherwise.

    Raises:
        RefusedError: Not on this system, or the budget is too small.
        EngineError: The engine refused the file.
    """
    reason = ""
    if expert_layout_of(path) is not None:
        try:
            return ExpertStreamedSession(path, scenario, budget_bytes, batch_tokens=batch_tokens), reason
        except RefusedError as refusal:
            reason = str(refusal)
    try:
        return StreamedSession(path, scenario, budget_bytes, batch_tokens=batch_tokens), reason
    except RefusedError as refusal:
        raise RefusedError(
            f"experts: {reason}. Block by block: {refusal}" if reason else str(refusal)
        ) from refusal
