"""Options that several verbs take, and what those that measure share: limits, CPUs, where records go, the target.

What a question has too (``Context``, ``Threads``, ...) stands in :mod:`harness.core.question`.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import click
import msgspec
from msgspec import Meta

from harness.cli.command import refuse_typed
from harness.core.base import Frozen
from harness.core.option import Option
from harness.core.placement import placement_of
from harness.core.printable import clean_lines
from harness.core.question import MOST_TOKENS, Placed
from harness.core.units import parse_bytes
from harness.show.output import Output

if TYPE_CHECKING:
    from harness.core.scenario import Scenario
    from harness.measure.pipeline import How
    from harness.measure.protocol import GenerateJob

SILENCE_S: Final = 300.0
"""Longest time that a server may send nothing while one request is measured: a phone's prompt takes minutes."""
CHECK_S: Final = 20.0
"""What a look at a server's promises may take before it is measured."""


def ending(*endings: str) -> Callable[[str], Path]:
    """A reader of the path of a file to be written, whose ending says its format."""

    def read(text: str) -> Path:
        path = Path(text)
        if path.suffix.lower() not in endings:
            raise ValueError(f"found {text!r}, expected an ending of {', '.join(endings)}")
        return path

    return read


Model = Annotated[str, Option(metavar="MODEL")]
Models = Annotated[tuple[str, ...], Option(metavar="[MODEL...]")]
Results = Annotated[tuple[str, ...], Option(metavar="[RESULT]...")]
ContextLength = Annotated[
    int,
    Meta(ge=64, le=MOST_TOKENS),
    Option("--context -c", "Context length: tokens that the KV cache can hold.", "Request"),
]
Depths = Annotated[
    tuple[Annotated[int, Meta(ge=0, le=MOST_TOKENS)], ...],
    Option(
        "--depth",
        "Tokens already in the cache before the test; several with commas: 0,2048.",
        "Request",
    ),
]
Prompts = Annotated[
    str,
    Option(
        "--prompts",
        "A set of prompts that ships with edge-harness, or a file: a JSON list of strings.",
        "Request",
    ),
]
PromptCount = Annotated[
    Annotated[int, Meta(ge=1, le=10_000)] | None,
    Option("--prompt-count", "Use only the first N prompts.", "Request"),
]
Generated = Annotated[
    int,
    Meta(ge=2, le=MOST_TOKENS),
    Option("--tokens -n", "Tokens to generate after each prompt.", "Request"),
]
Seed = Annotated[
    int,
    Meta(ge=0, le=1 << 31),
    Option(
        "--seed", "Random seed for what is made up: lengths, prompts, arrivals, built-in cases.", "Request"
    ),
]
Runtime = Annotated[
    str,
    Option("--runtime", "Software that executes the model.", "Engine and placement"),
]
ServerModel = Annotated[
    str,
    Option(
        "--server-model",
        "Which of the server's models to use, by the server's own name for it.",
        "Engine and placement",
    ),
]
Split = Annotated[Placed, Option("--placement", heading="Engine and placement", reads=placement_of)]
Repetitions = Annotated[
    int,
    Meta(ge=1, le=1000),
    Option("--repetitions -r", "Undisturbed samples to collect for each test.", "Measuring"),
]
MemoryLimit = Annotated[
    int | None,
    Option(
        "--memory-limit",
        "Kill the run when it uses more memory than this: 900MB, 1.5GiB.",
        "Device and limits",
        reads=parse_bytes,
    ),
]
Cpus = Annotated[
    tuple[Annotated[int, Meta(ge=0, le=4095)], ...],
    Option("--cpus", "CPUs to run on, such as 0,2.", "Device and limits", default="all"),
]
On = Annotated[
    str,
    Option(
        "--on",
        "Machine to measure on: local, ssh://user@host, adb:// or adb://SERIAL; `run` takes several with "
        "commas, or a lab: lab.toml, lab.toml:TAG.",
        "Device and limits",
        "TARGET",
    ),
]
Programs = Annotated[
    Path | None,
    Option(
        "--programs",
        "Folder of a llama.cpp release (llama-bench, ...) for the machine "
        "of --on if edge-harness is not installed there.",
        "Device and limits",
        path="folder",
    ),
]
Timeout = Annotated[
    float,
    Meta(gt=0, le=1e6),
    Option("--timeout", "Time limit for each measured process, in seconds.", "Measuring"),
]
Resume = Annotated[
    bool, Option("--resume", "Reuse results of the same measurement from the last 24 hours.", "Measuring")
]
OutFolder = Annotated[
    Path | None,
    Option("--out -o", "Save each record as a file in this folder, too.", "Output", path="folder"),
]
Baseline = Annotated[
    tuple[str, ...],
    Option("--baseline", "Result, or folder of results, to compare with; repeatable.", is_repeated=True),
]
Budget = Annotated[Path, Option("--budget", "Budgets file (TOML).", path="file")]


class ScenarioOptions(Frozen):
    """How a measured model is run. A verb's own subclass annotates the fields that are its options."""

    context_tokens: int = 4096
    prompt_tokens: int = 1
    new_tokens: int = 1
    thread_count: int = 0
    api: str = ""

    def scenario(self, measuring: "MeasuringOptions") -> "Scenario":
        """The scenario that it asks for.

        With ``--cpus`` so many threads as CPUs, unless a number is asked for.
        """
        from harness.answer.resolve import scenario_from

        refuse_typed({"placement"}, "without the --api of a GPU", when=self.api in {"", "cpu"})
        fields = msgspec.structs.asdict(self)
        return scenario_from(fields | {"thread_count": measuring.threads(self.thread_count)})


class MeasuringOptions(Frozen):
    """How a verb measures. Its own subclass annotates those of the other fields that are its options."""

    timeout_s: Timeout = 1800.0
    out: OutFolder = None
    resume: bool = False
    cpus: tuple[int, ...] = ()
    memory_bytes: int | None = None
    target: str = "local"
    programs: Path | None = None

    @property
    def is_lab(self) -> bool:
        """Whether ``--on`` names several devices: with commas, or by the file of a lab."""
        return "," in self.target or ".toml" in self.target

    @property
    def is_handed_over(self) -> bool:
        """Whether the edge-harness of the target does it all."""
        return self.target != "local" and self.programs is None and not self.is_lab

    def handed_over(self) -> Output:
        """What edge-harness on the target makes of all that was typed, with the files here that it names."""
        from harness.verbs.on_target import hand_over

        command: list[str] = click.get_current_context().meta["words"]
        pieces = {piece for word in command for piece in (word, word.partition("=")[2])}
        files = {piece: Path(piece) for piece in pieces if Path(piece).is_file()}
        with self.started() as how:
            found = hand_over(self.target, command, files, how)
        return Output(
            lambda: json.loads(found.text),
            lambda: click.echo(clean_lines(found.text), nl=False),
            found.status,
        )

    def threads(self, thread_count: int) -> int:
        """So many as were asked for, or as CPUs were named; 0 where neither is said."""
        return thread_count or len(self.cpus)

    @contextmanager
    def started(self) -> "Iterator[How]":
        """The arguments of a measurement, whose progress is shown while it runs.

        A changed ``nice`` value or set of CPUs is written into the notes of its records.
        """
        from harness.hardware.cpus import allowed_cpus
        from harness.measure.child import Limits
        from harness.measure.pipeline import How
        from harness.show.progress_line import RunProgress

        notes: dict[str, Any] = {"cpus": self.cpus, "memory_limit_bytes": self.memory_bytes}
        if hasattr(os, "nice"):  # as `nice -n 5 edge-harness run` sets it
            notes["nice"] = os.nice(0)
        notes = {name: value for name, value in notes.items() if value}
        if self.cpus and self.target == "local":
            allowed = sorted(allowed_cpus())
            if not hasattr(os, "sched_setaffinity"):
                raise click.UsageError("--cpus: this system binds no process to CPUs: leave it out")
            if not set(self.cpus) <= set(allowed):
                raise click.UsageError(f"--cpus: found {list(self.cpus)}, expected some of {allowed}")
        limits = Limits(wall_s=self.timeout_s, memory_bytes=self.memory_bytes, cpus=self.cpus)
        with RunProgress() as progress:
            yield How(resume=self.resume, folder=self.out, limits=limits, listener=progress, notes=notes)


class Here(MeasuringOptions):
    """How a verb measures that runs on this machine alone."""

    resume: Resume = False
    cpus: Cpus = ()
    memory_bytes: MemoryLimit = None


class Anywhere(Here):
    """How a verb measures that runs on a target too."""

    target: On = "local"
    programs: Programs = None


class OverLab(Anywhere):
    """How a verb measures that runs on several devices too."""

    scheduler: Annotated[
        str,
        Option(
            "--scheduler",
            "Scheduler of Dask, tcp://HOST:PORT, whose workers have the devices; --on then names tags.",
            "Device and limits",
            "ADDRESS",
        ),
    ] = ""
    wait_s: Annotated[
        float,
        Meta(ge=0, le=1e6),
        Option(
            "--wait-for", "How long a lab waits for a device that is away, in seconds.", "Device and limits"
        ),
    ] = 60.0

    @property
    def is_lab(self) -> bool:
        """Whether several devices are named, or a scheduler that has them."""
        return bool(self.scheduler) or super().is_lab


def model_file(ref: str, quant: str, how: "How") -> Path:
    """The file that ``ref`` (a path, a name, or ``name:quant``) stands for, fetched where it is not here."""
    from harness.verbs.locate import obtain

    return obtain(ref, quant, progress=how.listener.fetched).path


def sides_of(runtimes: str, server_model: str, *, has_models: bool) -> "list[GenerateJob]":
    """What to ask of each runtime of ``--runtime``, separated by commas.

    Raises:
        click.UsageError: A name or a URL is lacking or given twice, or a runtime needs a model and there is
            none.
    """
    from harness.measure.jobs.served import ServedJob
    from harness.measure.protocol import GenerateJob
    from harness.runtimes.server.stream import Patience

    jobs: dict[str, GenerateJob] = {}
    for part in map(str.strip, runtimes.split(",")):
        name, _, url = part.partition(":")
        if not name or part in jobs or bool(url) != (name == "server"):
            says = "names, each of them once, or server:URL for a server"
            raise click.UsageError(f"--runtime: found {runtimes!r}, expected {says}")
        if url:
            patience = Patience(silence_s=SILENCE_S)
            jobs[part] = ServedJob(url=url, model=server_model, patience=patience, check_s=CHECK_S)
        elif has_models:
            jobs[part] = GenerateJob(runtime=name)
        else:
            raise click.MissingParameter(param_hint="MODEL", param_type="argument")
    return list(jobs.values())
