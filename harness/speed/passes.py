"""One pass of a model: some tokens of some sequences, through parts that lie in pools, each on an engine with costs.

A decoded token, a step of several users, the verification of a draft and a prompt are passes; a model that
lies whole on one engine is a split with one part. The costs of an engine come from the laws fitted on
published rows (``fitted.py``), or from this machine's own timings (``timed.py``).

A pass of few tokens computes each part where it lies:

    t = g T_main + c T_cpu(blocks) + e T_cpu(experts alone) + n x + 8 h k n / l                    [s]

T: an engine's time of its part; g, c, e: what a part costs beside others (1 for timed engines); n: crossings
from a GPU to the CPU and back, one for each run of blocks and one for each block whose experts alone lie with
the CPU; x: seconds of one; h: hidden width, k: tokens of the pass, in F32 there and back; l: bytes/s of the
link. Cards of a pipeline work one after the other; cards that share every matrix (``row``, ``tensor``) work
at once and meet twice in a block.

A prompt's batch of 32 tokens or more has the weights that lie with the CPU copied to the GPU, which computes
all:

    t = G T_main(all parts) + b B / v                                                              [s]

b: physical batches; B: bytes with the CPU that a batch touches (all blocks; of E experts a batch of u tokens
with k choices touches E (1 - (1 - k / E)^u)); v: bytes/s of a copy, the slower of the link and the host's
memory. Cards of a pipeline work at once on different batches.

Source of the rules: llama.cpp, ggml/src/ggml-backend.cpp (``op_offload``; used experts are copied alone),
ggml/src/ggml-cuda/ggml-cuda.cu (batch of 32). Specifications of links: PCI-SIG, GB/s each way.

The fitted link between a GPU's memory and the CPU's: what a split costs beside its parts (``passes.py``).
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from harness.core.model import Weights
from harness.core.placement import OFFLOAD_TOKENS
from harness.core.prediction import Evidence
from harness.hardware.traits import first_cells
from harness.speed.decode import SMOOTHNESS, Terms
from harness.speed.work import Machine, Work


class Pass(NamedTuple):
    """What is computed together.

    Attributes:
        tokens: Of each sequence.
        depth_tokens: In the cache of each sequence before them.
        sequences: That share the reading of the weights.
        ubatch_tokens: Most tokens of one physical batch.
        kv_type: ggml type of the cache.
        verified: Whether logits are wanted of every token, and not of each sequence's last alone.
    """

    tokens: int
    depth_tokens: float = 0.0
    sequences: int = 1
    ubatch_tokens: int = 512
    kv_type: str = "F16"
    verified: bool = False

    @property
    def token_count(self) -> int:
        """Tokens of all sequences."""
        return self.tokens * self.sequences

    @property
    def batch_count(self) -> int:
        """Physical batches that they fill."""
        return math.ceil(self.token_count / self.ubatch_tokens)

    @property
    def is_prompt(self) -> bool:
        """Whether it is computed as a prompt is."""
        return self.tokens >= OFFLOAD_TOKENS

    @property
    def phase(self) -> str:
        """``prefill`` or ``decode``: the law that tells of it."""
        if self.is_prompt:
            return "prefill"
        return "decode"


class Part(NamedTuple):
    """Tensors that one engine computes.

    Attributes:
        work: What one token at the pass's depth needs of them.
        weights: The tensors, for costs that go by tensor; None where only published sizes tell of them.
        attention_flops: Of the attention of one sequence's tokens.
        begins: Whether the fixed time of a pass is counted here.
    """

    work: Work
    weights: Weights | None = None
    attention_flops: float = 0.0
    begins: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether nothing is computed."""
        return not (self.work.weight_bytes + self.work.kv_bytes)


class Costs(Protocol):
    """What an engine takes."""

    def reading_bytes_per_s(self, size: float, /) -> float:
        """Ceiling of reading so many bytes again and again."""

    def seconds(self, parts: Sequence[Part], asked: Pass) -> Terms:
        """Seconds of these parts, together, by cause."""

    def spread(self, part: Part, asked: Pass) -> tuple[float, float]:
        """How far ln(time) may lie above and below: ends of the 90 % interval of a whole model."""

    def evidence(self, asked: Pass, /) -> Evidence:
        """Who measured what such a pass is predicted from."""


class Link(NamedTuple):
    """What parts cost that lie apart, and what lies between them.

    Attributes:
        crossing_s: Of one change from a GPU to the CPU and back.
        bytes_per_s: Of activations.
        copy_bytes_per_s: Of weights that a prompt copies.
        copies_from: Tokens of a batch from which they are copied; infinite where they never are.
        main: g above.
        cpu: c above.
        experts: e above.
        prompt_experts: G above, of mixtures of experts; 1 for dense models.
        prompt_cpu: What a prompt's part on the CPU costs relative to a whole model there.
    """

    crossing_s: float
    bytes_per_s: float
    copy_bytes_per_s: float
    copies_from: float = OFFLOAD_TOKENS
    main: float = 1.0
    cpu: float = 1.0
    experts: float = 1.0
    prompt_experts: float = 1.0
    prompt_cpu: float = 1.0


NO_LINK: Final = Link(0.0, math.inf, math.inf)
"""Of a model that lies whole on one engine."""


class Meeting(NamedTuple):
    """What cards that share every matrix pay twice in a block, where they put their parts together.

    Attributes:
        crossings: Of a GPU to the CPU and back, that it takes as long as.
        copies: Of the activations there and back, that go over the link in a prompt.
    """

    crossings: float
    copies: float


MEETINGS: Final = {"row": Meeting(2.5, 8.0), "tensor": Meeting(0.9, 2.0)}
"""By llama.cpp's ``-sm``. Decode: 220 to 280 us a meeting by rows (2 V100, 4 RTX 4090), 57 to 123 us by
tensors (2 RX 7900 XTX, 4 RTX 4090); prompts: 6 to 13 copies, and 0.7 to 4.4 (links.csv, runs that tell the
same by layers)."""
MEETING_SPREAD: Final = 0.5
"""What it adds to how far ln(speed) may lie off: builds of one program differ by twice as much."""


class Engines(NamedTuple):
    """What computes: cards (or one other engine that has all of the model), the CPU beside them, and the link.

    ``shares`` of the main part on each card sum to 1; ``meeting``: all cards share every matrix, and meet so;
    ``host_told``: whether somebody said what the CPU's memory is.
    """

    cards: tuple[Costs, ...]
    host: Costs
    link: Link = NO_LINK
    shares: tuple[float, ...] = (1.0,)
    meeting: Meeting | None = None
    host_told: bool = True


class Split(NamedTuple):
    """A model by where it is computed: the main engine's part, whole blocks of the CPU, and experts alone with it.

    Attributes:
        crossing_count: From a GPU to the CPU and back, within one pass.
        hidden_dim: Width of the activations that cross.
        copied_bytes: With the CPU, and read by every batch: blocks.
        copied_expert_bytes: Experts with the CPU, of all blocks.
        expert_ratio: Used / all experts.
    """

    main: Part
    cpu: Part
    experts: Part
    crossing_count: float = 0.0
    hidden_dim: float = 0.0
    copied_bytes: float = 0.0
    copied_expert_bytes: float = 0.0
    expert_ratio: float = 1.0

    @property
    def away(self) -> list[Part]:
        """Parts that lie with the CPU."""
        return [part for part in (self.cpu, self.experts) if not part.is_empty]


NOTHING: Final = Part(Work(0.0, 0.0, 0.0, 0.0, "q4"))


def whole(part: Part) -> Split:
    """A model that lies on one engine."""
    return Split(part, NOTHING, NOTHING)


def pass_terms(split: Split, engines: Engines, asked: Pass) -> Terms:
    """Seconds of one pass by cause."""
    away, link = split.away, engines.link
    batches = asked.batch_count
    batch = min(asked.token_count, asked.ubatch_tokens)
    beside = 1.0
    if away and not asked.is_prompt:
        beside = link.main
    elif away and split.expert_ratio < 1:
        beside = link.prompt_experts
    is_copied = bool(away) and asked.is_prompt and batch >= link.copies_from
    on_cards = [] if split.main.is_empty else [split.main]
    if is_copied:
        on_cards = [split.main, *away]
    shared = [(card, share) for card, share in zip(engines.cards, engines.shares, strict=True) if share]
    seconds = Terms()
    if on_cards and len(shared) == 1:
        seconds = shared[0][0].seconds(on_cards, asked).times(beside)
    elif on_cards:
        each = [card.seconds([scaled(part, share) for part in on_cards], asked) for card, share in shared]
        seconds = _of_cards(each, on_cards, split.hidden_dim, engines, asked).times(beside)
    if is_copied:
        touched = 1 - (1 - split.expert_ratio) ** batch
        copied = split.copied_bytes + touched * split.copied_expert_bytes
        return seconds.plus(Terms(link_s=batches * copied / link.copy_bytes_per_s))
    for part, factor in ((split.cpu, link.cpu), (split.experts, link.experts)):
        if not part.is_empty:
            own = engines.host.seconds([part], asked)
            seconds = seconds.plus(own.times(link.prompt_cpu if asked.is_prompt else factor))
    crossings = split.crossing_count
    if engines.meeting is None:
        crossings += sum(1 for share in engines.shares if share) - 1
    if asked.is_prompt and not away:
        crossings = 0
    moved_s = batch * crossings * 8 * split.hidden_dim / link.bytes_per_s
    return seconds.plus(Terms(link_s=batches * (crossings * link.crossing_s + moved_s)))


def _of_cards(
    each: Sequence[Terms], parts: Sequence[Part], hidden_dim: float, engines: Engines, asked: Pass
) -> Terms:
    """Seconds of what lies with several cards, whose own seconds are ``each``."""
    slowest = max(each, key=lambda one: float(one.total_s))
    if engines.meeting is not None:
        meetings = 2 * sum(part.work.layer_count for part in parts)
        moved = engines.meeting.copies * asked.token_count * 8 * hidden_dim / engines.link.bytes_per_s
        waited = asked.batch_count * engines.meeting.crossings * engines.link.crossing_s
        return slowest.plus(Terms(link_s=meetings * (waited + moved)))
    one_by_one = Terms()
    for one in each:
        one_by_one = one_by_one.plus(one)
    if not asked.is_prompt:
        return one_by_one
    batches = asked.batch_count
    return one_by_one.plus(slowest.times(batches - 1)).times(1 / batches)


_AMOUNTS: Final = (
    "weight_bytes",
    "weight_count",
    "layer_count",
    "kv_bytes",
    "prompt_weight_count",
    "prompt_bytes",
)
"""What of the work of a part is the less, the smaller the part."""


def scaled(part: Part, ratio: float) -> Part:
    """``ratio`` of a part."""
    amounts = {name: ratio * getattr(part.work, name) for name in _AMOUNTS}
    return part._replace(attention_flops=part.attention_flops * ratio, work=part.work._replace(**amounts))


def together(parts: Sequence[Part]) -> Part:
    """Parts that one engine computes, as one."""
    first, *rest = parts
    if not rest:
        return first
    amounts = {name: sum(getattr(part.work, name) for part in parts) for name in _AMOUNTS}
    work = first.work._replace(moe=any(part.work.moe for part in parts), **amounts)
    return first._replace(
        work=work, weights=None, attention_flops=sum(part.attention_flops for part in parts)
    )


class PlacementTerms(NamedTuple):
    """The pooled terms, fitted on published rows of split placements (``bench.fits.placement.fit_terms``).

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

    gpu: float = 0.299
    cpu: float = -0.118
    experts: float = -0.345
    crossing: float = -9.306
    prefill: float = 0.273
    link: float = -0.317
    ik: float = -0.249
    memory: float = -1.084
    cpu_prefill: float = -0.876


SHIPPED: Final = PlacementTerms()


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
    terms: PlacementTerms = SHIPPED,
    *,
    shared_memory: bool = False,
) -> Link:
    """The link by the fitted terms; where GPU and CPU share their memory nothing is copied.

    Pages that are not pinned are read, written to a pinned buffer and read again, so a copy takes some three
    times its bytes of the memory's bandwidth: it is as fast as the slower of that and the link, smoothly.
    """
    link = math.exp(terms.link) * specified_bytes_per_s
    memory = math.exp(terms.memory) * host.bandwidth_bytes_per_s
    beside = 0.0
    copies_from: float = OFFLOAD_TOKENS
    if host.runtime == "ik":
        beside = terms.ik
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
