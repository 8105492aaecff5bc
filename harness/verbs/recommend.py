"""Rank models for a task on a device by one value: published quality against the time of a full answer.

Every figure is an answer of ``fit``. The value of a model in a mixture is::

    score x (1 - perplexity growth) / (1 + answer_s / patience_s) x room_chance

``answer_s`` is the time to read the prompt and to write the answer that are usual for the task, at the slow
ends of both speeds, so that a speed that is little known counts less. ``patience_s`` is the time after which an
answer is worth half. Scores stand in one table with their scales,
and models are ranked within one scale: those with a score of an older scale alone come after, and those
without any are named by how often they are fetched.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import date
from statistics import NormalDist
from typing import Final, Literal, NamedTuple

from harness.answer.advice import perplexity_growth_percent
from harness.answer.answer import Answer, answered, ready
from harness.answer.resolve import THIS_MACHINE, Model, resolve_device, resolve_model
from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.errors import HarnessError, UnknownNameError
from harness.core.prediction import Interval
from harness.core.question import Asked, Question
from harness.core.tables import Row, shipped_rows
from harness.core.way import WayKind
from harness.models.architecture import has
from harness.models.cards import load_card, model_names
from harness.models.ggml import BLOCKS
from harness.models.quant_mix import BASE_TYPE

Task = Literal["chat", "code", "agents", "vision", "embedding", "long", "reasoning"]


def read_scores() -> list[Row]:
    """``data/scores.csv``: the month of each column, which `python -m bench scores` writes, and a row a model.

    Raises:
        BadDataError: A model that stands twice, or a cell that is neither a number nor a month.
    """
    path = "data/scores.csv"
    columns = dict.fromkeys([*shipped_rows(path)[0]][1:], _score)
    return shipped_rows(path, columns=columns, unique=("model",))


def _score(cell: str) -> str:
    return "" if re.fullmatch(r"(\d+(\.\d+)?)?|20\d\d-[01]\d", cell) else "a number, a month, or nothing"


_MONTHS, *_ROWS = read_scores()


class Scale(NamedTuple):
    """A benchmark: the column of the table, and what people call it."""

    column: str
    title: str

    @property
    def month(self) -> str:
        """Of its scores."""
        return _MONTHS[self.column]

    @property
    def is_old(self) -> bool:
        """Whether its scores are more than half a year old."""
        year, month = map(int, self.month.split("-"))
        today = date.today()
        return 12 * (today.year - year) + today.month - month > _OLD_MONTHS


_INDEX: Final = Scale("intelligence", "Artificial Analysis Intelligence Index")
_MMLU: Final = Scale("mmlu_pro", "MMLU-Pro")
SCALES: Final[dict[Task, tuple[Scale, ...]]] = {
    "chat": (_INDEX, _MMLU),
    "code": (Scale("coding", "Artificial Analysis Coding Index"), Scale("humaneval", "HumanEval")),
    "agents": (Scale("agentic", "Artificial Analysis Agentic Index"),),
    "vision": (Scale("mmmu_pro", "MMMU-Pro"), Scale("mmmu", "MMMU")),
    "embedding": (),
    "long": (_INDEX, _MMLU),
    "reasoning": (_INDEX, _MMLU),
}
"""Scales of a task, the one that counts first."""
LONG_TOKENS: Final = 32_768
"""Context of the task of reading long texts, where nobody asks for another."""


class TaskTurn(NamedTuple):
    """A usual exchange of a task, and how long people wait for it.

    Attributes:
        prompt_tokens: What is read before the first new token.
        new_tokens: What is written, thinking included.
        patience_s: The time after which the answer is worth half.
    """

    prompt_tokens: int
    new_tokens: int
    patience_s: float


TURNS: Final[dict[Task, TaskTurn]] = {
    "chat": TaskTurn(500, 400, 30.0),
    "code": TaskTurn(4000, 1000, 60.0),
    "agents": TaskTurn(6000, 400, 30.0),
    "vision": TaskTurn(1500, 300, 30.0),
    "embedding": TaskTurn(500, 0, 30.0),
    "long": TaskTurn(30_000, 500, 120.0),
    "reasoning": TaskTurn(500, 6000, 180.0),
}
_OLD_MONTHS: Final = 6
_MIXTURES: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K", "IQ2_XXS")
_USUAL: Final = _MIXTURES.index("Q4_K_M")
"""Where the search for a mixture begins: most models are worth most near it."""
_MOST_GROWTH_PERCENT: Final = 30.0
"""Growth of perplexity above which no mixture is recommended: the model's score says nothing of what is left."""


class Choice(Frozen):
    """One model in one mixture on the device, by the answer that ``fit`` gives.

    Attributes:
        scale: Column of the scale that ``score`` is of; empty for a model without a score.
        score: As published, at full precision; None without one.
        rank_score: The score lowered by the growth of perplexity by the mixture: no table has scores by
            mixture, so this is assumed. Experts that a model was trained with in four bits lose nothing.
        tokens_per_s: To write, after the minutes asked for; of a model that only reads, to read.
        answer_s: To read the task's prompt and to write its answer, at the slow ends of both intervals.
        room_chance: Share of runs that find the memory they need, 0 to 1; 1 of a model read from storage.
        value: What choices are ranked by; the formula heads this module.
        downloads: How often its files are fetched; 0 where this is not known.
        has_room: Whether four runs of five find room for it.
        is_front: No other choice of its scale has both better quality and more speed.
    """

    model: str
    title: str
    quant: str
    kind: WayKind
    scale: str
    score: float | None
    perplexity_percent: float | None
    rank_score: float
    tokens_per_s: Interval
    answer_s: float
    room_chance: float
    needed_bytes: int
    downloads: int
    value: float = 0.0
    command: str = ""
    has_room: bool = True
    is_front: bool = False


class Ranking(Frozen):
    """The answer of ``recommend``.

    Attributes:
        device: Title of the device.
        winner: The choice of most value on the first scale that any choice has, with room to spare where any
            has; nothing of its scale has both better quality and more speed.
        choices: Those on the first scale of the task, the most value first; then those on the next scale.
        left_out: Why each other model with a score is not among the choices.
        unscored: Titles of models that run whole and have no score for the task, the most fetched first.
        scores_are_old: Whether those of the first scale are more than half a year old.
    """

    device: str
    task: Task
    winner: Choice | None
    choices: tuple[Choice, ...]
    left_out: dict[str, str]
    unscored: tuple[str, ...]
    scores_are_old: bool


class _RankingRequest(NamedTuple):
    """The question that each model is asked, the usual exchange of its task, and the memory of the device."""

    device: str
    profile: Device
    asked: Asked
    turn: TaskTurn
    memory_bytes: float


def recommend(device: str, task: Task, asked: Asked, instead_of: str = "") -> Ranking:
    """Rank models, each in its mixture of most value among those that run fast enough.

    With ``instead_of``, another device, only models that it does not run whole.

    Raises:
        UnknownNameError: No such device.
    """
    if task == "long" and asked.context_tokens is None:
        asked = asked.replace(context_tokens=LONG_TOKENS)
    profile = resolve_device(device)
    card = profile.pool(profile.engine().pool)
    memory_bytes = card.usable_bytes.value * profile.card_count
    if card is not profile.ram:
        memory_bytes += profile.ram.usable_bytes.value
    case = _RankingRequest(device, profile, asked, TURNS[task], memory_bytes)
    choices = list[Choice]()
    left_out = dict[str, str]()
    for row, scale in _candidates(task):
        found = _best_of(row["model"], float(row[scale.column]), case)
        if isinstance(found, str):
            left_out[row["model"]] = found
        else:
            choices.append(found.replace(scale=scale.column, downloads=int(row["downloads"] or 0)))
    unscored = _unscored(task, case)
    if instead_of:
        before = recommend(instead_of, task, asked)
        unscored = [choice for choice in unscored if choice.title not in before.unscored]
        for choice in before.choices:
            if choice.kind.is_whole:
                left_out[choice.model] = f"{instead_of} runs it too"
    if task == "embedding":
        choices, unscored = unscored, []
    new = [choice for choice in choices if choice.model not in left_out]
    listed = tuple(_with_front(new, [scale.column for scale in SCALES[task]]))
    old = [scale.column for scale in SCALES[task] if scale.is_old]
    return Ranking(
        device=profile.title,
        task=task,
        winner=_winner(listed),
        choices=listed,
        left_out=left_out,
        unscored=tuple(choice.title for choice in unscored),
        scores_are_old=any(choice.scale in old for choice in listed[:1]),
    )


def _candidates(task: Task) -> Iterator[tuple[dict[str, str], Scale]]:
    """Rows of the table with the first scale of the task that they have a score of."""
    for row in _ROWS:
        for scale in SCALES[task]:
            if row[scale.column]:
                yield row, scale
                break


def _best_of(name: str, score: float, case: _RankingRequest) -> Choice | str:
    """The mixture of most value that is fast enough; else why there is none.

    The search goes from the usual mixture to larger ones while the value rises, and to smaller ones until the
    model lies whole in memory and the value falls: a smaller one may lie whole where a larger one is split.
    """
    usual = resolve_model(name)
    if _is_native(usual):
        return _valued(name, usual.card.default_quant if usual.card else usual.quant, score, case)
    best = _valued(name, _MIXTURES[_USUAL], score, case)
    is_usual_whole = not isinstance(best, str) and best.kind.is_whole and best.has_room
    if is_usual_whole:
        for quant in reversed(_MIXTURES[:_USUAL]):
            larger = _valued(name, quant, score, case)
            if isinstance(larger, str) or _worth(larger) <= _worth(best):
                break
            best = larger
    if isinstance(best, str) or best.quant == _MIXTURES[_USUAL]:
        for quant in _MIXTURES[_USUAL + 1 :]:
            bits = BLOCKS[BASE_TYPE[quant]].bits_per_weight
            if usual.weights.weight_count * bits / 8 > case.memory_bytes:
                continue  # read from storage in any mixture: the usual one stands for it
            smaller = _valued(name, quant, score, case)
            if not isinstance(smaller, str) and _worth(smaller) > _worth(best):
                best = smaller
            elif _is_settled(smaller):
                break
    return best


def _is_settled(smaller: Choice | str) -> bool:
    """Whether still smaller mixtures are worth less too: this one is whole already, or loses too much."""
    if isinstance(smaller, str):
        return smaller.startswith(_LOSES)
    return smaller.kind.is_whole and smaller.has_room


_LOSES: Final = "what fits of it loses too much"


def _worth(found: Choice | str) -> tuple[bool, float]:
    """The value for comparison: what barely fits is worth less than anything that has room."""
    return (False, 0.0) if isinstance(found, str) else (found.has_room, found.value)


def _valued(name: str, quant: str, score: float, case: _RankingRequest) -> Choice | str:
    """A model in a mixture with its value; else why it is no choice."""
    choice = _asked(resolve_model(name, quant), name, quant, case)
    if choice is None:
        return "it does not fit"
    growth = choice.perplexity_percent or 0.0
    if growth > _MOST_GROWTH_PERCENT:
        return f"{_LOSES}: {quant}, {growth:.0f} % more perplexity"
    if choice.tokens_per_s.mid < (case.asked.target_tokens_per_s or 0.0):
        return f"too slow: {choice.tokens_per_s.mid:.3g} tokens/s"
    rank = round(score * (1 - growth / 100), 2)
    value = rank / (1 + choice.answer_s / case.turn.patience_s) * choice.room_chance
    return choice.replace(score=score, rank_score=rank, value=value)


def _asked(model: Model, name: str, quant: str, case: _RankingRequest) -> Choice | None:
    """The answer of ``fit`` as a choice; None where it refuses the question, or nothing runs."""
    fields = {field: getattr(case.asked, field) for field in Asked.__struct_fields__}
    fields |= {"quant": quant, "target_tokens_per_s": None}
    question = Question(model=name, device=case.device, **fields)
    # This machine is another one with each scenario: what was timed with its threads.
    profile = None if case.device in THIS_MACHINE else case.profile
    try:
        found = answered(question, ready(question, model, profile))
    except UnknownNameError:  # of the device, the api or a type of the cache: no model's own fault
        raise
    except HarnessError:
        return None
    if not found.runs:
        return None
    rate = found.prediction.speed.decode_tokens_per_s
    if found.reads_only:
        rate = found.prediction.speed.prefill_tokens_per_s
    elif found.question.minutes and found.sustained:
        rate = found.sustained.tokens_per_s
    growth = 0.0 if _is_native(model) else perplexity_growth_percent(model.quant, model.weights.weight_count)
    return Choice(
        model=name,
        title=name if found.model.asked_name else found.model.title,
        quant=found.quant,
        kind=found.best.kind,
        scale="",
        score=None,
        perplexity_percent=growth,
        rank_score=0.0,
        tokens_per_s=rate,
        answer_s=_answer_s(found, rate, case.turn),
        room_chance=_room_chance(found),
        needed_bytes=found.prediction.verdict.needed_bytes,
        downloads=0,
        has_room=found.best.has_room,
        command=next(iter(found.commands), ""),
    )


def _answer_s(found: Answer, rate: Interval, turn: TaskTurn) -> float:
    reading_s = turn.prompt_tokens / found.prediction.speed.prefill_tokens_per_s.low
    return reading_s + turn.new_tokens / rate.low


def _room_chance(found: Answer) -> float:
    """Share of runs whose peak has room, by a normal distribution over the 90 % interval of the peak."""
    if found.best.kind.is_read:
        return 1.0
    verdict, peak = found.prediction.verdict, found.prediction.memory.peak_bytes
    deviation = max((peak.high - peak.low) / (2 * NormalDist().inv_cdf(0.95)), 1.0)
    return NormalDist(verdict.needed_bytes, deviation).cdf(verdict.available_bytes)


def _is_native(model: Model) -> bool:
    """Whether its experts were trained in four bits, so that no mixture gives or takes much."""
    shape = model.weights.shape
    if shape.experts is None:
        return False
    return bool(shape.experts.native_type) or has(shape.architecture, "four_bit_experts")


def _unscored(task: Task, case: _RankingRequest) -> list[Choice]:
    """Models without a score for the task that run whole: the most fetched first, then the largest.

    For embedding all that write nothing; for another task those alone that somebody fetches.
    """
    scored = [row["model"] for row, _ in _candidates(task)]
    downloads = {
        row["model"].lower(): int(row["downloads"] or 0) for row in _ROWS if row["model"] not in scored
    }
    found = list[Choice]()
    for name in model_names():
        fetched = downloads.get(name, 0)
        reads = load_card(name).purpose == "reads"
        if reads == (task == "embedding") and (reads or fetched):
            choice = _asked(resolve_model(name), name, "", case)
            if choice is not None and choice.kind.is_whole:
                found.append(choice.replace(downloads=fetched, perplexity_percent=None))
    return sorted(found, key=lambda choice: (-choice.downloads, -choice.needed_bytes))


def _with_front(choices: Sequence[Choice], columns: Sequence[str]) -> Iterator[Choice]:
    """Choices by scale and value, downloads deciding between equals, each with whether it is on the front."""
    for column in [*columns, ""]:
        alike = [choice for choice in choices if choice.scale == column]
        for choice in sorted(alike, key=lambda choice: (-choice.value, -choice.downloads)):
            yield choice.replace(is_front=not any(_beats(other, choice) for other in alike))


def _beats(one: Choice, other: Choice) -> bool:
    """Whether one has no less quality and speed than the other, and more of one of them."""
    mine = one.rank_score, one.tokens_per_s.mid
    its = other.rank_score, other.tokens_per_s.mid
    return mine != its and mine[0] >= its[0] and mine[1] >= its[1]


def _winner(choices: Sequence[Choice]) -> Choice | None:
    """The most value of the first scale among those that nothing beats, before all with room to spare."""
    front = [choice for choice in choices if choice.is_front and choice.scale == choices[0].scale]
    return min(front, key=lambda choice: (not choice.has_room, -choice.value), default=None)
