"""Options that would change nothing: refused, so that nobody takes the answer for one that heeds them."""

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

import click

from harness.cli._command import typed
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.domain.prediction import Prediction


def refuse_typed(names: Collection[str], beside: str, *, when: object = True) -> None:
    """Refuse those of ``names`` that were typed, ``when`` they say nothing to what is asked for (``beside``).

    For what only the data tells, such as a model without experts; options that exclude each other stand in the table.

    Raises:
        click.UsageError: One was typed.
    """
    for name, option in typed(click.get_current_context()).items() if when else ():
        if name in names:
            is_off = click.get_current_context().params[name] is False
            raise click.UsageError(f"{(option.secondary_opts if is_off else option.opts)[0]} has no meaning {beside}")


def refuse_idle(context: click.Context, again: "Callable[[dict[str, Any]], Prediction]") -> None:
    """Refuse a typed option of the scenario that changes nothing here: without it the same is predicted.

    A user may type the value that holds anyway, if another one would change the answer: a placement is compared with
    none of the layers on the GPU as well, and a number of threads with one less (1 with 2). ``again`` predicts with
    other values.

    Raises:
        click.UsageError: One changes nothing.
    """
    now = None
    for typed_name, option in typed(context).items():
        name = "batch_count" if typed_name == "users" else typed_name
        for part, others in _alternatives(name, context.params[typed_name]):
            now = now or again({})
            try:
                idle = all(again({name: other}) == now for other in others)
            except HarnessError:  # there is no answer without it
                continue
            if idle:
                what = f"{now.model} {now.quant} on {now.device} by {now.api}"
                raise click.UsageError(f"{option.opts[0]}{part} changes nothing for {what}: leave it out")


def _alternatives(name: str, value: Any) -> "Iterator[tuple[str, list[Any]]]":
    """Other values of an option of the scenario, or of each part of a placement, that could give another answer."""
    from harness.domain.placement import Placement
    from harness.domain.scenario import Scenario

    usual: dict[str, Any] = {field: getattr(Scenario(), field) for field in Scenario.__struct_fields__} | {
        "without": ()
    }
    if name == "placement" and value is not None:
        for field in Placement.__struct_fields__:
            default = getattr(Placement(), field)
            if getattr(value, field) != default:
                others = [default, 0] if field == "gpu_layers" else [default]
                yield f": {field.replace('_', ' ')}", [value.replace(**{field: other}) for other in others]
    elif (name, value) == ("context_tokens", "max"):
        return  # the longest context that fits, whichever that is
    elif name in usual and name != "api" and str(value).upper() != str(usual[name]).upper():
        yield "", [value - 1 or 2] if name == "thread_count" else [usual[name]]
