"""Find a plug-in by its name, and import it only then.

A folder is the registry of what the core itself brings: a runtime or a verb is one module in its package,
named by its file. Everything else comes through entry points, by group:

* ``edge_harness.runtimes``: runtimes, beside those in ``harness.runtimes`` (a module of ours has its name to
  itself);
* ``edge_harness.verbs``: click commands, beside those in ``harness.cli``;
* ``edge_harness.workloads``: systems beside a language model;
* ``edge_harness.companions``: functions that give ``fit --with`` what lives beside a model;
* ``edge_harness.panels``: functions that make a section of the report of a record.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar, Final

from harness.core.errors import EngineError, MissingPackageError, UnknownNameError
from harness.core.printable import clean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def names(package: str) -> list[str]:
    """Every public module of ``package`` and every entry point of its group, sorted; imports none of them."""
    return sorted(own_names(package) | set(entry_names(_group(package))))


def load(package: str, name: str, attribute: str) -> Any:
    """Import one plug-in and return its ``attribute``.

    A failing import inside the plug-in is not caught: "not installed" and "broken" must never look like
    "unknown".

    Raises:
        UnknownNameError: No module and no entry point of that name.
    """
    if name in own_names(package):
        return getattr(import_module(f"{package}.{name}"), attribute)
    group = _group(package)
    if name not in entry_names(group):
        raise UnknownNameError(attribute.lower(), name, names(package))
    return load_entry(group, name, attribute.lower())


def entry_names(group: str) -> list[str]:
    """Names that installed packages declare in a group, sorted, each once."""
    return sorted({entry.name for entry in _entries(group)})


PROMISED: Final[dict[str, dict[str, str]]] = {
    "edge_harness.runtimes": {"name": "a name", "missing": "a function", "identity": "a function"},
    "edge_harness.verbs": {
        "name": "a name",
        "main": "a function",
        "params": "a list",
        "invoke": "a function",
    },
    "edge_harness.workloads": {
        "name": "a name",
        "title": "a name",
        "kinds": "a tuple",
        "sizes": "a table",
        "cases": "a function",
        "step": "a function",
        "score": "a function",
    },
    "edge_harness.companions": {"": "a function"},
    "edge_harness.panels": {"": "a function"},
}
"""What each group's objects have, by attribute; an empty name is the object itself."""
_IS: Final[dict[str, Callable[[Any], bool]]] = {
    "a name": lambda value: isinstance(value, str) and bool(value.strip()),
    "a function": callable,
    "a list": lambda value: isinstance(value, list),
    "a tuple": lambda value: isinstance(value, tuple) and bool(value),
    "a table": lambda value: isinstance(value, Mapping) and isinstance(value.get("default"), Mapping),
}
_OPENS: Final = ("open", "attach", "entry")
"""Of which a runtime has one at least: a session, a server, or a child's function."""


def load_entry(group: str, name: str, kind: str) -> Any:
    """What an installed package declares by that name, held to the promises of its group (``PROMISED``).

    Raises:
        UnknownNameError: No package declares it; ``kind`` says of what.
        EngineError: Its module is not there, has no such object, breaks while it is imported, or its object is
            not what the group promises: the words differ.
    """
    for entry in _entries(group):
        if entry.name == name:
            try:
                found = entry.load()
            except (Exception, SystemExit) as error:
                if _is_gone(entry, error):
                    raise EngineError(
                        f"{kind} {name!r} is declared as {entry.value}: not there: {error}"
                    ) from error
                fault = crash_words(error)
                raise EngineError(f"{kind} {name!r} ({entry.value}) is broken: {fault}", "broken") from error
            if fault := broken_promise(group, found):
                raise EngineError(f"{kind} {name!r} ({entry.value}): {fault}", "broken")
            return found
    raise UnknownNameError(kind, name, entry_names(group))


def broken_promise(group: str, found: Any) -> str:
    """What an object lacks of its group's promises, as found and expected; empty where it lacks nothing."""
    promised = PROMISED.get(group, {})
    if isinstance(found, type) and set(promised) != {""}:
        return f"found the class {found.__name__}, expected an instance of it"
    for attribute, wanted in promised.items():
        try:
            value = getattr(found, attribute) if attribute else found
        except AttributeError:
            return f"found {type(found).__name__} without {attribute!r}, expected {wanted}"
        except Exception as error:  # noqa: BLE001 - a property of a stranger's
            return f"{attribute}: {crash_words(error)}"
        if not _IS[wanted](value):
            place = f"{attribute}: " if attribute else ""
            return f"{place}found {clean(repr(value), 60)}, expected {wanted}"
    if group == "edge_harness.runtimes":
        return _runtime_fault(found)
    return ""


def _runtime_fault(runtime: Any) -> str:
    """The same of what a runtime may have beside, and of one of the ways to open a model."""
    if not any(hasattr(runtime, name) for name in _OPENS):
        return f"found {type(runtime).__name__} without 'open', expected a function"
    for name in ("open", "attach", "package"):
        if not callable(getattr(runtime, name, len)):
            return f"{name}: found {clean(repr(getattr(runtime, name)), 60)}, expected a function"
    formats = getattr(runtime, "formats", ())
    if not isinstance(formats, tuple) or not all(isinstance(one, str) for one in formats):
        return f"formats: found {clean(repr(formats), 60)}, expected a tuple of names such as ('gguf',)"
    entry = getattr(runtime, "entry", "a.b:c")
    if not isinstance(entry, str) or not re.fullmatch(r"[\w.]+:[\w.]+", entry):
        return f"entry: found {clean(repr(entry), 60)}, expected package.module:function"
    return ""


def crash_words(error: BaseException) -> str:
    """Type, place and text of an error: ``ZeroDivisionError at my_engine.py:14: division by zero``.

    The place is the deepest line in the plug-in's own file, whatever libraries it called from there.
    """
    place, _ = crash_place(error)
    text = f": {error}" if str(error) else ""
    return type(error).__name__ + (f" at {place}" if place else "") + text


def crash_place(error: BaseException) -> tuple[str, bool]:
    """File name and line where an error arose, and whether an installed plug-in's package holds that file.

    Python's own library is passed over. Returns an empty place for an error without a traceback.
    """
    import sysconfig

    ours, library = str(Path(__file__).parents[1]), sysconfig.get_path("stdlib")
    declared = {entry.module.partition(".")[0] for group in PROMISED for entry in _entries(group)}
    frames = []
    step = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        root = str(step.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if not file.startswith("<") and (not file.startswith(library) or "-packages" in file):
            frames.append((file, step.tb_lineno, root in declared and not file.startswith(ours)))
        step = step.tb_next
    if isinstance(error, SyntaxError) and error.filename:  # the file that cannot be read has no frame yet
        frames.append((error.filename, error.lineno or 0, not error.filename.startswith(ours)))
    theirs = next((file for file, _, is_theirs in frames if is_theirs), "")
    at = [(file, line) for file, line, _ in frames if not theirs or file == theirs]
    return (f"{Path(at[-1][0]).name}:{at[-1][1]}" if at else ""), bool(theirs)


def every(group: str) -> list[Any]:
    """Everything of a group that is there.

    What is declared and gone is left out, what is broken with a warning.
    """
    objects = []
    for name in entry_names(group):
        try:
            objects.append(load_entry(group, name, group))
        except EngineError as error:
            if error.outcome == "broken":
                warnings.warn(str(error), stacklevel=2)
    return objects


def _is_gone(entry: "EntryPoint", error: BaseException) -> bool:
    """Whether the declared module itself (or its object) is missing, rather than something that it imports."""
    if isinstance(error, ModuleNotFoundError):
        return f"{entry.module}.".startswith(f"{error.name}.")
    return isinstance(error, AttributeError) and entry.module in str(error)


@cache
def _entries(group: str) -> "tuple[EntryPoint, ...]":
    # Not at the top: it takes 4 MB, which every measured child would carry. Once: it reads a file of every
    # package.
    from importlib.metadata import entry_points

    return tuple(entry_points(group=group))


class Packaged:
    """A runtime out of packages: ``needs`` are its modules, each with the package and the extra that bring it."""

    needs: ClassVar[tuple[tuple[str, str, str], ...]]

    def missing(self) -> str | None:
        """Why it cannot be used here; None when it can."""
        return next(
            (str(MissingPackageError(p, extra)) for m, p, extra in self.needs if find_spec(m) is None), None
        )


def usable_runtime(name: str) -> Any:
    """The runtime of that name; EngineError where it cannot be used here, UnknownNameError where there is none."""
    runtime = load("harness.runtimes", name, "RUNTIME")
    if reason := missing_reason(runtime, name):
        raise EngineError(reason)
    return runtime


def missing_reason(runtime: Any, name: str) -> str:
    """Why a runtime cannot be used here; empty where it can. A runtime that breaks when asked cannot."""
    try:
        reason = runtime.missing()
    except Exception as error:  # noqa: BLE001 - of a stranger's package
        return f"runtime {name!r} is broken: missing(): {crash_words(error)}"
    if reason is None:
        return ""
    if not isinstance(reason, str) or not reason:
        return f"runtime {name!r}: missing(): found {clean(repr(reason), 60)}, expected None or a reason"
    return reason


def known_runtime(name: str) -> str:
    """Return the name if a runtime has it, without the import of any runtime.

    Raises:
        UnknownNameError: No runtime has that name; the error gives the nearest one.
    """
    if name not in (known := names("harness.runtimes")):
        raise UnknownNameError("runtime", name, known)
    return name


def formats_of(runtime: str) -> tuple[str, ...]:
    """Formats that a runtime reads; empty if it declares none, and then any file is tried."""
    return tuple(getattr(load("harness.runtimes", runtime, "RUNTIME"), "formats", ()))


def runtimes_reading(wanted: str) -> list[str]:
    """Names of the runtimes that declare a format; a broken plug-in is passed over."""
    found = []
    for name in names("harness.runtimes"):
        with suppress(EngineError, ImportError):
            if wanted in formats_of(name):
                found.append(name)
    return found


def own_names(package: str) -> set[str]:
    """Every public module of ``package`` but those it declares as ``HELPERS``; imports none of them."""
    folder = import_module(package)
    found = {m.name for m in iter_modules(folder.__path__) if not m.name.startswith("_")}
    return found.difference(getattr(folder, "HELPERS", ()))


def _group(package: str) -> str:
    return f"edge_harness.{package.rpartition('.')[2]}"
