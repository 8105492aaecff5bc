"""Sizes and lists of numbers on the command line: one way to write them, in every verb."""

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


def numbers(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas."""
    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no list of whole numbers such as 0,2048") from error
    if any(n < 0 for n in found):
        raise click.BadParameter("at least 0")
    return found


def budget_of(text: str, whole_bytes: int) -> int:
    """Bytes of a RAM budget: a size, or a share of a model's bytes such as ``0.6x``.

    Raises:
        click.BadParameter: It is neither.
    """
    try:
        return parse_bytes(text, whole_bytes)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--ram-budget") from None
