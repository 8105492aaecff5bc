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
    gpu=0.326,
    cpu=-0.119,
    experts=-0.386,
    crossing=-9.503,
    prefill=0.340,
    link=-0.309,
    ik=-0.235,
    memory=-1.081,
    cpu_prefill=-0.960,
)
"""Fitted on the shipped rows of split placements, by ``bench.fits.placement.fit_terms``."""

RESIDUALS: Final = {"decode": (0.46, 0.42), "prefill": (0.42, 0.48)}
"""How far ln(speed) of a split may lie below and above: 5 % and 95 % quantiles on published splits of trust A and B, of
cards that were left out where the terms were fitted; ``bench validation --by other`` says what they hold."""


def link_bytes_per_s(machine: Machine, chip: str) -> float:
    """Specification of a card's link, one way; 15.75 GB/s for a family that is not known."""
    _, gb_s = first_cells("chip_links.csv", machine.traits.family, "family") or ("", "15.75")
    return float(gb_s) * 1e9 * (0.5 if first_cells("chip_links.csv", chip.lower(), "eight lanes") else 1)


def fitted_link(
    specified_bytes_per_s: float,
    host: Machine,
    terms: PlacementTerms,
    *,
    shared_memory: bool = False,
    expert_ratio: float = 1.0,
) -> Link:
    """The link by the fitted terms; where GPU and CPU share their memory nothing is copied.

    Pages that are not pinned are read, written to a pinned buffer and read again, so a copy takes some three times its
    bytes of the memory's bandwidth: it is as fast as the slower of that and the link, smoothly. ik_llama.cpp copies
    experts (``expert_ratio``: used / all) from more than 32 tokens an expert on average.
    """
    link = math.exp(terms.link) * specified_bytes_per_s
    memory = math.exp(terms.memory) * host.bandwidth_bytes_per_s
    other = host.runtime == "ik"
    kernels = terms.ik if other else 0.0
    copies_from = max(OFFLOAD_TOKENS / expert_ratio - 1, OFFLOAD_TOKENS) if other else OFFLOAD_TOKENS
    return Link(
        crossing_s=math.exp(terms.crossing),
        bytes_per_s=link,
        copy_bytes_per_s=float((link**-SMOOTHNESS + memory**-SMOOTHNESS) ** (-1 / SMOOTHNESS)),
        copies_from=math.inf if shared_memory else copies_from,
        main=math.exp(terms.gpu),
        cpu=math.exp(terms.cpu + kernels),
        experts=math.exp(terms.experts + kernels),
        prompt_experts=math.exp(terms.prefill),
        prompt_cpu=math.exp(terms.cpu_prefill),
    )
