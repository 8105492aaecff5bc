"""One run over minutes, on this machine or on a target."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from harness.app.locate import locate
from harness.app.on_target import identity, needed
from harness.domain.record import RunRecord
from harness.domain.result import Window
from harness.errors import RefusedError
from harness.measure.jobs.soak import SoakJob, plan
from harness.measure.pipeline import How, Pipeline, Saying
from harness.targets import target_named
from harness.targets.bench import soak_on


def soak(
    job: SoakJob, quant: str, on: str, programs: Path | None, how: How, *, say: Callable[[str], None]
) -> RunRecord:
    """Run ``job``, whose ``path`` is what the user named, and keep its record.

    Raises:
        RefusedError: A target without programs, or with what llama-bench cannot do.
        CouldNotRunError: The target cannot be used.
    """
    located = locate(job.path, quant)
    model = identity(located)
    job = msgspec.structs.replace(job, path=str(located.path.absolute()))

    def hear(window: Window) -> None:
        say(f"{window.since_start_s:6.0f} s  {window.tokens_per_s:.2f} tokens/s")

    def told(name: str, data: Any) -> None:
        if name == "window":
            hear(msgspec.convert(data, Window))

    with Pipeline(how, Saying(say)) as pipeline:
        if on == "local":
            return pipeline.measure(plan(job, model), on_event=told)
        if job.duty_ratio < 1 or job.runtime != "llamacpp" or how.resume:
            raise RefusedError("on a target llama-bench decodes without pauses: leave out --duty, --runtime, --resume")
        return pipeline.keep(soak_on(target_named(on), job, needed(programs), model, hear=hear))
