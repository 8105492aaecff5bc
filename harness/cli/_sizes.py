"""Sizes on the command line: one way to write them, in every verb."""

from typing import Any

import click

from harness.units import parse_bytes


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


def budget_of(text: str, whole_bytes: int) -> int:
    """Bytes of a RAM budget: a size, or a share of a model's bytes such as ``0.6x``.

    Raises:
        click.BadParameter: It is neither.
    """
    try:
        return parse_bytes(text, whole_bytes)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--ram-budget") from None
