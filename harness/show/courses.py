"""Courses over time and ladders of quantisations: pictures of runs that have all but one thing in common."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from harness.core.grouping import grouped
from harness.core.printable import clean
from harness.core.record import Record
from harness.core.result import Soak
from harness.core.units import format_number
from harness.records.derive import course_of
from harness.records.ladder import Rung, rungs_of
from harness.show import drawing, words
from harness.show.drawing import cell
from harness.show.panels import Panel, Pictures
from harness.show.state import ShownMetric, figures_of

_KNEE_RATIO: Final = 0.95
"""Least share of tokens that stay the same in the quantisation that the sentence names."""
_LOW_RATIO: Final = 0.90
_MOST_POINTS: Final = 12
_FEW_POINTS: Final = 4
_MOST_WINDOWS: Final = 120


def courses(records: Sequence[Record]) -> list[Pictures]:
    """Speeds over time: a line joins runs that agree in all but the build; a run that is alone has none."""
    groups: dict[tuple[str, ...], list[tuple[Record, ShownMetric]]] = defaultdict(list)
    for record in records:
        speed = figures_of(record)["decode"]
        if speed.measured and speed.state.is_believed and not isinstance(record.result, Soak):
            groups[course_of(record)].append((record, speed))
    several = [group for group in groups.values() if len(group) > 1]
    settings = words.setting_words([group[-1][0] for group in several])
    found = []
    for group, setting in zip(several, settings, strict=True):
        newest = group[-_MOST_POINTS:]
        last = newest[-1][0]
        detail = ", ".join(filter(None, (clean(last.quant, 30), setting, "tokens/s")))
        if len(newest) < len(group):
            detail += f"; the newest {len(newest)} of {len(group)} runs"
        ends = (words.short_date(newest[0][0].created), words.short_date(last.created))
        values = [speed.measured or 0.0 for _, speed in newest]
        found.append(_course(last, detail, values, (), ends))
    return found


def soaks(records: Sequence[Record]) -> list[Pictures]:
    """Speed over the minutes of a run, a picture for each: two soaks of unlike limits have nothing in common."""
    found = []
    for record in records:
        soak = record.result
        if not isinstance(soak, Soak) or record.outcome != "ok" or len(soak.windows) < _FEW_POINTS:
            continue
        windows = soak.windows[:: -(-len(soak.windows) // _MOST_WINDOWS)]
        values = [window.tokens_per_s for window in windows]
        minutes = f"{format_number(windows[-1].since_start_s / 60, 2)} min"
        detail = f"{clean(record.quant, 30)}, tokens/s over {minutes}, {words.short_date(record.created)}"
        at = [window.since_start_s for window in windows]
        found.append(_course(record, detail, values, at, ("0", minutes)))
    return found


def _course(
    record: Record, detail: str, values: Sequence[float], at: Sequence[float], ends: tuple[str, str]
) -> Pictures:
    name = words.model_words(record)
    return name, [(detail, drawing.course(values, at, ends, f"{name}, {detail}"))]


def ladders(records: Sequence[Record]) -> list[Panel]:
    """Quantisations of a model by falling bits: size, speed, and how often the next token is the same."""
    by_model = grouped(filter(_same_ratio, rungs_of(records)), lambda rung: rung.model)
    return [_ladder(model, rungs) for model, rungs in by_model.items() if len(rungs) > 1]


def _ladder(model: str, rungs: list[Rung]) -> Panel:
    """Three bars for each; the label names the fewest bits that keep the next token."""
    rungs.sort(key=lambda rung: -rung.size_bytes)
    first = knee = rungs[0]
    for rung in rungs:
        if _same_ratio(rung) >= _KNEE_RATIO:
            knee = rung
    fastest = max(map(_speed, rungs)) or 1.0
    rows = []
    for rung in rungs:
        kind = "w" if rung is knee else "r"
        same = _same_ratio(rung)
        speed = _speed(rung)
        bars = (
            (rung.size_bytes / first.size_bytes, f"{format_number(rung.size_bytes / 1e9, 2)} GB", kind),
            (speed / fastest, format_number(speed) if speed else "not measured", kind),
            (same, f"{100 * same:.0f} %", kind if same >= _LOW_RATIO else "low"),
        )
        name = cell(clean(rung.quant, 30), "speed" if rung is knee else "")
        rows.append((name, *(drawing.value_bar(*bar) for bar in bars)))
    size = format_number(knee.size_bytes / first.size_bytes, 2)
    said = f"{words.name_words(model)}, {clean(knee.quant, 30)}: {size} times the size of {clean(first.quant, 30)}"
    if _speed(knee) and _speed(first):
        said += f", {format_number(_speed(knee) / _speed(first), 2)} times the speed"
    said += f", and {100 * _same_ratio(knee):.0f} % of the time the same next token."
    heads = ("quantisation", "size of the file", "tokens a second", "same next token")
    return Panel("", said, columns=heads, rows=rows)


def _same_ratio(rung: Rung) -> float:
    return (rung.quality and rung.quality.score.top1_agreement_ratio) or 0.0


def _speed(rung: Rung) -> float:
    """Speed of a rung in tokens/s that can be believed; 0 where it has none."""
    return (rung.speed_outcome == "ok" and rung.decode_tokens_per_s) or 0.0
