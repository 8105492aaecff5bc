"""Which model for a task on a device: ranked by published quality, among those that fit and are fast enough."""

from functools import lru_cache
from typing import Final, Literal, get_args

from msgspec.structs import replace

from harness.app.fit import outlook, predict
from harness.app.resolve import resolve_device, resolve_model
from harness.app.ways import Way, ways
from harness.domain.base import Frozen, shipped_table
from harness.domain.device import DeviceProfile
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.predict.quality import perplexity_growth_percent
from harness.predict.speculative import expected_tokens_per_cycle

Task = Literal["chat", "code", "reasoning", "vision"]
TASKS: Final[tuple[Task, ...]] = get_args(Task)

_MIXTURES: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K", "IQ2_XXS")
_SPLIT_MIXTURE: Final = "Q4_K_M"
"""What is split or streamed where no mixture fits whole."""
_SMALLER: Final = ("IQ4_XS", "Q3_K_M", "IQ3_XXS")
"""Tried in turn where Q4_K_M does not fit."""
_SAME_POINTS: Final = 1.0
"""Scores that differ by less are the same: makers' prompts differ by more."""
_VERIFIER: Final = "h100-sxm-server"
_ROUND_TRIP_S: Final = 0.05
_ACCEPTANCE: Final = 0.7
_GAMMA: Final = 4


class Choice(Frozen, frozen=True, kw_only=True):
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


class Route(Frozen, frozen=True, kw_only=True):
    """One way to a model's quality; ``loses`` says what it costs, ``evidence`` what the answer rests on."""

    route: str
    model: str = ""
    quant: str = ""
    fit: str = ""
    tokens_per_s: float | None = None
    loses: str = ""
    evidence: str


_TABLE: Final = shipped_table("data/quality.toml")


def benchmark(task: Task) -> str:
    """Name of the benchmark that stands for a task."""
    return str(_TABLE["benchmarks"][task])


def recommend(
    device: DeviceProfile, task: Task, scenario: Scenario, *, min_tokens_per_s: float = 0.0, minutes: float = 0.0
) -> list[Choice]:
    """Models with the best mixture of each that fits and is fast enough (for ``minutes``), best first.

    Where nobody knows what the device keeps after minutes, its first seconds count.
    """
    best: dict[str, Choice] = {}
    for name, row in _TABLE["scores"].items():
        if task not in row:
            continue
        for quant in (*_MIXTURES, ""):
            if not quant and name in best:
                continue
            model = resolve_model(name, quant or _SPLIT_MIXTURE)
            way = ways(model, device, scenario)[0] if not quant else None
            now, how = (way.prediction, way.how) if way else (predict(model, device, scenario), "")
            late = outlook(model, device, scenario, now.speed, minutes)[0] if minutes else None
            speed = float((late.tokens_per_s if late else now.speed.decode_tokens_per_s).mid)
            runs = way.runs if way else now.verdict.word == "fits"
            if not runs or speed < min_tokens_per_s:
                continue
            growth = perplexity_growth_percent(now.quant, _count(name))
            rank = row[task] * (1 - (growth or 0.0) / 100)
            if name not in best or rank > best[name].rank_score:
                best[name] = Choice(
                    model=name,
                    quant=now.quant,
                    how=how,
                    score=row[task],
                    perplexity_percent=growth,
                    rank_score=round(rank, 2),
                    tokens_per_s=speed,
                    needed_bytes=now.verdict.needed_bytes,
                    source=f"{benchmark(task)}: {_TABLE['sources'][row['source']]}",
                )
    ranked, fastest, listed = sorted(best.values(), key=lambda c: -c.rank_score), 0.0, []
    for choice in ranked:
        listed.append(replace(choice, is_front=choice.tokens_per_s > fastest))
        fastest = max(fastest, choice.tokens_per_s)
    return listed


def routes(device: DeviceProfile, reference: str, task: Task, scenario: Scenario) -> list[Route]:
    """Every way to the published quality of ``reference`` on this device, side by side.

    Routes: the model itself by its best way, in 2 bits, ternary weights, a smaller model, a mixture of experts, and a
    draft here with the verifier there.

    Raises:
        RefusedError: Nobody published a score of it for this task.
    """
    scores, bench = _TABLE["scores"], benchmark(task)
    name, listed = resolve_model(reference).name, list[Route]()
    if task not in scores.get(name, {}):
        raise RefusedError(f"no published {bench} of {name} is known here; known: {', '.join(sorted(scores))}")
    goal = scores[name][task]

    def add(route: str, way: Way, speed: float, loses: str, evidence: str) -> None:
        now = way.prediction
        same = {"model": now.model, "quant": now.quant, "fit": now.verdict.word}
        evidence = evidence if way.is_usual else f"{way.how}; {evidence}"
        listed.append(Route(route=route, tokens_per_s=speed or None, loses=loses, evidence=evidence, **same))

    def best(model: str, quant: str) -> Way:
        return ways(resolve_model(model, quant), device, scenario)[0]

    for route, quant in (("the model itself", "Q4_K_M"), ("the model in 2 bits", "IQ2_XXS")):
        way = best(name, quant)
        growth = perplexity_growth_percent(quant, _count(name))
        loses = "nothing published" if growth is None else f"perplexity {growth:+.1f} %"
        add(route, way, _speed(way), loses, "published perplexities by mixture; predicted memory and speed")
    without = f"no model trained in ternary weights has a published {bench} near {goal:g}"
    listed.append(Route(route="ternary weights", quant="TQ2_0", evidence=without))
    equal = [n for n, row in scores.items() if row.get(task, 0.0) >= goal - _SAME_POINTS and n != name]
    for routed, route in ((False, "a smaller model"), (True, "a mixture of experts")):
        rivals = []
        for other in equal:
            is_routed = resolve_model(other, "Q4_K_M").weights.shape.experts is not None
            if is_routed != routed or _count(other) >= _count(name) * (1 + routed):
                continue
            way = best(other, "Q4_K_M")
            for quant in _SMALLER if not routed else ():
                if way.prediction.verdict.word == "fits":
                    break
                way = best(other, quant)
            growth = perplexity_growth_percent(way.prediction.quant, _count(other)) or 0.0
            loses = f"{bench} {scores[other][task]:g} against {goal:g}, perplexity {growth:+.1f} %"
            rivals.append((_speed(way), way, loses))
        if rivals:
            speed, way, loses = max(rivals, key=lambda rival: rival[0])
            source = _TABLE["sources"][scores[way.prediction.model]["source"]]
            add(route, way, speed, loses, f"{source}; predicted memory and speed")
        else:
            listed.append(Route(route=route, evidence=f"none with a published {bench} of {goal:g} is known here"))
    draft = best("llama-3.2-1b", "Q4_K_M")
    there = predict(resolve_model(name, "Q8_0"), resolve_device(_VERIFIER), scenario)
    cycle_s = _GAMMA / draft.prediction.speed.decode_tokens_per_s.mid + _ROUND_TRIP_S
    cycle_s += 1 / there.speed.decode_tokens_per_s.mid
    assumed = (
        f"assumed: {_GAMMA} drafts, acceptance {_ACCEPTANCE}, {_ROUND_TRIP_S * 1e3:g} ms there and back, the "
        f"verifier on {_VERIFIER}; the draft shares the vocabulary of Llama 3 alone"
    )
    speed = expected_tokens_per_cycle(_ACCEPTANCE, _GAMMA) / cycle_s
    add("a draft here, the verifier there", draft, float(speed), "works online only", assumed)
    return listed


def _speed(way: Way) -> float:
    """Decode speed; 0 where it does not run."""
    return float(way.prediction.speed.decode_tokens_per_s.mid) if way.runs else 0.0


@lru_cache(maxsize=256)
def _count(name: str) -> float:
    return float(sum(t.element_count for t in resolve_model(name, "F16").weights.tensors))
