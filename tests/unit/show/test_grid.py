"""Quantisations by contexts: each cell is what `fit` answers, and the sentence agrees with the cells."""

import json
import re

import pytest
from click.testing import CliRunner

from harness.cli import cli

QUANTS, CONTEXTS = ("Q8_0", "Q5_K_M", "Q4_K_M", "Q2_K"), ("8k", "16k", "32k")
MODEL, DEVICE = "qwen3-14b", "rtx 3060 12gb"


def printed(*words: str) -> str:
    done = CliRunner().invoke(cli, ["fit", *words], standalone_mode=False)
    return done.output


def test_each_cell_is_what_fit_answers() -> None:
    words = (MODEL, "-d", DEVICE, "-q", ",".join(QUANTS), "-c", ",".join(CONTEXTS), "--json")
    cells = json.loads(printed(*words))["items"]
    assert len(cells) == len(QUANTS) * len(CONTEXTS)
    for cell in cells[::5]:
        context = cell["scenario"]["context_tokens"]
        alone = json.loads(
            printed(MODEL, "-d", DEVICE, "-q", cell["quant"], "-c", str(context), "--json", "--no-advice")
        )
        assert cell["prediction"] == alone["prediction"]


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_the_sentence_agrees_with_the_table(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = printed(MODEL, "-d", DEVICE, "-q", ",".join(QUANTS), "-c", ",".join(CONTEXTS))
    first, *lines = text.splitlines()
    assert "Finest that stays whole in memory: Q4_K_M up to 8,192, Q2_K up to 32,768." in first
    rows = {line.split()[0]: line for line in lines if line.split() and line.split()[0] in QUANTS}
    assert list(rows) == list(QUANTS)
    assert rows["Q4_K_M"].count("split") == 1 and "tight" in rows["Q4_K_M"]
    assert rows["Q2_K"].count("split") == 0
    assert max(map(len, rows.values())) <= int(columns)
    assert "not shown" not in text


@pytest.mark.parametrize(
    "more", [("qwen3-8b",), ("-d", "rtx 4090"), ("--measured", "20"), ("--details",), ("--explain",)]
)
def test_a_table_is_of_one_model_on_one_device(more: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, ["fit", MODEL, "-d", DEVICE, "-c", "8k,16k", *more], standalone_mode=False)
    assert re.search("one model on one device", str(done.exception))
