"""What the name of a chip tells: family, memory kind and, from a table, its arithmetic peak.

Published measurements name chips, not profiles. Families are pooled when coefficients are fitted, so a chip that was
never seen borrows from its relatives, and one without relatives falls back to its api's mean.
"""

import re
from functools import lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

_APPLE_CORES: Final = {
    "": (8, 10, 10, 10, 10),
    "pro": (16, 19, 18, 20, 20),
    "max": (32, 38, 40, 40, 40),
    "ultra": (64, 76, 80, 80, 80),
}
"""GPU cores of the full chip of each tier, M1 to M5, where the name does not say."""

_APPLE_CORE_TFLOPS: Final = {1: 0.325, 2: 0.358, 3: 0.355, 4: 0.425, 5: 0.44}
"""fp32 peak of one GPU core by generation: 128 lanes x 2 x clock. fp16 runs at the same rate."""

_HBM: Final = ("nvidia-hbm", "amd-cdna")
_SHARED: Final = ("apple", "nvidia-unified", "amd-integrated", "intel-integrated", "qualcomm", "mali")

CPU_MATRIX_RATIO: Final = 4.0
"""Products of int8 that a lane of 32 bits takes (dot-product instructions) against multiplications of fp32."""


class Traits(NamedTuple):
    """Traits of one chip on one api.

    Attributes:
        family: Architecture, such as ``nvidia-ampere`` or ``apple-m2``; empty where unknown.
        peak_flops_per_s: Peak of the shader cores, by their integer lanes (decode dequantises there).
        matrix_flops_per_s: Dense fp16 peak of the matrix units (prefill runs there).
        known_peak: Whether the peaks come from the table rather than from the bandwidth.
        core_count: GPU cores where the name gives them, threads that run on a CPU; 0 otherwise.
        memory: ``hbm gddr lpddr ddr``; empty where unknown. ``lpddr`` is shared with the CPU.
    """

    family: str
    peak_flops_per_s: float
    matrix_flops_per_s: float
    known_peak: bool
    core_count: int = 0
    memory: str = ""


@lru_cache
def _table(name: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Cells by regular expression; they are the last of a line, as a pattern may hold a comma."""
    lines = (files("harness.predict") / "data" / name).read_text().splitlines()
    width = next(line for line in lines if line.startswith("pattern,")).count(",")
    rows = [line.rsplit(",", width) for line in lines if line and not line.startswith(("#", "pattern,"))]
    return tuple((pattern, tuple(cells)) for pattern, *cells in rows)


def first_cells(name: str, text: str, kind: str = "") -> tuple[str, ...]:
    """Cells of the first pattern of a table that the text holds, of those whose first cell is ``kind``; () for none."""
    rows = (row for row in _table(name) if not kind or row[1][0] == kind)
    return next((cells for pattern, cells in rows if re.search(pattern, text)), ())


def thread_flops(text: str, thread_count: int, bandwidth_bytes_per_s: float) -> tuple[float, bool, int]:
    """Peak of the threads that run on a CPU, whether its cores are known, and how many threads run (8 if unknown).

    threads x lanes of 32 bits x 2 (multiply and add) x clock; no more threads than cores. A CPU that no table knows has
    8 FLOP for each byte/s of its bandwidth.
    """
    if found := first_cells("cpu_cores.csv", text):
        cores, bits, ghz = map(float, found)
        running = min(thread_count or cores, cores)
        return running * bits / 32 * 2 * ghz * 1e9, True, int(running)
    return 8 * bandwidth_bytes_per_s, False, thread_count or 8


def chip_key(chip: str) -> str:
    """One name for one piece of silicon, whatever a source calls it; used to leave a chip out altogether.

    A graphics card in a host counts, not the host; memory sizes do not.
    """
    text = _graphics(_plain(chip))
    if apple := _apple(text):
        return f"m{apple[0]}-{apple[1] or 'base'}-{apple[2]}"
    number = re.search(r"\b([3-5]0[5-9]0|20[6-8]0|1[06][3-8]0|a[1-6][05]00|[pwl]?[4-9]\d{3})(?= |$|ti|xt)", text)
    if number and re.search(r"rtx|gtx|geforce|nvidia|radeon|\brx|\bpro\b|^[a-z]?\d{4}", text):
        more = re.findall(r"\b(ti|super|laptop|mobile|max-q|ada|xtx|xt|gre|d)\b", text[number.end() - len(number[1]) :])
        stuck = re.match(r"ti|xtx|xt", text[number.end() :])
        return " ".join([number[1], *([stuck[0]] if stuck else []), *more])
    if alias := first_cells("chip_names.csv", text, "chip"):
        return alias[1]
    text = re.sub(
        r"nvidia|geforce|amd|radeon|apple|intel\(r\)|core\(tm\)|\(.*?\)|\d+ ?gb|processor|pcie|sxm\d?|custom pc|tesla"
        r"|\brtx\b|\brx\b",
        " ",
        text,
    )
    return " ".join(text.strip(" -").split())


def _graphics(text: str) -> str:
    """The part of a name that tells of a graphics card in a host, where there is one."""
    inner = re.search(r"\(([^)]*(?:rtx|gtx|radeon|\brx |\barc\b|nvidia|amd pro|amd ai|geforce|instinct)[^)]*)\)", text)
    if inner:
        return inner[1]
    card = re.search(r".*[+/,&] *((?:nvidia|geforce|rtx|gtx|radeon|rx) .*)", text)
    return card[1] if card else text


def _apple(text: str) -> tuple[int, str, int] | None:
    """Decoding, tier and GPU cores of an Apple M chip."""
    found = re.search(r"\bm([1-9])[ -]?(pro|max|ultra)?\b", text)
    if not found or re.search(r"nvidia|geforce|radeon|intel", text):
        return None
    generation, tier = int(found[1]), found[2] or ""
    return generation, tier, _cores(text) or _APPLE_CORES[tier][min(generation, 5) - 1]


@lru_cache(maxsize=4096)
def traits_of(chip: str, api: str, bandwidth_bytes_per_s: float, thread_count: int = 0) -> Traits:
    """Traits of a chip by its name; peaks it does not list are regressed on bandwidth.

    The regression: 45 fp32 FLOP for each byte/s of bandwidth on a GPU (median of the table), four times that in
    matrix units. A CPU's are those of the threads that run (``thread_flops``).
    """
    text = _plain(chip)
    if apple := _apple(text):
        generation, _, cores = apple
        if api == "cpu":
            flops, known, count = thread_flops(text, thread_count, bandwidth_bytes_per_s)
            return Traits("apple-cpu", flops, CPU_MATRIX_RATIO * flops, known, count, "lpddr")
        flops = cores * _APPLE_CORE_TFLOPS.get(generation, 0.44) * 1e12
        return Traits(f"apple-m{generation}", flops, flops, True, cores, "lpddr")
    named = re.search(r"\ba1\d( pro| bionic)?\b", text) and not re.search(r"nvidia|rtx|cortex", text)
    if re.search(r"iphone|ipad", text) or (named and api in {"metal", "cpu", "npu", "other"}):
        flops, known, count = {"npu": 300.0}.get(api, 36.0) * bandwidth_bytes_per_s, False, 0
        if api == "cpu":
            flops, known, count = thread_flops(text, thread_count, bandwidth_bytes_per_s)
        matrix = flops * (CPU_MATRIX_RATIO if api == "cpu" else 1)
        return Traits("apple-phone", flops, matrix, known, count, "lpddr")
    if api == "cpu":
        _, family = first_cells("chip_names.csv", text, "cpu") or ("", "x86-cpu")
        flops, known, count = thread_flops(text, thread_count, bandwidth_bytes_per_s)
        return Traits(family, flops, CPU_MATRIX_RATIO * flops, known, count, "ddr")
    text = _graphics(text)
    _, family = first_cells("chip_names.csv", text, "gpu") or ("", "")
    memory = "hbm" if family.startswith(_HBM) else "lpddr" if family.startswith(_SHARED) else "gddr" if family else ""
    if peaks := first_cells("chip_peaks.csv", text):
        peak, matrix = map(float, peaks)
        return Traits(family, shader_peak(family, peak * 1e12), matrix * 1e12, True, memory=memory)
    flops = 45 * bandwidth_bytes_per_s
    matrix = 4 * flops if family.startswith("nvidia") else 2 * flops
    return Traits(family, flops, matrix, False, memory=memory)


def shader_peak(family: str, fp32_flops_per_s: float) -> float:
    """Rate at which shaders dequantise: that of their integer lanes, which do the dot products of packed weights.

    Ampere (but for the A100), Ada and Hopper double their fp32 lanes and not their integer ones (64 of 128 in each
    multiprocessor); Blackwell has as many of both. Source: NVIDIA's architecture white papers.
    """
    return fp32_flops_per_s / (2 if family in {"nvidia-ampere", "nvidia-ada", "nvidia-hbm-hopper"} else 1)


def _plain(chip: str) -> str:
    return " ".join(chip.lower().replace("‑", "-").replace("_", " ").split())


def _cores(text: str) -> int:
    """GPU cores, where a name gives them; a count that is said to be of the CPU is none."""
    for pattern in (r"(\d+)[ -]?(?:core|c)?[ -]?gpu", r"(\d+)c\b", r"(\d+)-core(?! cpu)"):
        found = re.search(pattern, text)
        if found and int(found[1]) in _APPLE_COUNTS:
            return int(found[1])
    return 0


_APPLE_COUNTS: Final = {7, 8, 10, 14, 16, 18, 19, 20, 24, 30, 32, 38, 40, 48, 60, 64, 76, 80}
"""GPU cores that Apple has sold."""
