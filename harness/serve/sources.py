"""What the server answers with: the documents that the verbs print with ``--json``, and who may ask for what."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from harness.catalog.names import HUB_PREFIX, is_repository
from harness.catalog.paths import as_path
from harness.domain.question import Question
from harness.errors import InputError, RefusedError

TEXT_MAX: Final = 300
"""Signs of a name that somebody asks for."""
_KEPT: Final = 2048
_SEVERAL: Final = frozenset({"without", "beside"})


class Sources(NamedTuple):
    """Each gives the document of a verb as the bytes of its JSON.

    Attributes:
        fit: To a question.
        devices: To a device's name; empty for all.
        models: To a model's name; empty for all.
        history: To the start of a run's name, or empty, and how many to list.
        recommend: To a device and a task.
        explain: To a question, what its answer rests on.
        check: To a model: it is measured. None where nothing may run.
    """

    fit: Callable[[Question], bytes]
    devices: Callable[[str], bytes]
    models: Callable[[str], bytes]
    history: Callable[[str, int], bytes]
    recommend: Callable[[str, str], bytes]
    explain: Callable[[Question], bytes]
    check: Callable[[str], bytes] | None = None


def kept(sources: Sources) -> Sources:
    """The same, which remember what does not change while the server runs."""
    remember = lru_cache(_KEPT)
    names = ("fit", "devices", "models", "recommend", "explain")
    return sources._replace(**{name: remember(getattr(sources, name)) for name in names})


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
