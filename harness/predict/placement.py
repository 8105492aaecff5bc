"""The fitted link between a GPU's memory and the CPU's: what a split costs beside its parts (``passes.py``)."""

import math
from typing import Final, NamedTuple

from harness.predict.decode import SMOOTHNESS, Machine
from harness.predict.passes import OFFLOAD_TOKENS, Link
from harness.predict.traits import first_cells


class PlacementTerms(NamedTuple):
    """The pooled terms, fitted on published rows of split placements (``published.placement_rows``).

    Attributes:
        gpu: ln g, of a GPU beside a CPU; 0 for one that does all (one graph, launched whole).
        cpu: ln c of whole blocks.
        experts: ln c of experts that lie with the CPU alone.
        crossing: ln x, x in seconds.
        prefill: ln G, of mixtures of experts; 0 for dense models.
        link: ln e.
        ik: What ik_llama.cpp's own CPU kernels add to ln c.
        memory: ln of the share of the host's bandwidth that a copy to a card reaches.
        cpu_prefill: ln of what a prompt's part on the CPU costs relative to a whole model there.
    """

    gpu: float = 0.0
    cpu: float = 0.0
    experts: float = 0.0
    crossing: float = math.log(60e-6)
    prefill: float = 0.0
    link: float = math.log(0.7)
    ik: float = 0.0
    memory: float = math.log(0.35)
    cpu_prefill: float = 0.0


SHIPPED: Final = PlacementTerms(
    gpu=0.299,
    cpu=-0.118,
    experts=-0.345,
    crossing=-9.306,
    prefill=0.273,
    link=-0.317,
    ik=-0.249,
    memory=-1.084,
    cpu_prefill=-0.876,
)
"""Fitted on the shipped rows of split placements, by ``bench.fits.placement.fit_terms``."""

RESIDUALS: Final = {"decode": (0.50, 0.46), "prefill": (0.55, 0.60)}
"""How far ln(speed) of a split may lie below and above where the host is told, on published splits of trust A
and B of cards that were left out where the terms were fitted; ``bench validation --by other`` says what they
hold."""


HOST_SPREAD: Final = 0.45
"""What a host that nobody told adds to it: hosts of one card differ by four times in the bandwidth of their
memory."""
ROCM_LINK_RATIO: Final = 0.25
"""Copies of weights by ROCm over those by CUDA on the same link: prompts of an R9700 with experts on the CPU."""
SHARED_EXPERTS: Final = 1.0
"""ln of what parts cost with the CPU, beside the law of a whole model there, where both share one memory:
moving experts off an integrated GPU made published decodes 2 to 3.8 times slower."""


def link_bytes_per_s(machine: Machine, chip: str) -> float:
    """Specification of a card's link, one way; 15.75 GB/s for a family that is not known."""
    _, gb_s = first_cells("chip_links", machine.traits.family, "family") or ("", "15.75")
    speed = float(gb_s) * 1e9
    if first_cells("chip_links", chip.lower(), "eight lanes"):
        speed /= 2
    if machine.api == "rocm":
        speed *= ROCM_LINK_RATIO
    return speed


def fitted_link(
    specified_bytes_per_s: float,
    host: Machine,
    terms: PlacementTerms,
    *,
    shared_memory: bool = False,
    expert_ratio: float = 1.0,
) -> Link:
    """The link by the fitted terms; where GPU and CPU share their memory nothing is copied.

    Pages that are not pinned are read, written to a pinned buffer and read again, so a copy takes some three
    times its bytes of the memory's bandwidth: it is as fast as the slower of that and the link, smoothly.
    ik_llama.cpp copies experts (``expert_ratio``: used / all) from more than 32 tokens an expert on average.
    """
    link = math.exp(terms.link) * specified_bytes_per_s
    memory = math.exp(terms.memory) * host.bandwidth_bytes_per_s
    other = host.runtime == "ik"
    beside = 0.0
    copies_from: float = OFFLOAD_TOKENS
    if other:
        beside = terms.ik
        copies_from = max(OFFLOAD_TOKENS / expert_ratio - 1, OFFLOAD_TOKENS)
    if shared_memory:
        beside += SHARED_EXPERTS
        copies_from = math.inf
    return Link(
        crossing_s=math.exp(terms.crossing),
        bytes_per_s=link,
        copy_bytes_per_s=float((link**-SMOOTHNESS + memory**-SMOOTHNESS) ** (-1 / SMOOTHNESS)),
        copies_from=copies_from,
        main=math.exp(terms.gpu),
        cpu=math.exp(terms.cpu + beside),
        experts=math.exp(terms.experts + beside),
        prompt_experts=math.exp(terms.prefill),
        prompt_cpu=math.exp(terms.cpu_prefill),
    )
