"""What the name of a chip tells: family, memory kind and, from a table, its arithmetic peak.

Published measurements name chips, not profiles. Families are pooled when coefficients are fitted, so a chip that was
never seen borrows from its relatives, and one without relatives falls back to its backend's mean.
"""

import re
from functools import lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

_APPLE_CORES: Final = {"": 10, "pro": 18, "max": 38, "ultra": 76}
"""GPU cores of the usual full chip of each tier, where the name does not say."""

_APPLE_CORE_TFLOPS: Final = {1: 0.325, 2: 0.358, 3: 0.355, 4: 0.425, 5: 0.44}
"""fp32 peak of one GPU core by generation: 128 lanes x 2 x clock. fp16 runs at the same rate."""

_FAMILIES: Final = (
    (r"gb10|gx10|dgx spark|thor|orin", "nvidia-unified"),
    (r"\b(a100|a30|v100)\b", "nvidia-hbm"),
    (r"\b(h100|h200|gh200|b200|h800)\b", "nvidia-hbm-hopper"),
    (r"rtx.{0,8}\b50[5-9]0|rtx pro|blackwell", "nvidia-blackwell"),
    (r"rtx.{0,8}\b40[5-9]0|\b40[5-9]0\b|\bada\b|\bl40s?\b|\bl4\b", "nvidia-ada"),
    (r"rtx.{0,8}\b30[5-9]0|\b30[5-9]0\b|rtx a\d000|\ba\d000\b|\ba400\b|\ba10\b|\ba40\b|\ba16\b", "nvidia-ampere"),
    (r"rtx.{0,8}\b20[6-8]0|\bt4\b|gtx.{0,8}\b16\d0|quadro rtx|titan rtx", "nvidia-turing"),
    (r"gtx|\bp40\b|\bp100\b|\bm40\b|titan", "nvidia-pascal"),
    (r"\bmi\d+|instinct|radeon vii|vega", "amd-cdna"),
    (r"rx.{0,4}9\d{3}|r9700", "amd-rdna4"),
    (r"rx.{0,4}7\d{3}|w7\d00|\b7[6-9]00 (xt|gre)", "amd-rdna3"),
    (r"rx.{0,4}6\d{3}|w6\d00", "amd-rdna2"),
    (r"rx.{0,4}[45]\d{2}\b|rx.{0,4}5\d{3}", "amd-old"),
    (r"8060s|395|strix|780m|890m|880m|680m|radeon|ryzen ai", "amd-integrated"),
    (r"arc.{0,6}[ab]\d{3}|\b[ab](770|750|580|570|380)\b", "intel-arc"),
    (r"iris|arc|xe\b|uhd|core ultra|lunar|meteor", "intel-integrated"),
    (r"adreno|snapdragon|8ge|8gen|qcs|\bx1[ep]", "qualcomm"),
    (r"mali|immortalis|dimensity|exynos|tensor|kirin|rk3", "mali"),
)


class Traits(NamedTuple):
    """Traits of one chip on one backend.

    Attributes:
        family: Architecture, such as ``nvidia-ampere`` or ``apple-m2``; empty where unknown.
        tier: Size class within the family (Apple: base, pro, max, ultra); empty elsewhere.
        peak_flops_per_s: Peak of the shader cores, by their integer lanes (decode dequantises there).
        matrix_flops_per_s: Dense fp16 peak of the matrix units (prefill runs there).
        known_peak: Whether the peaks come from the table rather than from the bandwidth.
        core_count: GPU cores where the name gives them; 0 otherwise.
    """

    family: str
    tier: str
    peak_flops_per_s: float
    matrix_flops_per_s: float
    known_peak: bool
    core_count: int = 0


@lru_cache(maxsize=1)
def _peaks() -> tuple[tuple[str, float, float], ...]:
    lines = (files("harness.feasibility") / "data" / "chip_peaks.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines if line and not line.startswith(("#", "pattern,"))]
    return tuple((r[0], float(r[1]) * 1e12, float(r[2]) * 1e12) for r in rows)


def chip_key(chip: str) -> str:
    """One name for one piece of silicon, whatever a source calls it; used to leave a chip out altogether."""
    text = _plain(chip)
    apple = re.search(r"\bm([1-9])[ -]?(pro|max|ultra)?\b", text)
    if apple and "cpu" not in text:
        tier = apple[2] or ""
        return f"m{apple[1]}-{tier or 'base'}-{_cores(text) or _APPLE_CORES[tier]}"
    inner = re.search(r"\(([^)]*(?:rtx|radeon|rx |arc|nvidia|amd pro|amd ai)[^)]*)\)", text)
    text = inner[1] if inner else text
    text = re.sub(
        r"nvidia|geforce|amd|radeon|intel\(r\)|core\(tm\)|\(.*?\)|\d+ ?gb|processor|pcie|custom pc", " ", text
    )
    return " ".join(text.split())


@lru_cache(maxsize=4096)
def traits_of(chip: str, backend: str, bandwidth_bytes_per_s: float) -> Traits:
    """Traits of a chip by its name; peaks it does not list are regressed on bandwidth.

    The regression: 45 fp32 FLOP for each byte/s of bandwidth on a GPU (median of the table), four times that in
    matrix units; 8 FLOP a byte on a CPU.
    """
    text = _plain(chip)
    apple = re.search(r"\bm([1-9])[ -]?(pro|max|ultra)?\b", text)
    if apple:
        tier, generation = apple[2] or "", int(apple[1])
        if backend == "cpu":
            flops = 8 * bandwidth_bytes_per_s
            return Traits("apple-cpu", tier or "base", flops, 2 * flops, False)
        cores = _cores(text) or _APPLE_CORES[tier]
        flops = cores * _APPLE_CORE_TFLOPS.get(generation, 0.44) * 1e12
        return Traits(f"apple-m{generation}", tier or "base", flops, flops, True, cores)
    phone = re.search(r"\ba1[2-9]( pro)?\b", text)
    if phone and "nvidia" not in text and "rtx" not in text:
        flops = {"cpu": 6.0, "npu": 300.0}.get(backend, 36.0) * bandwidth_bytes_per_s
        return Traits("apple-phone", "", flops, flops, False)
    if backend == "cpu":
        family = (
            "server-cpu"
            if re.search(r"epyc|xeon|threadripper|ampere|cobalt|graviton|neoverse", text)
            else "arm-cpu"
            if re.search(r"snapdragon|cortex|bcm|rk3|cix|tensor|exynos|pi 5|pi cm5|dimensity", text)
            else "x86-cpu"
        )
        flops = 8 * bandwidth_bytes_per_s
        return Traits(family, "", flops, 2 * flops, False)
    family = next((name for pattern, name in _FAMILIES if re.search(pattern, text)), "")
    for pattern, peak, matrix in _peaks():
        if re.search(pattern, text):
            return Traits(family, "", shader_peak(family, peak), matrix, True)
    flops = 45 * bandwidth_bytes_per_s
    return Traits(family, "", flops, 4 * flops if family.startswith("nvidia") else 2 * flops, False)


def shader_peak(family: str, fp32_flops_per_s: float) -> float:
    """Rate at which shaders dequantise: that of their integer lanes, which do the dot products of packed weights.

    Ampere (but for the A100), Ada and Hopper double their fp32 lanes and not their integer ones (64 of 128 in each
    multiprocessor); Blackwell has as many of both. Source: NVIDIA's architecture white papers.
    """
    return fp32_flops_per_s / (2 if family in {"nvidia-ampere", "nvidia-ada", "nvidia-hbm-hopper"} else 1)


def _plain(chip: str) -> str:
    return " ".join(chip.lower().replace("‑", "-").replace("_", " ").split())


def _cores(text: str) -> int:
    found = re.search(r"(\d+)[ -]?(?:core gpu|c\b|c gpu|gpu\b|-core)", text)
    return int(found[1]) if found else 0
