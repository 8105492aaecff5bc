"""The campaign finds nothing in the product, and does find what is planted."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.core.record import Record
from harness.records.history import History
from tests.faults import calls, children, commands
from tests.faults.__main__ import campaign, main

FAST = ("child killed", "engine's assertion", "vanishing model", "clock set back", "garbage in the history")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGE_HARNESS_HOME", "EDGE_HARNESS_CACHE", "COLUMNS"):  # set by the campaign: put back afterwards
        monkeypatch.setenv(name, str(tmp_path))


def test_some_faults_of_the_child_cost_nothing() -> None:
    lines = campaign(len(FAST), 1, FAST)

    assert [(line.kind, line.injected, line.failures) for line in lines] == [(name, 1, []) for name in FAST]


def test_a_killed_parent_goes_on_where_it_stopped() -> None:
    (line,) = campaign(2, 3, ["parent killed, resumed"])

    assert (line.outcomes, line.failures) == ({"resumed": 2}, [])


@pytest.mark.skipif(not calls.can_trace(), reason="strace is not here, or may not trace")
@pytest.mark.parametrize("kind", calls.KINDS)
def test_a_call_that_fails_costs_nothing(kind: str) -> None:
    """``python -m tests.faults --count 200 --kind ...`` tries many more."""
    (line,) = campaign(2, 5, [kind])

    assert (line.injected, line.failures) == (2, [])


def test_a_lost_result_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(history: History, records: Iterable[Record], *, cell: str = "") -> None:
        del history, records, cell

    monkeypatch.setattr(History, "extend", forget)
    result = CliRunner().invoke(main, ["--count", "1", "--kind", "child killed", "--json"])

    assert result.exit_code == 1
    (kind,) = json.loads(result.stdout)["kinds"]
    assert kind["lost"] == 1


def test_there_are_more_than_twelve_kinds() -> None:
    assert len(children.KINDS | children.ENGINE_KINDS | commands.KINDS) >= 12


@pytest.mark.slow
def test_a_whole_campaign_loses_nothing() -> None:
    assert [line.failures for line in campaign(200, 0) if line.failures] == []
