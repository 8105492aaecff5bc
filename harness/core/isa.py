"""Instruction sets that change what a quantised product costs: one table of their names.

What a machine does not tell is None, and never an empty tuple, which says that it has none of them. Sources:
Linux, arch/x86/include/asm/cpufeatures.h and Documentation/arch/arm64/elf_hwcaps.rst; Apple, "Determining
Instruction Set Characteristics"; llama.cpp, ``llama_print_system_info``; Intel SDM (VPDPBUSD), Arm ARM (SDOT,
SMMLA).
"""

import re
from collections.abc import Collection, Mapping
from typing import Final

from harness.core.base import Frozen
from harness.core.tables import shipped_table


class InstructionSet(Frozen):
    """Names of one set, and what its instructions do beside an fp32 multiply-add of the same width.

    ``flags`` are words of /proc/cpuinfo, each choice needing all of its own; ``key`` is macOS' name,
    ``engine`` that in llama.cpp's system info. Ratios are multiply-adds of one instruction over those of
    fp32, 0 where it has no such. Gains are how many times as fast llama.cpp reads a prompt, and writes, with
    this set as without: low and high; none where nobody has measured it.
    """

    flags: tuple[str, ...]
    engine: str
    key: str = ""
    int8_ratio: float = 0.0
    fp16_ratio: float = 0.0
    prompt_gain: tuple[float, float] | None = None
    decode_gain: tuple[float, float] | None = None


def read_isa() -> dict[str, InstructionSet]:
    """``data/instruction_sets.toml``.

    Raises:
        BadDataError: A column that there is not, or a cell that its column does not hold.
    """
    return shipped_table("data/instruction_sets.toml", into=dict[str, InstructionSet])


ISA: Final = read_isa()


def isa_of_flags(words: Collection[str]) -> tuple[str, ...]:
    """Sets of a CPU with these words in /proc/cpuinfo."""
    have = set(words)
    return tuple(
        name for name, one in ISA.items() if any(set(choice.split()) <= have for choice in one.flags)
    )


def isa_of_keys(facts: Mapping[str, str]) -> tuple[str, ...] | None:
    """Sets of a Mac by its ``sysctl``; None where that tells nothing."""
    if facts:
        return tuple(name for name, one in ISA.items() if facts.get(one.key) == "1")
    return None


def isa_of_engine(system_info: str) -> tuple[str, ...] | None:
    """Sets that an engine was built with and found here, by its system info; None where the info names no set."""
    names = set(re.findall(r"(\w+) = 1", system_info))
    if names:
        return tuple(name for name, one in ISA.items() if one.engine in names)
    return None


def best_ratio(isa: Collection[str] | None, of: str) -> tuple[float, str]:
    """The greatest ratio, ``int8_ratio`` or ``fp16_ratio``, among these instruction sets, and whose it is.

    It is 1, of no set, where none of them has a ratio.
    """
    ratios = [(float(getattr(ISA[name], of)), name) for name in isa or () if name in ISA]
    best = max(ratios, default=(0.0, ""), key=lambda one: one[0])
    if best[0]:
        return best
    return (1.0, "")
