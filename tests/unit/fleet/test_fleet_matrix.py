"""Matrix files: what is read, what is refused, and which cells come of it."""

from pathlib import Path

import pytest

from harness.errors import BadDataError, CouldNotRunError, RefusedError
from harness.fleet.matrix import load_matrix, tasks_of
from harness.fleet.net import check_address, client_of, security_of
from harness.fleet.run import measure, run_fleet

GOOD = 'devices = ["phone", "laptop"]\nmodels = ["smollm2-135m", "/m/x.gguf"]\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "matrix.toml"
    path.write_text(text)
    return path


def test_cells_are_all_combinations(tmp_path: Path) -> None:
    matrix = load_matrix(
        write(tmp_path, GOOD + 'quants = ["Q4_0", "Q8_0"]\ndepths = [0, 64]\n[scenario]\nnew_tokens = 7\n')
    )
    tasks = tasks_of(matrix)

    assert len(tasks) == 2 * 2 * 2 * 2
    assert len({task.key for task in tasks}) == 16
    assert {task.scenario.new_tokens for task in tasks} == {7}
    assert [task.device for task in tasks[:2]] == ["phone", "laptop"], "each device has work from the start"
    assert all("/" not in task.key for task in tasks)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        pytest.param(GOOD + "colour = 3\n", "colour", id="unknown key"),
        pytest.param('devices = []\nmodels = ["a"]\n', "devices", id="no device"),
        pytest.param('devices = ["a", "a"]\nmodels = ["m"]\n', "devices", id="twice"),
        pytest.param('devices = ["../up"]\nmodels = ["m"]\n', "devices[0]", id="a path as a name"),
        pytest.param(GOOD + "repetitions = 0\n", "repetitions", id="no repetitions"),
        pytest.param(GOOD + "timeout_s = nan\n", "timeout_s", id="NaN"),
        pytest.param(GOOD + "depths = [100000]\n", "depths[0]", id="beyond the context"),
        pytest.param(GOOD + "[scenario]\nwings = 2\n", "scenario.wings", id="unknown key inside"),
        pytest.param(GOOD.replace('"phone"', "3"), "devices", id="wrong type"),
        pytest.param("[[", "", id="no TOML"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(text: str, field: str, tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=r"matrix\.toml") as caught:
        load_matrix(write(tmp_path, text))
    assert field in caught.value.field


def test_what_is_no_task_is_refused_by_the_device() -> None:
    for data in (b"", b"{}", b'{"device": 1}', b"\xff"):
        with pytest.raises(BadDataError):
            measure(data)


@pytest.mark.parametrize("address", ["", "host", "host:8786", "http://h:1", "tcp://:1", "tcp://h:", "tls://h:8786"])
def test_addresses_that_cannot_be_meant(address: str) -> None:
    with pytest.raises(RefusedError):
        check_address(address, None)


def test_a_key_that_is_not_there_and_an_address_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="No such file"):
        security_of(tmp_path / "a")
    with pytest.raises(RefusedError, match="expected tls://HOST:PORT with --tls"):
        check_address("tcp://h:1", tmp_path / "a")


def test_no_scheduler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("harness.fleet.net.CONNECT_S", 1.0)
    with pytest.raises(CouldNotRunError, match=r"no scheduler answered at tcp://127\.0\.0\.1:9"):
        client_of("tcp://127.0.0.1:9", None).__enter__()


def test_nothing_is_written_where_nothing_was_measured(tmp_path: Path) -> None:
    tasks = tasks_of(load_matrix(write(tmp_path, GOOD)))
    with pytest.raises(RefusedError):
        run_fleet(tasks, "nowhere", folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
