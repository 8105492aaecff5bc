"""What a system beside a language model is: one object that is run, timed, predicted and scored.

A system is one module with a :class:`System`, which ends in ``SYSTEM = ...``; a package declares it under the
entry point group ``edge_harness.workloads``::

    [project.entry-points."edge_harness.workloads"]  # in the pyproject.toml of the package
    my_memory = "my_package.memory:SYSTEM"

The runner opens the parts, calls ``prepare`` once outside the clock, ``step`` once for each case on the
clock, and ``score`` on the answers. The passes that the parts run meanwhile are its chain, from which time is
predicted, and which is run again on a target that has no Python.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Union

from harness.core import plugins
from harness.core.base import Frozen
from harness.core.errors import EngineError, RefusedError
from harness.core.foreign import json_of, read_limited, typed
from harness.core.model import Weights
from harness.core.result import PartMemory, Score
from harness.workloads import TRACE_ENDING
from harness.workloads.chain import RecordedPass
from harness.workloads.system_parts import SystemParts

GROUP = "edge_harness.workloads"
_MOST_BYTES = 256 << 20
"""Of a file of cases."""


class WorkloadCase(Frozen, tag=str.lower, tag_field="kind"):
    """One line of a case file; a kind of case is a subclass, ``class Ask(Case)``, with its columns.

    Attributes:
        needs: Parts without which it is not answered, of ``language``, ``encoder``.
    """

    needs: ClassVar[tuple[str, ...]] = ()


Cases = Sequence[Any]
Scores = Sequence[Score]
Answers = Sequence[Any]
"""What ``step`` gave for each of the cases, in their order."""
Size = Mapping[str, int]
PartWeights = Mapping[str, Weights]
"""Of the parts that llama.cpp runs, by name."""


class Context(NamedTuple):
    """What a system runs with.

    Attributes:
        parts: Those that were named, or that its cases need.
        size: Its parameters.
        folder: Scratch folder of this run, removed afterwards.
        thread_count: CPU threads of its parts.
    """

    parts: SystemParts
    size: Size
    folder: Path
    thread_count: int = 1


class System:
    """A system that runs beside a language model.

    Attributes:
        name: The name of its entry point.
        title: One line for people.
        kinds: Types of its cases, each a :class:`WorkloadCase` with a tag of its own; a tag labels the time of such a
            step.
        options: Parts that it takes where they are named, beside those that its cases need.
        context_tokens: That the language model is opened with.
        apart_bytes: Memory of processes of its own, which a run here does not start.
        opens_again: Whether it opens the language model a second time, to look inside.
        usual: Passes of a usual step of each kind, from which time is predicted before anything runs.
        sizes: Named parameter sets, ``default`` among them.
    """

    name: str
    title: ClassVar[str]
    kinds: ClassVar[tuple[type[WorkloadCase], ...]]
    options: ClassVar[tuple[str, ...]] = ()
    context_tokens: int = 2048
    apart_bytes: int = 0
    opens_again: ClassVar[bool] = False
    usual: ClassVar[Mapping[str, Sequence[RecordedPass]]] = {}
    sizes: ClassVar[Mapping[str, Size]] = {"default": {}}

    @property
    def parts(self) -> list[str]:
        """Every part that it can take."""
        return sorted({part for kind in self.kinds for part in kind.needs} | set(self.options))

    def cases(self, size: Size) -> Cases:
        """The built-in cases, in the order in which they are put."""
        raise NotImplementedError

    def read(self, path: Path) -> Cases:
        """The cases of a file of JSON lines.

        Raises:
            BadDataError: A line is no case of the system: names the line, the column, what was found and
                expected.
            RefusedError: The file holds no case.
        """
        kinds: Any = Union[self.kinds]  # noqa: UP007
        cases = []
        for number, line in enumerate(read_limited(path, _MOST_BYTES, "JSON lines").splitlines(), 1):
            if line.strip():
                place = f"{path}:{number}"
                cases.append(typed(json_of(line, place, "a JSON object"), kinds, place))
        if not cases:
            raise RefusedError(f"{path} holds no case")
        return cases

    def passes(self, size: Size) -> Mapping[str, Sequence[Sequence[RecordedPass]]]:
        """Passes of each kind of step, case by case, as far as they are known before a run."""
        return {step: [passes] for step, passes in self.usual.items()}

    def part_files(self, paths: Mapping[str, str], cache: Path) -> dict[str, str]:
        """The files that are opened, made of those that were named where they must be others."""
        return dict(paths)

    def prepare(self, context: Context) -> Any:
        """The state that ``step`` works on, built outside the clock: what it runs with, unless it says otherwise."""
        return context

    def ready(self, state: Any, case: Any) -> Any:
        """The case as ``step`` takes it, made off the clock."""
        return case

    def step(self, state: Any, case: Any) -> Any:
        """Answer one case; JSON values, kept in the record."""
        raise NotImplementedError

    def nulls(self, state: Any, case: Any) -> Mapping[str, Any]:
        """Answers of simpler means to the same case, by name; off the clock, and only when all are scored.

        They stand in the answer, a JSON object, as ``nulls``.
        """
        return {}

    def memory(self, state: Any) -> Sequence[PartMemory]:
        """Memory of its own processes, as it is at the end of a run."""
        return ()

    def held_bytes(self, size: Size, weights: PartWeights) -> int:
        """Memory that it holds beside its parts, whose ``weights`` are those of llama.cpp's."""
        return 0

    def score(self, cases: Cases, answers: Answers) -> Scores:
        """Figures of the answers, each beside what answers without the system's work would get.

        Raises:
            WrongAnswerError: An answer is wrong whatever the model.
        """
        return ()


def kind_of(case: Any) -> str:
    """The tag of a case or of its type."""
    return str(case.__struct_config__.tag)


def names() -> list[str]:
    """Every system that an installed package declares, sorted."""
    return plugins.entry_names(GROUP)


def load(name: str) -> System:
    """One system by its name, or the calls of a trace by the path of its file.

    Raises:
        UnknownNameError: None of that name is declared.
        EngineError: It is declared, and its module or object is not there, or is no system.
    """
    if name.endswith(TRACE_ENDING) or Path(name).is_file():
        from harness.workloads.trace import TraceSystem

        return TraceSystem(Path(name))
    system = plugins.load_entry(GROUP, name, "workload")
    if not isinstance(system, System):
        kind = type(system).__name__
        raise EngineError(
            f"workload {name!r}: found {kind}, which does not subclass harness.workloads.system.System"
        )
    return system


def size_of(system: System, text: str) -> dict[str, int]:
    """Read a size from its name, or from ``name=number`` parts that change the default one.

    Raises:
        RefusedError: The text is neither.
    """
    if text in system.sizes:
        return dict(system.sizes[text])
    size = dict(system.sizes["default"])
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in size or not value.isdigit():
            known = f"{', '.join(system.sizes)}, or NAME=NUMBER with a name of {', '.join(size)}"
            raise RefusedError(f"size: found {part!r}, expected {known}")
        size[key] = int(value)
    return size
