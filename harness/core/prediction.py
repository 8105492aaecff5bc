"""What the feasibility model says, and how sure it is."""

from collections.abc import Callable
from enum import StrEnum
from typing import Final, Literal

from harness.core.base import Frozen
from harness.core.device import RAM, PoolName

VerdictWord = Literal["fits", "fits with streaming", "too slow", "does not fit"]
"""``too slow``: it fits, and misses the speed that was wanted."""


class Limit(StrEnum):
    """What binds: a cause of the time of a token, the speed that was wanted, or memory."""

    WEIGHTS = "weights"
    DEQUANTISATION = "dequantisation"
    KV_CACHE = "kv cache"
    OVERHEAD = "overhead"
    LINK = "link"
    STORAGE = "storage"
    DECODE_SPEED = "decode speed"
    APP_MEMORY = "memory that one app may use"
    CARD_MEMORY = "memory of the card"
    ONE_CARD = "memory of one of the cards"
    NONE = "none"


class PartKind(StrEnum):
    """What a part of the memory is."""

    WEIGHTS = "weights"
    CPU_WEIGHTS = "weights with the CPU"
    TABLE = "token table"
    REPACKED = "repacked weights"
    KV_CACHE = "kv cache"
    CPU_KV_CACHE = "kv cache with the CPU"
    CELL_RECORDS = "cell records"
    COMPUTE = "compute buffer"
    HOST_BUFFER = "host buffer"
    GRAPH = "graph"
    DRIVER = "driver"
    VOCABULARY = "vocabulary"
    RUNTIME = "runtime"
    IMAGE_TOWER = "image tower"
    IMAGE_BUFFER = "image buffer"
    COMPANION = "companion"
    CHECKPOINTS = "checkpoints"
    PROMPT_CACHE = "prompt cache"
    UNKNOWN = "unknown"
    """Of a record that was written before parts had kinds."""


ENGINE_BUFFERS: Final = {
    PartKind.WEIGHTS,
    PartKind.CPU_WEIGHTS,
    PartKind.TABLE,
    PartKind.KV_CACHE,
    PartKind.CPU_KV_CACHE,
    PartKind.COMPUTE,
    PartKind.HOST_BUFFER,
}
"""Parts that an engine tells of when it loads; the others are the process's own."""


class Interval(Frozen, kw_only=False):
    """A predicted quantity with its 90 % interval, in the unit of the field that holds it."""

    mid: float
    low: float
    high: float

    def through(self, law: Callable[[float], float]) -> "Interval":
        """What a law that only rises, or only falls, makes of it."""
        low, mid, high = sorted(map(law, (self.low, self.mid, self.high)))
        return Interval(mid, low, high)


class MemoryPart(Frozen, kw_only=False):
    """One part of the memory needed.

    Attributes:
        anonymous_bytes: Must be held; only swap could take it back.
        file_bytes: Mapped from the file; the system may drop and read it again.
        reason: The arithmetic in words.
        pool: The memory pool it lies in: ``vram`` on a graphics card with memory of its own.
        card: The number of that card, where the model is split over several.
        drafts: Whether it belongs to the draft or the head that drafts for the model.
        name: Of a companion, what it is called.
    """

    kind: PartKind = PartKind.UNKNOWN
    anonymous_bytes: int = 0
    file_bytes: int = 0
    reason: str = ""
    pool: PoolName = RAM
    card: int | None = None
    drafts: bool = False
    name: str = ""

    @property
    def size_bytes(self) -> int:
        """Bytes held or mapped."""
        return self.anonymous_bytes + self.file_bytes

    @property
    def is_beside_ram(self) -> bool:
        """Whether it lies in memory of an engine's own, such as a graphics card's."""
        return self.pool != RAM

    @property
    def label(self) -> str:
        """The part as people read it."""
        label = self.name or self.kind.value
        if self.drafts:
            label = f"draft {label}"
        if self.card is None:
            return label
        return f"{label}, card {self.card}"


class MemoryPrediction(Frozen):
    """Memory at its peak, once loaded.

    Attributes:
        later: What a program adds over many turns, at most: saved states, the cache of other prompts. The
            reason of each names the option that caps it.
    """

    parts: tuple[MemoryPart, ...]
    peak_bytes: Interval
    later: tuple[MemoryPart, ...] = ()

    @property
    def anonymous(self) -> Interval:
        """The same with its 90 % interval: half as wide as that of the peak, whose pages of files are less sure.

        What the peak may be off by on one side alone is what an engine rewrites, and is anonymous.
        """
        mid = float(self.anonymous_bytes)
        peak = self.peak_bytes
        below = peak.mid - peak.low
        above = peak.high - peak.mid
        halved = min(below, above) / 2
        return Interval(mid, max(mid - below + halved, 0.0), mid + above - halved)

    @property
    def anonymous_bytes(self) -> int:
        """Bytes that must be held."""
        return sum(p.anonymous_bytes for p in self.parts)

    @property
    def file_bytes(self) -> int:
        """Bytes that the system may drop and read again."""
        return sum(p.file_bytes for p in self.parts)


class Basis(StrEnum):
    """What a speed rests on, the surest first."""

    TIMED = "timed"
    """Costs of the engine, timed on this device by `edge-harness devices probe`."""
    TAUGHT = "taught"
    """Speeds that its owner measured on this device and taught by `edge-harness learn`."""
    CHIP = "chip"
    """Speeds that others published of this chip by this api."""
    RELATIVES = "relatives"
    """Speeds that others published of chips of its family by this api."""
    LAW = "law"
    """What is true of the api in the mean, and of other chips."""


class Evidence(Frozen):
    """Who measured what a speed is predicted from.

    Attributes:
        count: Measurements of the phase that ``basis`` tells of: of this device, of its chip, or of its
            family. Those of one model in one quantisation on one chip from one source count as one.
        nearest: Name of the chip that ``basis`` tells of; of relatives the one nearest in bandwidth.
        is_unmeasured: Whether nobody published anything of the kind: no chip of its family, or none by this
            api.
    """

    basis: Basis = Basis.LAW
    count: int = 0
    nearest: str = ""
    is_unmeasured: bool = False


class SpeedPrediction(Frozen):
    """Speed of one scenario.

    Attributes:
        decode_tokens_per_s: Single-sequence generation at the scenario's depth.
        ttft_cold_s: Load from storage and prefill, whose last logits give the first token.
        ttft_warm_s: The same with the model loaded.
        active_bytes: Weight bytes read to decode one token.
        kv_read_bytes: KV bytes read to decode one token at this depth.
        roofline_tokens_per_s: The ceiling: bandwidth / (active + KV bytes). No measurement may pass it.
        limits: Share of decode time by cause.
        unsettled: Speeds that are not known well enough to decide by, each with the measurement that would
            settle it.
        decode_evidence: What the decode speed rests on; of a split, on its first card.
        prefill_evidence: The same of the prompt's.
    """

    decode_tokens_per_s: Interval
    prefill_tokens_per_s: Interval
    ttft_cold_s: Interval
    ttft_warm_s: Interval
    load_cold_s: Interval
    load_warm_s: Interval
    active_bytes: int
    kv_read_bytes: int
    roofline_tokens_per_s: float
    limits: dict[Limit, float]
    unsettled: tuple[str, ...] = ()
    decode_evidence: Evidence = Evidence()
    prefill_evidence: Evidence = Evidence()


class Verdict(Frozen):
    """Does it fit, and what binds."""

    word: VerdictWord
    binding_limit: Limit
    needed_bytes: int
    available_bytes: int
    reasons: tuple[str, ...] = ()

    @property
    def lack_ratio(self) -> float:
        """What is needed, over what there is."""
        return self.needed_bytes / max(self.available_bytes, 1)


class Prediction(Frozen):
    """Everything said of one model on one device in one scenario.

    Attributes:
        model: Its name; as typed, where a card of another version, or of what it is made of, stands for it.
        quant: Its quantisation; as typed, where a mixture of llama.cpp stands for it.
    """

    device: str
    model: str
    quant: str
    api: str
    memory: MemoryPrediction
    speed: SpeedPrediction
    verdict: Verdict
