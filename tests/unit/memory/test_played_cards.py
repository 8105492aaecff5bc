"""Compute buffers beside llama.cpp's own, on cards that are played to it (``python -m bench.played_cards``).

``played_cards.csv`` is what its scheduler and allocator (0c1e57098) reserve on each kind of architecture, with what the
backends of CUDA, Vulkan and Metal add to a tensor, choose as an order, and keep alive.
"""

import csv
from pathlib import Path

import pytest

from bench.memory_conformance import KINDS
from bench.played_cards import predicted

ROWS = list(csv.DictReader((Path(__file__).parents[2] / "data" / "played_cards.csv").open(encoding="utf-8")))
LARGEST = {
    ("cuda", "F16", 1): (0.01, 0.09),
    ("cuda", "F16", 2): (0.02, 0.19),
    ("cuda", "Q8_0", 1): (0.03, 0.15),
    ("vulkan", "F16", 1): (0.04, 0.15),
    ("metal", "F16", 1): (0.06, 0.2),
}
"""What a card may be off by in the median, and nine in ten: some backends lay behind a tensor or reorder nodes."""


@pytest.mark.parametrize(("api", "kv_type", "cards"), LARGEST)
def test_each_kind_reserves_what_the_engine_does(api, kv_type, cards):
    """Tiny models, whose buffer is most of their memory; of a real one it is a few percent."""
    errors: list[float] = []
    rows = [row for row in ROWS if (row["api"], row["kv_type"], int(row["cards"])) == (api, kv_type, cards)]
    for row in rows:
        case = (int(row["context_tokens"]), int(row["ubatch_tokens"]), int(row["slots"]))
        *on_cards, host = predicted(KINDS[row["kind"]], api, kv_type, cards, case)
        assert host == pytest.approx(float(row["host_mib"]), rel=0.02)
        errors += [abs(told / float(mib) - 1) for told, mib in zip(on_cards, row["card_mib"].split(";"), strict=True)]
    assert len(rows) == 70
    median, most = LARGEST[api, kv_type, cards]
    errors.sort()
    assert errors[len(errors) // 2] < median and errors[int(0.9 * len(errors))] < most and errors[-1] < 0.5
