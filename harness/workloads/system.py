"""What a system beside a language model is: one object that is run, timed, predicted and scored.

A system is one module with a :class:`System`, which ends in ``SYSTEM = ...``; a package declares it under the
entry point group ``edge_harness.workloads``::

    [project.entry-points."edge_harness.workloads"]
    my_memory = "my_package.memory:SYSTEM"

The runner opens the parts, calls ``prepare`` once outside the clock, ``step`` once for each case on the
clock, and ``score`` on the answers. Before that it asks for the ``chain`` of each case, from which time is
predicted here and measured on a target that has no Python.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import msgspec

from harness import plugins
from harness.domain.base import Frozen
from harness.domain.foreign import json_of, read_limited, typed
from harness.domain.model import Weights
from harness.domain.result import Score
from harness.errors import EngineError, RefusedError, UnknownNameError
from harness.workloads.parts import Parts
from harness.workloads.passes import Chain

GROUP = "edge_harness.workloads"
_MOST_BYTES = 256 << 20
"""Of a file of cases."""


class Case(Frozen, tag_field="kind"):
    """One line of a case file; a kind of case is a subclass, ``class Ask(Case, tag="ask")``, with its columns."""


Answers = Sequence[Any]
"""What ``step`` gave for each of the cases, in their order."""
Size = Mapping[str, int]


class Context(NamedTuple):
    """Where and how a system runs.

    Attributes:
        folder: Scratch folder of this run, removed afterwards.
        cache: Folder for what is worth keeping between runs.
        seed: Of everything that is drawn.
        thread_count: CPU threads of its parts.
    """

    folder: Path
    cache: Path
    seed: int = 1
    thread_count: int = 1


class System:
    """A system that runs beside a language model.

    Attributes:
        name: The name of its entry point.
        title: One line for people.
        kinds: Types of its cases, each a :class:`Case` with a tag of its own; a tag labels the time of such a
            step.
        extra: Extra of edge-harness that it needs; empty for none.
        parts: What it cannot do without, of ``language``, ``encoder``, ``nli``.
        options: Parts that it takes where they are named.
        context_tokens: That the language model is opened with.
        sizes: Named parameter sets, ``default`` among them.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    kinds: ClassVar[tuple[type[Case], ...]]
    extra: ClassVar[str] = ""
    parts: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]] = ()
    context_tokens: ClassVar[int] = 2048
    sizes: ClassVar[Mapping[str, Size]] = {"default": {}}

    def cases(self, size: Size, seed: int) -> Sequence[Any]:
        """The built-in cases, in the order in which they are put."""
        raise NotImplementedError

    def read_cases(self, path: Path) -> Sequence[Any]:
        """Cases of a public data set that is no JSON lines.

        RefusedError where the file is none that is known.
        """
        raise RefusedError(f"{path}: found {path.suffix or 'no ending'}, expected .jsonl for {self.name}")

    def part_names(self, size: Size) -> Sequence[str]:
        """The parts that a size cannot do without."""
        del size
        return self.parts

    def part_files(self, paths: Mapping[str, str], cache: Path) -> dict[str, str]:
        """The files that are opened, made of those that were named where they must be others."""
        del cache
        return dict(paths)

    def prepare(self, parts: Parts, size: Size, context: Context) -> Any:
        """The state that ``step`` works on, built outside the clock.

        The parts themselves unless it says otherwise.
        """
        del size, context
        return parts

    def step(self, state: Any, case: Any) -> Any:
        """Answer one case; JSON values, kept in the record."""
        raise NotImplementedError

    def chain(self, case: Any, size: Size, chain: Chain) -> None:
        """Declare the passes of one case; a system without parts has none."""

    def held_bytes(self, size: Size, weights: Mapping[str, Weights]) -> int:
        """Memory that it holds beside its parts, whose ``weights`` are those of llama.cpp's."""
        del size, weights
        return 0

    def score(self, cases: Sequence[Any], answers: Answers) -> Sequence[Score]:
        """Figures of the answers, each beside its nulls.

        WrongAnswerError for what is wrong whatever the model.
        """
        del cases, answers
        return ()

    def columns(self) -> dict[str, dict[str, str]]:
        """Columns of its cases by kind, each with its type; one in brackets may be left out."""
        found = {}
        for kind in self.kinds:
            fields = msgspec.structs.fields(kind)
            told = {each.name: _spelled(each) for each in fields}
            found[kind_of(kind)] = told
        return found


def _spelled(field: Any) -> str:
    if isinstance(field.type, type):
        kind = getattr(field.type, "__name__", str(field.type))
    else:
        kind = str(field.type)
    if field.required:
        return kind
    return f"[{kind}]"


def kind_of(case: Any) -> str:
    """The tag of a case or of its type."""
    return str(case.__struct_config__.tag)


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
        raise EngineError(
            f"workload {name!r}: found {kind}, which does not subclass harness.workloads.system.System"
        )
    return system


def load_all(wanted: Sequence[str] = ()) -> tuple[list[System], dict[str, str]]:
    """The named systems, all unless some are named; and of those that are declared and gone, why.

    Raises:
        UnknownNameError: None of a name is declared.
    """
    systems = []
    gone = {}
    for name in wanted or names():
        try:
            systems.append(load(name))
        except EngineError as error:
            gone[name] = str(error)
    return systems, gone


def read_cases(path: Path, system: System) -> list[Any]:
    """The cases of a file: JSON lines, or a data set that the system itself knows.

    Raises:
        BadDataError: A line is no case of the system: names the line, the column, what was found and
            expected.
        RefusedError: The file is neither, or holds no case.
    """
    if path.suffix != ".jsonl":
        return list(system.read_cases(path))
    kinds: Any = system.kinds[0]
    for kind in system.kinds[1:]:
        kinds = kinds | kind
    cases: list[Any] = []
    for number, line in enumerate(read_limited(path, _MOST_BYTES, "JSON lines").splitlines(), 1):
        if line.strip():
            place = f"{path}:{number}"
            cases.append(typed(json_of(line, place, "a JSON object"), kinds, place))
    if not cases:
        raise RefusedError(f"{path} holds no case")
    return cases


def size_of(system: System, text: str) -> dict[str, int]:
    """A size from its name, or from ``name=number`` parts that change the default one.

    Raises:
        UnknownNameError: No such size.
        RefusedError: A part that the system does not have, or no whole number.
    """
    if text in system.sizes:
        return dict(system.sizes[text])
    if "=" not in text:
        raise UnknownNameError("size", text, system.sizes)
    size = dict(system.sizes["default"])
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in size or not value.isdigit():
            raise RefusedError(f"size: found {part!r}, expected NAME=NUMBER with a name of {', '.join(size)}")
        size[key] = int(value)
    return size
