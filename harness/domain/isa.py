"""Instruction sets that change what a quantised product costs: one table of their names.

What a machine does not tell is None, and never an empty tuple, which says that it has none of them.
Sources: Linux, arch/x86/include/asm/cpufeatures.h and Documentation/arch/arm64/elf_hwcaps.rst; Apple, "Determining
Instruction Set Characteristics"; llama.cpp, ``llama_print_system_info``; Intel SDM (VPDPBUSD), Arm ARM (SDOT, SMMLA).
"""

import re
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple


class InstructionSet(NamedTuple):
    """Names of one set, and what its instructions do beside an fp32 multiply-add of the same width.

    ``flags`` are words of /proc/cpuinfo, each choice needing all of its own; ``key`` is macOS' name, ``engine`` that in
    llama.cpp's system info. Ratios are multiply-adds of one instruction over those of fp32, 0 where it has no such.
    """

    flags: tuple[str, ...]
    key: str
    engine: str
    int8_ratio: float
    fp16_ratio: float = 0.0


ISA: Final[Mapping[str, InstructionSet]] = {
    "avx2": InstructionSet(("avx2",), "hw.optional.avx2_0", "AVX2", 2),
    "avx_vnni": InstructionSet(("avx_vnni",), "", "AVX_VNNI", 4),
    "avx512": InstructionSet(("avx512f avx512bw avx512dq avx512vl",), "hw.optional.avx512f", "AVX512", 2),
    "avx512_vnni": InstructionSet(("avx512_vnni",), "", "AVX512_VNNI", 4),
    "amx": InstructionSet(("amx_tile amx_int8",), "", "AMX_INT8", 16),
    "neon": InstructionSet(("asimd", "neon"), "hw.optional.arm64", "NEON", 2),
    "fp16": InstructionSet(("asimdhp",), "hw.optional.arm.FEAT_FP16", "FP16_VA", 0, 2),
    "dotprod": InstructionSet(("asimddp",), "hw.optional.arm.FEAT_DotProd", "DOTPROD", 4, 2),
    "i8mm": InstructionSet(("i8mm",), "hw.optional.arm.FEAT_I8MM", "MATMUL_INT8", 8),
    "sve": InstructionSet(("sve",), "", "SVE", 2, 2),
}
"""VNNI and dotprod: four products into each 32-bit lane; i8mm: eight; maddubs + maddwd without VNNI: four, in three
instructions instead of one, about two. A core with dotprod (Arm v8.2) multiplies halves at twice the rate of fp32."""


def isa_of_flags(words: Collection[str]) -> tuple[str, ...]:
    """Sets of a CPU with these words in /proc/cpuinfo."""
    have = set(words)
    return tuple(name for name, one in ISA.items() if any(set(choice.split()) <= have for choice in one.flags))


def isa_of_keys(told: Mapping[str, str]) -> tuple[str, ...] | None:
    """Sets of a Mac by its ``sysctl``; None where that tells nothing."""
    return tuple(name for name, one in ISA.items() if told.get(one.key) == "1") if told else None


def isa_of_engine(system_info: str) -> tuple[str, ...] | None:
    """Sets that an engine was built with and found here, by its system info; None where it tells none at all."""
    names = set(re.findall(r"(\w+) = 1", system_info))
    return tuple(name for name, one in ISA.items() if one.engine in names) if names else None


def best_ratio(isa: Collection[str] | None, of: str) -> tuple[float, str]:
    """The greatest ratio, ``int8_ratio`` or ``fp16_ratio``, of those sets, and whose it is; 1 where none has any."""
    found = [(float(getattr(ISA[name], of)), name) for name in isa or () if name in ISA]
    return max(found, default=(0.0, ""), key=lambda one: one[0]) if any(r for r, _ in found) else (1.0, "")
