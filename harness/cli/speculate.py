"""``edge-harness speculate``: does a draft make this model faster, and how much."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._command import Verb
from harness.cli._output import Answer, model_file
from harness.errors import Exit

if TYPE_CHECKING:
    from harness.domain.placement import Placement


@click.command("speculate", cls=Verb)
@click.argument("model")
@click.option(
    "--draft",
    required=True,
    metavar="M",
    help="Draft model (name or file), 'lookup' for prompt lookup, or 'self' for a coarser copy of MODEL.",
)
@click.option(
    "--draft-quant",
    type=click.Choice(["auto", "keep", "Q4_0"]),
    default="auto",
    show_default=True,
    help="Quantisation of the draft; auto also tries plain Q4_0, the fastest on most CPUs, and takes the better.",
)
@click.option("--verifier", metavar="URL", help="Let a server's model verify what is drafted here: http://host:port.")
@click.option("--gamma", type=options.Count(1, 63, auto=0), default="auto", metavar="N|auto",
              help="Tokens drafted in each cycle; auto adapts it.")  # fmt: skip
@options.quant
@options.prompts
@options.tokens(96, least=2)
@options.context(1024)
@options.threads
@options.api
@options.placement()
@click.option("--draft-api", default="", metavar="API", help="Driver for the draft. [default: that of --api]")
@options.placement("--draft-placement", "the draft")
@options.repetitions(1)
@click.option(
    "--temperature", default=0.0, type=options.Amount(most=10, or_zero=True), help="Sampling temperature; 0 is greedy."
)
@options.seed("sampling")
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
    draft_placement: "Placement | None",
    how: "options.How",
    **asked: Any,
) -> Answer:
    """Measure speculative decoding: the same prompts with a draft and without.

    The cost of each pass is timed first, and the advice that follows from it is printed before the run. With --verifier
    MODEL runs on a server that verifies the drafts: its completions must return log-probabilities of an echoed prompt.

    Exit status: 0 well, 1 outputs that differ without a reason, 3 inconclusive, 4 it could not run.
    """
    from harness.app.resolve import scenario_from
    from harness.app.speculate import load_prompts, speculate
    from harness.cli._records import answer_of
    from harness.domain.drafting import DraftAdvice
    from harness.domain.result import Speculation
    from harness.measure.jobs.speculate import SpeculationJob
    from harness.measure.jobs.verify import VerifierJob

    of_job = options.fields_of(SpeculationJob, asked)
    scenario, apart = scenario_from({**asked, "prompt_tokens": 1, "new_tokens": of_job["new_tokens"]}), None
    if draft_api or draft_placement is not None:
        own = {name: asked[name] for name in ("context_tokens", "thread_count")}
        apart = scenario_from({**own, "placement": draft_placement, "api": draft_api or scenario.api})
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
        if draft in {"lookup", "self"}:
            raise click.UsageError(f"--draft: found {draft!r}, expected a draft model, which --verifier needs")
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

    unexplained = isinstance(record.result, Speculation) and record.result.unexplained_count
    return answer_of(record, Exit.BROKEN if unexplained else None)


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
