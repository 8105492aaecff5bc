"""Find a plug-in module by its file name, and import it only then.

A folder is the registry: a workload, a backend or a verb is one module in its package, named by its file. Third
parties add theirs through entry points (``edge_harness.workloads``, ``edge_harness.backends``).
"""

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any

from harness.errors import UnknownNameError


def names(package: str) -> list[str]:
    """Every public module of ``package`` and every entry point of its group, sorted; imports none of them."""
    path = import_module(package).__path__
    own = {m.name for m in iter_modules(path) if not m.name.startswith("_")}
    return sorted(own | {e.name for e in entry_points(group=_group(package))})


def load(package: str, name: str, attribute: str) -> Any:
    """Import one plug-in and return its ``attribute``.

    A failing import inside the plug-in is not caught: "not installed" and "broken" must never look like "unknown".

    Raises:
        UnknownNameError: No module and no entry point of that name.
    """
    known = names(package)
    if name not in known:
        raise UnknownNameError(attribute.lower(), name, known)
    for entry in entry_points(group=_group(package), name=name):
        return entry.load()
    return getattr(import_module(f"{package}.{name}"), attribute)


def _group(package: str) -> str:
    return f"edge_harness.{package.rpartition('.')[2]}"
