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
from harness.predict.compute_buffer import scratch_bytes, whole_layout
from harness.predict.graph import HOST
from harness.units import MIB

ROWS = list(csv.DictReader((Path(__file__).parents[2] / "data" / "played_cards.csv").open(encoding="utf-8")))
SKETCHED = {
    ("vulkan", "F16"): {"cohere2": 0.13, "mamba": 0.13, "mamba2": 0.04, "falcon-h1": 0.11},
    ("cuda", "F16"): {},
    ("cuda", "Q8_0"): {"cohere2": 0.18, "minicpm3": 0.03, "falcon-h1": 0.12},
    ("metal", "F16"): dict.fromkeys((kind.partition(": ")[2] for kind in KINDS), 0.22),  # it orders them too
}
"""Kinds whose order of a few nodes is not followed, and how far they may be off."""


def errors(api: str, kv_type: str) -> Iterator[tuple[str, float, float, float]]:
    """Of each row its kind, what its card is off by, what is allowed, and what its host is off by."""
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
            name, shape = row["kind"].partition(": ")[2], KINDS[row["kind"]]
            scratch = scratch_bytes(shape, scenario, whole_layout(shape, api))
            card, host = (
                scratch[side] / MIB / float(row[cell]) - 1 for side, cell in ((0, "card_mib"), (HOST, "host_mib"))
            )
            yield row["kind"], card, SKETCHED[api, kv_type].get(name, 0.005), host


@pytest.mark.parametrize(("api", "kv_type"), SKETCHED)
def test_each_kind_reserves_what_the_engine_does(api, kv_type):
    rows = list(errors(api, kv_type))
    assert len(rows) == 70
    assert [row for row in rows if abs(row[1]) > row[2] or abs(row[3]) > 0.005] == []
    assert sorted(abs(row[1]) for row in rows)[35] < (0.05 if api == "metal" else 0.001)
