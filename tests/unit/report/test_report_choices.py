"""The tables of the page and of ``matrix`` hold the one answer of ``app.ways``, cell by cell, and stay small."""

import msgspec
import pytest

from harness.app.case import Case
from harness.app.matrix import MOST_CELLS, ask, columns
from harness.app.resolve import resolve_model
from harness.app.ways import ways
from harness.catalog.devices import load_device
from harness.domain.question import Asked
from harness.domain.scenario import Scenario
from harness.errors import InputError
from harness.report.choices import choices
from harness.units import MIB

DEVICES = ("iphone-16-pro", "rtx-4060-desktop")
MODELS = ("llama-3.2-1b", "qwen3-30b-a3b", "llama-3.3-70b")
MARKS = {"0": "fits", "1": "fits with streaming", "2": "does not fit", "3": "fits"}


@pytest.fixture(scope="module")
def tables():
    return choices(devices=DEVICES, models=MODELS, quants=("Q4_K_M", "Q8_0"), contexts=(2048, 32768))


def test_a_cell_is_the_answer_that_fit_gives(tables) -> None:
    seen = set()
    for d, device in enumerate(tables.devices):
        for m, model in enumerate(tables.models):
            for q, quant in enumerate(tables.quants):
                cell = tables.cells[((d * 3 + m) * 2 + q) * 2 + 1]
                asked = Scenario(context_tokens=32768, program="llama-server")
                best = ways(Case.of(resolve_model(model.name, quant), load_device(device.name), asked))[0]
                verdict, speed = best.prediction.verdict, best.prediction.speed.decode_tokens_per_s
                seen.add(cell.mark)

                assert MARKS[cell.mark] == verdict.word
                assert (cell.mark == "3") == (verdict.word == "fits" and not best.kind.is_whole)
                assert cell.needed_mib == -(-verdict.needed_bytes // MIB)
                assert cell.available_mib == verdict.available_bytes // MIB
                if cell.mark == "2":
                    assert (cell.speed, cell.low) == (0, 0)
                else:
                    assert cell.speed == pytest.approx(speed.mid, rel=0.005)
                    assert cell.low == pytest.approx(speed.low, rel=0.005)
    assert seen == set(MARKS)


def test_what_is_shown_first_is_the_usual_mixture_in_the_second_context(tables) -> None:
    for d in range(len(DEVICES)):
        assert tables.shown(d) == tuple(tables.cells[((d * 3 + m) * 2 + 0) * 2 + 1] for m in range(3))


def test_a_page_s_tables_stay_small(tables) -> None:
    """A page of six devices and ten models holds 1,200 cells: below 100 kB."""
    assert len(msgspec.json.encode(tables.cells)) / len(tables.cells) < 80


@pytest.mark.parametrize(
    ("asked", "possible"),
    [
        (Asked(api="cuda"), ["rtx-4060-desktop"]),
    ],
)
def test_a_cell_that_cannot_be_says_so(asked: Asked, possible: list[str]) -> None:
    cells = list(ask(devices=DEVICES[:2], models=("smollm2-135m",), asked=asked).cells())

    assert [cell.device for cell in cells if cell.verdict != "impossible"] == possible
    assert all((cell.decode_tokens_per_s is None) == (cell.verdict == "impossible") for cell in cells)


def test_columns_hold_a_row_a_cell_with_the_interval() -> None:
    grid = ask(devices=DEVICES[:1], models=MODELS[:1], contexts=(512, 4096))
    table = columns(list(grid.cells()))

    assert {len(column) for column in table.values()} == {grid.cell_count} == {2}
    assert table["context_tokens"] == [512, 4096]
    for low, mid, high in zip(
        table["decode_low_tokens_per_s"], table["decode_tokens_per_s"], table["decode_high_tokens_per_s"], strict=True
    ):
        assert low < mid < high


def test_more_cells_than_a_table_holds_are_refused_with_their_number() -> None:
    with pytest.raises(InputError, match=rf"\d+ cells \(\d+ devices x \d+ models .*: at most {MOST_CELLS}"):
        ask()
