"""An answer in words: the first screen of `fit`, of one model on one device or of several side by side.

The verdict, a row for each figure, the command, the doubt: at most fourteen lines of eighty columns.
"""

import re
import textwrap
from collections.abc import Sequence
from typing import Final

from harness.answer.answer import USUAL_QUANT, Answer, Reading, ReadingKind
from harness.answer.own_format import listed
from harness.answer.plans import SpeculationCase
from harness.answer.resolve import api_named
from harness.core.device import APIS, RAM
from harness.core.prediction import Basis, Evidence, Interval, PartKind
from harness.core.units import GB, GIB, MIB
from harness.core.way import Way, WayKind
from harness.memory.verdict import needed_bytes_of

WIDTH: Final = 78
MOST_LINES: Final = 14
MOST_WORDS: Final = 110
"""Of a first screen, the command aside."""
READ_TOKENS_PER_S: Final = 5.3
"""Reading speed: four words a second, three quarters of a word a token."""
UNSURE_RATIO: Final = 4.0
"""High over low of an interval from which no middle is named."""
UNKNOWN_RATIO: Final = 20.0
"""High over low of an interval that says nothing."""
_PAGE_TOKENS: Final = 650
_LABEL_WIDTH: Final = 20
_SLOW_TOKENS_PER_S: Final = 2.0
_SAME_RATIO: Final = 0.97
"""Of a speed, from which nobody tells another apart."""
_TIGHT_RATIO: Final = 0.05
_TIGHT_BYTES: Final = GIB / 2
_MOST_SHOWN: Final = 8
"""Answers side by side that the first screen shows."""
_LONG_LOAD_S: Final = 20.0
"""From where on the first screen says how long a model loads."""
_WORTH_RATIO: Final = 3.0
"""By which another way may be slower and still be named."""


Row = tuple[str, str, str]
"""A row of the first screen: its label, its figure, and what is said of it."""


def first_screen(
    answer: Answer, more: Sequence[str] = (), instead: str = "", says: Sequence[str] = ()
) -> list[str]:
    """The whole first screen of one answer.

    ``more`` are the options that would add something; ``instead`` what to do where it is not a plain yes;
    ``says`` what was asked beside it.
    """
    lines = textwrap.wrap(sentence(answer), WIDTH)
    said = [*says]
    if answer.prediction.verdict.word != "fits" or not answer.runs:
        said.append(instead or instead_line(answer))
    else:
        said += [
            f"{capital(one.change)}: all of it is on the card, {two(one.decode_tokens_per_s)} tokens/s."
            for one in answer.advice
            if one.kind == "kv"
        ][:1]
    if not answer.runs:
        return [*lines, "", *_indented(_why_not(answer)), "", *_indented(*said)]
    lines += ["", *_rows(answer), ""]
    if answer.commands:
        lines += [f"  {answer.commands[0]}", ""]
    lines += _indented(*said)
    last = _indented(basis_line(answer))
    if more:
        last.append(f"  More: {'  '.join(more)}")
    for told in ([_other_way(answer)], _taken_for_granted(answer)):
        words = sum(len(line.split()) for line in (*lines, *last) if line.strip() not in answer.commands)
        room = min(MOST_LINES - len(lines) - len(last), 2)
        for text in told:
            wrapped = _indented(text)
            if len(wrapped) <= room and words + len(text.split()) <= MOST_WORDS:
                lines += wrapped
                break
    return [*lines, *last]


def _indented(*texts: str) -> list[str]:
    lines: list[str] = []
    for text in texts:
        lines += textwrap.wrap(
            text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
    return lines


def sentence(answer: Answer) -> str:
    """The verdict as a sentence."""
    model = " with ".join(
        [model_name(answer), *(one.name.removesuffix(" default") for one in answer.systems)]
    )
    device = device_name(answer)
    verdict = answer.prediction.verdict
    guess = ""
    if answer.is_guess:
        guess = " if it is built like others of its size"
    needed, available = sizes(verdict.needed_bytes, verdict.available_bytes)
    if answer.needs_entitlement:
        said = f"No, unless its app has the higher memory limit: {model} needs {needed}, an app gets {available}."
    elif not answer.runs:
        said = f"No. {model} does not run on {device}: it needs {needed}, and there are {available}."
    elif verdict.word == "too slow":
        said = f"Too slow. {model} runs on {device}{guess}, but slower than you want."
    elif answer.best.kind.is_read:
        said = f"Partly. {model} is too large for {device}{guess}; part of it is read from storage."
    elif _evidence(answer).is_unmeasured:
        said = f"Not known. {model} fits {device}{guess}, but nobody has measured anything like it."
    elif answer.scenario.batch_count > 1:
        count = answer.scenario.batch_count
        said = f"{_yes(answer)}. {capital(device)} serves {model} to {count} people at once{guess}."
    else:
        verb = "reads text" if answer.reads_only else "runs"
        said = f"{_yes(answer)}. {model} {verb} on {device}{guess}{_where(answer)}{_drafts(answer)}."
    if reason := _other_api(answer):
        said = f"{said} {reason}"
    return said


def _other_api(answer: Answer) -> str:
    """Why another api answers than the one that was asked for; empty if that one does."""
    asked, found = api_named(answer.question.api), answer.prediction.api
    if not asked or asked == found or asked not in APIS:
        return ""
    other = "the CPU" if found == "cpu" else found
    if not answer.runs:
        return f"Neither {asked} nor {other} has room for it."
    return f"This is by {other}, as {asked} has no room for it."


def _yes(answer: Answer) -> str:
    """Barely: one run in five needs more than there is, or misses the speed that is wanted."""
    speed = each(answer)
    wanted = answer.question.target_tokens_per_s
    has_no_room = answer.best.kind.is_whole and not answer.best.has_room
    if has_no_room or (wanted is not None and speed.low < wanted):
        return "Barely"
    if not answer.reads_only and speed.mid < _SLOW_TOKENS_PER_S:
        return "Yes, slowly"
    return "Yes"


def _where(answer: Answer) -> str:
    match answer.best.kind:
        case WayKind.CPU:
            return ", by the CPU"
        case WayKind.LAYERS | WayKind.EXPERTS:
            return ", shared between card and RAM"
        case WayKind.CARDS:
            return f", on {len(answer.scenario.placement.tensor_split)} cards"
        case WayKind.CARD:
            return ", on one of its cards"
    if place := own_place(answer):
        return f", all of it {place}"
    return ""


def own_place(answer: Answer) -> str:
    """Where the parts of the model that are not in RAM lie (``on the card``); empty if all is in RAM."""
    if any(part.is_beside_ram for part in answer.prediction.memory.parts):
        return answer.device.own_place
    return ""


def _drafts(answer: Answer) -> str:
    """What drafting gives, for the first line; empty where nobody asked."""
    if answer.speculation is None:
        return ""
    for case in answer.speculation.cases:
        if case.gamma:
            return f", and drafting helps if {_of_ten(case)} of 10 guesses are right"
    return ", and drafting does not help"


def _of_ten(case: SpeculationCase) -> int:
    return round(10 * case.acceptance_ratio)


def _rows(answer: Answer) -> list[str]:
    """The rows that have something to say: label in column 3, figure in column 13, the rest in column 28."""
    lines = []
    made = (
        _writes,
        _later,
        _battery,
        _together,
        _draft,
        _starts,
        _image,
        _memory,
        _format,
        _quality,
        _residents,
        _systems,
        _how,
    )
    for make in made:
        if row := make(answer):
            label, figure, rest = row
            start = f"  {label:<10}"
            if figure:
                start += f"{figure:<14} "
            wrapped = textwrap.wrap(rest, WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
            lines += wrapped or [start.rstrip()]
    return lines


def each(answer: Answer) -> Interval:
    """Decode speed of each user in tokens/s, after the prompt where that is longer than a page.

    An encoder writes nothing: it has the speed at which it reads.
    """
    users = answer.scenario.batch_count
    decode = answer.prediction.speed.decode_tokens_per_s
    if answer.by_depth and answer.scenario.prompt_tokens > _PAGE_TOKENS:
        decode = answer.by_depth[0].decode_tokens_per_s
    if answer.reads_only:
        decode = answer.prediction.speed.prefill_tokens_per_s
    return decode.through(lambda rate: rate / users)


def _evidence(answer: Answer) -> Evidence:
    """Who measured what its speed is predicted from."""
    speed = answer.prediction.speed
    if answer.reads_only:
        return speed.prefill_evidence
    return speed.decode_evidence


def _writes(answer: Answer) -> Row:
    label = "reads" if answer.reads_only else "writes"
    if _evidence(answer).is_unmeasured:
        return label, "not known", ""
    if answer.reads_only:
        return label, *_figured(answer.prediction.speed.prefill_tokens_per_s, "tokens/s", "")
    own = each(answer)
    if answer.measured is not None:
        said = f"measured; {two(own.mid)} was predicted, likely {_between(own, '')}"
        return label, f"{two(answer.measured.decode_tokens_per_s)} tokens/s", said
    more = _deep(answer)
    if answer.scenario.batch_count > 1:
        more = "; ".join(filter(None, ("for each", more)))
    return label, *_figured(own, "tokens/s", more or as_you_read(own))


def _deep(answer: Answer) -> str:
    """The speed with a fuller context, where it differs from the first."""
    asked = answer.question
    users = answer.scenario.batch_count
    if asked.context_tokens is not None or asked.prompt_tokens > _PAGE_TOKENS or asked.depth_tokens:
        for one in reversed(answer.by_depth):
            speed = one.decode_tokens_per_s.mid / users
            if speed < _SAME_RATIO * each(answer).mid:
                return f"{two(speed)} after {one.tokens:,} tokens"
    return ""


def _later(answer: Answer) -> Row | None:
    """The speed after the minutes that were asked for."""
    minutes = answer.question.minutes
    if minutes is None:
        return None
    if answer.sustained is None:
        why = "how much heat it can shed"
        if answer.scenario.batch_count > 1:
            why = "several users for so long"
        return "later", "not known", f"nobody has measured {why}"
    return "later", *_figured(answer.sustained.tokens_per_s, "tokens/s", f"after {minutes:g} minutes")


def _battery(answer: Answer) -> Row | None:
    """The share of a charge that the minutes take which were asked for."""
    minutes, late, energy = answer.question.minutes, answer.sustained, answer.energy
    if not (minutes and late and energy and energy.tokens_per_charge):
        return None
    percent = 6000 * minutes * late.tokens_per_s.mid
    share = energy.tokens_per_charge.through(lambda tokens: percent / tokens)
    return "battery", *_figured(share, "%", f"of a charge in {minutes:g} minutes")


def _image(answer: Answer) -> Row | None:
    """What a picture takes, of a model that was asked for as one that sees, or whose command leaves them out."""
    image = _document(answer, ReadingKind.IMAGE)
    said = ""
    if any(part.kind is PartKind.IMAGE_TOWER for part in answer.prediction.memory.parts):
        said = "for each picture"
    elif "--no-mmproj" in " ".join(answer.commands[:1]):
        said = "left out by --no-mmproj"
    return ("image", *_figured(image.seconds, "s", said)) if image and said else None


def _quality(answer: Answer) -> Row | None:
    """What a quantisation costs that was asked for, and costs twice as much as the usual one."""
    percents = answer.perplexity_percent
    own = percents.get(answer.quant, 0.0)
    if not answer.question.quant or own <= 2 * percents.get(USUAL_QUANT, own):
        return None
    usual = two(percents[USUAL_QUANT])
    return "quality", f"{two(own)} % worse", f"perplexity, as of Llama 3; {usual} % at {USUAL_QUANT}"


def _together(answer: Answer) -> Row | None:
    users = answer.scenario.batch_count
    if users == 1 or answer.reads_only:
        return None
    return "users", f"{two(each(answer).mid * users)} tokens/s", "for all of them together"


def _draft(answer: Answer) -> Row | None:
    plan = answer.speculation
    if plan is None:
        return None
    first = plan.cases[0]
    last = plan.cases[-1]
    helping = [case for case in plan.cases if case.gamma]
    if not helping:
        return "draft", "", "slower than without it, however well it guesses"
    drafted = answer.drafted_tokens_per_s
    assert drafted is not None
    said = f"with {_of_ten(first)} to {_of_ten(last)} of 10 guesses right"
    if answer.scenario.batch_count > 1:
        said += ", for all of them together"
    return "draft", *_figured(drafted, "tokens/s", said)


def _starts(answer: Answer) -> Row | None:
    speed = answer.prediction.speed
    first = speed.ttft_warm_s
    if speed.prefill_evidence.is_unmeasured:
        return "starts", "not known", ""
    if answer.reads_only:
        return "starts", *_figured(first, "s", f"for {answer.scenario.prompt_tokens} tokens")
    said = []
    if answer.scenario.batch_count > 1:
        said.append("if all ask at once")
    document = _document(answer)
    if document is not None and document.seconds.mid > 2 * first.mid:
        said.append(_after_pages(document))
    if answer.question.new_tokens > _PAGE_TOKENS:
        said.append(f"{seconds(answer.best.request_s)} to the end")
    if speed.load_cold_s.mid > _LONG_LOAD_S and not answer.best.kind.is_read:
        said.append(f"loads in {seconds(speed.load_cold_s.mid)}")
    if answer.measured is not None and answer.measured.first_token_s:
        return "starts", seconds(answer.measured.first_token_s), "; ".join(["measured", *said])
    return "starts", *_figured(first, "s", "; ".join(said))


def _after_pages(document: Reading) -> str:
    pages = max(round(document.tokens / _PAGE_TOKENS), 1)
    after = "after a page" if pages == 1 else f"after {pages} pages"
    if document.seconds.high > UNSURE_RATIO * document.seconds.low:
        return f"{after} unsure, {between_s(document.seconds)}"
    return f"{seconds(document.seconds.mid)} {after}"


def _memory(answer: Answer) -> Row:
    parts = answer.prediction.memory.parts
    needed = answer.prediction.verdict.needed_bytes
    available = answer.prediction.verdict.available_bytes
    left = available - needed
    words = ""
    if left >= 0 and (left < _TIGHT_BYTES or left < _TIGHT_RATIO * available):
        words = "tight"
    if place := own_place(answer):
        words = f"{place}{', ' * bool(words)}{words}"
        beside = sum(needed_bytes_of(parts, RAM))
        if beside > GIB:
            words += f"; another {two(beside / GIB)} GiB of RAM"
    if answer.scenario.batch_count > 1:
        words += f"{', ' * bool(words)}with {answer.context_each_tokens:,} tokens of context for each"
    if answer.measured is not None and answer.measured.peak_bytes:
        words = f"{sizes(answer.measured.peak_bytes)[0]} measured at its highest"
    elif left < 0:
        words = "the rest is read from storage"
    return "memory", of_sizes(needed, available), words


def _format(answer: Answer) -> Row | None:
    """The files of a format that is no GGUF, and what a GGUF file would need."""
    own = answer.own_format
    if own is None:
        return None
    programs = listed(own.programs, "or")
    size = f"{two(own.file_bytes / GB)} GB"
    more = f"{own.name}, for {programs}; a GGUF of it would need {two(own.gguf_bytes / GB)} (-q {own.gguf_quant})"
    return "files", size, more


def _residents(answer: Answer) -> Row | None:
    """Which of several models stay in memory together."""
    if not answer.residents:
        return None
    staying = [one.name for one in answer.residents if one.stays]
    leaving = ", ".join(
        f"{one.name} ({sizes(one.needed_bytes)[0]})" for one in answer.residents if not one.stays
    )
    if not leaving:
        count = "both" if len(staying) == 2 else f"all {len(staying)}"
        words = f"{count} models stay in memory together"
    elif len(staying) > 1:
        words = f"{' and '.join(staying)} stay in memory together; {leaving} is loaded in their place"
    else:
        words = f"no other has room beside it: {leaving} is loaded in its place"
    return "with", "", words


def _systems(answer: Answer) -> Row | None:
    """What the systems beside the model add, and how long their steps take."""
    if not answer.systems:
        return None
    added = sizes(sum(one.held_bytes for one in answer.systems))[0]
    said = []
    for one in answer.systems:
        steps = [
            f"{step} {'not known' if took_s is None else seconds(took_s)}"
            for step, took_s in one.steps_s.items()
        ]
        said.append(": ".join(filter(None, (one.name.removesuffix(" default"), ", ".join(steps)))))
    return "with", f"{added} more", "; ".join(said)


def _how(answer: Answer) -> Row | None:
    """What lies where, where it is not all in one place."""
    words = way_words(answer.best, answer.layer_count, answer.card_titles)
    return ("how", "", words) if words else None


def way_words(way: Way, layer_count: int, cards: Sequence[str] = ()) -> str:
    """What lies where by a way; empty where all is in one place."""
    placement = way.scenario.placement
    match way.kind:
        case WayKind.EXPERTS:
            words = f"the experts of {min(placement.cpu_moe, layer_count)} of its {layer_count} blocks stay in RAM"
        case WayKind.LAYERS:
            on_card = layer_count - placement.first_gpu_block(layer_count)
            words = f"{on_card} of its {layer_count} layers are on the card, the others in RAM"
        case WayKind.CPU:
            words = "by the CPU"
        case WayKind.CARDS:
            words = f"its layers are spread over {len(placement.tensor_split)} cards"
            if placement.split_mode != "layer":
                words = words.replace(
                    "its layers are spread", f"-sm {placement.split_mode}, each layer is split"
                )
        case WayKind.CARD:
            words = "on one card alone"
            if cards:
                words = f"on the {said_title(cards[way.card or 0])} alone"
        case WayKind.MAPPED:
            words = "its file is mapped; the CPU reads what has no room for each token"
        case WayKind.STREAMED:
            words = (
                f"{way.pinned_count} of its {layer_count} layers stay in memory; each token reads the others"
            )
        case WayKind.EXPERT_CACHE:
            words = _hits(way.hit_ratio or 0.0)
        case _:
            words = ""
    if way.card is not None and way.kind is not WayKind.CARD and cards:
        words += f", with the {said_title(cards[way.card])} alone"
    return words


def _hits(ratio: float) -> str:
    """How often the experts that are wanted are in memory."""
    of_100 = round(100 * ratio)
    if of_100 >= 100:
        return "nearly all experts stay in memory; the few that do not are read from storage"
    return f"{of_100} of 100 expert reads find it in memory, the rest go to storage"


def _other_way(answer: Answer) -> str:
    """The next best way, if it is another place and not clearly worse; nobody computed it after a long prompt."""
    if answer.scenario.prompt_tokens > _PAGE_TOKENS:
        return ""
    best = answer.best.prediction.speed.decode_tokens_per_s
    for way in answer.ways[1:]:
        decode = way.prediction.speed.decode_tokens_per_s
        is_other = way.kind is not answer.best.kind or way.scenario.placement.split_mode == "tensor"
        if not is_other or best.mid > _WORTH_RATIO * decode.mid:
            continue
        words = way_words(way, answer.layer_count, answer.card_titles)
        if decode.mid > best.mid:
            return f"Faster where the build can ({_speed_between(decode)}): {words}."
        return f"The next best way ({_speed_between(decode)}): {words}."
    return ""


def _taken_for_granted(answer: Answer) -> list[str]:
    """What was read into the names, then the shortest of that, ever fewer, with how many more there are."""
    notes = sorted((note.rstrip(".") for note in answer.notes), key=len)
    said = [f"Taken for granted: {'; '.join(notes)}"] * bool(notes)
    for left in range(1, len(notes) + 1):
        more = f"{left}{' more' * (left < len(notes))}: --details"
        said.append(f"Taken for granted: {'; '.join([*notes[:-left], more])}")
    return said


def basis_line(answer: Answer) -> str:
    """What the speed rests on, and what would settle it."""
    evidence = _evidence(answer)
    if answer.measured is not None:
        return "Other models' speeds here are fitted to what the engine showed here."
    if evidence.is_unmeasured:
        return "edge-harness check would measure it."
    counted = "one measurement" if evidence.count == 1 else f"{evidence.count} measurements"
    words = {
        Basis.TIMED: "Fitted to this machine's engine; edge-harness check measures this model.",
        Basis.TAUGHT: f"Fitted to {counted} on this device.",
        Basis.CHIP: f"Predicted from {counted} of this chip by others.",
        Basis.RELATIVES: f"Nearest chip measured: {said_title(evidence.nearest)}; edge-harness check measures this.",
        Basis.LAW: "No measurement is near: the law alone; edge-harness check measures it.",
    }
    return words[evidence.basis]


def _why_not(answer: Answer) -> str:
    """Why it does not run, and why the usual way out fails."""
    reasons = answer.prediction.verdict.reasons
    return f"{capital(reasons[-1]) if reasons else 'No way to run it was found'}."


def instead_line(answer: Answer) -> str:
    """What to do where the answer is no plain yes: a smaller quantisation that was tried and fits, or other models."""
    for advice in answer.advice:
        if advice.word == "fits" and advice.kind != "beside":
            return f"{capital(advice.change)}: then it fits, {two(advice.decode_tokens_per_s)} tokens/s."
    return f'What runs there: edge-harness recommend "{answer.question.device}"'


def several(answers: Sequence[Answer]) -> list[str]:
    """Several answers side by side: which is the fastest, then a column for each in the order asked for."""
    first = answers[0]
    many_models, many_devices = _varies(answers)
    heads = heads_of(answers)
    speeds = [_cell(each(one)) if one.runs else "no" for one in answers]
    memory = []
    for one in answers:
        verdict = one.prediction.verdict
        memory.append(of_sizes(verdict.needed_bytes, verdict.available_bytes))
    rows = {
        "": heads,
        f"{'reads' if first.reads_only else 'writes'}, tokens/s": speeds,
        "starts": [_cell_s(one.prediction.speed.ttft_warm_s if one.runs else None) for one in answers],
        "after pages": [_cell_s(_document_s(one)) for one in answers],
        "after minutes": _warm_cells(answers),
        "memory": memory,
    }
    widths = [max(map(len, column)) + 2 for column in zip(*rows.values(), strict=True)]
    lines = [*textwrap.wrap(winner(answers, heads), WIDTH), ""]
    left_out = 0
    if sum(widths) <= WIDTH - _LABEL_WIDTH:
        for label, cells in rows.items():
            if any(cells):
                line = "".join(f"{text:<{width}}" for text, width in zip(cells, widths, strict=True))
                lines.append(f"  {label:<{_LABEL_WIDTH - 2}}{line}".rstrip())
    else:
        lines.append(f"{'':<37}{'tokens/s':<18}{'starts':<9}memory")
        model = ""
        shown = _most_wanted(answers)
        left_out = len(answers) - len(shown)
        for at in shown:
            one = answers[at]
            name = heads[at]
            if many_models and many_devices:  # a model's devices stand below its name
                if not name.startswith(f"{model}, "):
                    model = f"{model_name(one)} {one.quant}"
                    lines.append(f"  {model}")
                name = f"  {name.removeprefix(f'{model}, ')}"
            if len(name) > 34:
                name = f"{name[:30]} ..."
            starts = seconds(one.prediction.speed.ttft_warm_s.mid) if one.runs else ""
            lines.append(f"  {name:<35}{speeds[at]:<18}{starts:<9}{memory[at]}")
    what = []
    if not many_models:
        what.append(f"{model_name(first)}, {first.quant}.")
    if not many_devices:
        what.append(f"On {device_name(first)}.")
    if left_out:
        what.append(f"{left_out} others are left out.")
    return [*lines, "", f"  {' '.join([*what, 'More: --json'])}"]


def _most_wanted(answers: Sequence[Answer]) -> list[int]:
    """Places of the answers that a first screen has room for: the fastest, or the slowest that are fast enough."""
    is_wished = answers[0].question.target_tokens_per_s is not None
    places = list(range(len(answers)))
    if len(places) > _MOST_SHOWN:
        wanted = [at for at in places if answers[at].is_wanted] or places
        wanted.sort(key=lambda at: each(answers[at]).mid, reverse=not is_wished)
        places = sorted(wanted[:_MOST_SHOWN])
    return places


def winner(answers: Sequence[Answer], names: Sequence[str]) -> str:
    """Which of several is the fastest, and by how much; or that they lie within each other's doubt."""
    running = [(each(one), name) for one, name in zip(answers, names, strict=True) if one.is_wanted]
    if not running:
        return "None of them runs."
    running.sort(key=lambda pair: -pair[0].mid)
    best, name = running[0]
    if len(running) == 1:
        wanted = " as wanted" if sum(one.runs for one in answers) > 1 else ""
        return f"Only {name} runs{wanted}."
    second, other = running[1]
    if best.low <= second.high:
        return f"{name} is likely the fastest, but {other} is within the doubt."
    return f"{name} is {two(best.mid / second.mid)} times as fast as {other}."


def _varies(answers: Sequence[Answer]) -> tuple[bool, bool]:
    """Whether several models, and whether several devices, were asked about."""
    models = {(one.model.name, one.quant) for one in answers}
    return len(models) > 1, len({one.device.name for one in answers}) > 1


def heads_of(answers: Sequence[Answer]) -> list[str]:
    """A name for each answer; the device as it was typed where titles would be the same."""
    many_models, many_devices = _varies(answers)
    titles = {one.device.title for one in answers}
    is_typed = len(titles) < len({one.question.device for one in answers})
    heads = []
    for one in answers:
        model = f"{model_name(one)} {one.quant}"
        device = one.question.device if is_typed else said_title(one.device.title)
        if not many_models:
            heads.append(device)
        else:
            heads.append(f"{model}, {device}" if many_devices else model)
    return heads


def _document(answer: Answer, kind: ReadingKind = ReadingKind.DOCUMENT) -> Reading | None:
    return next((one for one in answer.reading if one.kind is kind), None)


def _document_s(answer: Answer) -> Interval | None:
    document = _document(answer)
    return document.seconds if document and answer.runs else None


def _warm_cells(answers: Sequence[Answer]) -> list[str]:
    """Speeds after minutes, where one of them loses a twentieth."""
    cells = []
    loses = False
    for one in answers:
        cells.append("")
        if one.sustained is not None and one.runs:
            warm = one.sustained.tokens_per_s
            cells[-1] = _cell(warm)
            loses = loses or warm.mid < 0.95 * each(one).mid
    return cells if loses else [""] * len(cells)


def _cell(value: Interval) -> str:
    between = _between(value, "")
    if value.high > UNSURE_RATIO * value.low:
        return between
    return f"{two(value.mid)} ({between})"


def _cell_s(value: Interval | None) -> str:
    return f"{seconds(value.mid)} ({between_s(value)})" if value else ""


def _between(value: Interval, unit: str) -> str:
    """The two ends of an interval, with their unit."""
    if unit == "s":
        return between_s(value)
    return f"{two(value.low)} to {two(value.high)} {unit}".rstrip()


def _figured(value: Interval, unit: str, more: str) -> tuple[str, str]:
    """A figure and what is said of it: its interval, then ``more``."""
    is_time = unit == "s"
    if value.low <= 0 or value.high > UNKNOWN_RATIO * value.low:
        figure = "not known"
        said = f"{seconds(value.low)} or more" if is_time else "what others measured lies too far apart"
    elif value.high > UNSURE_RATIO * value.low:
        figure = "unsure"
        said = _between(value, unit)
    elif value.mid < 0.5 and unit == "tokens/s":
        slow = value.through(lambda rate: 1 / rate)
        figure = f"{seconds(slow.mid)} a token"
        said = f"likely {between_s(slow)}"
    else:
        figure = seconds(value.mid) if is_time else f"{two(value.mid)} {unit}"
        said = f"likely {_between(value, 's' if is_time else '')}"
    return figure, "; ".join(filter(None, (said, more)))


def _speed_between(value: Interval) -> str:
    """A speed in a sentence."""
    figure, said = _figured(value, "tokens/s", "")
    if figure == "unsure":
        return f"unsure, {said}"
    return figure


def as_you_read(value: Interval) -> str:
    """A speed beside that of a person who reads."""
    if value.high > UNSURE_RATIO * value.low:
        return ""
    if value.low > 1.5 * READ_TOKENS_PER_S:
        times = value.mid / READ_TOKENS_PER_S
        if times < 100:
            return f"{times:.0f} times as fast as you read"
        return ""
    if value.high > 0.7 * READ_TOKENS_PER_S:
        return "about as fast as you read"
    return "slower than you read"


def two(value: float) -> str:
    """A number with two significant digits."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.2g}")
    if rounded >= 10:
        return f"{rounded:,.0f}"
    if rounded >= 1:
        return f"{rounded:.1f}"
    if rounded >= 0.01:
        return f"{rounded:.2g}"
    return f"{rounded:.1e}"


def seconds(value: float) -> str:
    """A time as people say it: 0.3 s, 2.4 s, 40 s, 3 min, 2 h."""
    amount, unit = _in_unit(value)
    return f"{amount} {unit}"


def between_s(value: Interval) -> str:
    """The two ends of a time, with the unit once where it is one."""
    (low, low_unit) = _in_unit(value.low)
    (high, high_unit) = _in_unit(value.high)
    if low_unit == high_unit:
        return f"{low} to {high} {high_unit}"
    return f"{low} {low_unit} to {high} {high_unit}"


def _in_unit(value: float) -> tuple[str, str]:
    if value < 0.095:
        return f"{max(value, 0.01):.2f}", "s"
    if value < 9.5:
        return f"{value:.1f}".removesuffix(".0"), "s"
    if value < 99.5:
        return f"{float(f'{value:.2g}'):.0f}", "s"
    if value < 99.5 * 60:
        return f"{float(f'{value / 60:.2g}'):g}", "min"
    return f"{float(f'{value / 3600:.2g}'):g}", "h"


def of_sizes(needed: float, available: float) -> str:
    """``5.3 of 11 GiB``."""
    first, second = sizes(needed, available)
    return f"{first.rpartition(' ')[0]} of {second}"


def sizes(*amounts: float) -> list[str]:
    """Amounts of memory in one unit, that of the largest."""
    unit, word = (GIB, "GiB") if max(amounts) >= GIB else (MIB, "MiB")
    return [f"{two(amount / unit)} {word}" for amount in amounts]


def model_name(answer: Answer) -> str:
    """The model as people say it, and what stands for one that nobody here knows by itself."""
    title = re.sub(r"\s+(Instruct|Chat|Thinking)\b", "", answer.model.title)
    if answer.model.asked_name:
        return f"{answer.model.asked_name} (read as {title})"
    return title


def device_name(answer: Answer) -> str:
    """The device with its article."""
    title = said_title(answer.device.title)
    if answer.question.device in {"this", "here", ""}:
        return "this machine"
    if title[:1].isdigit():
        return title
    vowel = re.match(r"[AEFHILMNORSX](?=[A-Z0-9])|[AEIOaeio](?!ne)", title)
    return f"{'an' if vowel else 'a'} {title}"


def said_title(title: str) -> str:
    """A device's title without what nobody says."""
    return re.sub(r"\b(NVIDIA|GeForce|Desktop with) ", "", title)


def capital(text: str) -> str:
    """A sentence with a capital to begin with."""
    return text[:1].upper() + text[1:]
