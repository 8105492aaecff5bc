"""``edge-harness tune``: the fastest way to run a model on this machine."""

import re
from statistics import median
from typing import TYPE_CHECKING, Annotated

from harness.cli import _options as options
from harness.cli.command import verb
from harness.core.option import Option
from harness.core.question import Api, Quant
from harness.core.units import format_seconds
from harness.show.output import Output, say, table

if TYPE_CHECKING:
    from harness.verbs.tune import Tuned


def _seconds(text: str) -> float:
    """Seconds of ``90s``, ``10m`` or ``1h``; ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,5}(?:\.\d+)?)([smh])", text.strip())
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 1 <= seconds <= 86_400:
        raise ValueError(f"found {text!r}, expected a time such as 90s, 10m or 1h")
    return seconds


def _share(text: str) -> float:
    """0 for ``keep``, else the share that a percentage is; ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,2}(?:\.\d+)?)%|keep", text.strip())
    if match is None:
        raise ValueError(f"found {text!r}, expected keep, or a growth such as 0.5%")
    return float(match[1] or 0) / 100


class _TuneMeasuring(options.MeasuringOptions):
    memory_bytes: options.MemoryLimit = None
    target: options.On = "local"
    cpus: options.Cpus = ()


@verb
def tune(
    model: options.Model,
    measuring: _TuneMeasuring,
    quant: Quant = "",
    goal: Annotated[
        str,
        Option(
            "--for",
            "What to be fast at: chat, prompt (long prompts), agent (a long history), or users=8 (so "
            "many at once).",
        ),
    ] = "chat",
    within_s: Annotated[
        float,
        Option("--within", "Time limit for the whole search: 90s, 10m, 1h.", default="10m", reads=_seconds),
    ] = 600.0,
    api: Api = "",
    quality_ratio: Annotated[
        float,
        Option(
            "--quality",
            "keep: the same answers; or how much perplexity may rise in exchange for speed, as 0.5%.",
            default="keep",
            reads=_share,
        ),
    ] = 0.0,
    runtimes: Annotated[
        tuple[str, ...],
        Option("--runtimes", "Runtimes to race, with commas.", default="all that can be used here"),
    ] = (),
) -> Output:
    """Find the fastest settings for MODEL here: runtime, threads, repacking, micro-batch, flash attention, cache, GPU.

    Settings that cannot win by their prediction never run; the others race in turns. The first line says how
    many times faster the winner is than llama.cpp's defaults, measured in turns of its own. With --on,
    edge-harness there runs the race.

    Exit status: 0 well, 3 no difference beyond noise, 4 nothing ran.

    Example: edge-harness tune smollm2-135m --for chat --within 5m
    """
    from harness.core.errors import Exit
    from harness.measure.probe.machine_profile import own_profile
    from harness.verbs.tune import LEAD_RATIO, NOT_RUN
    from harness.verbs.tune import tune as race

    with measuring.started() as how:
        tuned = race(
            model,
            quant,
            goal=goal,
            within_s=within_s,
            quality_ratio=quality_ratio,
            runtimes=runtimes,
            api=api,
            device=own_profile(),
            how=how,
        )
    gain = tuned.gain
    is_ahead = tuned.winner == tuned.defaults or not gain.sample_count or (gain.low or 0.0) > LEAD_RATIO
    was_cut = any(runner.left == NOT_RUN for runner in tuned.runners)
    settled = is_ahead and not tuned.unproven and not was_cut
    return Output(tuned, lambda: _show(tuned), Exit.OK if settled else Exit.INCONCLUSIVE)


def headline(tuned: "Tuned") -> str:
    """The answer in one line."""
    from harness.verbs.tune import LEAD_RATIO, NOT_RUN

    gain = tuned.gain
    words = tuned.winner.words
    not_run = sum(runner.left == NOT_RUN for runner in tuned.runners)
    cut = f"The time was up before {not_run} of {len(tuned.runners)} settings ran: raise --within." * bool(
        not_run
    )
    if tuned.winner == tuned.defaults and tuned.unproven:
        ahead = tuned.unproven.words
        return f"{tuned.model}: {ahead} was ahead, and is not shown to be faster than the defaults in three turns."
    if tuned.winner == tuned.defaults:  # of a race that was cut short this is no answer
        return f"{tuned.model}: {cut or f'the defaults of llama.cpp are the fastest found ({words}).'}"
    answer = f"{words} won; llama.cpp's defaults do not run here."
    if gain.low is not None and gain.high is not None:
        between = f"({gain.low:.2f} to {gain.high:.2f})"
        answer = f"{gain.mid:.2f} times faster than the defaults {between}: {words}."
        if gain.low <= LEAD_RATIO:
            answer = f"no difference from the defaults beyond noise: {gain.mid:.2f} times {between}."
    return f"{tuned.model}: {answer} {cut}".rstrip()


def _show(tuned: "Tuned") -> None:
    rows = []
    for runner in tuned.runners:
        turns = runner.turns_s
        if turns:
            beside = "-" if runner.slower_ratio is None else f"{runner.slower_ratio:.2f}"
            request = format_seconds(median(turns))
            rows.append((runner.setting.words, beside, request, len(turns), runner.left or "-"))
    ran = f"{len(rows)} of {len(tuned.runners)} settings ran, {tuned.rounds} rounds, {tuned.seconds:.0f} s"
    columns = ("setting", "beside the winner", "a request", "turns", "left because")
    say(headline(tuned), table(ran, columns, rows))
    for program, command in tuned.commands.items():
        say(f"{program}:", *(f"  {line}" for line in command.splitlines()))
