"""How the records in ``reports/`` are shown in the documents: one function a kind of table."""

import csv
import json
import math
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
from click.testing import CliRunner

from harness.app.published import shipped_rows
from harness.catalog.devices import load_device
from harness.cli import cli
from harness.domain.budget import Metric
from harness.domain.record import K, RunRecord
from harness.domain.result import Generation, Quality, Soak, Speculation, Stream, System
from harness.domain.scenario import Scenario
from harness.errors import HarnessError
from harness.predict.fitted import machine_of
from harness.published.rows import predictable, source_key
from harness.records.compare import Row, compare
from harness.records.imports import read_results
from harness.records.ladder import rungs_of
from harness.records.metrics import metric_values
from harness.report.document import without_folders
from harness.units import format_bytes, format_seconds


def source(records: list[RunRecord]) -> str:
    """The line below a table: command, machine and date of its records."""
    commands = dict.fromkeys(
        " ".join(without_folders(r.command)).replace("__main__.py", "edge-harness", 1) for r in records
    )
    machines = dict.fromkeys(f"{r.machine.cpu_model}, {r.machine.core_count} cores" for r in records)
    dates = dict.fromkeys(r.created[:10] for r in records)
    return f"*`{'`, `'.join(commands)}`; {'; '.join(machines)}; {', '.join(dates)}*"


def made_by(document: Mapping[str, Any]) -> str:
    """What stands below a table of a document of the bench: its command, machine and date."""
    return f"`{document['command']}`; {document['machine']}; {document['date']}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; every column but the first is aligned right."""
    head = ["| " + " | ".join(columns) + " |", "|---|" + "--:|" * (len(columns) - 1)]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in rows)])


def records_of(*paths: Path) -> list[RunRecord]:
    """All records of some files."""
    return [record for path in paths for record in read_results(path)]


def results_of(kind: type[K], *paths: Path) -> list[tuple[RunRecord, K]]:
    """The records of some files whose result is of one kind, each with it."""
    return [(record, record.result) for record in records_of(*paths) if isinstance(record.result, kind)]


def _compared(records: list[RunRecord], names: Collection[str]) -> Iterator[tuple[RunRecord, Row, float]]:
    """Each row of these names that was predicted and measured, with its record and what was measured."""
    for record in records:
        comparison = compare(record)
        for row in comparison.rows if comparison else ():
            if row.name in names and row.measured is not None:
                yield record, row, row.measured


def _model_of(record: RunRecord) -> str:
    return f"{record.model.name} {record.model.quant}" if record.model else ""


def check_table(*paths: Path) -> str:
    """Predicted and measured of each run."""
    records = records_of(*paths)
    rows = [
        [
            f"{record.model.name if record.model else ''}, {row.name}",
            _amount(row.unit, row.predicted),
            f"{_amount(row.unit, row.low)} to {_amount(row.unit, row.high)}",
            _amount(row.unit, measured),
            f"{row.error_ratio:+.1%}" if row.error_ratio is not None else "-",
        ]
        for record, row, measured in _compared(records, ("decode", "prefill", "first token", "load", "peak memory"))
    ]
    return table(["", "predicted", "90 % interval", "measured", "error"], rows) + f"\n\n{source(records)}"


def grid_table(*paths: Path) -> str:
    """Errors of what was predicted for each model at each depth; below them the medians of their sizes."""
    records = records_of(*paths)
    shown = ("decode", "prefill", "load", "load, cold", "peak memory")
    errors: dict[tuple[str, int], dict[str, float | None]] = {}
    for record, row, _ in _compared(records, shown):
        errors.setdefault((_model_of(record), record.scenario.depth_tokens), {})[row.name] = row.error_ratio
    rows = [
        [model, f"{depth:,}", *("disturbed" if (e := of.get(name)) is None else f"{e:+.1%}" for name in shown)]
        for (model, depth), of in errors.items()
    ]
    sizes = [[abs(e) for of in errors.values() if (e := of.get(name)) is not None] for name in shown]
    rows.append(["median of the sizes", "", *(f"{median(known):.1%} of {len(known)}" for known in sizes)])
    return table(["model", "depth", *shown], rows) + f"\n\n{source(records)}"


def placement_table(*paths: Path) -> str:
    """Speed and memory of each pool by placement: predicted and measured."""
    records, rows = records_of(*paths), []
    wanted = {
        "decode": "decode",
        "prefill": "prefill",
        "buffers in vram": "GPU buffers",
        "buffers in ram": "RAM buffers",
    }
    for record, row, measured in _compared(records, wanted):
        s = record.scenario
        where = "CPU" if s.api in {"", "cpu"} else f"{s.api}, layers {s.placement.gpu_layers}"
        where += f", experts of {s.placement.cpu_moe} with the CPU" if s.placement.cpu_moe else ""
        where += f", {s.batch_count} sequences" if s.batch_count > 1 else ""
        error = "disturbed" if row.doubted else f"{row.error_ratio:+.1%}"
        amounts = [_amount(row.unit, row.predicted), _amount(row.unit, measured)]
        rows.append([_model_of(record), where, wanted[row.name], *amounts, error])
    return table(["model", "placement", "", "predicted", "measured", "error"], rows) + f"\n\n{source(records)}"


def speculation_table(*paths: Path) -> str:
    """Advice before the run, and what the run gave."""
    records = results_of(Speculation, *paths)
    rows = []
    for r, run in records:
        advice = run.advice
        said = f"draft {advice.draft_tokens} tokens: {advice.speedup_ratio:.2f}" if advice.draft_tokens else "do not"
        rows.append(
            [
                _model_of(r),
                run.draft.removesuffix(".gguf"),
                said,
                f"{run.expected_ratio:.2f}",
                f"{run.speedup_ratio:.3f}",
                f"{run.acceptance_ratio:.2f}",
                r.outcome,
            ]
        )
    columns = ["target", "draft", "advice before", "from costs", "measured", "acceptance", "outcome"]
    return table(columns, rows) + f"\n\n{source([r for r, _ in records])}"


def verifier_table(*paths: Path) -> str:
    """A verifier on a server by round trip: predicted before the run, measured, and how many answers were its own."""
    records = results_of(Speculation, *paths)
    rows = []
    for r, run in sorted(records, key=lambda pair: pair[1].advice.round_trip_s):
        length = run.advice.draft_tokens
        rows.append(
            [
                f"{run.advice.round_trip_s * 1e3:.0f} ms",
                f"{run.advice.speedup_ratio:.2f} with {length} tokens" if length else "do not",
                f"{run.expected_ratio:.2f}",
                f"{run.speedup_ratio:.3f}",
                f"{run.acceptance_ratio:.2f}",
                f"{run.speculative.plain_count} of {run.speculative.cycle_count}",
                f"{len(run.ratios) - len(run.differences)} of {len(run.ratios)}",
                r.outcome,
            ]
        )
    columns = ["round trip", "advice before", "from costs", "measured", "acceptance", "undrafted", "equal", "outcome"]
    return table(columns, rows) + f"\n\n{source([r for r, _ in records])}"


def soak_table(*paths: Path) -> str:
    """Soaks: the burst, when speed fell for good, the level of the last quarter."""
    records = results_of(Soak, *paths)
    rows = [
        [
            r.model.name if r.model else "",
            f"{run.minutes:.1f} min",
            f"{run.burst_tokens_per_s:.1f}",
            "none" if run.knee_s is None else f"{run.knee_s:.1f} s",
            f"{run.sustained_tokens_per_s:.1f}",
            f"{run.sustained_tokens_per_s / run.burst_tokens_per_s:.3f}",
        ]
        for r, run in records
    ]
    columns = ["model", "length", "burst, tokens/s", "fell after", "level, tokens/s", "level / burst"]
    return table(columns, rows) + f"\n\n{source([r for r, _ in records])}"


def runtimes_table(*paths: Path) -> str:
    """Several runtimes on the same models: latencies, speed, memory, perplexity, and what the way to a server adds."""
    records = results_of(Generation, *paths)
    shown: tuple[tuple[Metric, float, str], ...] = (
        ("ttft_s", 1e3, "{:.0f} ms"),
        ("itl_p50_s", 1e3, "{:.2f} ms"),
        ("decode_tokens_per_s", 1.0, "{:.1f}"),
        ("prefill_tokens_per_s", 1.0, "{:.1f}"),
        ("peak_memory_bytes", 1e-6, "{:.0f} MB"),
        ("perplexity", 1.0, "{:.3f}"),
    )
    rows = []
    for r, run in records:
        found = [(form, scale, metric_values(r, metric)) for metric, scale, form in shown]
        way = run.server.decode_path_ratio if run.server else None
        rows.append(
            [
                _model_of(r),
                str(r.extra.get("side", r.engine.name if r.engine else r.runtime)),
                *(form.format(median(values) * scale) if values else "-" for form, scale, values in found),
                f"{way - 1:+.2%}" if way else "-",
                r.outcome,
            ]
        )
    columns = ["model", "runtime", "TTFT", "ITL", "tg, tokens/s", "pp, tokens/s", "memory", "perplexity"]
    return table([*columns, "way to the server", "outcome"], rows) + f"\n\n{source([r for r, _ in records])}"


def stream_table(*paths: Path) -> str:
    """Speed under a memory limit: predicted, measured, and share of the bound."""
    records = results_of(Stream, *paths)
    rows = []
    for r, s in records:
        predicted = f"{s.predicted_tokens_per_s:.1f}" if s.predicted_tokens_per_s else "-"
        share = f"{s.budget_bytes / r.model.size_bytes:.2f}" if r.model else "-"
        peak = r.memory.cgroup_peak_bytes or r.memory.peak_rss_bytes if r.memory else 0
        rows.append(
            [
                f"{r.model.name if r.model else ''}, {s.mode}",
                share,
                predicted,
                f"{s.decoding.tokens_per_s:.1f}",
                f"{s.bound_ratio:.2f}" if s.bound_ratio else "-",
                f"{peak / s.budget_bytes:.2f}",
                r.outcome,
            ]
        )
    columns = ["model", "budget / file", "predicted, tokens/s", "measured", "of the bound", "peak / limit", "outcome"]
    return table(columns, rows) + f"\n\n{source([r for r, _ in records])}"


def ladder_table(*paths: Path) -> str:
    """Size, speed and quality of each rung."""
    records = records_of(*paths)
    rows = []
    for rung in rungs_of(records):
        q = rung.quality
        mark = "~" if rung.speed_outcome == "inconclusive" else ""
        rows.append(
            [
                rung.quant,
                f"{rung.size_bytes / 1e6:.0f} MB",
                f"{rung.bits_per_weight:.2f}",
                f"{mark}{rung.decode_tokens_per_s:.1f}" if rung.decode_tokens_per_s else "-",
                f"{q.perplexity:.3f}" if q else rung.outcome,
                f"{q.kl_divergence:.4f}" if q and q.kl_divergence is not None else "-",
                "yes" if rung.on_frontier else "",
            ]
        )
    columns = ["mixture", "file", "bits", "decode, tokens/s", "perplexity", "KL, nats", "frontier"]
    return table(columns, rows) + f"\n\n{source([r for r in records if isinstance(r.result, Quality)])}"


def workload_table(*paths: Path) -> str:
    """Median latency of each operation of each workload beside its prediction; a disturbed run is marked."""
    records = results_of(System, *paths)
    rows, errors = [], []
    for record, run in records:
        mark = "" if record.outcome == "ok" else f" ({record.outcome})"
        for said in run.predicted:
            name, latency = said["operation"], said["latency_s"]
            times = [s.duration_s / max(1, s.token_count) for s in record.samples if s.label == name and not s.warm_up]
            if not times:
                continue
            errors.append(latency["mid"] / median(times) - 1.0)
            rows.append(
                [
                    f"{record.workload}, {name}{mark}",
                    format_seconds(latency["mid"]),
                    f"{format_seconds(latency['low'])} to {format_seconds(latency['high'])}",
                    format_seconds(median(times)),
                    f"{errors[-1]:+.0%}",
                    said["limit"],
                ]
            )
    columns = ["operation", "predicted", "90 % interval", "measured, median", "error", "limit"]
    middle = (
        f"median error of {len(errors)} operations: {median(map(abs, errors)):.1%}" if errors else "nothing was run"
    )
    return table(columns, rows) + f"\n\n*{middle}*\n\n{source([r for r, _ in records])}"


_HEADLINES: Final[Mapping[str, tuple[tuple[str, str, str, str], ...]]] = {
    "memory_store": (
        ("evidence recall at 10, LoCoMo", "locomo*minilm*/evidence_recall/fused/at_10",
         "BM25", "locomo*minilm*/evidence_recall/bm25/at_10"),
        ("current fact found first", "lives/managed: first", "every turn stored", "lives/everything stored: first"),
    ),
    "grounding_qa": (
        ("precision of support", "support/all/precision", "words contained", "support/all/contains_precision"),
        ("recall of support", "support/all/recall", "", ""),
        ("precision of support, unseen passages", "support, unseen passages/all/precision", "words contained",
         "support, unseen passages/all/contains_precision"),
        ("recall of support, unseen passages", "support, unseen passages/all/recall", "", ""),
        ("citations that support, made-up facts", "made-up facts/citation_recall", "words contained",
         "made-up facts/citation_contains_answer"),
        ("TruthfulQA, right answers", "TruthfulQA*/accuracy", "the likeliest answer", "TruthfulQA*/likeliest_accuracy"),
        ("TruthfulQA, gain of answering the surer half", "TruthfulQA*/half_coverage/gain", "", ""),
        ("LoCoMo, gain of answering the surer half", "locomo*/half_coverage/gain", "", ""),
    ),
    "reasoning": (
        ("precision of contradictions", "contradictions with the model/precision", "", ""),
        ("recall of contradictions", "contradictions with the model/recall", "", ""),
        ("precision of contradictions, unseen chains", "contradictions, unseen chains/precision", "", ""),
        ("recall of contradictions, unseen chains", "contradictions, unseen chains/recall", "", ""),
        ("ProcessBench F1, gsm8k, critic", "processbench_gsm8k*/critic/f1", "exact checks alone",
         "processbench_gsm8k*/critic/exact_checks_alone"),
        ("ProcessBench F1, math, critic", "processbench_math*/critic/f1", "exact checks alone",
         "processbench_math*/critic/exact_checks_alone"),
    ),
    "debate": (
        ("accuracy after debate", "arms/debate/accuracy", "judge alone", "arms/alone/accuracy"),
        ("accuracy after consultancy", "arms/consultancy/accuracy", "judge alone", "arms/alone/accuracy"),
        ("accuracy after critique", "arms/critique/accuracy", "judge alone", "arms/alone/accuracy"),
    ),
    "assistant": (
        ("right answers, all parts", "all parts/right", "the last turns alone", "without retrieval/right"),
    ),
    "grounded_vision": (
        ("words read from regions", "read/regions/share", "one copy, as many pixels", "read/base/share"),
        ("IDF1 with a fifth missed", "tracking/misses/idf1", "nothing missed", "tracking/none/idf1"),
        ("HOTA with a fifth missed", "tracking/misses/hota", "nothing missed", "tracking/none/hota"),
    ),
    "probe": (
        ("next token uncertain, layer at three quarters", "probes/3/reports/4/accuracy", "the token alone",
         "probes/3/reports/4/token_rule"),
        ("loss of copies without induction heads, nats", "ablation/ablated/1", "other heads taken out",
         "ablation/null_second_losses"),
    ),
    "sparse_autoencoder": (
        ("loss recovered (zero ablation)", "loss/recovered_zero_ratio", "", ""),
        ("variance explained, held out", "held_out/explained_ratio", "", ""),
    ),
    "training_efficiency": (
        ("experts found in memory, half of them held", "hits/50%*/measured", "predicted by a Zipf law of 0.9",
         "hits/50%*/by_default_skew"),
        ("held-out loss, nats a byte", "loss", "byte frequencies", "frequency_loss"),
    ),
    "calibration": (("ECE of planted confidences", "quality/ece", "planted", "quality/implied_ece"),),
}  # fmt: skip
"""What is shown of each workload's evaluation: a figure and where it stands, a baseline and where it stands.

``*`` in a step of a place matches names; a list is shown by its middle.
"""


def systems_table(speeds: Path, *evaluations: Path) -> str:
    """Each system: quality with its interval beside a baseline, and the first operation's time, memory and energy.

    Quality: the newest evaluation of each workload, times and memory: ``speeds`` where the model is the same.
    """
    timed = {r.workload: (r, run) for r, run in results_of(System, speeds)}
    judged = {r.workload: (r, run) for r, run in results_of(System, *evaluations) if run.evaluation}
    rows = []
    for name in sorted({*timed, *judged}):
        record, run = judged.get(name) or timed[name]
        told = {**run.evaluation, "quality": run.quality}
        clocked = timed.get(name, (record, run))
        speed = _speed_cells(*(clocked if clocked[0].model == record.model else (record, run)))
        model = f", {record.model.name}" if record.model else ""
        for what, place, baseline, other in _HEADLINES.get(name, ()):
            found, beside = _shown_at(told, place), _shown_at(told, other)
            if name not in judged and not place.startswith("quality"):
                found = "not evaluated here"
            against = baseline or "-" if beside == "-" else f"{baseline}: {beside}"
            rows.append([f"{name}{model}", what, found, against, *speed])
            speed = [""] * len(speed)
    columns = ["system", "quality", "found", "baseline", "p50 / p95", "predicted p50", "peak memory", "energy"]
    return table(columns, rows) + f"\n\n{source([r for r, _ in (*timed.values(), *judged.values())])}"


def _speed_cells(record: RunRecord, run: System) -> list[str]:
    """Percentiles and prediction of a record's slowest operation, peak memory, and joules of a call where known."""
    calls: dict[str, list[float]] = {}
    joules: list[float] = []
    for sample in record.samples:
        if not sample.warm_up:
            calls.setdefault(sample.label, []).append(sample.duration_s / max(1, sample.token_count))
            joules += [sample.energy_joules / max(1, sample.token_count)] if sample.energy_joules else []
    predicted = {said["operation"]: said["latency_s"]["mid"] for said in run.predicted}
    if not calls:
        return ["-"] * 4
    slowest = max(calls, key=lambda label: median(calls[label]))
    p95_s = sorted(calls[slowest])[math.ceil(0.95 * len(calls[slowest])) - 1]
    return [
        f"{slowest}: {format_seconds(median(calls[slowest]))} / {format_seconds(p95_s)}",
        format_seconds(predicted[slowest]) if slowest in predicted else "-",
        format_bytes(record.memory.peak_rss_bytes) if record.memory else "-",
        f"{median(joules):.3g} J a call" if joules else "not measurable here",
    ]


def _shown_at(told: Any, place: str) -> str:
    """The value at a place of an evaluation, with its interval; ``-`` where there is none."""
    beside: Any = None
    for step in place.split("/") if place else ():
        if isinstance(told, list | tuple) and step.isdigit() and int(step) < len(told):
            told, beside = told[int(step)], None
            continue
        names = [n for n in told if fnmatchcase(n, step)] if isinstance(told, Mapping) else []
        if not names:
            return "-"
        # what is called an interval alone is that of the first figure that it stands with
        plain = told.get("interval") if names[-1] == next(iter(told)) else None
        beside, told = (told.get(f"{names[-1]}_interval") or plain or _ends(told)), told[names[-1]]
    if isinstance(told, Mapping):
        beside, told = _ends(told), next((told[n] for n in ("share", "mid", "mean") if n in told), None)
    if isinstance(told, list | tuple) and told:
        beside, told = (min(told), max(told)), median(told)
    if not place or not isinstance(told, int | float):
        return "-"
    ends = f" ({beside[0]:.3g} to {beside[1]:.3g})" if beside and None not in beside else ""
    return f"{told:.3g}{ends}"


def _ends(told: Mapping[str, Any]) -> tuple[float, float] | None:
    return (told["low"], told["high"]) if "low" in told and "high" in told else None


def _evaluated(key: str, *paths: Path) -> tuple[RunRecord, Mapping[str, Any]]:
    """The newest record whose evaluation has that key, and the evaluation.

    Raises:
        ValueError: There is none.
    """
    found = [(record, run.evaluation) for record, run in results_of(System, *paths) if key in run.evaluation]
    if not found:
        raise ValueError(f"no evaluation with {key!r} in {', '.join(map(str, paths))}")
    return found[-1]


def router_table(*paths: Path) -> str:
    """Hits of a cache of experts on the choices of a router that was trained here, beside what laws predict."""
    record, found = _evaluated("hits", *paths)
    rows = [[budget, *(f"{hits[name]:.1%}" for name in _HITS)] for budget, hits in found["hits"].items()]
    return table(["", *_HITS.values()], rows) + f"\n\n{source([record])}"


_HITS: Final = {
    "measured": "measured, least recently used out",
    "most_wanted": "measured, the most wanted kept",
    "by_default_skew": "predicted, Zipf law of 0.9",
    "by_skew": "predicted, fitted Zipf law",
    "by_skew_and_reuse": "predicted, fitted, with reuse",
}


def parts_table(workload: str, *paths: Path) -> str:
    """What a workload's evaluation found, a row for each part: arms of a debate, an assistant without a part."""
    asked = workload.partition(":")[0]
    judged = [(r, run.evaluation) for r, run in results_of(System, *paths) if r.workload == asked]
    told = [(r, found) for r, found in judged if found]
    if not told:
        raise ValueError(f"no evaluation of {workload} in {', '.join(map(str, paths))}")
    record, found = told[-1]
    place, columns = _PARTS[workload]
    parts: Any = found
    for step in place.split("/") if place else ():
        parts = parts[step]
    chosen = {
        name: part for name, part in parts.items() if isinstance(part, Mapping) and set(columns.values()) & set(part)
    }
    rows = [[name, *(_shown_at(part, key) for key in columns.values())] for name, part in chosen.items()]
    return table(["", *columns], rows) + f"\n\n{source([record])}"


_SUPPORT: Final = {
    "cases": "case_count", "precision": "precision", "recall": "recall",
    "objected to by a check": "decided_by_checks_ratio", "precision of words contained": "contains_precision",
}  # fmt: skip
_PARTS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "assistant": (
        "",
        {
            "right": "right", "of what is so now": "right, now", "in two steps": "right, hop",
            "silent where forgotten": "right, gone", "wrong answers given": "wrong answers given",
            "seconds": "seconds", "tokens read": "read_tokens",
        },
    ),
    "debate": (
        "arms",
        {
            "accuracy": "accuracy", "p against chance": "p", "p against alone": "over_alone/p",
            "swayed by order": "swayed_by_order_ratio",
            "tokens said": "speech_tokens_drawn", "judge reads": "judge_tokens_read", "seconds": "seconds",
        },
    ),
    "grounding_qa": ("support", _SUPPORT),
    "grounding_qa:unseen": ("support, unseen passages", _SUPPORT),
}  # fmt: skip


def critics_table(*paths: Path) -> str:
    """F1 on ProcessBench of the critic that was run here, of the exact checks alone, and of published critics."""
    judged = [(r, run.evaluation) for r, run in results_of(System, *paths) if r.workload == "reasoning"]
    record, found = next((r, e) for r, e in reversed(judged) if any("critic" in v for v in e.values()))
    names = [name for name, part in found.items() if "critic" in part]
    ours: dict[str, list[str]] = {"by programs, run here": [], "exact checks alone, run here": [], "traces": []}
    for name in names:
        critic = found[name]["critic"]
        ours["by programs, run here"].append(_shown_at(critic, "f1"))
        ours["exact checks alone, run here"].append(_shown_at(critic, "exact_checks_alone"))
        ours["traces"].append(f"{critic['trace_count']} of {critic['of']}")
    known = dict.fromkeys(critic for name in names for critic in found[name]["published_f1"])
    published = {c: [f"{found[n]['published_f1'].get(c, float('nan')):.3f}" for n in names] for c in known}
    rows = [[critic, *cells] for critic, cells in sorted(published.items(), key=lambda row: row[1][0])]
    titles = ["F1", *(name.removeprefix("processbench_").split("_")[0] for name in names)]
    return table(titles, [[name, *cells] for name, cells in ours.items()] + rows) + f"\n\n{source([record])}"


def probe_table(*paths: Path) -> str:
    """Held-out accuracy of each property on each layer that was probed, with its selectivity, beside simpler rules."""
    record, found = _evaluated("probes", *paths)
    studies = found["probes"]
    rows: dict[str, list[str]] = {}
    for said in (one for study in studies for one in study["reports"]):
        row = rows.setdefault(said["name"], [said["name"], f"{said['majority']:.3f}", f"{said['token_rule']:.3f}"])
        row.append(f"{said['accuracy']['mid']:.3f} ({said['selectivity']:+.3f})")
    layers = [f"layer {study['layer']}" for study in studies]
    columns = ["accuracy (selectivity)", "the commoner label", "the token alone", *layers]
    return table(columns, list(rows.values())) + f"\n\n{source([record])}"


def ablation_table(*paths: Path) -> str:
    """Losses with all heads, and without induction heads, beside as many others taken out."""
    record, found = _evaluated("ablation", *paths)
    told = found["ablation"]
    null = told["null_second_losses"]
    share = f"{len(told['heads'])} induction heads out, {told['head_share']:.1%} of all"
    rows = [
        ["all heads", *(f"{loss:.2f}" for loss in told["intact"]), "-"],
        [share, *(f"{loss:.2f}" for loss in told["ablated"]), f"{told['p_value']:.3f}"],
        ["as many others out", "-", f"{median(null):.2f} ({min(null):.2f} to {max(null):.2f})", "-", "-"],
    ]
    columns = ["nats a token", "first copy", "second copy", "ordinary text", "p"]
    return table(columns, rows) + f"\n\n{source([record])}"


def vision_tables(*paths: Path) -> str:
    """Words read by each way of seeing a picture, and scores of the tracker by what its detections get wrong."""
    record, found = _evaluated("tracking", *paths)
    seen = [
        [
            name,
            f"{way['share']:.1%} ({way['low']:.1%} to {way['high']:.1%})",
            f"{way['pixel_count'] / 1e6:.2f} million",
        ]
        for name, way in found["read"].items()
    ]
    tracked = [
        [name, f"{scores['hota']:.3f}", f"{scores['idf1']:.3f}", str(scores["switch_count"])]
        for name, scores in found["tracking"].items()
    ]
    pair = _shown_at(found, "regions_less_base")
    told = f"{found['word_count']} words; regions less base, paired over pictures: {pair}"
    first = table(["way", "words read", "pixels looked at"], seen)
    second = table(["errors of the detections", "HOTA", "IDF1", "identity switches"], tracked)
    return f"{first}\n\n{told}\n\n{second}\n\n{source([record])}"


def metric(path: Path, name: str) -> str:
    """The median of one metric of one record, with three digits."""
    values = metric_values(records_of(path)[0], name)  # type: ignore[arg-type]  # a wrong name is a KeyError that says so
    return f"{median(values):.3g}"


def value(path: Path, where: str, form: str = ".3g") -> str:
    """One value of a JSON document by its dotted place, such as ``rows.0.error_ratio``."""
    found: Any = json.loads(path.read_text(encoding="utf-8"))
    for key in where.split("."):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return str(format(found, form))


def json_table(path: Path) -> str:
    """A document of the bench: ``columns``, ``rows`` of texts, and ``command``, ``machine`` and ``date``."""
    told = json.loads(path.read_text(encoding="utf-8"))
    rows = [[str(cell) for cell in row] for row in told["rows"]]
    return table(told["columns"], rows) + f"\n\n*{made_by(told)}*"


def conformance(path: Path) -> str:
    """Worst error of each part of memory, by kind of architecture, over all KV types, contexts and sequences."""
    record = json.loads(path.read_text())
    parts = ("weights", "repacked weights", "cache", "compute buffer")
    errors: dict[str, dict[str, float]] = {}
    for row in record["rows"]:
        if row["part"] in parts:
            kind = errors.setdefault(row["kind"], {})
            kind[row["part"]] = max(kind.get(row["part"], 0.0), row["error_ratio"])
    rows = [
        [kind, *(f"{found[part]:.1%}" if part in found else "-" for part in parts)] for kind, found in errors.items()
    ]
    cases = sum(row["part"] in parts[:3] for row in record["rows"])
    worst = f"worst error of weights and cache {record['worst']['error_ratio']:.2%} in {cases} cases"
    note = (
        "the compute buffer is reserved as a whole and touched in part; a run on a CPU is predicted by what it touches"
    )
    return (
        table(["kind of architecture", *parts], rows)
        + f"\n\n*`{record['command']}`, {record['engine']}: {worst}; {note}*"
    )


def output(path: Path) -> str:
    """What a command printed, as it was kept; its first line is the command."""
    return f"```text\n$ {path.read_text(encoding='utf-8').rstrip()}\n```"


def answer(most: str, *words: str) -> str:
    """The first ``most`` lines that commands print now, in a home with nothing learnt; ``&&`` is between two."""
    shown = []
    with TemporaryDirectory() as home:
        for line in " ".join(words).split(" && "):
            done = CliRunner(env={"EDGE_HARNESS_HOME": home, "COLUMNS": "150"}).invoke(cli, line.split())
            if done.exit_code or isinstance(done.exception, HarnessError):
                raise ValueError(f"{line}: {done.exception}")
            kept = [text.rstrip() for text in done.stdout.replace(home, "~").splitlines()]
            shown += [f"$ edge-harness {line}", *[text for text in kept if text][: int(most)]]
    return "```text\n" + "\n".join(shown) + "\n```"


def published_answers(path: Path) -> str:
    """What others measured and no fit has seen, each beside what ``fit`` answers to the same question now.

    Raises:
        ValueError: A source is one that the shipped fit has rows of.
    """
    fitted = predictable(shipped_rows())
    sources, rows = {row.source for row in fitted}, []
    for asked in csv.DictReader(path.read_text().splitlines()):
        if source_key(asked["source"].removeprefix("https://")) in sources:
            raise ValueError(f"{path}: {asked['source']} is in the fit")
        words = [asked["model"], "-q", asked["quant"], "-d", asked["device"], *asked["options"].split(), "--no-advice"]
        with TemporaryDirectory() as home:
            done = CliRunner(env={"EDGE_HARNESS_HOME": home}).invoke(cli, ["fit", *words, "--json"])
        found = json.loads(done.stdout)["prediction"]
        if asked["figure"] == "kv cache":
            parts = found["memory"]["parts"]
            mid = sum(part["anonymous_bytes"] for part in parts if part["name"] == "kv cache") / 2**30
            said = {"mid": mid, "low": 0.99 * mid, "high": 1.01 * mid}
        else:
            said = found["speed"][f"{asked['figure']}_tokens_per_s"]
        published = float(asked["published"])
        digits = 0 if published >= 1000 else 1
        chip = machine_of(load_device(asked["device"]), Scenario(api=found["api"])).chip
        near = sum(row.chip == chip and row.work is not None and row.work.model == found["model"] for row in fitted)
        rows.append([
            f"{asked['device']}, {asked['model']} {asked['quant']}, {asked['figure']}",
            f"[{published:,.4g} {asked['unit']}]({asked['source']}) ({asked['note']})",
            "{} ({} to {})".format(*(f"{said[end]:,.{digits}f}" for end in ("mid", "low", "high"))),
            f"{said['mid'] / published - 1:+.0%}",
            "yes" if said["low"] <= published <= said["high"] else "**no**",
            str(near),
        ])  # fmt: skip
    columns = ["question", "published", "answer (90 %)", "off by", "inside", "fitted rows of this chip and model"]
    return table(columns, rows)


def verbs(
    command: click.Command = cli, name: str = "edge-harness", parent: click.Context | None = None
) -> Iterator[click.Context]:
    """A context of every verb, in the order of ``--help``; its ``command_path`` is what a user types."""
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=100,
        max_content_width=100,
        help_option_names=["-h", "--help"],
    )
    if not isinstance(command, click.Group):
        yield context
        return
    for verb in command.list_commands(context):
        sub = command.get_command(context, verb)
        assert sub is not None
        yield from verbs(sub, verb, context)


def commands() -> str:
    """Every verb with its help, as the command line prints it."""
    shown = []
    for verb in verbs():
        setattr(verb.command, "_help_option", None)  # noqa: B010 - click keeps the first context's, whatever it was
        shown.append(f"## {verb.command_path}\n\n```text\n{verb.command.get_help(verb)}\n```\n")
    return "\n".join(shown)


def _amount(unit: str, amount: float) -> str:
    if unit == "bytes":
        return format_bytes(amount)
    return format_seconds(amount) if unit == "s" else f"{amount:.1f} tokens/s"


_GROUPS: Final = {
    "dense": "dense models",
    "moe": "mixtures of experts",
    "sub-4-bit": "below four bits",
    "phone": "phones",
    "deep": "3,000 tokens of context and more",
    "prefill": "prompts",
}


def leave_out(path: Path) -> str:
    """Errors by kind of row and by class of hardware, on rows that the fit did not see."""
    told = json.loads(path.read_text(encoding="utf-8"))
    kinds = [(word, told["groups"][name]) for name, word in _GROUPS.items()]
    hardware = [(f"{name}, decode", score) for name, score in told["tables"]["hardware"].items()]
    prompts = [(f"{name}, prompts", score) for name, score in told["tables"]["hardware, prompts"].items()]
    rows = [_score(name, score) for name, score in kinds]
    rows += [_score(name, score) for name, score in [*hardware, *prompts] if score["votes_count"] >= _FEWEST_VOTES]
    columns = ["", "votes", "median error", "90th percentile", "best constant, median", "inside", "width"]
    return table(columns, rows) + f"\n\n*{told['left_out']}: {made_by(told)}*"


def floors(path: Path, errors: Path) -> str:
    """What two sources of one test differ by, beside the errors on sources that a fit did not see."""
    told, missed = (json.loads(p.read_text(encoding="utf-8")) for p in (path, errors))
    rows = []
    for name, floor in told["floors"].items():
        group, _, hardware = name.partition(", ")
        kind = group.partition(" (")[0]
        tables = {"moe": "hardware of experts", "prefill": "hardware, prompts"}
        score = missed["tables"].get(tables.get(group, ""), {}).get(hardware)
        score = score if hardware else missed["groups"].get(group)
        error = f"{score['median_ratio']:.1%}, {score['p90_ratio']:.0%}" if score else "-"
        counts = [str(floor["tests_count"]), str(floor["pairs_count"])]
        gap = f"{floor['median_ratio']:.1%}, {floor['p90_ratio']:.0%}"
        rows.append([name.replace(kind, _GROUPS[kind], 1), *counts, gap, error])
    columns = ["", "tests", "pairs of sources", "two sources: median, 90th percentile", "the law, source left out"]
    return table(columns, rows) + f"\n\n*{made_by(told)}*"


def given(*paths: Path) -> str:
    """Errors on the rest of each chip after so many of its measurements were given: one file for each number."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    counts = [document["command"].split()[-1] for document in documents]
    rows = []
    for name, word in _GROUPS.items():
        scores = [document["groups"][name] for document in documents]
        rows.append([word, *(f"{s['median_ratio']:.1%}, {s['p90_ratio']:.0%}" for s in scores)])
    commands_run = "`, `".join(document["command"] for document in documents)
    under = f"*median, 90th percentile; `{commands_run}`; {documents[0]['machine']}; {documents[0]['date']}*"
    return table(["given", *counts], rows) + f"\n\n{under}"


_TERMS: Final = {
    "e/gpu": ("share of its bandwidth that a graphics card reaches, before family and type", 1.0, ""),
    "a/gpu": ("overhead of a layer on a graphics card", 1e6, " us"),
    "c/gpu": ("operations for a weight on a graphics card", 1.0, ""),
    "c/cpu": ("operations for a weight on a CPU", 1.0, ""),
    "k/year": ("attention gets faster a year by a factor of", 1.0, ""),
}


def fitted_terms(path: Path) -> str:
    """What some physical terms of the speed laws came to, and how many terms there are."""
    told = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for key, (meaning, scale, unit) in _TERMS.items():
        term = told["terms"][key]
        low, middle, high = (scale * math.exp(term["value"] + sign * 1.645 * term["spread"]) for sign in (-1, 0, 1))
        rows.append([meaning, f"{middle:.3g}{unit}", f"{low:.3g} to {high:.3g}{unit}", str(term["rows_count"])])
    physical = sum(":" not in key for key in told["terms"])
    counts = (
        f"{physical} physical terms, {len(told['terms']) - physical} levels, {len(told['widths'])} fitted widths; the "
        f"rows decide as much as {told['effective_count']:.0f} free terms would"
    )
    return table(["term", "value", "90 %", "votes"], rows) + f"\n\n*{counts}; {told['source']}*"


def term_sizes(path: Path) -> str:
    """The three laws that matter most in each group of rows, with their size."""
    told = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for group, word in _GROUPS.items():
        for i, one in enumerate(told["groups"][group]):
            low, middle, high = (f"{size:.3g}" for size in one["size"])
            rows.append([word if i == 0 else "", one["law"], f"{one['time_ratio']:.0%}", middle, f"{low} to {high}"])
    columns = ["", "part of the law", "of the time", "fitted size, median", "10th to 90th percentile"]
    return table(columns, rows) + f"\n\n*{made_by(told)}*"


def micro_benchmarks(path: Path) -> str:
    """What the coefficients say of chips that somebody ran micro-benchmarks on."""
    told = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        [one["law"], one["chip"], f"{one['fitted']:.3g}", f"{one['measured']:.3g}", one["how"], one["source"]]
        for one in told["benchmarks"]
    ]
    columns = ["part of the law", "chip", "fitted", "micro-benchmark", "how", "source"]
    return table(columns, rows) + f"\n\n*{made_by(told)}*"


def other_checks(path: Path) -> str:
    """Errors of the models of speculation, streaming, heat and split placement on published rows."""
    told = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for check in told["other_checks"]:
        rules = check.get("baselines", {}).items()
        rows.append(
            [
                check["name"],
                str(check["rows_count"]),
                f"{check['median_ratio']:.1%}",
                f"{check['within_ratio']:.0%}",
                f"{check['coverage_ratio']:.0%}" if "coverage_ratio" in check else "-",
                "; ".join(f"{name}: {rule[0]:.1%} of {rule[1]} rows" for name, rule in rules) or "-",
            ]
        )
    for phase, score in told["placement"]["scores"].items():
        rows.append(
            [f"split placement, {phase}", str(score["rows_count"]), f"{score['median_ratio']:.1%}", "-", "-", "-"]
        )
    columns = ["predicted", "rows", "median error", "within a factor 1.3", "inside 90 %", "simpler rules"]
    return table(columns, rows) + f"\n\n*{made_by(told)}*"


_FEWEST_VOTES: Final = 20
"""Fewer say nothing of coverage."""


def _score(name: str, score: Mapping[str, Any]) -> list[str]:
    constant = score["best_constant"]
    return [
        name,
        str(score["votes_count"]),
        f"{score['median_ratio']:.1%}",
        f"{score['p90_ratio']:.0%}",
        f"{constant[1]:.1%}" if constant else "-",
        f"{score['coverage_ratio']:.0%}",
        f"{score['width_ratio']:.2f}",
    ]
