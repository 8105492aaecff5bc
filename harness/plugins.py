"""Find a plug-in module by its file name, and import it only then.

A folder is the registry: a workload, a runtime or a verb is one module in its package, named by its file. Third
parties add theirs through entry points (``edge_harness.workloads``, ``edge_harness.runtimes``); a module of ours has
its name to itself.
"""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any, ClassVar

from harness.errors import EngineError, MissingPackageError, UnknownNameError


def names(package: str) -> list[str]:
    """Every public module of ``package`` and every entry point of its group, sorted; imports none of them."""
    from importlib.metadata import entry_points

    return sorted(_own(package) | {e.name for e in entry_points(group=_group(package))})


def load(package: str, name: str, attribute: str) -> Any:
    """Import one plug-in and return its ``attribute``.

    A failing import inside the plug-in is not caught: "not installed" and "broken" must never look like "unknown".

    Raises:
        UnknownNameError: No module and no entry point of that name.
    """
    if name in _own(package):
        return getattr(import_module(f"{package}.{name}"), attribute)
    # Not at the top: it takes 4 MB, which every measured child would carry.
    from importlib.metadata import entry_points

    for entry in entry_points(group=_group(package), name=name):
        return entry.load()
    raise UnknownNameError(attribute.lower(), name, names(package))


class Packaged:
    """A runtime out of packages: ``needs`` are its modules, each with the package and the extra that bring it."""

    needs: ClassVar[tuple[tuple[str, str, str], ...]]

    def missing(self) -> str | None:
        """Why it cannot be used here; None when it can."""
        return next((str(MissingPackageError(p, extra)) for m, p, extra in self.needs if find_spec(m) is None), None)


def usable_runtime(name: str) -> Any:
    """The runtime of that name; EngineError where it cannot be used here, UnknownNameError where there is none."""
    runtime = load("harness.runtimes", name, "RUNTIME")
    if reason := runtime.missing():
        raise EngineError(reason)
    return runtime


def _own(package: str) -> set[str]:
    return {m.name for m in iter_modules(import_module(package).__path__) if not m.name.startswith("_")}


def _group(package: str) -> str:
    return f"edge_harness.{package.rpartition('.')[2]}"
