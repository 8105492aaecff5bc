"""edge-harness: predict, measure, explain and judge language models on devices.

    from harness import fit, compare, recommend, matrix, check, run, judge, load, learn, history

Each is explained in docs/python.md; errors are those of :mod:`harness.core.errors`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.core.errors import (
    BadDataError,
    CouldNotRunError,
    HarnessError,
    InputError,
    RefusedError,
    UnknownNameError,
)

if TYPE_CHECKING:
    from harness.api import (
        Fit,
        Table,
        check,
        compare,
        fit,
        history,
        judge,
        learn,
        load,
        matrix,
        recommend,
        run,
    )

__version__ = "0.2.0"
__all__ = [
    "BadDataError",
    "CouldNotRunError",
    "Fit",
    "HarnessError",
    "InputError",
    "RefusedError",
    "Table",
    "UnknownNameError",
    "check",
    "compare",
    "fit",
    "history",
    "judge",
    "learn",
    "load",
    "matrix",
    "recommend",
    "run",
]


def __getattr__(name: str) -> Any:
    """The API, imported when it is first asked for: the command line starts without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("harness.api"), name)


def __dir__() -> list[str]:
    """What a notebook completes: the API too, before it is imported."""
    return [*__all__, "__version__"]
