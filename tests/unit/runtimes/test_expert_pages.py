"""Layout of experts, who needs which page, and which experts stay: by hand, and against a plain model of memory."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.made_models import synthesize
from bench.tiny_gguf import synthesize_tiny
from harness.core.errors import EngineError, RefusedError
from harness.core.model import Experts, ModelShape
from harness.core.streaming import PAGE_BYTES
from harness.models.weights import weights_of
from harness.runtimes.llamacpp.expert_streaming import LEAST_MOVE_BYTES, ExpertCache, ExpertPages
from harness.runtimes.llamacpp.stream_plan import (
    ExpertLayout,
    Extent,
    FileLayout,
    Stack,
    expert_layout_of,
    page_range,
    plan_experts,
)

P = PAGE_BYTES


def layout(
    *stacks: tuple[int, int, bool], experts: int = 4, used: int = 2, rest: tuple[Extent, ...] = ()
) -> ExpertLayout:
    """One layer with stacked tensors given as (start, slice bytes, late)."""
    made = tuple(Stack(f"blk.0.t{i}", start, size, late) for i, (start, size, late) in enumerate(stacks))
    rest_bytes = sum(len(page_range(e)) * P for e in rest)
    return ExpertLayout(experts, used, {0: made}, rest, rest_bytes, FileLayout((Extent(0, 1 << 30),), (), None))


@pytest.mark.parametrize(
    ("start", "end", "pages"),
    [(0, P, [0]), (1, P, [0]), (P - 1, P + 1, [0, 1]), (P, 3 * P, [1, 2]), (5, 6, [0])],
)
def test_pages_that_hold_any_of_it(start: int, end: int, pages: list[int]) -> None:
    assert list(page_range(Extent(start, end))) == pages


def test_a_file_is_taken_apart_slice_by_slice(tmp_path: Path) -> None:
    shape = ModelShape(
        architecture="olmoe", layer_count=2, hidden_dim=256, vocab_count=600, head_count=4, kv_head_count=4,
        head_dim=64, feed_forward_dim=0, context_max_tokens=4096, qk_norm=True,
        experts=Experts(expert_count=8, used_count=2, feed_forward_dim=96),
    )  # fmt: skip
    path = synthesize(weights_of(shape, "Q8_0"), tmp_path / "m.gguf")
    found = expert_layout_of(path)
    assert found is not None
    assert (found.expert_count, found.used_count, sorted(found.layers)) == (8, 2, [0, 1])
    # Q8_0: 34 bytes for 32 weights; a slice is 96 rows of 256, or 256 rows of 96
    assert {s.slice_bytes for stacks in found.layers.values() for s in stacks} == {96 * 256 // 32 * 34}
    assert [s.name.split(".")[2] for s in found.layers[1]] == ["ffn_up_exps", "ffn_gate_exps", "ffn_down_exps"]
    assert [s.late for s in found.layers[1]] == [False, False, True]
    assert found.expert_bytes == 2 * 3 * 8 * 96 * 256 // 32 * 34
    data = path.read_bytes()
    gguf = pytest.importorskip("gguf")
    for tensor in gguf.GGUFReader(path).tensors:  # the reference reader
        if tensor.name == "blk.1.ffn_up_exps.weight":
            extent = found.layers[1][0].slice(5)
            assert data[extent.start : extent.end] == np.asarray(tensor.data)[5].tobytes()
    assert expert_layout_of(synthesize_tiny(tmp_path / "dense.gguf", "Q8_0")) is None


def test_neighbours_share_a_page_and_it_is_read_once_and_kept_for_the_last() -> None:
    # slices of one page and a half: 0 has pages 0 1, 1 has 1 2, 2 has 3 4, 3 has 4 5
    pages = ExpertPages(layout((0, 3 * P // 2, False)))
    both = pages.change([], [(0, 0), (0, 1)])
    assert (both.moves, both.drops, both.late) == ([], [], [])
    assert both.early == [Extent(0, 2 * P), Extent(2 * P, 3 * P)]
    gone = pages.change([(0, 0)], [])
    assert gone.drops == [Extent(0, P)]  # page 1 is still needed by expert 1
    assert pages.change([(0, 1)], []).drops == [Extent(P, 3 * P)]
    assert not pages.users.any()


def test_a_page_of_a_pinned_tensor_is_never_read_nor_given_back() -> None:
    pages = ExpertPages(layout((P // 2, 2 * P, False), rest=(Extent(0, P // 2),)))
    assert pages.change([], [(0, 0)]).early == [Extent(P, 3 * P)]
    assert pages.change([(0, 0)], []).drops == [Extent(P, 3 * P)]


def test_a_page_of_both_kinds_is_read_early() -> None:
    pages = ExpertPages(layout((0, P // 2, True), (P // 2, P // 2, False), experts=1, used=1))
    change = pages.change([], [(0, 0)])
    assert (change.early, change.late) == ([Extent(0, P)], [])


def test_pages_that_go_are_carried_to_those_that_come() -> None:
    size = 2 * LEAST_MOVE_BYTES
    pages = ExpertPages(layout((0, size, False), (1 << 24, size, True)))
    pages.change([], [(0, 0)])
    change = pages.change([(0, 0)], [(0, 2)])
    assert change.drops == []
    assert sorted((m.target, m.size) for m in change.moves) == [(2 * size, size), ((1 << 24) + 2 * size, size)]


def test_pages_are_carried_between_slices_of_one_size_alone() -> None:
    # two tensors with slices of 40 and 60 pages: what goes of each is carried to what comes of the same
    pages = ExpertPages(layout((0, 40 * P, False), (1 << 24, 60 * P, False)))
    pages.change([], [(0, 0)])
    change = pages.change([(0, 0)], [(0, 3)])
    assert sorted((m.source, m.target, m.size) for m in change.moves) == [
        (0, 120 * P, 40 * P),
        (1 << 24, (1 << 24) + 180 * P, 60 * P),
    ]
    assert change.drops == []


def test_mappings_stay_few_however_long_it_runs() -> None:
    """Every place where a move begins or ends may split a mapping for good; Linux allows 65530 in a process."""
    experts = 16
    pages = ExpertPages(
        layout((100, 41 * P + 700, False), (1 << 24, 41 * P + 700, True), (1 << 25, 62 * P + 50, True), experts=experts)
    )
    random, resident, bounds = Random(1), list(range(4)), set()
    pages.change([], [(0, e) for e in resident])
    for _ in range(3000):
        goes = resident.pop(random.randrange(len(resident)))
        comes = random.choice([e for e in range(experts) if e not in {*resident, goes}])
        for move in pages.change([(0, goes)], [(0, comes)]).moves:
            bounds |= {move.source, move.source + move.size, move.target, move.target + move.size}
        resident.append(comes)
    assert len(bounds) < 5 * 3 * experts


@given(
    st.lists(st.tuples(st.integers(1, 5 * P), st.booleans()), min_size=1, max_size=3),
    st.integers(0, P - 1),
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
)
def test_resident_pages_are_those_of_resident_experts(
    sizes: list[tuple[int, bool]], first: int, steps: list[int]
) -> None:
    """A plain model: memory is a set of filled pages; moves leave the source empty and the target to be read."""
    stacks, at = [], first
    for size, late in sizes:
        stacks.append((at, size, late))
        at += 6 * size
    pinned = Extent(0, max(first, 1))
    made = layout(*stacks, experts=6, rest=(pinned,))
    pages = ExpertPages(made)
    always = set(page_range(pinned))
    filled, resident = set(always), set()
    for expert in steps:
        comes = [] if expert in resident else [(0, expert)]
        goes = [(0, e) for e in sorted(resident)[:1] if e != expert] if len(resident) > 2 and comes else []
        change = pages.change(goes, comes)
        resident = (resident - {e for _, e in goes}) | {expert}
        for move in change.moves:
            filled -= set(page_range(Extent(move.source, move.source + move.size)))
        for extent in change.drops:
            filled -= set(page_range(extent))
        for extent in [*change.early, *change.late]:
            assert not filled & set(page_range(extent)), "a page in use was read again"
            filled |= set(page_range(extent))
        needed = {p for e in resident for s in made.layers[0] for p in page_range(s.slice(e))}
        assert filled == needed | always


def test_plan_by_hand() -> None:
    made = layout(
        (0, 10 * P, False), (1 << 24, 10 * P, True), experts=8, used=2, rest=(Extent(1 << 25, (1 << 25) + 4 * P),)
    )
    total = 160 * P
    # 4 pages pinned, 20 pages an expert: 100 pages hold five, so two tokens of two experts each fit, and not three
    plan = plan_experts(made, 104 * P, 32)
    assert (plan.pinned_bytes, plan.cache_bytes, plan.expert_bytes, plan.batch_tokens) == (4 * P, 100 * P, total, 2)
    assert plan.streams
    assert plan.cached_count == pytest.approx(5.0)
    # all eight fit
    whole = plan_experts(made, 164 * P, 32)
    assert (whole.streams, whole.batch_tokens) == (False, 32)
    with pytest.raises(RefusedError, match="2 experts of a layer"):
        plan_experts(made, 43 * P, 32)


def counts(*experts: int, of: int = 6) -> np.ndarray:
    return np.bincount(experts, minlength=of)


def test_the_least_wanted_goes() -> None:
    cache = ExpertCache({0: 10}, 6, 30)
    for chosen in ((0, 1), (0, 1), (0, 1), (2,)):
        cache.want(0, counts(*chosen), 1)
    wanted = cache.want(0, counts(3), 1)
    assert (wanted.hits, wanted.comes, wanted.goes) == (0, [(0, 3)], [(0, 2)])


def test_old_uses_fade() -> None:
    cache = ExpertCache({0: 10}, 6, 20, half_life_tokens=1.0)
    for chosen in ((0,), (0,), (0,), (1,), (1,)):
        cache.want(0, counts(*chosen), 1)
    # 0: 2^-4 + 2^-3 + 2^-2 = 0.44 uses, 1: 1.5 uses
    assert cache.want(0, counts(2), 1).goes == [(0, 0)]


def test_what_does_not_fit_together_is_said() -> None:
    with pytest.raises(EngineError, match="do not fit"):
        ExpertCache({0: 10}, 6, 20).want(0, counts(0, 1, 2), 3)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.sets(st.integers(0, 5), min_size=1, max_size=3)), max_size=60),
    st.integers(3, 18),
    st.sampled_from([1.0, 3.0, 512.0]),
)
def test_the_cache_keeps_its_bound_and_holds_what_is_wanted(
    passes: list[tuple[int, set[int]]], capacity: int, half_life: float
) -> None:
    sizes = {0: 10, 1: 7, 2: 10}
    cache = ExpertCache(sizes, 6, 10 * capacity, half_life_tokens=half_life)
    resident: set[tuple[int, int]] = set()
    for layer, chosen in passes:
        wanted = cache.want(layer, counts(*chosen), 1)
        keys = {(layer, e) for e in chosen}
        assert wanted.hits == len(keys & resident)
        assert set(wanted.comes) == keys - resident
        assert set(wanted.goes) <= resident - keys
        resident = (resident - set(wanted.goes)) | keys
        assert {(cache._layers[row], int(expert)) for row, expert in np.argwhere(cache._resident)} == resident
        assert cache.held_bytes == sum(sizes[n] for n, _ in resident) <= 10 * capacity


def test_scores_outlive_many_tokens() -> None:
    cache = ExpertCache({0: 1}, 4, 2, half_life_tokens=2.0)
    for _ in range(3000):  # 2 ** 1500 without rescaling
        cache.want(0, counts(0, of=4), 1)
    cache.want(0, counts(1, of=4), 1)
    assert cache.want(0, counts(2, of=4), 1).goes == [(0, 1)]
