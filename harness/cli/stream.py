"""``edge-harness stream``: run a model that is larger than the RAM it may use."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli._files import model_file
from harness.cli._output import console, emit_json, json_option, table
from harness.cli._sizes import budget_of

if TYPE_CHECKING:
    from harness.app.plans import StreamingOutlook


@click.command("stream")
@click.argument("model")
@click.option("--ram-budget", required=True, metavar="SIZE", help="600MB, 1.5GiB, or 0.6x of the model's file.")
@click.option("--draft", default="", metavar="M", help="Draft model kept in memory, within the budget; or 'lookup'.")
@click.option(
    "--draft-quant",
    type=click.Choice(["Q4_0", "keep"]),
    default="Q4_0",
    show_default=True,
    help="Keep the draft as plain Q4_0 (made once, in the cache): the least memory and the fastest form.",
)
@click.option("--prompts", default="code", metavar="code|prose|FILE", help="Shipped class, or a JSON list of strings.")
@click.option("--prompt-count", default=2, type=click.IntRange(1), help="Prompts of the list that are run.")
@click.option("--tokens", "new_tokens", default=16, type=click.IntRange(2, 4096), help="Tokens after each prompt.")
@click.option("--context", "context_tokens", default=512, type=click.IntRange(64), help="Context.")
@click.option("--plain-mmap", is_flag=True, help="Leave residency to the system, under the same limit, to compare.")
@json_option
def COMMAND(  # noqa: N802  verbs are found by this name
    model: str,
    ram_budget: str,
    draft: str,
    draft_quant: str,
    prompts: str,
    prompt_count: int,
    new_tokens: int,
    context_tokens: int,
    plain_mmap: bool,
    as_json: bool,
) -> int:
    """Generate with MODEL while its process is held to a RAM budget: some weights stay, the others are streamed."""
    import msgspec

    from harness.app.plans import stream_outlook
    from harness.app.speculate import load_prompts, requantized
    from harness.app.stream import stream
    from harness.catalog.paths import cache_dir
    from harness.domain.scenario import Scenario
    from harness.errors import Exit
    from harness.units import format_bytes, format_rate

    path = model_file(model)
    if draft not in {"", "lookup"}:
        given = model_file(draft)
        coarse = draft_quant != "keep"
        draft = str(requantized(given, cache_dir() / "drafts", draft_quant, pure=True) if coarse else given)
    budget_bytes, scenario = budget_of(ram_budget, path.stat().st_size), Scenario(context_tokens=context_tokens)
    outlook = stream_outlook(path, budget_bytes, scenario, Path(draft) if draft not in {"", "lookup"} else None)
    if outlook is not None:
        console(stderr=True).print(_beforehand(outlook, plain_mmap, bool(draft)), markup=False)
    result = stream(
        path,
        budget_bytes,
        load_prompts(prompts)[:prompt_count],
        draft=draft,
        mode="mapped" if plain_mmap else "streamed",
        new_tokens=new_tokens,
        scenario=scenario,
    )
    if as_json:
        emit_json({**msgspec.to_builtins(result), "predicted": outlook})
        return Exit.OK
    rows = [
        ("speed", f"{result.generation.tokens_per_s:.3g} tokens/s"),
        ("budget", f"{format_bytes(result.budget_bytes)}{'' if result.enforced else ' (not enforced by the system)'}"),
        ("peak charged", format_bytes(result.memory.cgroup_peak_bytes or result.memory.peak_rss_bytes)),
    ]
    if result.plan and result.report:
        passes = max(result.report.pass_count, 1)
        pass_s, stall_s = result.report.duration_s / passes, result.report.stall_s / passes
        rows += [
            ("pinned", format_bytes(result.plan.pinned_bytes)),
            ("streamed in each pass", format_bytes(result.plan.streamed_bytes)),
            ("read per token", format_bytes(result.report.read_bytes / max(len(result.generation.tokens), 1))),
            (
                "pass",
                f"{pass_s * 1e3:.0f} ms, of which waiting {stall_s * 1e3:.0f} ms",
            ),
            (
                "storage",
                f"{format_rate(result.report.read_bytes / result.report.duration_s)} reached, "
                f"{format_rate(result.report.probe_bytes_per_s)} by the probe",
            ),
            ("computing and reading", f"{result.report.overlap_ratio:.2f} of the time is the longer of the two alone"),
            ("share of the bound", "" if result.bound_ratio is None else f"{result.bound_ratio:.2f}"),
        ]
    if result.draft:
        rows.append(("tokens per pass", f"{result.generation.tokens_per_cycle:.2f}"))
    console().print(table(f"{result.model}, {result.mode}", ("", ""), rows))
    return Exit.OK


def _beforehand(outlook: "StreamingOutlook", mapped: bool, drafted: bool) -> str:
    from harness.units import format_bytes

    source = "predicted from this machine's profile"
    if mapped:
        return f"{source}: {outlook.naive_tokens_per_s:.3g} tokens/s, all of it read again"
    told = f"{source}: {outlook.tokens_per_s:.3g} tokens/s, {format_bytes(outlook.streamed_bytes)} from storage a pass"
    if drafted and outlook.speculative_tokens_per_s:
        told += f"; {outlook.speculative_tokens_per_s:.3g} with drafts at an acceptance of 0.8"
    return told
