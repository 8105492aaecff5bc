"""What the server answers with: the documents that the verbs print with ``--json``, and what may be asked for."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from harness.core.errors import InputError, RefusedError
from harness.core.paths import as_path
from harness.core.question import Question
from harness.models.names import HUB_PREFIX, is_repository

TEXT_MAX: Final = 300
"""Signs of a name that somebody asks for."""
_KEPT: Final = 2048
_SEVERAL: Final = frozenset({"without", "beside"})


class Sources(NamedTuple):
    """What gives the documents of verbs as the bytes of their JSON.

    Attributes:
        fit: To a question.
        said: To a verb and the words behind it; remembered, as what does not change while the server runs.
        now: The same, not remembered.
    """

    fit: Callable[[Question], bytes]
    said: Callable[..., bytes]
    now: Callable[..., bytes]


def sources_of(fit: Callable[[Question], bytes], said: Callable[..., bytes]) -> Sources:
    """The sources that these two functions are."""
    return Sources(lru_cache(_KEPT)(fit), lru_cache(_KEPT)(said), said)


def asked(pairs: Iterable[tuple[str, str]]) -> Question:
    """The question of some names and texts, such as those of an address.

    Raises:
        InputError: A field is none of a question's, or holds no value of its kind.
    """
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name in _SEVERAL:
            values.setdefault(name, []).append(text)
        elif text:
            values[name] = text
    try:
        question = msgspec.convert(values, Question, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(str(error)) from None
    return named(question)


def written(body: bytes) -> Question:
    """The question of a JSON document (errors as :func:`asked`)."""
    try:
        return named(msgspec.json.decode(body, type=Question))
    except msgspec.MsgspecError as error:
        raise InputError(str(error)) from None


def named(question: Question) -> Question:
    """The question, if it names models and devices of the catalog, and nothing that is read from a disk or a hub."""
    for text in (question.model, question.device, question.draft, *question.beside):
        name_only(text)
    return question


def history_words(run: str, limit: object) -> list[str]:
    """What `history` is asked for: one run by the start of its name, or the newest ones."""
    if run:
        return ["--", name_only(run)]
    return [f"--limit={limit}"]


def name_only(text: str) -> str:
    """The text, if it is a name.

    Raises:
        RefusedError: It is a path, a repository, or longer than any name.
    """
    if len(text) > TEXT_MAX or as_path(text) or text.startswith(HUB_PREFIX) or is_repository(text):
        raise RefusedError(
            f"{text[:60]!r}: this server answers for names of models and devices, not for files"
        )
    return text
