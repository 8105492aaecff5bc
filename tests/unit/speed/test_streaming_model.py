"""Streaming splits by hand; experts' cache against closed forms and a simulation."""

import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.rows.others import speculation_rows, streaming_rows
from harness.answer.nearest import model_of
from harness.models.names import load_model
from harness.models.weights import weights_of
from harness.speed.coefficients import shipped
from harness.speed.published.errors_of_rows import judge_shipped, report
from harness.speed.storage import cached_experts, hit_ratio, inclusion, mmap_read_s, pass_s, popularity, streamed_bytes

GB = 10**9


MARGIN = 25_165_824 + 19_531_250  # 24 MiB, and 8 bytes of page table for each 4 KiB of 10 GB


def test_parts_of_all_layers_by_hand():
    # 10 layers of 1 GB, 7 GB of room less the margin: 3.0447 GB too much. A layer may begin anywhere: 475 whole huge
    # pages of it are streamed, in slots of 14. 104 slots too many, and of n in a pass twice ceil(n / 10) in memory:
    # 130 = 104 + 26
    slot = 14 * 2 * 2**20
    assert streamed_bytes([GB] * 10, 2 * GB, 9 * GB) == 130 * slot
    # 0.5 GB are read beside 0.5 s of arithmetic, 3.5 GB at twice the rate after it: 2.25 s, and (0.5 / 2.25)^8 / 8 more
    assert pass_s(4e9, 2e9, 1e9, 0.5) == pytest.approx(2.25, abs=1e-4)
    # all is read beside it, in 2 of 4 s: the eighth root of 4^8 + 2^8
    assert pass_s(2e9, 2e9, 1e9, 4.0) == pytest.approx(4.00195, abs=1e-5)
    # both take the same time: the eighth root of 2
    assert pass_s(2e9, 2e9, 1e9, 2.0) == pytest.approx(2.181, abs=1e-3)


def test_nothing_is_read_ahead_before_giving_up():
    # all of 10 layers, whose small pages come in slots of 7,629: 32 of each, and 64 in memory at a time
    page = mmap.PAGESIZE
    slot = (GB // page - 1) // 32 * page
    least = 10 * (GB - 32 * slot) + 64 * slot
    assert streamed_bytes([GB] * 10, 0, least + MARGIN) == 320 * slot
    assert streamed_bytes([GB] * 10, 0, least + MARGIN - 1) is None
    assert streamed_bytes([GB] * 10, 0, 10 * GB + MARGIN) == 0


def test_cyclic_scan_has_no_hits():
    assert mmap_read_s(10e9, 10e9, 2e9) == 0
    assert mmap_read_s(10.1e9, 10e9, 1.9e9) == pytest.approx(10.1 / 1.9)
    # under a limit of its own group it makes room itself: 1.396 GB at 4 GB/s, 0.35 s, and 0.29 s
    assert mmap_read_s(1.396e9, 1.07e9, 4e9, limited=True) == pytest.approx(0.642, abs=1e-3)
    assert mmap_read_s(1e9, 1.07e9, 4e9, limited=True) == 0


@given(st.integers(0, 20), st.integers(0, 20))
def test_more_ram_never_streams_more(one, two):
    less, more = (streamed_bytes([GB] * 12, GB, b * GB) for b in sorted((one, two)))
    assert less is None or (more is not None and more <= less)


def test_uniform_routing_hits_by_share():
    # without skew any memory hits with C / n
    assert hit_ratio(128, 32, skew=0) == pytest.approx(0.25)


def test_the_most_wanted_by_hand():
    # z = 1, n = 4: weights 1, 1/2, 1/3, 1/4 (sum 25/12); the two greatest hold 1.5 / (25/12) = 0.72
    assert hit_ratio(4, 2, skew=1) == pytest.approx(0.72)


def test_token_time_by_hand():
    # 48 blocks of 128 experts of 3 x 2048 x 768 weights in F16: 57.98 GB, of which a token wants 8 / 128 = 3.624 GB
    weights = weights_of(load_model("qwen3-30b-a3b").shape, "F16")
    computed_s = 0.6 / 0.6 + 48 * 0.0005  # at 0.6 of the speed, and a wait in each block
    assert cached_experts(weights, 58e9, 2e9, 0.6) == pytest.approx((computed_s, 1.0))
    assert cached_experts(weights, 0, 2e9, 0.6) == pytest.approx((computed_s + 1.812, 0.0), abs=1e-3)
    half_s, hit = cached_experts(weights, 57.98e9 / 2, 2e9, 0.6)
    assert hit == pytest.approx(hit_ratio(128, 64, used_count=8), abs=1e-3)
    assert half_s == pytest.approx(computed_s + 1.812 * (1 - hit), abs=1e-3)


def test_published_rows_keep_their_targets():
    rows = [*speculation_rows(), *streaming_rows(None, model_of)]
    found = report(rows, judge_shipped(rows, shipped())).groups
    speculation = found["speculative speedup (all rows)"]
    assert speculation.votes_count > 100
    assert speculation.median_ratio <= 0.16
    assert found["weights mapped from disk (all rows)"].within_ratio >= 2 / 3
    # .27 before eight runs of one MLX loop of GLM-5.2 came, whose disk nobody measured.
    assert found["experts read from disk (all rows)"].median_ratio <= 0.29


@pytest.mark.parametrize(("skew", "used"), [(0.0, 8), (0.5, 8), (0.9, 4), (1.3, 8)])
def test_inclusion_is_that_of_drawing_without_putting_back(skew: float, used: int) -> None:
    """Against drawing: the ``used`` largest of log-weights with Gumbel noise are such a draw (Efraimidis, Spirakis)."""
    random = np.random.default_rng(0)
    keys = np.log(popularity(64, skew)) + random.gumbel(size=(20_000, 64))
    drawn = np.bincount(np.argpartition(-keys, used - 1, axis=1)[:, :used].ravel(), minlength=64) / len(keys)
    assert inclusion(64, used, skew) == pytest.approx(drawn, abs=0.02)
    assert sum(inclusion(64, used, skew)) == pytest.approx(used)


def test_hits_of_tokens_that_want_several() -> None:
    """Against a plain simulation, each layer by itself: the 24 most probable experts are in memory."""
    random = np.random.default_rng(1)
    weights, hits = np.log(popularity(64, 0.9)), 0
    for _ in range(3500):
        hits += int((np.argsort(-(weights + random.gumbel(size=64)))[:8] < 24).sum())
    assert hit_ratio(64, 24, skew=0.9, used_count=8) == pytest.approx(hits / (3500 * 8), abs=0.02)


@pytest.mark.parametrize("used", [1, 8, 64])
def test_all_or_none_in_memory(used: int) -> None:
    assert hit_ratio(64, 64, used_count=used) == 1.0
    assert hit_ratio(64, 0, used_count=used) == 0.0


@pytest.mark.parametrize(("cached", "hit"), [(2.5, 0.72 + 0.5 * 0.16), (2.25, 0.72 + 0.25 * 0.16), (0.5, 0.24)])
def test_a_fraction_of_an_expert_hits_by_that_fraction(cached, hit):
    # the same weights: the third of four holds (1/3) / (25/12) = 0.16, the first 0.48
    assert hit_ratio(4, cached, skew=1) == pytest.approx(hit)
