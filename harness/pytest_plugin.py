"""pytest plug-in: run a model from a team's own test suite, and hold it to budgets.

Loaded by pytest wherever edge-harness is installed, so it imports nothing but pytest until a fixture is used.

    @pytest.mark.edge_model("smollm2-135m", new_tokens=64)
    @pytest.mark.edge_budget("decode_tokens_per_s", floor=20)
    @pytest.mark.edge_budget("peak_memory_bytes", ceiling=400e6)
    def test_assistant_is_fast_enough(edge_model, edge_budget):
        edge_budget(edge_model.run())

With pytest-benchmark installed, ``edge_benchmark`` puts a run into its table and its JSON, so that
``--benchmark-autosave``, ``--benchmark-compare`` and histograms work on a model:

    def test_assistant_is_as_fast_as_before(edge_model, edge_benchmark):
        edge_benchmark(edge_model.run())  # a row in the table, and numbers to compare
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from harness.core.budget import Budget
    from harness.core.record import Record
    from harness.gates.judge import Judgement

_MARKERS = (
    "edge_model(name, quant='', repetitions=5, runtime='llamacpp', **scenario): the model to run",
    "edge_budget(metric, floor=..., ceiling=..., roofline_ratio=..., prediction_ratio=..., ...): a budget to keep",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the plug-in."""
    group = parser.getgroup("edge-harness")
    group.addoption("--edge-records", metavar="FOLDER", help="Write the record of each run there.")
    parser.addini("edge_budgets", "Budgets (TOML) that every run must keep.", default="")
    parser.addini(
        "edge_inconclusive", "What an inconclusive budget does: skip (default) or fail.", default="skip"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


_CALLED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that is marked with a budget and held no record to it proves nothing: it fails."""
    yield
    if item.get_closest_marker("edge_budget") and not item.stash.get(_CALLED, False):
        pytest.fail(
            "edge_budget: found a marker alone, expected the fixture to be called with a record",
            pytrace=False,
        )


_JOB = ("repetitions", "runtime", "patience_s")
"""Keywords of the marker ``edge_model`` that are not fields of the scenario."""


class EdgeModel(NamedTuple):
    """The model of a test, how it is run (``job``), and its scenario's ``fields``, such as ``new_tokens``."""

    request: pytest.FixtureRequest
    name: str
    quant: str
    job: dict[str, Any]
    fields: dict[str, Any]

    def run(self, **fields: Any) -> "Record":
        """Measure it in a child process and give the record; ``fields`` change the marker's scenario.

        Raises:
            HarnessError: The model or the machine cannot be used.
        """
        from harness.answer.resolve import scenario_from
        from harness.measure.pipeline import How
        from harness.measure.probe.machine_profile import own_profile
        from harness.measure.protocol import GenerateJob
        from harness.verbs.run import cells_of, run_cells

        cells = cells_of((self.name,), self.quant, scenario_from(self.fields | fields))
        folder = self.request.config.getoption("--edge-records")
        how = How(keep=False, folder=Path(folder) if folder else None)
        job = GenerateJob(cold_loads=0, **self.job)
        (record,) = run_cells(cells, job, how=how, device=own_profile())
        return record


@pytest.fixture
def edge_model(request: pytest.FixtureRequest) -> EdgeModel:
    """The model that the marker ``edge_model`` names."""
    marker = request.node.get_closest_marker("edge_model")
    if marker is None or not marker.args:
        raise pytest.UsageError(f"{request.node.nodeid}: mark it with @pytest.mark.edge_model(NAME)")
    fields = dict(marker.kwargs)
    name, quant = (*marker.args, fields.pop("quant", ""))[:2]
    job = {key: fields.pop(key) for key in _JOB if key in fields}
    return EdgeModel(request, name, quant, job, fields)


_RECORDS = pytest.StashKey[dict[str, "Record"]]()
_IN_SECONDS = {
    "decode": "s a token",
    "prefill": "s a prompt",
    "first_token": "s to the first token",
    "load": "s to load",
}
"""Phases whose samples are shown by pytest-benchmark, which knows seconds alone."""


class _Replay:
    """A clock that moves only as far as the samples of a run took, so that pytest-benchmark times them anew."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pass_by(self, duration_s: float) -> None:
        """Let so many seconds pass."""
        self.now_s += duration_s


@pytest.fixture
def edge_benchmark(request: pytest.FixtureRequest) -> "Callable[..., None]":
    """A function that hands a record to pytest-benchmark: ``edge_benchmark(record, phase="decode")``.

    Each undisturbed sample of the phase is one round, of its seconds a token (decode), a prompt, a first token
    or a load. The record's figures stand in ``extra_info``, and its other phases beside it in the JSON.

    UsageError where pytest-benchmark is not installed, or the record holds no such sample.
    """
    plugins = request.config.pluginmanager
    if not plugins.hasplugin("benchmark") and not plugins.hasplugin("pytest_benchmark"):
        raise pytest.UsageError("edge_benchmark: install pytest-benchmark to use it")
    clock = _Replay()
    request.node.add_marker(pytest.mark.benchmark(timer=clock, disable_gc=False, warmup=False))
    benchmark = request.getfixturevalue("benchmark")

    def hand_over(record: "Record", phase: str = "decode") -> None:
        rounds = _rounds(record, phase)
        if not rounds:
            raise pytest.UsageError(
                f"edge_benchmark: the record of {record.name} holds no sample of {phase!r}"
            )
        left = iter(rounds)
        benchmark.group = benchmark.group or f"{record.name} {record.quant}: {_IN_SECONDS[phase]}"
        benchmark.extra_info.update(_figures(record))
        request.config.stash.setdefault(_RECORDS, {})[request.node.nodeid] = record
        benchmark.pedantic(lambda: clock.pass_by(next(left)), rounds=len(rounds), iterations=1)

    return hand_over


def _rounds(record: "Record", phase: str) -> list[float]:
    """Seconds of each undisturbed sample of a phase; of decode those of a token."""
    if phase not in _IN_SECONDS:
        raise pytest.UsageError(
            f"edge_benchmark: found phase {phase!r}, expected one of {', '.join(_IN_SECONDS)}"
        )
    rounds = []
    for sample in record.samples:
        if (
            sample.phase == phase
            and not sample.warm_up
            and not sample.validity.doubts
            and sample.duration_s > 0
        ):
            count = sample.token_count if phase == "decode" else 1
            rounds.append(sample.duration_s / max(count, 1))
    return rounds


def _figures(record: "Record") -> dict[str, Any]:
    """Medians of what the record measured, and what ran: for ``extra_info``."""
    from statistics import median

    from harness.core.metric import FIGURES, metric_values

    found: dict[str, Any] = {"model": record.name, "quant": record.quant, "runtime": record.runtime}
    if record.engine is not None:
        found["runtime_version"] = record.engine.version
    for name in FIGURES:
        if values := metric_values(record, name):
            found[name] = median(values)
    return found


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    """Add the other phases of each record to the JSON of pytest-benchmark, a benchmark each."""
    del benchmarks
    from statistics import fmean, median, stdev

    records = config.stash.get(_RECORDS, {})
    added = []
    for entry in output_json["benchmarks"]:
        record = records.get(entry["fullname"])
        if record is None:
            continue
        for phase, unit in _IN_SECONDS.items():
            rounds = sorted(_rounds(record, phase))
            if not rounds or entry["group"].endswith(f": {unit}"):
                continue
            stats = {
                "min": rounds[0],
                "max": rounds[-1],
                "mean": fmean(rounds),
                "stddev": stdev(rounds) if len(rounds) > 1 else 0.0,
                "median": median(rounds),
                "rounds": len(rounds),
                "ops": 1 / fmean(rounds),
                "total": sum(rounds),
            }
            group = f"{record.name} {record.quant}: {unit}"
            changed = {
                "name": f"{entry['name']}:{phase}",
                "fullname": f"{entry['fullname']}:{phase}",
                "group": group,
            }
            added.append(entry | changed | {"stats": entry["stats"] | stats | {"data": rounds}})
    output_json["benchmarks"] += added


@pytest.fixture
def edge_budget(request: pytest.FixtureRequest) -> "Callable[..., list[Judgement]]":
    """A function that holds records to the test's budgets: markers, the budgets file, and its own arguments.

    ``edge_budget(record, metric="decode_tokens_per_s", floor=20)``, or ``edge_budget(record)``. A broken
    budget fails the test with the evidence; an inconclusive one skips it, unless ``edge_inconclusive =
    fail``. A test that is marked with a budget and never calls it fails too.
    """

    def hold(*records: "Record", **limits: Any) -> "list[Judgement]":
        from harness.gates.evaluate import evaluate
        from harness.gates.formats import terminal

        request.node.stash[_CALLED] = True
        judgements = evaluate(_budgets(request, limits), records)
        answers = {judgement.answer for judgement in judgements}
        others = [judgement for judgement in judgements if judgement.answer != "pass"]
        text = terminal(others) if others else ""
        if answers & {"fail", "could not run"}:
            pytest.fail(f"budget broken\n\n{text}", pytrace=False)
        if others and request.config.getini("edge_inconclusive") == "fail":
            pytest.fail(f"inconclusive: more samples are needed\n\n{text}", pytrace=False)
        if others:
            pytest.skip(f"inconclusive: {others[0].reason}")
        return judgements

    return hold


def _budgets(request: pytest.FixtureRequest, limits: dict[str, Any]) -> "list[Budget]":
    """Budgets of the markers, the file and the call.

    UsageError where there is none, or one breaks the schema.
    """
    import msgspec

    from harness.core.budget import Budget
    from harness.core.errors import BadDataError
    from harness.gates.budget_file import check_budget, load_budgets

    name = request.node.nodeid
    asked = [limits] if limits else []
    for marker in request.node.iter_markers("edge_budget"):
        asked.insert(0, marker.kwargs | ({"metric": marker.args[0]} if marker.args else {}))
    file = request.config.getini("edge_budgets")
    try:
        budgets = [msgspec.convert(fields, Budget) for fields in asked]
        for budget in budgets:
            check_budget(budget, name, "edge_budget")
        if file:
            budgets += load_budgets(request.config.rootpath / file)
    except (msgspec.ValidationError, BadDataError) as error:
        raise pytest.UsageError(f"{name}: {error}") from error
    if not budgets:
        raise pytest.UsageError(f"{name}: no budget: mark it, name a file, or give a limit")
    return budgets
