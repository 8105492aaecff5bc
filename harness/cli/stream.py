"""``edge-harness stream``: run a model that is larger than the RAM it may use."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from harness.cli import _options as options
from harness.cli._files import model_file
from harness.cli._output import console, emit_json, say, table

if TYPE_CHECKING:
    from harness.domain.record import RunRecord
    from harness.measure.pipeline import How
    from harness.runtimes.llamacpp.expert_streaming import Schedule


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
    emulated: str | None,
    timeout_s: float,
    how: "How",
    as_json: bool,
    **asked: Any,
) -> int:
    """Generate with MODEL while its process is held to a RAM budget: some weights stay, the others are streamed.

    Exit status: 0 well, 3 inconclusive, 4 it could not run.
    """
    from harness.app.plans import stream_outlook
    from harness.app.run import exit_of
    from harness.app.speculate import load_prompts, requantized
    from harness.app.stream import stream
    from harness.catalog.paths import cache_dir
    from harness.cli._progress import RunProgress
    from harness.cli._stream_rows import beforehand, rows_of
    from harness.domain.scenario import Scenario
    from harness.measure.jobs.stream import StreamJob

    path = model_file(model, quant)
    if draft not in {"", "lookup"}:
        given = model_file(draft)
        coarse = draft_quant != "keep"
        draft = str(requantized(given, cache_dir() / "drafts", draft_quant, pure=True) if coarse else given)
    budget = options.budget_of(ram_budget, path.stat().st_size)
    limit, thread_count, notes = options.held_to(emulated, budget, thread_count)
    budget_bytes = limit or budget
    scenario = Scenario(context_tokens=context_tokens, thread_count=thread_count)
    beside = Path(draft) if draft not in {"", "lookup"} else None
    predicted = None
    if says_first:
        outlook = stream_outlook(path, budget_bytes, scenario, beside, say=partial(click.echo, err=True))
        if outlook is not None:
            predicted, words = beforehand(outlook, plain_mmap, bool(draft), schedule)
            console(stderr=True).print(words, markup=False)
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
    with RunProgress() as progress:
        how = how._replace(notes=notes)
        record = stream(job, wall_s=timeout_s, predicted_tokens_per_s=predicted, how=how, listener=progress)
    if as_json:
        emit_json(record)
    else:
        _show(record, rows_of(record))
    return exit_of([record])


def _show(record: "RunRecord", rows: list[tuple[str, str]]) -> None:
    from harness.cli._records import name_of, reasons

    if rows:
        console().print(table(f"{name_of(record)}: {record.outcome}", ("", ""), rows))
    say(*reasons([record]))
