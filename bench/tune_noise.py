"""Does noise make winners? Races of one setting under many names, beside bursts on one core.

    python -m bench tune_noise MODEL [--races 20] [--within 60]

All settings of a race are the same but for their names, so that whoever wins owes it to noise; a winner whose interval
over the "defaults" lies above what is told as a lead is a false one, and the exit status is 1.
"""

import random
import subprocess
import sys
import threading
import time

import click
from msgspec.structs import replace

from harness.app.run import RunCell
from harness.app.tune import LEAD_RATIO, Race, Setting, door, scenario_of
from harness.measure.pipeline import How, Pipeline
from harness.runtimes._threads import default_thread_count

_NAMES = 6
_BURN = "import time; end = time.monotonic() + {:.2f}\nwhile time.monotonic() < end: pass"


def burst(stop: threading.Event, source: random.Random) -> None:
    """Keep one core busy now and then: half a second to three, with pauses as long."""
    while not stop.wait(source.uniform(0.5, 3.0)):
        subprocess.run(["taskset", "1", sys.executable, "-c", _BURN.format(source.uniform(0.5, 3.0))], check=True)


@click.command()
@click.argument("model")
@click.option("--races", type=click.IntRange(1), default=20, show_default=True)
@click.option("--within", "within_s", type=click.FloatRange(min=1.0), default=60.0, show_default=True)
def main(model: str, races: int, within_s: float) -> None:
    """Print each race's winner and what it seems to gain; the number of false ones is the last line."""
    same = Setting(runtime="llamacpp", thread_count=default_thread_count())
    named = [replace(same, kv_type=f"F16 {number}") for number in range(_NAMES)]  # told apart by a word alone
    asked = replace(scenario_of("chat"), prompt_tokens=64, new_tokens=16)
    stop = threading.Event()
    noise = threading.Thread(target=burst, args=(stop, random.Random(1)))
    noise.start()
    false = 0
    try:
        with Pipeline(How(keep=False)) as pipeline:
            take = door(RunCell(model, "", asked), pipeline, same)
            for number in range(1, races + 1):
                race = Race(lambda _: take(same))
                began_s = time.monotonic()
                winner = race.run(named, until_s=began_s + within_s)
                gain = race.against(winner, named[0], until_s=began_s + 1.6 * within_s)
                false += gain.low is not None and gain.low > LEAD_RATIO
                click.echo(f"race {number}: {race.rounds} rounds, {winner.kv_type[4:]} won by {gain}")
    finally:
        stop.set()
        noise.join()
    click.echo(f"{false} false winners in {races} races")
    sys.exit(bool(false))


if __name__ == "__main__":
    main()
