"""Peak of matrix products by dtype: timed where a library here can do it, else estimated from the instruction set.

A product of two n x n matrices is 2 n**3 operations. fp32 goes through numpy's BLAS on all its threads. fp16 and int8
are estimates here: the measured fp32 peak times what the widest instruction does for that dtype, marked as assumed;
a probe with an engine replaces them by what the engine's own matrix products reach.
"""

import time
from typing import Final

import numpy as np

from harness.domain.device import Figure

_INT8_OVER_FP32: Final = (
    ("amx", 16.0),
    ("avx512_vnni", 4.0),
    ("i8mm", 8.0),
    ("dotprod", 4.0),
    ("avx512", 2.0),
    ("avx2", 2.0),
    ("neon", 2.0),
)
"""Multiply-adds of one int8 instruction over those of one fp32 FMA of the same width.

VNNI and dotprod: four products into each 32-bit lane; i8mm: eight; maddubs + maddwd without VNNI: four, in three
instructions instead of one, about two. Sources: Intel SDM (VPDPBUSD), Arm ARM (SDOT, SMMLA).
"""


def fp32_peak(*, size_dim: int = 2048, pass_count: int = 4) -> Figure:
    """Best of several products of two float32 matrices through numpy's BLAS, in operations a second."""
    draw = np.random.default_rng(1)
    a = draw.random((size_dim, size_dim), dtype=np.float32)
    b = draw.random((size_dim, size_dim), dtype=np.float32)
    out = np.empty_like(a)
    np.matmul(a, b, out=out)
    times: list[float] = []
    for _ in range(pass_count):
        start = time.perf_counter()
        np.matmul(a, b, out=out)
        times.append(time.perf_counter() - start)
    how = f"numpy BLAS, {size_dim} x {size_dim}, best of {pass_count}"
    return Figure(value=2 * size_dim**3 / min(times), source=how, confidence="measured")


def estimated_peaks(fp32: Figure, isa: tuple[str, ...]) -> dict[str, Figure]:
    """fp16 and int8 from the fp32 peak and the instruction set.

    fp16 without half-precision arithmetic (x86 before AVX512-FP16) converts and multiplies in fp32: the same peak.
    Arm with dotprod (v8.2) multiplies halves at twice the fp32 rate.
    """
    half = 2.0 if "dotprod" in isa or "sve" in isa else 1.0
    name, ratio = next(((n, r) for n, r in _INT8_OVER_FP32 if n in isa), ("no vector extension", 1.0))
    ratios = {"fp16": (half, ""), "int8": (ratio, f" ({name})")}
    return {
        dtype: Figure(value=fp32.value * r, source=f"{r:g} x the measured fp32 peak{why}", confidence="assumed")
        for dtype, (r, why) in ratios.items()
    }
