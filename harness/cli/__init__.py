"""The command line: one file a verb; each one parses, calls, renders and returns an exit status.

A verb is a module in this package with a command of the same name, or a command that an installed package
declares under the entry point group ``edge_harness.verbs``. Modules whose names begin with an underscore are
shared helpers. Verb modules import nothing heavy at the top: no engine, no numpy.
"""

import gc
import os
import sys
import warnings
from importlib import import_module
from itertools import pairwise
from typing import ClassVar, Final

import click

from harness import __version__
from harness.cli._settings import settings_of
from harness.cli.command import Verbs
from harness.core import plugins
from harness.core.errors import EngineError, Exit, HarnessError
from harness.core.printable import MESSAGE_MAX, clean, cleaned_streams
from harness.measure import interrupts

VERBS: Final = "edge_harness.verbs"
HELPERS: Final = ("command",)
"""Modules here that are no verbs."""


class Commands(Verbs):
    """The group of all verbs: found by file name and by entry points, and imported only when called or listed."""

    headed: ClassVar[dict[str, list[str]]] = {
        "Predict": ["fit", "recommend"],
        "Measure": ["check", "run", "tune", "ladder", "speculate", "stream", "soak", "serve-load"],
        "Compare and judge": ["history", "gate", "report", "serve"],
        "Models, devices, machines": ["models", "devices", "engines", "doctor"],
        "Teach and test the predictor": ["learn", "validate"],
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all verbs, sorted."""
        del ctx
        own = [name.replace("_", "-") for name in plugins.own_names(__name__)]
        return sorted({*own, *plugins.entry_names(VERBS)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name; one whose package is gone or broken ends with why (EngineError)."""
        name = cmd_name.replace("-", "_")
        found: click.Command | None = None
        if name in plugins.own_names(__name__):
            found = getattr(import_module(f"{__name__}.{name}"), name)
        elif cmd_name in self.list_commands(ctx):
            found = plugins.load_entry(VERBS, cmd_name, "verb")
            if not isinstance(found, click.Command):
                raise EngineError(
                    f"verb {cmd_name!r}: found {type(found).__name__}, expected a click.Command"
                )
        return found

    def invoke(self, ctx: click.Context) -> object:
        """Call the verb, with the defaults that a settings file gives."""
        ctx.default_map = settings_of(self, ctx) or ctx.default_map
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words; one without text is refused (UsageError): a script's variable that was never set, no value."""
        for before, word in pairwise(["", *args]):
            if not word.strip() or (word.startswith("--") and word.endswith("=")):
                name = word.strip(" =") or (before if before.startswith("-") else "an argument")
                raise click.UsageError(f"{name}: found {''!r}, expected some text, or nothing of it at all")
        return super().parse_args(ctx, args)


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": "EDGE_HARNESS",
    },
)
@click.version_option(__version__, prog_name="edge-harness")
def cli() -> None:
    """Know, and prove, whether a language model runs well on a device.

    Predict (fit, recommend), measure (check, run), compare the two (history, report), and gate releases on
    the result (gate). `edge-harness COMMAND --help` explains each command.

    Variables in the environment set defaults of a command's options: EDGE_HARNESS_RUN_REPETITIONS=10,
    EDGE_HARNESS_FIT_DEVICES='pixel-8'.

    Your shell completes commands and options after `eval "$(_EDGE_HARNESS_COMPLETE=bash_source
    edge-harness)"` (or zsh_source, fish_source).
    """


def main() -> None:
    """Run the command line; whatever happens ends in one sentence and an exit status.

    A failure that was foreseen says what to do; one that was not leaves its traceback in a file, and ends in
    4.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for as long as the process lives
    if sys.stdout is None:
        click.echo("edge-harness: standard output is closed; send it to a file, or to /dev/null", err=True)
        sys.exit(Exit.COULD_NOT_RUN)
    gc.set_threshold(
        50_000
    )  # a question makes many small objects and few cycles: looking for them took a tenth of it
    warnings.showwarning = lambda text, *_: click.echo(f"edge-harness: {text}", err=True)
    message = ""
    interrupts.listen()
    with cleaned_streams():
        try:
            status = int(cli.main(prog_name="edge-harness", standalone_mode=False) or 0)
        except click.ClickException as error:
            error.show()
            status = Exit.USAGE
            message = error.format_message()
        except (click.Abort, KeyboardInterrupt):
            click.echo(f"edge-harness: {interrupts.reason()}", err=True)
            status = interrupts.exit_status()
        except Exception as error:  # noqa: BLE001 - the one place where nothing gets past
            status = getattr(error, "exit_code", Exit.COULD_NOT_RUN)
            message = str(error) if isinstance(error, HarnessError) else unforeseen(error)
            click.echo(f"edge-harness: {message}", err=True)
        if message and "--json" in sys.argv[1:]:  # one JSON document is on stdout in any case
            from harness.show.output import json_document

            error_document = {"error": {"message": message, "exit_status": int(status)}}
            click.echo(json_document(error_document, "error").decode())
    sys.exit(status)


def unforeseen(error: Exception) -> str:
    """One sentence about an error that nobody foresaw.

    Its traceback goes into a file of the temporary folder.
    """
    import tempfile
    import traceback

    from harness.core.plugins import crash_place, crash_words

    what = f"an error that nobody foresaw: {type(error).__name__}: {error}"
    if crash_place(error)[1]:
        what = f"a plug-in is broken: {crash_words(error)}"
    if isinstance(error, OSError):
        what = f"cannot go on: {error.filename or 'a file'}: {error.strerror or error}"
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        what = "cannot go on: the system starts no further thread: end other programs, or raise the limit (ulimit -u)"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="edge-harness-", suffix=".txt", delete=False) as file:
            traceback.print_exception(error, file=file)
        told = f"the traceback is in {file.name}"
    except OSError:
        told = "its traceback could not be kept: the temporary folder cannot be written"
    return clean(f"{what} ({told})", MESSAGE_MAX)
