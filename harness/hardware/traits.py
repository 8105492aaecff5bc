"""Read from the name of a chip its family, its memory kind and, from a table, its arithmetic peak.

Published measurements name chips, not profiles. Families are pooled when coefficients are fitted, so a chip
that was never seen borrows from its relatives, and one without relatives falls back to its api's mean. Names of
quantisations are read here too, as classes of formats that cost alike.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from harness.core.device import APIS
from harness.core.tables import Column, maybe, regex, shipped_rows, shipped_text

PHONE_THREADS: Final = 4
"""CPU threads of a phone where nobody says: what LiteRT-LM and llama.rn start with, whatever cores there are.
LiteRT-LM does so on other machines too (runtime/executor/llm_executor_settings.h)."""


class Traits(NamedTuple):
    """Traits of one chip on one api.

    Attributes:
        family: Architecture, such as ``nvidia-ampere`` or ``apple-m2``; empty where unknown.
        peak_flops_per_s: Peak of the shader cores, by their integer lanes (decode dequantises there).
        matrix_flops_per_s: Dense fp16 peak of the matrix units (prefill runs there).
        known_peak: Whether the peaks come from the table rather than from the bandwidth.
        core_count: GPU cores where the name gives them, threads that run on a CPU; 0 otherwise.
        memory: ``hbm gddr lpddr ddr``; empty where unknown. ``lpddr`` is shared with the CPU.
        isa: Instructions that a CPU multiplies int8 with, as in ``int8_ratios.csv``; empty elsewhere.
    """

    family: str
    peak_flops_per_s: float
    matrix_flops_per_s: float
    known_peak: bool
    core_count: int = 0
    memory: str = ""
    isa: str = ""

    @property
    def vendor(self) -> str:
        """Who made it, by the first word of its family."""
        return self.family.partition("-")[0]


_COLUMNS: Final[dict[str, dict[str, Column]]] = {
    "apple_gpus": {"base": int, "pro": int, "max": int, "core_tflops": float, "matrix_ratio": float},
    "chip_aliases": {"name": str},
    "chip_links": {"kind": ("family", "eight lanes"), "gb_s": maybe(float)},
    "chip_names": {"kind": ("cpu", "npu", "apple gpu cores", "apple phone"), "name": str},
    "chip_peaks": {"fp32_tflops": float, "fp16_matrix_tflops": maybe(float)},
    "cpu_cores": {"cores": maybe(int), "core_gflops": maybe(float), "isa": str},
    "driver_share": {"api": APIS, "mid_mib": float, "low_mib": float, "high_mib": float},
    "family_peaks": {"flop_per_byte": float, "matrix_ratio": float},
    "gpu_families": {"family": str, "memory": ("hbm", "gddr", "lpddr")},
    "int8_ratios": {"ratio": float},
    "kernels": {"year": float},
    "quant_classes": {
        "class": (
            "f16",
            "q8",
            "q5",
            "q4",
            "q4k",
            "q3k",
            "q2k",
            "iq",
            "ternary",
            "w8",
            "w6",
            "w4",
            "w3",
            "w2",
        ),
        "bits": float,
    },
}
"""Tables whose first column is a regular expression, with their other columns."""


def read_traits(name: str, **more: Column) -> list[tuple[str, ...]]:
    """The rows of a table; ``pattern=regex`` compiles its regular expressions, which takes a while.

    Raises:
        BadDataError: A cell that its column does not hold, or instructions that ``int8_ratios.csv`` does not have.
    """
    columns = _COLUMNS[name] | more
    if name == "cpu_cores":
        columns["isa"] = {row[0] for row in read_traits("int8_ratios")}
    return [
        tuple(row.values()) for row in shipped_rows(f"data/{name}.csv", "harness.hardware", columns=columns)
    ]


def read_all() -> None:
    """Read every table with its regular expressions compiled.

    Raises:
        BadDataError: As :func:`read_traits`.
    """
    for name in _COLUMNS:
        read_traits(name, pattern=regex)


_TABLES: Final = {name: read_traits(name) for name in _COLUMNS}
_BEGINNING: Final = re.compile(r"(?:\\b)?((?:[\w -](?![?*{]))*)")


@lru_cache(maxsize=4096)
def first_cells(name: str, text: str, kind: str = "") -> tuple[str, ...]:
    """Cells of the first pattern of a table that the text holds, of those whose first cell is ``kind``.

    The tuple is empty where no pattern is in the text.
    """
    for pattern, *cells in _TABLES[name]:
        if kind and cells[0] != kind:
            continue
        # The letters that a pattern of one course begins with are looked for first: to compile it takes longer.
        beginning = _BEGINNING.match(pattern)
        may_hold = "|" in pattern or beginning is None or beginning[1] in text
        try:
            if may_hold and re.search(pattern, text):
                return tuple(cells)
        except re.error:
            read_traits(name, pattern=regex)
            raise
    return ()


_HYPERTHREADS: Final = re.compile(
    r"(?:xeon|epyc).*\((?:aws|azure|gcp|google|oci)|(?:aws|azure|gcp) .*(?:xeon|epyc)"
)
"""Virtual machines whose CPUs are two threads of one core (vendors' pages on instance types)."""


@lru_cache(maxsize=4096)
def chip_key(chip: str) -> str:
    """One name for one piece of silicon, whatever a source calls it; used to leave a chip out altogether.

    A graphics card in a host counts, not the host. Memory sizes do not, but where makers sell two chips under
    one name (``chip_aliases.csv``); a laptop's, a Max-Q's and a PCIe card's cut of a chip are chips of their
    own.
    """
    text = _graphics(_plain(chip))
    if apple := _apple(text):
        return f"m{apple[0]}-{apple[1] or 'base'}-{apple[2]}"
    if alias := first_cells("chip_aliases", text):
        return alias[0]
    text = _SAID_BESIDE.sub(" ", text)
    for pattern in _NUMBERED:
        if found := re.search(pattern, text):
            cut = dict.fromkeys(re.findall(r"\b(laptop|mobile|max-q|pcie|nvl)\b", text))
            words = [
                *(word for word in found.groups() if word),
                *("laptop" if c == "mobile" else c for c in cut),
            ]
            return " ".join(" ".join(words).split())
    text = re.sub(r"\(.*?\)|\d+ ?gb|\bsxm\d?|\bpcie\b", " ", text)
    return " ".join(text.strip(" -").split())


_SAID_BESIDE: Final = re.compile(
    r"\b(?:nvidia|geforce|apple|intel|amd|ati|tesla|processor|cpu|custom pc|gpu|graphics)\b"
    r"|\b(?:with|series|edition|generation)\b|\((?:r|tm)\)|@.*|\b\d+-core\b|\b\d+(?:st|nd|rd|th) gen\b|\bw/.*"
)
"""Words of a name that do not tell one chip from another."""
_NUMBERED: Final = shipped_text("data/chip_numbers.txt", "harness.hardware").splitlines()
"""Makers' numbers: what tells a chip, in groups, by the first pattern that a name holds."""


def _graphics(text: str) -> str:
    """The part of a name that tells of a graphics card in a host, where there is one."""
    inner = re.search(
        r"\(([^)]*(?:rtx|gtx|radeon|\brx |\barc\b|nvidia|amd pro|amd ai|geforce|instinct)[^)]*)\)", text
    )
    if inner:
        return inner[1]
    card = re.search(r".*[+/,&] *((?:nvidia|geforce|rtx|gtx|radeon|rx) .*)", text)
    if card:
        return card[1]
    return text


def _apple(text: str) -> tuple[int, str, int] | None:
    """Decoding, tier and GPU cores of an Apple M chip."""
    found = re.search(r"\bm([1-9])[ -]?(pro|max|ultra)?\b", text)
    if not found or re.search(r"nvidia|geforce|radeon|intel", text):
        return None
    generation = int(found[1])
    tier = found[2] or ""
    # A count that is said to be of the CPU is none of GPU cores.
    for pattern in (r"(\d+)[ -]?(?:core|c)?[ -]?gpu", r"(\d+)c\b", r"(\d+)-core(?! cpu)"):
        named = re.search(pattern, text)
        if named and first_cells("chip_names", named[1], "apple gpu cores"):
            return generation, tier, int(named[1])
    return generation, tier, _apple_gpu(generation, tier)[0]


def _apple_gpu(generation: int, tier: str) -> tuple[int, float, float]:
    """GPU cores of the full chip, the fp32 peak of one in TFLOP/s, and its matrix peak over that."""
    *counts, each, ratio = first_cells("apple_gpus", f"m{min(generation, 5)}")
    base, pro, most = map(int, counts)
    cores = {"": base, "pro": pro, "max": most, "ultra": 2 * most}
    return cores[tier], float(each), float(ratio)


@lru_cache(maxsize=4096)
def traits_of(chip: str, api: str, bandwidth_bytes_per_s: float, thread_count: int = 0) -> Traits:
    """Traits of a chip by its name; peaks it does not list are regressed on bandwidth.

    The regression: 45 fp32 FLOP for each byte/s of bandwidth on a GPU (median of the table), four times that
    in matrix units. A CPU's are those of the threads that run.
    """
    text = _plain(chip)
    if api == "cpu":
        return _cpu_traits(text, bandwidth_bytes_per_s, thread_count)
    if api == "npu":
        return _npu_traits(text, bandwidth_bytes_per_s)
    if apple := _apple(text):
        generation, tier, cores = apple
        _, each, ratio = _apple_gpu(generation, tier)
        flops = cores * each * 1e12
        return Traits(f"apple-m{generation}", flops, ratio * flops, True, cores, "lpddr")
    if _is_apple_phone(text):
        flops = 36.0 * bandwidth_bytes_per_s
        if re.search(r"\ba(19|2\d)\b|iphone 1[7-9]", text):
            tensor = 3.0
        else:
            tensor = 1.0
        return Traits("apple-phone", flops, tensor * flops, False, 0, "lpddr")
    text = _graphics(text)
    family, memory = first_cells("gpu_families", text) or ("", "")
    each, ratio = map(float, first_cells("family_peaks", family) or ("45", "2"))
    peak = each * bandwidth_bytes_per_s
    matrix = ratio * peak
    found = first_cells("chip_peaks", text)
    if found:
        peak = float(found[0]) * 1e12
        matrix = float(found[1]) * 1e12 if found[1] else ratio * peak
    return Traits(family, shader_peak(family, peak, memory), matrix, bool(found), memory=memory)


def _is_apple_phone(text: str) -> bool:
    return bool(first_cells("chip_names", text, "apple phone"))


def _cpu_traits(text: str, bandwidth_bytes_per_s: float, thread_count: int) -> Traits:
    """Its peak is that of the threads that run, no more than there are cores; 8 threads if nothing is known.

    A CPU that no table knows has 8 FLOP for each byte/s of its bandwidth.
    """
    cores, core_gflops, isa = first_cells("cpu_cores", text) or ("", "", "avx2")
    flops = 8 * bandwidth_bytes_per_s
    count: float = thread_count or 8
    if cores:
        count = min(thread_count or float(cores), float(cores))
        if _HYPERTHREADS.search(text):
            count = min(thread_count / 2, float(cores))
        flops = count * float(core_gflops) * 1e9
    memory = "lpddr"
    if _apple(text):
        family = "apple-cpu"
    elif _is_apple_phone(text):
        family = "apple-phone"
    else:
        _, family = first_cells("chip_names", text, "cpu") or ("", "x86-cpu")
        if family != "arm-cpu":
            memory = "ddr"
    matrix = float(first_cells("int8_ratios", isa)[0]) * flops
    return Traits(family, flops, matrix, bool(cores), int(count), memory, isa)


def _npu_traits(text: str, bandwidth_bytes_per_s: float) -> Traits:
    """An accelerator: its data sheet's operations are no rate that a token sees, so its bandwidth is its measure."""
    apple = _apple(text) or _is_apple_phone(text)
    _, family = first_cells("chip_names", text, "npu") or ("", "npu")
    flops = 300.0 * bandwidth_bytes_per_s
    return Traits("apple-npu" if apple else family, flops, flops, False, memory="lpddr")


def shader_peak(family: str, fp32_flops_per_s: float, memory: str = "") -> float:
    """Rate at which shaders dequantise: that of their integer lanes, which do the dot products of packed weights.

    Ampere (but for the A100), Ada and Hopper double their fp32 lanes and not their integer ones (64 of 128 in
    each multiprocessor); Blackwell has as many of both. Source: NVIDIA's architecture white papers.
    """
    doubled = family in {"nvidia-ada", "nvidia-hopper"} or (family == "nvidia-ampere" and memory != "hbm")
    return fp32_flops_per_s / (2 if doubled else 1)


def _plain(chip: str) -> str:
    return " ".join(chip.lower().replace("‑", "-").replace("_", " ").split())


def quant_class(text: str) -> str:
    """Class of a quantisation by its name: ``f16 q8 q5 q4 q4k q3k q2k iq ternary``.

    A format of another engine than llama.cpp is ``w8`` to ``w2``, by its bits.
    """
    return _cells(text)[0]


def bits_of(text: str) -> float:
    """Usual bits of a weight in a quantisation of that name."""
    return float(_cells(text)[1])


def _cells(text: str) -> tuple[str, ...]:
    return first_cells("quant_classes", text.upper()) or ("q4", "4.5")
