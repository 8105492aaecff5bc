"""``edge-harness stream``: run a model that is larger than the RAM it may use."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import _options as options
from harness.cli._command import verb
from harness.cli._output import Answer, say
from harness.errors import RefusedError
from harness.units import format_bytes, format_number

if TYPE_CHECKING:
    from harness.predict.streamed import StreamingOutlook


@verb
@options.measuring
def stream(
    model: str,
    ram_budget: str,
    draft: str,
    quant: str,
    prompts: str,
    prompt_count: int | None,
    repetitions: int,
    plain_mmap: bool,
    says_first: bool,
    target: str,
    programs: Path | None,
    how: "options.How",
    **asked: Any,
) -> Answer:
    """Run a model in less RAM than it needs, reading the rest of its weights from storage.

    MODEL is really held to the budget: some of its weights stay in memory, the others are streamed. With --plain-mmap
    it is then run mapped too, under the same limit, and both are compared.

    Exit status: 0 well, 3 inconclusive, 4 it could not run.
    """
    from harness.app.plans import stream_outlook
    from harness.app.resolve import scenario_from
    from harness.app.run import exit_of
    from harness.app.speculate import fastest_copy, load_prompts
    from harness.app.stream import stream
    from harness.catalog.gguf import parts_of
    from harness.cli._records import difference_view, show_record
    from harness.measure.jobs.stream import StreamJob

    if programs is not None:
        raise RefusedError(f"llama-bench cannot stream: install edge-harness on {target} and leave out --programs")
    texts = load_prompts(prompts, prompt_count)[: prompt_count or 2] * repetitions
    path = options.model_file(model, quant, how)
    if len(parts_of(path.name)) > 1:
        raise RefusedError(
            f"{path.name} is a model in parts, which is not streamed: join them by `llama-gguf-split --merge`"
        )
    if draft not in {"", "lookup"}:
        draft = str(fastest_copy(options.model_file(draft, "", how)))
    budget_bytes = options.budget_of(ram_budget, path.stat().st_size)
    of_job = options.fields_of(StreamJob, asked)
    scenario = scenario_from({**asked, "prompt_tokens": 1, "new_tokens": of_job["new_tokens"]})
    outlook = None
    if says_first and (plain_mmap or not draft):  # with a draft it is said from the model's own costs, timed first
        outlook = stream_outlook(path, budget_bytes, scenario, heard=how.listener)
    job = StreamJob(model=str(path), prompts=texts, budget_bytes=budget_bytes, draft=draft, scenario=scenario, **of_job)
    records = []
    for each in (job, job.replace(mode="mapped", draft=""))[: 1 + plain_mmap]:
        predicted = None if outlook is None or each.draft else _beforehand(outlook, each.mode == "mapped", how)
        records.append(stream(each, predicts=says_first, predicted_tokens_per_s=predicted, how=how))

    def show() -> None:
        for record in records:
            show_record(record)
        if plain_mmap and all(record.result for record in records):
            say(*difference_view(records[1], records[0]))

    return Answer(records if plain_mmap else records[0], show, exit_of(records))


def _beforehand(outlook: "StreamingOutlook", mapped: bool, how: "options.How") -> float | None:
    """Tokens a second that are expected; one line says so."""
    hits = f"{outlook.expert_hit_ratio or 0.0:.0%} of the wanted experts in memory"
    streamed = f"{format_bytes(outlook.streamed_bytes)} from storage a pass"
    ways = [(outlook.expert_cache_tokens_per_s, hits), (outlook.tokens_per_s, streamed)]
    if mapped:
        ways = [(outlook.naive_tokens_per_s, "all of it read again")]
    rate, way = next(((rate, way) for rate, way in ways if rate), (None, ""))
    words = f"{format_number(rate)} tokens/s, {way}" if rate else "the budget hardly holds what must stay in memory"
    how.listener.say(f"predicted from this machine's profile{', mapped' * mapped}: {words}")
    return rate
