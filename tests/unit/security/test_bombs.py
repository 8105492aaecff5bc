"""What has no end, or is far too much, is given up: in time, and with at most 200 MB of memory."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.core.errors import BadDataError, CouldNotRunError, FetchError
from harness.core.outside import output_of, understood
from harness.hardware.cpus import numbers
from harness.measure.targets.shell import Frame, files_in

MOST_BYTES = 200e6

BOMBS = {
    # what it is: what a fresh process does, and the words of the error that it must end in
    "a program that prints without end": (
        "output_of(['sh', '-c', 'cat /dev/zero'], 'it', timeout_s=60)", "printed more than"
    ),
    "a program whose errors have no end": (
        "output_of(['sh', '-c', 'cat /dev/zero >&2'], 'it', timeout_s=60)", "printed more than"
    ),
    "a phone that answers without end": (
        "ShellTarget('phone', ('sh', '-c'), folder='/tmp').shell('cat /dev/zero')", "printed more than"
    ),
    "a phone whose errors have no end": (
        "ShellTarget('phone', ('sh', '-c'), folder='/tmp').shell('cat /dev/zero >&2')", "printed more than"
    ),
    "a phone of 300,000 files": ("files_in([f'==> /{n} <==' for n in range(300_000)])", "more than 10000 files"),
    "counters of 340 MB": ("counters(b'==> /a <==\\n' + b'x' * 60_000 + b'\\n==> /end <==\\n', 6000)", "told enough"),
    "a hash of /dev/zero": ("sha256_of(Path('/dev/zero'))", "no regular file"),
    "a CPU of number 99,999,999,999": ("tell(numbers('99999999999,0-99999999999'))", "of at most 65537"),
}  # fmt: skip
PRELUDE = """
import io, threading, time
from pathlib import Path
from harness.models.file_hash import sha256_of
from harness.hardware.cpus import numbers
from harness.core.errors import HarnessError, RefusedError
from harness.core.outside import output_of
from harness.measure.targets.shell import CounterFrames, ShellTarget, files_in

class Sent(io.RawIOBase):
    def __init__(self, data, count):
        self.data, self.left, self.held = data, count, b""
    def readline(self, most):
        if not self.held and self.left:
            self.held, self.left = self.data, self.left - 1
        line, end, self.held = self.held.partition(b"\\n")
        return line + end

def counters(data, count):
    frames = CounterFrames(type("process", (), {"stdout": Sent(data, count)})())
    while not frames.ended:
        time.sleep(0.01)
    raise RefusedError("told enough")

def tell(found):
    raise RefusedError(f"{len(found)} of at most 65537")

try:
    CALL
except HarnessError as error:
    print(error)
# Of this process alone: what getrusage tells begins with that of the process that started it.
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak) * 1024)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_what_has_no_end_is_given_up(name: str, tmp_path: Path) -> None:
    call, words = BOMBS[name]
    script = PRELUDE.replace("CALL", call)
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True,
        env=os.environ | {"EDGE_HARNESS_HOME": str(tmp_path)},
    )  # fmt: skip

    said, peak_bytes = done.stdout.strip().rsplit("\n", 1)
    assert words in said
    assert int(peak_bytes) <= MOST_BYTES
    assert time.monotonic() - started_s < 45


def test_a_program_that_never_ends_is_ended() -> None:
    started_s = time.monotonic()
    with pytest.raises(CouldNotRunError, match="it: no end after"):
        output_of(["sleep", "60"], "it", timeout_s=0.3)
    assert time.monotonic() - started_s < 10


def test_what_a_program_leaves_running_does_not_hold_its_output() -> None:
    started_s = time.monotonic()
    assert output_of(["sh", "-c", "echo done; sleep 60 &"], "it", timeout_s=30) == b"done\n"
    assert time.monotonic() - started_s < 20


def test_names_that_are_no_files_are_no_crash(tmp_path: Path) -> None:
    for name in ("/" + "a" * 300, "/proc"):
        frame = Frame(0.0, {"/proc/stat": "x", name: "y"})
        with pytest.raises(BadDataError, match="the name of a file"):
            frame.write(tmp_path / "root")
    assert files_in(["==> /a <==", "1", "", "==> /b <==", "2"]) == {"/a": "1\n", "/b": "2\n"}


@pytest.mark.parametrize("text", ["1,2,3", "0-3", "9" * 5000, "0-" + "9" * 5000, "7-1"])
def test_lists_of_cpus_are_of_cpus_that_can_be(text: str) -> None:
    assert all(0 <= cpu <= 65_536 for cpu in numbers(text))


def test_an_answer_that_cannot_be_read_says_whose_it_was() -> None:
    told: dict[str, list[int]] = {"cpus": []}
    for answer in (lambda: int("x"), lambda: told["cpus"][1], lambda: told["a"], lambda: int("9" * 5000)):
        with (
            pytest.raises(CouldNotRunError, match="the phone: it answered what cannot be read"),
            understood("the phone"),
        ):
            answer()


@contextmanager
def mirror(head: bytes, piece: bytes, gap_s: float) -> Iterator[str]:
    """A hub that answers every request with ``head`` and then ``piece`` again and again."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(1 << 16)
            connection.sendall(head)
            while not ended.wait(gap_s):
                try:
                    connection.sendall(piece)
                except OSError:
                    return

    def serve(listening: socket.socket) -> None:
        while not ended.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        ended.set()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n%s\r\n"


@pytest.mark.parametrize(
    ("head", "piece", "gap_s", "says"),
    [
        pytest.param(HEAD % b"", b"x" * (1 << 20), 0.0, "sends more than", id="without end"),
        pytest.param(HEAD % b"", b"x", 0.05, "was too slow", id="a byte now and then"),
        pytest.param(HEAD % b"Content-Encoding: gzip\r\n", b"x", 0.05, "a pressed page", id="pressed"),
    ],
)
def test_a_page_of_a_mirror_is_bounded(
    head: bytes, piece: bytes, gap_s: float, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub")
    from harness.models import hub_client

    monkeypatch.setattr(hub_client, "_PAGE_S", 0.5)
    monkeypatch.setattr(hub_client, "_SLOWEST_BYTES_PER_S", 1 << 40 if "slow" in says else 1 << 14)
    with mirror(head, piece, gap_s) as url, pytest.raises(FetchError, match=says):
        hub_client.download("a/b", f"{url}/api/models/a/b", tmp_path / "part", 1 << 24)
