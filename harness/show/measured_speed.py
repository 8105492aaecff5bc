"""A measured speed beside the answer, and what electricity costs, in words."""

from collections.abc import Sequence

from harness.answer.answer import Answer
from harness.answer.measured import SpeedCause
from harness.core.errors import InputError
from harness.core.prediction import Interval
from harness.show.first_screen import two
from harness.speed.energy import Energy

_MOST_PRICE = 1e6


def measured_lines(measured: float, answer: Answer, slower: Sequence[SpeedCause]) -> list[str]:
    """What a measured decode speed says beside the prediction, and what may explain it."""
    speed = answer.prediction.speed
    line = f"You measured {measured:g} tokens/s; {_beside(measured, speed.decode_tokens_per_s)}"
    if measured > speed.roofline_tokens_per_s:
        return [f"{line}. The memory cannot deliver that: the profile of {answer.device.title} is wrong."]
    if measured > speed.decode_tokens_per_s.high:
        taught = f"{answer.model.name} {answer.quant} - {measured:g}"
        return [
            f"{line}.",
            f"Teach it: edge-harness learn --device '{answer.question.device}' --line '{taught}'",
        ]
    if measured >= speed.decode_tokens_per_s.low:
        return [f"{line}."]
    if not slower:
        checks = "Check swap, the power mode, and in the log that all layers are on the GPU."
        return [f"{line}.", f"None of the causes known here gives that. {checks}"]
    causes = [f"{two(one.tokens_per_s)} tokens/s if {one.cause}: {one.advice}" for one in slower]
    return [f"{line}.", *causes]


def _beside(measured: float, predicted: Interval) -> str:
    between = f"{two(predicted.low)} to {two(predicted.high)} was predicted"
    if measured > predicted.high:
        return f"{between}: faster than expected"
    if measured >= predicted.low:
        return f"{between}: as expected"
    return f"{between}: {100 * measured / predicted.mid:.0f} % of the likeliest"


def electricity_line(price: str, energy: Energy | None) -> tuple[Interval | None, str]:
    """What a million tokens cost in electricity, beside what they cost elsewhere.

    Raises:
        InputError: The price is no number, or two.
    """
    try:
        amounts = [float(part) for part in price.split(",", 1)]
    except ValueError:
        amounts = [0.0]
    if not all(0 < amount <= _MOST_PRICE for amount in amounts):
        raise InputError(f"--price: found {price!r}, expected a price of a kWh, and one elsewhere: 0.30,0.60")
    joules = None
    if energy is not None:
        joules = energy.sustained_joules_per_token or energy.joules_per_token
    if joules is None:
        return None, "What a million tokens cost is not known: nobody stated the device's power."
    # A joule a token is 1e6 J, a 3.6th of a kWh, for a million.
    cost = joules.through(lambda each: each * amounts[0] / 3.6)
    elsewhere = "".join(f"; {amount:g} elsewhere" for amount in amounts[1:])
    said = f"A million tokens cost {two(cost.mid)} in electricity ({two(cost.low)} to {two(cost.high)})"
    return cost, f"{said} at {amounts[0]:g} a kWh{elsewhere}."
