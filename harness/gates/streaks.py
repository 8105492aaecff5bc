"""How often in a row a budget's gate was inconclusive: a machine that never calms must not stay green for ever."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from harness.domain.foreign import json_in, typed
from harness.gates.judge import Judgement
from harness.records.store import write_atomically

_MOST_BYTES: Final = 1 << 20


def with_streaks(judgements: Sequence[Judgement], path: Path) -> list[Judgement]:
    """The judgements; one that is inconclusive for the budget's last time in a row is a broken one.

    The counts are kept in ``path``, one for each budget by a digest of its words: any other answer, and any change of
    the budget, begins anew.

    Raises:
        BadDataError: The file holds no such counts.
        CouldNotRunError: It cannot be written.
    """
    found = json_in(path, "counts by budget", _MOST_BYTES) if path.exists() else {}
    before = typed(found, dict[str, int], path)
    counts, answers = dict(before), []
    for judgement in judgements:
        limit = judgement.budget.inconclusive_limit
        key = blake2b(msgspec.json.encode(judgement.budget), digest_size=12).hexdigest()
        counts[key] = before.get(key, 0) + 1 if judgement.answer == "inconclusive" else 0
        if counts[key] >= limit:
            advice = "leave a core free, take more samples (-r), or gate in turns (gate live)"
            reason = f"inconclusive in {counts[key]} gates in a row, {limit} are allowed: {advice}; {judgement.reason}"
            judgement = judgement.replace(answer="fail", reason=reason)  # noqa: PLW2901 - the same, decided
        answers.append(judgement)
    write_atomically(path, msgspec.json.encode({key: count for key, count in counts.items() if count}))
    return answers
