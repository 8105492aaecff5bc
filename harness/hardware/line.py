"""One line about a machine, cut into names of parts, figures beside them, and words that nobody knows.

A line may be what a forum says (``2x 3090 on a 9950X with 96GB``), or what a program printed: lspci,
nvidia-smi, system_profiler, /proc/cpuinfo, llama.cpp. Known parts are found wherever they stand. The rest is
kept, so that the answer can name what it left out.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from harness.core.device import APIS, Sourced, Storage
from harness.core.errors import InputError
from harness.core.isa import ISA
from harness.core.paths import shipped_files
from harness.core.tables import expect_all, regex, shipped_table, words
from harness.core.units import GB, MB
from harness.hardware.parts import find, is_another, is_laptop, of_maker, squashed, tells


def read_machines() -> dict[str, Any]:
    """``data/machines.toml``, whose patterns compile and whose names exist.

    Raises:
        BadDataError: A slip in the file: names the place in it.
    """
    path = "data/machines.toml"
    document = shipped_table(path)
    expect_all(path, "memory", enumerate(document["memory"]), regex)
    expect_all(path, "line", document["line"], regex)
    for table in ("apis", "isa"):
        expect_all(path, f"{table}, pattern", enumerate(document[table]), regex)
        known = words(APIS if table == "apis" else ISA)
        expect_all(
            path, table, ((regular, " ".join(cells)) for regular, cells in document[table].items()), known
        )
    files = set(shipped_files("devices"))
    expect_all(path, "kinds", ((kind, row[2]) for kind, row in document["kinds"].items()), files)
    expect_all(path, "card_hosts", document["card_hosts"], files)
    for table in ("storage", "lanes", "usual_mt_s", "words", "links"):
        expect_all(path, table, document[table], float)
    return document


DATA: Final = read_machines()
_PATTERNS: Final = {name: re.compile(pattern) for name, pattern in DATA["line"].items()}
_MEMORY: Final = tuple(re.compile(pattern) for pattern in DATA["memory"])
SAID: Final = "said"
"""Source of a figure that stands in the line."""
_SILENT: Final = frozenset(" ".join(DATA["silent"]).split())
_SHORT: Final = 4
"""Letters and figures from which a name may stand among words that nobody knows."""
_LONG: Final = 12
"""Letters of a name of one word without figures that is no common word."""
_SUFFIX: Final = 5
"""Letters of a word that may tell devices of one name apart."""
_LONGEST_RUN: Final = 9
_MOST_WORDS: Final = 60
"""Of a line: a longer one is no machine's."""


class MemoryWords(NamedTuple):
    """What a line says of RAM; 0 and empty where it says nothing."""

    gb: float = 0.0
    kind: str = ""
    mt_s: int = 0
    channels: int = 0
    gb_s: float = 0.0
    sticks: int = 0
    is_ram: bool = False


class Named(NamedTuple):
    """A name in a line: how many of it, and the memory that stands beside it (GB, 0 for none)."""

    name: str
    number: int = 1
    gb: float = 0.0


class PartsLine(NamedTuple):
    """A line cut into its parts.

    Attributes:
        names: Names of parts, known or like those of parts.
        watts: A limit of power; 0 for none.
        system: An operating system with its version, as the table of systems writes it.
        storage: Where the model would be read from; None where the line says nothing of it.
        link: Words that narrow the link to a card (``x4``, ``egpu``); empty for none.
        beside: All words that name no part.
    """

    names: tuple[Named, ...]
    ram: MemoryWords = MemoryWords()
    watts: float = 0.0
    system: str = ""
    storage: Storage | None = None
    link: str = ""
    beside: str = ""

    @property
    def ignored(self) -> tuple[str, ...]:
        """Words that the answer takes no notice of, but for makers, forms and what programs print around a name."""
        words = (word.strip(" ,:;|()[]=\"'").lower() for word in self.beside.split())
        told = (word for word in words if re.search(r"[a-z]{2}|[a-z]\d|\d[a-z]", word))
        return tuple(dict.fromkeys(word for word in told if word not in _SILENT and not is_laptop(word)))


def parse(ref: str) -> PartsLine:
    """Cut a line into the names of parts and the figures beside them (InputError: storage that reads nothing)."""
    text = " ".join(ref.lower().replace("_", " ").split())
    if _PATTERNS["identifier"].fullmatch(text):
        return PartsLine((Named(text),))
    beside = list[str]()
    if _PATTERNS["pci"].match(text):
        text, others = of_lspci(text)
        beside.append(others)
    text = re.sub(r"\([^)]*\)", lambda inner: inner[0].replace(",", " "), text)
    if " " not in text:  # the name of a device that a line made
        text = re.sub(r"(?<=[a-z0-9])\+(?=[a-z0-9])", " + ", text.replace("-", " "))
    text = re.sub(r"\b((?:lp)?ddr\d[xtl]?) (?=\d{4,5}\b)", r"\1-", _PATTERNS["dropped"].sub("", text))
    text, watts = _without("watts", text)
    text, system = _without("system", text)
    text, link = _without("link", text)
    text, storage = _storage_in(text)
    names = list[Named]()
    ram = MemoryWords()
    if text.count(" ") >= _MOST_WORDS:
        return PartsLine((), beside=text)
    for segment in _PATTERNS["cut"].split(text):
        inside, left = _parts_in(segment.strip(" ,:@").split())
        rest, memory = memory_in(" ".join(left))
        rest = " ".join(rest.strip(" ,:-@").split())
        ram = MemoryWords._make(new or old for new, old in zip(memory, ram, strict=True))
        names += inside
        if not inside and (find(rest) or _PATTERNS["part"].search(rest)):
            names.append(Named(rest, gb=memory.gb))
        elif rest:
            beside.append(rest)
    if not names and beside:
        names.append(Named(" ".join(beside)))
        beside.clear()
    return PartsLine(
        names=tuple(names),
        ram=ram,
        watts=float(watts or 0),
        system=_system(system),
        storage=storage,
        link=link,
        beside=" ".join(beside),
    )


def memory_in(segment: str) -> tuple[str, MemoryWords]:
    """The segment without its figures of memory, and these."""
    said: dict[str, str] = {}
    for pattern in _MEMORY:
        if hit := pattern.search(segment):
            said |= {name: text for name, text in hit.groupdict().items() if text}
            segment = f"{segment[: hit.start()]} {segment[hit.end() :]}"
    sticks = int(said.get("sticks", 0))
    mib = round(int(said.get("mib", 0)) / 1024)
    memory = MemoryWords(
        gb=float(said.get("gb") or mib or sticks * float(said.get("each", 0))),
        kind=said.get("kind") or ("ddr" + said["generation"] if "generation" in said else ""),
        mt_s=int(said.get("mt_s") or round(int(said.get("mb_s", 0)) / 8)),
        channels=_number(said.get("channels", "0")),
        gb_s=float(said.get("gb_s", 0)),
        sticks=sticks,
        is_ram="ram" in said,
    )
    return segment, memory


def of_lspci(text: str) -> tuple[str, str]:
    """What a line of lspci calls a card: the first of its names in brackets that is known, and its other names."""
    for inner in re.findall(r"\[([^\]]+)\]", text):
        family = re.match(r"(?:radeon (?:rx|pro) |geforce |arc )?", inner)
        for name in re.split(r"\s*/\s*", inner):
            for called in (name, f"{family[0] if family else ''}{name}"):
                if (re.search(r"\d", called) or " " in called) and find(called):
                    return called, inner.replace(name, "", 1).replace("/", " ")
    return re.sub(r"[\[\]/]", " ", text), ""


def _parts_in(words: Sequence[str]) -> tuple[list[Named], list[str]]:
    """Parts that nothing need separate, the longest known runs of words first, and the words that are left."""
    for size in range(min(len(words), _LONGEST_RUN), 0, -1):
        for start in range(len(words) - size + 1):
            before = words[:start]
            after = words[start + size :]
            named = _named(" ".join(words[start : start + size]), before, after)
            if named is not None:
                earlier, left = _parts_in(before)
                later, right = _parts_in(after)
                return [*earlier, named, *later], [*left, *right]
    return [], list(words)


def _named(run: str, before: Sequence[str], after: Sequence[str]) -> Named | None:
    """The part that a run of words names, with its number and the memory of its own beside it."""
    count = _PATTERNS["count"].search(run)
    bare = _PATTERNS["count"].sub("", run, count=1)
    rest, memory = memory_in(bare)
    number = _number(next(filter(None, count.groups()))) if count else 1
    if len(squashed(bare)) < _SHORT and not _is_silent([*before, *after]):
        return None
    if before and of_maker(before[-1]) and not find(f"{before[-1]} {bare}"):
        return None  # Radeon 4090
    if memory.gb and memory == MemoryWords(gb=memory.gb) and _is_part(rest.strip(), memory.gb):
        return Named(rest.strip(), number, memory.gb)
    if _is_part(bare, after=after):
        return Named(bare, number, memory.gb)
    return None


def _is_part(name: str, gb: float = 0.0, after: Sequence[str] = ()) -> bool:
    """Whether a name is a part's, surely enough to stand among other words.

    With ``gb`` the part must be a card that is sold with so much memory.
    """
    length = len(squashed(name))
    is_told = re.search(r"\d", name) or length > _LONG or (" " in name and length > _SHORT)
    hits = find(name) if is_told and tells(name) else []
    if not hits or (gb and not any(hit.layer == "cards" and gb in hit.sizes_gb for hit in hits)):
        return False
    if hits[0].layer != "devices":
        return not is_another(after)
    return length > _SHORT and not is_another(after) and not _is_suffix(after)


def _is_suffix(after: Sequence[str]) -> bool:
    """Whether the word behind a device's name may be the end of another one's, which nobody knows: iPhone 16 Por."""
    word = ""
    if after:
        word = after[0].strip(" ,:()")
    return word.isalpha() and len(word) <= _SUFFIX and word not in _SILENT


def _is_silent(words: Sequence[str]) -> bool:
    """Whether words say nothing but memory, makers and forms."""
    rest, _ = memory_in(" ".join(words))
    return all(word.strip(" ,:()") in _SILENT or not re.search(r"[a-z0-9]", word) for word in rest.split())


def _without(what: str, text: str) -> tuple[str, str]:
    """The text without the first match of a pattern, and the match, which is empty where there is none."""
    hit = _PATTERNS[what].search(text)
    if hit:
        return (text[: hit.start()] + " " + text[hit.end() :], hit[1])
    return (text, "")


def _system(words: str) -> str:
    """A system as the table writes it: ``macos sequoia 15.3`` is ``macos 15``."""
    name = words.split()[:1]
    versions = re.findall(r"\d\d", words)
    return " ".join([*name, *versions[:1]])


def _storage_in(text: str) -> tuple[str, Storage | None]:
    """The text without what it says of storage, and that: a rate beside the word, or the usual one of its kind."""
    hit = _PATTERNS["storage"].search(text)
    if hit is None:
        return text, None
    kind = " ".join(" ".join(filter(None, hit.group("before", "kind", "after"))).split())
    stated = hit["rate"] or hit["rated"]
    stated_bytes = float(stated[:-1]) * {"g": GB, "m": MB}[stated[-1]] if stated else 0.0
    if stated and not stated_bytes:
        raise InputError(
            f"{text!r}: found storage of {stated[:-1].strip()} {stated[-1].upper()}B/s, expected a rate above 0"
        )
    usual = next(rate for word, rate in DATA["storage"].items() if word in kind)
    source = SAID if stated else f"usual of {kind}"
    rate = Sourced(stated_bytes or usual * GB, source, "secondary" if stated else "assumed")
    rest = f"{text[: hit.start()]} {text[hit.end() :]}"
    return rest, Storage(technology=kind, sequential_read_bytes_per_s=rate)


def _number(word: str) -> int:
    return int(DATA["words"].get(word, word))
