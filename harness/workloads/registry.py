"""Systems by name: the entry points of the group ``edge_harness.workloads``, ours among them."""

from collections.abc import Iterable

from harness import plugins
from harness.errors import EngineError
from harness.workloads.system import System

GROUP = "edge_harness.workloads"


def names() -> list[str]:
    """Every system that an installed package declares, sorted."""
    return plugins.entry_names(GROUP)


def load(name: str) -> System:
    """One system.

    Raises:
        UnknownNameError: None of that name is declared.
        EngineError: It is declared, and its module or object is not there, or is no system.
    """
    system = plugins.load_entry(GROUP, name, "workload")
    if not isinstance(system, System):
        kind = type(system).__name__
        raise EngineError(f"workload {name!r}: found {kind}, which does not subclass harness.workloads.system.System")
    return system


def load_all(wanted: Iterable[str] = ()) -> tuple[list[System], dict[str, str]]:
    """The named systems, all unless some are named; and of those that are declared and gone, why.

    Raises:
        UnknownNameError: None of a name is declared.
    """
    systems, gone = [], {}
    for name in list(wanted) or names():
        try:
            systems.append(load(name))
        except EngineError as error:
            gone[name] = str(error)
    return systems, gone
