"""``edge-harness stream``: run a model that is larger than the RAM it may use."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from harness.cli import _options as options
from harness.cli._output import Answer, model_file

if TYPE_CHECKING:
    from harness.measure.pipeline import How
    from harness.runtimes.llamacpp.schedules import Schedule


@click.command("stream")
@click.argument("model")
@click.option(
    "--ram-budget",
    "--memory-limit",
    "ram_budget",
    required=True,
    metavar="SIZE",
    help="600MB, 1.5GiB, or 0.6x of the model's file.",
)
@click.option("--draft", default="", metavar="M", help="Draft model kept in memory, within the budget; or 'lookup'.")
@click.option(
    "--draft-quant",
    type=click.Choice(["Q4_0", "keep"]),
    default="Q4_0",
    show_default=True,
    help="Keep the draft as plain Q4_0 (made once, in the cache): the least memory and the fastest form.",
)
@options.quant
@options.prompts
@options.tokens(16, least=2)
@options.context(512)
@options.threads
@options.repetitions(1)
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
@options.emulated
@options.measuring()
def COMMAND(  # noqa: N802  verbs are found by this name
    model: str,
    ram_budget: str,
    draft: str,
    draft_quant: str,
    quant: str,
    prompts: str,
    prompt_count: int | None,
    context_tokens: int,
    thread_count: int,
    repetitions: int,
    plain_mmap: bool,
    schedule: str,
    says_first: bool,
    how: "How",
    **asked: Any,
) -> Answer:
    """Generate with MODEL while its process is held to a RAM budget: some weights stay, the others are streamed.

    Exit status: 0 well, 3 inconclusive, 4 it could not run.
    """
    from harness.app.plans import stream_outlook
    from harness.app.speculate import load_prompts, requantized
    from harness.app.stream import stream
    from harness.catalog.paths import cache_dir
    from harness.cli._records import answer_of, name_of
    from harness.cli._stream_rows import beforehand, rows_of
    from harness.domain.result import Stream
    from harness.domain.scenario import Scenario
    from harness.measure.jobs.stream import StreamJob

    path = model_file(model, quant)
    if draft not in {"", "lookup"}:
        given = model_file(draft)
        coarse = draft_quant != "keep"
        draft = str(requantized(given, cache_dir() / "drafts", draft_quant, pure=True) if coarse else given)
    budget_bytes = options.budget_of(ram_budget, path.stat().st_size)
    budget_bytes = min(budget_bytes, how.limits.memory_bytes or budget_bytes)
    scenario = Scenario(context_tokens=context_tokens, thread_count=thread_count)
    beside = Path(draft) if draft not in {"", "lookup"} else None
    predicted = None
    if says_first:
        outlook = stream_outlook(path, budget_bytes, scenario, beside, say=partial(click.echo, err=True))
        if outlook is not None:
            predicted, words = beforehand(outlook, plain_mmap, bool(draft), schedule)
            how.listener.say(words)
    job = StreamJob(
        model=str(path),
        prompts=load_prompts(prompts)[: prompt_count or 2] * repetitions,
        budget_bytes=budget_bytes,
        draft=draft,
        mode="mapped" if plain_mmap else "streamed",
        scenario=scenario,
        schedule=cast("Schedule", schedule),
        **asked,
    )
    record = stream(job, predicted_tokens_per_s=predicted, how=how)
    title = f"{name_of(record)}: {record.outcome}"
    return answer_of(record, Stream, lambda result: (title, rows_of(result, record.memory)))
