"""A way to run a model on a device: what lies where, and what follows from it."""

from enum import StrEnum

from harness.core.base import Frozen
from harness.core.prediction import Prediction
from harness.core.scenario import Scenario


class WayKind(StrEnum):
    """What lies where."""

    WHOLE = "whole"
    """All of it with the engine that the api drives."""
    CARDS = "cards"
    """All of it on several graphics cards."""
    CARD = "card"
    """All of it on one of several graphics cards."""
    LAYERS = "layers"
    """Some layers with the graphics card, the others with the CPU."""
    EXPERTS = "experts"
    """All but the experts of some blocks with the graphics card."""
    CPU = "cpu"
    """All of it with the CPU, beside an engine that is faster where there is room."""
    MAPPED = "mapped"
    """A mapped file, whose pages the system reads again."""
    STREAMED = "streamed"
    """Some layers stay in memory, the others are read for each token."""
    EXPERT_CACHE = "expert cache"
    """The most wanted experts stay in memory, the others are read when the router asks for them."""

    @property
    def is_read(self) -> bool:
        """Whether weights are read from storage while it writes."""
        return self in {WayKind.MAPPED, WayKind.STREAMED, WayKind.EXPERT_CACHE}

    @property
    def is_whole(self) -> bool:
        """Whether all of it lies with the fast engine."""
        return self in {WayKind.WHOLE, WayKind.CARDS, WayKind.CARD}


class Way(Frozen):
    """One way to run a model.

    Attributes:
        kind: What lies where.
        scenario: What was asked, with the api and the placement of this way.
        prediction: Its memory, speed and verdict.
        card: The graphics card's place among several, from 0, where one of them has all of the model.
        pinned_count: Layers that stay in memory, where others are streamed.
        hit_ratio: Share of the wanted experts that stay in memory, where others are read.
        flags: Where everything lies, as options of llama.cpp's programs; empty where they do so unasked.
    """

    kind: WayKind
    scenario: Scenario
    prediction: Prediction
    card: int | None = None
    pinned_count: int | None = None
    hit_ratio: float | None = None
    flags: str = ""

    @property
    def runs(self) -> bool:
        """Whether it runs at all, fast enough or not."""
        return self.prediction.verdict.word != "does not fit"

    @property
    def fits(self) -> bool:
        """Whether all that it needs has room in memory."""
        return self.prediction.verdict.lack_ratio <= 1

    @property
    def has_room(self) -> bool:
        """Whether four runs of five find room: the middle of the memory's upper half, and no less than is needed."""
        verdict = self.prediction.verdict
        peak = self.prediction.memory.peak_bytes
        return verdict.needed_bytes + (peak.high - peak.mid) / 2 <= verdict.available_bytes

    @property
    def request_s(self) -> float:
        """Seconds of the scenario's prompt and new tokens."""
        speed = self.prediction.speed
        reading_s = self.scenario.prompt_tokens / speed.prefill_tokens_per_s.mid
        writing_s = self.scenario.new_tokens / speed.decode_tokens_per_s.mid
        return self.scenario.batch_count * (reading_s + writing_s)
