"""``edge-harness speculate``: does a draft make this model faster, and how much."""

from typing import Any

from harness.cli import _options as options
from harness.cli._command import verb
from harness.cli._output import Answer
from harness.errors import Exit


@verb
@options.measuring
def speculate(
    model: str,
    draft: str,
    gamma: int,
    quant: str,
    prompts: str,
    prompt_count: int | None,
    how: "options.How",
    **asked: Any,
) -> Answer:
    """Measure speculative decoding: the same prompts with a draft and without.

    The cost of each pass is timed first; what that says about drafting is printed before the run.

    Exit status: 0 well, 1 the outputs differ and rounding does not explain it, 3 inconclusive, 4 it could not run.
    """
    from harness.app.resolve import scenario_from
    from harness.app.speculate import load_prompts, speculate
    from harness.cli._records import answer_of
    from harness.domain.drafting import DraftAdvice
    from harness.domain.result import Speculation
    from harness.measure.jobs.speculate import SpeculationJob

    of_job = options.fields_of(SpeculationJob, asked)
    scenario = scenario_from({**asked, "prompt_tokens": 1, "new_tokens": of_job["new_tokens"]})
    job = SpeculationJob(
        target=str(options.model_file(model, quant, how)),
        drafts=_drafts(draft, how),
        prompts=load_prompts(prompts, prompt_count),
        scenario=scenario,
        draft_tokens=gamma,
        **of_job,
    )

    def tell(advice: DraftAdvice) -> None:
        costs = ", ".join(f"{k}: {s * 1e3:.0f}" for k, s in advice.verify_s.items())
        how.listener.say(f"pass of the target by tokens (ms): {costs}; a drafted token: {advice.draft_s * 1e3:.1f} ms")
        others = "".join(f"; with {name} {ratio:.2f} x" for name, ratio in advice.others.items())
        how.listener.say(f"draft: {advice.draft}{others}")
        how.listener.say(f"advice: {advice.words}")

    record = speculate(job, how=how, on_advice=tell)

    unexplained = isinstance(record.result, Speculation) and record.result.unexplained_count
    return answer_of(record, Exit.BROKEN if unexplained else None)


def _drafts(draft: str, how: "options.How") -> tuple[str, ...]:
    """What to choose the draft from: prompt lookup, or a file and its fastest copy."""
    from harness.app.speculate import forms_of

    return ("lookup",) if draft == "lookup" else forms_of(options.model_file(draft, "", how))
