"""Published speedups of speculative decoding, speeds of streaming and of several sequences together, as rows."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from bench.rows.files import cells_of
from bench.rows.named import device_named, row_weights
from harness.core.prediction import Interval
from harness.core.scenario import Scenario
from harness.hardware.traits import bits_of, quant_class, traits_of
from harness.speed.coefficients import shipped
from harness.speed.draft_cycle import VERIFIED_S, draft_s, expected_tokens_per_cycle
from harness.speed.fitted import Fitted, few_tokens, machine_of
from harness.speed.interval import interval
from harness.speed.passes import Part, Pass
from harness.speed.published.cells import Cells
from harness.speed.published.row_work import ModelOf, active_named
from harness.speed.published.rows import PublishedRow, one_row, row_of, why_not
from harness.speed.storage import BUSY_DISK_RATIO, cached_experts, expert_bytes, mmap_read_s
from harness.speed.streamed import EXPERTS_SPREAD
from harness.speed.work import Machine, Work

SYSTEM_BYTES: Final = 5e9
"""Of RAM, what a system and its programs keep from a cache of experts: the rest of a Mac's was cache in
published runs (mlx-lm issue 1438 and others in streaming.csv)."""
MIXTURE_SLOPE: Final = 0.45
"""Least cost of one more token of a mixture of experts: it reads experts of its own."""
STEP_COSTS: Final[Mapping[str, float]] = {
    r"eagle|medusa|hydra|samd|mtp": 1.7,
    r"lookup|\bpld\b|lookahead|\brest\b": 1.25,
    r"dflash|dspark|recycl": 1.9,
    r"": 1.4,
}
"""Cost of a whole cycle where a source tells no length of drafts: middle of published tokens a cycle over
speedups."""

_HOST_BYTES_PER_S: Final = 48e9
"""Weights read by a desktop's or laptop's CPU where a row does not say: 0.6 of 80 GB/s."""
_CARD_BYTES_PER_S: Final = 600e9
"""Of a graphics card that nobody names, by its data sheet."""
_SPREADS: Final = {"speculation": 0.5, "mapped": 0.5}
"""Half of a 90 % interval in ln of what has no fitted spread: 90 % quantile of the shipped rows' errors."""
_SAME: Final = {"Q4_K_4": "Q4_K_M", "Q8R16": "Q8_0"}
"""Layouts of one vendor's build, of the same bits as llama.cpp's."""
_OUTSIDE: Final = (
    ("method", r"tree", "a tree of drafts is verified: its budget is no draft length"),
    ("batch", r"^(?!1(\.0*)?$)\d", "several sequences share one reading of the weights"),
    ("system", r"flexgen|zero-inference", "an offloading server that trades latency for batch"),
    (
        "system device",
        r"\b(nodes|machines|devices|hosts)\b|cluster|distributed|\bd1\b.*\bd[2-9]\b",
        "several machines",
    ),
)
"""Rows that the models of speculation and of streaming do not cover: columns, what stands in one of them, and
why."""


def outside(raw: Mapping[str, str]) -> str:
    """Why the model of a row of speculation or streaming does not cover it; empty where it does."""
    said = (why for names, words, why in _OUTSIDE for n in names.split() if re.search(words, raw.get(n, "").lower()))
    return next(said, "")


def speculation_rows(path: Path | None = None) -> list[PublishedRow]:
    """Measured speedups from acceptance, draft length and device.

    Raises:
        BadDataError: Columns are missing.
    """
    cells = cells_of("speculation", path)
    return [one_row(raw, "speculative speedup", _speculation) for raw in cells]


def _speculation(raw: Cells) -> PublishedRow:
    speedup, gamma, rate, mean, *_ = raw.numbers(
        "speedup", "gamma", "acceptance_rate", "mean_accepted_tokens", "baseline_tps", "draft_cost_ratio_c"
    )
    kind = raw["acceptance_kind"]
    tokens = mean
    if kind.startswith(("per-token", "alpha")) and gamma:
        tokens = expected_tokens_per_cycle(min(rate, 1.0), int(gamma))
    elif kind.startswith("accepted/drafted") and gamma and rate:
        tokens = 1 + gamma * rate
    count = _size(raw["target"])[1]
    why = outside(raw)
    reason = why_not((not why, why), (tokens and speedup, "no acceptance"), (count, "no size of the target"))
    vote = "speculation", raw["device"], re.split(r"[ ,]", raw["method"].lower())[0], raw["target"]
    machine = _machine(raw["device"])
    if reason:
        law = None
    else:
        law = partial(_speedup, raw, tokens)
    return PublishedRow(raw, "speculative speedup", vote, speedup, tokens, reason, law, machine=machine)


def _speedup(raw: Cells, tokens: float) -> Interval:
    """Tokens of a cycle over its cost: drafting, and the pass that verifies the drafts."""
    method = raw["method"].lower()
    target = raw["target"]
    draft = raw.get("draft", "")
    spread = _SPREADS["speculation"]
    gamma, plain, ratio = raw.numbers("gamma", "baseline_tps", "draft_cost_ratio_c")
    if not gamma:
        cost = next(cost for words, cost in STEP_COSTS.items() if re.search(words, method))
        return interval(tokens / cost, spread)
    machine = _machine(raw["device"])
    (all_count, count) = _size(target)
    quant = "F16"
    if re.search(r"(?i)\d[- ]?bit|q\d|fp?16|fp8|iq\d", target):
        quant = target
    if re.search(r"(?i)q\d|bit|f16", draft):
        draft_bits = bits_of(draft)
    else:
        draft_bits = 16.0
    target_bytes = count * bits_of(quant) / 8
    mixture = count < 0.9 * all_count or "moe" in target.lower()
    if plain:
        plain_s = 1 / plain
    else:
        plain_s = target_bytes / (0.7 * machine.bandwidth_bytes_per_s) + 3e-3
    work = Work(target_bytes, count, 0.0, 0.0, quant_class(quant))
    alone, verifying = (
        few_tokens(work, machine, Pass(1, sequences=n), shipped().values).total_s for n in (1, 1 + int(gamma))
    )
    slope = (VERIFIED_S + (verifying - alone) / gamma) / plain_s
    slope = min(max(slope, MIXTURE_SLOPE if mixture else 0.0), 1.5)
    drafting = draft_s(method, machine, _size(draft)[0] * draft_bits / 8, target_bytes) / plain_s
    return interval(tokens / (1 + gamma * (slope + (ratio or drafting))), spread)


def _size(name: str) -> tuple[float, float]:
    """Parameters and active parameters that a name tells."""
    found = re.search(r"(?<![A-Za-z\d.])(\d+(?:\.\d+)?) ?([BM])\b", name)
    if found:
        count = float(found[1]) * (1e9 if found[2] == "B" else 1e6)
    else:
        count = 0.0
    return count, 1e9 * active_named(name) or count


def _machine(words: str) -> Machine:
    """The machine that a row's words name; else a card of the middle of them all."""
    device = device_named(words)
    named = re.search(r"\b(cpu|cuda|vulkan|rocm|metal)\b", words.lower())
    api = ""
    if named:
        api = named[1]
    if device is None:
        return Machine(api or "other", _CARD_BYTES_PER_S, traits_of(words, api or "other", _CARD_BYTES_PER_S))
    if api not in {name for engine in device.engines for name in engine.apis}:
        api = ""
    return machine_of(device, Scenario(api=api))


def streaming_rows(path: Path | None, model_of: ModelOf) -> list[PublishedRow]:
    """Speeds of dense models that are mapped, and of mixtures read from disk; nothing is fitted.

    Raises:
        BadDataError: Columns are missing.
    """
    cells = cells_of("streaming", path)
    return [one_row(raw, "streaming", lambda own: _streaming(own, model_of)) for raw in cells]


def _streaming(raw: Cells, model_of: ModelOf) -> PublishedRow:
    size, disk, speed, ram, card, active, params = raw.numbers(
        "model_bytes", "storage_read_gb_s", "tokens_per_s", "ram_bytes_or_budget", "vram_bytes", "active_params_b",
        "params_b",
    )  # fmt: skip
    moe = raw["arch"].startswith("moe")
    known = model_of(raw.get("model", ""), params, raw.get("quant", ""), active)
    experts = None
    if known is not None:
        experts = known.shape.experts
    why = outside(raw)
    group = "weights mapped from disk"
    if moe:
        group = "experts read from disk"
    vote = group, raw.get("device", ""), raw.get("model", ""), raw.get("quant", ""), raw.get("system", "")
    reason = why_not(
        (not why, why),
        ("sparse" not in raw["arch"], "reads only neurons that fire"),
        (size and disk and speed and ram, "no size, disk, memory or speed"),
        (not moe or (active and params), "no active parameters"),
        (known is not None and (experts is not None or not moe), "no such model"),
    )
    if reason or known is None:
        return PublishedRow(raw, group, vote, speed, reason=reason)
    read = size * (active / params if moe else 1.0)
    host = _host_bytes_per_s(raw.get("device", ""))
    limited = "limit" in raw.get("system", "").lower()
    if experts is not None and moe:
        kept = card + (ram if limited else max(ram - SYSTEM_BYTES, 0.5 * ram))
        weights = row_weights(known, size, raw.get("quant", ""))
        routed, rest = expert_bytes(weights)
        wanted = routed * experts.used_count / experts.expert_count
        seconds, _ = cached_experts(weights, kept - rest, disk * 1e9, (wanted + rest) / host)
    else:
        mapped = max(size - card, 0.0)
        seconds = mapped / host + min(size, card) / (0.5 * _CARD_BYTES_PER_S)
        seconds += mmap_read_s(mapped, ram, BUSY_DISK_RATIO * disk * 1e9, limited=limited)
    law = partial(interval, 1 / seconds, *(EXPERTS_SPREAD if moe else (_SPREADS["mapped"],)))
    return PublishedRow(raw, group, vote, speed, disk * 1e9 / read, law=law)


def _host_bytes_per_s(words: str) -> float:
    """What the host reads weights at: 0.6 of the bandwidth of its memory."""
    device = device_named(words)
    if device is None:
        return _HOST_BYTES_PER_S
    return 0.6 * device.pool("ram").bandwidth_bytes_per_s.value


def batch_rows(path: Path | None, model_of: ModelOf) -> list[PublishedRow]:
    """Tokens/s of all sequences together; several processes at once are several engines, and left aside.

    Raises:
        BadDataError: Columns are missing.
    """
    cells = cells_of("batch", path)
    rows = [one_row(raw, "several sequences", lambda own: _batch(own, model_of)) for raw in cells]
    return [row for row in rows if row.reason or row.raw.number("batch_npl") > 1]


def _batch(raw: Cells, model_of: ModelOf) -> PublishedRow:
    """A batch as a row of decode: its speed is that of all sequences."""
    new = raw.get("gen_tokens") or "128"
    quant = raw["quant"]
    count = int(raw.number("batch_npl"))
    changed = {
        "test": f"tg{new.split('.')[0]}",
        "quant": _SAME.get(quant, quant),
        "tokens_per_s": raw["tg_tokens_per_s_total"],
        "context_depth": raw.get("prompt_tokens", ""),
    }
    row = row_of(Cells(raw | changed, raw.path, raw.line), model_of)
    reason = row.reason or why_not(
        (count, "no number of sequences"), (raw.number("n_processes") in {0, 1}, "several processes")
    )
    group = "several sequences"
    if row.group == "moe":
        group = "experts, several sequences"
    if reason:
        law = None
    else:
        law = partial(_together, row, count)
    promised = count * row.promised
    return row._replace(
        group=group,
        vote=(*row.vote, str(count)),
        phase="",
        work=None,
        reason=reason,
        law=law,
        promised=promised,
    )


def _together(row: PublishedRow, count: int) -> Interval:
    """Speed of a batch by the law."""
    assert row.work is not None
    engine = Fitted(row.machine, shipped())
    part = Part(row.work)
    asked = Pass(1, sequences=count)
    speed = count / engine.seconds([part], asked).total_s
    return interval(speed, *engine.spread(part, asked))
