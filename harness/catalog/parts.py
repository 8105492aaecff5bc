"""Cards, devices, chips and CPUs of the shipped tables, by any name that people, shops and systems write.

``devices/tables/*.csv`` hold one row a thing, its facts and its *keys*: names without spaces, dashes and words that
tell nothing apart. A name is looked up by exact keys only; what is merely like it is suggested, never taken. The
tables are read when a name is in no device file, each at its first use.
"""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from harness.catalog.names import TABLES
from harness.catalog.paths import table_rows

Layer = Literal["devices", "chips", "cards", "cpus"]
LAYERS: Final[tuple[Layer, ...]] = ("devices", "chips", "cards", "cpus")
"""In the order in which a name is looked up: a device says more than its chip."""
_DROPPED: Final = re.compile(TABLES["part_dropped"])
_SPELLINGS: Final = tuple((re.compile(pattern), text) for pattern, text in TABLES["part_spellings"])
_ROOM: Final = re.compile(TABLES["part_room"])
_NEAR_COUNT: Final = 4
_SHORT: Final = 4
"""Letters from which on a device's name without its maker is surely meant."""
_MAKERS: Final[dict[str, str]] = TABLES["part_makers"]

Row = dict[str, str]


class TablePart(NamedTuple):
    """A row of a table, words of the name that it does not explain, and the name of a sibling that it stands for."""

    layer: Layer
    row: Row
    rest: str = ""
    asked: str = ""

    @property
    def called(self) -> str:
        """The name that was meant: the sibling's, where the row stands for one."""
        return self.asked or self.row["name"]

    @property
    def bandwidth_gb_s(self) -> float:
        """GB/s of its memory; 0 where nobody knows."""
        return float(self.row["gb_s"] or 0)

    @property
    def sizes_gb(self) -> tuple[float, ...]:
        """Sizes of memory that it is sold with, least first."""
        text = self.row["gb"] if self.layer == "cards" else self.row.get("ram_gb", "")
        return tuple(sorted(float(size) for size in re.findall(r"\d+(?:\.\d+)?", text)))


@lru_cache(maxsize=8192)
def spelled(name: str) -> str:
    """A name in lower case, as one spelling of what people write in several."""
    text = " ".join(name.lower().split())
    for pattern, words in _SPELLINGS:
        text = pattern.sub(words, text)
    return text


def squashed(text: str) -> str:
    """Letters and digits, and the plus that tells devices apart."""
    return re.sub(r"[^a-z0-9+]", "", text)


def keys_of(names: Iterable[str]) -> list[str]:
    """Keys of names, with and without makers and lines of products."""
    texts = [spelled(name) for name in names]
    keys = (squashed(part) for text in texts for part in (text, _DROPPED.sub(" ", text)))
    return list(dict.fromkeys(key for key in keys if key))


@lru_cache(maxsize=8)
def _index(layer: Layer) -> dict[str, list[Row]]:
    index: dict[str, list[Row]] = {}
    for row in table_rows("devices", layer):
        for key in row["keys"].split(";"):
            index.setdefault(key, []).append(row)
    return index


def find(name: str) -> list[TablePart]:
    """What a name can mean, likeliest first; none where no key is exactly that of the name or of a part of it.

    A part counts where the other words are a kind of computer, a maker or a year (``MacBook Pro 16 M3 Max``).
    """
    text = spelled(aliased(name))
    for key in _variants(text):
        if hits := _hits(key, text):
            return hits
    words = text.split()
    for count in range(len(words) - 1, 0, -1):
        for start in range(len(words) - count + 1):
            rest = " ".join(words[:start] + words[start + count :])
            inner = " ".join(words[start : start + count])
            if _ROOM.fullmatch(rest) and len(squashed(inner)) > 1:
                for key in keys_of([inner]):
                    if hits := _hits(key, text):
                        return [part._replace(rest=rest) for part in hits]
    return []


def _hits(key: str, text: str) -> list[TablePart]:
    """Rows of a key, but for those of another maker than the text names."""
    named = {maker for word, maker in _MAKERS.items() if word in text}
    hits = []
    for layer in LAYERS:
        for row in _index(layer).get(key, ()):
            rival = named and row["maker"] in _MAKERS.values() and row["maker"] not in named
            sibling = layer == "chips" and row["maker"] in {"AMD", "Intel"} and re.search(r"\d{3}", key)
            own = squashed(spelled(row["name"]))
            asked = key if sibling and key not in own and own not in key and "radeon" not in key else ""
            if not rival:
                hits.append(TablePart(layer, row, asked=f"{row['maker']} {asked.upper()}" if asked else ""))
    # M5 is first a chip, and then what somebody calls a computer
    return sorted(hits, key=lambda part: len(key) < _SHORT and part.layer == "devices")


def aliased(name: str) -> str:
    """What the file of aliases says that a name means; else the name."""
    return _aliases().get(squashed(spelled(name)), name)


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    """Names of the file of aliases, squashed, and what each means."""
    return {squashed(spelled(row["name"])): row["means"] for row in table_rows("devices", "aliases")}


def _variants(text: str) -> Iterator[str]:
    keys = keys_of([text])
    yield from keys
    for before in TABLES["part_before"].split():
        yield before + keys[-1] if keys else ""
    for key in keys:
        yield key.removesuffix("5g") if key.endswith("5g") else f"{key}5g"
    if model := re.fullmatch(r"(sm[a-z]\d{3})[a-z]\d?", keys[0] if keys else ""):  # a Samsung for one region
        yield model[1]


def near(name: str) -> list[str]:
    """Names of rows that look like this one, best first."""
    wanted = [*_variants(spelled(name))]
    close: dict[str, None] = {}
    for layer in LAYERS:
        index = _index(layer)
        begun = [key for key in index if key[:1] == wanted[0][:1]] if wanted else []
        for key in get_close_matches(wanted[0] if wanted else "", begun, n=_NEAR_COUNT, cutoff=0.75):
            close[index[key][0]["name"]] = None
    return list(close)[:_NEAR_COUNT]
