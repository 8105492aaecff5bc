"""Published measurements as they are read: one row, one test on one chip.

Columns used: ``device chip api device_class runtime memory_bandwidth_gb_s model arch params_b active_params_b
quant model_bytes test tokens_per_s context_depth date trust exclude_from_stats source bw_confidence``. Others
are ignored, blanks are allowed anywhere; a row that lacks what a prediction needs is kept, with the reason.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from harness.core.errors import BadDataError
from harness.core.prediction import Interval
from harness.hardware.traits import PHONE_THREADS, bits_of, chip_key, quant_class, traits_of
from harness.speed.decode import decode_gradient, decode_seconds
from harness.speed.prefill import BATCH_TOKENS, Prompt, prefill_gradient, prefill_seconds, prompt_of
from harness.speed.published.cells import Cells, read_cells
from harness.speed.published.row_work import ModelOf, active_named, row_work
from harness.speed.work import BELOW_FOUR_BITS, Machine, Work

DEEP_TOKENS: Final = 3000
"""Mean context from which a row counts as deep."""
TRUSTED: Final = ("A", "B")
_SEVERAL: Final = re.compile(
    r"spills to|partial offload|does not fit|two cards|experts on gpu|over rpc|\d machines"
)
"""What notes say where the laws of one memory do not hold."""
_CARDS: Final = re.compile(r"(?:^| )[*x] ?([2-9])\b|\b([2-9]) ?x ")
"""How the name of a machine tells that it has several cards of a kind."""
_UBATCH: Final = re.compile(r"\b(?:n_)?ub(?:atch)?[ =](\d+)")
"""How notes tell the most tokens that go through the weights together."""
NEUTRAL_EXCLUSIONS: Final = ("", "moe", "deep context", "deep context; moe")
"""Marks that do not doubt the figure itself."""


BY_BITS: Final = "bits of its quantisation"
"""Where the bytes of a model are from whose file nobody knows: good enough to be judged by, and not to teach."""
_NOBODY: Final = Machine("other", 0.0, traits_of("", "other", 1e11))
"""Of a row that tells no machine."""


class PublishedRow(NamedTuple):
    """One published measurement, of whatever: a speed, a speedup, joules, the share of speed that is left.

    Attributes:
        raw: Its cells.
        group: ``dense moe sub-4-bit phone deep prefill`` for speeds of one sequence, else what is measured in
            words.
        vote: All rows of equal vote count as one.
        measured: Tokens/s, speedup, J/token or share.
        promised: The same by a data sheet or the simplest rule; 0 where there is none.
        reason: Why it cannot be predicted; empty where it can.
        law: Predicts it by what ships; None for speeds of one sequence, which any coefficients can be asked
            for.
        phase: Of a speed, ``decode`` or ``prefill``.
        chip: Canonical name of the silicon.
        work: What one token needs.
        machine: What ran it.
        prompt: Of a prefill test.
        depth_tokens: Mean tokens in the cache meanwhile.
    """

    raw: Cells
    group: str
    vote: tuple[str, ...]
    measured: float
    promised: float = 0.0
    reason: str = ""
    law: Callable[[], Interval | None] | None = None
    phase: str = ""
    chip: str = ""
    work: Work | None = None
    machine: Machine = _NOBODY
    prompt: Prompt = Prompt(0.0, 0.0)
    depth_tokens: float = 0.0

    @property
    def token_count(self) -> float:
        """Tokens that the time of the test is of: one decoded token, or a prompt."""
        if self.phase == "prefill":
            return self.prompt.tokens
        return 1.0

    @property
    def ln_s(self) -> float:
        """Ln of the measured seconds of a speed."""
        return math.log(self.token_count / self.measured)

    def predicted(self, values: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        """Ln of the seconds by these terms, and its gradient; of a predictable row of speed."""
        assert self.work is not None
        if self.phase == "decode":
            seconds = decode_seconds(self.work, self.machine, values).total_s
            return math.log(seconds), decode_gradient(self.work, self.machine, values)
        seconds = prefill_seconds(self.work, self.machine, self.prompt, values)
        return math.log(seconds), prefill_gradient(self.work, self.machine, self.prompt, values)

    @property
    def described(self) -> dict[str, str]:
        """What was measured, by the names that a table of rows shows."""
        named = {name: self.raw.get(name, "") for name in ("chip", "model", "quant", "test")}
        return named | {"api": self.machine.api}

    @property
    def source(self) -> str:
        """Who published it: the repository or thread, whatever the file in it."""
        return source_key(self.raw.get("source", ""))

    @property
    def excluded(self) -> str:
        """Why the file itself keeps this row out of statistics."""
        return self.raw.get("exclude_from_stats", "")


def read_rows(path: Path | None, model_of: ModelOf) -> list[PublishedRow]:
    """Rows of a file of speeds, or of the shipped one.

    What they do not say of a model is taken from its card.

    Raises:
        BadDataError: It is no such file: not text, or columns missing.
    """
    cells = read_cells(path)
    return [one_row(raw, "speed", lambda own: row_of(own, model_of)) for raw in cells]


def one_row(raw: Cells, group: str, read: Callable[[Cells], PublishedRow]) -> PublishedRow:
    """The row of cells, refused with the reason where one of them should be a number and is none."""
    try:
        return read(raw)
    except BadDataError as error:
        return refused(raw, group, error)


def refused(raw: Cells, group: str, error: BadDataError) -> PublishedRow:
    """A row of which a cell should be a number and is none."""
    return PublishedRow(
        raw, group, (str(raw.line),), 0.0, reason=f"no number: {error.field.partition(', ')[2]} {error.found}"
    )


def row_of(raw: Cells, model_of: ModelOf) -> PublishedRow:
    """The row of cells by their column.

    Raises:
        BadDataError: A number that is none.
    """
    speed, gb_s, params, size, active, threads = raw.numbers(
        "tokens_per_s", "memory_bandwidth_gb_s", "params_b", "model_bytes", "active_params_b", "n_threads"
    )
    bandwidth = gb_s * 1e9
    known = model_of(raw.get("model", ""), params, raw.get("quant", ""), active)
    if known is not None and not (params and size):
        params = params or known.params_b
        derived = "model card"
        if not size and known.sized:
            size = known.file_bytes
        elif not size and raw.get("quant"):
            size = known.params_b * 1e9 * bits_of(raw["quant"]) / 8
            derived = BY_BITS
        raw |= {"model_bytes": str(size or ""), "derived": derived}
    api = api_named(raw.get("backend", ""))
    phase, count, depth, ok = test_named(raw.get("test", ""), raw.get("context_depth", ""))
    phone = raw.get("device_class", "") in {"phone", "tablet"}
    runtime = runtime_named(raw.get("runtime", ""))
    few = phone or runtime == "litert-lm"
    traits = traits_of(raw["chip"], api, bandwidth or 1e11, int(threads) or PHONE_THREADS * few)
    chip = chip_key(raw["chip"])
    machine = Machine(api, bandwidth, traits, phone, runtime, _year(raw), chip)
    quant = quant_class(raw.get("quant", ""))
    moe = raw.get("arch", "").startswith("moe") or 0 < active < 0.8 * params
    if moe and not active:
        read_count = 0.0
        if known is not None and known.shape.experts is not None:
            read_count = known.read.weight_count
        active = active_named(raw.get("model", "")) or read_count / 1e9
    reason = why_not(
        (ok, "unknown test"),
        (speed, "no speed"),
        (bandwidth, "no bandwidth"),
        (params, "no parameters"),
        (size, "no model bytes"),
        (active or not moe, "no active parameters"),
        (known, "no such model"),
        (api != "hybrid" and not _SEVERAL.search(raw.get("notes", "").lower()), "in several memories"),
    )
    mean_depth = depth + (count / 2 if phase == "decode" else 0)
    work = None
    prompt = Prompt(count, 0.0)
    promised = 0.0
    if not reason and known is not None:
        cards = None
        if machine.side == "gpu":
            cards = _CARDS.search(raw.get("device", ""))
        batch = _UBATCH.search(raw.get("notes", ""))
        prompt = prompt_of(known.shape, count, depth)._replace(
            card_count=int(cards[1] or cards[2]) if cards else 1,
            batch_tokens=int(batch[1]) if batch else BATCH_TOKENS,
        )
        work = row_work(known, size, quant, mean_depth)._replace(
            moe=moe,
            prompt_bytes=size if moe else 0.0,
            type_name=raw.get("quant", "").upper().partition(" ")[0],
            model=known.name,
        )
        promised = bandwidth / (size * (active / params if moe else 1.0))
        if phase == "prefill":
            promised = traits.matrix_flops_per_s / (2 * work.weight_count)
    group = _group(phase, moe=moe, quant=quant, phone=phone, depth=mean_depth)
    vote = chip, api, raw.get("model", ""), raw.get("quant", ""), group
    return PublishedRow(
        raw, group, vote, speed, promised, reason, None, phase, chip, work, machine, prompt, mean_depth
    )


def why_not(*given: tuple[object, str]) -> str:
    """The word of the first that is not there; empty where all are."""
    return next((word for there, word in given if not there), "")


def _group(phase: str, *, moe: bool, quant: str, phone: bool, depth: float) -> str:
    if phase == "prefill":
        return "prefill"
    if moe:
        return "moe"
    if phone:
        return "phone"
    if quant in BELOW_FOUR_BITS:
        return "sub-4-bit"
    if depth >= DEEP_TOKENS:
        return "deep"
    return "dense"


def api_named(text: str) -> str:
    """Canonical api; ``other`` for one that is not known."""
    text = text.lower().strip()
    if text.startswith("cpu+") or text == "cpu/gpu":
        return "hybrid"
    for name in ("metal", "cuda", "vulkan", "opencl", "rocm", "hip", "npu", "sycl", "openvino", "cpu"):
        if name in text:
            return {"hip": "rocm", "openvino": "sycl"}.get(name, "vulkan" if "rocm/vulkan" in text else name)
    if text in {"mlx", "mps"}:
        return "metal"
    return "other"


def runtime_named(text: str) -> str:
    """``llama.cpp`` for everything of its kind, else the runtime's first word."""
    lower = text.lower()
    own = re.search(
        r"bitnet|^ik_", lower
    )  # forks with kernels of their own, whatever tool of llama.cpp timed them
    if not lower or (not own and re.search(r"llama-bench|^llama\.?cpp|^llama\.rn|llama.cpp-class", lower)):
        return "llama.cpp"
    return re.split(r"[ _(,]", lower, maxsplit=1)[0].strip("-") + ("-ane" if "ane" in lower.split() else "")


def test_named(test: str, depth: str) -> tuple[str, float, float, bool]:
    """Phase, tokens of the test, tokens before it, and whether the name was understood."""
    text = test.lower()
    before = _tokens(depth)
    for stated in re.findall(r"(?:@ ?d|@ ?ctx ?|after pp|prompt |ctx )(\d+k?)", text):
        before = max(before, _tokens(stated))
    found = re.search(r"\bpp ?(\d+k?)?", text)
    if found and not re.match(r"tg|gen|ollama", text):
        return "prefill", _tokens(found[1] or "512") or 512, before, True
    found = re.search(r"(?:\btg|\bgen ~?) ?(\d+k?)", text)
    if found or re.match(r"tg|gen|ollama|eval|decode", text):
        return "decode", _tokens(found[1]) if found else 128, before, True
    prompt = re.match(r"prompt|prefill", text) is not None
    return "prefill" if prompt else "decode", 128, before, prompt


def _tokens(text: str) -> float:
    text = text.strip().lower()
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(k?)", text)
    if found:
        return float(found[1]) * (1024 if found[2] else 1)
    return 0.0


def _year(raw: dict[str, str]) -> float:
    """Year of the build by the row's date; the middle of a range; the present without one."""
    years = [
        int(y) + (int(m or 7) - 0.5) / 12
        for y, m in re.findall(r"(20[12]\d)(?:-(\d\d))?", raw.get("date", ""))
    ]
    if years:
        return sum(years) / len(years)
    return 2025.5


def source_key(source: str) -> str:
    """Repository or thread of a source: all files and commits of one count as one."""
    text = source.strip()
    found = re.match(
        r"(?:https?://)?(github\.com/[^/@ :]+/[^/@ :]+)(/(?:discussions|issues|pull)/\d+)?", text
    )
    inner = re.search(
        r"github-data/(discussions/\d+|issues/\d+|pull_requests)", text
    )  # its pulls are of one author
    if found is None:
        return text or "not stated"
    return found[1] + (found[2] or (f"/{inner[1]}" if inner else ""))


def is_trusted(row: PublishedRow) -> bool:
    """Trust A or B, and not doubted by the file."""
    return row.raw.get("trust", "") in TRUSTED and row.excluded in NEUTRAL_EXCLUSIONS


def predictable(rows: Iterable[PublishedRow]) -> list[PublishedRow]:
    """Those that can be predicted."""
    return [row for row in rows if not row.reason]
