"""Public sets of conversations as cases: pointed at, never shipped.

LoCoMo (Maharana et al. 2024, CC BY-NC 4.0): long conversations, and questions with the turns that answer them.
LongMemEval (Wu et al. 2024, MIT): questions, each with some forty sessions, and those that answer it.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from harness.domain.foreign import json_in
from harness.errors import BadDataError, RefusedError

_MOST_BYTES: Final = 512 << 20


def read(path: Path) -> list[dict[str, Any]]:
    """The columns of cases of a file: everything that was told, then every question that has its evidence in it.

    Raises:
        RefusedError: It is neither of the two sets.
        BadDataError: It is one of them, and broken.
    """
    rows = json_in(path, "a data set", _MOST_BYTES)
    first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    reader = _locomo if "qa" in first else _longmemeval if "haystack_sessions" in first else None
    if reader is None:
        raise RefusedError(f"{path}: found neither LoCoMo nor LongMemEval, expected one of them, or .jsonl")
    try:
        return [case for row in rows for case in reader(row)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadDataError(path, "", repr(error), f"a {reader.__name__.strip('_')} file") from error


def _locomo(sample: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Turns of one conversation, each told with its speaker at its time; questions one day after the last."""
    conversation, talk = sample["sample_id"], sample["conversation"]
    known = set()
    last_s = 0.0
    for key, turns in talk.items():
        if not re.fullmatch(r"session_\d+", key):
            continue
        when = datetime.strptime(talk[f"{key}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC).timestamp()
        for at, turn in enumerate(turns):
            known.add(turn["dia_id"])
            last_s = max(last_s, when + at)
            text = f"{turn['speaker']}: {turn['text']}"
            yield {"id": turn["dia_id"], "conversation": conversation, "text": text, "time_s": when + at}
    for question in sample["qa"]:
        named = re.findall(r"D\d+:\d+", " ".join(question.get("evidence", [])))
        if evidence := [name for name in dict.fromkeys(named) if name in known]:
            asked_s = last_s + 86_400.0
            text = question["question"]
            yield {"conversation": conversation, "text": text, "time_s": asked_s, "expect": evidence}


def _longmemeval(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Sessions of one question, each told whole; the question expects those that answer it."""
    conversation = row["question_id"]
    for at, (name, turns) in enumerate(zip(row["haystack_session_ids"], row["haystack_sessions"], strict=True)):
        text = "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
        yield {"id": name, "conversation": conversation, "text": text or "-", "time_s": float(at)}
    if row["answer_session_ids"]:
        expected = list(row["answer_session_ids"])
        yield {"conversation": conversation, "text": row["question"], "time_s": 1e6, "expect": expected}
