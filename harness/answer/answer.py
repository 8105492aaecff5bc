"""The one door: a question in, an answer out. Every verb, page, gate and program asks here."""

from bisect import bisect_left
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from harness.answer.advice import Advice, perplexity_growth_percent
from harness.answer.case import Case, case_of
from harness.answer.commands import commands_of, way_flags
from harness.answer.measured import MeasuredHere, measured_here
from harness.answer.own_format import OwnFormat, told
from harness.answer.plans import SpeculationPlan, plan_speculation
from harness.answer.resolve import Model, resolve_device, resolve_model
from harness.answer.ways import advice_for, image_s, longest_context, outlook, timing_notes, ways
from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.errors import HarnessError, InputError, RefusedError
from harness.core.option import Option
from harness.core.placement import Placement
from harness.core.prediction import Interval, Prediction
from harness.core.question import MOST_USERS, Asked, Question
from harness.core.scenario import Scenario
from harness.core.way import Way
from harness.speed.energy import Energy, Sustained
from harness.speed.estimate import predict_speed

PAGE_TOKENS: Final = 650
"""Of a page of English text, 500 words."""
USUAL_QUANT: Final = "Q4_K_M"
_PAGES: Final = 20
"""Of a document that is asked about where no prompt is; fewer where the context holds no more."""
TURN_TOKENS: Final = 64
"""Of the next thing that a user says."""
_USUAL_MINUTES: Final = 10.0
WANTED: Final = frozenset({"fits", "fits with streaming"})
"""Verdicts of what runs, and as fast as was wanted."""


class ReadingKind(StrEnum):
    """What is read before the first token comes."""

    DOCUMENT = "document"
    TURN = "turn"
    IMAGE = "image"


class Reading(Frozen, kw_only=False):
    """How long one user waits for the first token after something long.

    Attributes:
        tokens: New ones, those of an image among them.
        seconds: Until the first token.
    """

    kind: ReadingKind
    tokens: int
    seconds: Interval


class DepthSpeed(Frozen, kw_only=False):
    """Decode speed with so many tokens in the context, of all users together."""

    tokens: int
    decode_tokens_per_s: Interval


class Subject(Frozen, kw_only=False):
    """A model or a device as it was understood.

    Attributes:
        name: The identifier, by which it can be asked for again.
        title: As people say it.
        asked_name: As it was typed, where a card of another version stands for it.
        own_place: Of a device whose engine has memory of its own, where that is (``on the card``); else empty.
    """

    name: str
    title: str
    asked_name: str = ""
    own_place: str = ""


class Resident(Frozen):
    """One of several models.

    Attributes:
        needed_bytes: What it takes in the pool that is fullest, alone.
        stays: Whether it has room beside the ones before it; else it is loaded in place of others.
        command: What starts it, as it was placed.
    """

    name: str
    quant: str
    needed_bytes: int
    stays: bool
    command: str


class SystemBeside(Frozen):
    """A system that runs beside the model.

    Attributes:
        held_bytes: Memory that it adds.
        steps_s: Seconds of each kind of its steps; None for a step that nothing predicts.
    """

    name: str
    held_bytes: int
    steps_s: dict[str, float | None] = {}


class Answer(Frozen):
    """All that is said of one model on one device.

    Attributes:
        model: What was understood; ``quant`` is its quantisation, ``is_guess`` says that nobody here knows
            the model.
        reads_only: Whether it is an encoder, which writes nothing.
        scenario: What was asked, as the best way runs it.
        prediction: Memory, speed and verdict of the best way.
        ways: All that run, the fastest to write first; of what does not run the one that lacks least.
        by_depth: The same after the prompt, in half of the context and in all of it.
        reading: What a document, the next turn and an image take.
        sustained: Speed after minutes; None where nobody knows the device's heat.
        energy: Of a token; None where nobody stated the power.
        residents: The model and those named beside it, and which of them stay in memory together; empty for
            one.
        systems: Systems named beside the model, with what each adds.
        speculation: What drafting gives, where it was asked for.
        advice: What would make it fit, or faster.
        measured: A run of the same file here, with the same engine, threads and context; None without one.
        commands: What to type, first that of the program that was asked about.
        context_each_tokens: Context of each user.
        layer_count: Blocks of the model.
        card_titles: Graphics cards of a rig, in their order; empty for one or none.
        needs_entitlement: Whether an app that asks the system for more memory could run it.
        own_format: The format of its weights, where they are no GGUF file.
        perplexity_percent: By how much the quantisation and the usual one raise perplexity, as published.
        notes: What was read into the names and taken for granted.
    """

    question: Question
    model: Subject
    quant: str
    device: Subject
    scenario: Scenario
    prediction: Prediction
    ways: tuple[Way, ...]
    by_depth: tuple[DepthSpeed, ...]
    reading: tuple[Reading, ...]
    sustained: Sustained | None
    energy: Energy | None
    speculation: SpeculationPlan | None
    measured: MeasuredHere | None
    residents: tuple[Resident, ...]
    commands: tuple[str, ...]
    context_each_tokens: int
    advice: tuple[Advice, ...] = ()
    layer_count: int = 0
    card_titles: tuple[str, ...] = ()
    needs_entitlement: bool = False
    is_guess: bool = False
    reads_only: bool = False
    perplexity_percent: dict[str, float] = {}
    systems: tuple[SystemBeside, ...] = ()
    own_format: OwnFormat | None = None
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Way:
        """The first way."""
        return self.ways[0]

    @property
    def runs(self) -> bool:
        """Whether it runs at all, fast enough or not."""
        return self.best.runs

    @property
    def drafted_tokens_per_s(self) -> Interval | None:
        """Decode speed with the draft: the undrafted interval, times what drafting gives at worst and at best.

        Never surer than the undrafted one. None without a draft.
        """
        if self.speculation is None:
            return None
        decode = self.prediction.speed.decode_tokens_per_s
        speedups = [case.speedup if case.gamma else 1.0 for case in self.speculation.cases]
        middle = speedups[len(speedups) // 2]
        return Interval(
            mid=decode.mid * middle, low=decode.low * min(speedups), high=decode.high * max(speedups)
        )

    @property
    def is_wanted(self) -> bool:
        """Whether it runs, and as fast as was wanted."""
        return self.prediction.verdict.word in WANTED


def answer(question: Question, *, advises: bool = True, takes_idle: bool = False) -> Answer:
    """What a model does on a device; with what would help where it does not lie whole in memory, fast enough.

    ``takes_idle``: an option that changes nothing is no mistake, since a measured speed is asked about.

    Raises:
        UnknownNameError: No such model, device, quantisation, program, api or system.
        RefusedError: What is asked for cannot be had together, or one of the options would change nothing.
        InputError: A value that contradicts another.
        BadDataError: A file breaks its format.
    """
    model = resolve_model(question.model, question.quant or None)
    case = ready(question, model, resolve_device(question.device))
    found = answered(question, case)
    if not takes_idle:
        _refuse_idle(question, found)
    is_well = found.best.kind.is_whole and found.prediction.verdict.word == "fits"
    if found.reads_only or is_well or not advises or model.format is not None:
        return found
    return found.replace(advice=tuple(advice_for(case, found.best)))


def ready(question: Question, model: Model | None = None, device: Device | None = None) -> Case:
    """The case of a question, its longest context found where that is wanted (errors as :func:`answer`).

    A ``model`` and a ``device`` are given where many questions are asked of one.
    """
    model = model or resolve_model(question.model, question.quant or None)
    if question.users == "max":
        question = question.replace(users=_most_users(question, model, device))
    case = case_of(question, model, device)
    if not case.is_longest:
        return case
    return case.at(context_tokens=longest_context(case))


def _most_users(question: Question, model: Model, device: Device | None) -> int:
    """The most users that are served at once: all have room in memory, and each is as fast as is wanted."""

    def is_too_many(users: int) -> bool:
        try:
            best = ways(case_of(question.replace(users=users), model, device))[0]
        except InputError:  # the context that was asked for has no room for so many
            return True
        return not best.has_room or best.prediction.verdict.word not in WANTED

    return max(bisect_left(range(1, MOST_USERS + 1), True, key=is_too_many), 1)


def answered(question: Question, case: Case) -> Answer:
    """The answer to a case (RefusedError: as :func:`harness.answer.ways.ways`)."""
    asked = case
    if case.others:
        case = staying_together(case)
    listed = [way.replace(flags=way_flags(case, way)) for way in ways(case)]
    best = listed[0]
    own = _of_way(case, best)
    now = best.prediction
    model = case.model
    depths = tuple(_depths(own, best))
    if depths:
        decode = depths[0].decode_tokens_per_s
    else:
        decode = now.speed.decode_tokens_per_s
    sustained, energy = outlook(own, decode, case.minutes or _USUAL_MINUTES)
    drafter = case.draft or case.head
    speculation = None
    if drafter and best.runs:
        speculation = plan_speculation(own, drafter)
    title = model.name
    # A model that sees has the card of its language model.
    if model.card and (model.tower is None or model.tower.model in {"", model.card.name}):
        title = model.card.title
    return Answer(
        question=question,
        model=Subject(model.name, title, model.asked_name),
        quant=model.shown[1],
        device=Subject(case.device.name, case.device.title, own_place=case.device.own_place),
        scenario=best.scenario,
        prediction=now,
        ways=tuple(listed),
        by_depth=depths,
        reading=tuple(_reading(own, best)),
        sustained=None if model.reads_only else sustained,
        energy=energy,
        speculation=speculation,
        measured=measured_here(case, best) if case.here else None,
        residents=residents(asked, case),
        systems=tuple(
            SystemBeside(
                name=one.name,
                held_bytes=one.anonymous_bytes + one.file_bytes,
                steps_s=one.steps(case.device, best.scenario),
            )
            for one in case.beside
        ),
        commands=commands_of(case, best),
        context_each_tokens=best.scenario.context_tokens // best.scenario.batch_count,
        layer_count=model.weights.shape.layer_count,
        card_titles=tuple(card.title for card in case.device.cards),
        needs_entitlement=_needs_entitlement(case, best),
        is_guess=model.guess is not None,
        reads_only=model.reads_only,
        perplexity_percent=_perplexity(case),
        own_format=told(model),
        notes=tuple(dict.fromkeys(_notes(own))),
    )


def _perplexity(case: Case) -> dict[str, float]:
    """Published growth of perplexity, in percent, by the quantisation and by the one that most people take."""
    count = case.model.weights.weight_count
    growth = {quant: perplexity_growth_percent(quant, count) for quant in (case.model.quant, USUAL_QUANT)}
    return {quant: percent for quant, percent in growth.items() if percent is not None}


def _notes(case: Case) -> Iterator[str]:
    """What is to be known of the answer, most important first."""
    each = case.scenario.context_tokens // case.scenario.batch_count
    most = case.model.weights.shape.context_max_tokens
    if 0 < most < each:
        yield f"a context of {each:,} tokens is longer than the {most:,} it was made for"
    yield from case.assumed
    yield from case.device.readings
    if case.device.learned:
        yield f"speed was learnt from measurements of this device, kept in {case.device.learned}"
    if case.here:
        yield from timing_notes(case)


def _needs_entitlement(case: Case, way: Way) -> bool:
    """Whether the higher limit that the system offers would be enough where the usual one is not."""
    more = case.device.ram.entitled_bytes
    if way.runs or more is None or case.entitled:
        return False
    return way.prediction.verdict.needed_bytes <= more.value


def staying_together(case: Case) -> Case:
    """The case with those of the other models that stay where all before them and they have room together.

    The model that was asked about comes first: none of it is moved for another one.
    """
    kind = ways(case._replace(others=()))[0].kind
    staying = list[Model]()
    for other in case.others:
        together = ways(case._replace(others=(*staying, other)))[0]
        if together.runs and together.has_room and together.kind is kind:
            staying.append(other)
    return case._replace(others=tuple(staying))


def residents(case: Case, staying: Case) -> tuple[Resident, ...]:
    """The model that was asked about and the others, in the order asked for; empty where it is alone.

    ``staying`` is the same case with all of them in memory, as :func:`staying_together` returns it.
    """
    if not case.others:
        return ()
    alone = case._replace(others=())
    found = [_resident(alone, ways(staying)[0], stays=True)]
    for other in case.others:
        mine = alone._replace(model=other, draft=None, head="")
        found.append(_resident(mine, ways(mine)[0], stays=other in staying.others))
    return tuple(found)


def _resident(case: Case, way: Way, *, stays: bool) -> Resident:
    commands = commands_of(case, way)
    name, quant = case.model.shown
    return Resident(
        name=name,
        quant=quant,
        needed_bytes=way.prediction.verdict.needed_bytes,
        stays=stays,
        command=commands[0] if commands else "",
    )


def best_case(found: Answer) -> Case:
    """The case of an answer, as its best way runs it (errors as :func:`answer`)."""
    question = found.question
    return _of_way(ready(question), found.best)


def _of_way(case: Case, way: Way) -> Case:
    """The case as one of its ways runs it, on the one card that it takes of several."""
    if way.card is None:
        device = case.device
    else:
        device = case.device.cards[way.card]
    return case._replace(device=device, scenario=way.scenario)


def _depths(case: Case, way: Way) -> Iterator[DepthSpeed]:
    """Decode speed after the prompt, in half of the context and in all of it.

    Nothing is yielded where reads from storage take so long that they hide the cost of the cache.
    """
    if way.kind.is_read:
        return
    scenario = case.scenario
    each = scenario.context_tokens // scenario.batch_count
    prompt = scenario.depth_tokens + scenario.prompt_tokens
    room = each - scenario.new_tokens
    listed = [prompt, *(depth for depth in (each // 2, room) if prompt < depth <= room)]
    for depth in dict.fromkeys(listed):
        speed = predict_speed(case.model.weights, case.device, scenario.replace(depth_tokens=depth))
        yield DepthSpeed(depth, speed.decode_tokens_per_s)


def _reading(case: Case, way: Way) -> Iterator[Reading]:
    """Times to read a document of some pages (or the prompt if that is longer), the turn after it, and an image.

    The image is left out if the model has no vision encoder.
    """
    if not way.runs:
        return
    scenario = case.scenario
    read = way.prediction.speed.prefill_tokens_per_s
    tokens = scenario.prompt_tokens
    if tokens <= PAGE_TOKENS:
        room = scenario.context_tokens // scenario.batch_count - scenario.new_tokens - TURN_TOKENS
        tokens = PAGE_TOKENS * min(_PAGES, room // PAGE_TOKENS)

    if tokens >= PAGE_TOKENS and way.kind.is_read:
        yield Reading(ReadingKind.DOCUMENT, tokens, read.through(lambda rate: tokens / rate))
    elif tokens >= PAGE_TOKENS:
        turn = ReadingKind.TURN, tokens, TURN_TOKENS
        for kind, depth, prompt in ((ReadingKind.DOCUMENT, 0, tokens), turn):
            alone = scenario.replace(depth_tokens=depth, prompt_tokens=prompt, batch_count=1)
            speed = predict_speed(case.model.weights, case.device, alone)
            yield Reading(kind, prompt, speed.ttft_warm_s)
    if case.model.tower is not None:
        seconds = image_s(case.model, scenario, read)
        if seconds is not None:
            yield Reading(ReadingKind.IMAGE, case.model.tower.image_tokens, seconds)


def flag_of(field: str) -> str:
    """The option by which a field of a question is typed."""
    option = next(part for part in Asked.__annotations__[field].__metadata__ if isinstance(part, Option))
    return option.flags.split()[0]


def _refuse_idle(question: Question, found: Answer) -> None:
    """Refuse an option that changes nothing here, so that nobody takes the answer for one that heeds it.

    A placement is compared with none of the layers on the GPU as well, and a number of threads with the usual
    one and another.

    Raises:
        RefusedError: One changes nothing.
    """
    usual = Asked()
    for field in Asked.__struct_fields__:
        if getattr(question, field) == getattr(usual, field):
            continue
        if found.reads_only and field in _WRITING:
            raise RefusedError(f"{flag_of(field)}: {found.model.title} is an encoder, which writes nothing")
        for part, others in _alternatives(question, field):
            if all(_says_the_same(other, found) for other in others):
                what = f"{found.model.title} {found.quant} on {found.device.title}".replace("  ", " ")
                if field == "thread_count":
                    what += "; `edge-harness tune` measures what it changes"
                raise RefusedError(f"{flag_of(field)}{part} changes nothing in what is predicted of {what}")


def _alternatives(question: Question, field: str) -> Iterator[tuple[str, list[Question]]]:
    """Questions that differ in an option, or in each part of a placement, which could have another answer."""
    value = getattr(question, field)
    if field == "placement":
        for part in Placement.__struct_fields__:
            usual = getattr(Placement(), part)
            if getattr(value, part) != usual:
                if part == "gpu_layers":
                    others = [usual, 0]
                else:
                    others = [usual]
                tried = [question.replace(placement=value.replace(**{part: other})) for other in others]
                yield f": {part.replace('_', ' ')}", tried
    elif field == "thread_count":
        yield "", [question.replace(thread_count=other) for other in (0, value - 1 or 2)]
    elif field == "without":
        for part in value:
            yield f" {part}", [question.replace(without=tuple(one for one in value if one != part))]
    elif field not in _ALWAYS_SAID:
        default = getattr(Asked(), field)
        if str(value).upper() != str(default).upper():
            yield "", [question.replace(**{field: default})]


_ALWAYS_SAID: Final = frozenset({"context_tokens", "quant", "api", "program", "target_tokens_per_s"})
"""Fields that the answer repeats: typing what holds anyway is no mistake."""


_WRITING: Final = frozenset({"new_tokens", "draft", "target_tokens_per_s", "minutes"})


def _says_the_same(question: Question, found: Answer) -> bool:
    """Whether another question has the same answer; no where it has none."""
    try:
        return _figures(answered(question, ready(question))) == _figures(found)
    except HarnessError:
        return False


def _figures(found: Answer) -> tuple[object, ...]:
    """All that an answer says in figures."""
    return (
        [way.prediction for way in found.ways],
        found.by_depth,
        found.reading,
        found.sustained,
        found.energy,
        found.speculation,
        found.residents,
        found.systems,
    )
