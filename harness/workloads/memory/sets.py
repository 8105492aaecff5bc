"""A public set of conversations as cases: pointed at, never shipped.

LoCoMo (Maharana et al. 2024, CC BY-NC 4.0): long conversations, and questions with the turns that answer
them.
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
        RefusedError: It is not that set.
        BadDataError: It is broken.
    """
    rows = json_in(path, "a data set", _MOST_BYTES)
    if (
        not isinstance(rows, list)
        or not all(isinstance(row, dict) and "qa" in row for row in rows)
        or not rows
    ):
        raise RefusedError(f"{path}: found no LoCoMo, expected it, or .jsonl")
    try:
        return [case for row in rows for case in _locomo(row)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadDataError(path, "", repr(error), "a LoCoMo file") from error


def _locomo(sample: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Turns of one conversation, each told with its speaker at its time; questions one day after the last."""
    conversation = sample["sample_id"]
    talk = sample["conversation"]
    known = set()
    last_s = 0.0
    for key, turns in talk.items():
        if not re.fullmatch(r"session_\d+", key):
            continue
        when = (
            datetime.strptime(talk[f"{key}_date_time"], "%I:%M %p on %d %B, %Y")
            .replace(tzinfo=UTC)
            .timestamp()
        )
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
