"""``edge-harness stream``: run a model that is larger than the RAM it may use."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from harness.cli import _options as options
from harness.cli._effect import refuse_typed
from harness.cli._output import Answer, model_file
from harness.errors import RefusedError
from harness.units import format_bytes, format_number, format_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.domain.record import MemoryUse
    from harness.domain.result import Stream
    from harness.domain.streaming import ExpertOutlook, ExpertPlan, StreamReport
    from harness.predict.streamed import StreamingOutlook
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
@options.on_target
@options.measuring()
def stream(
    model: str,
    ram_budget: str,
    draft: str,
    draft_quant: str,
    quant: str,
    prompts: str,
    prompt_count: int | None,
    repetitions: int,
    plain_mmap: bool,
    schedule: str,
    says_first: bool,
    target: str,
    programs: Path | None,
    how: "options.How",
    **asked: Any,
) -> Answer:
    """Generate with MODEL while its process is held to a RAM budget: some weights stay, the others are streamed.

    Exit status: 0 well, 3 inconclusive, 4 it could not run.
    """
    from harness.app.plans import stream_outlook
    from harness.app.resolve import scenario_from
    from harness.app.speculate import load_prompts, requantized
    from harness.app.stream import stream
    from harness.catalog.gguf import read_weights
    from harness.cli._records import answer_of
    from harness.domain.result import Stream
    from harness.measure.jobs.stream import StreamJob

    if programs is not None:
        raise RefusedError(f"llama-bench cannot stream: install edge-harness on {target} and leave out --programs")
    refuse_typed({"draft_quant"}, "without a draft model", when=draft in {"", "lookup"})
    refuse_typed({"schedule", "policy"}, "with --plain-mmap: the system chooses what stays", when=plain_mmap)
    refuse_typed({"policy"}, "with --schedule blocks", when=schedule == "blocks")
    texts = load_prompts(prompts, prompt_count)[: prompt_count or 2] * repetitions
    path = model_file(model, quant)
    dense = read_weights(path).shape.experts is None
    refuse_typed({"policy"}, "with a model that has no experts", when=dense)
    refuse_typed({"schedule"}, "with a model that has no experts", when=dense and schedule == "experts")
    if draft not in {"", "lookup"}:
        given = model_file(draft)
        draft = str(given if draft_quant == "keep" else requantized(given, draft_quant, pure=True))
    budget_bytes = options.budget_of(ram_budget, path.stat().st_size)
    if budget_bytes > (most_bytes := how.limits.memory_bytes or budget_bytes):
        raise RefusedError(
            f"--ram-budget: found {ram_budget}, expected at most {format_bytes(most_bytes)}, as --as has it"
        )
    of_job = options.fields_of(StreamJob, asked)
    scenario = scenario_from({**asked, "prompt_tokens": 1, "new_tokens": of_job["new_tokens"]})
    beside = Path(draft) if draft not in {"", "lookup"} else None
    predicted = None
    if says_first:
        outlook = stream_outlook(path, budget_bytes, scenario, beside, say=partial(click.echo, err=True))
        if outlook is not None:
            predicted, words = _beforehand(outlook, plain_mmap, bool(draft), schedule)
            how.listener.say(words)
    job = StreamJob(
        model=str(path),
        prompts=texts,
        budget_bytes=budget_bytes,
        draft=draft,
        mode="mapped" if plain_mmap else "streamed",
        scenario=scenario,
        schedule=cast("Schedule", schedule),
        **of_job,
    )
    record = stream(job, predicted_tokens_per_s=predicted, how=how)
    title = f"{record.name}: {record.outcome}"
    return answer_of(record, Stream, lambda result: (title, list(_rows(result, record.memory))))


def _beforehand(outlook: "StreamingOutlook", mapped: bool, drafted: bool, schedule: str) -> tuple[float | None, str]:
    """Tokens a second that are expected, and one line that says so."""
    source = "predicted from this machine's profile"
    if mapped:
        naive = outlook.naive_tokens_per_s
        return naive, f"{source}: {format_number(naive)} tokens/s, all of it read again"
    if schedule != "blocks" and outlook.expert_cache_tokens_per_s:
        rate = outlook.expert_cache_tokens_per_s
        hits = f"{outlook.expert_hit_ratio:.0%} of the wanted experts in memory"
        return rate, f"{source}: {format_number(rate)} tokens/s with {hits}"
    if outlook.bound == "memory":
        return None, f"{source}: the budget is hardly enough, or too small, for what must stay in memory"
    rate = outlook.tokens_per_s
    told = f"{source}: {format_number(rate)} tokens/s, {format_bytes(outlook.streamed_bytes)} from storage a pass"
    if drafted and outlook.speculative_tokens_per_s:
        drafted_rate = outlook.speculative_tokens_per_s
        return drafted_rate, f"{told}; {format_number(drafted_rate)} with drafts at an acceptance of 0.8"
    return rate, told


def _rows(result: "Stream", memory: "MemoryUse | None") -> "Iterator[tuple[str, str]]":
    plan, report, speed = result.plan, result.report, result.decoding.tokens_per_s
    yield "how", f"{result.mode}{f' by {result.schedule}' if result.schedule else ''}"
    yield "speed", f"{format_number(speed)} tokens/s"
    if result.predicted_tokens_per_s:
        error = result.predicted_tokens_per_s / speed - 1
        yield "predicted", f"{format_number(result.predicted_tokens_per_s)} tokens/s ({error:+.0%})"
    yield "budget", f"{format_bytes(result.budget_bytes)}{'' if result.enforced else ' (not enforced by the system)'}"
    if memory is not None:
        yield "peak charged", format_bytes(memory.cgroup_peak_bytes or memory.peak_rss_bytes)
    if result.schedule_reason:
        yield "streams blocks, since", result.schedule_reason
    if plan and report:
        passes = max(report.pass_count, 1)
        pass_s, stall_s = report.duration_s / passes, report.stall_s / passes
        yield "pinned", format_bytes(plan.pinned_bytes)
        yield "streamed in each pass", format_bytes(plan.streamed_bytes)
        yield "read per token", format_bytes(report.read_bytes / max(len(result.decoding.tokens), 1))
        yield "pass", f"{pass_s * 1e3:.0f} ms, of which waiting {stall_s * 1e3:.0f} ms"
        if report.duration_s:  # none where the whole model is pinned
            reached = format_rate(report.read_bytes / report.duration_s)
            yield "storage", f"{reached} reached, {format_rate(report.probe_bytes_per_s)} by the probe"
        yield "computing and reading", f"{report.overlap_ratio:.2f} of the time is the longer of the two alone"
    if result.expert_plan:
        yield from _expert_rows(result.expert_plan, result.experts, report)
    if result.bound_ratio is not None:
        yield "share of the bound", f"{result.bound_ratio:.2f}"
    if result.draft:
        each = ", ".join(f"{k}: {s * 1e3:.0f}" for k, s in result.verify_s.items())
        yield "tokens per pass", f"{result.decoding.tokens_per_cycle:.2f}"
        yield "pass by tokens, drafted token", f"{each} ms, {result.draft_s * 1e3:.1f} ms"


def _expert_rows(
    plan: "ExpertPlan", experts: "ExpertOutlook | None", report: "StreamReport | None"
) -> "Iterator[tuple[str, str]]":
    wanted = f"a token wants {plan.used_count} of {plan.expert_count} in each of {plan.layer_count} layers"
    yield "pinned", format_bytes(plan.pinned_bytes)
    yield "experts", f"{format_bytes(plan.cache_bytes)} of {format_bytes(plan.expert_bytes)}; {wanted}"
    yield "tokens of a pass at most", str(plan.batch_tokens)
    if experts is None or report is None:
        return
    hits = f"{experts.hit_ratio:.1%}; predicted {experts.predicted_hit_ratio:.1%} at skew {experts.skew:.2f}"
    took = f"{experts.token_s * 1e3:.0f} ms, of which waiting {experts.stall_s * 1e3:.0f} ms"
    reached = format_rate(experts.reached_bytes_per_s)
    yield "hits", f"{hits}; the most wanted in hindsight {experts.hindsight_hit_ratio:.1%}"
    said = f"{format_bytes(experts.read_bytes)}; predicted {format_bytes(experts.predicted_read_bytes)}"
    yield "read per token", said
    yield "token", f"{took}; predicted {experts.predicted_token_s * 1e3:.0f} ms"
    yield "storage", f"{reached} while waiting, {format_rate(report.probe_bytes_per_s)} by the probe"
