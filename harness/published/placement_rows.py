"""Published speeds of split placements against the law of placement, and the fit of its few terms.

Columns used: ``gpu_chip n_gpus gpu_bandwidth_gb_s gpu_bw_basis cpu_chip cpu_bandwidth_gb_s backend runtime model arch
params_b active_params_b quant model_bytes offload_mode n_gpu_layers n_layers n_cpu_moe offload_detail bytes_on_cpu
n_ubatch n_threads kv_type test tokens_per_s context_depth trust date``; blanks are allowed anywhere.
"""

import math
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
from harness.predict.kv_cache import kv_read_bytes
from harness.predict.placement import (
    SHIPPED,
    Cards,
    Split,
    Terms,
    decode_split_s,
    link_bytes_per_s,
    prefill_split_s,
)
from harness.predict.prefill import Prompt, prompt_of
from harness.predict.quant_class import quant_class
from harness.predict.quant_mix import quant_named
from harness.predict.traits import chip_key, traits_of
from harness.predict.weights import role_of, weights_of
from harness.published.other_rows import read_cells
from harness.published.row_work import ModelOf, active_named
from harness.published.rows import api_named, number_in, test_named

Array = NDArray[np.float64]
NOISE: Final = 0.15
"""Spread of one measurement in ln t, with what a row does not tell of its host."""
HOST_GB_S: Final = 89.6
"""Bandwidth of a host that a row does not tell of: two channels of DDR5-5600 x 64 bit."""
EXPERT_RATIO: Final = 0.04
"""Used / all experts of a mixture without a card: between 8 of 128 and 8 of 256."""
ACTIVE_RATIO: Final = 0.055
"""Active / all weights of a mixture whose row does not tell it and that has no card."""
TABLE_RATIO: Final = 0.015
"""Share of a mixture's weights in its token table, without a card."""


class PlacedRow(NamedTuple):
    """One published test of a split placement.

    Attributes:
        line: Line of the file.
        raw: Its cells.
        gpu: Canonical name of the card.
        phase: ``decode`` or ``prefill``.
        tokens_per_s: Measured.
        split: What each side does; None when the row is not predictable.
        cards: The GPUs.
        host: The CPU.
        prompt: Of a prefill test.
        ubatch_tokens: Of a physical batch.
        step: Where the placement stands in a sweep: blocks or experts with the CPU.
        reason: Why there is no ``split``.
    """

    line: int
    raw: dict[str, str]
    gpu: str
    phase: str
    tokens_per_s: float
    split: Split | None
    cards: Cards | None
    host: Machine | None
    prompt: Prompt
    ubatch_tokens: int
    step: float
    reason: str = ""

    @property
    def sweep(self) -> tuple[str, ...]:
        """What stays the same while a sweep moves layers or experts."""
        same = ("device", "model", "quant", "kv_type", "n_ubatch", "n_threads", "runtime", "context_depth", "backend")
        return (self.phase, self.raw.get("test", ""), *(self.raw.get(name, "") for name in same))

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

    Args:
        path: A file of rows; None: the shipped ones.
        model_of: Finds what is known of a model.
        left_out: Refit for each card on the rows of all others.

    Raises:
        BadDataError: The file cannot be read, lacks columns, or has a number that is none.
    """
    rows = read_placed_rows(path, model_of)
    judged = [row for row in rows if row.judged]
    cards = {row.gpu for row in judged} if left_out else set()
    fitted = {gpu: fit_terms([row for row in rows if row.gpu != gpu]) for gpu in cards}
    predicted = {row.line: predicted_tokens_per_s(row, fitted.get(row.gpu, SHIPPED)) for row in judged}
    scores, by_gpu, residuals = {}, {}, {}
    for phase in ("decode", "prefill"):
        mine = [row for row in judged if row.phase == phase]
        if not mine:
            continue
        errors = np.array([abs(predicted[r.line] / r.tokens_per_s - 1) for r in mine])
        votes: dict[tuple[str, ...], list[float]] = {}
        for row, error in zip(mine, errors.tolist(), strict=True):
            votes.setdefault((row.gpu, row.raw["model"], row.raw["quant"]), []).append(error)
        middles = [float(np.median(v)) for v in votes.values()]
        scores[phase] = PlacementScore(
            rows_count=len(mine),
            median_ratio=float(np.median(errors)),
            p90_ratio=float(np.quantile(errors, 0.9)),
            votes_count=len(middles),
            vote_median_ratio=float(np.median(middles)),
            vote_p90_ratio=float(np.quantile(middles, 0.9)),
        )
        logs = [math.log(r.tokens_per_s / predicted[r.line]) for r in mine]
        residuals[phase] = (float(np.quantile(logs, 0.05)), float(np.quantile(logs, 0.95)))
        for gpu in sorted({r.gpu for r in mine}):
            of_gpu = [e for r, e in zip(mine, errors.tolist(), strict=True) if r.gpu == gpu]
            by_gpu[f"{phase} {gpu}"] = float(np.median(of_gpu))
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
        told = [float(np.median([predicted[r.line] for r in steps[s]])) for s in order]
        best, chosen = int(np.argmax(measured)), int(np.argmax(told))
        found.append(abs(best - chosen) <= 1 or measured[chosen] >= 0.9 * measured[best])
    return found


def read_placed_rows(path: Path | None, model_of: ModelOf) -> list[PlacedRow]:
    """Rows of a file, or of the shipped one.

    Raises:
        BadDataError: The file cannot be read, lacks columns, or has a number that is none.
    """
    cells = read_cells("partial_offload.csv", path, "placement")
    return [_row(path or "partial_offload.csv", line, raw, model_of) for line, raw in enumerate(cells, 2)]


def _row(path: Path | str, line: int, raw: dict[str, str], model_of: ModelOf) -> PlacedRow:
    def number(column: str) -> float:
        return number_in(path, line, raw, column)

    speed = number("tokens_per_s")
    phase, count, depth, known_test = test_named(raw.get("test", ""), raw.get("context_depth", ""))
    prompt = Prompt(count, depth, 0.0)
    raw["trust"] = raw.get("trust", "").upper()
    parts = _parts(raw, number, model_of)
    cards, host = _cards(raw, number), _host(raw, number)
    ubatch = round(number("n_ubatch")) or 512
    several = "rpc" in raw.get("backend", "").lower() or "node" in raw.get("device", "").lower()
    reason = ""
    for given, word in (
        (known_test, "unknown test"),
        (speed, "no speed"),
        (parts is not None, "no model bytes"),
        (cards is not None, "no bandwidth of the GPU"),
        (not several, "several machines"),
    ):
        reason = reason or ("" if given else word)
    gpu = chip_key(raw.get("gpu_chip", ""))
    if reason or parts is None or cards is None:
        return PlacedRow(line, raw, gpu, phase, speed, None, cards, host, prompt, ubatch, 0.0, reason)
    away = _away(raw, parts, number)
    mean_depth = depth + (count / 2 if phase == "decode" else 0)
    # Types that ik_llama.cpp interleaves for a CPU (_R4) have no kernel on a GPU.
    split = _split(parts, away, mean_depth)._replace(copies="_R4" not in raw.get("quant", "").upper())
    if parts.shape is not None:
        prompt = prompt_of(parts.shape, count, depth)
        latent = parts.shape.latent
        if latent is not None and host.runtime == "ik":  # prompts in the width of the heads, not of the cache
            widths = latent.nope_head_dim + latent.rope_head_dim + latent.value_head_dim
            narrow = widths / (2 * latent.kv_rank_dim + latent.rope_head_dim)
            prompt = prompt._replace(attention_flops=prompt.attention_flops * narrow)
    else:
        prompt = prompt._replace(attention_flops=parts.hidden_dim * parts.blocks * count * (depth + count / 2))
    return PlacedRow(line, raw, gpu, phase, speed, split, cards, host, prompt, ubatch, away.step)


class _Parts(NamedTuple):
    """A model by what can lie apart: (bytes, weights) of blocks without experts, of experts, of the output."""

    blocks: int
    hidden_dim: float
    dense: tuple[float, float]
    experts: tuple[float, float]
    output: tuple[float, float]
    expert_ratio: float
    quant: str
    shape: ModelShape | None


def _parts(raw: dict[str, str], number: Callable[[str], float], model_of: ModelOf) -> _Parts | None:
    size, params, active = (number(name) for name in ("model_bytes", "params_b", "active_params_b"))
    known = model_of(raw.get("model", ""), params, raw.get("quant", ""), active)
    quant = quant_class(raw.get("quant", ""))
    if known is not None:
        try:
            weights = weights_of(known.shape, quant_named(raw.get("quant", "").split(" ", maxsplit=1)[0]))
        except HarnessError:
            weights = weights_of(known.shape, "F16")
        sums = {"dense": [0.0, 0.0], "expert": [0.0, 0.0], "output": [0.0, 0.0], "embedding": [0.0, 0.0]}
        for tensor in weights.tensors:
            role = role_of(tensor.name)
            part = sums[role if role in sums else "dense"]
            part[0] += tensor.size_bytes
            part[1] += tensor.element_count
        scale = (size or known.file_bytes) / sum(part[0] for part in sums.values())
        output = sums["output"] if sums["output"][0] else sums["embedding"]
        e = known.shape.experts
        return _Parts(
            blocks=known.shape.layer_count,
            hidden_dim=float(known.shape.hidden_dim),
            dense=(sums["dense"][0] * scale, sums["dense"][1]),
            experts=(sums["expert"][0] * scale, sums["expert"][1]),
            output=(output[0] * scale, output[1]),
            expert_ratio=e.used_count / e.expert_count if e is not None else 1.0,
            quant=quant,
            shape=known.shape,
        )
    if not (size and params):
        return None
    layers, moe_layers = number("n_gpu_layers"), number("n_cpu_moe")
    # All layers were offloaded where the experts of all blocks, or of all but the output's, were counted apart.
    counted = layers - 1 if moe_layers and layers in {moe_layers, moe_layers + 1} and layers > 20 else 0.0
    blocks = round(number("n_layers") or counted or 15.5 * params**0.385)
    total, each = params * 1e9, size / (params * 1e9)

    def amount(count: float) -> tuple[float, float]:
        return count * each, count

    if not (raw.get("arch", "").startswith("moe") or 0 < active < 0.8 * params):
        table = min(0.05 * total, 6e8) if params >= 4.5 else 0.0
        return _Parts(
            blocks, _hidden_dim(params), amount(total - 2 * table), amount(0.0), amount(table), 1.0, quant, None
        )
    used = (active or active_named(raw.get("model", "")) or ACTIVE_RATIO * params) * 1e9
    common = max((used - EXPERT_RATIO * total) / (1 - EXPERT_RATIO), 0.2 * used)
    table = TABLE_RATIO * total
    head = min(table, common / 2)
    dense, experts = amount(common - head), amount(total - common - table)
    return _Parts(blocks, _hidden_dim(used / 1e9), dense, experts, amount(head), EXPERT_RATIO, quant, None)


def _hidden_dim(params_b: float) -> float:
    """Width of a model without a card: 128 x blocks, blocks = 15.5 x params^0.385, as ``row_work`` has it."""
    return 128.0 * round(15.5 * math.pow(params_b, 0.385))


class _Away(NamedTuple):
    """With the CPU: share of whole blocks, share of experts (those of whole blocks too), and whether the output is."""

    blocks: float
    experts: float
    output: bool
    step: float


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


def _away(raw: dict[str, str], parts: _Parts, number: Callable[[str], float]) -> _Away:
    mode, detail, n = raw.get("offload_mode", "").lower(), raw.get("offload_detail", "").lower(), parts.blocks
    layers, moe, on_cpu = number("n_gpu_layers"), number("n_cpu_moe"), number("bytes_on_cpu")
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
    return _Away(whole, experts, told and layers < 1, whole + experts)


def _split(parts: _Parts, away: _Away, depth: float) -> Split:
    kv = float(kv_read_bytes(parts.shape, round(depth))) if parts.shape is not None else 512.0 * parts.blocks * depth
    r, moe = parts.expert_ratio, parts.experts[0] > 0
    alone = away.experts - away.blocks
    out = (0.0, 0.0) if away.output else parts.output
    cpu_out = parts.output if away.output else (0.0, 0.0)

    def work(dense: float, experts: float, output: tuple[float, float], layers: float, cache: float) -> Work:
        through = dense * parts.dense[1] + experts * r * parts.experts[1]
        return Work(
            weight_bytes=dense * parts.dense[0] + experts * r * parts.experts[0] + output[0],
            weight_count=through + output[1],
            layer_count=layers,
            kv_bytes=cache * kv,
            quant_class=parts.quant,
            moe=moe,
            prompt_weight_count=through,
        )

    on = 1 - away.blocks
    return Split(
        gpu=work(on, 1 - away.experts, out, on * parts.blocks, on),
        cpu=work(away.blocks, away.blocks, cpu_out, away.blocks * parts.blocks, away.blocks),
        experts=work(0.0, alone, (0.0, 0.0), 0.0, 0.0),
        crossing_count=alone * parts.blocks + (1 if 0 < away.blocks < 1 else 0),
        hidden_dim=parts.hidden_dim,
        copied_bytes=away.blocks * parts.dense[0],
        copied_expert_bytes=away.experts * parts.experts[0],
        expert_ratio=r,
    )


def _cards(raw: dict[str, str], number: Callable[[str], float]) -> Cards | None:
    chip, backend = raw.get("gpu_chip", ""), raw.get("backend", "")
    api = api_named(backend.split("+")[0])
    count = round(number("n_gpus")) or 1
    bandwidths = [number("gpu_bandwidth_gb_s")] * count
    names = [chip] * count
    if not bandwidths[0]:
        told = re.findall(r"(\d{3,4}) (?:and|GB/s)", raw.get("gpu_bw_basis", ""))
        bandwidths = [float(value) for value in told[:count]]
        names = [name.strip() for name in chip.split("+")] if "+" in chip else [chip] * len(bandwidths)
    if not bandwidths or not all(bandwidths) or len(names) != len(bandwidths):
        return None
    machines = tuple(
        Machine(api, gb_s * 1e9, traits_of(name, api, gb_s * 1e9)) for name, gb_s in zip(names, bandwidths, strict=True)
    )
    machine = machines[0]
    shared = machine.traits.memory == "lpddr"
    return Cards(
        machines, (1 / len(machines),) * len(machines), link_bytes_per_s(machine, names[0]), shared_memory=shared
    )


def _host(raw: dict[str, str], number: Callable[[str], float]) -> Machine:
    gb_s = number("cpu_bandwidth_gb_s") or HOST_GB_S
    runtime = raw.get("runtime", "").lower()
    other = "ik" if runtime.startswith("ik_") else "llama.cpp"
    return Machine("cpu", gb_s * 1e9, traits_of(raw.get("cpu_chip", ""), "cpu", gb_s * 1e9), runtime=other)


def predicted_s(row: PlacedRow, terms: Terms) -> float:
    """Seconds of the row's test by token (decode) or of the whole prompt (prefill).

    Raises:
        ValueError: The row is not predictable.
    """
    if row.split is None or row.cards is None or row.host is None:
        raise ValueError(row.reason)
    if row.phase == "decode":
        return decode_split_s(row.split, row.cards, row.host, shipped().values, terms)
    return prefill_split_s(row.split, row.cards, row.host, row.prompt, row.ubatch_tokens, shipped().values, terms)


def predicted_tokens_per_s(row: PlacedRow, terms: Terms) -> float:
    """The row's speed by the law."""
    return (row.prompt.tokens if row.phase == "prefill" else 1.0) / predicted_s(row, terms)


_PRIOR: Final = Terms()
_PRIOR_SD: Final = Terms(
    gpu=0.3, cpu=0.3, experts=0.3, crossing=0.7, prefill=0.3, link=0.1, ik=0.3, memory=0.1, cpu_prefill=0.3
)


def fit_terms(rows: Sequence[PlacedRow]) -> Terms:
    """Terms of the law from rows of trust A and B: robust least squares in ln t, pulled to the priors.

    A vote (GPU x model x quantisation x phase) weighs 1 whatever its rows, a GPU no more than the root of its votes.
    """
    rows = [row for row in rows if row.judged]
    if not rows:
        return _PRIOR
    vote_of = [(row.gpu, row.raw["model"], row.raw["quant"], row.phase) for row in rows]
    rows_in, votes_in = Counter(vote_of), Counter((gpu, phase) for gpu, _, _, phase in set(vote_of))
    weight = np.array([1 / rows_in[v] / np.sqrt(votes_in[v[0], v[3]]) for v in vote_of])
    target = np.log(
        [row.prompt.tokens / row.tokens_per_s if row.phase == "prefill" else 1 / row.tokens_per_s for row in rows]
    )
    prior, sd = np.array(_PRIOR), np.array(_PRIOR_SD)

    def residuals(theta: Array) -> Array:
        terms = Terms(*theta.tolist())
        error = (np.log([predicted_s(row, terms) for row in rows]) - target) / NOISE
        robust = np.sign(error) * np.sqrt(2 * (np.sqrt(1 + error**2) - 1))
        pulled: Array = np.concatenate([np.sqrt(weight) * robust, (theta - prior) / sd])
        return pulled

    theta = prior.copy()
    damping = 1e-2
    now = residuals(theta)
    for _ in range(30):
        step = 1e-4
        slope = np.stack(
            [(residuals(theta + step * np.eye(len(theta))[i]) - now) / step for i in range(len(theta))], axis=1
        )
        normal = slope.T @ slope
        change = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)), slope.T @ now)
        trial = residuals(theta + change)
        if trial @ trial < now @ now:
            done = now @ now - trial @ trial < 1e-4 * (now @ now)
            theta, now, damping = theta + change, trial, damping / 3
            if done:
                break
        else:
            damping *= 5
    return Terms(*theta.tolist())
