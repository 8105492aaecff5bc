"""Ask a question again with one thing changed: cache type, context, users, a finer or a coarser quantisation."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from harness.answer.advice import TRIED_QUANTS
from harness.answer.answer import Answer, answer
from harness.core.errors import HarnessError
from harness.core.question import Question

_NARROW_CACHE: Final = "Q8_0"
_SAME_SPEED: Final = 0.03
"""Share of a speed below which nobody tells two apart."""
_SAME_BYTES: Final = 0.02
"""Share of the memory there is below which room counts as unchanged."""


class Variation(NamedTuple):
    """A question with one thing changed, and its answer.

    Attributes:
        change: What changed, as a command to the reader: ``Keep the cache in Q8_0``.
        detail: What the change means in figures: ``32,768 tokens``.
    """

    change: str
    detail: str
    answer: Answer


def variations(asked: Answer) -> list[Variation]:
    """Changes that alter speed, room or the way it runs: first those that gain, then those that cost.

    At most seven questions are asked. What cannot be had, or alters nothing, is left out.
    """
    found = []
    for change, detail, question in _changed(asked):
        with suppress(HarnessError):
            other = answer(question, advises=False)
            if _brings_more(asked, other) or _differs(asked, other):
                found.append(Variation(change, detail or _loss(asked, other), other))
    return sorted(found, key=lambda one: (not _gains(asked, one.answer), -_speed(one.answer)))


def best_change(asked: Answer, found: Sequence[Variation]) -> str:
    """The best of some variations as a sentence, for the heading above them."""
    gaining = [one for one in found if _gains(asked, one.answer)]
    for one in gaining:
        if one.answer.scenario.context_tokens > asked.scenario.context_tokens:
            return f"A cache in {one.answer.scenario.kv_type} doubles the context at the same speed"
    if not gaining:
        return (
            "No change that was tried gains anything"
            if asked.runs
            else "No change that was tried makes it fit"
        )
    best = gaining[0]
    if not asked.runs:
        return f"{best.change}: then it runs"
    times = _speed(best.answer) / _speed(asked)
    if times > 1 + _SAME_SPEED:
        return f"{best.change}: {100 * times - 100:.0f} % faster"
    return f"{best.change}: more room at the same speed"


def _changed(asked: Answer) -> Iterator[tuple[str, str, Question]]:
    question = asked.question
    context = asked.scenario.context_tokens
    narrow = {"kv_type": _NARROW_CACHE, "value_type": ""}
    has_wide_cache = asked.scenario.kv_type in {"F16", "BF16", "F32"}
    if has_wide_cache:
        yield f"Keep the cache in {_NARROW_CACHE}", "same context", question.replace(**narrow)
    least = question.prompt_tokens + question.new_tokens + question.depth_tokens
    if context // 2 >= max(least, 64):
        yield "Half the context", f"{context // 2:,} tokens", question.replace(context_tokens=context // 2)
    twice = question.replace(context_tokens=2 * context)
    if has_wide_cache:
        words = f"Twice the context, cache in {_NARROW_CACHE}"
        yield words, f"{2 * context:,} tokens", twice.replace(**narrow)
    yield "Twice the context", f"{2 * context:,} tokens", twice
    users = asked.scenario.batch_count
    words = f"{2 * users} users" if users > 1 else "Two users"
    yield words, "speed of each", question.replace(users=2 * users)
    if asked.quant in TRIED_QUANTS:
        place = TRIED_QUANTS.index(asked.quant)
        around = (("Finer weights", place - 1), ("Coarser weights", place + 1))
        for words, at in around:
            if 0 <= at < len(TRIED_QUANTS):
                quant = TRIED_QUANTS[at]
                yield f"{words}, {quant}", "", question.replace(quant=quant)


def _loss(asked: Answer, other: Answer) -> str:
    """What the other quantisation loses, in growth of perplexity; empty where nobody published it."""
    own = asked.perplexity_percent.get(asked.quant)
    lost = other.perplexity_percent.get(other.quant)
    if own is None or lost is None:
        return ""
    return f"loses {lost:.2g} % in perplexity, not {own:.2g} %"


def _speed(one: Answer) -> float:
    """Likeliest tokens/s of each user; 0 where it does not run."""
    if not one.runs:
        return 0.0
    return one.prediction.speed.decode_tokens_per_s.mid / one.scenario.batch_count


def spare_bytes(one: Answer) -> int:
    """Bytes that are left of the memory that binds; negative where it lacks some."""
    verdict = one.prediction.verdict
    return verdict.available_bytes - verdict.needed_bytes


def _brings_more(asked: Answer, other: Answer) -> bool:
    """Whether it gives a longer context at the speed asked for, where all still has room."""
    return (
        other.runs
        and other.best.fits
        and other.scenario.context_tokens > asked.scenario.context_tokens
        and _speed(other) >= (1 - _SAME_SPEED) * _speed(asked)
    )


def _differs(asked: Answer, other: Answer) -> bool:
    """Whether speed, room or the kind of way changed so much that a person would see it."""
    if asked.runs != other.runs or asked.best.kind is not other.best.kind:
        return True
    before = _speed(asked)
    room = abs(spare_bytes(other) - spare_bytes(asked))
    is_other_speed = abs(_speed(other) - before) > _SAME_SPEED * max(before, 1e-9)
    return is_other_speed or room > _SAME_BYTES * asked.prediction.verdict.available_bytes


def _gains(asked: Answer, other: Answer) -> bool:
    """Whether a change keeps the speed and the way, and leaves room or makes it faster."""
    if not other.runs:
        return False
    if _brings_more(asked, other):
        return True
    before = _speed(asked)
    keeps_speed = _speed(other) >= (1 - _SAME_SPEED) * before
    is_faster = _speed(other) > (1 + _SAME_SPEED) * before
    return keeps_speed and (is_faster or other.best.has_room)
