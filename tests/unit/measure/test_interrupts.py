"""Signals end a child, a command and its exit status alike, also as the first process of a container."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals")

WAITING = """
import sys
from harness.measure import interrupts
from harness.measure.child import {call}
interrupts.listen()
try:
    ended = {call}("tests.unit.measure.test_interrupts:wait", {{"told": sys.argv[1]}})
    print(ended.outcome, ended.detail)
except KeyboardInterrupt:
    print("raised", interrupts.reason())
sys.exit(interrupts.exit_status())
"""


def wait(arguments: dict[str, str], _emit: object) -> None:
    """Child entry: say that it runs, and sleep."""
    Path(arguments["told"]).write_text("here")
    time.sleep(120)


def started(
    prefix: list[str], call: str, told: Path, *, ignored: signal.Signals | None = None
) -> subprocess.Popen[str]:
    def heard() -> None:
        # Whoever runs the tests by nohup or in the background ignores some of them.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN if number is ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", WAITING.format(call=call), str(told)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heard,  # noqa: PLW1509
    )
    until_s = time.monotonic() + 60
    while not told.exists() and time.monotonic() < until_s:
        time.sleep(0.02)
    assert told.exists()
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize(("call", "says"), [("run_child", "interrupted"), ("run_helper", "raised")])
def test_a_signal_ends_the_child_and_is_told(number: signal.Signals, call: str, says: str, tmp_path: Path) -> None:
    process = started([], call, tmp_path / "told")
    (child,) = psutil.Process(process.pid).children()
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out.strip()) == (128 + number, f"{says} ended by {number.name}")
    assert not child.is_running()


def test_what_the_starter_ignores_stays_ignored(tmp_path: Path) -> None:
    process = started([], "run_child", tmp_path / "told", ignored=signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out.strip()) == (143, "interrupted ended by SIGTERM")


def test_the_first_process_of_a_container_ends_too(tmp_path: Path) -> None:
    prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--user", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("no namespace of processes can be made here")
    process = started(prefix, "run_child", tmp_path / "told")
    (first,) = psutil.Process(process.pid).children()
    first.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out.strip()) == (143, "interrupted ended by SIGTERM")
