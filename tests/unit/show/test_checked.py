"""The first screen of a check."""

from pathlib import Path

import pytest
from report_records import record

from harness.core.prediction import Interval
from harness.core.record import Record, Validity
from harness.records.imports import read_results
from harness.show.checked import WIDTH, bar, screen
from harness.show.state import ShownMetric, State

REPORTS = Path(__file__).parents[3] / "reports"


def doubted(run: Record) -> Record:
    doubt = Validity(doubts=("other processes used 50% of all CPU time",))
    return run.replace(outcome="inconclusive", samples=tuple(s.replace(validity=doubt) for s in run.samples))


def test_a_measured_run_beside_its_prediction() -> None:
    # Clean samples run at 10, 12 and 11 tokens/s; 5 to 20 were predicted, and 130 to 510 MiB.
    lines = screen([record()])

    assert " ".join(lines[:2]).startswith("small-1b writes 11 tokens a second on board, as predicted: 5 to 20.")
    rows = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert "11 tokens/s" in rows["writes"] and "5 to 20" in rows["writes"] and rows["writes"].endswith("as predicted")
    assert "300 MiB" in rows["memory"]
    assert "1 of 4 samples were left out" in "\n".join(lines)


def test_a_surprise_stands_in_the_sentence_and_in_capitals() -> None:
    lines = screen([record(rates=(90.0, 91.0, 92.0))])

    assert "faster than predicted" in lines[0] + lines[1]
    assert any(line.endswith("OUTSIDE, faster") for line in lines)


def test_a_disturbed_run_is_shown_and_not_believed() -> None:
    lines = screen([doubted(record())])

    assert lines[0].startswith("small-1b: not measured. Other programs disturbed the run.")
    assert "50% of all cpu time" in " ".join(lines).lower()
    assert any("(10.5) tokens/s" in line for line in lines)


def test_a_run_that_did_not_run_says_why() -> None:
    lines = screen([record(outcome="out of memory", detail="the kernel\nkilled it", samples=())])

    assert lines == ["small-1b did not run to its end: out of memory.", "killed it"]


@pytest.mark.parametrize("name", ["check/default.json", "check/models.json", "placement/vulkan-software.json"])
def test_a_screen_is_small(name: str) -> None:
    lines = screen(read_results(REPORTS / name))

    assert len(lines) <= 12
    assert all(len(line) <= WIDTH + 2 for line in lines)
    assert sum(len(line.split()) for line in lines) <= 110


@pytest.mark.parametrize(
    ("measured", "state", "drawn"),
    [
        # the axis ends at 30: 24 is 80 % of it, 12 signs in all
        (10.0, State.INSIDE, "··━━●━━━━···"),
        (24.0, State.EDGE, "··━━━━━━━○··"),
        (1.0, State.OUTSIDE, "◆·━━━━━━━···"),
    ],
)
def test_a_bar_is_of_characters_alone(measured: float, state: State, drawn: str) -> None:
    figure = ShownMetric("decode", "tokens/s", state, measured, predicted=Interval(10.0, 5.0, 20.0))

    assert bar(figure) == drawn
