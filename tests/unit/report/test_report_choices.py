"""The tables of the page hold what the feasibility model says, cell by cell, and stay small."""

import random

import msgspec
import pytest

from harness.app.fit import predict
from harness.app.resolve import resolve_device
from harness.catalog.devices import device_names
from harness.catalog.models import model_names
from harness.catalog.names import load_model
from harness.domain.scenario import Scenario
from harness.predict.weights import weights_of
from harness.report.choices import DEFAULT_CONTEXTS, choices
from harness.units import MIB

WORDS = {"0": "fits", "1": "fits with streaming", "2": "does not fit"}


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
        said = predict(model, device, Scenario(context_tokens=DEFAULT_CONTEXTS[c]))
        at = (m * 5 + q) * 4 + c
        word = tables.verdict[d][at]
        seen.add(word)

        assert WORDS[word] == said.verdict.word
        # Needs are rounded up to whole MiB.
        assert tables.needed_mib[tables.need_row[d]][at] == -(-said.verdict.needed_bytes // MIB)
        pool = int(tables.pool[d][at]) if tables.pool[d] else 0
        assert tables.devices[d].available_mib[pool] == said.verdict.available_bytes // MIB
        speed = said.speed.decode_tokens_per_s
        assert tables.speed[d][m * 5 + q] == pytest.approx(speed.mid, rel=0.005)
        # Interpolated between a few models of each class, and rounded down.
        assert tables.sure[d][m * 5 + q] == pytest.approx(100 * speed.low / speed.mid, abs=4.0)
        if word == "1":
            streamed = tables.streamed[d][tables.verdict[d][:at].count("1")]
            missing = said.verdict.needed_bytes - said.verdict.available_bytes
            weights = sum(
                p.file_bytes + p.anonymous_bytes for p in said.memory.parts if p.name in ("weights", "token table")
            )
            share = min(said.speed.active_bytes / weights, 1)  # of the weights, for one token
            ceiling = device.storage.sequential_read_bytes_per_s.value / (missing * share)
            assert streamed == pytest.approx(min(speed.mid, ceiling), rel=0.005)
    assert seen == {"0", "1", "2"}


def test_target_answers_as_the_model_does(tables) -> None:
    """What the page does with a target (reached speed below it: no) is what ``judge`` does."""
    from harness.app.resolve import ResolvedModel

    rng = random.Random(3)
    for _ in range(40):
        d, m = rng.randrange(12), rng.randrange(12)
        name = tables.models[m].name
        at = (m * 5 + tables.default_quant) * 4
        word = tables.verdict[d][at]
        reached = tables.speed[d][m * 5 + tables.default_quant]
        if word == "1":
            reached = tables.streamed[d][tables.verdict[d][:at].count("1")]
        model = ResolvedModel(name, "Q4_K_M", weights_of(load_model(name).shape, "Q4_K_M"))
        for share in (0.9, 1.1):
            said = predict(
                model,
                resolve_device(tables.devices[d].name),
                Scenario(context_tokens=DEFAULT_CONTEXTS[0]),
                target_tokens_per_s=share * reached,
            )
            assert said.verdict.word == (WORDS[word] if share < 1 or word == "2" else "too slow")


def test_sixty_devices_and_fifty_models_stay_small() -> None:
    found = choices(devices=device_names()[:60], models=model_names()[:50])

    # With some 60 kB of page and 300 kB of figures around it, a page stays far below 3 MB.
    assert len(msgspec.json.encode(found)) < 1_000_000
    assert len(found.verdict) == 60
    assert len(found.verdict[0]) == 50 * 5 * 4


def test_every_part_of_a_cell_number_is_consistent(tables) -> None:
    for row in tables.verdict:
        assert len(row) == 12 * 5 * 4
        assert set(row) <= set("012-")
    for d, streamed in enumerate(tables.streamed):
        assert len(streamed) == tables.verdict[d].count("1")
