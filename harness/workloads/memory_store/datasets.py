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
from harness.workloads.system import Case

_MOST_BYTES: Final = 512 << 20


def read(path: Path) -> list[Case]:
    """The cases of a file: everything that was told, then every question that has its evidence in it.

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


def _locomo(sample: Mapping[str, Any]) -> Iterator[Case]:
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
            yield _case("tell", conversation, text, when + at, id=turn["dia_id"])
    for question in sample["qa"]:
        named = re.findall(r"D\d+:\d+", " ".join(question.get("evidence", [])))
        if evidence := [name for name in dict.fromkeys(named) if name in known]:
            yield _case("ask", conversation, question["question"], last_s + 86_400.0, expect=evidence)


def _longmemeval(row: Mapping[str, Any]) -> Iterator[Case]:
    """Sessions of one question, each told whole; the question expects those that answer it."""
    conversation = row["question_id"]
    for at, (name, turns) in enumerate(zip(row["haystack_session_ids"], row["haystack_sessions"], strict=True)):
        text = "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
        yield _case("tell", conversation, text or "-", float(at), id=name)
    if row["answer_session_ids"]:
        yield _case("ask", conversation, row["question"], 1e6, expect=list(row["answer_session_ids"]))


def _case(kind: str, conversation: str, text: str, time_s: float, **more: Any) -> Case:
    return {"kind": kind, "conversation": conversation, "text": text, "time_s": time_s, **more}
