"""How every verb shows itself and what it refuses: headings, an example, defaults of a file.

Options come from annotations (:mod:`harness.cli._parameters`); the example is the last paragraph of a verb's
docstring. All of it holds for the verbs of plug-ins too.
"""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from harness.cli._output import Answer
from harness.cli._parameters import built, parameters_of
from harness.domain.foreign import toml_in
from harness.domain.option import HEADINGS
from harness.errors import BadDataError, EngineError, InputError

CONFIG: Final = "edge-harness.toml"
_UNBROKEN: Final = "\u2011"


def refuse_typed(names: Collection[str], beside: str, *, when: object = True) -> None:
    """Refuse those of ``names`` that were typed, ``when`` they say nothing to what is asked for (``beside``).

    Raises:
        click.UsageError: One was typed.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if when and name in names and name in typed(context):
            flag = parameter.opts[0]
            if isinstance(parameter, click.Argument):
                flag = parameter.human_readable_name.strip("[].")
            elif context.params[name] is False:
                flag = parameter.secondary_opts[0]
            raise click.UsageError(f"{flag} has no meaning {beside}")


def path_of(context: click.Context) -> str:
    """The verb as it is typed: ``workloads run``."""
    return context.command_path.partition(" ")[2] or context.info_name or ""


def typed(context: click.Context) -> set[str]:
    """Names of the parameters that the user gave on the command line."""
    return {
        name for name in context.params if context.get_parameter_source(name) == ParameterSource.COMMANDLINE
    }


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
    """A command with grouped help, an example, and defaults from a file."""

    context_class = HelpContext

    def __init__(
        self, name: str, callback: Callable[..., Any], params: list[click.Parameter], help: str = ""
    ) -> None:
        text, _, example = help.partition("Example: ")
        params = [*parameters_of(callback), *params]
        super().__init__(name, callback=callback, params=params, help=text.strip(), epilog=example)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with the defaults of the user's file.

        An option that takes one value and was given two is refused: the last one alone would count.
        """
        ctx.default_map = file_defaults(ctx)
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for option in order:
            is_single = isinstance(option, click.Option) and not option.multiple and not option.is_flag
            if is_single and order.count(option) > 1:
                raise click.UsageError(f"{option.opts[0]}: found more than one, expected it once", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; print its answer, if it gives one."""
        assert self.callback is not None
        as_json = ctx.params.pop("as_json", False)
        answer = ctx.invoke(self.callback, **built(self.callback, ctx.params))
        if isinstance(answer, Answer):
            return answer.told(path_of(ctx) if as_json else "")
        return answer

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options under their headings."""
        for heading in HEADINGS:
            rows: list[tuple[str, str]] = []
            for parameter in self.get_params(ctx):
                record = parameter.get_help_record(ctx)
                is_here = getattr(parameter, "heading", HEADINGS[-1]) == heading
                if record and is_here and isinstance(parameter, click.Option):
                    rows.append(record)
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example."""
        del ctx
        if self.epilog:
            with formatter.section("Example"):
                formatter.write_text(self.epilog)


def verb(function: Callable[..., Any]) -> Verb:
    """A verb of the function of that name, with the parameters that its annotations declare."""
    return click.command(cls=Verb)(function)


class Verbs(click.Group):
    """A group of verbs."""

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
        ctx.meta.setdefault("words", list(args))
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx) from error


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
    """Defaults of a verb from the user's file, by the names of parameters: those of its table, such as ``[run]``.

    A file may lie in a stranger's folder: what it may set names no file, no server and nothing required.

    Raises:
        BadDataError: It is no TOML, or a key is no option.
        InputError: A value is none that the option takes, or that a file may set.
    """
    file = _config_file()
    if not file.is_file():
        return {}
    table: Any = toml_in(file)
    if file.name != CONFIG:
        table = table["tool"]["edge-harness"]
    root = context.find_root().command
    assert isinstance(root, click.Group)
    known = root.list_commands(context)
    for key, value in table.items():
        if key not in known or not isinstance(value, dict):
            raise BadDataError(file, key, repr(value), "the name of a command with a table of options")
    for word in path_of(context).split():
        table = table.get(word, {})
    flags = {flag: parameter for parameter in context.command.params for flag in parameter.opts}
    defaults: dict[str, Any] = {}
    for key, value in table.items():
        parameter = flags.get(f"--{key}")
        if parameter is None:
            raise BadDataError(file, key, repr(value), f"an option of {path_of(context)}")
        defaults[parameter.name or ""] = _default(parameter, value, f"{file}: {key}", context)
    return defaults


def _default(parameter: click.Parameter, value: Any, place: str, context: click.Context) -> Any:
    """A value of the file as it would be typed."""
    texts = [str(part) for part in (value if isinstance(value, list) else [value])]
    if isinstance(parameter.type, click.Path) or parameter.required or any("://" in text for text in texts):
        raise InputError(
            f"{place}: give this on the command line: a file sets no path, no server, nothing required"
        )
    found: Any = ",".join(texts)
    if parameter.multiple:
        found = texts
    try:
        parameter.type_cast_value(context, found)
    except click.BadParameter as error:
        raise InputError(f"{place}: {error.message}") from None
    return found
