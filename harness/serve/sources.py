"""What the server answers with: the documents that the verbs print with ``--json``, and what may be asked for."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from harness.answer.contract import TEXT_MAX, fields_of, read
from harness.core.base import Frozen
from harness.core.errors import InputError, RefusedError
from harness.core.paths import as_path
from harness.core.question import Question
from harness.models.names import HUB_PREFIX, is_repository

_KEPT: Final = 2048
R = TypeVar("R", bound=Frozen)


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


def asked(pairs: Iterable[tuple[str, str]], kind: type[R] = Question) -> R:  # type: ignore[assignment]
    """The request of some names and texts, such as those of an address.

    Raises:
        InputError: A field is none of the request's, or holds no value of its kind.
    """
    values: dict[str, Any] = {}
    fields = fields_of(kind)
    for name, text in pairs:
        if fields.get(name, {}).get("type") == "array":
            values.setdefault(name, []).extend(part.strip() for part in text.split(",") if part.strip())
        elif text:
            values[name] = text
    return named(read(values, kind, is_text=True))


def written(body: bytes, kind: type[R] = Question) -> R:  # type: ignore[assignment]
    """The request of a JSON document (errors as :func:`asked`)."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InputError('the body: found no JSON object, expected one such as {"model": "qwen3-8b"}')
    return named(read(document, kind))


def named(request: R) -> R:
    """The request, if it names models and devices of the catalog, and nothing that is read from a disk or a hub."""
    for field in ("model", "device", "draft", "instead_of"):
        name_only(getattr(request, field, ""))
    for field in ("models", "devices", "beside"):
        for text in getattr(request, field, ()):
            name_only(text)
    return request


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
