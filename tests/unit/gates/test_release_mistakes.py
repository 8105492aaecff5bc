"""Twenty mistakes that a release engineer makes: the gate is green for none of them, and says what is wrong."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec import structs

from harness.cli import main
from harness.core.record import Record, Validity
from harness.gates.propose import propose, to_toml
from harness.records.store import load, save

KEPT = Path(__file__).parents[2] / "records" / "v2-smollm2-135m.json"
GOOD = load(KEPT)
BUDGETS = to_toml(propose([GOOD], finds_ratio=0.4))  # of one run: a fifth could not be told


def disturbed(record: Record, factor: float = 1.0) -> Record:
    """The same with every sample marked, and so many times as long."""
    busy = Validity(doubts=("other processes used 80 % of all CPU time",))
    samples = [structs.replace(s, validity=busy, duration_s=s.duration_s * factor) for s in record.samples]
    return structs.replace(record, samples=tuple(samples), outcome="inconclusive")


def slower(record: Record, factor: float, run_id: str = "slow") -> Record:
    samples = [structs.replace(s, duration_s=s.duration_s * factor) for s in record.samples]
    return structs.replace(record, samples=tuple(samples), run_id=run_id)


def model(**fields: object) -> Record:
    assert GOOD.model is not None
    return structs.replace(GOOD, model=structs.replace(GOOD.model, **fields))


def machine(**fields: object) -> Record:
    return structs.replace(GOOD, machine=structs.replace(GOOD.machine, **fields))


def scenario(**fields: object) -> Record:
    return structs.replace(GOOD, scenario=structs.replace(GOOD.scenario, **fields))


class Mistake(NamedTuple):
    """What lies in the folder of results, what stands in the budgets, what is typed; the status, and what is said."""

    records: list[Record]
    budgets: str
    words: list[str]
    status: set[int]
    says: str


def mistake(
    *records: Record, edit: Callable[[str], str] = str, words: str = "", status: int | set[int] = 4, says: str
) -> Mistake:
    statuses = {status} if isinstance(status, int) else status
    return Mistake(list(records), edit(BUDGETS), words.split(), statuses, says)


RATIO = '[[budget]]\nmetric = "decode_tokens_per_s"\nslowdown_ratio = 0.10\n'
ABSENT = "absent"
NAME = GOOD.model.name if GOOD.model else ""
MISTAKES = {
    "a typo in the model's name": mistake(
        GOOD, edit=lambda t: t.replace(f'"{NAME}"', f'"{NAME}x"'), says="no run matches this budget"
    ),
    "a typo in the device's name": mistake(
        GOOD, edit=lambda t: t.replace(f'"{GOOD.machine.device}"', '"borad"'), says="no run matches this budget"
    ),
    "a model that was renamed": mistake(model(name="another"), says="there is generate another"),
    "a typo in a metric": mistake(
        GOOD, edit=lambda t: t.replace("decode_tokens_per_s", "decode_token_per_s"), status=2, says="decode_token_per_s"
    ),
    "a typo in a key": mistake(GOOD, edit=lambda t: t.replace("floor", "flor"), status=2, says="flor"),
    "a limit in the wrong direction": mistake(
        GOOD, edit=lambda t: t.replace("floor", "ceiling"), status=2, says="expected a floor for this metric"
    ),
    "a budgets file that is empty": mistake(GOOD, edit=lambda t: "", status=2, says="budget"),
    "a budgets file that is not there": mistake(GOOD, edit=lambda t: ABSENT, status=2, says="budgets.toml"),
    "an empty folder of results": mistake(status=2, says="a folder without .json files"),
    "a run that crashed": mistake(
        structs.replace(GOOD, outcome="crashed", detail="signal 11", samples=()), says="crashed (signal 11)"
    ),
    "a run that was killed for lack of memory": mistake(
        structs.replace(GOOD, outcome="out of memory", samples=()), says="out of memory"
    ),
    "a run that crashed beside a good one": mistake(
        GOOD, structs.replace(GOOD, run_id="second", outcome="crashed", samples=()), says="second: crashed"
    ),
    "another quantisation": mistake(model(quant="Q2_K"), says="quant is 'Q2_K'"),
    "another file of the same name": mistake(model(sha256="0" * 64), says="model_sha256 is"),
    "another machine": mistake(machine(cpu_model="a faster one"), says="machine is 'a faster one"),
    "another cache, shorter answers": mistake(scenario(kv_type="Q4_0", new_tokens=8), says="kv_type is 'Q4_0'"),
    "a machine that is disturbed all along": mistake(
        disturbed(GOOD), status={1, 3}, says="every sample was disturbed"
    ),
    "a slow run hidden beside a good one": mistake(
        GOOD, slower(GOOD, 1.9), status=3, says="the interval holds the limit"
    ),
    "a baseline that is missing": mistake(
        GOOD, edit=lambda t: RATIO, says="no baseline run matches this budget"
    ),
    "a baseline of another model": mistake(
        GOOD, edit=lambda t: RATIO + f'model = "{NAME}"\n', words="--baseline other", says="no baseline run"
    ),
    "a baseline's folder that is not there": mistake(
        GOOD, edit=lambda t: RATIO, words="--baseline nowhere/", status=2, says="nowhere"
    ),
    "a metric that was never measured": mistake(
        GOOD, edit=lambda t: '[[budget]]\nmetric = "joules_per_token"\nceiling = 1.0\n', says="no sample of this metric"
    ),
    "a record that was cut off": mistake(GOOD, words="cut.json", status=2, says="cut.json"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))
    (tmp_path / "results").mkdir()
    save(model(name="another"), tmp_path / "other" / "run.json")
    (tmp_path / "cut.json").write_bytes(KEPT.read_bytes()[:2000])
    return tmp_path


def gate(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of the gate, by the command line itself."""
    monkeypatch.setattr(sys, "argv", ["edge-harness", "gate", "--budget", "budgets.toml", "--all", "results", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_run_itself_is_green(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "budgets.toml").write_text(BUDGETS)
    save(GOOD, folder / "results" / "good.json")

    assert gate([], monkeypatch) == 0


@pytest.mark.parametrize("name", MISTAKES)
def test_no_mistake_is_green(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    records, budgets, words, status, says = MISTAKES[name]
    if budgets != ABSENT:
        (folder / "budgets.toml").write_text(budgets)
    for record in records:
        save(record, folder / "results" / f"{record.run_id}.json")

    assert gate(words, monkeypatch) in status
    printed = capfd.readouterr()
    assert says in " ".join((printed.out + printed.err).split())


def test_an_ending_without_a_format_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "budgets.toml").write_text(BUDGETS)

    assert gate(["-o", "gate.pdf"], monkeypatch) == 2
