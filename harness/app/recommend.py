"""Which model for a task on a device: ranked by published quality, among those that fit and are fast enough."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

from harness.app.case import Case
from harness.app.placed import memory_in, outlook, verdict_of
from harness.app.resolve import ResolvedModel, resolve_model
from harness.app.ways import ways
from harness.catalog.models import model_names
from harness.domain.base import Frozen, shipped_table
from harness.domain.device import DeviceProfile
from harness.domain.record import RunRecord
from harness.domain.scenario import Scenario
from harness.domain.way import Way
from harness.errors import RefusedError
from harness.predict.quality import perplexity_growth_percent
from harness.records.ladder import measured_growth_percent
from harness.units import format_number

Task = Literal["chat", "code", "reasoning", "vision"]
TASKS: Final[tuple[Task, ...]] = get_args(Task)

_MIXTURES: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K", "IQ2_XXS")
_MOST_GROWTH_PERCENT: Final = 30.0
"""Growth of perplexity above which no mixture is recommended: the model's score says nothing of what is left."""
_SPLIT_MIXTURE: Final = "Q4_K_M"
"""What is split or streamed where no mixture fits whole."""
_SAME_POINTS: Final = 1.0
"""Scores that differ by less are the same: makers' prompts differ by more."""


class Choice(Frozen):
    """One model in one mixture on the device, its decode speed that after the minutes and at the depth asked for.

    ``score`` is the published one of the task's benchmark, at full precision; ``rank_score`` is lowered by the growth
    of perplexity by the mixture (None where unpublished): no table tells task scores by mixture, so this is assumed.
    ``how`` says what lies where if it does not lie whole on the usual engine; ``is_front``: no other
    choice has both a better rank and more speed.
    """

    model: str
    quant: str
    how: str = ""
    score: float
    perplexity_percent: float | None
    rank_score: float
    tokens_per_s: float
    needed_bytes: int
    source: str
    is_front: bool = False


class Ranking(Frozen):
    """Choices, best first, why each other model that is known here is none of them, and what starts the first one."""

    choices: tuple[Choice, ...]
    left_out: dict[str, str]
    commands: tuple[str, ...] = ()


_TABLE: Final = shipped_table("data/quality.toml")


def benchmark(task: Task) -> str:
    """Name of the benchmark that stands for a task."""
    return str(_TABLE["benchmarks"][task])


def _growth(model: ResolvedModel, ladders: Sequence[RunRecord]) -> tuple[float | None, str]:
    """By how many percent the mixture raises perplexity, and what tells so where it is no published table."""
    count = model.weights.weight_count
    growth = measured_growth_percent(ladders, model.weights.shape.architecture, count, model.quant)
    if growth is None:
        return perplexity_growth_percent(model.quant, count), ""
    return growth, "; what its mixture costs: a ladder here of a model of this shape"


def _speed(case: Case, way: Way, minutes: float) -> float:
    """Tokens/s after so many minutes, or in the first seconds where nobody asks or knows."""
    speed = way.prediction.speed.decode_tokens_per_s
    if minutes:
        late = outlook(case, speed, minutes)[0]
        if late:
            speed = late.tokens_per_s
    return float(speed.mid)


def recommend(
    device: DeviceProfile,
    task: Task,
    scenario: Scenario,
    *,
    min_tokens_per_s: float = 0.0,
    minutes: float = 0.0,
    quality_of: str = "",
    records: Iterable[RunRecord] = (),
) -> Ranking:
    """Models with the best mixture of each that fits and is fast enough (for ``minutes``), best first.

    What a mixture costs is what ladders among the ``records`` (newest first) measured of a model of that shape, or
    else a published table. Where nobody knows what the device keeps after minutes, its first seconds count. With
    ``quality_of`` those alone whose published score is at most a point below that model's.

    Raises:
        RefusedError: Nobody published a score of that model for this task.
    """
    scores = _TABLE["scores"]
    least = 0.0
    best = []
    ladders = list(records)
    if quality_of:
        wanted = resolve_model(quality_of).name
        if task not in scores.get(wanted, {}):
            known = ", ".join(sorted(scores))
            raise RefusedError(f"no published {benchmark(task)} of {wanted} is known here; known: {known}")
        least = scores[wanted][task] - _SAME_POINTS
    left_out = dict.fromkeys(model_names(), f"no published {benchmark(task)} is known here")
    for name, row in scores.items():
        if task not in row:
            continue
        if row[task] < least:
            left_out[name] = f"its {benchmark(task)} is below that of {quality_of}"
            continue
        left_out[name] = "it does not fit"
        reached = 0.0
        for quant in (*_MIXTURES, ""):  # the first that will do loses the least; else whatever way there is
            model = resolve_model(name, quant or _SPLIT_MIXTURE)
            # Memory alone tells what one card or none has no room for, sooner than all of its ways.
            is_one = device.card_count < 2
            case = Case.of(model, device, scenario)
            if quant and is_one and verdict_of(case, memory_in(case)).word != "fits":
                continue
            way = ways(case)[0]
            now = way.prediction
            speed = _speed(case, way, minutes)
            if not way.runs or (quant and not way.kind.is_whole):
                continue
            growth, told = _growth(model, ladders)
            if growth is not None and growth > _MOST_GROWTH_PERCENT:
                left_out[name] = f"what fits of it loses too much: {model.quant}, {growth:.0f} % more perplexity"
                continue
            reached = max(reached, speed)
            if speed < min_tokens_per_s:
                left_out[name] = f"too slow: {format_number(reached)} tokens/s"
                continue
            del left_out[name]
            choice = Choice(
                model=name,
                quant=model.quant,
                how="" if way.kind.is_whole else str(way.kind),
                score=row[task],
                perplexity_percent=growth,
                rank_score=round(row[task] * (1 - (growth or 0.0) / 100), 2),
                tokens_per_s=speed,
                needed_bytes=now.verdict.needed_bytes,
                source=f"{benchmark(task)}: {_TABLE['sources'][row['source']]}{told}",
            )
            best.append(choice)
            break
    fastest = 0.0
    listed = []
    for choice in sorted(best, key=lambda choice: -choice.rank_score):
        listed.append(choice.replace(is_front=choice.tokens_per_s > fastest))
        fastest = max(fastest, choice.tokens_per_s)
    return Ranking(choices=tuple(listed), left_out=left_out)
