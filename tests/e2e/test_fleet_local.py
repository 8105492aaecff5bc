"""A fleet of worker processes on this machine: each with a home of its own, as separate devices have."""

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.domain.record import RunRecord
from harness.errors import CouldNotRunError
from harness.fleet.matrix import Task, load_matrix, tasks_of
from harness.fleet.run import run_fleet
from harness.records.derive import summarise
from harness.records.store import load

pytest.importorskip("distributed")


class Fleet:
    """Processes of a fleet."""

    def __init__(self, folder: Path, *tls: str) -> None:
        self.folder, self.tls = folder, tls
        self.processes: list[subprocess.Popen[str]] = []
        self.scheduler = self.start("up", "--port", "0", "--device-wait", "3")
        lines = self.scheduler.stdout
        self.address = next(line for line in lines if "scheduler at" in line).split()[-1]  # type: ignore[union-attr]

    def start(self, *args: str, home: str = "home") -> "subprocess.Popen[str]":
        environment = os.environ | {"EDGE_HARNESS_HOME": str(self.folder / home)}
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "fleet", *args, *self.tls],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.processes.append(process)
        return process

    def worker(self, device: str, number: int = 0) -> "subprocess.Popen[str]":
        process = self.start("worker", "--scheduler", self.address, "--device", device, home=f"{device}-{number}")
        assert "serves" in process.stdout.readline()  # type: ignore[union-attr]
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.end()


def matrix(folder: Path, devices: list[str], **models: dict[str, Any]) -> list[Task]:
    for name, fields in models.items():
        (folder / f"{name}.json").write_text(json.dumps(fields))
    names = [str(folder / f"{name}.json") for name in models]
    (folder / "matrix.toml").write_text(
        f"devices = {json.dumps(devices)}\nmodels = {json.dumps(names)}\nruntime = 'fake'\nrepetitions = 1\n"
        "cold_loads = 0\npatience_s = 0.0\n"
        "[scenario]\ncontext_tokens = 256\nprompt_tokens = 16\nnew_tokens = 4\nthread_count = 1\n"
    )
    return tasks_of(load_matrix(folder / "matrix.toml"))


SLOW = {"sleeps": True, "load_s": 0.3}


@pytest.mark.shared_machine
def test_results_come_from_the_right_device_and_are_saved(fleet: Fleet, tmp_path: Path) -> None:
    fleet.worker("phone")
    fleet.worker("laptop")
    # 2**-6 s a token is 64 tokens/s; twice that is 32.
    tasks = matrix(tmp_path, ["phone", "laptop"], good={}, half={"decode_s_per_token": 2**-5}, bad={"fault": "abort"})

    records = run_fleet(tasks, fleet.address, folder=tmp_path / "out")

    assert [r.machine.device for r in records] == [t.device for t in tasks]
    assert [r.outcome for r in records] == ["ok", "ok", "ok", "ok", "aborted", "aborted"]
    assert [load(tmp_path / "out" / f"{t.key}.json") for t in tasks] == records
    speeds = [test.value for r in records[:4] if (test := summarise(r).test("decode")) is not None]
    assert speeds == pytest.approx([64, 64, 32, 32])
    assert "GGML_ASSERT" in records[4].detail


@pytest.mark.shared_machine
def test_a_lost_worker_is_replaced_by_another_of_its_device(fleet: Fleet, tmp_path: Path) -> None:
    first, _ = fleet.worker("phone", 1), fleet.worker("phone", 2)
    tasks = matrix(tmp_path, ["phone"], **{f"m{n}": SLOW for n in range(4)})
    killed: list[float] = []

    def kill(task: Task, record: RunRecord) -> None:
        del task, record
        if not killed:
            first.send_signal(signal.SIGKILL)
            killed.append(time.monotonic())

    records = run_fleet(tasks, fleet.address, folder=tmp_path / "out", on_result=kill)

    assert killed
    assert [r.outcome for r in records] == ["ok"] * 4, [r.detail for r in records]


@pytest.mark.shared_machine
def test_a_device_without_a_worker_is_told_and_the_rest_completes(fleet: Fleet, tmp_path: Path) -> None:
    phone = fleet.worker("phone")
    fleet.worker("laptop")
    tasks = matrix(tmp_path, ["phone", "laptop"], **{f"m{n}": SLOW for n in range(3)})

    def kill(task: Task, record: RunRecord) -> None:
        del task, record
        phone.kill()

    records = run_fleet(tasks, fleet.address, folder=tmp_path / "out", on_result=kill)

    by_device: Callable[[str], list[RunRecord]] = lambda name: [r for r in records if r.machine.device == name]  # noqa: E731
    assert [r.outcome for r in by_device("laptop")] == ["ok"] * 3
    lost = [r for r in by_device("phone") if r.outcome == "failed"]
    assert lost
    # A cell that waited finds nobody; one that was on the killed worker is lost with it, or its result is.
    causes = (
        "no worker of phone was there for 3 s",
        "every worker of phone that ran this cell was lost",
        "the result of phone could not be fetched",
    )
    assert all(r.detail.startswith(causes) for r in lost), [r.detail for r in lost]
    # With a new worker a resumed run measures just those.
    fleet.worker("phone", 2)
    again = run_fleet(tasks, fleet.address, folder=tmp_path / "out", resume=True)
    assert [r.outcome for r in again] == ["ok"] * 6
    assert [r.run_id for r in again if r in records] == [r.run_id for r in records if r.outcome == "ok"]


@pytest.mark.shared_machine
def test_a_lost_scheduler_is_told_and_results_stay(fleet: Fleet, tmp_path: Path) -> None:
    fleet.worker("phone")
    tasks = matrix(tmp_path, ["phone"], **{f"m{n}": SLOW for n in range(3)})

    def kill(task: Task, record: RunRecord) -> None:
        del task, record
        fleet.scheduler.kill()

    try:
        records = run_fleet(tasks, fleet.address, folder=tmp_path / "out", on_result=kill)
    except CouldNotRunError as error:
        assert "--resume" in str(error)
    else:
        assert all("--resume" in r.detail for r in records if r.outcome == "failed")
    assert load(tmp_path / "out" / f"{tasks[0].key}.json").outcome == "ok"


def test_a_taken_address_is_told(fleet: Fleet) -> None:
    port = fleet.address.rpartition(":")[2]
    command = [sys.executable, "-m", "harness", "fleet", "up", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_port_is_of_this_machine_alone(fleet: Fleet) -> None:
    """Scheduler, its dashboard, a worker and its own page: whatever the processes and their children listen at."""
    fleet.worker("phone")
    places = []
    for process in fleet.processes:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        places += [c.laddr for p in tree for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert len(places) >= 4
    assert {ipaddress.ip_address(place.ip).is_loopback for place in places} == {True}, places


@pytest.mark.shared_machine
def test_tls_is_needed_where_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    command = [sys.executable, "-m", "harness", "fleet"]
    fleet = Fleet(tmp_path, "--tls", str(tmp_path / "key.pem"))
    try:
        assert fleet.address.startswith("tls://")
        fleet.worker("phone")
        matrix(tmp_path, ["phone"], m={})
        args = ["run", str(tmp_path / "matrix.toml"), "--scheduler", fleet.address, "--out", str(tmp_path / "out")]
        done = subprocess.run(
            [*command, *args, *fleet.tls, "--json"], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert [r["outcome"] for r in json.loads(done.stdout)["items"]] == ["ok"]
        plain = [part.replace("tls://", "tcp://") for part in args]
        refused = subprocess.run([*command, *plain], capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 4
        assert "no scheduler answered" in refused.stderr
        assert "Traceback" not in refused.stderr
    finally:
        fleet.end()
