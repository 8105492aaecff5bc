"""Answers of a model as samples: each with what the machine was doing meanwhile."""

from collections.abc import Callable

from harness.core.drafting import Decoding
from harness.core.ports import Emit
from harness.measure.sensors import EnergyMeter
from harness.measure.validity import Watch, child_probe


def timed_answer(
    generate: Callable[[], Decoding],
    emit: Emit,
    meter: EnergyMeter,
    *,
    mark: str = "",
    disk_expected: bool = False,
) -> Decoding:
    """Generate, and tell the new tokens as a decode sample; ``mark`` is appended to its label.

    ``disk_expected``: reading from the disk under a limit of memory is what the run is about. Its own readers
    then wait for a CPU, and its pages for memory; what others use of the machine stays a doubt.
    """
    with Watch(child_probe(disk_expected=disk_expected), meter) as watch:
        answer = generate()
    label = f"tg{len(answer.tokens)} {mark}".rstrip()
    emit("sample", watch.sample("decode", label, answer.decoded_count, answer.duration_s))
    return answer
