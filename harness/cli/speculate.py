"""``edge-harness speculate``: does a draft make this model faster, and how much."""

from pathlib import Path

import click

from harness.cli._files import model_file
from harness.cli._output import console, emit_json, json_option, table


@click.command("speculate")
@click.argument("model")
@click.option("--draft", required=True, metavar="M", help="Model name, GGUF file, 'lookup' or 'self'.")
@click.option(
    "--draft-quant",
    type=click.Choice(["auto", "keep", "Q4_0"]),
    default="auto",
    show_default=True,
    help="Also try the draft as plain Q4_0, the fastest form on most CPUs (kept in the cache), and take the better.",
)
@click.option("--gamma", default="auto", metavar="N|auto", help="Tokens drafted in each cycle, or adaptive.")
@click.option("--prompts", default="code", metavar="code|prose|FILE", help="Shipped class, or a JSON list of strings.")
@click.option("--tokens", "new_tokens", default=96, type=click.IntRange(2, 4096), help="Tokens after each prompt.")
@click.option("--context", "context_tokens", default=1024, type=click.IntRange(64), help="Context of both models.")
@click.option("--temperature", default=0.0, type=click.FloatRange(0.0, 10.0), help="0 is greedy.")
@click.option("--seed", default=0, help="Seed of sampling.")
@click.option("--threads", "thread_count", default=0, type=click.IntRange(0, 1024), help="CPU threads; 0: all cores.")
@json_option
def COMMAND(  # noqa: N802  verbs are found by this name
    model: str,
    draft: str,
    draft_quant: str,
    gamma: str,
    prompts: str,
    new_tokens: int,
    context_tokens: int,
    temperature: float,
    seed: int,
    thread_count: int,
    as_json: bool,
) -> int:
    """Run MODEL plainly and with a draft on the same prompts; the advice is printed before the run."""
    from harness.app._speculation_job import Advice
    from harness.app.speculate import load_prompts, speculate
    from harness.catalog.paths import cache_dir
    from harness.domain.scenario import Scenario
    from harness.errors import Exit
    from harness.units import format_bytes

    if gamma != "auto" and not (gamma.isdigit() and 1 <= int(gamma) <= 63):
        raise click.BadParameter("a number from 1 to 63, or auto", param_hint="--gamma")
    progress = console(stderr=True)

    def tell(advice: Advice) -> None:
        costs = ", ".join(f"{k}: {s * 1e3:.0f}" for k, s in advice.verify_s.items())
        progress.print(f"pass of the target by tokens (ms): {costs}; one drafted token: {advice.draft_s * 1e3:.1f} ms")
        others = "".join(f"; with {name} {ratio:.2f} x" for name, ratio in advice.others.items())
        progress.print(f"draft: {advice.draft}{others}", markup=False)
        progress.print(f"advice: {advice.words}")

    path = model_file(model)
    drafts = _drafts(path, draft, draft_quant, cache_dir() / "drafts")
    result = speculate(
        path,
        drafts,
        load_prompts(prompts),
        scenario=Scenario(context_tokens=context_tokens, thread_count=thread_count),
        new_tokens=new_tokens,
        draft_tokens=0 if gamma == "auto" else int(gamma),
        temperature=temperature,
        seed=seed,
        on_advice=tell,
    )
    if as_json:
        emit_json(result)
    else:
        fast = result.speculative
        rows = [
            ("plain", f"{result.plain.tokens_per_s:.2f} tokens/s"),
            ("speculative", f"{fast.tokens_per_s:.2f} tokens/s"),
            ("speedup", f"{result.speedup_ratio:.3f} x (from costs and acceptance: {result.expected_ratio:.3f} x)"),
            ("median of the prompts", f"{result.median_ratio:.3f} x"),
            ("tokens per cycle", f"{fast.tokens_per_cycle:.2f}, {fast.plain_count} of {fast.cycle_count} undrafted"),
            ("acceptance", f"{result.acceptance_ratio:.3f} of {sum(fast.tried_by_position)} compared"),
            ("by position", " ".join(f"{a:.2f}" for a in result.acceptance_by_position)),
            ("draft time", f"{fast.draft_s:.2f} s"),
            ("verify time", f"{fast.verify_s:.2f} s"),
            ("peak memory", format_bytes(result.memory.peak_pss_bytes or result.memory.peak_rss_bytes)),
            ("outputs that differ", f"{len(result.differences)}, unexplained {result.unexplained_count}"),
        ]
        console().print(table(f"{result.target} drafted by {result.draft}", ("", ""), rows))
    return Exit.OK if result.unexplained_count == 0 else Exit.BROKEN


def _drafts(target: Path, draft: str, quant: str, kept: Path) -> list[Path]:
    """Files to choose the draft from; none for prompt lookup."""
    from harness.app.speculate import requantized

    if draft == "lookup":
        return []
    if draft == "self":
        return [requantized(target, kept, "Q2_K")]
    given = model_file(draft)
    if quant == "keep":
        return [given]
    coarse = requantized(given, kept, "Q4_0", pure=True)
    return [coarse] if quant == "Q4_0" else [coarse, given]
