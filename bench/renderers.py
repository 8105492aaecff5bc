"""How the records in ``reports/`` are shown in the documents: one function a kind of table."""

import csv
import json
import math
import shlex
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import click
from click.testing import CliRunner

from harness.answer.nearest import shipped_rows
from harness.cli import cli
from harness.core.errors import HarnessError
from harness.core.metric import MetricName, metric_values
from harness.core.record import Record
from harness.core.result import Generation, Quality, Result, Soak, Speculation, Stream
from harness.core.scenario import Scenario
from harness.core.units import format_bytes, format_seconds
from harness.hardware.devices import load_device
from harness.records.compare import ComparedRow, compare
from harness.records.imports import read_results
from harness.records.ladder import COLUMNS, cells, rungs_of
from harness.show.words import without_folders
from harness.speed.fitted import machine_of
from harness.speed.published.rows import predictable, source_key

K = TypeVar("K", bound=Result)


def source(records: list[Record]) -> str:
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


def records_of(*paths: Path) -> list[Record]:
    """All records of some files."""
    return [record for path in paths for record in read_results(path)]


def results_of(kind: type[K], *paths: Path) -> list[tuple[Record, K]]:
    """The records of some files whose result is of one kind, each with it."""
    return [(record, record.result) for record in records_of(*paths) if isinstance(record.result, kind)]


def _compared(records: list[Record], names: Collection[str]) -> Iterator[tuple[Record, ComparedRow, float]]:
    """Each row of these names that was predicted and measured, with its record and what was measured."""
    for record in records:
        comparison = compare(record)
        for row in comparison.rows if comparison else ():
            if row.name in names and row.measured is not None:
                yield record, row, row.measured


def _model_of(record: Record) -> str:
    return f"{record.model.name} {record.model.quant}" if record.model else ""


def check_table(*paths: Path) -> str:
    """Predicted and measured of each run."""
    records = records_of(*paths)
    rows = [
        [
            f"{record.model.name if record.model else ''}, {row.name}",
            _amount(row.unit, row.predicted or 0.0),
            f"{_amount(row.unit, row.low or 0.0)} to {_amount(row.unit, row.high or 0.0)}",
            _amount(row.unit, measured),
            f"{row.error_ratio:+.1%}" if row.error_ratio is not None else "-",
        ]
        for record, row, measured in _compared(records, ("decode", "prefill", "first token", "load", "peak memory"))
    ]
    return table(["", "predicted", "90 % interval", "measured", "error"], rows) + f"\n\n{source(records)}"


def grid_table(*paths: Path) -> str:
    """Of each file of checks, and of all together: the median error of what was predicted, and the share inside."""
    shown = ("decode", "prefill", "first token", "load", "load, cold", "peak memory", "anonymous memory")
    files = [records_of(path) for path in paths]
    rows = []
    for records in (*files, [record for file in files for record in file]):
        cells = []
        for name in shown:
            judged = [row for _, row, _ in _compared(records, {name}) if row.error_ratio is not None]
            errors = [abs(row.error_ratio or 0.0) for row in judged]
            held = sum(bool(row.inside) for row in judged) / max(1, len(judged))
            cells.append(f"{median(errors):.1%} of {len(errors)}, {held:.0%}")
        begun = str(min(record.created for record in records))
        rows.append([begun[:16].replace("T", ", ") if records in files else "all", str(len(records)), *cells])
    return table(["begun", "checks", *shown], rows) + f"\n\n{source([file[0] for file in files])}"


def runtimes_table(*paths: Path) -> str:
    """Several runtimes on the same models: latencies, speed, memory and perplexity."""
    records = results_of(Generation, *paths)
    shown: tuple[tuple[MetricName, float, str], ...] = (
        ("ttft_s", 1e3, "{:.0f} ms"),
        ("itl_p50_s", 1e3, "{:.2f} ms"),
        ("decode_tokens_per_s", 1.0, "{:.1f}"),
        ("prefill_tokens_per_s", 1.0, "{:.1f}"),
        ("peak_memory_bytes", 1e-6, "{:.0f} MB"),
        ("perplexity", 1.0, "{:.3f}"),
    )
    rows = []
    for r, _ in records:
        found = [(form, scale, metric_values(r, metric)) for metric, scale, form in shown]
        rows.append(
            [
                _model_of(r),
                str(r.extra.get("side", r.engine.name if r.engine else r.runtime)),
                *(form.format(median(values) * scale) if values else "-" for form, scale, values in found),
                r.outcome,
            ]
        )
    columns = ["model", "runtime", "TTFT", "ITL", "tg, tokens/s", "pp, tokens/s", "memory", "perplexity"]
    return table([*columns, "outcome"], rows) + f"\n\n{source([r for r, _ in records])}"


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
                f"{r.model.name if r.model else ''}, {s.mode}{f', drafts by {s.draft}' if s.draft else ''}",
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
        cell = dict(zip(COLUMNS, cells(rung), strict=True))
        q = rung.quality.score if rung.quality else None
        rows.append(
            [
                cell["quant"],
                f"{rung.size_bytes / 1e6:.0f} MB",
                cell["bits"],
                cell["tg/s"] or "-",
                cell["perplexity"].partition(" ")[0] if q else rung.outcome,
                cell["KL, nats"].partition(" ")[0] or "-",
                "yes" if rung.on_frontier else "",
            ]
        )
    columns = ["mixture", "file", "bits", "decode, tokens/s", "perplexity", "KL, nats", "frontier"]
    return table(columns, rows) + f"\n\n{source([r for r in records if isinstance(r.result, Quality)])}"


def metric(path: Path, name: str) -> str:
    """The median of one metric of one record, with three digits."""
    values = metric_values(records_of(path)[0], name)
    return f"{median(values):.3g}"


def value(path: Path, where: str, form: str = ".3g") -> str:
    """One value of a JSON document by its dotted place, such as ``rows.0.error_ratio``."""
    found: Any = json.loads(path.read_text(encoding="utf-8"))
    for key in where.split("."):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return str(format(found, form))


def json_table(path: Path, only: str = "") -> str:
    """A document of the bench: ``columns``, ``rows`` of texts, and ``command``, ``machine`` and ``date``.

    ``only`` the rows whose first cell is that.
    """
    told = json.loads(path.read_text(encoding="utf-8"))
    rows = [[str(cell) for cell in row] for row in told["rows"] if not only or row[0] == only]
    return table(told["columns"], rows) + f"\n\n*{made_by(told)}*"


def answer(most: str, *words: str) -> str:
    """The first lines that commands print now, in a home with nothing learnt; ``&&`` is between two.

    ``most`` is how many, with words of further lines after it: ``1+kv_cache+page``; or ``all``. 1 stands for the first
    sentence with the rows below it.
    """
    count, *parts = most.replace("_", " ").replace("all", "999").split("+")
    width = "100" if most == "all" else "150"
    shown = []
    with TemporaryDirectory() as home:
        for line in " ".join(words).split(" && "):
            done = CliRunner(env={"EDGE_HARNESS_HOME": home, "COLUMNS": width}).invoke(cli, shlex.split(line))
            if done.exit_code not in {0, 1} or isinstance(done.exception, HarnessError):
                raise ValueError(f"{line}: {done.exception}")
            kept = [text.rstrip() for text in done.stdout.replace(home, "~").splitlines()]
            lines = [text for text in kept if text or most == "all"]
            first = int(count)
            if count == "1":  # the sentence and, below an empty line, its rows
                blanks = [at for at, text in enumerate([*kept, "", ""]) if not text]
                first = blanks[1] - 1
            more = [text for text in lines[first:] if any(part in text for part in parts)]
            shown += [f"$ edge-harness {line}", *lines[:first], *more]
    return "```text\n" + "\n".join(shown).rstrip() + "\n```"


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
            mid = sum(part["anonymous_bytes"] for part in parts if part["kind"] == "kv cache") / 2**30
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
    """A context of every verb that is installed, in the order of ``--help``; ``command_path`` is what a user types."""
    if command.short_help == "(not installed)":
        return
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


_HELP_WIDTH: Final = 150


def commands() -> str:
    """Every verb with its help, as the command line prints it: without blank lines, and what all verbs have."""
    shown = []
    for verb in verbs():
        setattr(verb.command, "_help_option", None)  # noqa: B010 - click keeps the first context's, whatever it was
        verb.terminal_width = _HELP_WIDTH
        verb.max_content_width = _HELP_WIDTH
        lines = [line for line in verb.command.get_help(verb).splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(("  --json ", "  -h, --help "))]
        # A heading below which nothing is left goes too.
        kept = [line for line, after in pairwise([*lines, ""]) if line[:1] == " " or after[:1] == " "]
        text = "\n".join(kept).replace("Example:\n  ", "Example: ")
        shown.append(f"## {verb.command_path}\n```text\n{text}\n```\n")
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


def leave_out(path: Path, only: str = "") -> str:
    """Errors by kind of row and by class of hardware (``only`` by ``kind``), on rows that the fit did not see."""
    told = json.loads(path.read_text(encoding="utf-8"))
    blind = told.get("blind_constants", {})
    sets = [(word, name, told["groups"][name]) for name, word in _GROUPS.items()]
    tables = () if only == "kind" else (("hardware", "decode"), ("hardware, prompts", "prompts"))
    for table_name, phase in tables:
        listed = ((f"{name}, {phase}", score) for name, score in told["tables"][table_name].items())
        sets += [(name, name, score) for name, score in listed if score["votes_count"] >= _FEWEST_VOTES]
    rows = [_score(word, score) + ([f"{blind[name]:.1%}"] if blind else []) for word, name, score in sets]
    columns = [*_SCORED, *(["blind constant"] if blind else [])]
    return table(columns, rows) + f"\n\n*{told['left_out']}: {made_by(told)}*"


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


def other_checks(path: Path) -> str:
    """Errors of the models of speculation, streaming, heat and split placement on published rows."""
    told = json.loads(path.read_text(encoding="utf-8"))
    rows = [_score(name, score) for name, score in told["groups"].items() if "(all rows)" in name]
    return table(_SCORED, rows) + f"\n\n*{told['left_out']}: {made_by(told)}*"


_SCORED: Final = ["", "votes", "median error", "90 % below", "within 1.3", "best constant", "inside", "width", "score"]
_FEWEST_VOTES: Final = 20
"""Fewer say nothing of coverage."""


def _score(name: str, score: Mapping[str, Any]) -> list[str]:
    constant = score["best_constant"]
    spans = [score[name] for name in ("width_ratio", "interval_score")]
    return [
        name.removesuffix(" (all rows)"),
        str(score["votes_count"]),
        f"{score['median_ratio']:.1%}",
        f"{score['p90_ratio']:.0%}",
        f"{score['within_ratio']:.0%}",
        f"{constant[1]:.1%}" if constant else "-",
        "-" if score["coverage_ratio"] is None else f"{score['coverage_ratio']:.0%}",
        *("-" if value is None else f"{value:.2f}" for value in spans),
    ]
