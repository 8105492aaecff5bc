"""Options that would change nothing: refused, so that nobody takes the answer for one that heeds them."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.domain.prediction import Prediction

OF_PLACEMENT: Final = frozenset({"gpu_layers", "cpu_moe", "tensor_split", "split_mode", "main_gpu", "kv_on_gpu"})


def typed(context: click.Context) -> dict[str, click.Parameter]:
    """What the user gave, on the command line or by a variable, by the name of the parameter."""
    given = ((p.name or "", p) for p in context.command.params)
    sources = {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}
    return {name: p for name, p in given if context.get_parameter_source(name) in sources}


def refuse_typed(names: Collection[str], beside: str, *, when: object = True) -> None:
    """Refuse those of ``names`` that were typed, ``when`` they say nothing to what is asked for (``beside``).

    Raises:
        click.UsageError: One was typed.
    """
    for name, option in typed(click.get_current_context()).items() if when else ():
        if name in names:
            raise click.UsageError(f"{option.opts[0]} has no meaning {beside}")


def refuse_placement(api: str) -> None:
    """Refuse where layers lie of a run on the CPU, by its name or by none; UsageError, as :func:`refuse_typed`."""
    refuse_typed(OF_PLACEMENT, "without a GPU's --api", when=api in {"", "cpu"})


def refuse_idle(context: click.Context, again: "Callable[[dict[str, Any]], Prediction]") -> None:
    """Refuse a typed option of the scenario that changes nothing here: without it the same is predicted.

    A user may type the value that holds anyway, if another one would change the answer: layers on the GPU are compared
    with none as well, and a number of threads with one less (1 with 2). ``again`` predicts with other values.

    Raises:
        click.UsageError: One changes nothing.
    """
    from harness.domain.placement import Placement
    from harness.domain.scenario import Scenario

    usual = {field: getattr(of, field) for of in (Scenario(), Placement()) for field in of.__struct_fields__}
    now = None
    for name, option in typed(context).items():
        value = context.params[name]
        if name == "api" or name not in usual or str(value).upper() == str(usual[name]).upper():
            continue
        others = [value - 1 or 2] if name == "thread_count" else [usual[name]] + [0] * (name == "gpu_layers")
        now = now or again({})
        try:
            idle = all(again({name: other}) == now for other in others)
        except HarnessError:  # there is no answer without it
            continue
        if idle:
            what = f"{now.model} {now.quant} on {now.device} by {now.api}"
            raise click.UsageError(f"{option.opts[0]} changes nothing for {what}: leave it out")
