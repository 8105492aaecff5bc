"""Markdown and the reading of a run's figures: what they are, and what may be said of them."""

from pathlib import Path

import pytest
from report_records import around, record

from harness.core.prediction import Interval
from harness.core.record import MemoryUse
from harness.records.derive import summarise
from harness.show.state import ShownMetric, State, figures_of
from harness.show.words import reading_words, without_folders

REPORTS = Path(__file__).parents[3] / "reports"


def test_median_counts_neither_warm_up_nor_disturbed_samples() -> None:
    # Rates 10, 12, 11 count: the median is 11; the warm-up (0.2) and the disturbed one (0.11) do not.
    (test,) = summarise(record())

    assert test.value == pytest.approx(11.0)
    assert (test.sample_count, test.disturbed_count) == (3, 1)
    assert (test.least, test.most) == (pytest.approx(10.0), pytest.approx(12.0))


@pytest.mark.parametrize(
    ("rates", "outcome", "state", "word"),
    [
        # 10 tokens/s are predicted, 5 to 20
        pytest.param((5.0, 5.0, 5.0), "ok", State.INSIDE, "as predicted", id="low end"),
        pytest.param((20.0, 20.0, 20.0), "ok", State.INSIDE, "as predicted", id="high end"),
        pytest.param((19.0, 20.02, 20.03), "ok", State.EDGE, "at the edge", id="within its own spread"),
        pytest.param((20.001, 20.001, 20.001), "ok", State.EDGE, "at the edge", id="by less than is printed"),
        pytest.param((20.1, 20.1, 20.1), "ok", State.OUTSIDE, "faster", id="above"),
        pytest.param((40.0, 41.0), "ok", State.OUTSIDE, "faster", id="twice"),
        pytest.param((19.0, 21.5), "ok", State.OUTSIDE, "faster", id="two samples have no spread"),
        pytest.param((4.9, 4.9, 4.9), "ok", State.OUTSIDE, "slower", id="below"),
        pytest.param((), "ok", State.DISTURBED, "disturbed", id="only a disturbed sample"),
        pytest.param((10.0, 10.0, 10.0), "inconclusive", State.DISTURBED, "disturbed", id="inconclusive"),
        pytest.param((10.0, 10.0, 10.0), "crashed", State.NONE, "not measured", id="crashed"),
        pytest.param((10.0, 10.0, 10.0), "refused", State.NONE, "not measured", id="refused"),
    ],
)
def test_the_state_of_a_figure(rates: tuple[float, ...], outcome: str, state: State, word: str) -> None:
    figure = figures_of(record(rates=rates, outcome=outcome))["decode"]

    assert (figure.state, figure.word) == (state, word)


@pytest.mark.parametrize(
    ("measured", "low", "mid", "high", "state"),
    [
        (213.96, 139.0, 172.0, 213.9, State.OUTSIDE),
        (213.96, 139.0, 172.0, 214.4, State.INSIDE),
        (20.04, 5.0, 10.0, 20.0, State.OUTSIDE),
        (0.1016, 0.081, 0.1, 0.104, State.INSIDE),
    ],
)
def test_the_state_can_be_read_from_the_printed_figures(measured, low, mid, high, state) -> None:
    figure = ShownMetric("decode", "tokens/s", state, measured, predicted=Interval(mid, low, high))

    ends = [float(end.replace(",", "")) for end in figure.between.split(" to ")]
    assert (ends[0] <= float(figure.number) <= ends[1]) == (state is State.INSIDE)


def test_what_is_not_believed_stands_in_brackets() -> None:
    assert figures_of(record(rates=()))["decode"].number == "(0.111)"  # 10 tokens in 90 s
    assert figures_of(record(outcome="inconclusive"))["peak memory"].number == "(300)"
    assert figures_of(record())["decode"].number == "11"


@pytest.mark.parametrize(
    ("value", "words"),
    [(99_000_000, "94.4 MiB"), (999 << 20, "999 MiB"), (3 << 30, "3 GiB"), (3.14159 * 2**30, "3.14 GiB")],
)
def test_memory_as_people_read_it(value: float, words: str) -> None:
    figure = figures_of(record(memory=MemoryUse(peak_rss_bytes=int(value)), prediction=None))["peak memory"]

    assert f"{figure.number} {figure.unit_word}" == words


@pytest.mark.parametrize(
    ("factor", "words"), [(1.24, "+24 %"), (0.98, "−2 %"), (1.001, "0 %"), (2.1, "2.1 times"), (0.4, "0.4 times")]
)
def test_off_is_measured_beside_the_likeliest(factor: float, words: str) -> None:
    figure = ShownMetric("decode", "tokens/s", State.INSIDE, 100 * factor, predicted=around(100.0))

    assert figure.off == words


@pytest.mark.parametrize(
    ("speed", "words"),
    [
        (212.0, "40 times as fast as you read."),  # 5.3 tokens/s
        (10.6, "2 times as fast as you read."),
        (5.0, "About as fast as you read."),
        (1.0, "Slower than you read."),
    ],
)
def test_a_speed_beside_a_reader(speed: float, words: str) -> None:
    assert reading_words(speed) == words


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/home/someone/models/a.gguf", "a.gguf"),
        ("--out=/home/someone/out", "--out=out"),
        ("C:\\Users\\someone\\a.gguf", "a.gguf"),
        ("~/a.gguf", "a.gguf"),
        ("models/a.gguf", "models/a.gguf"),
        ("--threads", "--threads"),
        ("/", "/"),
    ],
)
def test_folders_of_people_are_not_published(word: str, shown: str) -> None:
    assert without_folders((word,)) == (shown,)
