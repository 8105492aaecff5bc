"""How every verb shows itself and what it refuses: headings, an example, what excludes what.

Options come from annotations (:mod:`harness.cli._parameters`); the example is the last paragraph of a verb's
docstring. All of it holds for the verbs of plug-ins too.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Final

import click
from click import _textwrap
from click.core import ParameterSource

from harness.cli._parameters import built, parameters_of
from harness.core.errors import EngineError
from harness.core.option import HEADINGS
from harness.show.output import Output

_textwrap.TextWrapper.wordsep_re = _textwrap.TextWrapper.wordsep_simple_re  # no flag is broken at its hyphen


def refuse_typed(names: Collection[str], beside: str, *, when: object = True) -> None:
    """Refuse those of ``names`` that were typed, ``when`` they say nothing to what is asked for (``beside``).

    Raises:
        click.UsageError: One was typed.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        if when and parameter.name in names and parameter.name in typed(context):
            raise click.UsageError(f"{parameter.get_error_hint(context)} has no meaning {beside}")


def path_of(context: click.Context) -> str:
    """The verb as it is typed: ``workloads run``."""
    return context.command_path.partition(" ")[2] or context.info_name or ""


def typed(context: click.Context) -> set[str]:
    """Names of the parameters that the user gave on the command line."""
    return {
        name for name in context.params if context.get_parameter_source(name) == ParameterSource.COMMANDLINE
    }


HANDED: Final = "edge-harness: the answer is handed back"
"""Of a context that prints no answer."""


class Verb(click.Command):
    """A command with grouped help and an example."""

    def __init__(
        self, name: str, callback: Callable[..., Any], params: list[click.Parameter], help: str | None = ""
    ) -> None:
        text, _, example = (help or "").partition("Example: ")  # PYTHONOPTIMIZE=2 takes docstrings away
        params = [*parameters_of(callback), *params]
        super().__init__(name, callback=callback, params=params, help=text.strip(), epilog=example)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; print its answer, if it gives one and the context does not want to have it (``HANDED``)."""
        assert self.callback is not None
        given = built(self.callback, ctx.params)
        with self._manifest(ctx, given):
            measuring = given.get("measuring")
            if measuring is not None and measuring.is_handed_over:
                answer = measuring.handed_over()
            else:
                answer = ctx.invoke(self.callback, **given)
        if isinstance(answer, Output) and not ctx.meta.get(HANDED):
            return answer.told(path_of(ctx) if ctx.params.get("as_json") else "")
        return answer

    def _manifest(self, ctx: click.Context, given: dict[str, Any]) -> AbstractContextManager[None]:
        """What the folder of results is told of a verb that measures; nothing where there is no such folder."""
        folder = getattr(given.get("measuring"), "out", None)
        if folder is None:
            return nullcontext()
        from harness.records.manifest import manifest

        named = [given.get(name) or () for name in ("models", "model", "url", "path", "system")]
        asked = [str(one) for value in named for one in (value if isinstance(value, tuple) else (value,))]
        if "server:" in str(given.get("runtime", "")) and not asked:
            asked = [str(given["runtime"])]
        return manifest(folder, ctx.meta.get("words", (ctx.info_name or "",)), asked)

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
    """A group of verbs; those that ``headed`` names stand under its headings in the help."""

    command_class = Verb
    headed: ClassVar[dict[str, list[str]]] = {}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Verbs with the whole first sentence of each."""
        others = self.list_commands(ctx)
        for names in self.headed.values():
            others = [name for name in others if name not in names]
        for heading, names in {**self.headed, "Commands": others}.items():
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
