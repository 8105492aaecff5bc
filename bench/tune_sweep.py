"""Is the tuner's choice the best there is? Beside an exhaustive sweep, and a search that knows nothing of engines.

    python -m bench tune_sweep MODEL [--minutes 10] [--peer]

The tuner races for so many minutes. Then every setting of the grid that it draws from runs once, where its answers are
no worse than the defaults', and the four fastest and the tuner's choice three times more in turns. With ``--peer``
Optuna's TPE searches the same grid in the same time (``pip install optuna``), and its choice runs beside them.
"""

import itertools
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from statistics import median
from typing import Any

import click

from harness.core.errors import HarnessError
from harness.core.units import format_seconds
from harness.hardware.threads import default_thread_count
from harness.measure.pipeline import How, Pipeline
from harness.measure.probe.machine_profile import own_profile
from harness.verbs.run import RunCell
from harness.verbs.tune import Setting, candidates, door, scenario_of, tune, usable

_TURNS = 3
_FINALISTS = 4
_UBATCHES = (64, 128, 512)  # more than the prompt has are the same


def grid() -> list[Setting]:
    """Every setting that the tuner could come to where answers must stay."""
    first = Setting(runtime="", thread_count=default_thread_count())
    listed = candidates(usable([]), first, first.thread_count)
    return [
        each.replace(ubatch_tokens=ubatch, flash_attention=fused)
        for each, ubatch, fused in itertools.product(listed, _UBATCHES, (True, False))
    ]


def taken(settings: Iterable[Setting], take: Callable[[Setting], float]) -> dict[Setting, float]:
    """Seconds of each one that runs."""
    found = {}
    for setting in settings:
        with suppress(HarnessError):
            found[setting] = take(setting)
            click.echo(f"  {format_seconds(found[setting])}  {setting.words}", err=True)
    return found


def searched(settings: list[Setting], take: Callable[[Setting], float], within_s: float) -> Setting:
    """What Optuna's TPE comes to in that time."""
    optuna = import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = ("runtime", "thread_count", "repack", "ubatch_tokens", "flash_attention")
    values = {name: sorted({getattr(each, name) for each in settings}) for name in names}

    def objective(trial: Any) -> float:
        return take(Setting(**{name: trial.suggest_categorical(name, values[name]) for name in names}))

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
    study.optimize(objective, timeout=within_s, catch=(HarnessError,))
    return Setting(**study.best_params)


@click.command()
@click.argument("model")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True)
@click.option("--peer", is_flag=True, help="Let Optuna search too.")
def main(model: str, minutes: float, peer: bool) -> None:
    """Print the choice's distance from the sweep's best, the share of settings that ran, and the times."""
    settings = grid()
    how = How(keep=False)
    tuned = tune(model, within_s=60 * minutes, device=own_profile(), how=how)
    ran = sum(bool(runner.turns_s) for runner in tuned.runners)
    click.echo(
        f"{tuned.model}: tuner {tuned.seconds:.0f} s, {ran} of {len(tuned.runners)} settings ran, {tuned.winner.words}"
    )
    choices = {"tuner": tuned.winner}
    with Pipeline(how) as pipeline:
        take = door(RunCell(model, "", scenario_of("chat")), pipeline, tuned.defaults)
        if peer:
            choices["TPE"] = searched(settings, take, 60 * minutes)
        began_s = time.monotonic()
        once = taken(settings, take)
        click.echo(f"sweep: {len(once)} of {len(settings)} settings ran, {time.monotonic() - began_s:.0f} s")
        finalists = dict.fromkeys([*sorted(once, key=once.__getitem__)[:_FINALISTS], *choices.values()])
        turns = [taken(finalists if turn % 2 else reversed(finalists), take) for turn in range(_TURNS)]
    final = {each: median(turn[each] for turn in turns) for each in finalists}
    best = min(final, key=final.__getitem__)
    click.echo(f"best of the sweep: {best.words}, {format_seconds(final[best])} a request")
    for name, setting in choices.items():
        click.echo(f"{name}: {setting.words}, {final[setting] / final[best] - 1:.1%} slower than it")


if __name__ == "__main__":
    main()
