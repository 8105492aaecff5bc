"""How every verb shows itself and what it refuses: headings, an example, near misses, defaults of a file, exclusions.

Options come from annotations (:mod:`harness.cli._parameters`); examples and exclusions from one table,
``harness/data/commands.toml``. Both hold for every verb, those of plug-ins included.
"""

import re
from collections.abc import Callable, Iterable
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
from harness.errors import BadDataError, InputError

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
        flag = self.beside or self.without
        other = _flags(context.command).get(flag)
        if other is None or (self.verbs and path_of(context) not in self.verbs):
            return []
        value = context.params.get(other.name or "")
        text = str(value)
        if self.value:
            holds = re.fullmatch(self.value, text, re.IGNORECASE) is not None
        elif flag in other.secondary_opts:
            holds = value is False
        else:
            holds = bool(value)
        if holds != bool(self.beside):
            return []
        if self.beside:
            shown = f"with {flag}"
        else:
            shown = f"without {flag}"
        if self.beside and self.value and value is not None:
            shown += f" {text.removesuffix('.0')}"
        reason = ""
        if self.why:
            reason = f": {self.why}"
        given = typed(context)
        known = _flags(context.command)
        asked = [name for name in self.refuse if name in known and known[name].name in given]
        return [f"{name} has no meaning {shown}{reason}" for name in asked]


RULES: Final = [
    Rule(**{("beside" if key == "with" else key): value for key, value in row.items()})
    for row in TABLES["rules"]
]


def path_of(context: click.Context) -> str:
    """The verb as it is typed: ``workloads run``."""
    return context.command_path.partition(" ")[2] or context.info_name or ""


def typed(context: click.Context) -> dict[str, click.Parameter]:
    """Parameters that the user gave on the command line or by a variable, by their names."""
    parameters = {p.name or "": p for p in context.command.params}
    sources = {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}
    given = {name: p for name, p in parameters.items() if name in context.params}
    return {name: p for name, p in given.items() if context.get_parameter_source(name) in sources}


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

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._is_whole = False
        super().__init__(*arguments, **settings)

    @property
    def params(self) -> list[click.Parameter]:
        """Those of the verb's annotations, then those of its decorators; read when first asked for."""
        if not self._is_whole and self.callback is not None:
            self._is_whole = True
            self._params[:0] = parameters_of(self.callback)
        return self._params

    @params.setter
    def params(self, params: list[click.Parameter]) -> None:
        self._params = params

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """A context whose defaults are those of the user's file."""
        if parent is not None:
            words = [*parent.command_path.split()[1:], info_name or ""]
            extra["default_map"] = file_defaults(self, words, parent.find_root().command)
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; a bad default names its file.

        An option that takes one value and was given two is refused: the last one alone would count.
        """
        try:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            for option in (
                p for p in order if isinstance(p, click.Option) and not p.multiple and not p.is_flag
            ):
                if order.count(option) > 1:
                    raise click.UsageError(
                        f"{option.opts[0]} was given {order.count(option)} times, expected once", ctx
                    )
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            name = ""
            if error.param:
                name = error.param.name or ""
            if ctx.get_parameter_source(name) is ParameterSource.DEFAULT_MAP:
                raise InputError(f"{_config_file()}: {path_of(ctx)}: {name}: {error.message}") from None
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb, unless the table excludes something that was typed.

        Print its answer, if it gives one.
        """
        for rule in RULES:
            for fault in rule.faults(ctx):
                raise click.UsageError(fault, ctx)
        if self.callback is None:
            return None
        as_json = ctx.params.pop("as_json", False)
        answer = ctx.invoke(self.callback, **built(self.callback, ctx.params))
        if isinstance(answer, Answer):
            return answer.told(path_of(ctx) if as_json else "")
        return answer

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options under their headings; a default from the user's file says so."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):
                continue
            heading = "Options"
            if isinstance(parameter, Flag):
                heading = parameter.heading
            if "--help" in parameter.opts:
                heading = "Output"
            if parameter.name in (ctx.default_map or {}):
                value = (ctx.default_map or {})[parameter.name]
                if isinstance(value, list):
                    value = ", ".join(value)
                said = record[1].partition(" [default")[0].rstrip()
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
        commands = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
        if commands:
            with formatter.section(heading):
                formatter.write_dl([(name, command.get_short_help_str(200)) for name, command in commands])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that is typed."""
        name = args[0]
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


def file_defaults(command: click.Command, words: list[str], root: click.Command) -> dict[str, Any]:
    """Defaults of one verb of ``root`` from the user's file, by the names of parameters.

    A key of the file's top is for every verb that has the option; a table such as ``[run]`` or
    ``[workloads.run]`` for that verb. A file may lie in a stranger's folder: what it may set names no file,
    no server and nothing required.

    Raises:
        BadDataError: It is no TOML, a key is no option, or a value is nothing that a file may set.
    """
    file = _config_file()
    if not file.is_file():
        return {}
    document = toml_in(file)
    if file.name != CONFIG:
        document = document["tool"]["edge-harness"]
    flags = _flags(command)
    defaults: dict[str, Any] = {}
    table: Any = document
    for depth, word in enumerate(("", *words)):
        if word:
            table = table.get(word, {})
        if not isinstance(table, dict):
            raise BadDataError(file, word, repr(table), "a table of options")
        for key, value in table.items():
            if isinstance(value, dict):
                continue
            parameter = flags.get(f"--{key}")
            if parameter is not None:
                defaults[parameter.name or ""] = _default(parameter, value, f"{file}: {key}")
            elif depth == len(words) or f"--{key}" not in _all_flags(root):
                raise BadDataError(file, key, repr(value), f"an option of {' '.join(words)}")
    return defaults


def _all_flags(command: click.Command) -> set[str]:
    """The flags of a command and of all that are below it."""
    found = set(_flags(command))
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            verb = command.get_command(context, name)
            if verb:
                found |= _all_flags(verb)
            else:
                found |= set()
    return found


def _default(parameter: click.Parameter, value: Any, place: str) -> Any:
    """A value of the file as it would be typed."""
    if isinstance(value, list):
        texts = [str(part) for part in value]
    else:
        texts = [str(value)]
    if isinstance(parameter.type, click.Path) or parameter.required or any("://" in text for text in texts):
        raise InputError(
            f"{place}: give this on the command line: a file sets no path, no server, nothing required"
        )
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise InputError(f"{place}: found {value!r}, expected true or false")
        return value
    if parameter.multiple:
        return texts
    return ",".join(texts)
