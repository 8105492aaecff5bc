"""``edge-harness speculate``: does a draft make this model faster, and how much."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from harness.cli import _options as options
from harness.cli.command import verb
from harness.core.errors import EngineError, Exit, RefusedError
from harness.core.option import Option
from harness.core.question import Api, Quant, Threads
from harness.show.output import Output

if TYPE_CHECKING:
    from harness.measure.pipeline import How


class _SpeculateOptions(options.ScenarioOptions):
    new_tokens: options.Generated = 96
    context_tokens: options.ContextLength = 1024
    thread_count: Threads = 0
    api: Api = ""
    placement: options.Split = None


@verb
def speculate(
    model: options.Model,
    draft: Annotated[
        str,
        Option(
            "--draft",
            "Draft model, a name or a file, which runs as a copy in plain Q4_0; or 'lookup' for "
            "prompt lookup.",
        ),
    ],
    setting: _SpeculateOptions,
    measuring: options.Here,
    gamma: Annotated[
        Annotated[int, Meta(ge=1, le=63)] | Literal["auto"],
        Option("--gamma", "Tokens drafted in each cycle; auto adapts it."),
    ] = "auto",
    quant: Quant = "",
    prompts: options.Prompts = "code",
    prompt_count: options.PromptCount = None,
    repetitions: options.Repetitions = 1,
) -> Output:
    """Measure speculative decoding: the same prompts with a draft and without.

    The cost of each pass is timed first; what that says about drafting is printed before the run.

    Exit status: 0 well, 1 the outputs differ and rounding does not explain it, 3 inconclusive, 4 it could not
    run.

    Example: edge-harness speculate qwen2.5-coder-0.5b --draft lookup
    """
    from harness.core.drafting import DraftAdvice
    from harness.core.result import Speculation
    from harness.measure.jobs.speculate import SpeculationJob
    from harness.show.record_tables import answer_of
    from harness.verbs.speculate import load_prompts, speculate

    with measuring.started() as how:
        job = SpeculationJob(
            target=str(options.model_file(model, quant, how)),
            draft=_drafts_file(draft, how),
            prompts=load_prompts(prompts, prompt_count),
            scenario=setting.scenario(measuring),
            new_tokens=setting.new_tokens,
            draft_tokens=0 if gamma == "auto" else gamma,
            repetitions=repetitions,
        )

        def tell(advice: DraftAdvice) -> None:
            how.listener.say(f"advice: {advice.words}")

        record = speculate(job, how=how, on_advice=tell)
    unexplained = isinstance(record.result, Speculation) and record.result.unexplained_count
    return answer_of(record, Exit.BROKEN if unexplained else None)


def _drafts_file(draft: str, how: "How") -> str:
    """The draft's fastest copy, or itself where the quantizer makes none; prompt lookup has no file."""
    from harness.verbs.speculate import fastest_copy

    if draft == "lookup":
        return draft
    path = options.model_file(draft, "", how)
    with suppress(EngineError, RefusedError):
        path = fastest_copy(path)
    return str(path)
