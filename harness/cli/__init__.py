"""The command line: one file a verb; each one parses, calls, renders and returns an exit status.

A verb is a module in this package with a command of the same name. Modules whose names begin with an underscore are
shared helpers. Verb modules import nothing heavy at the top: no engine, no numpy.
"""

import sys
from importlib import import_module
from itertools import pairwise
from pkgutil import iter_modules
from typing import Final

import click

from harness import __version__
from harness.errors import Exit, HarnessError
from harness.printable import cleaned_streams


class Verbs(click.Group):
    """A group that finds its verbs by file name and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all verbs, sorted."""
        del ctx
        return sorted(m.name.replace("_", "-") for m in iter_modules(__path__) if not m.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"{__name__}.{name}"), name)
        return command

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
