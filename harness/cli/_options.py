"""Every option that more than one verb takes: one name, one meaning, one set of bounds.

A verb lists those it honours; what it does not list, it refuses. Amounts are written as people write them in all of
them: ``128k`` tokens, ``1.5GiB``, ``0.6x`` of a file, ``0,2048`` for several.
"""

import json
import math
import os
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from harness.cli._effect import refuse_typed, typed
from harness.cli._output import Answer, F, answers
from harness.printable import clean_lines
from harness.units import parse_bytes

if TYPE_CHECKING:
    from harness.measure.jobs.served import ServedJob
    from harness.measure.pipeline import How as How  # noqa: PLC0414  verbs that measure name it

FILE: Final = click.Path(dir_okay=False, path_type=Path)
FILE_HERE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER: Final = click.Path(file_okay=False, path_type=Path)
FOLDER_HERE: Final = click.Path(exists=True, file_okay=False, path_type=Path)
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


CELLS: Final = Ending(".json", ".csv", ".parquet")
MOST_TOKENS: Final = 1 << 24
"""No model has a context of more; a number above is a slip of the keyboard."""
_MOST_SHARES: Final = 10
"""Shares of a model's file in a RAM budget: cache and scratch of a small model are some times its weights, no more."""


class Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """A size in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of the text; a usage error says what was found and expected."""
        if isinstance(value, int):
            return value
        try:
            return parse_bytes(value)
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


def context(default: int = 4096) -> Callable[[F], F]:
    """``--context``."""
    return _count(("--context", "-c", "context_tokens"), Count(64), default, "Tokens that the KV cache holds.")


def prompt(least: int = 1) -> Callable[[F], F]:
    """``--prompt``."""
    return _count(("--prompt", "-p", "prompt_tokens"), Count(least), 512, "Tokens of the prompt.")


def tokens(default: int, least: int = 1) -> Callable[[F], F]:
    """``--tokens``; ``--new`` and ``-n`` are the same."""
    return _count(("--tokens", "--new", "-n", "new_tokens"), Count(least), default, "New tokens after each prompt.")


def repetitions(default: int = 5) -> Callable[[F], F]:
    """``--repetitions``."""
    return _count(("--repetitions", "-r"), Count(1, 1000), default, "Clean samples wanted of each test.")


def _count(names: tuple[str, ...], kind: Count, default: int, words: str) -> Callable[[F], F]:
    return click.option(*names, type=kind, default=default, show_default=True, help=words)


quant = click.option("--quant", "-q", default="", help="Quantisation mixture; the card's usual one unless given.")
depths = click.option(
    "--depth", "depths", default="0", callback=numbers(), help="Tokens already in the cache; or several: 0,2048."
)
threads = click.option(
    "--threads", "-t", "thread_count", type=Count(0, 1024), default=0, help="CPU threads; 0: the physical cores."
)
ubatch = click.option(
    "--ubatch", "ubatch_tokens", type=Count(1), default=512, show_default=True, help="Tokens of a physical batch."
)
kv_type = click.option("--kv-type", default="F16", show_default=True, help="ggml type of the KV cache.")
api = click.option(
    "--api", "--backend", "api", default="", help="cpu, metal, cuda ...; the device's usual one unless given."
)
layout = together(
    click.option("--flash-attention/--no-flash-attention", default=True, help="Fuse attention."),
    click.option("--repack/--no-repack", default=True, help="Let llama.cpp rewrite weights for the CPU."),
    click.option("--mmap/--no-mmap", default=True, help="Map the file instead of reading it."),
)
emulated = click.option(
    "--as", "emulated", metavar="DEVICE", help="Hold the run to the memory and cores that DEVICE gives one app."
)
prompts = together(
    click.option(
        "--prompts", default="code", metavar="code|prose|FILE", show_default=True,
        help="Shipped class, or a JSON list of strings.",
    ),
    click.option("--prompt-count", type=Count(1, 10_000), default=None, help="Run only so many of the prompts."),
)  # fmt: skip
memory_limit = click.option("--memory-limit", "memory_bytes", type=Size(), help="Such as 900MB or 1.5GiB.")


def runtime(*names: str, several: bool = False) -> Callable[[F], F]:
    """``--runtime``, also under other ``names``; :func:`sides_of` reads it."""
    words = "Software that executes the model" + ("; several in turns: llamacpp,ik,server:URL." if several else ".")
    return click.option("--runtime", *names, "runtime", default="llamacpp", show_default=True, help=words)


prefix_cache = click.option("--prefix-cache", "reuse", is_flag=True, help="Let the server take prompts from its cache.")
server = together(
    click.option("--url", default="", metavar="URL", help="Server to measure, with --runtime server."),
    click.option("--model", "server_model", default="", metavar="NAME", help="The server's name for its model."),
    click.option(
        "--key-variable", default="EDGE_HARNESS_API_KEY", show_default=True, metavar="NAME",
        help="Environment variable that holds the server's key.",
    ),
    click.option(
        "--silence", "silence_s", type=Amount(0, 1e5), default=60.0, show_default=True,
        help="Longest time that a server may send nothing, in seconds.",
    ),
)  # fmt: skip


LAYERS: Final[dict[str, Any]] = {"type": Count(0, all="all", auto="auto"), "metavar": "LAYERS"}


def _shares(_context: click.Context, param: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        shares = (math.nan,)
    if not all(0 <= share < math.inf for share in shares) or (shares and not sum(shares)):
        raise click.BadParameter(f"found {text!r}, expected shares such as 3,1", param=param)
    return shares


placement = together(
    click.option("--gpu-layers", **LAYERS, default="all", show_default=True, help="Layers on the GPU (-ngl)."),
    click.option("--cpu-moe", type=Count(0), default=0, help="Experts of so many blocks stay with the CPU."),
    click.option("--tensor-split", default="", callback=_shares, metavar="A,B", help="Share of each card (-ts)."),
    click.option("--split-mode", type=click.Choice(["layer", "row"]), default="layer", show_default=True),
    click.option("--main-gpu", type=Count(0, 63), default=0, help="Card for what is not split."),
    click.option("--kv-on-gpu/--no-kv-on-gpu", default=True, help="The cache lies with its block."),
)
"""The fields of :class:`harness.domain.placement.Placement`."""
on_target = together(
    click.option("--on", "target", default="local", help="Where: local, ssh://user@host, adb:// or adb://SERIAL."),
    click.option("--programs", type=FOLDER, help="Folder here with llama-bench for --on, where no edge-harness is."),
)


def measuring(timeout_s: float = 1800.0, *, bound: bool = True) -> Callable[[F], F]:
    """What every verb that measures takes; it is called with its ``how``. ``bound``: its process can be bound to CPUs.

    ``--as`` and ``--memory-limit``, where the verb has them, are in its limits, its notes and the threads.
    """
    options = together(
        click.option(
            "--timeout", "timeout_s", type=Amount(0, 1e6), default=timeout_s, show_default=True,
            help="Longest time of each child process, in seconds.",
        ),
        click.option("--wait/--no-wait", default=True, help="Wait for another measured run on this machine."),
        click.option("--resume", is_flag=True, help="Take results of the last day where the same was measured."),
        click.option("--out", "-o", type=FOLDER, help="Also write each record there."),
    )  # fmt: skip

    if bound:
        options = together(
            click.option(
                "--nice", type=Count(0, 19), default=0, show_default=True, help="Priority is lower by so much."
            ),
            click.option(
                "--cpus",
                callback=numbers(0, 4095),
                metavar="N,N",
                help="CPUs to run on, such as 0,2; all unless given.",
            ),
            options,
        )

    def add(function: F) -> F:
        @wraps(function)
        def measured(
            *arguments: Any,
            timeout_s: float,
            wait: bool,
            resume: bool,
            out: Path | None,
            nice: int = 0,
            cpus: tuple[int, ...] = (),
            memory_bytes: int | None = None,
            emulated: str | None = None,
            **given: Any,
        ) -> Any:
            from harness.cli._progress import RunProgress
            from harness.measure.child import Limits
            from harness.measure.pipeline import How

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
            if here and given.get("programs") is not None:
                raise click.UsageError("--programs is for another machine: name it with --on")
            if emulated:
                from harness.app.emulate import NOT_EMULATED, emulation_of
                from harness.app.resolve import resolve_device

                held = emulation_of(resolve_device(emulated), memory_bytes=memory_bytes)
                memory_bytes = held.memory_limit_bytes
                notes |= {"emulates": held.device, "not_emulated": list(NOT_EMULATED)}
                cores = min(held.thread_count, cores or held.thread_count)
            if cores and not given.get("thread_count", True):
                given["thread_count"] = cores
            if cores and given.get("threads") == (0,):
                given["threads"] = (cores,)
            limits = Limits(wall_s=timeout_s, memory_bytes=memory_bytes, nice=nice, cpus=cpus)
            with RunProgress() as progress:
                how = How(wait=wait, resume=resume, folder=out, limits=limits, listener=progress, notes=notes)
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


def sides_of(given: dict[str, Any]) -> list[tuple[str, "ServedJob | None"]]:
    """The runtimes of ``--runtime``, separated by commas, each with what a server is asked where it is one.

    What decides it is taken out of ``given``.
    """
    runtimes, url, model = (given.pop(name) for name in ("runtime", "url", "server_model"))
    same = {"model": model, "key_variable": given.pop("key_variable"), "reuse": given.pop("reuse", False)}
    silence_s = given.pop("silence_s")
    parts = [part.strip().partition(":")[::2] for part in runtimes.split(",")]
    if any(own for name, own in parts if name != "server") or not all(own or url for n, own in parts if n == "server"):
        raise click.UsageError(f"--runtime: found {runtimes!r}, expected names, or server:URL, or server with --url")
    if len(set(parts)) < len(parts):
        raise click.UsageError(f"--runtime: found {runtimes!r}, expected each of them once")
    if "server" not in dict(parts):
        refuse_typed({"url", "server_model", "reuse", "silence_s", "key_variable"}, "without --runtime server")
        return [(name, None) for name, _ in parts]
    from harness.domain.scenario import Scenario
    from harness.measure.jobs.served import ServedJob
    from harness.runtimes.server.stream import Patience

    same |= {"scenario": Scenario(), "patience": Patience(silence_s=silence_s)}
    return [(name, ServedJob(url=own or url, **same) if name == "server" else None) for name, own in parts]


def one_side(context: click.Context, given: dict[str, Any], models: object) -> tuple[str, "ServedJob | None"]:
    """The runtime of a verb that takes one, as :func:`sides_of` and :func:`check_sides` have it (UsageError)."""
    side, *others = sides = sides_of(given)
    check_sides(context, sides, models)
    if others:
        raise click.UsageError(f"--runtime: found {context.params['runtime']!r}, expected one")
    return side


def check_sides(context: click.Context, sides: list[tuple[str, "ServedJob | None"]], models: object) -> None:
    """Refuse what a server decides by itself, and runtimes that need ``models`` where none is named (UsageError)."""
    servers = [job for _, job in sides if job]
    of_others = {"target", "memory_bytes", "emulated", "resume", "nice", "cpus"} if servers else set()
    for option in context.command.params:
        if option.name in of_others and context.params[option.name] not in {None, False, (), "local"}:
            raise click.UsageError(f"{option.opts[0]} is not for a server: it is what it is now")
    threads = context.params.get("threads") or (context.params["thread_count"],)
    if len(servers) == len(sides) == 1 and threads != (0,):
        raise click.UsageError("--threads: a server has its own; set them where it is started")
    if not models and len(servers) < len(sides):
        raise click.MissingParameter(param_hint="MODEL", param_type="argument")


def hand_over(
    context: click.Context, verb: click.Command, because: str, handled: tuple[str, ...] = (), **given: Any
) -> int:
    """Do as another verb does, with the options that were typed; one that the verb lacks is refused."""
    theirs = {parameter.name: parameter for parameter in verb.params}
    for name, parameter in typed(context).items():
        if name in {*given, *handled, because} or parameter.param_type_name == "argument":
            continue
        if name not in theirs:
            flag = f"--{because.replace('_', '-')}"
            raise click.UsageError(
                f"{parameter.opts[0]} has no meaning with {flag}: that is the verb `{verb.name}`, which takes "
                f"{', '.join(sorted(p.opts[0] for p in verb.params if p.param_type_name == 'option'))}"
            )
        given[name] = context.params[name]
    # Defaults are read as if they had been typed: `invoke` alone calls no callback of theirs.
    usual = verb.make_context(verb.name, [], parent=context, resilient_parsing=True).params
    return int(context.invoke(verb, **{**usual, **given}) or 0)
