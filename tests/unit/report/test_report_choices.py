"""The tables of the page hold what the feasibility model says, cell by cell, and stay small."""

import random

import msgspec
import pytest

from harness.app.fit import in_memory
from harness.app.resolve import resolve_device
from harness.app.ways import ways
from harness.catalog.devices import device_names
from harness.catalog.models import model_names
from harness.catalog.names import load_model
from harness.domain.scenario import Scenario
from harness.predict.weights import weights_of
from harness.report.choices import DEFAULT_CONTEXTS, choices
from harness.units import MIB

WORDS = {"0": "fits", "1": "fits with streaming", "2": "does not fit", "3": "fits"}


@pytest.fixture(scope="module")
def tables():
    rng = random.Random(7)
    return choices(devices=rng.sample(device_names(), 12), models=rng.sample(model_names(), 12))


def test_cells_are_the_model_s_own_answers(tables) -> None:
    from harness.app.resolve import ResolvedModel

    rng = random.Random(1)
    cells = [(d, m, q, c) for d in range(12) for m in range(12) for q in range(5) for c in range(4)]
    seen = set()
    for d, m, q, c in rng.sample(cells, 150):
        name, quant = tables.models[m].name, tables.quants[q]
        model = ResolvedModel(name, quant, weights_of(load_model(name).shape, quant))
        device = resolve_device(tables.devices[d].name)
        asked = Scenario(context_tokens=DEFAULT_CONTEXTS[c])
        whole, best = in_memory(model, device, asked), ways(model, device, asked)[0]
        at = (m * 5 + q) * 4 + c
        word = tables.verdict[d][at]
        seen.add(word)

        assert WORDS[word] == best.prediction.verdict.word
        # Needs are those of all in one memory, rounded up to whole MiB.
        assert tables.needed_mib[tables.need_row[d]][at] == -(-whole.verdict.needed_bytes // MIB)
        pool = int(tables.pool[d][at]) if tables.pool[d] else 0
        assert tables.devices[d].available_mib[pool] == whole.verdict.available_bytes // MIB
        speed = whole.speed.decode_tokens_per_s
        assert tables.speed[d][m * 5 + q] == pytest.approx(speed.mid, rel=0.005)
        # Interpolated between a few models of each class, and rounded down.
        assert tables.sure[d][m * 5 + q] == pytest.approx(100 * speed.low / speed.mid, abs=4.0)
        if word in "13":
            reached = best.prediction.speed.decode_tokens_per_s.mid
            shown = tables.streamed[d][_before(tables.verdict[d], at)]
            # a page asks the usual engine of a phone alone, whose CPU may hold a little more
            usual = best.prediction.api == device.api("") or word == "3"
            assert shown == pytest.approx(reached, rel=0.25) if usual else shown < 1.25 * reached
    assert seen >= {"0", "1", "2"}


def _before(row: str, at: int) -> int:
    """Cells before this one that are streamed or split."""
    return row[:at].count("1") + row[:at].count("3")


def test_sixty_devices_and_fifty_models_stay_small() -> None:
    found = choices(devices=device_names()[:60], models=model_names()[:50])

    # With some 60 kB of page and 300 kB of figures around it, a page stays far below 3 MB.
    assert len(msgspec.json.encode(found)) < 1_000_000
    assert len(found.verdict) == 60
    assert len(found.verdict[0]) == 50 * 5 * 4


def test_every_part_of_a_cell_number_is_consistent(tables) -> None:
    for row in tables.verdict:
        assert len(row) == 12 * 5 * 4
        assert set(row) <= set("0123-")
    for d, streamed in enumerate(tables.streamed):
        assert len(streamed) == _before(tables.verdict[d], len(tables.verdict[d]))
