"""What a system beside a language model is: one object, timed, predicted, evaluated and planned for.

A system is one file with a :class:`System`, which ends in ``SYSTEM = ...``; a package declares it under the entry point
group ``edge_harness.workloads``::

    [project.entry-points."edge_harness.workloads"]
    my_memory = "my_package.memory:SYSTEM"

The runner opens the parts (language model, sentence encoder, NLI model), calls ``prepare`` once outside the clock, then
``step`` once for each case on the clock, and ``score`` on the answers. Time, memory and figures therefore belong to the
same object, and so does ``cost``, from which the time is predicted before the run.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.domain.base import Frozen, shipped_table
from harness.errors import RefusedError

if TYPE_CHECKING:
    from harness.workloads.parts import SystemParts

Case = Mapping[str, Any]
"""One line of a case file: JSON values by column."""
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
    """A column of a case file: ``kind`` is the type of its JSON value, one of :data:`KINDS`."""

    kind: type
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
            cls.columns = {name: Column(KINDS[kind], *of) for name, (kind, *of) in rows["columns"].items()}

    def cases(self, size: Size, seed: int) -> Sequence[Case]:
        """The built-in cases, in the order in which they are put."""
        raise NotImplementedError

    def read_cases(self, path: Path) -> Sequence[Case]:
        """Cases of a public data set that is no JSON lines; RefusedError where the file is none that is known."""
        raise RefusedError(f"{path}: found {path.suffix or 'no ending'}, expected .jsonl for {self.name}")

    def prepare(self, parts: "SystemParts", size: Size, context: Context) -> Any:
        """The state that ``step`` works on, built outside the clock; the parts themselves unless it says otherwise."""
        return parts

    def step(self, state: Any, case: Case) -> Any:
        """Answer one case; JSON values, kept in the record."""
        raise NotImplementedError

    def cost(self, parts: Collection[str], size: Size) -> Mapping[str, Cost]:
        """What one step of each kind takes with these parts (``step`` where there is one kind)."""
        raise NotImplementedError

    def score(self, cases: Sequence[Case], answers: Sequence[Any]) -> Mapping[str, Any]:
        """Figures of the answers; WrongAnswerError where an answer is wrong whatever the model."""
        return {}


def kind_of(case: Case) -> str:
    """What a step with this case does."""
    return str(case.get("kind", DEFAULT_KIND))
