"""Whether answers contradict each other: relations that must hold between the answers to random questions.

    python -m bench consistent --questions 2000 --seed 1

A relation is broken where a default that is named changes something, where more memory, power or cards, or a shorter
context, make an answer worse, where two ways of asking give two figures, or where an option changes nothing and is not
refused. What is broken is printed with the question.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

import click

from harness.answer.answer import Answer, answer
from harness.answer.matrix import ask
from harness.api import fit
from harness.core.budget import Budget
from harness.core.errors import HarnessError, RefusedError
from harness.core.question import Asked, Question
from harness.gates.evaluate import evaluate

MODELS: Final = (
    *("smollm2-135m", "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "llama-3.3-70b", "qwen3-0.6b", "qwen3-4b"),
    *("qwen3-8b", "qwen3-14b", "qwen3-32b", "qwen3-30b-a3b", "qwen2.5-coder-7b", "gemma-3-4b", "gemma-3-27b"),
    *("gpt-oss-20b", "gpt-oss-120b", "mixtral-8x7b", "phi-4", "mistral-7b", "deepseek-r1-distill-qwen-32b"),
)
QUANTS: Final = ("", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
"""Of llama.cpp, larger before smaller; empty for the model's usual one."""
DEVICES: Final = (
    *("iphone-12", "iphone-16-pro", "galaxy-s24", "pixel-8", "raspberry-pi-5", "macbook-air-m1-8gb"),
    *("macbook-air-m3", "macbook-pro-m3-max", "rtx-4060-desktop", "rtx-3060-desktop", "rtx-4090-desktop"),
    *("rtx 3090", "rtx 3090 + 64GB", "rtx 4060 + 32GB", "rx 7900 xtx", "arc b580", "n100 16gb", "ryzen 7840u 32gb"),
    *("2x rtx 3090", "rtx 3090 + rtx 3060 12gb", "rtx 4090 + rtx 3090 + 128GB", "2x rtx 5060 ti 16gb", "3x tesla p40"),
)
FAMILIES: Final = (
    ("rtx 3060 12gb", "rtx 3080 12gb", "rtx 3090"),
    ("rtx 4060", "rtx 4070", "rtx 4080", "rtx 4090"),
    ("macbook air m3 16gb", "macbook pro m3 pro 18gb", "macbook pro m3 max 36gb"),
)
"""Chips of one family, each with more bandwidth and as much memory as the one before it, or more."""
CONTEXTS: Final = (None, 2048, 4096, 8192, 16384, 32768)
SLACK: Final = 1e-9


class Broken(NamedTuple):
    """A relation that does not hold."""

    relation: str
    question: Question
    found: str


def questions(count: int, seed: int) -> Iterator[Question]:
    """Random questions, the same for the same seed."""
    draws = random.Random(seed)
    for _ in range(count):
        yield Question(
            model=draws.choice(MODELS),
            device=draws.choice(DEVICES),
            quant=draws.choice(QUANTS),
            context_tokens=draws.choice(CONTEXTS),
            users=draws.choice((1, 1, 1, 2, 4)),
            kv_type=draws.choice(("F16", "F16", "F16", "Q8_0")),
        )


def told(question: Question) -> Answer | None:
    """The answer; None where it is refused."""
    try:
        return answer(question, advises=False)
    except HarnessError:
        return None


def speed(found: Answer) -> float:
    """Decode speed, tokens/s; 0 for what does not run."""
    return found.prediction.speed.decode_tokens_per_s.mid if found.runs else 0.0


def api_named(question: Question, found: Answer) -> str:
    """The default api by its name changes nothing."""
    usual = found.ways[0].prediction.api
    from harness.answer.resolve import resolve_device

    named = told(question.replace(api=resolve_device(question.device).api("")))
    if named is None or named.replace(question=question) != found:
        return f"naming the default api changes the answer (best by {usual})"
    return ""


def order(question: Question, found: Answer) -> str:
    """The order of ways is that of their speeds."""
    del question
    speeds = [way.prediction.speed.decode_tokens_per_s.mid for way in found.ways]
    return "" if speeds == sorted(speeds, reverse=True) else f"ways run at {speeds}"


def matrix_agrees(question: Question, found: Answer) -> str:
    """The same question in a grid has the same figures."""
    if not question.context_tokens or question.quant == "":
        return ""
    fields = {name: getattr(question, name) for name in Asked.__struct_fields__}
    context = int(question.context_tokens)
    asked = ask((question.device,), (question.model,), (question.quant,), (context,), Asked(**fields))
    ((_, cell),) = asked
    if cell is None or cell.prediction != found.prediction:
        return "another prediction in the grid than alone"
    return ""


def api_agrees(question: Question, found: Answer) -> str:
    """The Python API gives the same answer."""
    options: Any = {name: getattr(question, name) for name in Asked.__struct_fields__}
    same = fit(question.model, question.device, **options).answer.replace(advice=()) == found
    return "" if same else "the Python API answers otherwise"


def gate_agrees(question: Question, found: Answer) -> str:
    """A budget on a prediction is judged by the plain question's answer."""
    del found
    plain = told(Question(model=question.model, device=question.device))
    if plain is None or not plain.runs:
        return ""
    mine = plain.prediction.speed.decode_tokens_per_s
    budget = Budget(
        metric="decode_tokens_per_s", floor=1e-6, predicted=True, device=question.device, model=question.model
    )
    (judged,) = evaluate([budget], [])
    return "" if (judged.low, judged.high) == (mine.low, mine.high) else f"{judged.low} in the gate, {mine.low} in fit"


def longer_context(question: Question, found: Answer) -> str:
    """A longer context is never faster, and never smaller where all of it lies in one place."""
    longer = told(question.replace(context_tokens=2 * found.scenario.context_tokens))
    if longer is None:
        return ""
    if speed(longer) > speed(found) * (1 + SLACK):
        return f"{speed(longer):.4g} tokens/s in twice the context of {speed(found):.4g}"
    same_place = found.best.kind is longer.best.kind and found.best.kind.is_whole
    needed, more = found.prediction.verdict.needed_bytes, longer.prediction.verdict.needed_bytes
    if same_place and more < needed:
        return f"{more} bytes in twice the context of {needed}"
    return ""


def smaller_quant(question: Question, found: Answer) -> str:
    """A smaller quantisation never needs more where both lie in one place."""
    if question.quant not in QUANTS[1:-1]:
        return ""
    smaller = told(question.replace(quant=QUANTS[QUANTS.index(question.quant) + 1]))
    if smaller is None or not (found.best.kind.is_whole and smaller.best.kind.is_whole):
        return ""
    needed, less = found.prediction.verdict.needed_bytes, smaller.prediction.verdict.needed_bytes
    same = found.best.prediction.api == smaller.best.prediction.api and found.best.card == smaller.best.card
    return f"{smaller.quant} needs {less}, {found.quant} {needed}" if same and less > needed else ""


def second_card(question: Question, found: Answer) -> str:
    """A second equal card never makes it slower, or worse."""
    if not question.device.startswith(("rtx 3090", "rtx 4060 +")):
        return ""
    if " + rtx" in question.device:
        return ""
    return _no_worse(told(question.replace(device=f"2x {question.device}")), found, "a second card")


def more_memory(question: Question, found: Answer) -> str:
    """More RAM never makes it slower, or worse."""
    more = {"rtx 3090 + 64GB": "rtx 3090 + 128GB", "rtx 4060 + 32GB": "rtx 4060 + 64GB", "n100 16gb": "n100 32gb"}
    if question.device not in more:
        return ""
    return _no_worse(told(question.replace(device=more[question.device])), found, "more memory")


def more_power(question: Question, found: Answer) -> str:
    """Less power is never faster."""
    if question.device not in {"rtx 3090", "rtx-4090-desktop"}:
        return ""
    name = "rtx 3090" if question.device == "rtx 3090" else "rtx 4090"
    capped = [told(question.replace(device=f"{name}, {watts}W")) for watts in (300, 250, 200, 150)]
    speeds = [speed(found), *(speed(one) for one in capped if one is not None)]
    falls = all(less <= more * (1 + SLACK) for more, less in pairwise(speeds[1:]))
    return "" if falls else f"at falling power {speeds}"


def faster_chip(question: Question, found: Answer) -> str:
    """A faster chip of one family is never slower."""
    del found
    for family in FAMILIES:
        listed = [told(question.replace(device=name)) for name in family]
        speeds = [speed(one) for one in listed if one is not None]
        if speeds != sorted(speeds):
            return f"{family}: {[round(one, 2) for one in speeds]}"
    return ""


def options_heard(question: Question, found: Answer) -> str:
    """Each option changes the answer, or is refused."""
    changes: dict[str, object] = {
        "ubatch_tokens": 128,
        "kv_type": "Q8_0" if question.kv_type == "F16" else "F16",
        "thread_count": 3,
        "without": ("flash-attention",) if question.kv_type == "F16" else ("repack",),
        "prompt_tokens": 1024,
        "entitled": True,
        "minutes": 20.0,
        "draft": "qwen3-0.6b",
    }
    for field, value in changes.items():
        try:
            other = answer(question.replace(**{field: value}), advises=False)
        except (RefusedError, HarnessError):
            continue
        if other.replace(question=question) == found:
            return f"{field} = {value} changes nothing"
    return ""


def _no_worse(other: Answer | None, found: Answer, what: str) -> str:
    if other is None:
        return f"with {what} it is refused"
    if speed(other) < speed(found) * (1 - SLACK):
        return f"{speed(found):.4g} tokens/s, {speed(other):.4g} with {what}"
    return ""


RELATIONS: Final[tuple[Callable[[Question, Answer], str], ...]] = (
    *(
        api_named,
        order,
        matrix_agrees,
        api_agrees,
        gate_agrees,
        longer_context,
        smaller_quant,
        second_card,
        more_memory,
        more_power,
    ),
    *(faster_chip, options_heard),
)


def broken(question: Question) -> Iterator[Broken]:
    """Every relation of a question that does not hold; none of one that is refused."""
    found = told(question)
    if found is None:
        return
    for relation in RELATIONS:
        if says := relation(question, found):
            yield Broken(relation.__name__, question, says)


@click.command()
@click.option("--questions", "count", type=int, default=2000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def main(count: int, seed: int) -> None:
    """Print what is broken, and how many relations of each kind."""
    counts: Counter[str] = Counter()
    for question in questions(count, seed):
        for one in broken(question):
            counts[one.relation] += 1
            asked = {name: getattr(one.question, name) for name in ("model", "device", "quant", "context_tokens")}
            click.echo(f"{one.relation}: {asked} users={one.question.users} kv={one.question.kv_type}: {one.found}")
    click.echo(f"{count} questions, broken: {dict(counts) or 'none'}")
    sys.exit(1 if counts else 0)


if __name__ == "__main__":
    main()
