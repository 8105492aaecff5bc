"""How every verb shows itself and what it refuses: headings, an example, near misses, defaults of a file, exclusions.

Options come from annotations (:mod:`harness.cli._parameters`); examples and exclusions from one table,
``harness/data/commands.toml``. Both hold for every verb, those of plug-ins included.
"""

import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from click.core import ParameterSource

from harness.cli._output import Answer
from harness.cli._parameters import Flag, built, parameters_of
from harness.domain.base import shipped_table
from harness.domain.foreign import toml_in
from harness.domain.option import HEADINGS
from harness.errors import BadDataError, EngineError, InputError

TABLES: Final = shipped_table("data/commands.toml")
CONFIG: Final = "edge-harness.toml"
_UNBROKEN: Final = "\u2011"


class Rule(NamedTuple):
    """Options that say nothing ``beside`` another one, or where it is absent (``without``).

    All are named by flags.

    ``value`` is a pattern that the other option's value has to match, case ignored; empty for any value.
    """

    refuse: tuple[str, ...]
    beside: str = ""
    without: str = ""
    value: str = ""
    verbs: tuple[str, ...] = ()
    why: str = ""

    def faults(self, context: click.Context) -> list[str]:
        """One message for each typed option that this rule refuses."""
        known = _flags(context.command)
        other = known.get(self.beside or self.without)
        if other is None or (self.verbs and path_of(context) not in self.verbs):
            return []
        value = context.params.get(other.name or "")
        holds = bool(value)
        if self.value:
            holds = re.fullmatch(self.value, str(value), re.IGNORECASE) is not None
        if holds != bool(self.beside):
            return []
        shown = f"without {self.without}"
        if self.beside:
            shown = f"with {self.beside}"
            if self.value:
                shown += f" {value}"
        if self.why:
            shown += f": {self.why}"
        given = typed(context)
        asked = [name for name in self.refuse if name in known and known[name].name in given]
        return [f"{name} has no meaning {shown}" for name in asked]


RULES: Final = [Rule(**row) for row in TABLES["rules"]]


def refuse_typed(names: Collection[str], beside: str, *, when: object = True) -> None:
    """Refuse those of ``names`` that were typed, ``when`` they say nothing to what is asked for (``beside``).

    For what only the data tells, such as a model without experts; options that exclude each other stand in
    the table.

    Raises:
        click.UsageError: One was typed.
    """
    context = click.get_current_context()
    for name, option in typed(context).items():
        if when and name in names:
            flags = option.opts
            if context.params[name] is False:
                flags = option.secondary_opts
            raise click.UsageError(f"{flags[0]} has no meaning {beside}")


def path_of(context: click.Context) -> str:
    """The verb as it is typed: ``workloads run``."""
    return context.command_path.partition(" ")[2] or context.info_name or ""


def typed(context: click.Context) -> dict[str, click.Parameter]:
    """Parameters that the user gave on the command line or by a variable, by their names."""
    sources = {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}
    parameters = {p.name or "": p for p in context.command.params if p.name in context.params}
    return {name: p for name, p in parameters.items() if context.get_parameter_source(name) in sources}


def _flags(command: click.Command) -> dict[str, click.Parameter]:
    """Parameters by each of their flags; an argument by its name in capitals."""
    names = {p.human_readable_name.strip("[]."): p for p in command.params if p.param_type_name == "argument"}
    return names | {flag: p for p in command.params for flag in (*p.opts, *p.secondary_opts)}


class Formatter(click.HelpFormatter):
    """Help that is never broken at the hyphen of a flag or a name."""

    def write_text(self, text: str) -> None:
        """A paragraph."""
        super().write_text(text.replace("-", _UNBROKEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """A list of definitions."""
        super().write_dl([(term, text.replace("-", _UNBROKEN)) for term, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        """All of it."""
        return super().getvalue().replace(_UNBROKEN, "-")


class HelpContext(click.Context):
    """A context whose help is written by :class:`Formatter`."""

    formatter_class = Formatter


class Verb(click.Command):
    """A command with grouped help, defaults from a file, and the exclusions of the one table."""

    context_class = HelpContext
    _own: list[click.Parameter] | None = None

    @property
    def params(self) -> list[click.Parameter]:
        """Those of the verb's annotations, then those of its decorators; read when first asked for."""
        if self._own is None and self.callback is not None:
            self._own = [*parameters_of(self.callback), *self._decorated]
        return self._own or []

    @params.setter
    def params(self, params: list[click.Parameter]) -> None:
        self._decorated = params

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with the defaults of the user's file.

        An option that takes one value and was given two is refused: the last one alone would count.
        """
        ctx.default_map = file_defaults(ctx)
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for option in order:
            is_single = isinstance(option, click.Option) and not option.multiple and not option.is_flag
            if is_single and order.count(option) > 1:
                count = order.count(option)
                raise click.UsageError(f"{option.opts[0]} was given {count} times, expected once", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb, unless the table excludes something that was typed.

        Print its answer, if it gives one.
        """
        for rule in RULES:
            for fault in rule.faults(ctx):
                raise click.UsageError(fault, ctx)
        assert self.callback is not None
        as_json = ctx.params.pop("as_json", False)
        answer = ctx.invoke(self.callback, **built(self.callback, ctx.params))
        if isinstance(answer, Answer):
            return answer.told(path_of(ctx) if as_json else "")
        return answer

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options under their headings; a default from the user's file says so."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        defaults = ctx.default_map or {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):
                continue
            heading = "Output"
            if isinstance(parameter, Flag):
                heading = parameter.heading
            if parameter.name in defaults:
                value = defaults[parameter.name]
                if isinstance(value, list):
                    value = ", ".join(value)
                said = record[1].partition("  [default")[0]
                record = (record[0], f"{said}  [{value} in {_config_file().name}]")
            sections[heading].append(record)
        for heading, rows in sections.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One example: the table's, or what a plug-in's command calls its epilog."""
        if example := TABLES["examples"].get(path_of(ctx)) or self.epilog:
            with formatter.section("Example"):
                formatter.write_text(example)


def verb(function: Callable[..., Any]) -> Verb:
    """A verb of the function of that name, with the parameters that its annotations declare.

    A decorator of click keeps the first function's docstring for all that it is given later, so each gets its
    own.
    """
    return click.command(cls=Verb)(function)


class Verbs(click.Group):
    """A group of verbs; a name that is none of them gets the nearest one."""

    command_class = Verb
    context_class = HelpContext

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Verbs with the whole first sentence of each."""
        self.list_under(ctx, formatter, "Commands", self.list_commands(ctx))

    def list_under(
        self, ctx: click.Context, formatter: click.HelpFormatter, heading: str, names: list[str]
    ) -> None:
        """Those of some verbs that there are, under a heading; nothing without any."""
        rows = []
        for name in names:
            try:
                command = self.get_command(ctx, name)
            except EngineError:
                rows.append((name, "(not installed)"))
                continue
            if command is not None:
                rows.append((name, command.get_short_help_str(200)))
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that is typed; the words, its own first, are kept for the edge-harness on a target."""
        name = args[0]
        ctx.meta.setdefault("words", list(args))
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        close = get_close_matches(name, self.list_commands(ctx), n=2, cutoff=0.5)
        hint = ""
        if close:
            hint = f"; did you mean {' or '.join(map(repr, close))}?"
        raise click.UsageError(f"no command named {name!r}{hint}", ctx)


def _config_file() -> Path:
    """The nearest ``edge-harness.toml``, or ``pyproject.toml`` with our table, in this folder or above it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        project = folder / "pyproject.toml"
        if (folder / CONFIG).is_file():
            return folder / CONFIG
        if project.is_file() and b"[tool.edge-harness" in project.read_bytes():
            return project
    return here / CONFIG


def file_defaults(context: click.Context) -> dict[str, Any]:
    """Defaults of a verb from the user's file, by the names of parameters.

    A key of the file's top is for every verb that has the option; a table such as ``[run]`` or
    ``[workloads.run]`` for that verb. A file may lie in a stranger's folder: what it may set names no file,
    no server and nothing required.

    Raises:
        BadDataError: It is no TOML, a key is no option, or a value is nothing that a file may set.
        InputError: A value is none that the option takes.
    """
    file = _config_file()
    if not file.is_file():
        return {}
    table: Any = toml_in(file)
    if file.name != CONFIG:
        table = table["tool"]["edge-harness"]
    words = path_of(context).split()
    flags = _flags(context.command)
    defaults: dict[str, Any] = {}
    for depth, word in enumerate(("", *words)):
        if word:
            table = table.get(word, {})
        if not isinstance(table, dict):
            raise BadDataError(file, word, repr(table), "a table of options")
        for key, value in table.items():
            parameter = flags.get(f"--{key}")
            if isinstance(value, dict):
                continue
            if parameter is not None:
                defaults[parameter.name or ""] = _default(parameter, value, f"{file}: {key}", context)
            elif depth == len(words) or f"--{key}" not in _all_flags(context.find_root().command):
                raise BadDataError(file, key, repr(value), f"an option of {' '.join(words)}")
    return defaults


def _all_flags(command: click.Command) -> set[str]:
    """The flags of a command and of all that are below it."""
    found = set(_flags(command))
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found |= _all_flags(command.get_command(context, name) or click.Command(name))
    return found


def _default(parameter: click.Parameter, value: Any, place: str, context: click.Context) -> Any:
    """A value of the file as it would be typed."""
    texts = [str(part) for part in (value if isinstance(value, list) else [value])]
    if isinstance(parameter.type, click.Path) or parameter.required or any("://" in text for text in texts):
        raise InputError(
            f"{place}: give this on the command line: a file sets no path, no server, nothing required"
        )
    if isinstance(parameter, click.Option) and parameter.is_flag:
        if isinstance(value, bool):
            return value
        raise InputError(f"{place}: found {value!r}, expected true or false")
    found: Any = ",".join(texts)
    if parameter.multiple:
        found = texts
    try:
        parameter.type_cast_value(context, found)
    except click.BadParameter as error:
        raise InputError(f"{place}: {error.message}") from None
    return found
