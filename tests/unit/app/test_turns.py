"""Several runtimes in turns: order, samples put together, and what the command line takes for a runtime."""

from pathlib import Path

import click
import pytest

from harness.app.run import Options, cells_of, run_in_turns
from harness.cli._options import sides_of
from harness.domain.scenario import Scenario
from harness.measure.child import Limits
from harness.measure.pipeline import How, open_history


def test_records_hold_the_samples_of_all_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    model = tmp_path / "m.json"
    model.write_text("{}")
    options = Options(runtime="fake", repetitions=3, cold_loads=0, how=How(limits=Limits(wall_s=30.0)))
    cells = cells_of([str(model)], "", Scenario(context_tokens=64, prompt_tokens=4, new_tokens=2, thread_count=1))
    ((first, second),) = run_in_turns(cells, [options, options._replace(repetitions=2)])
    assert first.outcome == second.outcome == "ok"
    assert first.run_id < second.run_id
    assert (len(first.believed("decode")), len(second.believed("decode"))) == (6, 4)
    turns = [record.result.repetitions for record in open_history().records(limit=9)]  # type: ignore[union-attr]
    assert turns == [3, 2, 2, 3], "the second round is the other way round"


def sides(runtimes: str, url: str = "", model: str = "") -> list[tuple[str, str]]:
    found = sides_of(runtimes, url, model, "KEY", False, 60.0)
    return [(name, job.url if job else "") for name, job in found]


def test_runtimes_of_the_command_line() -> None:
    assert sides("llamacpp") == [("llamacpp", "")]
    assert sides("llamacpp,ik,server:http://h:1") == [("llamacpp", ""), ("ik", ""), ("server", "http://h:1")]
    assert sides("server, ik", "http://h:2") == [("server", "http://h:2"), ("ik", "")]


@pytest.mark.parametrize(
    ("runtimes", "url", "model"), [("server", "", ""), ("ik:http://h", "", ""), ("ik", "http://h", ""), ("ik", "", "m")]
)
def test_half_a_server_is_refused(runtimes: str, url: str, model: str) -> None:
    with pytest.raises(click.UsageError):
        sides(runtimes, url, model)
