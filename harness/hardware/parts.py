"""Cards, devices, chips and CPUs of the shipped tables, by any name that people, shops and systems write.

``devices/tables/*.csv`` hold one row a thing, its facts and its *keys*: names without spaces, dashes and
words that tell nothing apart. A name is looked up by exact keys only; what is merely like it is suggested,
never taken. The tables are read when a name is in no device file, each at its first use.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, Literal

import msgspec

from harness.core.base import Frozen
from harness.core.device import Confidence
from harness.core.paths import table_rows
from harness.models.names import TABLES

Layer = Literal["devices", "chips", "cards", "cpus"]
LAYERS: Final[tuple[Layer, ...]] = ("devices", "chips", "cards", "cpus")
"""In the order in which a name is looked up: a device says more than its chip."""
_DROPPED: Final = re.compile(TABLES["part_dropped"])
_SPELLINGS: Final = tuple((re.compile(pattern), text) for pattern, text in TABLES["part_spellings"])
_VARIANTS: Final = frozenset(TABLES["part_variants"].split())
_LAPTOPS: Final = re.compile(TABLES["part_laptops"])
_BARE_CARD: Final = re.compile(r"[2-5]0[5-9]0|16[36]0|10[5-8]0|[5-9][4-9][05]0")
_CLOUD: Final = re.compile(r"(?:ml\.)?(?P<family>[a-z]+\d[a-z]*)\.(?P<size>\d*)xlarge")
_GB_PER_VCPU: Final = {"c": 2, "m": 4, "r": 8}
"""Of families of AWS instances, by their first letter; an ``xlarge`` has four vCPUs."""
_NEAR_COUNT: Final = 4
_SHORT: Final = 4
"""Letters from which on a device's name without its maker is surely meant."""
_MOST_RUNS: Final = 200
"""Runs of words that are tried, the shortest, where a line names no device."""
_MAKERS: Final[dict[str, str]] = TABLES["part_makers"]

Row = dict[str, str]


class Component(Frozen, forbid_unknown_fields=False):
    """A row of a table, by the names of its columns; what nobody knows is 0 or empty.

    Attributes:
        layer: The table.
        sizes_gb: Sizes of memory that it is sold with, least first.
        number: How many of it a line names.
        readings: What there is to say of how the line was read.
    """

    layer: Layer
    name: str
    maker: str
    keys: str
    kind: str = ""
    form: str = ""
    year: int = 0
    chip: str = ""
    codename: str = ""
    architecture: str = ""
    cores: int = 0
    gpu: str = ""
    gpu_cores: str = ""
    units: int = 0
    fp32_tflops: float = 0
    fp16_tflops: float = 0
    watts: float = 0
    memory: str = ""
    other_memory: str = ""
    mt_s: int = 0
    bits: int = 128
    gb_s: float = 0
    ceiling: str = ""
    quality: Confidence = "from_memory"
    source: str = "recalled"
    sizes_gb: tuple[float, ...] = ()
    number: int = 1
    readings: tuple[str, ...] = ()


LARGE_GRAPHICS: Final = re.compile(r"(?:Intel |AMD )?(Arc (?:Graphics )?[B1]\d\d[TV]?|Radeon [78]\d0M)")
"""Graphics units that read prompts several times as fast as the CPU beside them, and write no slower: Meteor Lake and
later, RDNA 3 and later."""


def _part(layer: Layer, row: Row) -> Component:
    sizes = sorted(map(float, re.findall(r"\d+(?:\.\d+)?", row.get("ram_gb") or row.get("gb", ""))))
    told = {column: cell for column, cell in row.items() if cell}
    # The table of CPUs names graphics in its notes; small ones run no language model faster than the CPU.
    graphics = LARGE_GRAPHICS.match(row.get("notes", ""))
    if layer == "cpus" and graphics:
        told.setdefault("gpu", graphics[1].replace("Graphics ", ""))
    return msgspec.convert({**told, "layer": layer, "sizes_gb": sizes}, Component, strict=False)


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
    keys = (squashed(part) for text in map(spelled, names) for part in (text, _DROPPED.sub(" ", text)))
    return list(dict.fromkeys(key for key in keys if key))


@lru_cache(maxsize=8)
def _index(layer: Layer) -> dict[str, list[Row]]:
    index: dict[str, list[Row]] = {}
    for row in table_rows("devices", layer):
        for key in row["keys"].split(";"):
            index.setdefault(key, []).append(row)
        graphics = squashed(row.get("gpu", "").lower())
        if re.search(r"\d{3}", graphics) and graphics not in row["keys"].split(
            ";"
        ):  # as drivers name the chip
            index.setdefault(graphics, []).append(row)
    return index


def find(name: str) -> list[Component]:
    """What a name can mean, likeliest first; none where no key is exactly that of the name."""
    text = spelled(aliased(name))
    return next((hits for key in _variants(text) if (hits := _hits(key, text))), [])


def is_another(after: Sequence[str]) -> bool:
    """Whether the word behind a name makes it that of another part, which is not known: POCO F5 Pro, RTX 3070 Super."""
    word = ""
    if after:
        word = re.split(r"[/,:()]", after[0].strip(" ,:()"))[0]
    slips = get_close_matches(word, [variant for variant in _VARIANTS if len(variant) >= _SHORT], cutoff=0.75)
    return word in _VARIANTS or bool(slips)


def of_maker(word: str) -> bool:
    """Whether a word says whose part it stands before."""
    return word in _MAKERS


def is_laptop(words: str) -> bool:
    """Whether words beside a part name a laptop: makers give some lines of them the names of cards, and inches tell."""
    return _LAPTOPS.search(words) is not None


def laptop_card(part: Component) -> Component:
    """The card of that name that laptops have; the card itself where none is sold."""
    name = re.sub(r" \d+ GB.*", "", part.name)
    texts = (f"{name} Laptop", re.sub(" Ada| Blackwell", r" Laptop\g<0>", name))
    return next((hit for text in texts for hit in find(text) if hit.form == "laptop"), part)


def sold_with(chip: str, words: str) -> Component | None:
    """The one device with this chip whose name begins with these words; None for no device, or several."""
    begun = {key for key in keys_of([words]) if re.search(r"\d", key)}
    rows = [
        row
        for key, rows in _index("devices").items()
        for row in rows
        if key.startswith(tuple(begun)) and squashed(spelled(row["chip"])) == squashed(spelled(chip))
    ]
    names = {row["name"] for row in rows}
    if len(names) == 1:
        return _part("devices", rows[0])
    return None


def tells(name: str) -> bool:
    """Whether words are enough to name a part beside others: figures alone are where they are those of a card."""
    text = squashed(name)
    return len(text) > 1 and (not text.isdigit() or _BARE_CARD.fullmatch(text) is not None)


def _hits(key: str, text: str) -> list[Component]:
    """Rows of a key, but for those of another maker than the text names."""
    named = {maker for word, maker in _MAKERS.items() if word in text}
    hits = []
    for layer in LAYERS:
        for row in _index(layer).get(key, ()):
            rival = named and row["maker"] in _MAKERS.values() and row["maker"] not in named
            cpu = next(iter(_index("cpus").get(key, ())), None) if layer == "chips" else None
            if cpu and cpu["name"] != row["name"]:  # a sibling: its own memory, the row's GPU
                row = row | {column: cpu[column] for column in cpu if column != "keys"}  # noqa: PLW2901
            if not rival:
                hits.append(_part(layer, row))
    # M5 is first a chip, and then what somebody calls a computer
    return sorted(hits, key=lambda part: len(key) < _SHORT and part.layer == "devices")


def aliased(name: str) -> str:
    """The name that the file of aliases has for this one; without an alias, the name itself."""
    known = _aliases()
    if cloud := _CLOUD.fullmatch(name.strip()):
        return _of_cloud(cloud, known) or name
    for asked in keys_of([name]):
        if asked in known:
            return known[asked]
        # a maker's name with what is in it: NUC 13 Pro i7-1360P
        for key, means in known.items():
            is_begun = asked.startswith(key) and len(key) > _SHORT
            if is_begun and asked.removeprefix(key) in squashed(spelled(means)):
                return means
    return name


def _of_cloud(cloud: re.Match[str], known: dict[str, str]) -> str:
    """Parts of an AWS instance: of one with GPUs their number, else the RAM that its family has for each vCPU."""
    family = cloud["family"]
    size = int(cloud["size"] or 1)
    part = known.get(squashed(cloud[0].removeprefix("ml."))) or known.get(family, "")
    if not part and family[0] in _GB_PER_VCPU:  # families of one generation differ in their memory alone
        alike = [known.get(letter + family[1:], "") for letter in _GB_PER_VCPU]
        part = max(alike)
    if not part or known.get(squashed(cloud[0].removeprefix("ml."))):
        return part
    if family[0] == "g":
        if size in {12, 24, 48}:
            return f"{8 if size > 24 else 4}x {part}"
        return part
    gb = _GB_PER_VCPU.get(family[0], 0) * 4 * size
    if gb:
        return f"{part}, {gb}gb"
    return part


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    """Names of the file of aliases, squashed, and what each means."""
    return {squashed(spelled(row["name"])): row["means"] for row in table_rows("devices", "aliases")}


def _variants(text: str) -> Iterator[str]:
    keys = keys_of([text])
    if not keys:
        return
    yield from keys
    for before in TABLES["part_before"].split():
        yield before + keys[-1]
    for key in keys:
        yield key.removesuffix("5g") if key.endswith("5g") else f"{key}5g"
        yield from (f"{key}laptop", f"rtx{key}laptop")  # cards that are sold for laptops alone
        yield re.sub(r"^(arc|rtx|radeon)", r"\1pro", key)
    if model := re.fullmatch(r"(sm([a-z])(\d\d)(\d))[a-z]{0,2}\d?", keys[0]):
        yield model[1]  # a Samsung for one region
        if model[2] in "am":  # SM-A156: Galaxy A15, the fifth generation of radio
            yield f"galaxy{model[2]}{model[3]}" + ("5g" if model[4] == "6" else "")


def known_part(text: str) -> str:
    """The longest run of words of a line that names a part, with the RAM behind it; empty where none does."""
    words = [word.strip(" ,;:()") for word in text.split()]
    runs = sorted(
        ((i, j) for i in range(len(words)) for j in range(i + 1, len(words) + 1)),
        key=lambda run: run[0] - run[1],
    )
    size = re.search(r"\d+ ?gb\b", text)
    for start, end in runs[-_MOST_RUNS:]:
        run = " ".join(words[start:end])
        wrong_maker = start and of_maker(words[start - 1])
        if wrong_maker or is_another(words[end : end + 1]) or run == text:
            continue
        if re.search(r"\d", run) and len(squashed(run)) >= _SHORT and tells(run) and find(run):
            return ", ".join(filter(None, [run, size[0] if size and size[0] not in run else ""]))
    return ""


def near(name: str) -> list[str]:
    """Names of rows that look like this one, best first."""
    wanted = next(_variants(spelled(name)), "")
    close: dict[str, None] = {}
    for layer in LAYERS:
        index = _index(layer)
        begun = [key for key in index if key[:1] == wanted[:1]]
        for key in get_close_matches(wanted, begun, n=_NEAR_COUNT, cutoff=0.75):
            close[index[key][0]["name"]] = None
    return list(close)[:_NEAR_COUNT]
