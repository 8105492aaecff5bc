"""The hub's ranking: which repositories of GGUF files are downloaded most, and what their pages report."""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from harness.core.errors import BadDataError
from harness.core.foreign import json_of, read_limited, typed
from harness.core.printable import clean
from harness.models.hub import document
from harness.models.hub_client import LISTING_MAX_BYTES, endpoint
from harness.models.names import is_repository

MOST_REPOSITORIES: Final = 1000
"""Longest ranking: the hub lists no more in one answer."""
_FIELDS: Final = ("downloads", "likes", "cardData", "model-index")
_TEXT_MAX: Final = 80
_SCORES_MAX: Final = 40
"""Scores that are kept of one repository."""


class _Listed(msgspec.Struct, rename={"card": "cardData", "results": "model-index"}):
    id: str
    downloads: int = 0
    likes: int = 0
    card: Any = None
    results: Any = None


class ReportedScore(NamedTuple):
    """A score that the page of a repository reports: its own word, measured by nobody here."""

    benchmark: str
    metric: str
    value: float
    source: str


class Ranked(NamedTuple):
    """A repository in the hub's ranking.

    Attributes:
        base: Repository of the model that it was made from; empty where the page names none.
        downloads_a_month: Downloads in the last 30 days, as the hub counts them.
    """

    repo: str
    base: str
    licence: str
    downloads_a_month: int
    like_count: int
    scores: tuple[ReportedScore, ...]


def most_downloaded(count: int) -> list[Ranked]:
    """Return the ``count`` most downloaded repositories with GGUF files, the first one first.

    Raises:
        FetchError: The hub does not answer.
        BadDataError: Its answer is no list of repositories.
    """
    query = [
        ("filter", "gguf"), ("sort", "downloads"), ("limit", str(count)),
        *(("expand", field) for field in _FIELDS),
    ]  # fmt: skip
    place = "the hub's ranking"
    url = f"{endpoint()}/api/models?{urlencode(query)}"
    path = document("most-downloaded", f"{count}.json", url, LISTING_MAX_BYTES)
    try:
        listed = typed(
            json_of(read_limited(path, LISTING_MAX_BYTES), place, "repositories"), list[_Listed], place
        )
    except BadDataError:
        path.unlink(missing_ok=True)
        raise
    return [_ranked(each) for each in listed[:count] if is_repository(each.id)]


def _ranked(listed: _Listed) -> Ranked:
    card = listed.card if isinstance(listed.card, dict) else {}
    bases = card.get("base_model")
    named = [each for each in (bases if isinstance(bases, list) else [bases]) if isinstance(each, str)]
    base = next(filter(is_repository, named), "")
    licence = card.get("license")
    if not isinstance(licence, str) or not re.fullmatch(r"[\w.+ -]{1,40}", licence):
        licence = "see its repository"
    scores = tuple(_scores(listed.results))[:_SCORES_MAX]
    return Ranked(listed.id, base, licence, listed.downloads, listed.likes, scores)


def _scores(results: Any) -> Iterator[ReportedScore]:
    """Scores in the ``model-index`` of a page, whose parts may have any form; what is none is passed over."""
    for model in _objects(results):
        for result in _objects(model.get("results")):
            benchmark = _word(result.get("dataset"), "name")
            for metric in _objects(result.get("metrics")):
                value = metric.get("value")
                if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e6:
                    continue
                if benchmark:
                    kind = _word(metric, "name") or _word(metric, "type")
                    yield ReportedScore(benchmark, kind, float(value), _word(result.get("source"), "url"))


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _word(value: Any, name: str) -> str:
    word = value.get(name) if isinstance(value, dict) else None
    return clean(word, _TEXT_MAX) if isinstance(word, str) else ""
