"""What each request is answered with, once for HTTP and for agents: words for people, a few fields, and all of it."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from harness.answer.answer import Answer, answer, best_case
from harness.answer.brief import brief_of
from harness.answer.causes import slow
from harness.answer.contract import Compared, Past, Ranked, Why
from harness.answer.nearest import neighbours
from harness.answer.pasted import seen_in
from harness.core.base import Frozen
from harness.core.errors import InputError
from harness.core.question import Asked, Question
from harness.show.compare_page import named as names_of
from harness.show.compare_page import standings
from harness.show.first_screen import first_screen, sentence, several, two
from harness.show.measured_speed import measured_lines
from harness.show.ranking import finding
from harness.show.recommended import lines as ranked_lines
from harness.verbs.recommend import recommend

ANSWERS_MAX: Final = 8
"""Answers that one comparison has."""


class Reply(NamedTuple):
    """An answer in words, in a few fields, and whole."""

    words: str
    fields: dict[str, Any]
    whole: Callable[[], Any]


def _fields(value: Any) -> dict[str, Any]:
    return dict(msgspec.to_builtins(value, str_keys=True))


def fit(request: Question) -> Reply:
    """Whether a model runs on a device: verdict, speed with its 90 % interval, memory, and the command."""
    found = answer(request, advises=False)
    return Reply("\n".join(first_screen(found)), _fields(brief_of(found)), lambda: found)


def explain(request: Why) -> Reply:
    """Which published measurements a speed rests on; with ``measured``, why it is slower than predicted."""
    question = Question(**{name: getattr(request, name) for name in Question.__struct_fields__})
    seen = seen_in(request.log)
    measured = request.measured or seen.tokens_per_s
    found = answer(question, advises=False, takes_idle=measured is not None)
    case = best_case(found)
    words, fields = [sentence(found)], _fields(brief_of(found))
    document: dict[str, Any] = {}
    if measured is not None:
        why = slow(measured, found, case, seen)
        words += measured_lines(why, found)
        fields["slow"] = document["slow"] = _fields(why)
    else:
        rows = neighbours(case)
        words += [
            f"{two(row.measured_tokens_per_s)} tokens/s measured, {two(row.predicted_tokens_per_s)} predicted of it: "
            f"{row.chip}, {row.model} {row.quant}, {row.test} ({row.source})"
            for row in rows
        ]
        document["nearest"] = rows
    return Reply("\n".join(words), fields, lambda: msgspec.structs.asdict(found) | document)


def rank(request: Ranked) -> Reply:
    """Which model is best for a task on a device, of those that fit and are fast enough."""
    asked = Asked(**{name: getattr(request, name) for name in Asked.__struct_fields__})
    if asked.target_tokens_per_s is None:
        asked = asked.replace(target_tokens_per_s=_SLOWEST)
    ranking = recommend(request.device, request.task, asked, request.instead_of)
    winner = ranking.winner
    shown = [
        {
            "model": one.model,
            "quant": one.quant,
            "tokens_per_s": one.tokens_per_s.mid,
            "needed_bytes": one.needed_bytes,
            "score": one.score,
            "scale": one.scale,
        }
        for one in ranking.choices[:_MOST_CHOICES]
    ]
    fields: dict[str, Any] = {"device": ranking.device, "task": ranking.task, "choices": shown}
    fields["winner"] = None if winner is None else f"{winner.model}:{winner.quant}"
    return Reply("\n".join(ranked_lines(ranking, request.device)), fields, lambda: ranking)


_SLOWEST: Final = 5.0
"""Tokens/s that a recommended model writes at least where nobody says: reading speed, as the command line has it."""
_MOST_CHOICES: Final = 8


def compare(request: Compared) -> Reply:
    """Several models or devices beside each other: which is the fastest, and whether that is sure."""
    count = len(request.models) * len(request.devices)
    if not 2 <= count <= ANSWERS_MAX:
        raise InputError(f"models and devices: found {count} pairs, expected 2 to {ANSWERS_MAX}")
    asked = {name: getattr(request, name) for name in Asked.__struct_fields__}
    answers = [
        answer(Question(model=model, device=device, **asked), advises=False)
        for model in request.models
        for device in request.devices
    ]
    return compared(answers)


def compared(answers: Sequence[Answer]) -> Reply:
    """The same of answers that there are already."""
    by_name = names_of(answers)
    found = standings(answers)
    rows = [
        {
            "name": one.name,
            "rank": one.rank,
            "sentence": sentence(by_name[one.name]),
            "decode_tokens_per_s": None if one.speed is None else _fields(one.speed),
        }
        for one in found
    ]
    words = "\n".join(several(answers))
    return Reply(words, {"finding": finding(found), "rows": rows}, lambda: [*answers])


def history(request: Past) -> Reply:
    """Runs that were measured here, newest first; or one of them in full, by the start of its name."""
    from harness.measure.pipeline import open_history
    from harness.show.state import figures_of

    past = open_history()
    if not past.path.exists():
        return Reply("No run on this machine yet: edge-harness check", {"items": []}, list)
    if request.run:
        records = [past.get(request.run)]
    else:
        records = list(past.records(limit=request.limit))
    rows: list[dict[str, Any]] = []
    for record in records:
        speed = figures_of(record).get("decode")
        rows.append(
            {
                "run_id": record.run_id,
                "created": record.created,
                "model": record.name,
                "quant": record.quant,
                "outcome": record.outcome,
                "tokens_per_s": speed.number if speed else None,
            }
        )
    words = "\n".join(
        f"{row['created'][:16]}  {row['model']} {row['quant']}  {row['tokens_per_s'] or row['outcome']}"
        for row in rows
    )
    return Reply(words or "No run yet of what was asked for.", {"items": rows}, lambda: records)


DOORS: Final[dict[str, tuple[type[Frozen], Callable[[Any], Reply]]]] = {
    "fit": (Question, fit),
    "recommend": (Ranked, rank),
    "compare": (Compared, compare),
    "explain": (Why, explain),
    "history": (Past, history),
}
"""By its name, what a request holds and who answers it."""
