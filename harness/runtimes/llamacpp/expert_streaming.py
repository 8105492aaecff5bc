"""Run a mixture of experts that is larger than the RAM it may use, on unmodified llama.cpp: expert by expert.

A token goes through a few of a layer's experts (8 of 64, say), and which ones is known only when the router
has computed: the evaluation callback sees its choice before anything is multiplied with experts. Everything
that every token reads is pinned; over the stacked tensors lies memory of which only the experts that are held
are resident. On a choice, experts that are missing are read past the page cache by parallel readers into
pages of those that go; the way back (``ffn_down``) is read while the engine multiplies with the first
matrices. Which experts stay is decided by :mod:`harness.runtimes.llamacpp.expert_cache`.

llama.cpp's CPU backend reads the slices of chosen experts only (``ggml_compute_forward_mul_mat_id`` skips
experts without rows), so what is not resident is never looked at. Names and fields: ggml.h (``struct
ggml_tensor``), llama-graph.cpp (``build_moe_ffn``) of the release packed in llama-cpp-python 0.3.36.
"""

import ctypes
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.domain.scenario import Scenario
from harness.domain.streaming import ExpertPlan, ExpertUse
from harness.errors import EngineError, RefusedError
from harness.runtimes.llamacpp.budgeted import BLOCK_MARK, BudgetedSession
from harness.runtimes.llamacpp.expert_cache import ExpertCache
from harness.runtimes.llamacpp.expert_pages import ExpertPages, Key
from harness.runtimes.llamacpp.session import DATA_OFFSET, NAME_OFFSET, NB_OFFSET, NE_OFFSET, SOURCES_OFFSET
from harness.runtimes.llamacpp.stream_plan import (
    ExpertLayout,
    FileLayout,
    expert_layout_of,
    merged_pages,
    plan_experts,
)
from harness.runtimes.llamacpp.streaming import StreamedSession

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
        self._choice_names: dict[bytes, int] = {}
        self._pause_names: dict[bytes, int] = {}
        self._product_names: dict[bytes, tuple[int, bool]] = {}
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
        if set(self._choice_names.values()) != set(self._experts.layers):
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
        for start, end in merged_pages(stacked):
            memory.lay(start, end - start)
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
        name = ctypes.string_at(node + NAME_OFFSET)
        if not self._active:
            if ask:
                self._learn(node, name)
            return not ask
        if ask:
            return self._asked(name)
        if name in self._choice_names:
            self._choose(self._choice_names[name], _choice_of(node))
        elif name in self._pause_names:
            self._await_late(self._pause_names[name])
        elif name == self._last_mark:
            self._end_pass()
        return self._failed() is None

    def _learn(self, node: int, name: bytes) -> None:
        """Of a node of the first passes: whether it multiplies with experts, and with which choice."""
        source = ctypes.c_void_p.from_address(node + SOURCES_OFFSET).value
        stack = None
        if source:
            stack = self._stack_of.get(ctypes.string_at(source + NAME_OFFSET))
        if stack is not None:
            layer, late = stack
            choice = ctypes.c_void_p.from_address(node + SOURCES_OFFSET + 16).value
            if choice and ctypes.c_int.from_address(choice).value == _TYPE_I32:
                self._choice_names[ctypes.string_at(choice + NAME_OFFSET)] = layer
            self._product_names[name] = stack
            if late and self._previous_name not in self._product_names:
                self._pause_names[self._previous_name] = layer
        self._previous_name = name

    def _asked(self, name: bytes) -> bool:
        if self._starts_pass(name):
            self._chosen = -1
            self._pass: Any = Counter()
            self._pass_counts: list[tuple[int, NDArray[np.int64]]] = []
            self._pass_tokens = 0
            self._read_before_bytes = self._readers.read_bytes
        if (product := self._product_names.get(name)) is not None:
            layer, late = product
            if layer != self._chosen:
                self._failure = EngineError(
                    f"layer {layer} multiplies with experts before it has chosen them"
                )
            elif (
                late
            ):  # all before it is asked first and computed later: this is where a missed pause is made good
                self._await_late(layer)
        return name in self._choice_names or name in self._pause_names or name == self._last_mark

    def _choose(self, layer: int, choice: NDArray[np.int32]) -> None:
        """The router has chosen [tokens, used]: have those experts in memory."""
        started_s = time.perf_counter()
        token_count = len(choice)
        self._pass_tokens = max(self._pass_tokens, token_count)
        counts = np.bincount(choice.ravel(), minlength=self.plan.expert_count)
        try:
            wanted = self._cache.want(layer, counts, token_count)
        except EngineError as error:
            self._failure = error
            return
        self._chosen = layer
        self._pass.update(wanted_count=wanted.hits + len(wanted.comes), hit_count=wanted.hits)
        self._pass_counts.append((layer, counts))
        if wanted.comes:
            self._load(wanted.goes, wanted.comes)
            self._readers.wait(self._ticket - 1)
            self._stall(layer, time.perf_counter() - started_s)

    def _load(self, goes: list[Key], comes: list[Key]) -> None:
        change = self._pages.change(goes, comes)
        for move in change.moves:
            if not self._memory.move(*move):  # no room for another mapping, or the two overlap
                self._memory.drop(move.source, move.size)
        for start, end in change.drops:
            self._memory.drop(start, end - start)
        self._ticket += 2
        self._readers.submit(self._ticket - 1, change.early)
        self._readers.submit(self._ticket, change.late)

    def _await_late(self, layer: int) -> None:
        self._stall(layer, self._readers.wait(self._ticket))

    def _stall(self, layer: int, duration_s: float) -> None:
        self.stalls_s[layer] += duration_s
        self._pass["stall_s"] += duration_s

    def _end_pass(self) -> None:
        self._pass.update(
            duration_s=self._finish_pass(), read_bytes=self._readers.read_bytes - self._read_before_bytes
        )
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
    data = ctypes.c_void_p.from_address(node + DATA_OFFSET).value
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
