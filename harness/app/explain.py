"""What an answer rests on: every term behind it, the measurements nearest to it, and what would disprove it."""

import math
from collections.abc import Sequence
from typing import Any, Final

from harness.app.case import Case
from harness.app.published import shipped_rows
from harness.domain.base import Frozen
from harness.predict.coefficients import Coefficients
from harness.predict.decode import Machine, Work, decode_base, decode_gradient, decode_seconds, features
from harness.predict.fitted import machine_of, work_of
from harness.predict.learned import believed
from harness.predict.prefill import Prompt, prefill_base, prefill_gradient, prefill_seconds, prompt_of
from harness.predict.terms import laws_of, words_of
from harness.published.rows import Row, is_trusted, predictable

Rows = list[tuple[Any, ...]]

_NEAREST: Final = 6
_LEAST_DOUBT: Final = 0.005
"""Share of the interval's square below which a term is not listed, if it is also near 1."""


class ExplanationTable(Frozen):
    """One part of what an answer rests on: rows of words and numbers under headings that say their units."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]


def explain(case: Case) -> tuple[ExplanationTable, ...]:
    """What the speed of a model on a device is made of, what was fitted, what was measured nearby, what would tell.

    A device whose engine was timed on it answers from those costs alone, and shows them.
    """
    model = case.model
    device = case.device
    scenario = case.scenario
    api = scenario.api
    test = f"-p {scenario.prompt_tokens} --tokens {scenario.new_tokens}"
    run = f"edge-harness run {model.name} -q {model.quant} --api {api} {test} --out RUN"
    if (costs := device.calibration(api)) is not None:
        timed: list[tuple[str | float | None, ...]] = [
            *(
                ("decode", f"reads {c.type_name}", 1e-9 / c.batch_seconds_per_byte[0][1], "GB/s")
                for c in costs.types
            ),
            ("decode", "fixed time of a token", 1e6 * costs.token_overhead_s, "us"),
            ("decode", "fixed time of a layer", 1e6 * costs.layer_overhead_s, "us"),
            ("decode", "reads the cache", costs.kv_read_bytes_per_s / 1e9, "GB/s"),
            ("prefill", "attention", costs.attention_flops_per_s / 1e9, "GFLOP/s"),
        ]
        return _parts(
            [(*row, None) for row in timed], [], [], [f"edge-harness check {model.name} -q {model.quant}"]
        )
    belief = believed(device)
    machine = machine_of(device, scenario)
    work = work_of(model.weights, scenario, scenario.depth_tokens + scenario.new_tokens / 2)
    prompt = prompt_of(model.weights.shape, max(scenario.prompt_tokens, 1), scenario.depth_tokens)
    terms = [
        *_terms("decode", decode_gradient(work, machine, belief.values), belief, machine),
        *_terms("prefill", prefill_gradient(work, machine, prompt, belief.values), belief, machine),
    ]
    near = [row for phase in ("decode", "prefill") for row in _neighbours(phase, work, machine, belief)]
    learn = f"edge-harness learn RUN --device {device.name}"
    return _parts(_laws(work, machine, prompt, belief), terms, near, [run, learn])


def _parts(laws: Rows, terms: Rows, near: Rows, commands: Sequence[str]) -> tuple[ExplanationTable, ...]:
    tables: list[tuple[str, str, Rows]] = [
        ("what the speed is made of", "phase,quantity,value,unit,% of the time", laws),
        (
            "fitted terms; a vote is one model on one chip, published",
            "phase,term,factor,% it may be off,votes,% of the doubt",
            terms,
        ),
        (
            "nearest published measurements",
            "phase,chip,model,quant,test,api,measured tokens/s,predicted tokens/s,% error,source",
            near,
        ),
        ("what would disprove this on the device", "command", [(command,) for command in commands]),
    ]
    return tuple(
        ExplanationTable(title=title, columns=tuple(heads.split(",")), rows=tuple(rows))
        for title, heads, rows in tables
        if rows
    )


def _laws(work: Work, machine: Machine, prompt: Prompt, belief: Coefficients) -> Rows:
    laws = laws_of(features("decode", work, machine), belief.values)
    parts = decode_seconds(work, machine, belief.values)
    base = decode_base(work, machine)
    whole = parts.total_s / 100
    total_s = prefill_seconds(work, machine, prompt, belief.values)
    prompts = laws_of(features("prefill", work, machine, prompt.tokens), belief.values)
    needs = prefill_base(work, machine, prompt)
    gb_s = machine.bandwidth_bytes_per_s / 1e9
    gflops = machine.traits.matrix_flops_per_s / 1e9
    return [
        ("decode", "fixed time of a layer", laws["overhead"] * 1e6, "us", parts.overhead_s / whole),
        ("decode", "weights read of a token", work.weight_bytes / 1e9, "GB", parts.weights_s / whole),
        ("decode", "memory speed reached", min(laws["efficiency"], 1.0), f"of {gb_s:.4g} GB/s", None),
        ("decode", "operations to unpack a weight", laws["compute"], "FLOP", parts.dequantisation_s / whole),
        ("decode", "cache read of a token", work.kv_bytes / 1e9, "GB", parts.kv_s / whole),
        ("decode", "beyond all of that", laws["scale"], "x the time", None),
        (
            "decode",
            "reading alone, at the specification",
            (base["bytes"] + base["kv"]) / whole,
            "% of the time",
            None,
        ),
        ("prefill", "arithmetic peak reached", prompts["mfu"], f"of {gflops:.4g} GFLOP/s", None),
        (
            "prefill",
            "arithmetic of the weights at the peak",
            100 * needs["weights"] / total_s,
            "% of the time",
            None,
        ),
        ("prefill", "beyond all of that", prompts["scale"], "x the time", None),
    ]


def _terms(phase: str, slopes: dict[str, float], belief: Coefficients, machine: Machine) -> Rows:
    """Terms by what they add to the interval, most first; those that say and doubt nothing are left out.

    A row has the factor on the term's quantity, one standard error of it, the published measurements that
    speak for it (0 where only the prior does), and its share of the square of the interval's width.
    """
    whole = belief.spread(slopes, phase, machine) ** 2
    rows = []
    for key, slope in slopes.items():
        term = belief.terms.get(key)
        spread = belief.spread_of(key)
        value = belief.values.get(key, 0.0)
        doubt = (slope * spread) ** 2 / whole
        if doubt >= _LEAST_DOUBT or abs(value) >= 0.02:
            if term:
                votes = term.rows_count
            else:
                votes = 0
            rows.append((phase, words_of(key), math.exp(value), 100 * math.expm1(spread), votes, 100 * doubt))
    return sorted(rows, key=lambda row: -row[-1])


def _neighbours(phase: str, work: Work, machine: Machine, belief: Coefficients) -> Rows:
    """Trusted published measurements nearest by chip, family, api, bytes of a token, quantisation and experts."""

    def distance(row: Row) -> float:
        assert row.work is not None
        own = machine
        other = row.machine
        if own.chip == other.chip:
            silicon = 0.0
        elif own.traits.family == other.traits.family:
            silicon = 1.0
        else:
            silicon = 3.0
        kind = (work.moe != row.work.moe) + 0.5 * (work.quant_class != row.work.quant_class)
        bytes_ratio = work.weight_bytes / row.work.weight_bytes
        return silicon + 2.0 * (own.api != other.api) + kind + abs(math.log(bytes_ratio))

    candidates = [row for row in predictable(shipped_rows()) if row.phase == phase and is_trusted(row)]
    nearest: dict[object, Row] = {}
    for row in sorted(candidates, key=distance):
        nearest.setdefault(row.vote, row)
    rows: Rows = []
    for row in list(nearest.values())[:_NEAREST]:
        speed = row.token_count / math.exp(row.predicted(belief.values)[0])
        error = 100 * (speed / row.measured - 1)
        rows.append((phase, *row.described.values(), row.measured, speed, error, row.source))
    return rows
