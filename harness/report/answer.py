"""An answer in words: the first screen of `fit`, of one model on one device or of several side by side.

The verdict, a row for each figure, the command, the doubt: at most fourteen lines of eighty columns.
"""

import re
import textwrap
from collections.abc import Sequence
from typing import Final

from harness.app.answer import USUAL_QUANT, Answer, DepthSpeed, Reading, ReadingKind
from harness.domain.prediction import Basis, Evidence, Interval, PartKind
from harness.domain.way import Way, WayKind
from harness.predict.verdict import needed_bytes_of
from harness.units import GIB, MIB

WIDTH: Final = 78
MOST_LINES: Final = 14
MOST_WORDS: Final = 110
"""Of a first screen, the command aside."""
_FEW_WORDS: Final = 8
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


def first_screen(
    answer: Answer, more: Sequence[str] = (), instead: str = "", says: Sequence[str] = ()
) -> list[str]:
    """The whole first screen of one answer.

    ``more`` are the options that would add something; ``instead`` what to do where it is not a plain yes;
    ``says`` what was asked beside it.
    """
    lines = textwrap.wrap(sentence(answer), WIDTH)
    if not answer.runs:
        lines += ["", *(f"  {line}" for line in _why_not(answer)), ""]
        said = [*says, instead or instead_line(answer)]
        return [*lines, *(f"  {line}" for one in said for line in textwrap.wrap(one, WIDTH - 2))]
    lines += ["", *_rows(answer), ""]
    if answer.commands:
        lines += [f"  {answer.commands[0]}", ""]
    said = [*says]
    if answer.prediction.verdict.word != "fits":
        said.append(instead or instead_line(answer))
    basis = textwrap.wrap(basis_line(answer), WIDTH - 2, break_on_hyphens=False)
    last = [*basis, f"More: {'  '.join(more)}"] if more else basis
    lines += [f"  {line}" for one in said for line in textwrap.wrap(one, WIDTH - 2)]
    for told in (_other_way(answer), _taken_for_granted(answer)):
        words = sum(len(line.split()) for line in (*lines, *last) if line.strip() not in answer.commands)
        room = min(MOST_LINES - len(lines) - len(last), 2)
        if told and room > 0 and words + _FEW_WORDS <= MOST_WORDS:
            kept = " ".join(told.split()[: MOST_WORDS - words - 1])
            if len(kept) < len(told):
                kept += " ..."
            wrapped = textwrap.wrap(kept, WIDTH - 2, max_lines=room, placeholder=" ...")
            lines += [f"  {line}" for line in wrapped]
    return [*lines, *(f"  {line}" for line in last)]


def sentence(answer: Answer) -> str:
    """The verdict as a sentence."""
    model = model_name(answer)
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
    return said


def _yes(answer: Answer) -> str:
    if _is_barely(answer):
        return "Barely"
    if not answer.reads_only and each(answer).mid < _SLOW_TOKENS_PER_S:
        return "Yes, slowly"
    return "Yes"


def _where(answer: Answer) -> str:
    kind = answer.best.kind
    if kind is WayKind.CPU:
        return ", by the CPU"
    if kind in {WayKind.LAYERS, WayKind.EXPERTS}:
        return ", shared between card and RAM"
    if kind is WayKind.CARDS:
        return f", on {len(answer.scenario.placement.tensor_split)} cards"
    if kind is WayKind.CARD:
        return ", on one of its cards"
    on_card = any(part.pool == "vram" for part in answer.prediction.memory.parts)
    if on_card:
        return ", all of it on the card"
    return ""


def _is_barely(answer: Answer) -> bool:
    """Whether one run in five needs more than there is, or misses the speed that is wanted."""
    wanted = answer.question.target_tokens_per_s
    misses = wanted is not None and each(answer).low < wanted
    return misses or (answer.best.kind.is_whole and not answer.best.has_room)


def _drafts(answer: Answer) -> str:
    """What drafting gives, for the first line; empty where nobody asked."""
    if answer.speculation is None:
        return ""
    gains = [case for case in answer.speculation.cases if case.gamma]
    if not gains:
        return ", and drafting does not help"
    return f", and drafting helps if {round(10 * gains[0].acceptance_ratio)} of 10 guesses are right"


def _rows(answer: Answer) -> list[str]:
    made = (_writes, _later, _battery, _together, _draft, _starts, _image, _memory, _quality)
    rows = [row for row in (make(answer) for make in made) if row]
    if answer.residents:
        rows.append(("with", "", _together_words(answer)))
    if how := how_words(answer):
        rows.append(("how", "", how))
    return [line for label, figure, rest in rows for line in _row(label, figure, rest)]


def _row(label: str, figure: str, rest: str) -> list[str]:
    """One row: label in column 3, figure in column 13, the rest in column 28."""
    start = f"  {label:<10}"
    if figure:
        start += f"{figure:<14} "
    wrapped = textwrap.wrap(rest, WIDTH - len(start)) or [""]
    return [(start + wrapped[0]).rstrip(), *(" " * len(start) + line for line in wrapped[1:])]


def each(answer: Answer) -> Interval:
    """Decode speed of each user, tokens/s; after the prompt where that is longer than a page.

    An encoder's is that at which it reads.
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


def _writes(answer: Answer) -> tuple[str, str, str] | None:
    if _evidence(answer).is_unmeasured:
        return ("reads" if answer.reads_only else "writes"), "not known", ""
    if answer.reads_only:
        read = answer.prediction.speed.prefill_tokens_per_s
        return "reads", *_figured(read, "tokens/s", "")
    own = each(answer)
    deep = _deep(answer)
    if answer.measured is not None:
        said = f"measured; {two(own.mid)} was predicted, likely {two(own.low)} to {two(own.high)}"
        return "writes", f"{two(answer.measured.decode_tokens_per_s)} tokens/s", said
    more = deep
    if answer.scenario.batch_count > 1:
        more = f"for each{'; ' * bool(deep)}{deep}"
    elif not deep:
        more = as_you_read(own)
    return "writes", *_figured(own, "tokens/s", more)


def _deep(answer: Answer) -> str:
    """The speed with a fuller context, where it differs from the first."""
    users = answer.scenario.batch_count
    own = each(answer).mid * users
    slower = [one for one in answer.by_depth if one.decode_tokens_per_s.mid < _SAME_RATIO * own]
    asked = answer.question
    if not slower or (
        asked.context_tokens is None and asked.prompt_tokens <= _PAGE_TOKENS and not asked.depth_tokens
    ):
        return ""
    last: DepthSpeed = slower[-1]
    return f"{two(last.decode_tokens_per_s.mid / users)} after {last.tokens:,} tokens"


def _later(answer: Answer) -> tuple[str, str, str] | None:
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


def _battery(answer: Answer) -> tuple[str, str, str] | None:
    """The share of a charge that the minutes take which were asked for."""
    minutes, late, energy = answer.question.minutes, answer.sustained, answer.energy
    if not (minutes and late and energy and energy.tokens_per_charge):
        return None
    written = 60 * minutes * late.tokens_per_s.mid
    share = energy.tokens_per_charge.through(lambda tokens: 100 * written / tokens)
    return "battery", *_figured(share, "%", f"of a charge in {minutes:g} minutes")


def _image(answer: Answer) -> tuple[str, str, str] | None:
    """What a picture takes, of a model that was asked for as one that sees, or whose command leaves them out."""
    image = next((one for one in answer.reading if one.kind is ReadingKind.IMAGE), None)
    asked = any(part.kind is PartKind.IMAGE_TOWER for part in answer.prediction.memory.parts)
    left_out = "--no-mmproj" in " ".join(answer.commands[:1])
    if image is None or not (asked or left_out):
        return None
    said = "for each picture"
    if left_out:
        said = "left out by --no-mmproj"
    return "image", *_figured(image.seconds, "s", said)


def _quality(answer: Answer) -> tuple[str, str, str] | None:
    """What a quantisation costs that was asked for, and costs twice as much as the usual one."""
    percents = answer.perplexity_percent
    own = percents.get(answer.quant, 0.0)
    if not answer.question.quant or own <= 2 * percents.get(USUAL_QUANT, own):
        return None
    usual = two(percents[USUAL_QUANT])
    return "quality", f"{two(own)} % worse", f"perplexity, as of Llama 3; {usual} % at {USUAL_QUANT}"


def _together(answer: Answer) -> tuple[str, str, str] | None:
    if answer.scenario.batch_count == 1 or answer.reads_only:
        return None
    decode = each(answer).mid * answer.scenario.batch_count
    return "users", f"{two(decode)} tokens/s", "for all of them together"


def _draft(answer: Answer) -> tuple[str, str, str] | None:
    plan = answer.speculation
    if plan is None:
        return None
    speeds = [plan.plain_tokens_per_s * case.speedup for case in plan.cases if case.gamma]
    if not speeds:
        return "draft", "", "slower than without it, however well it guesses"
    first = plan.cases[0]
    last = plan.cases[-1]
    between = f"{round(10 * first.acceptance_ratio)} to {round(10 * last.acceptance_ratio)}"
    said = f"tokens/s if {between} of 10 guesses are right"
    if answer.scenario.batch_count > 1:
        said += ", for all of them together"
    if first.gamma:
        low = plan.plain_tokens_per_s * first.speedup
    else:
        low = plan.plain_tokens_per_s
    return "draft", f"{two(low)} to {two(speeds[-1])}", said


def _starts(answer: Answer) -> tuple[str, str, str] | None:
    speed = answer.prediction.speed
    first = speed.ttft_warm_s
    if speed.prefill_evidence.is_unmeasured:
        return "starts", "not known", ""
    if answer.reads_only:
        return "starts", *_figured(first, "s", f"for {answer.scenario.prompt_tokens} tokens")
    said = []
    if answer.scenario.batch_count > 1:
        said.append("if all ask at once")
    document = next((one for one in answer.reading if one.kind is ReadingKind.DOCUMENT), None)
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
    pages = round(document.tokens / _PAGE_TOKENS)
    after = "after a page"
    if pages > 1:
        after = f"after {pages} pages"
    if document.seconds.high > UNSURE_RATIO * document.seconds.low:
        return f"{after} unsure, {between_s(document.seconds)}"
    return f"{seconds(document.seconds.mid)} {after}"


def _memory(answer: Answer) -> tuple[str, str, str] | None:
    now = answer.prediction
    verdict = now.verdict
    on_card = any(part.pool == "vram" for part in now.memory.parts)
    if on_card:
        said = ["on the card"]
    else:
        said = []
    left = verdict.available_bytes - verdict.needed_bytes
    if left >= 0 and (left < _TIGHT_BYTES or left < _TIGHT_RATIO * verdict.available_bytes):
        said.append("tight")
    words = ", ".join(said)
    if on_card:
        beside = sum(needed_bytes_of(now.memory.parts, "ram"))
    else:
        beside = 0
    if beside > GIB:
        words += f"; another {two(beside / GIB)} GiB of RAM"
    if answer.scenario.batch_count > 1:
        words += f"{', ' * bool(words)}with {answer.context_each_tokens:,} tokens of context for each"
    if answer.measured is not None and answer.measured.peak_bytes:
        words = f"{sizes(answer.measured.peak_bytes)[0]} measured at its highest"
    elif left < 0:
        words = "the rest is read from storage"
    return "memory", of_sizes(verdict.needed_bytes, verdict.available_bytes), words


def _together_words(answer: Answer) -> str:
    """Which of several models stay in memory together."""
    staying = [one for one in answer.residents if one.stays]
    leaving = [f"{one.name} ({sizes(one.needed_bytes)[0]})" for one in answer.residents if not one.stays]
    if not leaving:
        word = "both" if len(staying) == 2 else f"all {len(staying)}"
        return f"{word} models stay in memory together"
    if len(staying) > 1:
        kept = " and ".join(one.name for one in staying)
        return f"{kept} stay in memory together; {', '.join(leaving)} is loaded in their place"
    return f"no other has room beside it: {', '.join(leaving)} is loaded in its place"


def how_words(answer: Answer) -> str:
    """What lies where, where it is not all in one place."""
    return way_words(answer.best, answer.layer_count, answer.card_titles)


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
                words = words.replace("its layers are spread", "each layer is split")
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
        if way.kind is answer.best.kind or best.mid > _WORTH_RATIO * decode.mid:
            continue
        words = way_words(way, answer.layer_count, answer.card_titles)
        return f"The next best way ({_speed_between(decode)}): {words}."
    return ""


def _taken_for_granted(answer: Answer) -> str:
    """What was read into the names."""
    if not answer.notes:
        return ""
    return f"Taken for granted: {'; '.join(note.rstrip('.') for note in answer.notes)}"


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


def _why_not(answer: Answer) -> list[str]:
    """Why it does not run, and why the usual way out fails."""
    reasons = answer.prediction.verdict.reasons
    text = "No way to run it was found"
    if reasons:
        text = capital(reasons[-1])
    return textwrap.wrap(f"{text}.", WIDTH - 2)


def instead_line(answer: Answer) -> str:
    """What to do where the answer is no plain yes: a smaller quantisation that was tried and fits, or other models."""
    for advice in answer.advice:
        if advice.word == "fits" and advice.kind != "beside":
            return f"{capital(advice.change)}: then it fits, {two(advice.decode_tokens_per_s)} tokens/s."
    return f'What runs there: edge-harness recommend "{answer.question.device}"'


def several(answers: Sequence[Answer]) -> list[str]:
    """Several answers side by side: which is the fastest, then a column for each in the order asked for."""
    many_models = len({(one.model.name, one.quant) for one in answers}) > 1
    many_devices = len({one.device.name for one in answers}) > 1
    heads = _heads(answers, many_models=many_models, many_devices=many_devices)
    verb = "reads" if answers[0].reads_only else "writes"
    rows = [
        (f"{verb}, tokens/s", [_cell(each(one)) if one.runs else "no" for one in answers]),
        ("starts", [_cell_s(one.prediction.speed.ttft_warm_s) if one.runs else "" for one in answers]),
        ("after pages", [_document_cell(one) for one in answers]),
        ("after minutes", _warm_cells(answers)),
        (
            "memory",
            [
                of_sizes(one.prediction.verdict.needed_bytes, one.prediction.verdict.available_bytes)
                for one in answers
            ],
        ),
    ]
    lines = textwrap.wrap(winner(answers, heads), WIDTH)
    shown = [(label, cells) for label, cells in rows if any(cells)]
    widths = [max(len(head), *(len(cells[at]) for _, cells in shown)) + 2 for at, head in enumerate(heads)]
    lines.append("")
    shown_at = list(range(len(answers)))
    if sum(widths) <= WIDTH - _LABEL_WIDTH:
        for label, cells in [("", heads), *shown]:
            line = "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
            lines.append(f"  {label:<{_LABEL_WIDTH - 2}}{line}".rstrip())
    else:
        lines.append(f"{'':<37}{'tokens/s':<18}{'starts':<9}memory")
        model = ""
        shown_at = _most_wanted(answers)
        for at in shown_at:
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
            lines.append(f"  {name:<35}{rows[0][1][at]:<18}{starts:<9}{rows[-1][1][at]}")
    first = answers[0]
    if many_models:
        what = []
    else:
        what = [f"{model_name(first)}, {first.quant}."]
    if many_devices:
        what += []
    else:
        what += [f"On {device_name(first)}."]
    left_out = len(answers) - len(shown_at)
    if left_out:
        what += [f"{left_out} others are left out."]
    return [*lines, "", f"  {' '.join([*what, 'More: --json'])}"]


def _most_wanted(answers: Sequence[Answer]) -> list[int]:
    """Places of the answers that a first screen has room for: the fastest, or the slowest that are fast enough."""
    is_wished = answers[0].question.target_tokens_per_s is not None
    wanted = [at for at, one in enumerate(answers) if one.is_wanted] or list(range(len(answers)))
    if len(answers) <= _MOST_SHOWN:
        return list(range(len(answers)))
    wanted.sort(key=lambda at: each(answers[at]).mid, reverse=not is_wished)
    return sorted(wanted[:_MOST_SHOWN])


def winner(answers: Sequence[Answer], names: Sequence[str]) -> str:
    """Which of several is the fastest, and by how much; or that they lie within each other's doubt."""
    running = [(each(one), name) for one, name in zip(answers, names, strict=True) if one.is_wanted]
    if not running:
        return "None of them runs."
    ordered = sorted(running, key=lambda pair: -pair[0].mid)
    best, name = ordered[0]
    if len(ordered) == 1:
        return f"Only {name} runs{' as wanted' if any(one.runs and not one.is_wanted for one in answers) else ''}."
    second, other = ordered[1]
    if best.low <= second.high:
        return f"{name} is likely the fastest, but {other} is within the doubt."
    ratio = best.mid / second.mid
    return f"{name} is {two(ratio)} times as fast as {other}."


def _heads(answers: Sequence[Answer], *, many_models: bool, many_devices: bool) -> list[str]:
    """A name for each answer; the device as it was typed where titles would be the same."""
    titles = {one.device.title for one in answers}
    is_typed = len(titles) < len({one.question.device for one in answers})
    heads = []
    for one in answers:
        parts = []
        if many_models:
            parts.append(f"{model_name(one)} {one.quant}")
        if many_devices or not many_models:
            parts.append(one.question.device if is_typed else said_title(one.device.title))
        heads.append(", ".join(parts))
    return heads


def _document_cell(answer: Answer) -> str:
    document = next((one for one in answer.reading if one.kind is ReadingKind.DOCUMENT), None)
    if document is not None and answer.runs:
        return _cell_s(document.seconds)
    return ""


def _warm_cells(answers: Sequence[Answer]) -> list[str]:
    """Speeds after minutes, where one of them loses a twentieth."""
    warm = [one.sustained.tokens_per_s if one.sustained and one.runs else None for one in answers]
    pairs = zip(answers, warm, strict=True)
    loses = any(after is not None and after.mid < 0.95 * each(one).mid for one, after in pairs)
    return [_cell(after) if after is not None and loses else "" for after in warm]


def _cell(value: Interval) -> str:
    if value.high > UNSURE_RATIO * value.low:
        return _between(value, "")
    return f"{two(value.mid)} ({_between(value, '')})"


def _cell_s(value: Interval) -> str:
    return f"{seconds(value.mid)} ({between_s(value)})"


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
