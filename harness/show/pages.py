"""The content of a page in its order: the sentence and its figure, then why, then what next.

Everything else on it stands in sections that a reader unfolds.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import log
from typing import Final, NamedTuple

from harness.core.grouping import grouped
from harness.core.prediction import Interval
from harness.core.printable import clean
from harness.core.record import Record
from harness.core.units import GIB, counted, format_number
from harness.gates.judge import Judgement
from harness.records.compare import compare
from harness.records.derive import TEST_PHASES, summarise
from harness.records.possible import impossible
from harness.show import drawing, words
from harness.show.changes import gate_of
from harness.show.courses import courses, ladders, soaks
from harness.show.drawing import Axis, Drawing, cell, stated
from harness.show.elsewhere import MachineTable, heat, how, known_machines
from harness.show.findings import result_panels
from harness.show.first_screen import READ_TOKENS_PER_S
from harness.show.panels import Headline, Note, Page, Panel, Pictures, Section, cleaned, offered
from harness.show.state import ShownMetric, State, Tally, amount, figures_of

TILES: Final = (("decode", "Writes"), ("first token", "Starts"), ("peak memory", "Memory"), ("load", "Loads"))
_COLOURS: Final = ("w", "k", "c", "v", "r")
_MOST_COURSES: Final = 24
_RUNS: Final = (
    *(
        "model",
        "quantisation",
        cell("tokens/s", "n"),
        "which is",
        "slower, likeliest, faster",
        cell("off", "n"),
    ),
    *("run", "when, UTC", cell("first token", "n"), cell("memory", "n")),
)


class _PageRun(NamedTuple):
    """A run with what is said of it."""

    record: Record
    figures: dict[str, ShownMetric]
    setting: str

    @property
    def model(self) -> str:
        return words.model_words(self.record)

    @property
    def quant(self) -> str:
        return clean(self.record.quant, 30)

    @property
    def speed(self) -> ShownMetric:
        return self.figures["decode"]


def page_of(
    records: Sequence[Record], *, tables: Sequence[MachineTable] = (), judgements: Sequence[Judgement] = ()
) -> Page:
    """The page of one run, of many, of a gate, or of predictions alone."""
    ordered = sorted(records, key=lambda record: (record.created, record.run_id))
    settings = words.setting_words(ordered)
    runs = [
        _PageRun(record, figures_of(record), said) for record, said in zip(ordered, settings, strict=True)
    ]
    page = Page("gate", "", "no run", "", Headline())
    folds: list[Panel] = []
    last: list[Section] = []
    if len(runs) == 1 and not judgements:
        page = _one(runs[0])
        folds.append(_all_figures(runs[0].figures))
        last.append(_next(ordered[0]))
    elif runs:
        page = _many(runs)
    elif tables:
        page = _predictions(tables[0])
    if judgements:
        gate = gate_of(judgements)
        sections = [*gate.sections, *page.sections]
        page = gate._replace(subject=page.subject, place=page.place, created=page.created, sections=sections)
    results = [panel for record in ordered for panel in result_panels(record) if panel.title]
    folds += sorted(map(cleaned, [*results, *offered(ordered)]), key=lambda panel: panel.title)
    marks = Drawing(" ".join(stated(state, state.value) for state in State))
    folds += [
        *_facts(ordered),
        Panel("Words and marks used here", facts=[("marks", marks), *words.GLOSSARY.items()]),
    ]
    last.append(Section("details", "In full", folds=folds))
    return page._replace(sections=[*page.sections, *map(heat, tables), *last])


# One run


def _one(run: _PageRun) -> Page:
    record = run.record
    headline = headline_of(record, run.speed)
    made = (_known(run), _limits(run), _memory(run), _over_time([record]))
    return Page(
        kind="check",
        title=f"{run.model} on {words.machine_words(record)}: {headline.number} {headline.unit}".rstrip(": "),
        subject=", ".join(filter(None, (run.model, run.quant, words.kind_words(record)))),
        place=f"{words.machine_line(record)} · {words.engine_line(record)}",
        created=record.created,
        headline=headline,
        note=note_of(record, run.figures),
        tiles=[_tile(run, key, title) for key, title in TILES],
        sections=[one for one in made if one and one.panels],
    )


def _next(record: Record) -> Section:
    name = clean(record.name, 60)
    commands = {
        "Is there a faster setting? Tries threads, buffers and engines.": f"edge-harness tune {name}",
        "Which larger model would run well here?": "edge-harness recommend this",
        "Keep it this fast: limits for later builds.": f"edge-harness gate init {record.run_id} -o b.toml",
        "Would it run on a phone?": f'edge-harness fit {name} -d "iphone 16 pro"',
    }
    rows = [(text, cell(command, "command")) for text, command in commands.items()]
    return Section("next", "What next", panels=[Panel("", columns=("to know", "type"), rows=rows)])


def _all_figures(figures: dict[str, ShownMetric]) -> Panel:
    rows = []
    for figure in figures.values():
        if figure.state is not State.NONE:
            between = f"{figure.between} {figure.unit_word}" if figure.predicted else ""
            numbers = (figure.shown, between, figure.off, str(figure.sample_count))
            name = words.QUANTITIES.get(figure.name, figure.name)
            rows.append((name, *(cell(text, "n") for text in numbers), stated(figure.state, figure.word)))
    heads = (cell(head, "n") for head in ("measured", "predicted, 90 %", "off", "samples"))
    return Panel(f"All {len(rows)} figures", columns=("what", *heads, "state"), rows=rows)


def headline_of(record: Record, speed: ShownMetric) -> Headline:
    """The sentence of one run, with its figure where that is believed."""
    name = words.model_words(record)
    if record.outcome not in {"ok", "inconclusive"}:
        last = record.detail.strip().rpartition("\n")[2]
        return Headline(f"{name} did not run to its end: {record.outcome}.", feel=clean(last, 300))
    if speed.state is State.IMPOSSIBLE:
        why = "; ".join(one.rpartition(": ")[2] for one in impossible(record))  # without the test's own label
        feel = f"{clean(why, 300)}. No figure of this run is believed; measure it again."
        return Headline(f"{name}: this cannot be.", feel=feel)
    if speed.state is State.DISTURBED:
        feel = (
            f"{_doubts(record)} The figures stand in the table, in brackets. Stop what uses the machine, and run it "
            "again; edge-harness doctor says what."
        )
        return Headline(f"{name}: not measured. Other programs disturbed the run.", feel=feel)
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


def _doubts(record: Record) -> str:
    """What disturbed most samples, in the words of the run."""
    doubts = Counter(doubt for sample in record.samples for doubt in sample.validity.doubts)
    text = max(doubts, key=lambda doubt: doubts[doubt], default=record.detail)
    return f"{clean(text, 200).capitalize()}." if text else ""


def note_of(record: Record, figures: dict[str, ShownMetric]) -> Note | None:
    """The worst surprise of a run, else what was left out of it; None where all went as predicted."""
    worst = [figures[name] for name, _ in TILES if figures[name].state is State.OUTSIDE]
    if worst:
        first = max(worst, key=lambda figure: abs(log(figure.factor or 1.0)))
        count = "One surprise" if len(worst) == 1 else f"{len(worst)} surprises; the largest"
        title = f"{count}: {words.QUANTITIES[first.name]} {first.shown}, not {first.between}"
        return Note(State.OUTSIDE, title, _why(record, first))
    tests = [test for test in summarise(record) if test.phase in TEST_PHASES and test.disturbed_count]
    if not tests or record.outcome != "ok":
        return None
    gone = sum(test.disturbed_count for test in tests)
    whole = gone + sum(test.sample_count for test in tests)
    title = f"{gone} of {whole} samples were left out"
    return Note(State.DISTURBED, title, f"{_doubts(record)} The figures are of the rest.")


def _why(record: Record, figure: ShownMetric) -> str:
    comparison = compare(record)
    if comparison and comparison.notes:
        return clean(comparison.notes[0], 300)
    if figure.unit == "bytes" and figure.measured and record.machine.ram_bytes:
        share = format_number(100 * figure.measured / record.machine.ram_bytes, 2)
        return f"{figure.word.capitalize()} the likeliest. It is {share} % of the machine's memory."
    if figure.word == "slower":
        return "Something may hold the machine back: edge-harness doctor looks for it."
    return "The profile of this machine may be old: edge-harness check --probe measures it anew."


def _tile(run: _PageRun, name: str, title: str) -> tuple[str, ShownMetric, str, Drawing]:
    figure = run.figures[name]
    asked = run.record.scenario
    of = {
        "decode": words.kind_words(run.record) or f"{asked.new_tokens:,} tokens",
        "first token": f"to the first after {asked.prompt_tokens:,} tokens, {0.75 * asked.prompt_tokens:,.0f} words",
        "peak memory": f"at its highest; the machine has {run.record.machine.ram_bytes / GIB:.0f} GB",
        "load": "when the file is in memory",
    }[name]
    cold = run.figures["load, cold"]
    if figure.state is State.NONE:
        of = "no such test in this run"
    elif name == "decode" and figure.least is not None and figure.most is not None:
        ends = f"{format_number(figure.least)} to {format_number(figure.most)}"
        of = f"{figure.sample_count} runs of {asked.new_tokens:,} tokens, {ends}; this is the middle one"
    elif name == "load" and cold.state.is_believed:
        of += f"; {cold.shown} from storage, the first time"
    return title, figure, of, drawing.bullet(figure, f"{title}: {figure.says}")


def _known(run: _PageRun) -> Section | None:
    """The model on machines that people know, this one among them, slowest first; and the axis below."""
    others = known_machines(run.record)
    speed = run.speed
    if speed.measured is None or not speed.state.is_believed or not others:
        return None
    ends = [speed.measured, READ_TOKENS_PER_S]
    for answer in others:
        if answer.runs:
            likely = answer.prediction.speed.decode_tokens_per_s
            ends += [likely.low, likely.high]
    axis = Axis.of_factors(ends)
    rules = [drawing.rule(axis.at(READ_TOKENS_PER_S), 44, "reading")]
    name = words.machine_words(run.record)
    says = f"{name}: measured {speed.number}"
    own = drawing.beside(axis, 44, says, measured=(speed.measured, speed.state), rules=rules)
    first = cell(name[:1].upper() + name[1:], "own", counted(run.record.machine.core_count, "core"))
    rows = {speed.measured: (first, own, cell(speed.number, "n speed", "measured"))}
    for answer in others:
        title = answer.device.title
        place = -float(len(rows))
        number = "–"
        between = "does not fit"
        predicted = None
        if answer.runs:
            predicted = answer.prediction.speed.decode_tokens_per_s
            place = predicted.mid
            number = format_number(place, 2)
            between = f"{format_number(predicted.low, 2)} to {format_number(predicted.high, 2)}"
        says = f"{title}: {number} tokens/s, {between}"
        picture = drawing.beside(axis, 44, says, predicted, rules=rules)
        rows[place] = (cell(title, small=how(answer)), picture, cell(number, "n speed", between))
    ordered = [rows[place] for place in sorted(rows)]
    ordered.append((Drawing(), drawing.factor_axis(axis), Drawing()))
    return Section(
        "known",
        "Beside machines you know",
        "The same model. Only the shaded machine is measured. The others are predicted: the bar is the doubt (90 %), "
        "the line in it the likeliest speed.",
        [
            Panel(
                "", columns=("machine", "slower to faster", cell("tokens/s", "n")), rows=ordered, kind="rows"
            )
        ],
        note="Tokens a second; equal distances are equal factors. Dashed: about as fast as you read.",
    )


def _limits(run: _PageRun) -> Section | None:
    """Where the time of a token goes, and how much of what memory alone would allow was reached."""
    if run.record.prediction is None:
        return None
    predicted = run.record.prediction.speed
    reached = run.speed
    lead = f"The time of one token, {amount('s', 1 / predicted.decode_tokens_per_s.mid, 2)} predicted."
    if reached.measured is not None and reached.state.is_believed and predicted.roofline_tokens_per_s > 0:
        share = 100 * reached.measured / predicted.roofline_tokens_per_s
        ceiling = format_number(predicted.roofline_tokens_per_s)
        lead += f" Reading memory alone would allow {ceiling} tokens a second: {reached.number} is {share:.0f} % of that."
    sizes = {words.LIMITS.get(name, name.value): share for name, share in predicted.limits.items()}
    whole = sum(sizes.values())
    return _stack("limits", "What limits it", lead, sizes, lambda share: f"{100 * share / whole:.0f} %")


def _memory(run: _PageRun) -> Section | None:
    """Parts of the predicted memory, and what was measured beyond them."""
    if run.record.prediction is None:
        return None
    sizes: dict[str, float] = defaultdict(float)
    for part in run.record.prediction.memory.parts:
        sizes[words.PARTS.get(part.kind) or clean(part.label, 60)] += part.size_bytes
    whole = sum(sizes.values())
    peak = run.figures["peak memory"]
    lead = f"{amount('bytes', whole)} predicted"
    beyond = 0.0
    if peak.measured is not None and peak.state.is_believed:
        lead += f", {peak.shown} measured"
        if peak.state is State.OUTSIDE and peak.measured > whole:
            beyond = peak.measured - whole
            lead += f"; {amount('bytes', beyond)} came on top that nothing predicted"
    shown = partial(amount, "bytes")
    return _stack("memory", "Where the memory goes", f"{lead}.", sizes, shown, beyond)


def _stack(
    key: str,
    heading: str,
    lead: str,
    sizes: dict[str, float],
    shown: Callable[[float], str],
    beyond: float = 0.0,
) -> Section | None:
    """At most six parts of a bar, the largest first; what lies ``beyond`` the whole is hatched."""
    sized = sorted((pair for pair in sizes.items() if pair[1] > 0), key=lambda pair: -pair[1])
    if not sized:
        return None
    parts = [(name, size, kind) for (name, size), kind in zip(sized, _COLOURS, strict=False)]
    if rest := sum(size for _, size in sized[len(parts) :]):
        parts.append(("the rest", rest, "x"))
    if beyond:
        parts.append(("not predicted", beyond, "beyond"))
    says = f"{heading}: " + ", ".join(f"{name} {shown(size)}" for name, size, _ in parts)
    rows = [(drawing.swatch(kind, name), cell(shown(size), "n")) for name, size, kind in parts]
    panel = Panel("", columns=("part", cell("share", "n")), rows=rows, picture=drawing.stack(parts, says))
    return Section(key, heading, f"Most of it: {parts[0][0]}. {lead}", [panel], is_half=True)


def _facts(records: Sequence[Record]) -> Iterator[Panel]:
    """How runs of each machine and engine were measured; what is empty is left out."""
    groups = grouped(records, lambda run: f"{words.machine_line(run)} · {words.engine_line(run)}")
    for label, runs in groups.items():
        record = runs[-1]
        asked = record.scenario
        gone = sum(bool(one.validity.doubts) for run in runs for one in run.samples if not one.warm_up)
        facts = {
            "tokens": f"{asked.prompt_tokens:,} random ones as the prompt, then {asked.new_tokens:,} written",
            "shown": "the middle one of the undisturbed repetitions; one warm-up is left out",
        }
        if record.outcome != "ok":
            facts["ended"] = f"{record.outcome}: {record.detail}"
        if gone:
            facts["disturbed"] = f"{counted(gone, 'sample')} left out. {_doubts(record)}"
        if engine := record.engine:
            facts["engine"] = f"{engine.name} {engine.version}, {counted(engine.thread_count, 'thread')}"
        if model := record.model:
            facts["model file"] = f"{model.size_bytes / 1e6:,.1f} MB, SHA-256 {model.sha256[:12]}"
            facts["made from"] = model.requantized_from
        facts["command"] = " ".join(words.without_folders(record.command))
        facts["records"] = ", ".join(one.run_id for one in runs)
        kept = [(name, clean(text, 2000)) for name, text in facts.items() if text]
        yield Panel("How it was measured", label, facts=kept)


# Many runs, and predictions alone


def _many(runs: Sequence[_PageRun]) -> Page:
    """Runs of one machine or of several; of each machine its own table, and nothing drawn across them."""
    by_machine: dict[str, list[_PageRun]] = defaultdict(list)
    ends = [0.55, 1.8]
    for run in runs:
        by_machine[words.machine_line(run.record)].append(run)
        ends += _factors(run.speed)
    axis = Axis.of_factors(ends)
    records = [run.record for run in runs]
    place = counted(len(by_machine), "machine")
    where = place
    if len(by_machine) == 1:
        (place,) = by_machine
        where = words.machine_words(records[0])
    tables = []
    drawn = []
    for name, group in sorted(by_machine.items()):
        group.sort(key=_order)
        label = name.removeprefix(place)
        tables.append(Panel("", label, columns=_RUNS, rows=list(_rows(group, axis)), kind="runs"))
        if pictures := list(_multiples(group)):
            drawn.append(Panel("", label, pictures=pictures))
    made = [
        Section(
            "machines",
            "All runs",
            "The bar is what was predicted before the run (90 %), around its likeliest value; the mark is what came out. "
            "A red diamond: outside.",
            tables,
        ),
        Section(
            "multiples",
            "Predicted and measured",
            "Tokens a second, the same axis in all: equal distances are equal factors. The bar is what was predicted "
            "(90 %), the mark what came out.",
            drawn,
        ),
        Section("ladders", "Which quantisation", panels=ladders(records)),
        _over_time(records),
    ]
    title = f"{counted(len(runs), 'run')} of {counted(len({run.model for run in runs}), 'model')}"
    return Page(
        kind="report",
        title=title,
        subject=title,
        place=place,
        created=records[-1].created,
        headline=_headline_of_many(runs, f"on {where}"),
        sections=[one for one in made if one.panels],
    )


def _over_time(records: Sequence[Record]) -> Section:
    drawn = [*courses(records), *soaks(records)]
    lead = "A line joins only runs of one machine, model file, engine, setting, limit and target; or the minutes of one run."
    if len(drawn) > _MOST_COURSES:
        lead += f" {len(drawn) - _MOST_COURSES} more: edge-harness history --trend decode_tokens_per_s"
    pictures = [Panel("", pictures=drawn[:_MOST_COURSES])] if drawn else []
    return Section("courses", "Over time", lead, pictures)


def _order(run: _PageRun) -> tuple[float, str, float, str]:
    """By model, the smallest first; of each the widest quantisation first, then by time."""
    model = run.record.model
    sizes = (model.parameter_count, -model.size_bytes) if model else (0, 0)
    return sizes[0], run.model, sizes[1], run.record.created


def _rows(runs: Sequence[_PageRun], axis: Axis) -> Iterator[Sequence[str]]:
    """A row for each run; its model is named once a group, and why it did not end well below its setting."""
    last = ""
    for run in runs:
        record = run.record
        speed = run.speed
        word = speed.word
        reason = ""
        if record.outcome != "ok":
            word = record.outcome
            reason = clean(record.detail, 300)
        yield (
            cell(run.model if run.model != last else "", "model"),
            run.quant,
            cell(speed.number, "n speed" if speed.state.is_believed else "n"),
            stated(speed.state, word),
            _on_likeliest(speed, axis),
            cell(speed.off, "n"),
            cell(run.setting, small=reason),
            cell(words.short_date(record.created), "n small"),
            *(_marked(run.figures[name]) for name in ("first token", "peak memory")),
        )
        last = run.model


def _marked(figure: ShownMetric) -> Drawing:
    """A figure, behind its mark where that is not what was predicted."""
    text = figure.shown
    if figure.state in {State.OUTSIDE, State.DISTURBED, State.IMPOSSIBLE}:
        text = Drawing(f"{drawing.shape(figure.state, figure.word)} {text}")
    return cell(text, "n")


def _factors(figure: ShownMetric) -> list[float]:
    if figure.factor is None or figure.predicted is None:
        return []
    likeliest = figure.predicted.mid
    return [figure.factor, figure.predicted.low / likeliest, figure.predicted.high / likeliest]


def _on_likeliest(speed: ShownMetric, axis: Axis) -> Drawing:
    """A speed and its interval as factors of the likeliest value, on the axis of all runs."""
    if speed.factor is None:
        return Drawing()
    measured, low, high = _factors(speed)
    says = f"measured {measured:.2f} of the likeliest, predicted {low:.2f} to {high:.2f}: {speed.word}"
    return drawing.beside(axis, 30, says, Interval(1.0, low, high), (measured, speed.state))


def _multiples(runs: Sequence[_PageRun]) -> Iterator[Pictures]:
    """Of each model of a machine with several runs that were predicted: where each came out, on one axis for all."""
    by_model: dict[str, list[_PageRun]] = defaultdict(list)
    ends = []
    for run in runs:
        if run.speed.predicted and run.speed.factor is not None:
            by_model[run.model].append(run)
            ends += [run.speed.measured or 0.0, run.speed.predicted.low, run.speed.predicted.high]
    axis = Axis.of_factors(ends)
    for model, group in by_model.items():
        drawn = []
        for run in group:
            name = f"{run.quant} {run.setting}".strip()
            measured = (run.speed.measured or 0.0, run.speed.state)
            says = f"{model} {name}: {run.speed.says}"
            drawn.append((name, drawing.beside(axis, 22, says, run.speed.predicted, measured)))
        if len(drawn) > 1:
            yield model, [*drawn, ("", drawing.factor_axis(axis))]


def _headline_of_many(runs: Sequence[_PageRun], place: str) -> Headline:
    states = Tally(run.speed.state for run in runs)
    said = []
    for name, what in (("peak memory", "Memory"), ("first token", "The first token")):
        counts = Tally(run.figures[name].state for run in runs)
        if counts.judged:
            said.append(f"{what} came out as predicted in {counts[State.INSIDE]} of {counts.judged}.")
    whole = counted(len(runs), "run")
    broken = sum(run.record.outcome not in {"ok", "inconclusive"} for run in runs)
    if states[State.DISTURBED]:
        said.append(f"{states[State.DISTURBED]} of {whole} disturbed: no speed of theirs is believed.")
    if broken:
        said.append(f"{broken} of {whole} did not run to the end.")
    feel = " ".join(said)
    if states.judged:
        apart = Counter(run.speed.word for run in runs if run.speed.state in {State.EDGE, State.OUTSIDE})
        rest = ", ".join(f"{count} {word}" for word, count in apart.items())
        verdict = f"The others: {rest}." * bool(rest)
        unit = f"of {states.judged} speeds as predicted"
        return Headline("", str(states[State.INSIDE]), unit, f"{place}. ", verdict, feel)
    if count := states[State.MEASURED]:
        verdict = "No prediction was made before."
        return Headline("", str(count), f"of {whole} measured", f"{place}. ", verdict, feel)
    return Headline(f"No speed of {whole} {place} is believed.", feel=feel)


def _predictions(table: MachineTable) -> Page:
    unit = f"of {table.pair_count} pairs run"
    return Page(
        kind="matrix",
        title=f"{table.running_count} {unit.removesuffix(' run')} of a model and a device run",
        subject=counted(len(table.rows), "model"),
        place=counted(len(table.columns) - 1, "device"),
        headline=Headline(
            "",
            str(table.running_count),
            unit,
            "Each is a model on a device. ",
            "All are predicted; none was measured for this page.",
        ),
    )
