"""What stands on a page, in its order: the sentence and its figure, then why, then what next.

All else is folded.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from math import log
from typing import Final, NamedTuple

from harness.domain.prediction import Interval
from harness.domain.record import RunRecord
from harness.gates.judge import Judgement
from harness.printable import clean
from harness.records.compare import compare
from harness.records.derive import TEST_PHASES, summarise
from harness.report import drawing, words
from harness.report.changes import Change, Gate, gate_of
from harness.report.courses import Course, Ladder, courses, ladders, soaks
from harness.report.drawing import Axis, Drawing
from harness.report.elsewhere import Table, how, known_machines
from harness.report.panels import Panel, sections
from harness.report.state import Figure, State, amount, figures_of, tally
from harness.units import GIB, counted, format_number

TILES: Final = (("decode", "Writes"), ("first token", "Starts"), ("peak memory", "Memory"), ("load", "Loads"))
_COLOURS: Final = ("w", "k", "c", "v", "r")
_MOST_COURSES: Final = 24


class Headline(NamedTuple):
    """The first sentence: what leads to the figure, the figure, what follows; the verdict stands out."""

    before: str = ""
    number: str = ""
    unit: str = ""
    after: str = ""
    verdict: str = ""
    feel: str = ""


class Note(NamedTuple):
    """The one box: what was not as predicted (``out``), or what was left out (``doubt``)."""

    kind: str
    title: str
    text: str


class Row(NamedTuple):
    """A machine on the axis that all share."""

    name: str
    detail: str
    number: str
    range: str
    picture: Drawing
    is_own: bool = False


class Stack(NamedTuple):
    """A stacked bar, what stands above it, and of each part its colour, name and size."""

    title: str
    lead: str
    left: str
    right: str
    picture: Drawing
    parts: list[tuple[str, str, str]]


class Line(NamedTuple):
    """A run in the table of all runs."""

    record: RunRecord
    model: str
    setting: str
    figures: dict[str, Figure]
    picture: Drawing


class Multiple(NamedTuple):
    """The speeds of one model on what was predicted of each, a row a run; all of a page have the same axis."""

    title: str
    rows: list[tuple[str, Drawing]]
    axis: Drawing


class Page(NamedTuple):
    """Everything that a template shows; what is empty is left out.

    Attributes:
        tiles: Of each its title, figure, what it is of, and its picture.
        facts: Of each machine how it was measured, name by name.
    """

    kind: str
    title: str
    subject: str
    place: str
    headline: Headline
    created: str = ""
    note: Note | None = None
    tiles: Sequence[tuple[str, Figure, str, Drawing]] = ()
    known: Sequence[Row] = ()
    known_axis: Drawing = Drawing()
    stacks: Sequence[Stack] = ()
    commands: Sequence[tuple[str, str]] = ()
    counts: Sequence[tuple[State, str, int]] = ()
    changes: Sequence[tuple[State, str, list[Change]]] = ()
    change_axis: Drawing = Drawing()
    machines: Sequence[tuple[str, list[Line]]] = ()
    multiples: Sequence[Multiple] = ()
    ladders: Sequence[Ladder] = ()
    courses: Sequence[Course] = ()
    more_courses: int = 0
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    facts: Sequence[tuple[str, dict[str, str]]] = ()
    panels: Sequence[tuple[str, list[Panel]]] = ()


def page_of(
    records: Sequence[RunRecord], *, tables: Sequence[Table] = (), judgements: Sequence[Judgement] = ()
) -> Page:
    """The page of one run, of many, of a gate, or of predictions alone."""
    ordered = sorted(records, key=lambda record: (record.created, record.run_id))
    if judgements:
        page = _judged(ordered, gate_of(judgements))
    elif len(ordered) == 1:
        page = _one(ordered[0])
    elif ordered:
        page = _many(ordered)
    else:
        page = _predictions(tables)
    return page._replace(tables=tables, panels=sections(ordered))


# One run


def _one(record: RunRecord) -> Page:
    figures = figures_of(record)
    model = words.model_words(record)
    headline = headline_of(record, figures["decode"])
    known, axis = _known(record, figures["decode"])
    stacks = (_limits(record, figures["decode"]), _memory(record, figures))
    name = clean(record.name, 60)
    return Page(
        kind="check",
        title=f"{model} on {words.machine_words(record)}: {headline.number} {headline.unit}".rstrip(": "),
        subject=", ".join(filter(None, (model, clean(record.quant, 30), words.kind_words(record)))),
        place=f"{words.machine_line(record)} · {words.engine_line(record)}",
        created=record.created,
        headline=headline,
        note=note_of(record, figures),
        tiles=[_tile(record, figures, key, title) for key, title in TILES],
        known=known,
        known_axis=axis,
        stacks=list(filter(None, stacks)),
        commands=[
            ("Is there a faster setting? Tries threads, buffers and engines.", f"edge-harness tune {name}"),
            ("Which larger model would run well here?", "edge-harness recommend this"),
            (
                "Keep it this fast: limits that a later build must meet.",
                "edge-harness gate init -o budgets.toml",
            ),
            ("Would it run on a phone?", f'edge-harness fit {name} -d "iphone 16 pro"'),
        ],
        courses=soaks([record]),
        figures=[figure for figure in figures.values() if figure.state is not State.NONE],
        facts=[("", _facts([record]))],
    )


def headline_of(record: RunRecord, speed: Figure) -> Headline:
    """The sentence of one run, with its figure where that is believed."""
    name = words.model_words(record)
    if record.outcome not in {"ok", "inconclusive"}:
        last = record.detail.strip().rpartition("\n")[2]
        return Headline(f"{name} did not run to its end: {record.outcome}.", feel=clean(last, 300))
    if speed.state is State.DISTURBED:
        stop = "The figures stand in the table, in brackets. Stop what uses the machine, and run it again; edge-harness "
        return Headline(
            f"{name}: not measured. Other programs disturbed the run.",
            feel=f"{_doubts(record)} {stop}doctor says what.",
        )
    if speed.measured is None:
        return Headline(f"{name}, {words.kind_words(record) or 'no speed'}: what it found stands below.")
    verdicts = {
        State.INSIDE: f"as predicted: {speed.between}",
        State.EDGE: f"at the edge of what was predicted: {speed.between}",
        State.OUTSIDE: f"{speed.word} than predicted: {speed.between}",
        State.MEASURED: "measured, with no prediction before",
    }
    feel = words.reading_words(speed.measured)
    if speed.predicted:
        feel += " The prediction was made before the model ran; nine times in ten the figure should lie within it."
    place = f"on {words.machine_words(record)}, "
    return Headline(f"{name} writes", speed.number, "tokens a second", place, verdicts[speed.state], feel)


def _doubts(record: RunRecord) -> str:
    """What disturbed most samples, in the words of the run."""
    doubts = Counter(doubt for sample in record.samples for doubt in sample.validity.doubts)
    (text, _), *_ = [*doubts.most_common(1), (record.detail, 0)]
    if text:
        return f"{clean(text, 200).capitalize()}."
    return ""


def note_of(record: RunRecord, figures: dict[str, Figure]) -> Note | None:
    """The worst surprise of a run, else what was left out of it; None where all went as predicted."""
    worst = [figures[name] for name, _ in TILES if name in figures and figures[name].state is State.OUTSIDE]
    if worst:
        worst.sort(key=lambda figure: -abs(log(figure.factor or 1.0)))
        first = worst[0]
        if len(worst) == 1:
            count = "One surprise"
        else:
            count = f"{len(worst)} surprises; the largest"
        title = (
            f"{count}: {words.QUANTITIES[first.name]} {first.number} {first.unit_word}, not {first.between}"
        )
        return Note("out", title, _why(record, first))
    left = [test for test in summarise(record) if test.phase in TEST_PHASES and test.disturbed_count]
    if not left or record.outcome != "ok":
        return None
    gone = sum(test.disturbed_count for test in left)
    whole = gone + sum(test.sample_count for test in left)
    return Note(
        "doubt", f"{gone} of {whole} samples were left out", f"{_doubts(record)} The figures are of the rest."
    )


def _why(record: RunRecord, figure: Figure) -> str:
    comparison = compare(record)
    if comparison and comparison.notes:
        return clean(comparison.notes[0], 300)
    if figure.unit == "bytes" and figure.measured and record.machine.ram_bytes:
        share = format_number(100 * figure.measured / record.machine.ram_bytes, 2)
        return f"{figure.word.capitalize()} the likeliest. It is {share} % of the machine's memory."
    if figure.word == "slower":
        return "Something may hold the machine back: edge-harness doctor looks for it."
    return "The profile of this machine may be old: edge-harness check --probe measures it anew."


def _tile(
    record: RunRecord, figures: dict[str, Figure], name: str, title: str
) -> tuple[str, Figure, str, Drawing]:
    figure = figures.get(name) or Figure(name, "s", State.NONE)
    asked = record.scenario
    of = {
        "decode": words.kind_words(record) or f"{asked.new_tokens:,} tokens",
        "first token": f"to the first after {asked.prompt_tokens:,} tokens, {0.75 * asked.prompt_tokens:,.0f} words",
        "peak memory": f"at its highest; the machine has {record.machine.ram_bytes / GIB:.0f} GB",
        "load": "when the file is in memory",
    }[name]
    cold = figures.get("load, cold")
    if figure.state is State.NONE:
        of = "no such test in this run"
    elif figure.state is State.DISTURBED:
        of = "disturbed throughout: not to be believed"
    elif name == "decode" and figure.least is not None and figure.most is not None:
        ends = f"{format_number(figure.least)} to {format_number(figure.most)}"
        of = f"{figure.sample_count} runs of {asked.new_tokens:,} tokens, {ends}; this is the middle one"
    elif name == "load" and cold and cold.measured is not None and cold.state.is_believed:
        of += f"; {cold.number} {cold.unit_word} from storage, the first time"
    return title, figure, of, drawing.bullet(figure, f"{title}: {figure.says}")


def _known(record: RunRecord, speed: Figure) -> tuple[list[Row], Drawing]:
    """The model on machines that people know, this one among them, slowest first; and the axis below."""
    if speed.measured is None or not speed.state.is_believed:
        return [], Drawing()
    others = [(device, cell, cell.decode_tokens_per_s) for device, cell in known_machines(record)]
    if not others:
        return [], Drawing()
    ends = [end for _, _, likely in others if likely for end in (likely.low, likely.high)]
    axis = Axis.of_factors([speed.measured, words.READING_TOKENS_PER_S, *ends])
    grid = [drawing.rule(axis.at(value), 44) for value in axis.ticks()]
    grid.append(drawing.rule(axis.at(words.READING_TOKENS_PER_S), 44, "reading"))
    name = words.machine_words(record)
    dot = drawing.mark(axis.at(speed.measured), 22, speed.state)
    own = drawing.picture(f"{name}: measured {speed.number}", 44, [*grid, dot])
    cores = counted(record.machine.core_count, "core")
    rows = [
        (speed.measured, Row(name[:1].upper() + name[1:], cores, speed.number, "measured", own, is_own=True))
    ]
    for device, cell, likely in others:
        if likely is None:
            nothing = drawing.picture(f"{device.title}: does not fit", 44, grid)
            rows.append((0.0, Row(device.title, "", "–", "does not fit", nothing)))
            continue
        number = format_number(likely.mid, 2)
        between = f"{format_number(likely.low, 2)} to {format_number(likely.high, 2)}"
        bar = drawing.band(axis, likely, 22)
        picture = drawing.picture(f"{device.title}: {number} tokens/s, {between}", 44, [*grid, bar])
        rows.append((likely.mid, Row(device.title, how(cell, device), number, between, picture)))
    rows.sort(key=lambda pair: pair[0])
    return [row for _, row in rows], drawing.factor_axis(axis, "tokens a second")


def _limits(record: RunRecord, reached: Figure) -> Stack | None:
    """Where the time of a token goes, and how much of what memory alone would allow was reached."""
    if record.prediction is None or not record.prediction.speed.limits:
        return None
    speed = record.prediction.speed
    sized = [(words.LIMITS.get(name, name.value), share) for name, share in speed.limits.items()]
    lead = ""
    if reached.measured is not None and reached.state.is_believed and speed.roofline_tokens_per_s > 0:
        share = 100 * reached.measured / speed.roofline_tokens_per_s
        ceiling = format_number(speed.roofline_tokens_per_s)
        lead = f" Reading memory alone would allow {ceiling} tokens a second: {reached.number} is {share:.0f} % of that."
    whole = sum(share for _, share in sized)
    parts, picture = _stacked(
        sized, "Time of one token, predicted", lambda share: f"{100 * share / whole:.0f} %"
    )
    time = " ".join(amount("s", 1 / speed.decode_tokens_per_s.mid, 2))
    left = "where the time of one token goes, predicted"
    return Stack("What limits it", f"Most of the time: {parts[0][1]}.{lead}", left, time, picture, parts)


def _memory(record: RunRecord, figures: dict[str, Figure]) -> Stack | None:
    """Parts of the predicted memory, and what was measured beyond them."""
    if record.prediction is None or not record.prediction.memory.parts:
        return None
    sizes: dict[str, float] = defaultdict(float)
    for part in record.prediction.memory.parts:
        sizes[words.PARTS.get(part.kind) or clean(part.label, 60)] += part.size_bytes
    whole = sum(sizes.values())
    peak = figures.get("peak memory")
    measured = ""
    beyond = 0.0
    if peak and peak.measured is not None and peak.state.is_believed:
        measured = f"measured {peak.number} {peak.unit_word}"
        if peak.state is State.OUTSIDE:
            beyond = max(peak.measured - whole, 0.0)
    parts, picture = _stacked(
        list(sizes.items()), "Memory by part, predicted", lambda size: " ".join(amount("bytes", size)), beyond
    )
    lead = f"Most of it: {parts[0][1]}."
    if beyond:
        lead += f" {' '.join(amount('bytes', beyond))} came on top that nothing predicted."
    return Stack(
        "Where the memory goes",
        lead,
        f"predicted {' '.join(amount('bytes', whole))}",
        measured,
        picture,
        parts,
    )


def _stacked(
    sized: list[tuple[str, float]], title: str, shown: words.Shown, beyond: float = 0.0
) -> tuple[list[tuple[str, str, str]], Drawing]:
    """At most six parts of a bar, the largest first; what lies ``beyond`` the whole is hatched."""
    sized = sorted((pair for pair in sized if pair[1] > 0), key=lambda pair: -pair[1])
    rest = sum(size for _, size in sized[len(_COLOURS) :])
    kinds = [(name, size, kind) for (name, size), kind in zip(sized, _COLOURS, strict=False)]
    kinds += [("the rest", rest, "x")] * bool(rest)
    kinds += [("not predicted", beyond, "beyond")] * bool(beyond)
    parts = [(kind, name, shown(size)) for name, size, kind in kinds]
    says = f"{title}: " + ", ".join(f"{name} {size}" for _, name, size in parts)
    return parts, drawing.stack(kinds, says)


def _facts(records: Sequence[RunRecord]) -> dict[str, str]:
    """How runs of one machine and engine were measured; what is empty is left out."""
    record = records[-1]
    asked = record.scenario
    model = record.model
    engine = record.engine
    gone = sum(
        bool(sample.validity.doubts) for one in records for sample in one.samples if not sample.warm_up
    )
    facts = {
        "ended": "" if record.outcome == "ok" else clean(f"{record.outcome}: {record.detail}", 500),
        "tokens": f"{asked.prompt_tokens:,} random ones as the prompt, then {asked.new_tokens:,} written",
        "shown": "the middle one of the undisturbed repetitions; one warm-up is left out",
        "disturbed": f"{counted(gone, 'sample')} left out. {_doubts(record)}" if gone else "",
        "engine": clean(f"{engine.name} {engine.version}, {counted(engine.thread_count, 'thread')}", 300)
        if engine
        else "",
        "machine": clean(f"{words.machine_line(record)}, {record.machine.system}", 300),
        "model file": f"{model.size_bytes / 1e6:,.1f} MB, SHA-256 {model.sha256[:12]}" if model else "",
        "made from": clean(model.requantized_from) if model else "",
        "command": clean(" ".join(words.without_folders(record.command)), 300),
        "records": ", ".join(one.run_id for one in records),
    }
    return {name: text for name, text in facts.items() if text}


# Many runs, and predictions alone


def _many(records: Sequence[RunRecord]) -> Page:
    """Runs of one machine or of several; of each machine its own table, and nothing drawn across them."""
    figured = [figures_of(record) for record in records]
    ends = [0.55, 1.8]
    for figures in figured:
        ends += _factors(figures["decode"])
    axis = Axis.of_factors(ends)
    by_machine: dict[str, list[Line]] = defaultdict(list)
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record, figures, setting in zip(records, figured, words.setting_words(records), strict=True):
        line = Line(
            record, words.model_words(record), setting, figures, _on_likeliest(figures["decode"], axis)
        )
        by_machine[words.machine_line(record)].append(line)
        groups[words.machine_line(record), words.engine_line(record)].append(record)
    runs = counted(len(records), "run")
    models = counted(len({words.model_words(record) for record in records}), "model")
    drawn = [*courses(records), *soaks(records)]
    if len(by_machine) == 1:
        place = next(iter(by_machine))
    else:
        place = counted(len(by_machine), "machine")
    return Page(
        kind="report",
        title=f"{runs} of {models}",
        subject=f"{models}, {counted(len({record.quant for record in records}), 'quantisation')}, {runs}",
        place=place,
        created=records[-1].created,
        headline=_headline_of_many(records, figured),
        machines=[(name, sorted(lines, key=_order)) for name, lines in sorted(by_machine.items())],
        multiples=[
            one for name, lines in sorted(by_machine.items()) for one in _multiples(lines, place == name)
        ],
        ladders=ladders(records),
        courses=drawn[:_MOST_COURSES],
        more_courses=len(drawn[_MOST_COURSES:]),
        facts=[(" · ".join(names), _facts(group)) for names, group in groups.items()],
    )


def _order(line: Line) -> tuple[float, str, float, str]:
    """By model, the smallest first; of each the widest quantisation first, then by time."""
    model = line.record.model
    if model is None:
        return 0, line.model, 0, line.record.created
    return model.parameter_count, line.model, -model.size_bytes, line.record.created


def _factors(figure: Figure) -> list[float]:
    if figure.factor is None or figure.predicted is None:
        return []
    return [
        figure.factor,
        figure.predicted.low / figure.predicted.mid,
        figure.predicted.high / figure.predicted.mid,
    ]


def _on_likeliest(speed: Figure, axis: Axis) -> Drawing:
    """A speed and its interval as factors of the likeliest value, on the axis of all runs."""
    if speed.factor is None or speed.predicted is None:
        return Drawing()
    measured, low, high = _factors(speed)
    says = f"measured {measured:.2f} of the likeliest, predicted {low:.2f} to {high:.2f}: {speed.word}"
    parts = [drawing.rule(axis.at(1.0), 30), drawing.band(axis, Interval(1.0, low, high), 15)]
    return drawing.picture(says, 30, [*parts, drawing.mark(axis.at(measured), 15, speed.state)])


def _multiples(lines: Sequence[Line], is_alone: bool) -> Iterator[Multiple]:
    """Of each model of a machine with several runs that were predicted: where each came out, on one axis for all."""
    by_model: dict[str, list[Line]] = defaultdict(list)
    ends = []
    for line in sorted(lines, key=_order):
        speed = line.figures["decode"]
        if speed.predicted and speed.measured and speed.state.is_judged:
            by_model[line.model].append(line)
            ends += [speed.measured, speed.predicted.low, speed.predicted.high]
    axis = Axis.of_factors(ends)
    for model, group in by_model.items():
        rows = []
        for line in group:
            speed = line.figures["decode"]
            name = " ".join(filter(None, (clean(line.record.quant, 30), line.setting)))
            parts = [drawing.rule(axis.at(tick), 22) for tick in axis.ticks()]
            if speed.predicted and speed.measured:
                parts.append(drawing.band(axis, speed.predicted, 11))
                parts.append(drawing.mark(axis.at(speed.measured), 11, speed.state))
            rows.append((name, drawing.picture(f"{model} {name}: {speed.says}", 22, parts)))
        if len(rows) > 1:
            title = model if is_alone else f"{model}, {words.machine_words(group[0].record)}"
            yield Multiple(title, rows, drawing.factor_axis(axis, "tokens a second"))


def _headline_of_many(records: Sequence[RunRecord], figured: Sequence[dict[str, Figure]]) -> Headline:
    states = tally(figures["decode"] for figures in figured)
    places = {words.machine_words(record) for record in records}
    if len(places) == 1:
        place = f"on {places.pop()}"
    else:
        place = f"on {len(places)} machines"
    said = []
    for name, what in (("peak memory", "Memory"), ("first token", "The first token")):
        counts = tally(figures[name] for figures in figured if name in figures)
        if counts.judged:
            said.append(f"{what} came out as predicted in {counts[State.INSIDE]} of {counts.judged}.")
    runs = counted(len(records), "run")
    broken = sum(record.outcome not in {"ok", "inconclusive"} for record in records)
    if states[State.DISTURBED]:
        said.append(f"{states[State.DISTURBED]} of {runs} disturbed: no speed of theirs is believed.")
    if broken:
        said.append(f"{broken} of {runs} did not run to the end.")
    feel = " ".join(said)
    if states.judged:
        apart = Counter(figures["decode"].word for figures in figured if figures["decode"].state.is_judged)
        rest = [f"{count} {word}" for word, count in apart.items() if word != State.INSIDE.value]
        verdict = ""
        if rest:
            verdict = f"The others: {', '.join(rest)}."
        unit = f"of {states.judged} speeds as predicted"
        return Headline("", str(states[State.INSIDE]), unit, f"{place}. ", verdict, feel)
    if states[State.MEASURED]:
        unit = f"of {runs} measured"
        return Headline(
            "", str(states[State.MEASURED]), unit, f"{place}. ", "No prediction was made before.", feel
        )
    return Headline(f"No speed of {runs} {place} is believed.", feel=feel)


def _judged(records: Sequence[RunRecord], gate: Gate) -> Page:
    """The page of a gate: its answer and the changes, then the runs."""
    page = Page("gate", gate.title, "no run", "", Headline())
    if records:
        page = _many(records)
    return page._replace(
        kind="gate",
        title=gate.title,
        headline=Headline("", gate.number, gate.unit, verdict=gate.verdict, feel=gate.lead),
        counts=gate.counts,
        changes=gate.changes,
        change_axis=gate.axis,
    )


def _predictions(tables: Sequence[Table]) -> Page:
    running = sum(table.running_count for table in tables)
    whole = sum(table.pair_count for table in tables)
    return Page(
        kind="matrix",
        title=f"{running} of {whole} pairs of a model and a device run",
        subject=counted(len(tables[0].rows), "model"),
        place=counted(len(tables[0].devices), "device"),
        headline=Headline(
            "",
            str(running),
            f"of {whole} pairs run",
            "Each is a model on a device. ",
            "All are predicted; none was measured for this page.",
        ),
    )
