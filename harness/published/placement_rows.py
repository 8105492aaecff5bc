"""Published speeds of split placements against the law of placement, and the fit of its few terms.

Columns used: ``gpu_chip n_gpus gpu_bandwidth_gb_s gpu_bw_basis cpu_chip cpu_bandwidth_gb_s backend runtime model arch
params_b active_params_b quant model_bytes offload_mode n_gpu_layers n_layers n_cpu_moe offload_detail bytes_on_cpu
n_ubatch n_threads kv_type test tokens_per_s context_depth trust date``; blanks are allowed anywhere.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.base import Frozen
from harness.domain.model import ModelShape
from harness.errors import HarnessError
from harness.predict.coefficients import shipped
from harness.predict.decode import Machine, Work
from harness.predict.fitted import Fitted
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
from harness.published.rows import api_named, test_named, why_not

Array = NDArray[np.float64]
_NOISE: Final = 0.15
"""Spread of one measurement in ln t, with what a row does not tell of its host."""
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
    def sweep(self) -> tuple[str, ...]:
        """What stays the same while a sweep moves layers or experts."""
        same = ("device", "model", "quant", "kv_type", "n_ubatch", "n_threads", "runtime", "context_depth", "backend")
        return (self.phase, self.raw.get("test", ""), *(self.raw.get(name, "") for name in same))

    @property
    def token_count(self) -> float:
        """Tokens that the time of the test is of."""
        return self.prompt.tokens if self.phase == "prefill" else 1.0

    @property
    def judged(self) -> bool:
        """Whether it counts: predictable, of trust A or B."""
        return self.split is not None and self.raw.get("trust", "") in {"A", "B"}


class PlacementScore(Frozen, frozen=True, kw_only=True):
    """Errors |predicted / measured - 1| of one phase, over rows of trust A and B, and over votes.

    A vote is the median error of one GPU x model x quantisation.
    """

    rows_count: int
    median_ratio: float
    p90_ratio: float
    votes_count: int
    vote_median_ratio: float
    vote_p90_ratio: float


class PlacementReport(Frozen, frozen=True, kw_only=True):
    """The law of placement against published rows.

    Attributes:
        how: Which terms answered.
        scores: Errors of ``decode`` and ``prefill``; a phase without rows is left out.
        sweeps_count: Sweeps of three placements or more.
        found_ratio: Share of them whose best placement was found within one step, or has 90 % of the best one's speed;
            None without sweeps.
        by_gpu: Median error by phase and card.
        residuals: 5 % and 95 % quantiles of ln(measured / predicted), by phase.
        unpredictable: Rows that were not, by reason.
        terms: The law's terms: those that answered, or, with cards left out, a fit on all rows.
    """

    how: str
    scores: dict[str, PlacementScore]
    sweeps_count: int
    found_ratio: float | None
    by_gpu: dict[str, float]
    residuals: dict[str, tuple[float, float]]
    unpredictable: dict[str, int]
    terms: dict[str, float]


def check_placement(path: Path | None, model_of: ModelOf, *, left_out: bool = False) -> PlacementReport:
    """Published splits against the law: the shipped terms, or terms fitted without any row of the card in question.

    ``path`` None reads the shipped rows; ``left_out`` refits for each card on the rows of all others.

    Raises:
        BadDataError: The file cannot be read, lacks columns, or has a number that is none.
    """
    rows = read_placed_rows(path, model_of)
    judged = [row for row in rows if row.judged]
    cards = {row.gpu for row in judged} if left_out else set()
    fitted = {gpu: fit_terms([row for row in rows if row.gpu != gpu]) for gpu in cards}
    predicted = {id(row): row.token_count / predicted_s(row, fitted.get(row.gpu, SHIPPED)) for row in judged}
    scores, residuals = {}, {}
    by_gpu: dict[str, float] = {}
    for phase in dict.fromkeys(row.phase for row in sorted(judged, key=lambda row: row.phase)):
        mine = [row for row in judged if row.phase == phase]
        ratios = np.array([predicted[id(row)] / row.tokens_per_s for row in mine])
        errors = np.abs(ratios - 1)
        votes: dict[tuple[str, ...], list[float]] = {}
        gpus: dict[str, list[float]] = {}
        for row, error in zip(mine, errors.tolist(), strict=True):
            votes.setdefault((row.gpu, row.raw["model"], row.raw["quant"]), []).append(error)
            gpus.setdefault(row.gpu, []).append(error)
        middles = [float(np.median(v)) for v in votes.values()]
        scores[phase] = PlacementScore(
            rows_count=len(mine),
            median_ratio=float(np.median(errors)),
            p90_ratio=float(np.quantile(errors, 0.9)),
            votes_count=len(middles),
            vote_median_ratio=float(np.median(middles)),
            vote_p90_ratio=float(np.quantile(middles, 0.9)),
        )
        low, high = np.quantile(-np.log(ratios), (0.05, 0.95))
        residuals[phase] = (float(low), float(high))
        by_gpu |= {f"{phase} {gpu}": float(np.median(gpus[gpu])) for gpu in sorted(gpus)}
    found = _sweeps_found(judged, predicted)
    return PlacementReport(
        how="each card left out of the fit" if left_out else "shipped terms",
        scores=scores,
        sweeps_count=len(found),
        found_ratio=sum(found) / len(found) if found else None,
        by_gpu=by_gpu,
        residuals=residuals,
        unpredictable=dict(Counter(row.reason or "trust C or D" for row in rows if not row.judged)),
        terms=(fit_terms(rows) if left_out else SHIPPED)._asdict(),
    )


def _sweeps_found(rows: Sequence[PlacedRow], predicted: Mapping[int, float]) -> list[bool]:
    """Of each sweep of three placements or more, whether the law finds its best one."""
    sweeps: dict[tuple[str, ...], dict[float, list[PlacedRow]]] = {}
    for row in rows:
        sweeps.setdefault(row.sweep, {}).setdefault(round(row.step, 4), []).append(row)
    found = []
    for steps in sweeps.values():
        if len(steps) < 3:
            continue
        order = sorted(steps)
        measured = [float(np.median([r.tokens_per_s for r in steps[s]])) for s in order]
        told = [float(np.median([predicted[id(r)] for r in steps[s]])) for s in order]
        best, chosen = int(np.argmax(measured)), int(np.argmax(told))
        found.append(abs(best - chosen) <= 1 or measured[chosen] >= 0.9 * measured[best])
    return found


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


_PRIOR_SD: Final = Terms(
    gpu=0.3, cpu=0.3, experts=0.3, crossing=0.7, prefill=0.3, link=0.1, ik=0.3, memory=0.1, cpu_prefill=0.3
)


def fit_terms(rows: Sequence[PlacedRow]) -> Terms:
    """Terms of the law from rows of trust A and B: robust least squares in ln t, pulled to the priors.

    A vote (GPU x model x quantisation x phase) weighs 1 whatever its rows, a GPU no more than the root of its votes.
    """
    from scipy.optimize import least_squares

    rows = [row for row in rows if row.judged]
    if not rows:
        return Terms()
    vote_of = [(row.gpu, row.raw["model"], row.raw["quant"], row.phase) for row in rows]
    rows_in, votes_in = Counter(vote_of), Counter((gpu, phase) for gpu, _, _, phase in set(vote_of))
    weight = np.array([1 / rows_in[v] / np.sqrt(votes_in[v[0], v[3]]) for v in vote_of])
    target = np.log([row.token_count / row.tokens_per_s for row in rows])
    prior, sd = np.array(Terms()), np.array(_PRIOR_SD)

    def residuals(theta: Array) -> Array:
        terms = Terms(*theta.tolist())
        error = (np.log([predicted_s(row, terms) for row in rows]) - target) / _NOISE
        robust = np.sign(error) * np.sqrt(2 * (np.sqrt(1 + error**2) - 1))
        pulled: Array = np.concatenate([np.sqrt(weight) * robust, (theta - prior) / sd])
        return pulled

    return Terms(*least_squares(residuals, prior, diff_step=1e-4, ftol=1e-4).x.tolist())
