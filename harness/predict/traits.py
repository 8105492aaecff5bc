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

_FAMILIES: Final = (
    (r"gb10|gx10|dgx spark|nvidia spark|thor|orin|xavier|jetson", "nvidia-unified"),
    (r"\b(a100|a30|a800|v100|titan v|gv100)\b", "nvidia-hbm"),
    (r"\b(h100|h200|h20|gh200|h800|b100|b200|gb200|b300|gb300)\b", "nvidia-hbm-hopper"),
    (r"\b50[5-9]0\b|rtx pro|blackwell", "nvidia-blackwell"),
    (r"\b40[5-9]0\b|\bada\b|\bl40s?\b|\bl4\b|\bl20\b", "nvidia-ada"),
    (
        r"\b30[5-9]0\b|rtx a\d[05]00|\ba[1-6][05]00\b|\ba400\b|\ba[12]\b(?! pro)|\ba10g?\b|\ba40\b|nvidia a16\b",
        "nvidia-ampere",
    ),
    (r"\b20[6-8]0\b|\bt4\b|\b16[3-6]0\b|quadro rtx|titan rtx|quadro t\d|\bt[1-6]00\b|\bt1000\b", "nvidia-turing"),
    (r"gtx|\bp40\b|\bp100\b|\bp4\b|\bm40\b|\bk80\b|titan|quadro|\b10[5-8]0\b", "nvidia-pascal"),
    (r"\bmi ?\d{2,3}|instinct|radeon vii|radeon pro vii|vega ?(56|64|frontier|ii)", "amd-cdna"),
    (r"\b90[67]0\b|r9[67]00", "amd-rdna4"),
    (r"\b7[6-9][05]0\b|w7\d00", "amd-rdna3"),
    (r"\b6[4-9][05]0\b|w6\d00", "amd-rdna2"),
    (r"rx.{0,4}[45]\d{2}\b|\b5[3-7]00\b|rx.{0,4}5\d{3}|w5\d00|\bwx ?\d{4}", "amd-old"),
    (
        r"80[456]0s|395|strix|radeon graphics|7[468]0m|8[4689]0m|6[168]0m|radeon|vega|ryzen|steam deck|van gogh",
        "amd-integrated",
    ),
    (r"arc.{0,6}[ab]\d{2,3}\b|\b[ab](770|750|580|570|380|310|60|50)\b|battlemage|alchemist", "intel-arc"),
    (r"iris|arc|xe\b|uhd|core.{0,5} ultra|ultra [579]|lunar|meteor|arrow lake|intel|\bi[3579]-", "intel-integrated"),
    (r"adreno|snapdragon|\bsd ?8|8ge\d|8gen\d|qcs|qcm|\bsm8\d{3}|\bsc8\d{3}|hexagon|\bx1[ep]|\bx2[ep]", "qualcomm"),
    (r"mali|immortalis|dimensity|exynos|xclipse|tensor|kirin|helio|xring|\brk3|powervr|\bg[67]\d{2}\b", "mali"),
)

_CPU_FAMILIES: Final = (
    (r"ampere|altra|cobalt|graviton|axion|grace|neoverse|kunpeng|gh200|\bc4a\b", "neoverse-cpu"),
    (r"epyc|xeon|threadripper|\bserver\b|azure|ec2", "server-cpu"),
    (r"risc-?v|\bp550\b|jh7110|th1520|sg2042|spacemit|milk-?v", "riscv-cpu"),
    (
        r"x elite|x plus|\bx[12][ep]|oryon|8cx|sc8280|gb10|dgx spark",
        "arm-laptop-cpu",
    ),
    (
        r"snapdragon|8ge\d|8gen\d|\bsd ?8|\bsm8\d{3}|cortex|bcm2|\brk3|cix|cp8180|orion|ms-r1|tensor|exynos|kirin|xring"
        r"|\bpi ?[345]\b|\bcm[45]\b|dimensity|helio|orange|rockchip|orin|jetson|thor|odroid|radxa"
        r"|rock ?5",
        "arm-cpu",
    ),
)
"""Families by regular expression on the lower-case name, from general knowledge; the first match wins."""

_HBM: Final = ("nvidia-hbm", "amd-cdna")
_SHARED: Final = ("apple", "nvidia-unified", "amd-integrated", "intel-integrated", "qualcomm", "mali")

_ALIASES: Final = (
    (r"gb10|dgx spark|nvidia spark|gx10", "gb10"),
    (r"8 elite gen ?5|adreno 840|sm8850", "snapdragon-8-elite-gen-5"),
    (r"8 elite|adreno 830|8ge4|8gen4|sm8750", "snapdragon-8-elite"),
    (r"8 ?gen ?3|adreno 750|sm8650", "snapdragon-8-gen-3"),
    (r"8 ?gen ?2|adreno 740|sm8550", "snapdragon-8-gen-2"),
    (r"8\+ ?gen ?1", "snapdragon-8+-gen-1"),
    (r"8 ?gen ?1|adreno 730|sm8450", "snapdragon-8-gen-1"),
    (r"395|8060s|strix.halo", "strix-halo"),
    (r"cp8180|cd8180|orion o6|ms-r1", "cp8180"),
    (r"bcm2712|(?<!orange )\bpi ?5\b|\bcm5\b", "bcm2712"),
    (r"ampereone a192", "ampereone-a192"),
)
"""Names of one piece of silicon."""


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


@lru_cache(maxsize=2)
def _table(name: str) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Numbers by regular expression; the numbers are the last cells, as a pattern may hold a comma."""
    lines = (files("harness.predict") / "data" / name).read_text().splitlines()
    width = next(line for line in lines if line.startswith("pattern,")).count(",")
    rows = [line.rsplit(",", width) for line in lines if line and not line.startswith(("#", "pattern,"))]
    return tuple((r[0], tuple(float(x) for x in r[1:])) for r in rows)


def thread_flops(text: str, thread_count: int, bandwidth_bytes_per_s: float) -> tuple[float, bool, int]:
    """Peak of the threads that run on a CPU, whether its cores are known, and how many threads run (8 if unknown).

    threads x lanes of 32 bits x 2 (multiply and add) x clock; no more threads than cores. A CPU that no table knows has
    8 FLOP for each byte/s of its bandwidth.
    """
    for pattern, (cores, bits, ghz) in _table("cpu_cores.csv"):
        if re.search(pattern, text):
            running = min(thread_count or cores, cores)
            return running * bits / 32 * 2 * ghz * 1e9, True, int(running)
    return 8 * bandwidth_bytes_per_s, False, thread_count or 8


def chip_key(chip: str) -> str:
    """One name for one piece of silicon, whatever a source calls it; used to leave a chip out altogether.

    A graphics card in a host counts, not the host; memory sizes do not.
    """
    text = _graphics(_plain(chip))
    apple = _apple(text)
    if apple:
        return f"m{apple[0]}-{apple[1] or 'base'}-{apple[2]}"
    number = re.search(r"\b([3-5]0[5-9]0|20[6-8]0|1[06][3-8]0|a[1-6][05]00|[pwl]?[4-9]\d{3})(?= |$|ti|xt)", text)
    if number and re.search(r"rtx|gtx|geforce|nvidia|radeon|\brx|\bpro\b|^[a-z]?\d{4}", text):
        more = re.findall(r"\b(ti|super|laptop|mobile|max-q|ada|xtx|xt|gre|d)\b", text[number.end() - len(number[1]) :])
        stuck = re.match(r"ti|xtx|xt", text[number.end() :])
        return " ".join([number[1], *([stuck[0]] if stuck else []), *more])
    for pattern, name in _ALIASES:
        if re.search(pattern, text):
            return name
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
    apple = _apple(text)
    if apple:
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
        family = next((name for pattern, name in _CPU_FAMILIES if re.search(pattern, text)), "x86-cpu")
        flops, known, count = thread_flops(text, thread_count, bandwidth_bytes_per_s)
        return Traits(family, flops, CPU_MATRIX_RATIO * flops, known, count, "ddr")
    text = _graphics(text)
    family = next((name for pattern, name in _FAMILIES if re.search(pattern, text)), "")
    memory = "hbm" if family.startswith(_HBM) else "lpddr" if family.startswith(_SHARED) else "gddr" if family else ""
    for pattern, (peak, matrix) in _table("chip_peaks.csv"):
        if re.search(pattern, text):
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
