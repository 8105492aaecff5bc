"""Defaults of options from ``edge-harness.toml`` in the working folder: a table a verb, a key an option.

    [fit]
    device = ["rtx 4090 + 64GB ddr5-6000"]
    [run]
    repetitions = 10  # instead of the default of the command

What is typed wins, then a variable such as EDGE_HARNESS_RUN_REPETITIONS, then this file.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import click

from harness.core.errors import BadDataError
from harness.core.foreign import toml_in

FILE: Final = "edge-harness.toml"
_STARTS_PROGRAMS: Final = frozenset({"programs", "meter", "candidate", "baseline", "scheduler"})
"""Options that start or reach another program: a file that came with a folder of a stranger sets none of them."""


def settings_of(group: click.Group, context: click.Context) -> dict[str, Any]:
    """Defaults of each verb by the names of its parameters; empty without a file.

    Raises:
        BadDataError: The file is no TOML, or names a verb or an option that there is not; says what was meant.
    """
    path = Path(FILE)
    if not path.is_file():
        return {}
    return {verb: _of_verb(group, context, verb, table, path) for verb, table in toml_in(path).items()}


def _of_verb(group: click.Group, context: click.Context, verb: str, table: Any, path: Path) -> dict[str, Any]:
    known = group.list_commands(context)
    command = group.get_command(context, verb) if verb in known else None
    if command is None:
        raise BadDataError(path, verb, "a table of no verb", _nearest(verb, known))
    if not isinstance(table, dict):
        raise BadDataError(path, verb, repr(table), "a table of options")
    if isinstance(command, click.Group):
        inner = click.Context(command, parent=context, info_name=verb)
        return {name: _of_verb(command, inner, name, options, path) for name, options in table.items()}
    options: dict[str, click.Option] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            options |= {flag.lstrip("-"): parameter for flag in parameter.opts if flag.startswith("--")}
    found = {}
    for key, value in table.items():
        option = options.get(key.replace("_", "-"))
        if option is None or option.name is None:
            raise BadDataError(
                path, f"{verb}.{key}", "an option that there is not", _nearest(key, list(options))
            )
        if option.name in _STARTS_PROGRAMS:
            raise BadDataError(
                path, f"{verb}.{key}", "an option that starts a program", "it typed on the command line"
            )
        found[option.name] = _as_typed(value, option)
    return found


def _as_typed(value: Any, option: click.Option) -> Any:
    """A value of TOML as the command line would have it: text, or one text for each of several."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list):
        texts = [str(one) for one in value]
        return texts if option.multiple else ",".join(texts)
    return [str(value)] if option.multiple else str(value)


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"{close[0]!r}, perhaps" if close else f"one of {', '.join(sorted(known)[:12])}"
