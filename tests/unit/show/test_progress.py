"""What a terminal is told of long work: which part of how many, and about how long is left."""

import pytest

from harness.show.progress_line import RunProgress


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return 1000.0 + self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_parts_and_their_steps_say_what_is_left(clock: Clock) -> None:
    progress = RunProgress(now_s=clock)
    progress.plan(3)
    progress.begin("a", 4)
    assert progress.words() == "1 of 3  a"  # nothing is done: nothing is known
    clock.s = 30.0
    progress.step("tg128 40.0 t/s")  # a quarter of a part in 30 s: eleven more quarters
    assert progress.words() == "1 of 3  about 6 min left  a  tg128 40.0 t/s"
    clock.s = 120.0
    progress.begin("b", 4)
    assert progress.words() == "2 of 3  about 4 min left  b"
    clock.s = 180.0
    progress.step()
    progress.step()
    assert progress.words() == "2 of 3  about 3 min left  b"


def test_parts_that_were_done_before_are_not_counted(clock: Clock) -> None:
    progress = RunProgress(now_s=clock)
    progress.plan(30)
    progress.plan(2)  # all but two were resumed
    progress.begin("a")
    clock.s = 20.0
    progress.begin("b")
    assert progress.words() == "2 of 2  about 20 s left  b"


def test_what_has_a_length_of_its_own_is_no_part(clock: Clock) -> None:
    progress = RunProgress(now_s=clock)
    progress.begin("probing this machine", within_s=10.0)
    clock.s = 4.0
    assert progress.words() == "about 6 s left  probing this machine"
    progress.plan(2)
    progress.begin("a")
    clock.s = 104.0
    progress.begin("b")
    assert progress.words() == "2 of 2  about 2 min left  b"


def test_a_time_for_all_of_it_is_what_is_left(clock: Clock) -> None:
    progress = RunProgress(now_s=clock)
    progress.begin("a", within_s=600.0)
    clock.s = 300.0
    assert progress.words() == "about 5 min left  a"
    clock.s = 601.0
    assert progress.words() == "nearly done  a"


def test_a_file_that_is_fetched_says_how_much_is_here(clock: Clock) -> None:
    progress = RunProgress(now_s=clock)
    progress._is_drawn = True
    progress.begin("a", 4)
    progress.fetched(0, 400 << 20)
    clock.s = 10.0
    progress.fetched(100 << 20, 400 << 20)
    assert progress.words() == "a  100 MiB of 400 MiB"
    progress.fetched(400 << 20, 400 << 20)
    assert progress.words() == "a"
    progress.__exit__()


def test_nothing_is_drawn_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with RunProgress() as progress:
        progress.begin("probing this machine", within_s=10.0)
        progress.begin("a", 2)
        progress.step("one done", "turn 1 of 2")
        progress.step("pp512 80 t/s")
    assert capfd.readouterr().err == "running a\nturn 1 of 2\n"
