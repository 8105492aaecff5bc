"""``edge-harness stream``: run a model that is larger than the RAM it may use."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from harness.cli._files import model_file
from harness.cli._output import console, emit_json, json_option, table
from harness.cli._sizes import budget_of

if TYPE_CHECKING:
    from harness.runtimes.llamacpp.expert_cache import CachePolicy
    from harness.runtimes.llamacpp.schedules import Schedule


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
@click.option(
    "--schedule",
    type=click.Choice(["auto", "experts", "blocks"]),
    default="auto",
    show_default=True,
    help="What is streamed. auto: experts where the model routes and all else fits, blocks otherwise.",
)
@click.option(
    "--expert-policy",
    "policy",
    type=click.Choice(["likely", "lfu", "lru"]),
    default="likely",
    show_default=True,
    help="Experts that stay: likeliest for the next token, most wanted of late, or last used.",
)
@click.option(
    "--predict/--no-predict",
    "says_first",
    default=True,
    show_default=True,
    help="Say beforehand what streaming will give. The engine is timed for it on tiny models, once, and kept.",
)
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
    schedule: str,
    policy: str,
    says_first: bool,
    as_json: bool,
) -> int:
    """Generate with MODEL while its process is held to a RAM budget: some weights stay, the others are streamed."""
    import msgspec

    from harness.app.plans import stream_outlook
    from harness.app.speculate import load_prompts, requantized
    from harness.app.stream import stream
    from harness.catalog.paths import cache_dir
    from harness.cli._stream_rows import beforehand, block_rows, expert_rows
    from harness.domain.scenario import Scenario
    from harness.errors import Exit
    from harness.units import format_bytes

    path = model_file(model)
    if draft not in {"", "lookup"}:
        given = model_file(draft)
        coarse = draft_quant != "keep"
        draft = str(requantized(given, cache_dir() / "drafts", draft_quant, pure=True) if coarse else given)
    budget_bytes, scenario = budget_of(ram_budget, path.stat().st_size), Scenario(context_tokens=context_tokens)
    beside = Path(draft) if draft not in {"", "lookup"} else None
    outlook = None
    if says_first:
        outlook = stream_outlook(path, budget_bytes, scenario, beside, say=partial(click.echo, err=True))
    if outlook is not None:
        console(stderr=True).print(beforehand(outlook, plain_mmap, bool(draft), schedule), markup=False)
    result = stream(
        path,
        budget_bytes,
        load_prompts(prompts)[:prompt_count],
        draft=draft,
        mode="mapped" if plain_mmap else "streamed",
        new_tokens=new_tokens,
        scenario=scenario,
        schedule=cast("Schedule", schedule),
        policy=cast("CachePolicy", policy),
    )
    if as_json:
        emit_json({**msgspec.to_builtins(result), "predicted": outlook})
        return Exit.OK
    rows = [
        ("speed", f"{result.generation.tokens_per_s:.3g} tokens/s"),
        ("budget", f"{format_bytes(result.budget_bytes)}{'' if result.enforced else ' (not enforced by the system)'}"),
        ("peak charged", format_bytes(result.memory.cgroup_peak_bytes or result.memory.peak_rss_bytes)),
    ]
    if result.schedule_reason:
        rows.append(("streams blocks, since", result.schedule_reason))
    if result.plan and result.report:
        rows += block_rows(result.plan, result.report, len(result.generation.tokens))
    if result.expert_plan:
        rows += expert_rows(result.expert_plan, result.experts, result.report)
    if result.bound_ratio is not None:
        rows.append(("share of the bound", f"{result.bound_ratio:.2f}"))
    if result.draft:
        passes = ", ".join(f"{k}: {s * 1e3:.0f}" for k, s in result.verify_s.items())
        rows.append(("tokens per pass", f"{result.generation.tokens_per_cycle:.2f}"))
        rows.append(("pass by tokens, drafted token", f"{passes} ms, {result.draft_s * 1e3:.1f} ms"))
    title = f"{result.model}, {result.mode}{f' by {result.schedule}' if result.schedule else ''}"
    console().print(table(title, ("", ""), rows))
    return Exit.OK
