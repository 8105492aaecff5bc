"""Refresh what is known of models from the hub: its most downloaded repositories, each by the header of its file.

Each repository is held against what its name alone is answered with, so that a card, or a guess, that the file
contradicts is seen. A model that no card answers gets one, from the header and with the day on which it was read.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import tomli_w

from harness.answer.resolve import Model, resolve_model
from harness.core.errors import FetchError, HarnessError, UnknownNameError
from harness.core.foreign import read_limited
from harness.core.model import ModelCard, ModelShape, Weights
from harness.core.printable import clean, escape_markdown
from harness.core.scenario import Scenario
from harness.core.units import counted, format_bytes
from harness.measure.pipeline import Listener
from harness.memory.kv_cache import kv_cache_bytes
from harness.models.cards import load_card
from harness.models.hub import read_repository
from harness.models.hub_ranking import Ranked, most_downloaded
from harness.models.names import match
from harness.models.weights import weights_of
from harness.records.store import write_atomically

TABLE: Final = "repositories.csv"
SCORES: Final = "scores.csv"
PAGE: Final = "disagreements.md"
CACHE_TOKENS: Final = 32_768
"""Context at which caches are compared, where a model takes as much."""
AGREES: Final = 0.03
"""Largest relative difference of a file or a cache that is no disagreement."""
_READERS: Final = 6
"""Repositories that are read at once: few enough that no hub takes them for an attack."""
_TABLE_MAX_BYTES: Final = 64 << 20


class SeenRepository(NamedTuple):
    """One repository of the table, with what its name alone is answered with beside it.

    Attributes:
        cache_bytes: F16 cache of ``CACHE_TOKENS``, or of the model's own longest context.
        known_as: The card that the name means, or ``guess``; empty where the name has no answer.
        known_bytes: Of a file of that quantisation, by the name alone; 0 for no answer.
        first_seen: Day on which a refresh read it for the first time (ISO 8601), and ``seen`` the last one.
        fault: Why it could not be read; its other figures are 0 then.
    """

    repo: str
    base: str
    licence: str
    downloads_a_month: int
    like_count: int
    first_seen: str
    seen: str
    file: str = ""
    quant: str = ""
    architecture: str = ""
    layer_count: int = 0
    file_bytes: int = 0
    cache_bytes: int = 0
    known_as: str = ""
    known_layer_count: int = 0
    known_bytes: int = 0
    known_cache_bytes: int = 0
    fault: str = ""

    @property
    def contradictions(self) -> list[str]:
        """What the file and the answer by its name disagree about, in words; none for a name without an answer."""
        if self.fault or not self.known_as:
            return []
        found = []
        if self.layer_count != self.known_layer_count:
            found.append(f"{self.layer_count} layers, {self.known_layer_count} by its name")
        for what, own, known in (
            ("file", self.file_bytes, self.known_bytes),
            ("cache", self.cache_bytes, self.known_cache_bytes),
        ):
            if abs(own - known) > AGREES * max(own, 1):
                found.append(f"{what} {format_bytes(own)}, {format_bytes(known)} by its name")
        return found


class Refreshed(NamedTuple):
    """What a refresh read and wrote.

    Attributes:
        changed: What is different since the refresh before, a line each.
        cards: Names of the cards that were written.
        files: Paths of everything that was written, cards apart.
    """

    seen: str
    repositories: list[SeenRepository]
    changed: list[str]
    cards: list[str]
    files: list[str]


class _Read(NamedTuple):
    """A repository as read: its usual file's name and weights, or why there are none."""

    ranked: Ranked
    file: str
    weights: Weights | None
    fault: str = ""


def refresh(count: int, folder: Path, listener: Listener) -> Refreshed:
    """Read the ``count`` most downloaded repositories, and write cards into ``folder`` and tables into ``folder/hub``.

    What was read within a day is not asked for again, so that an interrupted refresh goes on where it ended.

    Raises:
        FetchError: The hub does not answer, or none of its repositories could be read.
        BadDataError: The ranking, or the table of the refresh before, is damaged.
        CouldNotRunError: A file cannot be written.
    """
    today = date.today().isoformat()
    ranking = most_downloaded(count)
    table = folder / "hub" / TABLE
    before = _table_of(table)
    listener.begin(f"refresh of {len(ranking)} repositories", len(ranking))
    with ThreadPoolExecutor(_READERS) as pool:
        coming = {pool.submit(_read, ranked): place for place, ranked in enumerate(ranking)}
        reads: list[_Read | None] = [None] * len(ranking)
        for future in as_completed(coming):
            read = reads[coming[future]] = future.result()
            listener.step(read.ranked.repo)
    whole = [read for read in reads if read is not None]
    if not any(read.weights for read in whole):
        first = whole[0].fault if whole else "the ranking is empty"
        raise FetchError(f"no repository of the hub could be read: {first}")
    rows = [_row(read, before.get(read.ranked.repo, {}), today) for read in whole]
    cards = _write_cards(whole, folder, today)
    return Refreshed(
        today, rows, _changes(rows, before), cards, _write_tables(rows, ranking, before, table.parent, cards)
    )


def _read(ranked: Ranked) -> _Read:
    try:
        found = read_repository(ranked.repo)
    except HarnessError as error:
        return _Read(ranked, "", None, clean(str(error)))
    if found.file and found.weights:
        return _Read(ranked, found.file, found.weights)
    return _Read(ranked, "", None, "it has no GGUF file")


def _named(repo: str) -> str:
    """The name of a repository without its owner and without the word GGUF."""
    return re.sub(r"(?i)[-_.]?gguf$", "", repo.rpartition("/")[2])


def _by_name(repo: str, quant: str) -> Model | None:
    """What the name alone is answered with, where nobody asks the hub; None for no answer."""
    with suppress(HarnessError):
        return resolve_model(_named(repo), quant)
    return None


def _row(read: _Read, before: Mapping[str, str], today: str) -> SeenRepository:
    """The row of one repository; ``before`` is its row of the refresh before, empty for none."""
    ranked = read.ranked
    row = SeenRepository(
        repo=ranked.repo,
        base=ranked.base,
        licence=ranked.licence,
        downloads_a_month=ranked.downloads_a_month,
        like_count=ranked.like_count,
        first_seen=before.get("first_seen") or today,
        seen=before.get("seen", ""),
        fault=read.fault,
    )
    if read.weights is None:
        return row
    row = row._replace(
        file=read.file,
        quant=read.weights.quant,
        architecture=read.weights.shape.architecture,
        layer_count=read.weights.shape.layer_count,
        file_bytes=read.weights.file_bytes,
        cache_bytes=_cache_bytes(read.weights.shape),
        seen=today,
    )
    known = _by_name(ranked.repo, row.quant)
    if known is None:
        return row
    return row._replace(
        known_as=known.card.name if known.card else "guess",
        known_layer_count=known.weights.shape.layer_count,
        known_bytes=known.weights.file_bytes,
        known_cache_bytes=_cache_bytes(known.weights.shape),
    )


def _cache_bytes(shape: ModelShape) -> int:
    context = min(shape.context_max_tokens or CACHE_TOKENS, CACHE_TOKENS)
    return kv_cache_bytes(shape, Scenario(context_tokens=context))


def _write_cards(reads: Iterable[_Read], folder: Path, today: str) -> list[str]:
    """Write a card of each model that no card answers, or that an earlier refresh wrote; returns their names.

    A shape whose weights do not add up to its file is no card: it stays a disagreement of the page.
    """
    written: list[str] = []
    for read in reads:
        name = re.sub(r"[^a-z0-9.-]+", "-", _named(read.ranked.repo).lower()).strip("-.")
        if read.weights is None or not name or name in written or not _is_ours(read.ranked.repo, name):
            continue
        card = _card(read.weights, f"{read.ranked.repo}/{read.file}, seen {today}", read.ranked, name)
        counted_bytes = weights_of(card.shape, read.weights.quant).file_bytes
        if abs(counted_bytes / read.weights.file_bytes - 1) > AGREES:
            continue
        document = msgspec.to_builtins(card)
        filled = {key: value for key, value in document.items() if value not in ("", None, 0, [], ())}
        filled["shape"] = {key: value for key, value in document["shape"].items() if value is not None}
        del filled["name"]
        write_atomically(folder / f"{name}.toml", tomli_w.dumps(filled).encode())
        written.append(name)
    return written


def _is_ours(repo: str, name: str) -> bool:
    """Whether a card of that name may be written: no other card answers the name, or an earlier refresh wrote it."""
    with suppress(UnknownNameError):
        return load_card(name).repo == repo
    try:
        return match(_named(repo)).card is None
    except UnknownNameError:
        return True
    except HarnessError:  # what is no language model gets no card
        return False


def _card(weights: Weights, origin: str, ranked: Ranked, name: str) -> ModelCard:
    """The card of a model by the header of its file; ``origin`` is the file and the day."""
    shape = weights.shape
    read_by_token = sum(
        tensor.element_count * (shape.expert_ratio if tensor.role == "expert" else 1.0)
        for tensor in weights.tensors
    )
    base = _named(ranked.base)
    return ModelCard(
        name=name,
        title=_named(ranked.repo),
        family=shape.architecture,
        licence=ranked.licence,
        source=f"header of {origin}",
        shape=shape,
        parameter_count=weights.weight_count,
        active_parameter_count=round(read_by_token),
        default_quant=weights.quant,
        repo=ranked.repo,
        aliases=(base,) if base and _is_free(base) else (),
    )


def _is_free(name: str) -> bool:
    """Whether no card answers to a name."""
    try:
        return match(name).card is None
    except HarnessError:
        return True


def _table_of(path: Path) -> dict[str, dict[str, str]]:
    """The rows of the refresh before by repository; empty before the first one."""
    if not path.is_file():
        return {}
    text = read_limited(path, _TABLE_MAX_BYTES).decode(errors="replace")
    return {row["repo"]: row for row in csv.DictReader(io.StringIO(text)) if row.get("repo")}


def _changes(rows: Sequence[SeenRepository], before: dict[str, dict[str, str]]) -> list[str]:
    """What is different since the refresh before: files of other bytes, repositories that came or went."""
    if not before:
        return []
    found = []
    for row in rows:
        old = before.get(row.repo)
        if old is None:
            found.append(f"{row.repo} is new in the ranking")
        elif (
            not row.fault
            and old.get("file")
            and (old["file"], old["file_bytes"]) != (row.file, str(row.file_bytes))
        ):
            found.append(
                f"{row.repo}: {row.file} of {row.file_bytes} bytes, was {old['file']} of {old['file_bytes']}"
            )
    here = {row.repo for row in rows}
    return found + [f"{repo} left the ranking" for repo in before if repo not in here]


def _write_tables(
    rows: Sequence[SeenRepository],
    ranking: Sequence[Ranked],
    before: dict[str, dict[str, str]],
    folder: Path,
    cards: Sequence[str],
) -> list[str]:
    """Write both tables and the page; a repository that left the ranking keeps its row, with the day it was seen."""
    here = {row.repo for row in rows}
    gone = [old for repo, old in before.items() if repo not in here]
    table = _csv(SeenRepository._fields, chain((row._asdict() for row in rows), gone))
    seen = max((row.seen for row in rows), default="")
    scores = (
        {"repo": ranked.repo, **score._asdict(), "seen": seen}
        for ranked in ranking
        for score in ranked.scores
    )
    texts = {
        TABLE: table,
        SCORES: _csv(("repo", "benchmark", "metric", "value", "source", "seen"), scores),
        PAGE: page(rows, _changes(rows, before), cards),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [str(folder / name) for name in texts]


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def page(rows: Sequence[SeenRepository], changed: Sequence[str], cards: Sequence[str]) -> str:
    """Return the page of disagreements as Markdown: what files contradict, what no name answers, what was not read."""
    against = [row for row in rows if row.contradictions]
    kinds = Counter("a guess" if row.known_as == "guess" else "a card" for row in against)
    silent = [row for row in rows if not row.known_as and not row.fault]
    faults = [row for row in rows if row.fault]
    seen = max((row.seen for row in rows), default="")
    by_kind = ", ".join(f"{count} against {kind}" for kind, count in sorted(kinds.items()))
    lines = [
        f"# {counted(len(against), 'disagreement')} of {len(rows)} repositories, {seen}",
        "",
        f"A file disagrees with its name where layers differ, or a size by more than {AGREES:.0%}. {by_kind}".strip(),
        "",
        *_table(("repository", "answered by", "the file says"), (
            (row.repo, row.known_as, "; ".join(row.contradictions)) for row in against
        )),
        *_section(f"{len(silent)} names without an answer", (row.repo for row in silent)),
        *_section(f"{len(cards)} cards written", cards),
        *_section("Changed since the refresh before", changed),
        *_section(f"{len(faults)} repositories not read", (f"{row.repo}: {row.fault}" for row in faults)),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [" | ".join(map(escape_markdown, row)) for row in rows]
    if not cells:
        return []
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *(f"| {row} |" for row in cells), ""]


def _section(title: str, items: Iterable[str]) -> list[str]:
    lines = [f"- {escape_markdown(item)}" for item in items]
    return [f"## {title}", "", *lines, ""] if lines else []
