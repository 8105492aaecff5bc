"""Answers of a model as samples: each with what the machine was doing meanwhile."""

from collections.abc import Callable

from harness.domain.drafting import Decoding
from harness.measure.sensors import EnergyMeter
from harness.measure.validity import Watch, child_probe
from harness.ports import Emit


class TimedAnswers:
    """Tells each answer as samples: its prompt as prefill, its new tokens as decode.

    ``disk_expected``: reading from the disk under a limit of memory is what the run is about. Its own readers
    then wait for a CPU, and its pages for memory; what others use of the machine stays a doubt.
    """

    def __init__(self, emit: Emit, *, disk_expected: bool = False) -> None:
        self._emit = emit
        self._disk_expected = disk_expected
        self._meter = EnergyMeter()

    def answer(self, generate: Callable[[], Decoding], mark: str = "") -> Decoding:
        """Generate, and tell it; ``mark`` is appended to the labels."""
        probe = child_probe(disk_expected=self._disk_expected)
        with Watch(probe, self._meter) as watch:
            answer = generate()
        label = " ".join(filter(None, (f"tg{len(answer.tokens)}", mark)))
        self._emit("sample", watch.sample("decode", label, answer.decoded_count, answer.duration_s))
        return answer
