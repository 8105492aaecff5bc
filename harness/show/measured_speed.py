"""A measured speed beside the answer, and what electricity costs, in words."""

from harness.answer.answer import Answer
from harness.answer.causes import Slow
from harness.core.errors import InputError
from harness.core.prediction import Interval
from harness.show.first_screen import capital, two
from harness.speed.energy import Energy

_MOST_PRICE = 1e6
_CLEARLY_SLOWER = 0.95


def measured_lines(slow: Slow, answer: Answer) -> list[str]:
    """What a measured decode speed says beside the prediction, and what may explain it, the likeliest first."""
    measured, expected = slow.measured_tokens_per_s, slow.expected
    line = f"You measured {measured:g} tokens/s; {_beside(measured, expected)}"
    if measured > answer.prediction.speed.roofline_tokens_per_s and answer.speculation is None:
        return [f"{line}. The memory cannot deliver that: the profile of {answer.device.title} is wrong."]
    if measured > expected.high:
        taught = f"{answer.model.name} {answer.quant} - {measured:g}"
        return [
            f"{line}.",
            f"Teach it: edge-harness learn --device '{answer.question.device}' --line '{taught}'",
        ]
    if slow.is_expected:
        said = [f"{line}; nothing need be wrong."]
        if slow.causes and measured < _CLEARLY_SLOWER * expected.mid:
            first, *others = slow.causes
            rest = "".join(f"; or {one.cause}" for one in others)
            said.append(f"If it was faster before: {first.cause}{rest}. To tell: {first.tells}.")
        return said
    if not slow.causes:
        return [f"{line}.", "Nothing that is known here gives that: paste the program's log by --log FILE."]
    said = [
        f"{place}. {capital(one.cause)}. To tell: {one.tells}." for place, one in enumerate(slow.causes, 1)
    ]
    said[0] = f"{said[0]} Then: {slow.causes[0].mend}."
    return [f"{line}. Likeliest first:", *said]


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
