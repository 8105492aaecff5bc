"""Published speeds of split placements, as rows.

Columns used: ``gpu_chip n_gpus gpu_bandwidth_gb_s gpu_bw_basis cpu_chip cpu_bandwidth_gb_s backend runtime model arch
params_b active_params_b quant model_bytes offload_mode n_gpu_layers n_layers n_cpu_moe offload_detail bytes_on_cpu
n_ubatch n_threads kv_type test tokens_per_s context_depth trust date``; blanks are allowed anywhere.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from harness.domain.model import ModelShape
from harness.domain.prediction import Interval
from harness.errors import HarnessError
from harness.predict.coefficients import shipped
from harness.predict.decode import Machine, Work
from harness.predict.fitted import Fitted
from harness.predict.interval import interval
from harness.predict.kv_cache import kv_read_bytes, recurrent_ratio
from harness.predict.passes import NOTHING, Engines, Part, Pass, Split, pass_terms
from harness.predict.placement import SHIPPED, Terms, fitted_link, link_bytes_per_s
from harness.predict.prefill import Prompt, prompt_of
from harness.predict.quant_class import quant_class
from harness.predict.quant_mix import quant_named
from harness.predict.traits import chip_key, traits_of
from harness.predict.weights import role_of, weights_of
from harness.published.cells import Cells, read_cells
from harness.published.row_work import ModelOf, rest_bytes_each
from harness.published.rows import Row, api_named, test_named, why_not

SPREADS: Final = {"decode": 0.35, "prefill": 0.6}
"""Half of a 90 % interval in ln: what cards left out of the fit of the terms were off by."""
_HOST_GB_S: Final = 89.6
"""Bandwidth of a host that a row does not tell of: two channels of DDR5-5600 x 64 bit."""


class PlacedRow(NamedTuple):
    """One published test of a split placement, ``decode`` or ``prefill``.

    ``gpu`` is the card's canonical name, ``split`` None with a ``reason`` when the row is not predictable, ``step``
    where the placement stands in a sweep: blocks or experts with the CPU. ``copies``: whether a GPU knows the type, so
    that prompts may have it copied there.
    """

    raw: Cells
    gpu: str
    phase: str
    tokens_per_s: float
    split: Split | None
    cards: tuple[Machine, ...]
    host: Machine
    prompt: Prompt
    ubatch_tokens: int
    copies: bool = True
    step: float = 0.0
    reason: str = ""

    @property
    def token_count(self) -> float:
        """Tokens that the time of the test is of."""
        return self.prompt.tokens if self.phase == "prefill" else 1.0


def placement_rows(path: Path | None, model_of: ModelOf) -> list[Row]:
    """Rows of a file, or of the shipped one, judged by the shipped terms.

    Raises:
        BadDataError: The file cannot be read, lacks columns, or has a number that is none.
    """
    return [as_row(row) for row in read_placed_rows(path, model_of)]


def as_row(row: PlacedRow, terms: Terms = SHIPPED) -> Row:
    """The row with the law by these terms."""

    def law() -> Interval:
        return interval(row.token_count / predicted_s(row, terms), SPREADS[row.phase])

    vote = "placement", row.gpu, row.raw.get("model", ""), row.raw.get("quant", ""), row.phase
    group = f"split placement, {row.phase}"
    return Row(row.raw, group, vote, row.tokens_per_s, reason=row.reason, law=None if row.reason else law, chip=row.gpu)


def read_placed_rows(path: Path | None, model_of: ModelOf) -> list[PlacedRow]:
    """Rows of a file, or of the shipped one.

    Raises:
        BadDataError: The file cannot be read, lacks columns, or has a number that is none.
    """
    return [_row(raw, model_of) for raw in read_cells("partial_offload.csv", path, "placement")]


def _row(raw: Cells, model_of: ModelOf) -> PlacedRow:
    speed = raw.number("tokens_per_s")
    phase, count, depth, known_test = test_named(raw.get("test", ""), raw.get("context_depth", ""))
    parts, cards = _parts(raw, model_of), _cards(raw)
    several = "rpc" in raw.get("backend", "").lower() or "node" in raw.get("device", "").lower()
    reason = why_not(
        (known_test, "unknown test"),
        (speed, "no speed"),
        (parts is not None, "no model bytes"),
        (cards, "no bandwidth of the GPU"),
        (not several, "several machines"),
    )
    row = PlacedRow(
        raw=raw,
        gpu=chip_key(raw.get("gpu_chip", "")),
        phase=phase,
        tokens_per_s=speed,
        split=None,
        cards=cards,
        host=_host(raw),
        prompt=Prompt(count, 0.0),
        ubatch_tokens=round(raw.number("n_ubatch")) or 512,
        reason=reason,
    )
    if row.reason or parts is None:
        return row
    away = _away(raw, parts)
    mean_depth = depth + (count / 2 if phase == "decode" else 0)
    # Types that ik_llama.cpp interleaves for a CPU (_R4) have no kernel on a GPU.
    split, copies = _split(parts, away, mean_depth), "_R4" not in raw.get("quant", "").upper()
    prompt, latent = prompt_of(parts.shape, count, depth), parts.shape.latent
    if latent is not None and row.host.runtime == "ik":  # prompts in the width of the heads, not of the cache
        widths = latent.nope_head_dim + latent.rope_head_dim + latent.value_head_dim
        narrow = widths / (2 * latent.kv_rank_dim + latent.rope_head_dim)
        prompt = prompt._replace(attention_flops=prompt.attention_flops * narrow)
    split = split._replace(main=split.main._replace(attention_flops=prompt.attention_flops))
    return row._replace(split=split, prompt=prompt, copies=copies, step=away.blocks + away.experts)


class _Parts(NamedTuple):
    """A model by what can lie apart: (bytes, weights) of blocks without experts, of experts, of the output."""

    dense: tuple[float, float]
    experts: tuple[float, float]
    output: tuple[float, float]
    expert_ratio: float
    quant: str
    shape: ModelShape


def _parts(raw: Cells, model_of: ModelOf) -> _Parts | None:
    size, params, active = raw.numbers("model_bytes", "params_b", "active_params_b")
    known = model_of(raw.get("model", ""), params, raw.get("quant", ""), active)
    if known is None:
        return None
    try:
        weights = weights_of(known.shape, quant_named(raw.get("quant", "").split(" ", maxsplit=1)[0]))
    except HarnessError:
        weights = weights_of(known.shape, "F16")
    sums = {role: [0.0, 0.0] for role in ("other", "expert", "output", "embedding")}
    for tensor in weights.tensors:
        part = sums[role_of(tensor.name)]
        part[0] += tensor.size_bytes
        part[1] += tensor.element_count
    size = size or known.file_bytes
    even, each = size / sum(part[0] for part in sums.values()), rest_bytes_each(known, size)
    for part in sums.values():
        part[0] = each * part[1] if each else even * part[0]
    if each:
        sums["expert"][0] += size - sum(part[0] for part in sums.values())
    dense, experts, output, table = ((size_bytes, count) for size_bytes, count in sums.values())
    e = known.shape.experts
    return _Parts(
        dense=dense,
        experts=experts,
        output=output if output[0] else table,
        expert_ratio=e.used_count / e.expert_count if e is not None else 1.0,
        quant=quant_class(raw.get("quant", "")),
        shape=known.shape,
    )


class _Away(NamedTuple):
    """With the CPU: share of whole blocks, share of experts (those of whole blocks too), and whether the output is."""

    blocks: float
    experts: float
    output: bool


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


def _away(raw: Cells, parts: _Parts) -> _Away:
    mode, detail = raw.get("offload_mode", "").lower(), raw.get("offload_detail", "").lower()
    layers, moe, on_cpu = raw.numbers("n_gpu_layers", "n_cpu_moe", "bytes_on_cpu")
    n = parts.shape.layer_count
    told = raw.get("n_gpu_layers", "") != ""
    on = min(max(layers - 1, 0.0), n) if told else float(n)
    half = re.search(r"(\d+) ?%/\d+ ?% cpu/gpu", detail)
    whole = int(half[1]) / 100 if half else 1 - on / n
    hits = (share(hit, n) for pattern, share in _TOLD if (hit := re.search(pattern, detail)))
    if moe or raw.get("n_cpu_moe", "") == "0":
        # -ot names blocks of the GPU, --n-cpu-moe counts from the first block whoever has it
        experts = (n - on + moe) / n if "fit-params" in mode else max(n - on, moe) / n
    elif on_cpu and parts.experts[0]:
        experts = on_cpu / parts.experts[0]
    else:
        experts = next(hits, 1.0 if re.search("expert|exps|moe", f"{mode} {detail}") else whole)
    experts = min(max(experts, whole), 1.0) if parts.experts[0] else whole
    return _Away(whole, experts, told and layers < 1)


def _split(parts: _Parts, away: _Away, depth: float) -> Split:
    kv, blocks = float(kv_read_bytes(parts.shape, round(depth))), parts.shape.layer_count
    r, moe = parts.expert_ratio, parts.experts[0] > 0
    alone = away.experts - away.blocks
    out = (0.0, 0.0) if away.output else parts.output
    cpu_out = parts.output if away.output else (0.0, 0.0)

    def part(dense: float, experts: float, output: tuple[float, float], layers: float, cache: float) -> Part:
        through = dense * parts.dense[1] + experts * r * parts.experts[1]
        work = Work(
            weight_bytes=dense * parts.dense[0] + experts * r * parts.experts[0] + output[0],
            weight_count=through + output[1],
            layer_count=layers,
            kv_bytes=cache * kv,
            quant_class=parts.quant,
            moe=moe,
            prompt_weight_count=through,
            recurrent_ratio=recurrent_ratio(parts.shape),
        )
        return Part(work) if work.weight_bytes else NOTHING

    on = 1 - away.blocks
    return Split(
        main=part(on, 1 - away.experts, out, on * blocks, on),
        cpu=part(away.blocks, away.blocks, cpu_out, away.blocks * blocks, away.blocks),
        experts=part(0.0, alone, (0.0, 0.0), 0.0, 0.0),
        crossing_count=alone * blocks + (1 if 0 < away.blocks < 1 else 0),
        hidden_dim=float(parts.shape.hidden_dim),
        copied_bytes=away.blocks * parts.dense[0],
        copied_expert_bytes=away.experts * parts.experts[0],
        expert_ratio=r,
    )


def _cards(raw: Cells) -> tuple[Machine, ...]:
    """The cards of a row; none where nobody told their bandwidth."""
    chip, backend = raw.get("gpu_chip", ""), raw.get("backend", "")
    api = api_named(backend.split("+")[0])
    count = round(raw.number("n_gpus")) or 1
    bandwidths = [raw.number("gpu_bandwidth_gb_s")] * count
    names = [chip] * count
    if not bandwidths[0]:
        told = re.findall(r"(\d{3,4}) (?:and|GB/s)", raw.get("gpu_bw_basis", ""))
        bandwidths = [float(value) for value in told[:count]]
        names = [name.strip() for name in chip.split("+")] if "+" in chip else [chip] * len(bandwidths)
    if not bandwidths or not all(bandwidths) or len(names) != len(bandwidths):
        return ()
    return tuple(
        Machine(api, gb_s * 1e9, traits_of(name, api, gb_s * 1e9)) for name, gb_s in zip(names, bandwidths, strict=True)
    )


def _host(raw: Cells) -> Machine:
    gb_s = raw.number("cpu_bandwidth_gb_s") or _HOST_GB_S
    other = "ik" if raw.get("runtime", "").lower().startswith("ik_") else "llama.cpp"
    return Machine("cpu", gb_s * 1e9, traits_of(raw.get("cpu_chip", ""), "cpu", gb_s * 1e9), runtime=other)


def predicted_s(row: PlacedRow, terms: Terms) -> float:
    """Seconds of a predictable row's test by token (decode) or of the whole prompt (prefill)."""
    assert row.split is not None
    chip = row.raw.get("gpu_chip", "").split("+")[0].strip()
    link = fitted_link(
        link_bytes_per_s(row.cards[0], chip),
        row.host,
        terms,
        shared_memory=row.cards[0].traits.memory == "lpddr" or not row.copies,
        expert_ratio=row.split.expert_ratio,
    )
    cards = tuple(Fitted(machine, shipped()) for machine in row.cards)
    host = Fitted(row.host._replace(runtime="llama.cpp"), shipped())
    engines = Engines(cards, host, link, (1 / len(cards),) * len(cards))
    tokens = 1 if row.phase == "decode" else int(row.prompt.tokens)
    return float(pass_terms(row.split, engines, Pass(tokens, ubatch_tokens=row.ubatch_tokens)).total_s)
