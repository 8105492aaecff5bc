"""What programs print of a machine, and what clouds and forums write, as one plain line of parts.

lspci, nvidia-smi, lscpu, dmidecode, system_profiler, fastfetch and Windows print fields; each field says one thing,
and numbers of other fields (clocks, temperatures, disks, power drawn) are no part's. In a line of words each number is
claimed once, with its unit: a clock, a rate of memory, a size of storage, a count. ``hardware/data/pasted.toml`` has the
names of fields and the spellings, ``instances.csv`` what clouds rent.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from harness.core.base import Frozen
from harness.core.errors import RefusedError
from harness.core.printable import clean
from harness.core.tables import Row, expect_all, regex, shipped_rows, shipped_table
from harness.hardware.parts import find


class Pasted(Frozen):
    """What ``hardware/data/pasted.toml`` holds; the file says what each table is."""

    fields: dict[str, str]
    marks: dict[str, str]
    spellings: list[dict[Literal["pattern", "text"], str]]
    refused: list[dict[Literal["pattern", "why"], str]]


def read_pasted() -> Pasted:
    """``hardware/data/pasted.toml``, whose patterns compile.

    Raises:
        BadDataError: A slip in the file: names the place in it.
    """
    path = "hardware/data/pasted.toml"
    found = shipped_table(path, into=Pasted)
    expect_all(path, "fields", found.fields, regex)
    expect_all(path, "marks", found.marks, regex)
    expect_all(path, "spellings, pattern", enumerate(one["pattern"] for one in found.spellings), regex)
    expect_all(path, "refused, pattern", enumerate(one["pattern"] for one in found.refused), regex)
    return found


_TABLE: Final = read_pasted()
_MARKS: Final = {name: re.compile(pattern) for name, pattern in _TABLE.marks.items()}
_SPELLINGS: Final = tuple((re.compile(one["pattern"]), one["text"]) for one in _TABLE.spellings)
_REFUSED: Final = tuple((re.compile(one["pattern"]), one["why"]) for one in _TABLE.refused)
_LEFT: Final = "left"
_MOST_STORAGE_RATIO: Final = 8
"""Of two sizes joined by a plus, as shops write phones, the larger is storage from this ratio on."""
_MIB_PER_GIB: Final = 1024
_NEAR_SIZE: Final = 0.1
"""A driver shows up to so much less of a card's memory than is on it."""


class Plain(NamedTuple):
    """A line of parts, and what there is to say of how it was made from the text; no ``line`` where it stood as it is."""

    line: str
    said: tuple[str, ...] = ()


def plain(ref: str) -> Plain:
    """One line of parts that means the same as a text, in small letters.

    Raises:
        RefusedError: The text names what is no computer that a model could run on: says why.
    """
    text = re.sub(r"[^\S\n]+", " ", ref.lower()).strip().replace("\t", " ")
    text = _MARKS["pci_ids"].sub("", text)
    for pattern, why in _REFUSED:
        if (hit := pattern.search(text)) and not find(text):
            raise _refused(ref, hit[0], why)
        if hit and "console" in why:
            raise _refused(ref, hit[0], why)
    if rented := _instance(text):
        return Plain(rented, (f"{clean(ref)} is taken for {rented}",))
    for read in (_of_smi, _of_lspci, _of_modules, _of_fields):
        if line := read(text):
            return Plain(_claimed(line), (f"read from what was pasted: {line}",))
    return Plain(_claimed(" ".join(text.split())))


def _refused(ref: str, found: str, why: str) -> RefusedError:
    helped = ""
    if "virtual" in why:
        size = re.search(r"(\d+) ?gb\b(?! (?:nvme|ssd|disk|storage))", ref.lower())
        gb = size[1] if size else "4"
        helped = f". Ask with that and the RAM, such as -d 'epyc 7763, {gb}GB' (a share of a host is slower than the whole host)"
    return RefusedError(f"{clean(ref)!r} ({clean(found)}): {why}{helped}")


def _instance(text: str) -> str:
    """Parts of an instance that a cloud rents by a name of its own; empty for any other text."""
    name = re.sub(r"^(?:aws|ec2|gcp|azure|google cloud|ml\.|runpod|lambda|oracle) ?", "", text).removesuffix(
        " instance"
    )
    extra = ""
    for sizes in _instances():
        part, size, ram, cards = sizes
        if re.fullmatch(rf"{size}(?:[ ,]+.*)?", name):
            extra = name[re.match(size, name).end() :] if (re.match(size, name)) else ""  # type: ignore[union-attr]
            count = f"{cards}x " if cards != "1" else ""
            given = re.search(r"(\d+) ?gb", extra)
            memory = ram or (given[1] if given else "")
            own = next(
                (f" {gb:g}gb" for hit in find(part)[:1] for gb in hit.sizes_gb[:1] if f"{gb:g}" == memory), ""
            )
            return f"{count}{part}{own}" + (f" + {memory}gb" if memory else "")
    return ""


def _known_part(cell: str) -> str:
    return "" if find(cell) else "the name of a card or CPU that is listed"


def _sizes(cell: str) -> str:
    form = r"(\S[^=:]*=\d+(x\d+)?( |$))*"
    return "" if re.fullmatch(form, cell) else "sizes such as xlarge=16 12xlarge=192x4"


def read_instances() -> list[Row]:
    """The rows of ``hardware/data/instances.csv``.

    Raises:
        BadDataError: A part that is not listed, or sizes that cannot be read.
    """
    return shipped_rows("hardware/data/instances.csv", columns={"part": _known_part, "sizes": _sizes})


@lru_cache(maxsize=1)
def _instances() -> list[tuple[str, str, str, str]]:
    """Part, pattern of the name, GB of RAM and number of cards of each instance that is listed."""
    listed = list[tuple[str, str, str, str]]()
    for row in read_instances():
        family = re.escape(row["pattern"])
        separated = (
            "" if row["pattern"][-1] in "- " or row["pattern"].startswith(("standard", "hetzner")) else r"\."
        )
        if not row["sizes"]:
            listed.append((row["part"], family, "", "1"))
        for size, ram, cards in re.findall(r"(\S[^=]*)=(\d+)(?:x(\d+))?", row["sizes"]):
            pattern = family + separated + re.escape(size.strip()) + r"(?:-nvme)?"
            listed.append((row["part"], pattern, ram, cards or "1"))
    return listed


def _of_smi(text: str) -> str:
    """Cards of ``nvidia-smi``, ``nvidia-smi -L`` and ``--query-gpu=name,memory.total --format=csv``."""
    cards = [hit["name"] for hit in _MARKS["smi_list"].finditer(text)]
    if not cards and (rows := [hit["name"] for hit in _MARKS["smi_row"].finditer(text)]):
        totals = [float(hit["mib"]) / _MIB_PER_GIB for hit in _MARKS["smi_total"].finditer(text)]
        cards = [
            _with_memory(name, gib) for name, gib in zip(rows, [*totals, *[0.0] * len(rows)], strict=False)
        ]
    if not cards:
        hits = _MARKS["smi_csv"].finditer(text)
        cards = [_with_memory(hit["name"], float(hit["mib"]) / _MIB_PER_GIB) for hit in hits]
    return _counted(cards)


def _with_memory(name: str, gib: float) -> str:
    """A card's name with the size that is sold nearest above what its driver shows."""
    sizes = {
        size
        for part in find(name.strip())
        for size in part.sizes_gb
        if 0 <= size / (gib or 1) - 1 < _NEAR_SIZE
    }
    return f"{name.strip()} {min(sizes):g}gb" if sizes and not re.search(r"\d ?gb", name) else name.strip()


def _counted(names: list[str]) -> str:
    """Names with their numbers, joined as a line of parts."""
    counts = Counter(" ".join(name.split()) for name in names)
    return " + ".join(f"{number}x {name}" if number > 1 else name for name, number in counts.items())


def _of_lspci(text: str) -> str:
    """Cards of several lines of ``lspci``; empty for one line, which stands as it is, unless it is a CPU's graphics."""
    starts = [hit.start() for hit in _MARKS["pci"].finditer(text)]
    if not starts:
        return ""
    entries = [text[i:j].strip() for i, j in zip(starts, [*starts[1:], len(text)], strict=True)]
    shown = [entry for entry in entries if _MARKS["display"].search(entry)] or entries
    cards = [entry for entry in shown if not _MARKS["integrated"].search(entry)]
    if not cards and (lake := re.search(r"(\w+ lake|lunar lake)", shown[0])):
        raise RefusedError(
            f"{clean(shown[0])!r} is the graphics of an Intel {lake[1].title()} CPU, which shares the RAM: name the CPU "
            "as `lscpu` prints it, with its memory (-d 'core ultra 7 155h, 32GB lpddr5x-7467')"
        )
    if len(entries) == 1 or not cards:
        return ""
    from harness.hardware.line import of_lspci

    return _counted([of_lspci(entry)[0] for entry in cards])


def _of_modules(text: str) -> str:
    """Memory modules as ``dmidecode -t memory`` lists them."""
    sizes = [(int(hit["size"]), hit["unit"]) for hit in _MARKS["module"].finditer(text)]
    kind = _MARKS["module_kind"].search(text)
    if not sizes or kind is None:
        return ""
    each = [size if unit.startswith("g") else size / _MIB_PER_GIB for size, unit in sizes]
    rates = [int(hit["rate"]) for hit in _MARKS["module_rate"].finditer(text)]
    rate = f"-{min(rates)}" if rates else ""
    return f"{len(each)}x{sum(each) / len(each):g}gb {kind['kind']}{rate}"


def _of_fields(text: str) -> str:
    """The parts that fields with names tell: host, CPU, cards and memory, each from its own field."""
    if not _MARKS["fields"].search(text):
        return ""
    told = dict[str, list[str]]()
    for name, value in _fields(text):
        if value:
            told.setdefault(name, []).append(value)
    if not {"cpu", "gpu", "host", "ram"} & told.keys():
        return ""
    hosts, cpus = _hosts_and_cpus(told)
    shown = [
        re.sub(r"\[(?:discrete|integrated)\]", " ", gpu)
        for gpu in told.get("gpu", ())
        if not _is_integrated(gpu)
    ]
    apple = [gpu for gpu in shown if "apple" in gpu]
    cards = _counted([gpu for gpu in shown if gpu not in apple])
    parts = [cards, *hosts[:1], *cpus[:1]]
    if apple and not (hosts or cpus):
        cores = f" {told['cores'][0].split()[0]}-core gpu" if "cores" in told else ""
        parts.append(apple[0] + cores)
    if (
        "sockets" in told
        and told["sockets"][0].strip().isdigit()
        and cpus
        and told["sockets"][0].strip() != "1"
    ):
        parts[-1] = f"{told['sockets'][0].strip()}x {parts[-1]}"
    beside = " ".join(cpu for cpu in told.get("cpu", ()) if re.search(r"\d ?gi?b\b", cpu))
    return " + ".join(filter(None, [*parts, _memory_of(told.get("ram", [beside])[0])]))


def _hosts_and_cpus(told: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """What a text's fields name as computers and as CPUs; a CPU without a model's name tells nothing."""
    hosts = list[str]()
    cpus = list[str]()
    for value in told.get("host", ()):
        bare = re.sub(r"\(.*", "", value).strip(" ,")
        for name in (value, bare):
            if find(name) or re.fullmatch(r"[a-z]+\d+,\d+", name):
                hosts.append(name)
                break
    identifiers = [host for host in hosts if re.fullmatch(r"[a-z]+\d+,\d+", host)]
    for value in told.get("cpu", ()):
        name = re.sub(r"\s*\(\d+\)|\s+w/ .*|\s+with radeon.*|@.*", "", value).strip()
        if find(name) and not (identifiers and name.startswith("apple")):
            cpus.append(name)
        elif re.search(r"\d{3}", name) and not find(name):
            tried = [word for word in re.split(r"\s+-\s+|,", name) if find(word)]
            cpus.append(tried[0] if tried else name)
    if any("apple" in cpu for cpu in cpus) and not identifiers:
        hosts = []  # a Mac is its chip
    return identifiers or hosts, cpus


def _is_integrated(gpu: str) -> bool:
    return _MARKS["integrated"].search(gpu) is not None and "[discrete]" not in gpu


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """Kind and value of each field, in order; those that tell nothing of a machine are read over."""
    kinds = [(kind, name) for kind, pattern in _TABLE.fields.items() for name in [pattern.replace("\n", "")]]
    colon = r"\s*:\s*" if "installed ram" not in text else r"(?:\s*:\s*|\s+)"
    whole = "|".join(
        f"(?P<{kind}>{pattern})" for kind, pattern in sorted(kinds, key=lambda one: one[0] != _LEFT)
    )
    start = r"(?:^|(?<=[\n;|]))\s*" if "\n" in text else r"(?:^|(?<=[\s,;|)]))"
    hits = list(re.finditer(rf"{start}(?:{whole}){colon}", text))
    for hit, after in zip(hits, [*hits[1:], None], strict=True):
        value = text[hit.end() : after.start() if after else len(text)]
        yield hit.lastgroup or _LEFT, value.strip(" \n,;|")


def _memory_of(value: str) -> str:
    """RAM of a field: the whole behind a slash, else the first figure, with its kind."""
    whole = re.sub(r"\([^)]*\)", "", value)
    figure = re.search(r"(?:/ ?)(\d+(?:[.,]\d+)?) ?(gi?b|mi?b)", whole) or re.search(
        r"(\d+(?:[.,]\d+)?) ?(gi?b|mi?b|kb)", whole
    )
    if figure is None:
        return ""
    number = float(figure[1].replace(",", "."))
    gb = number / {"g": 1, "m": _MIB_PER_GIB, "k": _MIB_PER_GIB**2}[figure[2][0]]
    kind = re.search(r"(?:lp)?ddr\d\w*", whole)
    rate = re.search(r"(\d{3,5}) ?(?:mt/s|mhz)", whole)
    beside = f" {kind[0]}" + (f"-{rate[1]}" if rate else "") if kind else ""
    return f"{round(gb, 1):g}gb{beside}"


def _claimed(text: str) -> str:
    """The line with counts, clocks, rates and storage claimed by their units."""
    for pattern, words in _SPELLINGS:
        text = pattern.sub(words, text)
    text = re.sub(r"(?<![\d.])(\d+) ?gb ?\+ ?(\d+) ?gb\b", _ram_of_two, text)
    text = re.sub(
        r"(?<![\d.])(\d+(?:\.\d+)?) ?tb\b( (?:of )?(?:ram|memory|ddr\w*|rdimm|lrdimm))?",
        _terabytes(text),
        text,
    )
    return " ".join(text.split()).strip(" ,").removesuffix(" +")


def _ram_of_two(hit: re.Match[str]) -> str:
    least, most = sorted((int(hit[1]), int(hit[2])))
    return f"{least}gb" if most >= _MOST_STORAGE_RATIO * least else hit[0]


def _terabytes(text: str) -> Callable[[re.Match[str]], str]:
    """What stands for a size in TB: RAM where the line says so, or of a server without another size; else storage, left out."""
    server = re.search(r"epyc|xeon|threadripper|altra|graviton|power\d|m[23] ultra", text)
    other = re.search(r"\d ?gb\b(?!/)", text)

    def read(hit: re.Match[str]) -> str:
        if hit[2] or (server and not other):
            return f"{float(hit[1]) * 1024:g}gb{(hit[2] or '').replace(' of ', ' ')}"
        return ""

    return read
