"""The command line: one file a verb; each one parses, calls, renders and returns an exit status.

A verb is a module in this package with a command of the same name, or a command that an installed package declares
under the entry point group ``edge_harness.verbs``. Modules whose names begin with an underscore are shared helpers.
Verb modules import nothing heavy at the top: no engine, no numpy.
"""

import sys
from importlib import import_module
from itertools import pairwise
from pkgutil import iter_modules
from typing import Final

import click

from harness import __version__, plugins
from harness.errors import EngineError, Exit, HarnessError
from harness.printable import cleaned_streams

VERBS: Final = "edge_harness.verbs"


class Verbs(click.Group):
    """A group that finds its verbs by file name and by entry points, and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all verbs, sorted."""
        del ctx
        return sorted({*_own_verbs(), *plugins.entry_names(VERBS)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name; one whose package is gone says so when it is called."""
        del ctx
        name = cmd_name.replace("-", "_")
        if cmd_name in _own_verbs():
            command: click.Command = getattr(import_module(f"{__name__}.{name}"), name)
            return command
        if cmd_name not in plugins.entry_names(VERBS):
            return None
        try:
            declared: click.Command = plugins.load_entry(VERBS, cmd_name, "verb")
        except EngineError as error:
            return _gone(cmd_name, error)
        return declared

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words; one without text is refused (UsageError): a script's variable that was never set, no value."""
        for before, word in pairwise(["", *args]):
            if not word.strip() or (word.startswith("--") and word.endswith("=")):
                name = word.strip(" =") or (before if before.startswith("-") else "an argument")
                raise click.UsageError(f"{name}: found {''!r}, expected some text, or nothing of it at all")
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb; the words typed, its own first, are kept as they are for the edge-harness on a target."""
        ctx.meta["words"] = list(args)
        return super().resolve_command(ctx, args)


def _own_verbs() -> list[str]:
    return [m.name.replace("_", "-") for m in iter_modules(__path__) if not m.name.startswith("_")]


def _gone(name: str, error: EngineError) -> click.Command:
    """A verb in place of one that an installed package declares and does not have: it ends with that error."""

    def refuse(*_words: str, **_fields: object) -> None:
        raise error

    anything: list[click.Parameter] = [click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)]
    settings = {"ignore_unknown_options": True, "help_option_names": []}
    return click.Command(
        name, callback=refuse, params=anything, context_settings=settings, short_help="(not installed)"
    )


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="edge-harness")
def cli() -> None:
    """Know, and prove, whether a language model runs well on a device.

    Predict (fit, matrix), measure (check, run), compare with what was predicted, and gate releases on it.
    """


OLD_NAMES: Final = {"--backend": "--runtime in `run`, --api elsewhere", "--new": "--tokens"}
"""Names of options that are still understood for one release, and what they are called now."""


def main() -> None:
    """Run the command line; expected failures end in one line and their exit status, bugs keep their traceback."""
    for word in {argument.partition("=")[0] for argument in sys.argv[1:]} & set(OLD_NAMES):
        click.echo(f"edge-harness: {word} is called {OLD_NAMES[word]} now; the old name goes with 0.3", err=True)
    message = ""
    with cleaned_streams():
        try:
            status = int(cli.main(standalone_mode=False) or 0)
        except click.ClickException as error:
            error.show()
            status, message = Exit.USAGE, error.format_message()
        except click.Abort:
            click.echo("edge-harness: interrupted", err=True)
            status = 130
        except HarnessError as error:
            click.echo(f"edge-harness: {error}", err=True)
            status, message = error.exit_code, str(error)
        if message and "--json" in sys.argv[1:]:  # one JSON document is on stdout in any case
            import json

            click.echo(json.dumps({"error": {"message": message, "exit_status": int(status)}}))
    sys.exit(status)
