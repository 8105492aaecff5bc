"""Published speeds of split placements, as rows.

Columns used: ``gpu_chip n_gpus gpu_bandwidth_gb_s gpu_bw_basis cpu_chip cpu_bandwidth_gb_s backend runtime
model arch params_b active_params_b quant model_bytes offload_mode n_gpu_layers n_layers n_cpu_moe
offload_detail bytes_on_cpu n_ubatch n_threads kv_type test tokens_per_s context_depth trust date``; blanks
are allowed anywhere.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench.rows.files import cells_of
from bench.rows.named import row_weights
from harness.core.errors import BadDataError
from harness.core.model import Weights
from harness.core.placement import OFFLOAD_TOKENS, Placement
from harness.core.prediction import Interval
from harness.core.scenario import Scenario
from harness.hardware.traits import chip_key, traits_of
from harness.speed.coefficients import shipped
from harness.speed.estimate import split_of
from harness.speed.fitted import Fitted
from harness.speed.interval import interval
from harness.speed.passes import (
    HOST_SPREAD,
    RESIDUALS,
    SHIPPED,
    Costs,
    Engines,
    Pass,
    PlacementTerms,
    Split,
    fitted_link,
    link_bytes_per_s,
    pass_terms,
)
from harness.speed.published.cells import Cells
from harness.speed.published.row_work import ModelOf
from harness.speed.published.rows import PublishedRow, api_named, refused, test_named, why_not
from harness.speed.work import Machine

_HOST_GB_S: Final = 89.6
"""Bandwidth of a host that a row does not tell of: two channels of DDR5-5600 x 64 bit."""


_OWN_PROGRAM: Final = re.compile(r"(?!.*(moecache|turboquant))(llama\.cpp|ik_llama|ollama|$)")
"""Programs that place as llama.cpp does; a cache of experts on the card is another way."""


def _costs_of(machine: Machine) -> Costs:
    return Fitted(machine, shipped())


class PlacedRow(NamedTuple):
    """A predictable row of a split placement, as the laws see it.

    ``card`` is the name of the first card, ``step`` where the placement stands among others: share of blocks
    and of experts with the CPU. ``copies``: whether a GPU knows the type, so that prompts may have it copied
    there. ``host_told``: whether the row says how fast the CPU's memory is.
    """

    asked: Pass
    split: Split
    card: str
    cards: tuple[Machine, ...]
    host: Machine
    copies: bool
    step: float
    host_told: bool

    @property
    def phase(self) -> str:
        """``decode`` or ``prefill``."""
        if self.asked.tokens == 1:
            return "decode"
        return "prefill"

    def tokens_per_s(self, terms: PlacementTerms, costs_of: Callable[[Machine], Costs] = _costs_of) -> float:
        """Speed by these terms of the link, and by what an engine costs."""
        link = fitted_link(
            link_bytes_per_s(self.cards[0], self.card),
            self.host,
            terms,
            shared_memory=self.cards[0].traits.memory == "lpddr",
        )
        if self.host.runtime == "ik":  # copies experts from more than 32 tokens an expert on average
            link = link._replace(copies_from=max(OFFLOAD_TOKENS / self.split.expert_ratio - 1, link.copies_from))
        if not self.copies:
            link = link._replace(copies_from=math.inf)
        cards = tuple(map(costs_of, self.cards))
        host = costs_of(self.host._replace(runtime="llama.cpp"))
        engines = Engines(cards, host, link, (1 / len(cards),) * len(cards))
        return self.asked.tokens / float(pass_terms(self.split, engines, self.asked).total_s)

    def law(self, terms: PlacementTerms = SHIPPED) -> Interval:
        """The same with its interval."""
        below, above = RESIDUALS[self.phase]
        if not self.host_told:
            below = math.hypot(below, HOST_SPREAD)
            above = math.hypot(above, HOST_SPREAD)
        return interval(self.tokens_per_s(terms), below, above)


def placed_rows(path: Path | None, model_of: ModelOf) -> list[tuple[PublishedRow, PlacedRow | None]]:
    """Rows of a file, or of the shipped one, judged by the shipped terms; None for what cannot be predicted.

    Raises:
        BadDataError: The file cannot be read, or lacks columns.
    """
    pairs = []
    for raw in cells_of("placement", path):
        try:
            pairs.append(_row(raw, model_of))
        except BadDataError as error:
            pairs.append((refused(raw, "split placement", error), None))
    return pairs


def _row(raw: Cells, model_of: ModelOf) -> tuple[PublishedRow, PlacedRow | None]:
    speed, params, size, active = raw.numbers("tokens_per_s", "params_b", "model_bytes", "active_params_b")
    phase, count, depth, known_test = test_named(raw.get("test", ""), raw.get("context_depth", ""))
    quant = raw.get("quant", "")
    cards = _cards(raw)
    host = _host(raw)
    known = model_of(raw.get("model", ""), params, quant, active)
    several = "rpc" in raw.get("backend", "").lower() or "node" in raw.get("device", "").lower()
    reason = why_not(
        (known_test, "unknown test"),
        (speed, "no speed"),
        (known is not None, "no model bytes"),
        (cards, "no bandwidth of the GPU"),
        (not several, "several machines"),
        (
            _OWN_PROGRAM.match(raw.get("runtime", "").lower()),
            "another program, which splits in ways of its own",
        ),
    )
    chip = chip_key(raw.get("gpu_chip", ""))
    vote = "placement", chip, raw.get("model", ""), raw.get("quant", ""), phase
    row = PublishedRow(raw, f"split placement, {phase}", vote, speed, reason=reason, chip=chip)
    if reason or known is None:
        return row, None
    tokens, seen = (1, depth + count / 2) if phase == "decode" else (int(count), depth)
    asked = Pass(tokens, seen, ubatch_tokens=round(raw.number("n_ubatch")) or 512)
    weights = row_weights(known, size, quant)
    placement = _placement(raw, weights)
    split = split_of(weights, Scenario(placement=placement), asked)
    latent = known.shape.latent
    blocks = known.shape.layer_count
    if latent is not None and host.runtime == "ik":  # prompts in the width of the heads, not of the cache
        widths = latent.nope_head_dim + latent.rope_head_dim + latent.value_head_dim
        narrow = widths / (2 * latent.kv_rank_dim + latent.rope_head_dim)
        split = split._replace(main=split.main._replace(attention_flops=split.main.attention_flops * narrow))
    step = (placement.first_gpu_block(blocks) + placement.cpu_moe) / blocks
    card = raw.get("gpu_chip", "").split("+")[0].strip()
    # Types that ik_llama.cpp interleaves for a CPU (_R4) have no kernel on a GPU.
    placed = PlacedRow(asked, split, card, cards, host, "_R4" not in quant.upper(), step, _host_told(raw))
    return row._replace(law=placed.law), placed


_Share = Callable[[re.Match[str], float], float]
_TOLD: Final[tuple[tuple[str, _Share], ...]] = (
    (r"(\d+) % of experts on gpu", lambda m, _: 1 - int(m[1]) / 100),
    (r"(\d+) (?:of \d+ )?layers experts on cpu", lambda m, n: int(m[1]) / n),
    (r"blk[.]\(?(\d+)-(\d+)\)?[.]ffn\S*=cpu", lambda m, n: (int(m[2]) - int(m[1]) + 1) / n),
    (
        r"(?:blk[.]\(?|layers )(\d+)-(\d+)(?:\)?[.]ffn\S*=cuda| experts on the)",
        lambda m, n: 1 - (int(m[2]) - int(m[1]) + 1) / n,
    ),
    (r"all but (\d+) layers of experts", lambda m, n: 1 - int(m[1]) / n),
    (r"\[0-(\d)\][.]ffn", lambda m, _: (int(m[1]) + 1) / 10),  # blocks whose number ends so
)
"""How a row tells the share of experts with the CPU, by what stands in its ``offload_detail``, lower case."""


def _placement(raw: Cells, weights: Weights) -> Placement:
    """Blocks with the card, and blocks whose experts lie with the CPU, as a row's columns and words tell."""
    mode = raw.get("offload_mode", "").lower()
    detail = raw.get("offload_detail", "").lower()
    layers, moe, on_cpu = raw.numbers("n_gpu_layers", "n_cpu_moe", "bytes_on_cpu")
    n = weights.shape.layer_count
    told = raw.get("n_gpu_layers", "") != ""
    if told:
        on = round(min(max(layers - 1, 0.0), n))
    else:
        on = n
    if half := re.search(r"(\d+) ?%/\d+ ?% cpu/gpu", detail):
        on = round(n * (1 - int(half[1]) / 100))
    routed_bytes = sum(tensor.size_bytes for tensor in weights.tensors if tensor.role == "expert")
    if not routed_bytes:
        return Placement(gpu_layers=0 if told and layers < 1 else on + 1)
    away = n - on
    hits = (share(hit, n) for pattern, share in _TOLD if (hit := re.search(pattern, detail)))
    if moe or raw.get("n_cpu_moe", "") == "0":
        # -ot names blocks of the GPU, --n-cpu-moe counts from the first block whoever has it
        if "fit-params" in mode:
            experts = away + moe
        else:
            experts = moe
    elif on_cpu:
        experts = n * on_cpu / routed_bytes
    else:
        experts = n * next(hits, 1.0 if re.search("expert|exps|moe", f"{mode} {detail}") else 0.0)
    return Placement(gpu_layers=0 if told and layers < 1 else on + 1, cpu_moe=min(max(round(experts), away), n))


def _cards(raw: Cells) -> tuple[Machine, ...]:
    """The cards of a row; none where nobody told their bandwidth."""
    chip = raw.get("gpu_chip", "")
    backend = raw.get("backend", "")
    api = api_named(backend.split("+")[0])
    count = round(raw.number("n_gpus")) or 1
    bandwidths = [raw.number("gpu_bandwidth_gb_s")] * count
    names = [chip] * count
    if not bandwidths[0]:
        told = re.findall(r"(\d{3,4}) (?:and|GB/s)", raw.get("gpu_bw_basis", ""))
        bandwidths = [float(value) for value in told[:count]]
        if "+" in chip:
            names = [name.strip() for name in chip.split("+")]
        else:
            names = [chip] * len(bandwidths)
    if not bandwidths or not all(bandwidths) or len(names) != len(bandwidths):
        return ()
    return tuple(
        Machine(api, gb_s * 1e9, traits_of(name, api, gb_s * 1e9)) for name, gb_s in zip(names, bandwidths, strict=True)
    )


def _host_told(raw: Cells) -> bool:
    return bool(raw.number("cpu_bandwidth_gb_s")) and "assumed" not in raw.get("cpu_bw_basis", "")


def _host(raw: Cells) -> Machine:
    gb_s = raw.number("cpu_bandwidth_gb_s") or _HOST_GB_S
    other = "llama.cpp"
    if raw.get("runtime", "").lower().startswith("ik_"):
        other = "ik"
    traits = traits_of(raw.get("cpu_chip", ""), "cpu", gb_s * 1e9)
    if traits.family == "x86-cpu":  # what nobody names beside a card is a desktop's, and no phone's or board's
        traits = traits._replace(family="intel-cpu")
    return Machine("cpu", gb_s * 1e9, traits, runtime=other)
