"""What verbs share beyond the tables of their options: what measuring ones are called with, budgets, runtimes."""

import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from harness.cli._output import Answer
from harness.printable import clean_lines
from harness.units import parse_bytes

if TYPE_CHECKING:
    from harness.measure.pipeline import How as How  # noqa: PLC0414  verbs that measure name it
    from harness.measure.protocol import GenerateJob

SILENCE_S: Final = 300.0
"""Longest time that a server may send nothing while one request is measured: a phone's prompt takes minutes."""
_MOST_SHARES: Final = 10
"""Shares of a model's file in a RAM budget: cache and scratch of a small model are some times its weights, no more."""


def fields_of(kind: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """What of ``given`` is a field of the struct ``kind``, taken out of it."""
    return {name: given.pop(name) for name in kind.__struct_fields__ if name in given}


def model_file(ref: str, quant: str, how: "How") -> Path:
    """The file that ``ref`` (a path, a name, or ``name:quant``) stands for, fetched where it is not here."""
    from harness.app.locate import obtain

    return obtain(ref, quant, progress=how.listener.fetched).path


def budget_of(text: str, whole_bytes: int) -> int:
    """Bytes of a RAM budget: a size, or a share of a model's bytes such as ``0.6x``; else a usage error."""
    try:
        found = parse_bytes(text, whole_bytes)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--ram-budget") from None
    if text.strip().lower().endswith("x") and found > _MOST_SHARES * whole_bytes:
        raise click.BadParameter(
            f"found {text!r}, expected at most {_MOST_SHARES}x of the file", param_hint="--ram-budget"
        )
    return found


def measuring(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """A verb that measures: it is called with its ``how``, made of the options that all such verbs have.

    ``--memory-limit`` and ``--cpus``, where the verb has them, are in its limits; ``--cpus`` in notes and threads too.
    """

    @wraps(function)
    def measured(
        *arguments: Any,
        timeout_s: float,
        out: Path | None,
        resume: bool = False,
        cpus: tuple[int, ...] = (),
        memory_bytes: int | None = None,
        **given: Any,
    ) -> Answer:
        from harness.cli._progress import RunProgress
        from harness.measure.child import Limits
        from harness.measure.pipeline import How

        nice = os.nice(0) if hasattr(os, "nice") else 0  # as `nice -n 5 edge-harness run` sets it
        notes: dict[str, Any] = {"nice": nice} if nice else {}
        notes |= {"cpus": cpus} if cpus else {}
        here = given.get("target", "local") == "local"
        if here and cpus:
            from harness.cpus import allowed_cpus

            if not hasattr(os, "sched_setaffinity"):
                raise click.UsageError("--cpus: this system binds no process to CPUs: leave it out")
            allowed = sorted(allowed_cpus())
            if not set(cpus) <= set(allowed):
                raise click.UsageError(f"--cpus: found {sorted(cpus)}, expected some of {allowed}")
        if cpus and given.get("thread_count") in {0, (0,)}:
            given["thread_count"] = len(cpus) if given["thread_count"] == 0 else (len(cpus),)
        limits = Limits(wall_s=timeout_s, memory_bytes=memory_bytes, cpus=cpus)
        with RunProgress() as progress:
            how = How(resume=resume, folder=out, limits=limits, listener=progress, notes=notes)
            if not here and given["programs"] is None:
                return _there(given["target"], how)
            return function(*arguments, how=how, **given)

    return measured


def _there(target: str, how: "How") -> Answer:
    """What edge-harness on the target makes of all that was typed, with the files that are named in it."""
    from harness.app.on_target import hand_over as hand_over_to

    context = click.get_current_context()
    given = context.params
    if here := next((name for name in ("report", "meter", "keep", "folder", "profile") if given.get(name)), None):
        raise click.UsageError(f"--{here} is about files here: leave it out with edge-harness on the target")
    values = [given.get(name) or () for name in ("model", "models", "draft", "drafts", "prompts", "text", "cases")]
    paths = {Path(v) for value in values for v in ((value,) if isinstance(value, str | Path) else value)}
    command: list[str] = context.meta["words"]
    pieces = {piece for word in command for piece in (word, word.partition("=")[2])}
    files = {piece: Path(piece) for piece in pieces if Path(piece) in paths and Path(piece).is_file()}
    found = hand_over_to(target, command, files, how)
    return Answer(lambda: json.loads(found.text), lambda: click.echo(clean_lines(found.text), nl=False), found.status)


def sides_of(given: dict[str, Any], models: object = True) -> "list[GenerateJob]":
    """What to ask of each runtime of ``--runtime``, separated by commas; what decides it is taken out of ``given``.

    Raises:
        click.UsageError: A name or a URL is lacking or given twice, or ``models`` where a runtime needs one.
    """
    runtimes, model = given.pop("runtime"), given.pop("server_model")
    parts = [part.strip().partition(":")[::2] for part in runtimes.split(",")]
    if any(not name or bool(url) != (name == "server") for name, url in parts):
        raise click.UsageError(f"--runtime: found {runtimes!r}, expected names, or server:URL for a server")
    if len(set(parts)) < len(parts):
        raise click.UsageError(f"--runtime: found {runtimes!r}, expected each of them once")
    if not models and any(name != "server" for name, _ in parts):
        raise click.MissingParameter(param_hint="MODEL", param_type="argument")
    from harness.measure.jobs.served import ServedJob
    from harness.measure.protocol import GenerateJob
    from harness.runtimes.server.stream import Patience

    patience = Patience(silence_s=SILENCE_S)
    return [
        ServedJob(url=url, model=model, patience=patience) if url else GenerateJob(runtime=name) for name, url in parts
    ]
