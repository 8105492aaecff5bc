"""``edge-harness speculate``: does a draft make this model faster, and how much."""

from pathlib import Path
from typing import Any

import click

from harness.cli import _options as options
from harness.cli._effect import refuse_placement, refuse_typed
from harness.cli._output import Answer, model_file
from harness.errors import Exit
from harness.units import format_bytes


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
@click.option(
    "--verifier", metavar="URL", help="Server whose model verifies what the draft drafts here: http://host:port."
)
@click.option("--gamma", type=options.Count(1, 63, auto=0), default="auto", metavar="N|auto",
              help="Tokens drafted in each cycle, or adaptive.")  # fmt: skip
@options.quant
@options.prompts
@options.tokens(96, least=2)
@options.context(1024)
@options.threads
@options.api
@options.placement
@click.option("--draft-api", default="", help="Api of the draft; the target's unless given.")
@click.option("--draft-gpu-layers", **options.LAYERS, help="Of the draft; all of it where the draft has an api.")
@options.repetitions(1)
@click.option("--temperature", default=0.0, type=options.Amount(most=10, or_zero=True), help="0 is greedy.")
@click.option("--seed", default=0, type=options.Count(0, 1 << 31), help="Seed of sampling.")
@options.memory_limit
@options.emulated
@options.measuring()
def speculate(
    model: str,
    draft: str,
    draft_quant: str,
    verifier: str | None,
    gamma: int,
    quant: str,
    prompts: str,
    prompt_count: int | None,
    draft_api: str,
    draft_gpu_layers: int | str | None,
    how: "options.How",
    **asked: Any,
) -> Answer:
    """Run MODEL plainly and with a draft on the same prompts; the advice is printed before the run.

    With --verifier MODEL runs on a server, which verifies the drafts by the log-probabilities of the prompt that its
    completions give with echo; MODEL names it, and chooses it where the server has several.

    Exit status: 0 well, 1 outputs that differ without a reason, 3 inconclusive, 4 it could not run.
    """
    from harness.app.resolve import scenario_from
    from harness.app.speculate import load_prompts, speculate
    from harness.cli._records import answer_of
    from harness.domain.drafting import DraftAdvice
    from harness.domain.result import Speculation
    from harness.measure.jobs.speculate import SpeculationJob
    from harness.measure.jobs.verify import VerifierJob

    refuse_typed({"draft_quant"}, f"with --draft {draft}", when=draft in {"lookup", "self"})
    refuse_typed({"draft_api", "draft_gpu_layers"}, "with --draft lookup", when=draft == "lookup")
    refuse_placement(asked["api"])
    refuse_typed({"seed"}, "at --temperature 0, which draws nothing", when=not asked["temperature"])
    of_job = options.fields_of(SpeculationJob, asked)
    scenario, apart = scenario_from({**asked, "prompt_tokens": 1, "new_tokens": of_job["new_tokens"]}), None
    if draft_api or draft_gpu_layers is not None:
        own = {name: asked[name] for name in ("context_tokens", "thread_count")}
        layers = {} if draft_gpu_layers is None else {"gpu_layers": draft_gpu_layers}
        apart = scenario_from({**own, **layers, "api": draft_api or scenario.api})
    of_job |= {
        "prompts": load_prompts(prompts, prompt_count),
        "scenario": scenario,
        "draft_scenario": apart,
        "draft_tokens": gamma,
    }
    if verifier is None:
        path = model_file(model, quant)
        job = SpeculationJob(target=str(path), drafts=_drafts(path, draft, draft_quant), **of_job)
    else:
        if quant or draft in {"lookup", "self"} or of_job["temperature"] or how.resume:
            raise click.UsageError(
                "--verifier takes a draft model and greedy decoding; a server has its own quant, and no --resume"
            )
        job = VerifierJob(target=verifier, model=model, drafts=_drafts(None, draft, draft_quant), **of_job)

    def tell(advice: DraftAdvice) -> None:
        costs = ", ".join(f"{k}: {s * 1e3:.0f}" for k, s in advice.verify_s.items())
        trip = f"round trip {advice.round_trip_s * 1e3:.1f} ms; " if verifier else ""
        how.listener.say(
            f"{trip}pass of the target by tokens (ms): {costs}; a drafted token: {advice.draft_s * 1e3:.1f} ms"
        )
        others = "".join(f"; with {name} {ratio:.2f} x" for name, ratio in advice.others.items())
        how.listener.say(f"draft: {advice.draft}{others}")
        how.listener.say(f"advice: {advice.words}")

    record = speculate(job, how=how, on_advice=tell)

    def view(result: Speculation) -> tuple[str, list[tuple[str, str]]]:
        fast, memory = result.speculative, record.memory
        peak = format_bytes(memory.peak_pss_bytes or memory.peak_rss_bytes) if memory else "-"
        return f"{record.name} drafted by {result.draft}: {record.outcome}", [
            ("plain", f"{result.plain.tokens_per_s:.2f} tokens/s"),
            ("speculative", f"{fast.tokens_per_s:.2f} tokens/s"),
            ("speedup", f"{result.speedup_ratio:.3f} x (from costs and acceptance: {result.expected_ratio:.3f} x)"),
            ("median of the prompts", f"{result.median_ratio:.3f} x"),
            ("tokens per cycle", f"{fast.tokens_per_cycle:.2f}, {fast.plain_count} of {fast.cycle_count} undrafted"),
            ("acceptance", f"{result.acceptance_ratio:.3f} of {sum(fast.tried_by_position)} compared"),
            ("by position", " ".join(f"{a:.2f}" for a in result.acceptance_by_position)),
            ("draft time", f"{fast.draft_s:.2f} s"),
            ("verify time", f"{fast.verify_s:.2f} s"),
            ("peak memory", peak),
            ("outputs that differ", f"{len(result.differences)}, unexplained {result.unexplained_count}"),
        ]

    unexplained = isinstance(record.result, Speculation) and record.result.unexplained_count
    return answer_of(record, Speculation, view, Exit.BROKEN if unexplained else None)


def _drafts(target: Path | None, draft: str, quant: str) -> tuple[str, ...]:
    """What to choose the draft from: files, or prompt lookup."""
    from harness.app.speculate import requantized

    if draft == "lookup":
        return ("lookup",)
    if draft == "self" and target:
        return (str(requantized(target, "Q2_K")),)
    given = model_file(draft)
    if quant == "keep":
        return (str(given),)
    coarse = str(requantized(given, "Q4_0", pure=True))
    return (coarse,) if quant == "Q4_0" else (coarse, str(given))
