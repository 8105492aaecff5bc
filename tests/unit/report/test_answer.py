"""The first sentence says what a person asked."""

import pytest
from msgspec.structs import replace
from report_records import record

from harness.app.ways import Way
from harness.catalog.devices import load_device
from harness.domain.prediction import Interval, MemoryPrediction, Prediction
from harness.domain.record import RunRecord, Validity
from harness.domain.scenario import Scenario
from harness.records.compare import compare
from harness.report.answer import check_line, first_line

GIB = 1 << 30
DEVICE = load_device("iphone-16-pro")


def prediction(word: str, low: float, mid: float, high: float) -> Prediction:
    made = record().prediction
    verdict = replace(made.verdict, word=word, needed_bytes=5 * GIB, available_bytes=10 * GIB)
    speed = replace(made.speed, decode_tokens_per_s=Interval(mid=mid, low=low, high=high))
    return replace(made, verdict=verdict, speed=speed)


def way(word: str, low: float, mid: float, high: float, **asked: int) -> Way:
    scenario = Scenario(prompt_tokens=512, **asked)
    return Way(how="whole", flags="", is_usual=True, scenario=scenario, prediction=prediction(word, low, mid, high))


@pytest.mark.parametrize(
    ("word", "speeds", "words"),
    [
        ("fits", (15, 18, 21), "Yes: about 18 tokens/s (15 to 21), first token after 500 ms ("),
        ("fits", (4, 9, 18), "Yes: somewhere between 4 and 18 tokens/s (not known well enough)"),
        ("too slow", (15, 18, 21), "It runs, but is slower than wanted: about 18 tokens/s"),
        ("fits with streaming", (8, 11, 16), "Yes, partly from storage: about 11 tokens/s (8 to 16)"),
        ("fits with streaming", (2, 3, 4), "Slowly: about 3 tokens/s (2 to 4)"),
        ("does not fit", (15, 18, 21), "No: it needs 5.00 GiB of 10.00 GiB, and no split or streaming helps: "),
    ],
)
def test_first_line(word: str, speeds: tuple[float, float, float], words: str) -> None:
    assert first_line(way(word, *speeds), DEVICE, None).startswith(words)


def test_a_limit_within_the_interval_is_barely_met_or_barely_missed() -> None:
    close = way("fits", 15, 18, 21)
    assert first_line(close, DEVICE, None, target_tokens_per_s=16).startswith("Barely:")
    assert first_line(close, DEVICE, None, target_tokens_per_s=14).startswith("Yes:")
    slow = way("too slow", 15, 18, 21)
    assert first_line(slow, DEVICE, None, target_tokens_per_s=20).startswith("Perhaps, but probably slower than wanted")
    # 9.9 of 10 GiB, and a peak that may be 0.4 GiB higher, half of it as likely as not
    peak = MemoryPrediction(parts=(), peak_bytes=Interval(mid=10.0 * GIB, low=9.6 * GIB, high=10.4 * GIB))
    verdict = replace(close.prediction.verdict, needed_bytes=int(9.9 * GIB))
    full = replace(close, prediction=replace(close.prediction, verdict=verdict, memory=peak))
    assert first_line(full, DEVICE, None).startswith("Barely:")


def test_for_many_users_the_speed_is_that_of_each_and_of_all() -> None:
    # 160 tokens/s together are 20 for each of eight.
    line = first_line(way("fits", 120, 160, 200, batch_count=8), DEVICE, None)
    assert line.startswith("Yes: about 20 tokens/s (15 to 25) for each of 8 users, 160 together, first token")


def test_a_way_that_was_chosen_and_a_long_prompt_are_told() -> None:
    chosen = replace(way("fits", 15, 18, 21, depth_tokens=3000), is_usual=False, how="on the card", flags="-ngl 9")
    deep = Interval(mid=9.0, low=8.0, high=10.0)
    line = first_line(chosen, DEVICE, None, decode=deep)
    assert line.startswith("Yes: about 9 tokens/s (8 to 10) after 3,512 tokens, first token after")
    assert "on the card (-ngl 9)" in line


def test_a_full_context_is_told_where_it_is_slower() -> None:
    full = Interval(mid=7.2, low=6.0, high=8.0)
    assert "about 18 tokens/s (15 to 21), 7.2 when the context is full, first" in first_line(
        way("fits", 15, 18, 21), DEVICE, None, full=full
    )
    two = way("fits", 30, 36, 42, batch_count=2)
    assert "3.6 each when the context is full" in first_line(two, DEVICE, None, full=full)  # 7.2 together
    same = Interval(mid=17.9, low=15.0, high=21.0)
    assert "full" not in first_line(way("fits", 15, 18, 21), DEVICE, None, full=same)


def test_what_the_entitlement_would_give_is_told() -> None:
    no = way("does not fit", 6, 7.4, 9)
    verdict = replace(no.prediction.verdict, needed_bytes=5 * GIB, available_bytes=3 * GIB)  # 6 with it
    no = replace(no, prediction=replace(no.prediction, verdict=verdict))
    line = first_line(no, DEVICE, None)
    assert line.startswith("No, unless the app has the higher-limit entitlement: then about 7.4 tokens/s, needs 5.00")
    larger = replace(no, prediction=replace(no.prediction, verdict=replace(verdict, needed_bytes=7 * GIB)))
    assert first_line(larger, DEVICE, None).startswith("No: it needs 7.00 GiB")


def test_a_context_beyond_the_models_is_said_at_once() -> None:
    line = first_line(way("fits", 15, 18, 21), DEVICE, None, but="in a context longer than the 40,960 it was made for")
    assert line.startswith("Yes, in a context longer than the 40,960 it was made for: about 18 tokens/s")


def test_a_measured_run_beside_its_prediction() -> None:
    run = record()
    # Clean samples run at 10, 12 and 11 tokens/s; 10 were predicted: 10 / 11 - 1 = -9 %.
    assert (
        check_line(run, compare(run)) == "small-1b Q4_0: 11 tokens/s measured, predicted 10 (-9%), 300 MiB of memory."
    )


def test_a_disturbed_run_is_shown_and_not_believed() -> None:
    def doubted(run: RunRecord) -> RunRecord:
        doubt = Validity(doubts=("other processes used 50% of all CPU time: stop them",))
        return replace(run, outcome="inconclusive", samples=tuple(replace(s, validity=doubt) for s in run.samples))

    line = check_line(doubted(record()), None)
    # 10 tokens in 90 s is the slowest sample that is no warm-up, 12 tokens/s the fastest.
    assert "0.111 to 12 tokens/s, but the machine was disturbed all along (other processes used 50% of all CPU" in line
    assert "not to be believed" in line
    run = doubted(record())
    assert run.scenario.thread_count == 4
    assert check_line(run, compare(run)).startswith(
        "small-1b Q4_0: about 10 tokens/s predicted beforehand. Measured 0.111 to 12 tokens/s, but"
    )
    assert "when the machine is quiet, or leave a core to the others: `-t 3`." in line
    one = replace(run, samples=tuple(s for s in run.samples if s.phase == "decode" and not s.warm_up)[:1])
    assert "0.111 to" not in check_line(one, None)  # one value is no range


def test_a_run_that_did_not_run_says_why() -> None:
    run = record(outcome="out of memory", detail="the kernel killed it\nmore", samples=())
    assert check_line(run, None) == "small-1b Q4_0 did not run: out of memory: the kernel killed it"
