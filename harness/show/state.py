"""The state of a figure on a page: measured, predicted, and whether to believe it.

Counts of figures by state are made here alone, so that no two parts of a page disagree.
"""

from collections import Counter
from enum import Enum
from typing import Final, NamedTuple

from harness.core.prediction import Interval
from harness.core.record import Record
from harness.core.result import Load, Soak, Speculation, Stream
from harness.core.units import GIB, MIB, format_number
from harness.records.compare import ComparedRow, rows_of
from harness.records.possible import impossible

BELIEVED: Final = "ok"
_DIGITS: Final = (2, 3, 4)
"""Significant digits that figures are printed with: the fewest from which the state can be read."""
_SPREAD_COUNT: Final = 3
"""Samples below which a run says nothing about its own spread."""


class State(Enum):
    """What to make of a figure; the value is the word that stands beside its mark."""

    INSIDE = "as predicted"
    EDGE = "at the edge"
    OUTSIDE = "outside"
    MEASURED = "measured"
    DISTURBED = "disturbed"
    IMPOSSIBLE = "cannot be"
    NONE = "not measured"

    @property
    def is_judged(self) -> bool:
        """Whether a prediction was held to a measurement that is believed."""
        return self in {State.INSIDE, State.EDGE, State.OUTSIDE}

    @property
    def is_believed(self) -> bool:
        """Whether the measured figure may stand as one."""
        return self.is_judged or self is State.MEASURED


class ShownMetric(NamedTuple):
    """One quantity of a run.

    Attributes:
        name: Key of the quantity, as :func:`harness.records.compare.compare` names it.
        unit: ``tokens/s``, ``s`` or ``bytes``.
        measured: Median of the clean samples; of the disturbed ones where the state says so; None without
            any.
        least: Smallest clean sample, and ``most`` the largest: the run's own spread. None below three
            samples.
        predicted: What was said before the run, with its 90 % interval; None where nothing was.
    """

    name: str
    unit: str
    state: State
    measured: float | None = None
    least: float | None = None
    most: float | None = None
    sample_count: int = 0
    predicted: Interval | None = None

    @property
    def factor(self) -> float | None:
        """Measured over the likeliest value; None unless both are to be believed."""
        if self.measured and self.predicted and self.predicted.mid > 0 and self.state.is_judged:
            return self.measured / self.predicted.mid
        return None

    @property
    def word(self) -> str:
        """The state in a word or two: a speed is faster or slower, memory so many MiB over or under."""
        if self.state is not State.OUTSIDE or self.measured is None or self.predicted is None:
            return self.state.value
        is_over = self.measured > self.predicted.high
        if self.unit == "bytes":
            return (
                f"{amount('bytes', abs(self.measured - self.predicted.mid))} {'over' if is_over else 'under'}"
            )
        return "faster" if is_over == (self.unit == "tokens/s") else "slower"

    @property
    def digits(self) -> int:
        """The fewest significant digits with which the printed interval says what the state says."""
        if self.predicted is None:
            return 3
        for digits in _DIGITS:
            if not self.state.is_judged or _read(self, digits) is self.state:
                return digits
        return _DIGITS[-1]

    @property
    def least_digits(self) -> int:
        """Significant digits of the measured figure: two where its samples differ by more than a tenth, else three."""
        spread = (self.most or 0.0) - (self.least or 0.0)
        return 2 if spread > 0.1 * (self.measured or 0.0) else 3

    @property
    def number(self) -> str:
        """The measured figure without its unit; in brackets where it is not to be believed."""
        if self.measured is None:
            return "–"
        text = format_number(self.measured / self.divisor, max(self.digits, self.least_digits))
        return text if self.state.is_believed else f"({text})"

    @property
    def shown(self) -> str:
        """The measured figure with its unit, as a table has it."""
        return "–" if self.measured is None else f"{self.number} {self.unit_word}"

    @property
    def divisor(self) -> float:
        """By what the figure and its interval are divided to be in that unit."""
        return scale_of(self.unit, self._size)[0]

    @property
    def unit_word(self) -> str:
        """The unit that the figure and its interval are printed in."""
        return scale_of(self.unit, self._size)[1]

    @property
    def _size(self) -> float:
        if self.measured is None and self.predicted:
            return self.predicted.mid
        return self.measured or 0.0

    @property
    def between(self) -> str:
        """The 90 % interval without its unit; empty without a prediction."""
        if self.predicted is None:
            return ""
        ends = (self.predicted.low, self.predicted.high)
        return " to ".join(format_number(end / self.divisor, self.digits) for end in ends)

    @property
    def off(self) -> str:
        """Measured against the likeliest value: whole per cent with a sign, or a factor from two on.

        It is empty where one of both is not known.
        """
        if self.factor is None:
            return ""
        if not 0.5 < self.factor < 2:
            return f"{format_number(self.factor, 2)} times"
        percent = round(100 * (self.factor - 1))
        return f"{percent:+d} %".replace("-", "−") if percent else "0 %"

    @property
    def says(self) -> str:
        """All of it in words, for those who cannot see the picture."""
        predicted = f"; predicted {self.between} {self.unit_word}" if self.predicted else ""
        return f"{self.number} {self.unit_word}{predicted}: {self.word}"


def scale_of(unit: str, value: float) -> tuple[float, str]:
    """By what to divide such a value to be in the unit that people read it in, and that unit."""
    if unit == "bytes":
        return (MIB, "MiB") if value < 1000 * MIB else (GIB, "GiB")
    if unit != "s":
        return 1.0, unit
    if value < 0.1:
        return 1e-3, "ms"
    return (1.0, "s") if value < 100 else (60.0, "min")


def amount(unit: str, value: float, digits: int = 3) -> str:
    """A value with its unit, as people read it."""
    divisor, word = scale_of(unit, value)
    return f"{format_number(value / divisor, digits)} {word}".strip()


def _read(figure: ShownMetric, digits: int) -> State:
    """The state that a reader of the printed figures would give; the edge is not to be read from them."""
    if figure.state is State.EDGE or figure.measured is None or figure.predicted is None:
        return figure.state
    low, high = (float(f"{end:.{digits}g}") for end in (figure.predicted.low, figure.predicted.high))
    measured = float(f"{figure.measured:.{max(digits, figure.least_digits)}g}")
    if low <= measured <= high:
        return State.INSIDE
    return State.OUTSIDE


def figures_of(record: Record) -> dict[str, ShownMetric]:
    """Every figure of a run by its name, ``decode`` always among them: the speed of whatever it was.

    Of a record that cannot be, no figure is believed.
    """
    found = {row.name: _figure(record, row) for row in rows_of(record)}
    if not found["decode"].measured:
        row = ComparedRow(name="decode", unit="tokens/s", measured=_speed(record))
        found["decode"] = _figure(record, row)
    if impossible(record):
        return {name: figure._replace(state=State.IMPOSSIBLE) for name, figure in found.items()}
    return found


def _speed(record: Record) -> float | None:
    """Tokens/s that a result holds where no sample does."""
    match record.result:
        case Stream(decoding=decoding):
            return decoding.tokens_per_s
        case Speculation(speculative=decoding):
            return decoding.tokens_per_s
        case Soak(sustained_tokens_per_s=speed):
            return speed
        case Load(levels=levels):
            return max(level.new_tokens_per_s for level in levels)
    return None


def _figure(record: Record, row: ComparedRow) -> ShownMetric:
    """What may be said of a row: nothing is measured by a run that broke off, nothing believed of a doubted one."""
    predicted = None
    if row.predicted is not None and row.low is not None and row.high is not None:
        predicted = Interval(row.predicted, row.low, row.high)
    if row.measured is None or record.outcome not in {BELIEVED, "inconclusive"}:
        return ShownMetric(row.name, row.unit, State.NONE, predicted=predicted)
    least = most = None
    if row.sample_count >= _SPREAD_COUNT:
        least, most = row.least, row.most
    state = State.OUTSIDE
    if row.doubted or record.outcome != BELIEVED:
        state = State.DISTURBED
    elif predicted is None:
        state = State.MEASURED
    elif predicted.low <= row.measured <= predicted.high:
        state = State.INSIDE
    elif (least or row.measured) <= predicted.high and (most or row.measured) >= predicted.low:
        state = State.EDGE
    figure = ShownMetric(row.name, row.unit, state, row.measured, least, most, row.sample_count, predicted)
    if state is State.OUTSIDE and _read(figure, _DIGITS[-1]) is not State.OUTSIDE:
        return figure._replace(state=State.EDGE)  # by less than a page prints
    return figure


class Tally(Counter[State]):
    """How many figures are in each state."""

    @property
    def judged(self) -> int:
        """Those that a prediction was held to."""
        return sum(count for state, count in self.items() if state.is_judged)
