"""The Python API: what the command line does, for notebooks and scripts.

    from harness import fit, compare, recommend, matrix, check, run, judge, load, learn, history

    found = fit("llama-3.1-8b", "rtx 3060 12GB", context_tokens=8192)
    print(f"It writes {found.decode_tokens_per_s:.0f} tokens a second")

Results print as the command line does, show as tables in a notebook, and give plain data by ``to_dict()``.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

import msgspec

from harness.answer.answer import Answer, answer, best_case
from harness.answer.brief import ENDS, Brief, brief_of, row_of
from harness.answer.causes import Slow, slow
from harness.answer.contract import Compared, Past, Ranked, read
from harness.answer.matrix import ask
from harness.answer.pasted import seen_in
from harness.core.errors import InputError, MissingPackageError
from harness.core.placement import Placement
from harness.core.prediction import Interval
from harness.core.question import Asked, EnginePart, Question
from harness.core.record import Record
from harness.core.scenario import Scenario
from harness.gates.judge import Judgement

if TYPE_CHECKING:
    from harness.measure.pipeline import How
    from harness.verbs.learn import Lesson

__all__ = [
    "Fit",
    "Options",
    "Table",
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


class Options(TypedDict, total=False):
    """Fields of :class:`harness.core.question.Asked`: what may be asked of a model on a device."""

    quant: str
    context_tokens: int | str | None
    prompt_tokens: int
    new_tokens: int
    depth_tokens: int
    users: int | str
    ubatch_tokens: int
    kv_type: str
    value_type: str
    program: str | None
    api: str
    thread_count: int
    without: tuple[EnginePart, ...]
    placement: Placement | None
    beside: tuple[str, ...]
    draft: str
    target_tokens_per_s: float | None
    minutes: float | None
    entitled: bool
    ram_budget: str


class Fit:
    """The answer to one question.

    Attributes:
        answer: All of it.
    """

    def __init__(self, found: Answer) -> None:
        self.answer = found

    @property
    def fits(self) -> bool:
        """Whether it runs there, and as fast as was wanted."""
        return self.answer.is_wanted

    @property
    def decode_tokens_per_s(self) -> Interval:
        """Decode speed, of all users together, with its 90 % interval."""
        return self.answer.prediction.speed.decode_tokens_per_s

    @property
    def brief(self) -> Brief:
        """What decides: verdict, speeds, first token, memory, energy and the command."""
        return brief_of(self.answer)

    def why(self, measured: float, log: str = "") -> Slow:
        """Why a measured decode speed is slower than predicted; ``log`` is what the program printed.

        Raises:
            InputError: The speed is not above 0.
        """
        if not measured > 0:
            raise InputError(f"measured: found {measured!r}, expected tokens/s above 0")
        return slow(measured, self.answer, best_case(self.answer), seen_in(log))

    def cost(self, kwh: float) -> Interval | None:
        """What a million tokens cost in electricity, at a price of a kWh; None where nobody stated the power."""
        from harness.show.measured_speed import electricity_line

        return electricity_line(f"{kwh}", self.answer.energy)[0]

    @property
    def commands(self) -> tuple[str, ...]:
        """What to type to run it so."""
        return self.answer.commands

    def to_dict(self) -> dict[str, Any]:
        """The document of ``edge-harness fit --json``."""
        return dict(msgspec.to_builtins(self.answer, str_keys=True))

    def __str__(self) -> str:
        from harness.show.first_screen import first_screen

        return "\n".join(first_screen(self.answer))

    def __repr__(self) -> str:
        from harness.show.first_screen import sentence

        return f"<Fit: {sentence(self.answer)}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


class Table(list[dict[str, Any]]):
    """Rows of plain data under the same names.

    Attributes:
        items: What the rows were made of.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], items: Sequence[Any]) -> None:
        super().__init__(rows)
        self.items = items

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self[0]) if self else []

    def to_dict(self) -> dict[str, list[Any]]:
        """Columns of equal length."""
        return {name: [row[name] for row in self] for name in self.names}

    def to_frame(self) -> Any:
        """A data frame of pandas.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingPackageError("pandas", "pip install pandas") from None
        return pandas.DataFrame(list(self))

    def __repr__(self) -> str:
        return f"<Table: {len(self)} rows of {', '.join(self.names) or 'nothing'}>"

    def _repr_html_(self) -> str:
        text = _html_row("th", self.names)
        for row in self:
            text += _html_row("td", row.values())
        return f"<table>{text}</table>"


def _html_row(tag: str, values: Iterable[Any]) -> str:
    cells = ""
    for value in values:
        shown = f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)
        cells += f"<{tag}>{html.escape(shown)}</{tag}>"
    return f"<tr>{cells}</tr>"


def fit(model: str, device: str = "this", **options: Unpack[Options]) -> Fit:
    """Whether a model fits on a device, and how fast it runs.

    ``model`` is a name or a file, ``device`` a name, a line of parts, a file, or ``this`` for this machine.

    Raises:
        InputError: A name or a value is wrong, or an option would change nothing.
    """
    return Fit(answer(read({"model": model, "device": device, **options}, Question)))


def compare(
    models: str | Sequence[str], devices: str | Sequence[str] = "this", **options: Unpack[Options]
) -> Table:
    """Several models or devices beside each other: a row each, the fastest first; its ``items`` are the answers.

    Raises:
        InputError: A name or a value is wrong, or there are more than 8 pairs.
    """
    request = read({"models": _listed(models), "devices": _listed(devices), **options}, Compared)
    asked = {name: getattr(request, name) for name in Asked.__struct_fields__}
    found = [
        answer(Question(model=one, device=device, **asked), advises=False)
        for one in request.models
        for device in request.devices
    ]
    found.sort(key=lambda one: -one.prediction.speed.decode_tokens_per_s.mid if one.runs else 0.0)
    return Table([row_of(brief_of(one)) for one in found], found)


def recommend(
    device: str = "this", task: str = "chat", *, instead_of: str = "", **options: Unpack[Options]
) -> Table:
    """Which models are best for a task on a device: a row each, best first; ``items`` holds the ranking.

    Raises:
        InputError: A name or a value is wrong.
    """
    from harness.verbs.recommend import recommend as rank

    request = read({"device": device, "task": task, "instead_of": instead_of, **options}, Ranked)
    asked = Asked(**{name: getattr(request, name) for name in Asked.__struct_fields__})
    ranking = rank(request.device, request.task, asked, request.instead_of)
    rows = []
    for one in ranking.choices:
        row = {"model": one.model, "quant": one.quant, "score": one.score, "scale": one.scale}
        row |= {"tokens_per_s": one.tokens_per_s.mid, "needed_bytes": one.needed_bytes, "way": one.kind.value}
        rows.append(row)
    return Table(rows, [ranking])


def _listed(names: str | Sequence[str]) -> list[str]:
    """Names, of which one may be given alone."""
    return [names] if isinstance(names, str) else [*names]


def matrix(
    models: str | Sequence[str] = ("*",),
    devices: str | Sequence[str] = ("*",),
    *,
    quants: str | Sequence[str] = ("Q4_K_M",),
    contexts: Sequence[int] = (4096,),
    **options: Unpack[Options],
) -> Table:
    """Every combination of what the patterns match, a row each.

    Raises:
        UnknownNameError: A pattern matches nothing.
        InputError: There are too many combinations.
    """
    asked = read(options, Asked)
    pairs = list(ask(_listed(devices), _listed(models), _listed(quants), contexts, asked))
    return Table([_answer_row(*pair) for pair in pairs], [found for _, found in pairs])


def _answer_row(question: Question, found: Answer | None) -> dict[str, Any]:
    row: dict[str, Any] = {"device": question.device, "model": question.model, "quant": question.quant}
    row["context_tokens"] = question.context_tokens
    if found is None:
        return row | dict.fromkeys(_COLUMNS) | {"verdict": "impossible"}
    cells = row_of(brief_of(found))
    return row | {name: cells[name] for name in _COLUMNS}


_COLUMNS: Final = (
    *("verdict", "way", "needed_bytes", "available_bytes"),
    *(f"decode_tokens_per_s{end}" for end in ENDS),
    *(f"prefill_tokens_per_s{end}" for end in ENDS),
    *(f"first_token_s{end}" for end in ENDS),
    *(f"joules_per_token{end}" for end in ENDS),
)
"""Columns of a table of answers, beside those of its questions."""


def run(
    model: str,
    *,
    quant: str = "",
    scenario: Scenario = Scenario(),  # noqa: B008
    depth_tokens: Sequence[int] = (0,),
    repetitions: int = 5,
    runtime: str = "llamacpp",
    timeout_s: float = 1800.0,
) -> Table:
    """Measure a model on this machine, and return a row for each figure at each depth.

    The records are the ``items`` of the returned table, and stand in the history too.

    Raises:
        InputError: No such model, quantisation or runtime.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    from harness.measure.probe.machine_profile import own_profile
    from harness.measure.protocol import GenerateJob
    from harness.verbs.run import cells_of, run_cells

    cells = cells_of((model,), quant, scenario, depth_tokens=tuple(depth_tokens))
    job = GenerateJob(runtime=runtime, repetitions=repetitions)
    return _table(run_cells(cells, job, how=_how(timeout_s), device=own_profile()))


def check(
    models: Sequence[str] = (),
    *,
    quant: str = "",
    scenario: Scenario = Scenario(new_tokens=64),  # noqa: B008
    repetitions: int = 5,
    probe_again: bool = False,
    timeout_s: float = 1800.0,
) -> Table:
    """Predict models on this machine, run them, and return a row that compares each figure.

    The records of the runs are the ``items`` of the returned table.

    Raises:
        HarnessError: A name is unknown, or the machine could not be probed.
    """
    from harness.measure.protocol import GenerateJob
    from harness.verbs.check import check as run_check

    job = GenerateJob(repetitions=repetitions)
    _, records = run_check(models, quant, scenario, job, _how(timeout_s), probe_again=probe_again)
    return _table(records)


def load(*references: str | Path) -> list[Record]:
    """Records of files, folders, results of other tools, or runs of the history by the beginning of their identifier.

    Raises:
        BadDataError: A file is no results, or there is neither a file nor a run of that name.
    """
    from harness.verbs.results import gather

    return gather(map(str, references))


def history(limit: int = 20) -> Table:
    """The newest runs of this machine: a row each; the records are its ``items``."""
    from harness.measure.pipeline import open_history
    from harness.records.derive import summarise

    past = open_history()
    records = list(past.records(limit=read({"limit": limit}, Past).limit)) if past.path.exists() else []
    rows = []
    for record in records:
        row: dict[str, Any] = {"run_id": record.run_id, "created": record.created, "outcome": record.outcome}
        row |= {"model": record.name, "quant": record.quant, "workload": record.workload}
        decode = summarise(record).test("decode") if record.outcome == "ok" else None
        rows.append(row | {"decode_tokens_per_s": decode.value if decode else None})
    return Table(rows, records)


def learn(device: str, *lines: str) -> Lesson:
    """Teach the predictions for a device by measurements: lines such as ``"qwen3-30b-a3b Q4_K_M - 164"``.

    Raises:
        InputError: A line is no measurement, or the device is unknown.
    """
    from harness.answer.resolve import resolve_device
    from harness.verbs.learn import learn as teach
    from harness.verbs.learn import pasted_line

    return teach(resolve_device(device), [one for line in lines for one in pasted_line(line)])


def judge(budgets: str | Path, records: Sequence[Record], baseline: Sequence[Record] = ()) -> list[Judgement]:
    """A judgement for each budget of a file, in its order.

    Raises:
        BadDataError: The file is no budgets file.
    """
    from harness.gates.budget_file import load_budgets
    from harness.gates.evaluate import evaluate

    return evaluate(load_budgets(Path(budgets)), records, baseline=baseline)


def _table(records: Sequence[Record]) -> Table:
    from harness.records.compare import rows_of

    rows: list[dict[str, Any]] = []
    for record in records:
        run: dict[str, Any] = {"run_id": record.run_id, "model": record.name, "quant": record.quant}
        run |= {"depth_tokens": record.scenario.depth_tokens, "outcome": record.outcome}
        rows += [run | msgspec.structs.asdict(row) for row in rows_of(record)]
    return Table(rows, records)


def _how(timeout_s: float) -> How:
    from harness.measure.child import Limits
    from harness.measure.pipeline import How

    return How(limits=Limits(wall_s=timeout_s))
