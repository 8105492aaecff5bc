"""``edge-harness stream``: run a model that is larger than the RAM it may use."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from harness.cli import _options as options
from harness.cli.command import verb
from harness.core.errors import RefusedError
from harness.core.option import Option
from harness.core.question import Quant, Threads
from harness.core.units import format_number
from harness.core.way import WayKind
from harness.show.output import Output, say

if TYPE_CHECKING:
    from harness.measure.pipeline import How
    from harness.speed.streamed import Streamed


class _StreamOptions(options.ScenarioOptions):
    new_tokens: options.Generated = 16
    context_tokens: options.ContextLength = 512
    thread_count: Threads = 0


@verb
def stream(
    model: options.Model,
    ram_budget: Annotated[
        str,
        Option(
            "--ram-budget",
            "RAM that the run may use: 600MB, 1.5GiB, or 0.6x the size of the model's file.",
            "Device and limits",
        ),
    ],
    setting: _StreamOptions,
    measuring: options.Anywhere,
    draft: Annotated[
        str,
        Option(
            "--draft",
            "Draft model to keep in memory (a copy in plain Q4_0, within the budget); or 'lookup' "
            "for prompt lookup.",
        ),
    ] = "",
    quant: Quant = "",
    prompts: options.Prompts = "code",
    prompt_count: options.PromptCount = None,
    repetitions: options.Repetitions = 1,
    plain_mmap: Annotated[
        bool,
        Option(
            "--plain-mmap",
            "Then map the file too, let the operating system choose what stays in memory, and compare both.",
        ),
    ] = False,
    says_first: Annotated[
        bool,
        Option(
            "--predict/--no-predict",
            "Predict the speed first; for that the engine is timed once, on tiny models.",
        ),
    ] = True,
) -> Output:
    """Run a model in less RAM than it needs, reading the rest of its weights from storage.

    MODEL is really held to the budget: some of its weights stay in memory, the others are streamed. With
    --plain-mmap it is then run mapped too, under the same limit, and both are compared.

    Exit status: 0 well, 3 inconclusive, 4 it could not run.

    Example: edge-harness stream qwen2.5-coder-0.5b --ram-budget 0.6x
    """
    from harness.answer.case import budget_bytes
    from harness.measure.jobs.stream import StreamJob
    from harness.models.gguf import parts_of
    from harness.show.record_tables import difference_view, show_record
    from harness.verbs.run import exit_of
    from harness.verbs.speculate import fastest_copy, load_prompts, stream
    from harness.verbs.this_machine import stream_outlook

    if measuring.programs is not None:
        where = measuring.target
        raise RefusedError(
            f"llama-bench cannot stream: install edge-harness on {where} and leave out --programs"
        )
    texts = load_prompts(prompts, prompt_count)[: prompt_count or 2] * repetitions
    scenario = setting.scenario(measuring)
    with measuring.started() as how:
        path = options.model_file(model, quant, how)
        if len(parts_of(path.name)) > 1:
            raise RefusedError(
                f"{path.name} is a model in parts, which is not streamed: join them by `llama-gguf-split --merge`"
            )
        if draft not in {"", "lookup"}:
            draft = str(fastest_copy(options.model_file(draft, "", how)))
        allowed_bytes = budget_bytes(ram_budget, path.stat().st_size)
        outlook: Sequence[Streamed] = []
        if says_first and (
            plain_mmap or not draft
        ):  # of a draft it is said from the model's own costs, timed first
            outlook = stream_outlook(path, allowed_bytes, scenario, heard=how.listener)
        job = StreamJob(
            model=str(path),
            prompts=texts,
            budget_bytes=allowed_bytes,
            draft=draft,
            new_tokens=setting.new_tokens,
            scenario=scenario,
        )
        records = []
        for each in [job, job.replace(mode="mapped", draft="")][: 1 + plain_mmap]:
            predicted = None
            if outlook and not each.draft:
                predicted = _beforehand(outlook, each.mode == "mapped", how)
            records.append(stream(each, predicts=says_first, predicted_tokens_per_s=predicted, how=how))

    def show() -> None:
        for record in records:
            show_record(record)
        if plain_mmap and all(record.result for record in records):
            say(*difference_view(records[1], records[0]))

    return Output(records if plain_mmap else records[0], show, exit_of(records))


def _beforehand(outlook: "Sequence[Streamed]", mapped: bool, how: "How") -> float | None:
    """Tokens a second that are expected; one line says so."""
    rates = {way.kind: way.speed.decode_tokens_per_s.mid for way in outlook}
    rate = rates.get(WayKind.EXPERT_CACHE) or rates.get(WayKind.STREAMED)
    name = "streamed"
    if mapped:
        rate = rates[WayKind.MAPPED]
        name = "mapped"
    words = "the budget hardly holds what must stay in memory"
    if rate:
        words = f"{format_number(rate)} tokens/s"
    how.listener.say(f"predicted from this machine's profile, {name}: {words}")
    return rate
