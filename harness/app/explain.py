"""What an answer rests on: what the time is spent on, and the measurements nearest to it."""

import math
from typing import Final

from harness.app.case import Case
from harness.app.published import shipped_rows
from harness.domain.base import Frozen
from harness.domain.device import Calibration
from harness.predict.coefficients import Coefficients, believed
from harness.predict.decode import Machine, Work, decode_seconds, features
from harness.predict.fitted import machine_of, work_of
from harness.predict.terms import laws_of
from harness.published.rows import Row, is_trusted, predictable

Rows = tuple[tuple[str | float | None, ...], ...]

_NEAREST: Final = 6


class ExplanationTable(Frozen, kw_only=False):
    """One part of what an answer rests on: rows of words and numbers under headings that say their units."""

    title: str
    columns: tuple[str, ...]
    rows: Rows


def explain(case: Case) -> tuple[ExplanationTable, ...]:
    """What the speed of a model on a device is made of, and what was measured nearby.

    A device whose engine was timed on it answers from those costs alone, and shows them.
    """
    device = case.device
    scenario = case.scenario
    costs = device.calibration(scenario.api)
    if costs is not None:
        columns = ("phase", "quantity", "value", "unit")
        return (ExplanationTable("what was timed on this device", columns, _timed(costs)),)
    belief = believed(device)
    machine = machine_of(device, scenario)
    work = work_of(case.model.weights, scenario, scenario.depth_tokens + scenario.new_tokens / 2)
    laws = laws_of(features("decode", work, machine), belief.values)
    mfu = laws_of(features("prefill", work, machine, max(scenario.prompt_tokens, 1)), belief.values)["mfu"]
    return (
        ExplanationTable(
            "what the speed is made of",
            ("phase", "quantity", "value", "unit", "% of the time"),
            _laws(work, machine, laws, mfu, belief),
        ),
        ExplanationTable(
            "nearest published measurements",
            (
                *("phase", "chip", "model", "quant", "test", "api"),
                *("measured tokens/s", "predicted tokens/s", "% error", "source"),
            ),
            _neighbours("decode", work, machine, belief) + _neighbours("prefill", work, machine, belief),
        ),
    )


def _timed(costs: Calibration) -> Rows:
    reads = [
        ("decode", f"reads {cost.type_name}", 1e-9 / cost.batch_seconds_per_byte[0][1], "GB/s")
        for cost in costs.types
    ]
    return (
        *reads,
        ("decode", "fixed time of a token", 1e6 * costs.token_overhead_s, "us"),
        ("decode", "fixed time of a layer", 1e6 * costs.layer_overhead_s, "us"),
        ("decode", "reads the cache", costs.kv_read_bytes_per_s / 1e9, "GB/s"),
        ("prefill", "attention", costs.attention_flops_per_s / 1e9, "GFLOP/s"),
    )


def _laws(work: Work, machine: Machine, laws: dict[str, float], mfu: float, belief: Coefficients) -> Rows:
    parts = decode_seconds(work, machine, belief.values)
    whole = parts.total_s / 100
    gb_s = machine.bandwidth_bytes_per_s / 1e9
    gflops = machine.traits.matrix_flops_per_s / 1e9
    return (
        ("decode", "fixed time of a layer", laws["overhead"] * 1e6, "us", parts.overhead_s / whole),
        ("decode", "weights read of a token", work.weight_bytes / 1e9, "GB", parts.weights_s / whole),
        ("decode", "memory speed reached", min(laws["efficiency"], 1.0), f"of {gb_s:.4g} GB/s", None),
        ("decode", "operations to unpack a weight", laws["compute"], "FLOP", parts.dequantisation_s / whole),
        ("decode", "cache read of a token", work.kv_bytes / 1e9, "GB", parts.kv_s / whole),
        ("prefill", "arithmetic peak reached", mfu, f"of {gflops:.4g} GFLOP/s", None),
    )


def _neighbours(phase: str, work: Work, machine: Machine, belief: Coefficients) -> Rows:
    """Trusted published measurements nearest by chip, family, api, bytes of a token, quantisation and experts."""

    def distance(row: Row) -> float:
        assert row.work is not None
        other = row.machine
        silicon = 3.0
        if machine.chip == other.chip:
            silicon = 0.0
        elif machine.traits.family == other.traits.family:
            silicon = 1.0
        kind = (work.moe != row.work.moe) + 0.5 * (work.quant_class != row.work.quant_class)
        bytes_ratio = work.weight_bytes / row.work.weight_bytes
        return silicon + 2.0 * (machine.api != other.api) + kind + abs(math.log(bytes_ratio))

    candidates = [row for row in predictable(shipped_rows()) if row.phase == phase and is_trusted(row)]
    nearest: dict[object, Row] = {}
    for row in sorted(candidates, key=distance):
        nearest.setdefault(row.vote, row)
    rows: Rows = ()
    for row in list(nearest.values())[:_NEAREST]:
        speed = row.token_count / math.exp(row.predicted(belief.values)[0])
        error = 100 * (speed / row.measured - 1)
        rows += ((phase, *row.described.values(), row.measured, speed, error, row.source),)
    return rows
