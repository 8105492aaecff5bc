"""GitHub workflow annotations, one a budget that did not pass."""

from collections.abc import Sequence

from harness.gates import words
from harness.gates.judge import Judgement

_COMMANDS = {"fail": "error", "could not run": "error", "inconclusive": "warning", "pass": "notice"}


def render(judgements: Sequence[Judgement]) -> str:
    """Workflow commands; data is escaped so that no text can begin another command."""
    return "".join(
        f"::{_COMMANDS[j.answer]} {_place(j)}title={_property(words.title(j.budget))}::"
        f"{_data(f'{j.answer}: {words.interval(j)}; limit: {words.limit(j)}; {j.reason}')}\n"
        for j in judgements
    )


def _place(judgement: Judgement) -> str:
    return f"file={_property(judgement.file)},line={judgement.line}," if judgement.file else ""


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
