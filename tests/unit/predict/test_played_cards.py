"""Compute buffers beside llama.cpp's own, on cards that are played to it (``python -m bench.played_cards``).

``played_cards.csv`` is what its scheduler and allocator (0c1e57098) reserve on each kind of architecture, with what the
backends of CUDA, Vulkan and Metal add to a tensor, choose as an order, and keep alive.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.memory_conformance import KINDS
from harness.domain.scenario import Scenario
from harness.predict.compute_buffer import HOST, scratch_bytes, whole_layout
from harness.units import MIB

ROWS = list(csv.DictReader((Path(__file__).parents[2] / "data" / "played_cards.csv").open(encoding="utf-8")))
LARGEST = {
    ("cuda", "F16"): (0.01, 0.09),
    ("cuda", "Q8_0"): (0.03, 0.15),
    ("vulkan", "F16"): (0.04, 0.15),
    ("metal", "F16"): (0.06, 0.2),
}
"""What a card may be off by in the median, and nine in ten: some backends lay behind a tensor or reorder nodes."""


def errors(api: str, kv_type: str) -> Iterator[tuple[float, float]]:
    """Of each row what its card and its host are off by, as ratios."""
    for row in ROWS:
        if (row["api"], row["kv_type"]) == (api, kv_type):
            slots = int(row["slots"])
            scenario = Scenario(
                context_tokens=int(row["context_tokens"]),
                ubatch_tokens=int(row["ubatch_tokens"]),
                kv_type=kv_type,
                api=api,
                program=f"llama-server -np {slots}{' -kvu' * (slots > 1)}",
            )
            shape = KINDS[row["kind"]]
            scratch = scratch_bytes(shape, scenario, whole_layout(shape, api))
            card, host = scratch[0] / MIB / float(row["card_mib"]), scratch[HOST] / MIB / float(row["host_mib"])
            yield abs(card - 1), abs(host - 1)


@pytest.mark.parametrize(("api", "kv_type"), LARGEST)
def test_each_kind_reserves_what_the_engine_does(api, kv_type):
    """Tiny models, whose buffer is most of their memory; of a real one it is a few percent."""
    cards, hosts = zip(*errors(api, kv_type), strict=True)
    median, most = LARGEST[api, kv_type]
    assert len(cards) == 70
    assert sorted(cards)[35] < median and sorted(cards)[63] < most and max(cards) < 0.35
    assert max(hosts) < 0.02
