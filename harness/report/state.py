"""What a page may say of a figure: measured, predicted, and whether to believe it.

Every count is made here.
"""

from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

from harness.domain.prediction import Interval
from harness.domain.record import RunRecord
from harness.domain.result import Load, Soak, Speculation, Stream
from harness.records.compare import ComparedRow, rows_of
from harness.units import GIB, MIB, format_number

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
    NONE = "not measured"

    @property
    def is_judged(self) -> bool:
        """Whether a prediction was held to a measurement that is believed."""
        return self in {State.INSIDE, State.EDGE, State.OUTSIDE}

    @property
    def is_believed(self) -> bool:
        """Whether the measured figure may stand as one."""
        return self.is_judged or self is State.MEASURED


class Figure(NamedTuple):
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
        if (
            self.measured is None
            or self.predicted is None
            or not self.state.is_judged
            or self.predicted.mid <= 0
        ):
            return None
        return self.measured / self.predicted.mid

    @property
    def is_over(self) -> bool:
        """Whether more was measured than the interval allows."""
        return (
            self.measured is not None and self.predicted is not None and self.measured > self.predicted.high
        )

    @property
    def word(self) -> str:
        """The state in a word or two: a speed is faster or slower, memory so many MiB over or under."""
        if self.state is not State.OUTSIDE or self.measured is None or self.predicted is None:
            return self.state.value
        if self.unit != "bytes":
            is_faster = self.is_over == (self.unit == "tokens/s")
            if is_faster:
                return "faster"
            return "slower"
        difference = abs(self.measured - self.predicted.mid)
        number, unit = amount("bytes", difference)
        return f"{number} {unit} {'over' if self.is_over else 'under'}"

    @property
    def digits(self) -> int:
        """The fewest significant digits with which the printed interval says what the state says.

        0 for none.
        """
        return _telling_digits(self)

    @property
    def least_digits(self) -> int:
        """Significant digits of the measured figure: two where its samples differ by more than a tenth, else three."""
        if self.measured is None or self.least is None or self.most is None:
            return 3
        if self.most - self.least > 0.1 * self.measured:
            return 2
        return 3

    @property
    def number(self) -> str:
        """The measured figure without its unit; in brackets where it is not to be believed."""
        if self.measured is None:
            return "–"
        text = format_number(self.measured / self.divisor, max(self.digits, self.least_digits))
        if self.state.is_believed:
            return text
        return f"({text})"

    @property
    def shown(self) -> str:
        """The measured figure with its unit, as a table has it."""
        if self.measured is not None:
            return f"{self.number} {self.unit_word}"
        return "–"

    @property
    def divisor(self) -> float:
        """By what the figure and its interval are divided to be in that unit."""
        return self._scale[0]

    @property
    def unit_word(self) -> str:
        """The unit that the figure and its interval are printed in."""
        return self._scale[1]

    @property
    def between(self) -> str:
        """The 90 % interval without its unit; empty without a prediction."""
        if self.predicted is None:
            return ""
        ends = [
            format_number(end / self.divisor, self.digits)
            for end in (self.predicted.low, self.predicted.high)
        ]
        return " to ".join(ends)

    @property
    def off(self) -> str:
        """Measured against the likeliest value: whole per cent with a sign, from two on a factor.

        Empty without.
        """
        factor = self.factor
        if factor is None:
            return ""
        if not 0.5 < factor < 2:
            return f"{format_number(factor, 2)} times"
        percent = round(100 * (factor - 1))
        if percent:
            return f"{percent:+d} %".replace("-", "−")
        return "0 %"

    @property
    def says(self) -> str:
        """All of it in words, for those who cannot see the picture."""
        predicted = ""
        if self.predicted:
            predicted = f"; predicted {self.between} {self.unit_word}"
        return f"{self.number} {self.unit_word}{predicted}: {self.word}"

    @property
    def _scale(self) -> tuple[float, str]:
        if self.measured is not None:
            return scale_of(self.unit, self.measured)
        return scale_of(self.unit, self.predicted.mid if self.predicted else 0.0)


def scale_of(unit: str, value: float) -> tuple[float, str]:
    """The unit that people read such a value in, and by what to divide it."""
    if unit == "bytes":
        if value < 1000 * MIB:
            return (MIB, "MiB")
        return (GIB, "GiB")
    if unit != "s":
        return 1.0, unit
    if value < 0.1:
        return 1e-3, "ms"
    if value < 100:
        return (1.0, "s")
    return (60.0, "min")


def amount(unit: str, value: float, digits: int = 3) -> tuple[str, str]:
    """A value and its unit, as people read it."""
    divisor, word = scale_of(unit, value)
    return format_number(value / divisor, digits), word


def _telling_digits(figure: Figure) -> int:
    if figure.predicted is None:
        return 3
    for digits in _DIGITS:
        if not figure.state.is_judged or _read(figure, digits) is figure.state:
            return digits
    return _DIGITS[-1]


def _read(figure: Figure, digits: int) -> State:
    """The state that a reader of the printed figures would give; the edge is not to be read from them."""
    if figure.state is State.EDGE or figure.measured is None or figure.predicted is None:
        return figure.state
    low, high = (float(f"{end:.{digits}g}") for end in (figure.predicted.low, figure.predicted.high))
    measured = float(f"{figure.measured:.{max(digits, figure.least_digits)}g}")
    if low <= measured <= high:
        return State.INSIDE
    return State.OUTSIDE


def figures_of(record: RunRecord) -> dict[str, Figure]:
    """Every figure of a run by its name, ``decode`` always among them: the speed of whatever it was."""
    found = {row.name: _figure(record, row) for row in rows_of(record)}
    if not found["decode"].measured:
        row = ComparedRow(name="decode", unit="tokens/s", measured=_speed(record))
        found["decode"] = _figure(record, row)
    return found


def _speed(record: RunRecord) -> float | None:
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


def _figure(record: RunRecord, row: ComparedRow) -> Figure:
    """What may be said of a row: nothing is measured by a run that broke off, nothing believed of a doubted one."""
    predicted = None
    if row.predicted is not None and row.low is not None and row.high is not None:
        predicted = Interval(row.predicted, row.low, row.high)
    figure = Figure(row.name, row.unit, State.NONE, predicted=predicted)
    if row.measured is None or record.outcome not in {BELIEVED, "inconclusive"}:
        return figure
    figure = figure._replace(state=State.DISTURBED, measured=row.measured, sample_count=row.sample_count)
    if row.sample_count >= _SPREAD_COUNT:
        figure = figure._replace(least=row.least, most=row.most)
    if row.doubted or record.outcome != BELIEVED:
        return figure
    state = State.MEASURED
    if predicted is not None:
        state = State.OUTSIDE
        spread = (figure.least or row.measured, figure.most or row.measured)
        if predicted.low <= row.measured <= predicted.high:
            state = State.INSIDE
        elif spread[0] <= predicted.high and spread[1] >= predicted.low:
            state = State.EDGE
    figure = figure._replace(state=state)
    if state is State.OUTSIDE and _read(figure, _DIGITS[-1]) is not State.OUTSIDE:
        return figure._replace(state=State.EDGE)  # by less than a page prints
    return figure


class Tally(Counter[State]):
    """How many figures are in each state."""

    @property
    def judged(self) -> int:
        """Those that a prediction was held to."""
        return sum(count for state, count in self.items() if state.is_judged)


def tally(figures: Iterable[Figure]) -> Tally:
    """How many figures are in each state."""
    return Tally(figure.state for figure in figures)
