"""Options that would change nothing: refused, so that nobody takes the answer for one that heeds them."""

from collections.abc import Collection

import click

from harness.cli._command import typed


def refuse_typed(names: Collection[str], beside: str, *, when: object = True) -> None:
    """Refuse those of ``names`` that were typed, ``when`` they say nothing to what is asked for (``beside``).

    For what only the data tells, such as a model without experts; options that exclude each other stand in
    the table.

    Raises:
        click.UsageError: One was typed.
    """
    for name, option in typed(click.get_current_context()).items() if when else ():
        if name in names:
            is_off = click.get_current_context().params[name] is False
            raise click.UsageError(
                f"{(option.secondary_opts if is_off else option.opts)[0]} has no meaning {beside}"
            )
