"""Every option that more than one verb takes: one name, one meaning, one set of bounds.

A verb lists those it honours; what it does not list, it refuses. Amounts are written as people write them in all of
them: ``128k`` tokens, ``1.5GiB``, ``0.6x`` of a file, ``0,2048`` for several.
"""

import json
import math
import os
import re
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from harness.cli._command import TABLES
from harness.cli._output import Answer, F, answers
from harness.printable import clean_lines
from harness.units import parse_bytes

if TYPE_CHECKING:
    from harness.domain.placement import Placement
    from harness.measure.jobs.served import ServedJob
    from harness.measure.pipeline import How as How  # noqa: PLC0414  verbs that measure name it

FILE: Final = click.Path(dir_okay=False, path_type=Path)
FILE_HERE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER: Final = click.Path(file_okay=False, path_type=Path)
REPORTS: Final = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}
"""Formats of a report by the ending of its file."""


class Ending(click.Path):
    """A file to be written, in the format of its ending: told before anything is measured for it."""

    def __init__(self, *endings: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error says what was found and expected."""
        if Path(value).suffix.lower() not in self.endings:
            self.fail(f"found {str(value)!r}, expected an ending of {', '.join(self.endings)}", param, ctx)
        return super().convert(value, param, ctx)


MOST_TOKENS: Final = 1 << 24
"""No model has a context of more; a number above is a slip of the keyboard."""
SILENCE_S: Final = 300.0
"""Longest time that a server may send nothing while one request is measured: a phone's prompt takes minutes."""
_MOST_SHARES: Final = 10
"""Shares of a model's file in a RAM budget: cache and scratch of a small model are some times its weights, no more."""


class Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """A size in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of the text; a usage error says what was found and expected."""
        try:
            return value if isinstance(value, int) else parse_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Count(click.ParamType):  # type: ignore[type-arg]
    """A whole number from ``least`` to ``most``, ``k`` and ``m`` stand for 1,024 and 1,048,576; or one of ``words``."""

    name = "count"

    def __init__(self, least: int, most: int = MOST_TOKENS, **words: Any) -> None:
        self.least, self.most, self.words = least, most, words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or what the word stands for; a usage error says what was found and expected."""
        if value in self.words:
            return self.words[value]
        try:
            found = whole(value) if isinstance(value, str) else int(value)
        except ValueError:
            self.fail(f"found {value!r}, expected a whole number such as 4096 or 128k", param, ctx)
        if not self.least <= found <= self.most:
            self.fail(f"found {value}, expected {self.least} to {self.most}", param, ctx)
        return found


class Amount(click.ParamType):  # type: ignore[type-arg]
    """A finite number above ``above`` and at most ``most``; with ``or_zero`` also 0."""

    name = "number"

    def __init__(self, above: float = 0.0, most: float = 1e9, *, or_zero: bool = False) -> None:
        self.above, self.most, self.or_zero = above, most, or_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; a usage error says what was found and expected."""
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not self.above < found <= self.most and not (self.or_zero and found == 0):
            self.fail(f"found {value!r}, expected a number above {self.above:g}, at most {self.most:g}", param, ctx)
        return found


def whole(text: str) -> int:
    """A whole number with an optional ``k`` or ``m``; ValueError where it is none."""
    match = re.fullmatch(r"(-?[0-9]+)([km]?)", text.strip().lower())
    if match is None:
        raise ValueError(text)
    return int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2]]


def numbers(
    least: int = 0, most: int = MOST_TOKENS
) -> Callable[[click.Context, click.Parameter, str], tuple[int, ...]]:
    """Callback that reads whole numbers separated by commas."""
    one = Count(least, most)

    def read(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...]:
        parts = () if text is None else text.split(",")
        return tuple(dict.fromkeys(one.convert(part, option, context) for part in parts))

    return read


def words(_context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Callback that reads words separated by commas."""
    found = () if text is None else tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise click.BadParameter(f"found {text!r}, expected names with a comma between", param=option)
    return found


def fields_of(kind: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """What of ``given`` is a field of the struct ``kind``, taken out of it."""
    return {name: given.pop(name) for name in kind.__struct_fields__ if name in given}


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


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order of the help."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def option(
    name: str, default: object = None, *, least: int | None = None, of: str = "", **more: Any
) -> Callable[[F], F]:
    """An option as the table of shared options has it, with another default or least number; ``of`` ends its help."""
    row = dict(TABLES["shared"][name])
    row["help"] = row["help"].format(of=of)
    if default is not None:
        row["default"] = default
    if least is not None:
        row["count"] = [least]
    for key, kind in _KINDS.items():
        if key in row:
            bounds = row.pop(key)
            row["type"] = kind(**bounds) if isinstance(bounds, dict) else kind(*bounds)
    if "numbers" in row:
        row["callback"] = numbers(*row.pop("numbers"))
    return click.option(*row.pop("flags"), **row, **more)


_KINDS: Final[dict[str, Callable[..., Any]]] = {
    "count": Count,
    "amount": Amount,
    "size": Size,
    "folder": lambda: FOLDER,
}
context = partial(option, "context")
prompt = partial(option, "prompt")
tokens = partial(option, "tokens")
repetitions = partial(option, "repetitions")
quant = option("quant")
depths = option("depths")
threads = option("threads")
several_threads = option("several_threads")
ubatch = option("ubatch")
kv_type = option("kv_type")
value_type = option("value_type")
program = option("program")
api = option("api")
emulated = option("emulated")
prompts = together(option("prompts"), option("prompt_count"))
memory_limit = option("memory_limit")
server_model = option("server_model")
silence = option("silence")


def seed(of: str, default: int = 0) -> Callable[[F], F]:
    """``--seed``."""
    return option("seed", default, of=of)


def _here(_context: click.Context, _option: click.Parameter, text: str) -> str:
    if text.partition(":")[0] == "server" or "," in text:
        raise click.BadParameter(
            f"found {text!r}, expected one name of software that runs here; `run` and `serve-load` measure servers"
        )
    return text


def runtime(*, several: bool = False) -> Callable[[F], F]:
    """``--runtime``; with ``several`` it may be a server, and :func:`sides_of` reads it."""
    if several:
        return option(
            "runtime", of="; server:URL for a server that is running; several, measured in turns: llamacpp,ik"
        )
    return option("runtime", callback=_here)


def _placement(_context: click.Context, param: click.Parameter, text: str | None) -> "Placement | None":
    if text is None:
        return None
    from harness.domain.placement import placement_of

    try:
        return placement_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None


def placement(name: str = "--placement", of: str = "layers and experts") -> Callable[[F], F]:
    """``--placement``: a :class:`~harness.domain.placement.Placement` as llama.cpp words it; None where not given."""
    words = (
        f"Split of {of} between GPU and CPU as llama.cpp's flags: '-ngl 20 --n-cpu-moe 7 -ts 3,1 -sm row -mg 0 -nkvo'."
    )
    return click.option(name, callback=_placement, metavar="FLAGS", help=words)


PARTS: Final = ("flash-attention", "repack", "mmap")


def _without(_context: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...]:
    parts = words(_context, param, text)
    if unknown := [part for part in parts if part not in PARTS]:
        raise click.BadParameter(f"found {unknown[0]!r}, expected some of {', '.join(PARTS)}", param=param)
    return parts


without = click.option(
    "--without",
    callback=_without,
    metavar="PART,...",
    help="Parts of the engine to switch off: flash-attention, repack (rewriting weights for the CPU), "
    "mmap (mapping the file instead of reading it).",
)
on_target = together(option("on"), option("programs"))


def measuring(timeout_s: float = 1800.0, *, bound: bool = True) -> Callable[[F], F]:
    """Options of every verb that measures, which is called with its ``how``; ``bound``: it can be bound to CPUs.

    ``--as`` and ``--memory-limit``, where the verb has them, are in its limits, its notes and the threads.
    """
    names = [*(["cpus"] if bound else []), "resume", "out"]
    options = together(option("timeout", timeout_s), *map(option, names))

    def add(function: F) -> F:
        @wraps(function)
        def measured(
            *arguments: Any,
            timeout_s: float,
            resume: bool,
            out: Path | None,
            cpus: tuple[int, ...] = (),
            memory_bytes: int | None = None,
            emulated: str | None = None,
            **given: Any,
        ) -> Any:
            from harness.cli._progress import RunProgress
            from harness.measure.child import Limits
            from harness.measure.pipeline import How

            nice = os.nice(0) if hasattr(os, "nice") else 0  # as `nice -n 5 edge-harness run` sets it
            notes: dict[str, Any] = {"nice": nice} if nice else {}
            notes |= {"cpus": cpus} if cpus else {}
            here = given.get("target", "local") == "local"
            cores = len(cpus)
            if here and cpus:
                from harness.cpus import allowed_cpus

                if not hasattr(os, "sched_setaffinity"):
                    raise click.UsageError("--cpus: this system binds no process to CPUs: leave it out")
                allowed = sorted(allowed_cpus())
                if not set(cpus) <= set(allowed):
                    raise click.UsageError(f"--cpus: found {sorted(cpus)}, expected some of {allowed}")
            if emulated:
                from harness.app.emulate import NOT_EMULATED, emulation_of
                from harness.app.resolve import resolve_device

                device = resolve_device(emulated)
                held = emulation_of(device, memory_bytes)
                memory_bytes = held.memory_limit_bytes
                notes |= {"emulates": device.name, "not_emulated": list(NOT_EMULATED)}
                cores = min(held.thread_count, cores or held.thread_count)
            if cores and given.get("thread_count") in {0, (0,)}:
                given["thread_count"] = cores if given["thread_count"] == 0 else (cores,)
            limits = Limits(wall_s=timeout_s, memory_bytes=memory_bytes, cpus=cpus)
            with RunProgress() as progress:
                how = How(resume=resume, folder=out, limits=limits, listener=progress, notes=notes)
                if not here and given["programs"] is None:
                    return _there(given["target"], how)
                return function(*arguments, how=how, **given)

        return cast("F", options(answers(measured)))

    return add


def _there(target: str, how: "How") -> Answer:
    """What edge-harness on the target makes of all that was typed, with the files that are named in it."""
    from harness.app.on_target import hand_over as hand_over_to

    context = click.get_current_context()
    given = context.params
    if here := next((name for name in ("report", "meter", "keep", "folder") if given.get(name)), None):
        raise click.UsageError(f"--{here} is about files here: leave it out with edge-harness on the target")
    values = [given.get(name) or () for name in ("model", "models", "draft", "drafts", "prompts", "text", "cases")]
    paths = {Path(v) for value in values for v in ((value,) if isinstance(value, str | Path) else value)}
    command: list[str] = context.meta["words"]
    pieces = {piece for word in command for piece in (word, word.partition("=")[2])}
    files = {piece: Path(piece) for piece in pieces if Path(piece) in paths and Path(piece).is_file()}
    found = hand_over_to(target, command, files, how)
    return Answer(lambda: json.loads(found.text), lambda: click.echo(clean_lines(found.text), nl=False), found.status)


def sides_of(given: dict[str, Any], models: object = True) -> list[tuple[str, "ServedJob | None"]]:
    """The runtimes of ``--runtime``, separated by commas, each with what a server is asked where it is one.

    What decides it is taken out of ``given``.

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
    if not any(url for _, url in parts):
        return [(name, None) for name, _ in parts]
    from harness.domain.scenario import Scenario
    from harness.measure.jobs.served import ServedJob
    from harness.runtimes.server.stream import Patience

    patience = Patience(silence_s=SILENCE_S)
    asked = [
        ServedJob(url=url, model=model, scenario=Scenario(), patience=patience) if url else None for _, url in parts
    ]
    return [(name, job) for (name, _), job in zip(parts, asked, strict=True)]
