"""Cells over several devices: real processes, each an edge-harness of its own, real adb daemons, real Dask workers."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.running_servers import free_port
from tests.adb_device import Daemon

QUICK = ("--runtime", "fake", "-c", "256", "-p", "16", "-n", "4", "-t", "1", "-r", "1", "--cold-loads", "0")
needs_adbd = pytest.mark.skipif(
    not (shutil.which("adb") and shutil.which("adbd") and shutil.which("unshare") and os.geteuid() == 0),
    reason="needs adb, adbd and root (apt install adb adbd)",
)


def run(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "harness", "run", *QUICK, "--json", "--out", str(folder / "out"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=folder)


def items(done: "subprocess.CompletedProcess[str]") -> list[dict]:
    return json.loads(done.stdout)["items"]


def of(done: "subprocess.CompletedProcess[str]", field: str) -> Sequence[str]:
    return [record[field] for record in items(done)]


def devices(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [record["machine"]["device"] for record in items(done)]


def models(folder: Path, *names: str, text: str = "{}") -> list[str]:
    for name in names:
        (folder / f"{name}.json").write_text(text)
    return [str(folder / f"{name}.json") for name in names]


def lab(folder: Path, *targets: str) -> None:
    (folder / "lab.toml").write_text("\n".join(f"[[target]]\n{target}" for target in targets))


@pytest.mark.shared_machine
def test_a_target_that_cannot_be_reached_is_a_failed_record_a_cell_and_the_others_go_on(tmp_path: Path) -> None:
    done = run(tmp_path, *models(tmp_path, "good", "half"), "--on", "local,ssh://127.0.0.1:1", "--wait-for", "0")

    assert done.returncode == 4, done.stderr
    assert of(done, "outcome") == ["ok", "ok", "failed", "failed"]
    lost = items(done)[-1]
    assert lost["machine"]["device"] == "ssh://127.0.0.1:1"
    assert "refused" in lost["detail"]
    assert lost["extra"]["model"].endswith("half.json")
    assert len(list((tmp_path / "out").glob("*.json"))) == 4, "each record is kept as it comes"
    listed = subprocess.run(
        [sys.executable, "-m", "harness", "history", "--outcome", "failed", "--limit", "50"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert lost["run_id"][:15] in listed.stdout or "half" in listed.stdout


def test_what_is_no_record_fails_that_target_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "no-such-model.json", "--on", "adb://none,ssh://-oProxyCommand=x", "--wait-for", "0")

    assert done.returncode == 4, done.stderr
    assert of(done, "outcome") == ["failed", "failed"]
    assert "Traceback" not in done.stderr


def test_one_target_twice_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "m.json", "--on", "local,local")

    assert done.returncode == 2
    assert "once" in done.stderr


@pytest.mark.shared_machine
def test_a_lab_of_this_machine_three_times_and_what_was_measured_is_resumed(tmp_path: Path) -> None:
    lab(tmp_path, *(f'on = "local"\nname = "{name}"\ntags = ["pi"]' for name in "abc"))
    words = [*models(tmp_path, "m"), "--depth", "0,8,16"]

    each = run(tmp_path, *words, "--on", "lab.toml")

    assert each.returncode == 0, each.stderr
    assert devices(each) == [*"aaa", *"bbb", *"ccc"], "a cell on every device"
    pooled = run(tmp_path, *words, "--on", "lab.toml:pi")
    assert len(items(pooled)) == 3, "a cell on any of equal devices"
    assert set(devices(pooled)) <= set("abc")

    again = run(tmp_path, *words, "--on", "lab.toml:pi", "--resume")

    assert of(again, "run_id") == of(pooled, "run_id")


@pytest.mark.shared_machine
def test_the_cells_of_an_absent_device_go_to_its_equal(tmp_path: Path) -> None:
    lab(
        tmp_path, 'on = "ssh://127.0.0.1:1"\nname = "gone"\ntags = ["pi"]', 'on = "local"\nname = "here"\ntags = ["pi"]'
    )

    done = run(tmp_path, *models(tmp_path, "a", "b"), "--on", "lab.toml:pi")

    assert done.returncode == 0, done.stdout
    assert devices(done) == ["here", "here"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[target]]\non = "usb://x"', "target[0].on"),
        ('[[target]]\non = "local"\ntag = ["x"]', "tag"),
        ('[[target]]\non = "local"\n[[target]]\non = "local"', "target[1].name"),
        ('[[target]]\non = "local"\ntags = ["pi"]', "expected one of local, pi"),
    ],
)
def test_what_is_no_lab_is_told_by_file_and_field(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "lab.toml").write_text(text)

    done = run(tmp_path, "m.json", "--on", "lab.toml:pixel")

    assert done.returncode == 2
    assert "lab.toml" in done.stderr
    assert said in done.stderr


@pytest.fixture
def phones(tmp_path: Path):
    os.environ["ANDROID_ADB_SERVER_PORT"] = str(free_port())
    daemons = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        daemons.append(Daemon(tmp_path / name))
    yield daemons
    for daemon in daemons:
        daemon.kill()
    subprocess.run(["adb", "kill-server"], capture_output=True, check=False, timeout=20)
    del os.environ["ANDROID_ADB_SERVER_PORT"]


@needs_adbd
@pytest.mark.shared_machine
def test_a_phone_that_dies_loses_no_cell(tmp_path: Path, phones) -> None:
    """Two daemons of adb are a tag; one is killed before its second cell, and one device was never there."""
    lab(
        tmp_path,
        *(f'on = "{phone.name}"\nname = "p{number}"\ntags = ["pixel"]' for number, phone in enumerate(phones)),
        'on = "local"\nname = "desk"\ntags = ["pixel"]',
        'on = "adb://never"\nname = "absent"',
    )
    phones[1].kill()

    done = run(tmp_path, *models(tmp_path, "a", "b", "c"), "--on", "lab.toml:pixel,absent,p1", "--wait-for", "1")

    assert len(items(done)) == 9, "every cell ends as a record"
    by_place = devices(done)
    assert by_place[3:6] == ["absent"] * 3
    assert by_place[6:] == ["p1"] * 3
    assert set(of(done, "outcome")[3:]) == {"failed"}
    assert "never" in items(done)[3]["detail"]


@pytest.fixture
def dask(tmp_path: Path):
    """A scheduler of Dask, and how to start a worker that has some resource."""
    pytest.importorskip("distributed")
    port = free_port()
    started = []
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
        )
        started.append(process)
        return process

    start("scheduler", "--host", "127.0.0.1", "--port", str(port))

    def worker(resource: str, name: str) -> subprocess.Popen[bytes]:
        return start(
            "worker",
            f"tcp://127.0.0.1:{port}",
            "--no-nanny",
            "--nthreads",
            "2",
            "--name",
            name,
            "--resources",
            resource,
        )

    yield f"tcp://127.0.0.1:{port}", worker
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.shared_machine
def test_a_scheduler_with_three_workers_one_of_which_dies(tmp_path: Path, dask) -> None:
    address, worker = dask
    first = worker("pi=1", "first")
    worker("pi=1", "second")
    worker("rtx=1", "third")
    slow = json.dumps({"sleeps": True, "load_s": 1.0})
    words = [*models(tmp_path, "a", "b", "c", text=slow), "--on", "pi,rtx,nobody", "--scheduler", address]
    command = [sys.executable, "-m", "harness", "run", *QUICK, "--json", *words, "--wait-for", "8"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    time.sleep(6)
    first.kill()

    out, error = running.communicate(timeout=200)

    assert running.returncode == 4, error
    records = json.loads(out)["items"]
    assert [record["machine"]["device"] for record in records] == ["pi"] * 3 + ["rtx"] * 3 + ["nobody"] * 3
    assert [record["outcome"] for record in records] == ["ok"] * 6 + ["failed"] * 3
    assert "no worker of the scheduler has 'nobody' after 8 s" in records[-1]["detail"]
    again = run(tmp_path, *words[:-2], "--scheduler", address, "--resume", "--wait-for", "1")
    assert of(again, "run_id")[:6] == [record["run_id"] for record in records[:6]]


def test_no_scheduler_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    done = run(tmp_path, "m.json", "--on", "pi", "--scheduler", f"tcp://127.0.0.1:{free_port()}")

    assert done.returncode == 4
    assert "no scheduler of Dask answers" in done.stderr
    assert "Traceback" not in done.stderr
