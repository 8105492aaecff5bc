"""Speed of a model whose blocks, experts and cache lie in several pools: each part by its own engine's law.

Decode, one token:

    t = g T_gpu(parts on cards) + c T_cpu(blocks and experts of the CPU) + n x + a / l          [s]

T: the law of one engine (``decode``); g, c: what a part costs beside others, relative to a whole model on that engine;
n: crossings from a GPU to the CPU and back (one for each run of blocks, one for each block whose experts alone are on
the CPU); x: seconds of one; a: activation bytes over the link, 8 x hidden for a crossing (there and back, F32); l:
bytes/s of the link. Cards of a pipeline work one after the other, so their times add; cards that share every matrix
(``row``) work at once and meet twice in a block.

Prefill, n tokens in physical batches of u: llama.cpp copies weights that lie with the CPU to the GPU when a batch has
32 tokens or more, and computes everything there:

    t = G P_gpu(n tokens, u at a time) + ceil(n / u) B / v                                      [s]

P: the prefill law; B: bytes with the CPU that a batch touches (all blocks; of E experts a batch that makes k choices
a token touches E (1 - (1 - k / E)^u)); v: bytes/s of a copy, the slower of the link and the host's memory. Cards of a
pipeline work at once on different batches. A smaller batch is computed where its weights lie.

Source of the rules: llama.cpp, ggml/src/ggml-backend.cpp (``op_offload``; used experts are copied alone),
ggml/src/ggml-cuda/ggml-cuda.cu (batch of 32). Specifications of links: PCI-SIG, GB/s each way.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from harness.predict.decode import SMOOTHNESS, Machine, Work, decode_seconds
from harness.predict.prefill import Prompt, prefill_seconds
from harness.predict.traits import first_cells

OFFLOAD_TOKENS: Final = 32
"""Tokens of a batch from which llama.cpp copies weights to a GPU (``GGML_OP_OFFLOAD_MIN_BATCH``)."""


class Terms(NamedTuple):
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


SHIPPED: Final = Terms(
    gpu=0.192,
    cpu=-0.054,
    experts=-0.161,
    crossing=-9.671,
    prefill=0.243,
    link=-0.313,
    ik=-0.257,
    memory=-1.127,
    cpu_prefill=-1.321,
)
"""Fitted on the shipped rows of split placements, by ``edge-harness validate --rows FILE --leave-out chip``."""


class Split(NamedTuple):
    """What one token needs of each side.

    Attributes:
        gpu: Of the cards together.
        cpu: Of whole blocks that lie with the CPU, and of the cache there.
        experts: Of experts that alone lie with the CPU.
        crossing_count: From a GPU to the CPU and back.
        hidden_dim: Width of the activations that cross.
        copied_bytes: With the CPU, and read by every batch: blocks.
        copied_expert_bytes: Experts with the CPU, of all blocks.
        expert_ratio: Used / all experts.
        copies: Whether a long prompt may have weights of the CPU copied: ``op_offload``, and a GPU that knows the type.
    """

    gpu: Work
    cpu: Work
    experts: Work
    crossing_count: float
    hidden_dim: float
    copied_bytes: float
    copied_expert_bytes: float
    expert_ratio: float = 1.0
    copies: bool = True


class Cards(NamedTuple):
    """The GPUs of a machine.

    Attributes:
        machines: One for each card.
        shares: Of the blocks; they sum to 1.
        link_bytes_per_s: Specification of the link to the host.
        by_rows: Whether all cards share every matrix.
        shared_memory: Whether the GPU uses the CPU's own memory: nothing is copied.
    """

    machines: tuple[Machine, ...]
    shares: tuple[float, ...]
    link_bytes_per_s: float
    by_rows: bool = False
    shared_memory: bool = False


def link_bytes_per_s(machine: Machine, chip: str) -> float:
    """Specification of a card's link, one way; 15.75 GB/s for a family that is not known."""
    _, gb_s = first_cells("chip_links.csv", machine.traits.family, "family") or ("", "15.75")
    return float(gb_s) * 1e9 * (0.5 if first_cells("chip_links.csv", chip.lower(), "eight lanes") else 1)


def scaled(work: Work, ratio: float) -> Work:
    """``ratio`` of a work."""
    return work._replace(
        weight_bytes=work.weight_bytes * ratio,
        weight_count=work.weight_count * ratio,
        layer_count=work.layer_count * ratio,
        kv_bytes=work.kv_bytes * ratio,
        prompt_weight_count=work.prompt_weight_count * ratio,
    )


def decode_split_s(split: Split, cards: Cards, host: Machine, values: Mapping[str, float], terms: Terms) -> float:
    """Seconds of one decoded token; ``values`` are the terms of the decode law."""
    gpu_s = 0.0
    if split.gpu.weight_bytes or split.gpu.kv_bytes:
        each = [
            decode_seconds(scaled(split.gpu, share), machine, values).total_s
            for machine, share in zip(cards.machines, cards.shares, strict=True)
            if share
        ]
        meeting_s = 2 * split.gpu.layer_count * math.exp(terms.crossing) if cards.by_rows and len(each) > 1 else 0.0
        gpu_s = max(each) + meeting_s if cards.by_rows else sum(each)
    scale = terms.ik if host.runtime != "llama.cpp" else 0.0
    host = host._replace(runtime="llama.cpp")
    cpu_s, experts_s = (
        decode_seconds(work, host, values).total_s if work.weight_bytes or work.kv_bytes else 0.0
        for work in (split.cpu, split.experts)
    )
    pipeline = 0 if cards.by_rows else sum(1 for share in cards.shares if share) - 1
    crossings = split.crossing_count + pipeline
    moved = crossings * 8 * split.hidden_dim
    divided = bool(split.cpu.weight_bytes or split.experts.weight_bytes or split.cpu.kv_bytes)
    return (
        (math.exp(terms.gpu) if divided else 1.0) * gpu_s
        + math.exp(terms.cpu + scale) * cpu_s
        + math.exp(terms.experts + scale) * experts_s
        + crossings * math.exp(terms.crossing)
        + moved / (math.exp(terms.link) * cards.link_bytes_per_s)
    )


def prefill_split_s(
    split: Split,
    cards: Cards,
    host: Machine,
    prompt: Prompt,
    ubatch_tokens: int,
    values: Mapping[str, float],
    terms: Terms,
) -> float:
    """Seconds of a prompt; weights are copied once for each physical batch, ``values`` are terms of the prefill law."""
    batch = min(float(ubatch_tokens), prompt.tokens)
    batches = math.ceil(prompt.tokens / max(ubatch_tokens, 1))
    away = (split.cpu, split.experts)
    whole = split.gpu
    if offloads(split, cards, host, batch):
        whole = whole._replace(
            weight_bytes=whole.weight_bytes + sum(w.weight_bytes for w in away),
            weight_count=whole.weight_count + sum(w.weight_count for w in away),
            prompt_weight_count=whole.prompt_weight_count + sum(w.prompt_weight_count for w in away),
            moe=whole.moe or any(w.moe for w in away),
        )
        touched = 1 - (1 - split.expert_ratio) ** batch if split.expert_ratio < 1 else 1.0
        copied = split.copied_bytes + touched * split.copied_expert_bytes
        away_s = 0.0
    else:
        copied = 0.0
        away_s = math.exp(terms.cpu_prefill) * sum(
            prefill_seconds(w, host._replace(runtime="llama.cpp"), prompt._replace(attention_flops=0.0), values)
            for w in away
            if w.prompt_weight_count
        )
    one = prompt._replace(tokens=prompt.tokens / batches)

    def card_s(machine: Machine, share: float) -> float:
        part = one._replace(attention_flops=prompt.attention_flops * share / batches)
        return batches * prefill_seconds(scaled(whole, share), machine, part, values)

    each = [card_s(*card) for card in zip(cards.machines, cards.shares, strict=True) if card[1]]
    gpu_s = max(each) if cards.by_rows else (sum(each) + (batches - 1) * max(each)) / batches
    moved_s = batches * copied / copy_bytes_per_s(cards, host, terms)
    return (math.exp(terms.prefill) if whole.moe else 1.0) * gpu_s + away_s + moved_s


def offloads(split: Split, cards: Cards, host: Machine, batch_tokens: float) -> bool:
    """Whether a batch has the weights of the CPU copied to a GPU.

    llama.cpp: from 32 tokens on; ik_llama.cpp: experts from more than 32 tokens an expert on average (32 E / k).
    """
    least = OFFLOAD_TOKENS / split.expert_ratio if host.runtime == "ik" else OFFLOAD_TOKENS
    return split.copies and not cards.shared_memory and batch_tokens >= OFFLOAD_TOKENS and batch_tokens > least - 1


def copy_bytes_per_s(cards: Cards, host: Machine, terms: Terms) -> float:
    """Bytes/s at which weights of the CPU are copied: the slower of the link and the host's memory, smoothly.

    Pages that are not pinned are read, written to a pinned buffer and read again, so a copy takes some three times
    its bytes of the memory's bandwidth.
    """
    link = math.exp(terms.link) * cards.link_bytes_per_s
    memory = math.exp(terms.memory) * host.bandwidth_bytes_per_s
    return float((link**-SMOOTHNESS + memory**-SMOOTHNESS) ** (-1 / SMOOTHNESS))
