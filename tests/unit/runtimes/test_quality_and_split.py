"""Quality figures and the streaming split against hand computations."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import RefusedError
from harness.core.streaming import PAGE_BYTES
from harness.runtimes.llamacpp.block_streaming import StreamedSession
from harness.runtimes.llamacpp.pass_clock import PassClock
from harness.runtimes.llamacpp.stream_plan import Extent, FileLayout, NoRoomError, plan_split, whole_pages
from harness.runtimes.llamacpp.text_scores import Scores, chunks_of, log_probabilities
from harness.speed.storage import evenly_spread


def test_log_probabilities_by_hand() -> None:
    logs = log_probabilities(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]], np.float32))
    assert np.exp(logs) == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]), rel=1e-4)


def test_scores_by_hand() -> None:
    logs = np.log(np.array([[0.5, 0.5], [0.2, 0.8]], np.float32))
    base = np.log(np.array([[0.5, 0.5], [0.5, 0.5]], np.float32))
    scores = Scores()
    scores.add(logs, np.array([0, 1]), base)
    result = scores.result()
    # exp(-(ln 0.5 + ln 0.8) / 2) = 1 / sqrt(0.4) = 1.58114
    assert result.perplexity == pytest.approx(0.4**-0.5, rel=1e-6)
    # rows: 0, and 0.5 ln(0.5 / 0.2) + 0.5 ln(0.5 / 0.8) = 0.22314; their mean is 0.11157
    assert result.kl_divergence == pytest.approx(0.11157, abs=1e-5)
    assert result.top1_agreement_ratio == 0.5


def test_rows_of_both_models_by_hand() -> None:
    own = np.log(np.array([[0.5, 0.4, 0.1], [0.2, 0.7, 0.1]], np.float32))
    base = np.log(np.array([[0.1, 0.6, 0.3], [0.3, 0.6, 0.1]], np.float32))
    scores = Scores()
    scores.add(own[:1], np.array([0]), base[:1])
    scores.add(own[1:], np.array([2]), base[1:])
    mine, reference = scores.columns()
    assert mine.confidence == pytest.approx([0.5, 0.7])
    assert mine.is_right.tolist() == [True, False]
    assert mine.nll == pytest.approx(-np.log([0.5, 0.1]))
    assert reference.confidence == pytest.approx([0.6, 0.6])
    assert reference.is_right.tolist() == [False, False]
    assert reference.nll == pytest.approx(-np.log([0.1, 0.1]))


def test_chunks() -> None:
    assert chunks_of(range(10), 4, 0, None) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert chunks_of(range(10), 4, 1, 99) == [[99, 1, 2, 3]]


BLOCKS = [Extent(i * 100 * PAGE_BYTES, (i + 1) * 100 * PAGE_BYTES) for i in range(10)]


def test_everything_fits() -> None:
    plan = plan_split(BLOCKS, 0, 1000 * PAGE_BYTES)
    assert (plan.slot_bytes, plan.streamed_bytes, plan.pinned_bytes) == (0, 0, 1000 * PAGE_BYTES)


def test_split_by_hand() -> None:
    # Blocks of 100 pages stream in slots of 3 of them, 33 a block: the 300 pages too many are 100 slots. With n slots
    # in a pass ceil(n / 10) are a block's. Ahead of it 22 MiB are read where they can be: 1,878 slots, halved until
    # they fit with 330 in all: n - 117 - ceil(n / 10) = 100 for 242.
    plan = plan_split(BLOCKS, 0, 700 * PAGE_BYTES)
    assert plan.slot_bytes == 3 * PAGE_BYTES
    assert plan.streamed_bytes - plan.slot_count * plan.slot_bytes == 300 * PAGE_BYTES
    assert plan.slot_count == max(Counter(plan.blocks).values()) + 117  # 1,878 / 16
    assert plan.pinned_bytes + plan.slot_count * plan.slot_bytes == 700 * PAGE_BYTES


def test_huge_pages_by_hand() -> None:
    # 28 blocks of 10 huge pages, 46 too many: 11 are read ahead, and with 3 at most of a block 3 more are in memory:
    # 60 in each pass, 2 or 3 of a block, evenly spread
    huge = 2 * 2**20
    blocks = [Extent(i * 10 * huge, (i + 1) * 10 * huge) for i in range(28)]
    plan = plan_split(blocks, 0, (280 - 46) * huge)
    assert (plan.slot_bytes, plan.slot_count, plan.streamed_bytes) == (huge, 14, 60 * huge)
    assert plan.unit_bytes == huge
    streamed = [plan.blocks.count(block) for block in range(28)]
    assert set(streamed) == {2, 3}
    assert all(sum(streamed[i : i + 7]) == 15 for i in range(0, 28, 7))


def test_blocks_give_in_proportion_to_their_room() -> None:
    assert evenly_spread(10, [10, 20, 10]) == (2, 5, 3)
    assert evenly_spread(40, [10, 20, 10]) == (10, 20, 10)
    assert evenly_spread(0, []) == ()


def test_huge_pages_are_aligned_in_memory() -> None:
    # a file mapped at 5 MiB: its bytes 1 to 9 MiB lie at 6 to 14 MiB, and all of them are whole huge pages
    mib = 2**20
    assert whole_pages(Extent(mib, 9 * mib), 2 * mib, base=5 * mib) == Extent(mib, 9 * mib)
    assert whole_pages(Extent(mib, 9 * mib), 2 * mib, base=4 * mib) == Extent(2 * mib, 8 * mib)
    assert whole_pages(Extent(mib, 2 * mib), 2 * mib, base=4 * mib) == Extent(2 * mib, 2 * mib)  # none


def test_nothing_is_read_ahead_before_giving_up() -> None:
    # all of 10 blocks of 33 slots are streamed with 66 in memory: 198 pages, and 10 that are in no slot
    assert plan_split(BLOCKS, 0, 208 * PAGE_BYTES).slot_count == 66
    with pytest.raises(NoRoomError, match=r"832 KiB of weights must be in memory at once"):
        plan_split(BLOCKS, 0, 207 * PAGE_BYTES)


@given(
    st.lists(st.integers(10_000, 20_000_000), min_size=3, max_size=40),
    st.integers(0, 10_000_000),
    st.floats(0.01, 1.2),
    st.integers(0, 1000).map(lambda n: n * PAGE_BYTES),
)
def test_a_plan_never_exceeds_what_it_may_use(sizes: list[int], always: int, share: float, base: int) -> None:
    starts = np.cumsum([64, *sizes])
    blocks = [Extent(int(a), int(b)) for a, b in pairwise(starts)]
    allowed = int(share * (sum(sizes) + always))
    try:
        plan = plan_split(blocks, always, allowed, base=base)
    except RefusedError:
        return
    assert plan.pinned_bytes + plan.slot_count * plan.slot_bytes <= allowed
    assert plan.pinned_bytes + plan.streamed_bytes == sum(sizes) + always
    for index, count in Counter(plan.blocks).items():
        pages = whole_pages(blocks[index], plan.unit_bytes, base)
        assert pages.end - pages.start >= count * plan.slot_bytes
    assert len(plan.blocks) * plan.slot_bytes == plan.streamed_bytes
    assert not plan.blocks or plan.slot_count < len(plan.blocks)


class Ring:
    """Memory and readers that know which pages are there: what moves leaves nothing behind, what comes is not there."""

    base = 0

    def __init__(self) -> None:
        self.resident: set[int] = set()

    def lay(self, *_: object, **__: object) -> None: ...

    pin = lay

    def move(self, source: int, target: int, size: int) -> bool:
        came, went = range(target, target + size, PAGE_BYTES), range(source, source + size, PAGE_BYTES)
        assert not set(came) & set(went), "mremap refuses what overlaps"
        assert not self.resident.intersection(came)
        self.resident.difference_update(went)
        self.resident.update(came)
        return True

    def submit(self, _ticket: int, extents: list[Extent]) -> None:
        self.resident.update(at for e in extents for at in range(e.start, e.end, PAGE_BYTES))

    def wait(self, _ticket: int) -> float:
        return 0.0


@given(st.lists(st.integers(8, 70), min_size=3, max_size=12), st.integers(1, 400))
def test_slots_are_where_each_block_wants_them(sizes: list[int], excess: int) -> None:
    ends = [0, *np.cumsum(sizes).tolist()]
    blocks = tuple(Extent(a * PAGE_BYTES, b * PAGE_BYTES) for a, b in pairwise(ends))
    try:
        plan = plan_split(blocks, 0, (sum(sizes) - excess) * PAGE_BYTES)
    except RefusedError:
        return
    session = object.__new__(StreamedSession)
    ring: Any = Ring()
    session.plan, session._memory, session._readers = plan, ring, ring
    session._layout, session._failure, ring.failure = FileLayout(blocks, (), None), None, None
    session._clock = PassClock()
    session._place()
    session._begin()
    for block in [*range(len(blocks))] * 3:
        session._block = block
        assert session._wait_for_block()
        end, size = blocks[block].end, session._counts[block] * plan.slot_bytes
        assert ring.resident.issuperset(range(end - size, end, PAGE_BYTES))
        assert len(ring.resident) * PAGE_BYTES == plan.slot_count * plan.slot_bytes
        assert session._release()
