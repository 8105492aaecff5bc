"""Which model for a task on a device: published quality, among what fits and is fast enough by the answers of ``fit``.

Scores stand in one table with their scales. Models are ranked within one scale and never across: those that
have a score of an older scale alone come after, and those without any are named by how often they are
fetched.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Final, Literal, NamedTuple

from harness.answer.advice import perplexity_growth_percent
from harness.answer.answer import answered, ready
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
_OLD_MONTHS: Final = 6
_MIXTURES: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K", "IQ2_XXS")
_SPLIT_MIXTURE: Final = "Q4_K_M"
"""What is split or streamed where no mixture fits whole."""
_MOST_GROWTH_PERCENT: Final = 30.0
"""Growth of perplexity above which no mixture is recommended: the model's score says nothing of what is left."""


class Choice(Frozen):
    """One model in one mixture on the device, by the answer that ``fit`` gives.

    Attributes:
        scale: Column of the scale that ``score`` is of; empty for a model without a score.
        score: As published, at full precision; None without one.
        rank_score: The score lowered by the growth of perplexity by the mixture: no table tells scores by
            mixture, so this is assumed. Experts that a model was trained with in four bits lose nothing.
        tokens_per_s: To write, after the minutes asked for; of a model that reads alone, to read.
        downloads: How often its files are fetched; 0 where nobody told.
        has_room: Whether four runs of five find room for it.
        is_front: No other choice of its scale has both a better rank and more speed.
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
    needed_bytes: int
    downloads: int
    command: str = ""
    has_room: bool = True
    is_front: bool = False


class Ranking(Frozen):
    """What is recommended.

    Attributes:
        device: Title of the device.
        winner: The best that lies whole in memory, and not barely; of what is read from storage none.
        choices: On the first scale of the task that any of them has, best first; then those on the next.
        left_out: Why each other model with a score is none of them.
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
    """What all models are asked, and the bytes that the device has for one."""

    device: str
    profile: Device
    asked: Asked
    room_bytes: float


def recommend(device: str, task: Task, asked: Asked, instead_of: str = "") -> Ranking:
    """Models with the best mixture of each that fits and is fast enough, best first.

    With ``instead_of`` (another device) those alone that it does not run, or not whole.

    Raises:
        UnknownNameError: No such device.
    """
    if task == "long" and asked.context_tokens is None:
        asked = asked.replace(context_tokens=LONG_TOKENS)
    profile = resolve_device(device)
    pool = profile.pool(profile.engine().pool)
    case = _RankingRequest(device, profile, asked, pool.usable_bytes.value * profile.card_count)
    choices = list[Choice]()
    left_out = dict[str, str]()
    for row, scale in _candidates(task):
        found = _best_of(row["model"], case)
        if isinstance(found, str):
            left_out[row["model"]] = found
        else:
            choices.append(_ranked(found, row, scale, float(row[scale.column])))
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


def _best_of(name: str, case: _RankingRequest) -> Choice | str:
    """The mixture that loses least, fits whole with room to spare and is fast enough; else another way, or why not."""
    usual = resolve_model(name)
    quants: tuple[str, ...] = _MIXTURES
    last = _SPLIT_MIXTURE
    if _is_native(usual):
        last = usual.card.default_quant if usual.card else usual.quant
        quants = (last,)
    least_tokens_per_s = case.asked.target_tokens_per_s or 0.0
    slow = ""
    barely: Choice | None = None
    for quant in quants:
        least_bytes = usual.weights.resident.weight_count * BLOCKS[BASE_TYPE[quant]].bits_per_weight / 8
        if quant != usual.quant and least_bytes > case.room_bytes:  # told without its tensors
            continue
        model = resolve_model(name, quant)
        if model.weights.resident.file_bytes > case.room_bytes:
            continue
        choice = _asked(model, name, quant, case)
        if choice is None or not choice.kind.is_whole:
            continue
        growth = choice.perplexity_percent
        if growth is not None and growth > _MOST_GROWTH_PERCENT:
            return barely or f"what fits of it loses too much: {quant}, {growth:.0f} % more perplexity"
        if choice.tokens_per_s.mid < least_tokens_per_s:
            slow = f"too slow: {choice.tokens_per_s.mid:.3g} tokens/s"
        elif choice.has_room:
            return choice
        else:
            barely = barely or choice
    if barely or slow:
        return barely or slow
    choice = _asked(resolve_model(name, last), name, last, case)
    if choice is None:
        return "it does not fit"
    if choice.tokens_per_s.mid < least_tokens_per_s:
        return f"too slow: {choice.tokens_per_s.mid:.3g} tokens/s"
    return choice


def _asked(model: Model, name: str, quant: str, case: _RankingRequest) -> Choice | None:
    """What ``fit`` answers; None where it refuses the question, or nothing runs."""
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
        needed_bytes=found.prediction.verdict.needed_bytes,
        downloads=0,
        has_room=found.best.has_room,
        command=next(iter(found.commands), ""),
    )


def _ranked(choice: Choice, row: dict[str, str], scale: Scale, score: float) -> Choice:
    rank = round(score * (1 - (choice.perplexity_percent or 0.0) / 100), 2)
    downloads = int(row["downloads"] or 0)
    return choice.replace(scale=scale.column, score=score, rank_score=rank, downloads=downloads)


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
    """Choices by scale and rank, downloads deciding between equals, each with whether it is on the front."""
    for column in [*columns, ""]:
        fastest = 0.0
        alike = [choice for choice in choices if choice.scale == column]
        for choice in sorted(alike, key=lambda choice: (-choice.rank_score, -choice.downloads)):
            yield choice.replace(is_front=choice.tokens_per_s.mid > fastest)
            fastest = max(fastest, choice.tokens_per_s.mid)


def _winner(choices: Sequence[Choice]) -> Choice | None:
    """The first that is whole in memory with room to spare; else whole, else what is not read from storage."""
    whole = [choice for choice in choices if choice.kind.is_whole]
    roomy = [choice for choice in whole if choice.has_room and choice.scale == whole[0].scale]
    others = [choice for choice in choices if not choice.kind.is_read]
    return next(iter(roomy or whole or others), None)
