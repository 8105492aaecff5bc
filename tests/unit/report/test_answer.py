"""The first sentence says what a person asked."""

import pytest
from msgspec.structs import replace
from report_records import record

from harness.catalog.devices import load_device
from harness.domain.prediction import Interval, Prediction
from harness.domain.record import RunRecord, Validity
from harness.records.compare import compare
from harness.report.answer import check_line, first_line

GIB = 1 << 30
DEVICE = load_device("iphone-16-pro")


def prediction(word: str, low: float, mid: float, high: float) -> Prediction:
    made = record().prediction
    verdict = replace(made.verdict, word=word, needed_bytes=5 * GIB, available_bytes=10 * GIB)
    speed = replace(made.speed, decode_tokens_per_s=Interval(mid=mid, low=low, high=high))
    return replace(made, verdict=verdict, speed=speed)


@pytest.mark.parametrize(
    ("word", "speeds", "words"),
    [
        ("fits", (15, 18, 21), "Yes: about 18 tokens/s, first token after 500 ms, uses 5.00 GiB of 10.00 GiB"),
        ("fits", (4, 9, 18), "Yes: somewhere between 4 and 18 tokens/s (not known well enough)"),
        ("too slow", (15, 18, 21), "It fits, but is slower than wanted: about 18 tokens/s"),
        ("does not fit", (15, 18, 21), "No: small-1b Q4_0 needs 5.00 GiB of 10.00 GiB on"),
    ],
)
def test_first_line(word: str, speeds: tuple[float, float, float], words: str) -> None:
    assert first_line(prediction(word, *speeds), DEVICE, None).startswith(words)


def test_for_many_users_the_speed_is_that_of_each() -> None:
    # 160 tokens/s together are 20 for each of eight.
    line = first_line(prediction("fits", 120, 160, 200), DEVICE, None, users=8)
    assert line.startswith("Yes: about 20 tokens/s for each of 8 users, first token")


def test_a_context_beyond_the_models_is_said_at_once() -> None:
    line = first_line(
        prediction("fits", 15, 18, 21), DEVICE, None, but="in a context longer than the 40,960 tokens it was made for"
    )
    assert line.startswith("Yes, in a context longer than the 40,960 tokens it was made for: about 18 tokens/s")


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
        "small-1b Q4_0: about 10 tokens/s predicted for a quiet machine. Measured 0.111 to 12 tokens/s, but"
    )
    assert "when the machine is quiet, or leave a core to the others: `-t 3`." in line
    one = replace(run, samples=tuple(s for s in run.samples if s.phase == "decode" and not s.warm_up)[:1])
    assert "0.111 to" not in check_line(one, None)  # one value is no range


def test_a_run_that_did_not_run_says_why() -> None:
    run = record(outcome="out of memory", detail="the kernel killed it\nmore", samples=())
    assert check_line(run, None) == "small-1b Q4_0 did not run: out of memory: the kernel killed it"
