"""What a system beside a language model is: one object, timed, predicted, evaluated and planned for.

A system is one file with a :class:`System`, which ends in ``SYSTEM = ...``; a package declares it under the entry point
group ``edge_harness.workloads``::

    [project.entry-points."edge_harness.workloads"]
    my_memory = "my_package.memory:SYSTEM"

The runner opens the parts (language model, sentence encoder, NLI model), calls ``prepare`` once outside the clock, then
``step`` once for each case on the clock, and ``score`` on the answers. Time, memory and figures therefore belong to the
same object, and so does ``cost``, from which the time is predicted before the run.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from harness import plugins
from harness.domain.base import Frozen, shipped_table
from harness.domain.foreign import json_of, read_limited, typed
from harness.errors import EngineError, RefusedError, UnknownNameError

if TYPE_CHECKING:
    from harness.workloads.parts import SystemParts

Case = Mapping[str, Any]
"""One line of a case file: JSON values by column."""
Cases = Sequence[Case]
Answers = Sequence[Any]
"""What ``step`` gave for each of the cases, in their order."""
Figures = Mapping[str, Any]
"""What was scored, by name: numbers, intervals, groups of them."""
PartNames = Collection[str]
Size = Mapping[str, int]
DEFAULT_KIND = "step"
KINDS: Mapping[str, type] = {
    "a text": str,
    "a number": float,
    "a whole number": int,
    "true or false": bool,
    "a list": list,
    "an object": dict,
}
"""Types of JSON values by what people call them."""


class Column(NamedTuple):
    """A column of a case file: ``kind`` is the type of its JSON value, one of :data:`KINDS` or a choice of texts."""

    kind: Any
    what: str
    needed: bool = True


class PartPass(Frozen):
    """Passes of one part that are alike.

    Attributes:
        part: ``language``, ``encoder``, ``nli``, or another name for a graph that the system itself brings.
        tokens: Tokens of each row: 1 where a language model writes, the text's where a model reads.
        rows: Texts or sequences in the pass.
        count: How many such passes a step takes.
        depth_tokens: Tokens already in the cache of a language model.
    """

    part: str
    tokens: int = 1
    rows: int = 1
    count: float = 1.0
    depth_tokens: int = 0


class Cost(Frozen):
    """What one step takes, counted from its algorithm.

    Attributes:
        passes: Of its parts; each part's own law says how long they take.
        flops_count: FLOP of dense fp32 products outside the parts (2 m n k each), on one thread ...
        moved_bytes: ... and bytes that it reads from memory in order, a matrix beyond the caches; the longer counts.
        resident_bytes: Memory that the system holds beside its parts.
        file_bytes: Mapped or cached file bytes beside its parts.
        flush_count: Times that a few pages are forced to the disk and waited for.
        glue_s: Seconds of everything else on the reference core; scaled by single-core speed, on any other.
    """

    passes: tuple[PartPass, ...] = ()
    flops_count: float = 0.0
    moved_bytes: float = 0.0
    resident_bytes: int = 0
    file_bytes: int = 0
    flush_count: int = 0
    glue_s: float = 0.0


Costs = Mapping[str, Cost]
"""What one step takes, by its kind."""


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
        extra: Extra of edge-harness that it needs; empty for none.
        parts: What it is made of: names of parts (``language``, ``encoder``, ``nli``), ``nli|language`` where either
            will do (the first one that is there), ``nli?`` for one that it can do without.
        columns: Columns of its cases. ``kind`` names what a step does, where there are several kinds; it is the label
            of the step's time.
        sizes: Named parameter sets, ``default`` among them.
    """

    name: str = ""
    title: str
    extra: str = ""
    parts: Sequence[str] = ()
    columns: Mapping[str, Column] = {}
    sizes: Mapping[str, Size] = {"default": {}}

    def __init_subclass__(cls, *, table: str = "") -> None:
        """``table`` names what ``systems.toml`` declares of a system that ships."""
        rows = shipped_table("systems.toml", "harness.workloads")[table] | {"name": table} if table else {}
        for key, value in rows.items():
            setattr(cls, key, value)
        if rows:
            cls.columns = {name: Column(_type_of(kind), *of) for name, (kind, *of) in rows["columns"].items()}

    def cases(self, size: Size, seed: int) -> Cases:
        """The built-in cases, in the order in which they are put."""
        raise NotImplementedError

    def read_cases(self, path: Path) -> Cases:
        """Cases of a public data set that is no JSON lines; RefusedError where the file is none that is known."""
        raise RefusedError(f"{path}: found {path.suffix or 'no ending'}, expected .jsonl for {self.name}")

    def prepare(self, parts: "SystemParts", size: Size, context: Context) -> Any:
        """The state that ``step`` works on, built outside the clock; the parts themselves unless it says otherwise."""
        return parts

    def step(self, state: Any, case: Case) -> Any:
        """Answer one case; JSON values, kept in the record."""
        raise NotImplementedError

    def cost(self, parts: PartNames, size: Size) -> Costs:
        """What one step of each kind takes with these parts (``step`` where there is one kind)."""
        raise NotImplementedError

    def score(self, cases: Cases, answers: Answers) -> Figures:
        """Figures of the answers; WrongAnswerError where an answer is wrong whatever the model."""
        return {}


def _type_of(kind: str) -> Any:
    """One of :data:`KINDS`, or the choice of ``one, another or a third``."""
    return KINDS.get(kind) or Literal.__getitem__(tuple(re.split(", | or ", kind)))


def kind_of(case: Case) -> str:
    """What a step with this case does."""
    return str(case.get("kind", DEFAULT_KIND))


GROUP = "edge_harness.workloads"
_MOST_BYTES = 256 << 20
"""Of a file of cases."""


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


def read_cases(path: Path, system: System) -> list[Case]:
    """The cases of a file: JSON lines, or a data set that the system itself knows.

    Raises:
        BadDataError: A line is no JSON object, lacks a column, has one too many, or a value of another type.
        RefusedError: The file is neither, or holds no case.
    """
    if path.suffix != ".jsonl":
        return list(system.read_cases(path))
    cases: list[Case] = []
    fields = [
        (name, column.kind) if column.needed else (name, column.kind | None, None)
        for name, column in system.columns.items()
    ]
    row = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, omit_defaults=True, kw_only=True)
    for number, line in enumerate(read_limited(path, _MOST_BYTES, "JSON lines").splitlines(), 1):
        if line.strip():
            place = f"{path}:{number}"
            cases.append(msgspec.to_builtins(typed(json_of(line, place, "a JSON object"), row, place)))
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
