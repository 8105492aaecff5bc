"""What holds of a question and of its device that makes one cause of a slow speed likelier than another."""

import re
from functools import cached_property
from typing import Final

from harness.answer.answer import Answer
from harness.answer.case import Case
from harness.answer.pasted import Seen
from harness.answer.resolve import resolve_device
from harness.answer.ways import ways
from harness.core.device import Device
from harness.core.placement import Placement
from harness.core.prediction import Interval
from harness.core.program import program_named
from harness.core.units import GIB
from harness.core.way import WayKind

_FULL_RATIO: Final = 0.85
DEEP_TOKENS: Final = 8192
_LONG_TOKENS: Final = 16384
_MODULES_GIB: Final = 120
_HYBRID: Final = re.compile(
    r"i[3579]-?1[2-4]\d{3}|core[ -]ultra|rk3588|orange ?pi|snapdragon|dimensity|exynos|n[12]00\b|\bi3-n",
    re.IGNORECASE,
)
"""Names of CPUs with fast and slow cores."""
_MANY: Final = re.compile(r"epyc|xeon|threadripper", re.IGNORECASE)
_WHEELS: Final = frozenset({"llama-cpp-python", "ik-llama-cpp-python", "xllamacpp", "jan"})
_SOCKETS: Final = re.compile(
    r"\b(?:[248] ?x|dual|two) ?(?:amd |intel )?(?:epyc|xeon|e5)|of \d sockets counts", re.IGNORECASE
)


CIRCUMSTANCES: Final = frozenset({
    "places", "placed", "windows", "linux", "wsl", "full", "deep", "long", "versioned", "told", "shared", "hybrid", "many",
    "server",
    "phone", "laptop", "board", "npu", "mac", "desktop", "wheel", "program", "sockets", "drafts",
    "modules", "slots", "enough", "narrow", "spread", "split", "assumed", "tight",
})  # fmt: skip
"""What may hold of a question and of its device: the words of ``there``."""


class Circumstances:
    """A question, its answer and what a log says of the run."""

    def __init__(self, found: Answer, case: Case, seen: Seen) -> None:
        self.found = found
        self.case = case
        self.seen = seen

    @cached_property
    def text(self) -> str:
        """All that the device is called, in small letters."""
        device = self.case.device
        names = [
            self.found.question.device,
            device.title,
            device.chip,
            *(engine.name for engine in device.engines),
        ]
        return " ".join([*names, *device.readings]).lower()

    @cached_property
    def there(self) -> frozenset[str]:
        """What holds of the question and of its device: the words of the table's shares."""
        question, case, way = self.found.question, self.case, self.found.best
        program = program_named(case.scenario.program)
        device = case.device
        typed = question.device.lower()
        has_card = self.has_card
        held = self.found.prediction.verdict
        rig = self.found.card_titles
        depth = max(question.depth_tokens, question.prompt_tokens)
        holds = {
            "places": bool(program.fit)
            and question.placement is None
            and program.name not in {"llama-server", "llama-cli"},
            "placed": question.placement is not None,
            "windows": "windows" in typed or bool(re.search(r"\bwin ?1[01]\b", typed)),
            "linux": bool(re.search(r"linux|ubuntu|debian", typed)),
            "wsl": "wsl" in typed or "docker" in typed,
            "full": has_card
            and (
                (self.is_split and question.placement is None)
                or held.needed_bytes > _FULL_RATIO * held.available_bytes
            ),
            "deep": depth >= DEEP_TOKENS,
            "long": case.scenario.context_tokens >= _LONG_TOKENS,
            "versioned": bool(program.version),
            "told": bool(question.thread_count),
            "shared": self.has_gpu and not has_card and device.os in {"linux", "windows"},
            "hybrid": bool(_HYBRID.search(self.text)) and self.cpu_computes,
            "many": bool(_MANY.search(self.text)),
            "server": bool(_MANY.search(self.text)) and way.prediction.api == "cpu",
            "phone": device.kind in {"phone", "tablet"},
            "laptop": device.kind == "laptop" or "laptop" in self.text,
            "board": bool(re.search(r"jetson|raspberry", self.text)),
            "npu": way.prediction.api == "npu",
            "mac": device.os == "macos",
            "desktop": has_card,
            "wheel": program.name in _WHEELS,
            "program": program.name in {"ollama", "jan"} or device.os == "macos",
            "sockets": bool(_SOCKETS.search(self.text)) or (self.seen.numa_nodes or 0) > 1,
            "drafts": bool(question.draft),
            "modules": self.has_modules,
            "slots": device.kind in {"desktop", "workstation", "server", "laptop"} and device.os != "macos",
            "enough": len(rig) > 1 and self.one_card is not None,
            "narrow": bool(re.search(r"x1\b|x2\b|riser|thunderbolt|usb ?4|e-?gpu", typed)),
            "spread": len(rig) > 1 and way.kind is WayKind.CARDS,
            "split": self.is_split,
            "assumed": not question.quant,
            "tight": held.needed_bytes > 0.9 * held.available_bytes and not has_card,
        }
        return frozenset(word for word, is_so in holds.items() if is_so)

    @cached_property
    def has_card(self) -> bool:
        """Whether it computes on a card with memory of its own."""
        return self.case.device.pool_for(self.found.prediction.api) == "vram"

    @cached_property
    def has_gpu(self) -> bool:
        """Whether a GPU computes."""
        api = self.found.prediction.api
        engine = self.case.device.engine_for(api)
        return engine is not None and engine.kind == "gpu"

    @cached_property
    def is_split(self) -> bool:
        """Whether layers or experts lie with the CPU."""
        return self.found.best.kind in {WayKind.LAYERS, WayKind.EXPERTS}

    @cached_property
    def cpu_computes(self) -> bool:
        """Whether the CPU computes a part, or all."""
        return self.is_split or self.found.prediction.api == "cpu"

    @cached_property
    def has_modules(self) -> bool:
        """Whether so much DDR5 takes four modules of a board with two channels."""
        pool = self.case.device.pool("ram")
        desktop = self.case.device.kind == "desktop" and "ddr5" in pool.technology.lower()
        return desktop and pool.total_bytes.value / GIB > _MODULES_GIB and not _MANY.search(self.text)

    @cached_property
    def one_card(self) -> Interval | None:
        """Speed on the best single card of a rig; None where none has room for all of the model."""
        whole = self.case._replace(device=self.rig, is_placed=False)
        listed = ways(whole.at(placement=Placement(), program=""))
        return next(
            (
                way.prediction.speed.decode_tokens_per_s
                for way in listed
                if way.kind is WayKind.CARD and way.fits
            ),
            None,
        )

    @cached_property
    def rig(self) -> Device:
        """The device as it was asked about, with all of its cards."""
        return resolve_device(self.found.question.device)
