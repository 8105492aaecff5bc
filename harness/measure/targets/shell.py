"""A device on which POSIX shell scripts run, reached by a command: all that targets share.

Needed there: sh, cat, cp, head, wc, df, mkdir, mv, sha256sum; Android's toybox and GNU have them.
"""

import contextlib
import hashlib
import re
import shlex
import subprocess
import tempfile
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

from harness.core.errors import BadDataError, CouldNotRunError
from harness.core.foreign import inside
from harness.core.outside import MOST_BYTES, StreamReader, output_of, understood
from harness.core.printable import clean
from harness.core.progress import Progress, no_progress
from harness.models.file_hash import sha256_of

_CHUNK_BYTES: Final = 1 << 20
_FRAME_MAX_BYTES: Final = 1 << 20
_FRAMES_MAX_BYTES: Final = 32 << 20
"""Of the frames that are kept, the newest; a reading of the counters is some 10 KiB."""
_FILES_MAX: Final = 10_000
"""Of one answer: a server of 256 cores has half as many."""
_LINE_MAX_BYTES: Final = 1 << 16
_LINGER_S: Final = 0.7
_SPARE_BYTES: Final = 64 << 20
"""Left free on the target: a full Android data partition stops the system itself."""
_FOLDERS: Final = '/data/local/tmp/edge-harness "$HOME/.cache/edge-harness/pushed"'
_COUNTERS: Final = (
    "/proc/uptime /proc/stat /proc/vmstat /proc/meminfo /proc/pressure/*"
    " /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"
    " /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_max_freq"
    " /sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp"
    " /sys/class/power_supply/*/type /sys/class/power_supply/*/status /sys/class/power_supply/*/capacity"
    " /sys/class/power_supply/*/*_now /sys/class/powercap/*/name /sys/class/powercap/*/*_uj"
)
DUMPS: Final = 'for s in thermalservice battery power; do echo "==> /dumpsys/$s <=="; dumpsys $s 2>/dev/null | head -n 60; done'
"""What Android's services say, in the form of ``head -v``; nothing elsewhere."""
_SLOW_EVERY: Final = 10
"""``dumpsys`` takes some 50 ms of a phone's CPU: asked once in so many frames."""
LOST: Final = -1
"""Status of a command of which nobody knows how it ended."""
_ENDED = re.compile(r"^ended (\d{1,9})$", re.MULTILINE)
_ANSWER: Final = "the device's answer"
_NAMED = re.compile(r"^==> (/.*) <==$")


class Frame(NamedTuple):
    """The device's kernel files at one moment.

    ``at_s`` on this machine's monotonic clock, when they had arrived.
    """

    at_s: float
    files: Mapping[str, str]
    size_bytes: int = 0

    def write(self, root: Path) -> None:
        """Lay the files out under ``root``, so that readers of a file system's root can read them.

        Raises:
            BadDataError: The device names a file that would lie elsewhere.
        """
        for name, text in self.files.items():
            path = inside(root, name.lstrip("/"), _ANSWER)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                shown = repr(clean(name))
                raise BadDataError(_ANSWER, "", f"{shown}: {error.strerror}", "the name of a file") from error

    @contextlib.contextmanager
    def laid(self) -> Iterator[Path]:
        """A root folder with the files, which lasts for a block, with the errors of :meth:`write`."""
        with tempfile.TemporaryDirectory() as folder:
            self.write(Path(folder))
            yield Path(folder)


class ShellTarget:
    """One device, named as the user wrote it; ``words`` are the command that runs the script appended to it.

    Pushed files lie in ``folder``, the first usable of the places meant for it unless given. With ``quoted``
    a shell stands between, for which a script must be quoted.
    """

    def __init__(self, name: str, words: Sequence[str], *, folder: str = "", quoted: bool = False) -> None:
        self.name = name
        self._words = words
        self._folder = folder
        self._quoted = quoted

    def argv(self, script: str) -> list[str]:
        """The command on this machine that runs ``script`` there."""
        return [*self._words, f"exec sh -c {shlex.quote(script)}" if self._quoted else script]

    def shell(self, script: str, *, timeout_s: float = 60.0, check: bool = True) -> str:
        """Output of a script; CouldNotRunError where it failed, the connection did, or it took or said too much."""
        printed = output_of(self.argv(script), self.name, timeout_s=timeout_s, ends=(0,) if check else None)
        return printed.decode("utf-8", "replace")

    @property
    def folder(self) -> str:
        """Where files of ours lie on the target."""
        if not self._folder:
            android = "case $d in /data/*) [ -w /data/local/tmp ] || continue;; esac"
            usable = f'{android}; mkdir -p "$d" 2>/dev/null && [ -w "$d" ] && echo "$d" && exit'
            self._folder = self.shell(f"for d in {_FOLDERS}; do {usable}; done; exit 9").strip()
        return self._folder

    def put(
        self, path: Path, sha256: str, *, executable: bool = False, progress: Progress | None = None
    ) -> str:
        """Push a file under its hash, unless it is there, and return its path there.

        Raises:
            CouldNotRunError: No room, no connection, or what arrived is not what was sent.
        """
        size = path.stat().st_size
        place = f"{self.folder}/{sha256[:16]}-{re.sub(r'[^A-Za-z0-9._-]', '_', path.name)}"
        there, part, own = map(shlex.quote, (place, f"{place}.part", self.folder))
        told = self.shell(
            f"mkdir -p {own}; (wc -c < {there} || echo -1) 2>/dev/null; df -Pk {own} | tail -n 1"
        ).split()
        with understood(self.name):
            have, free = int(told[0]), int(told[4]) * 1024
        if have == size:
            return place
        if size + _SPARE_BYTES > free:
            room = f"{size} bytes in {self.folder}, {free} are free and {_SPARE_BYTES} must stay so"
            raise CouldNotRunError(f"{self.name}: {path.name} needs {room}")
        self._send(path, f"exec cat > {part}", progress or no_progress)
        mode = f"chmod 755 {part};" if executable else ""
        arrived = self.shell(f"{mode} sha256sum < {part}", timeout_s=600).split()[:1]
        if arrived != [sha256]:
            self.shell(f"rm -f {part}")
            raise CouldNotRunError(
                f"{self.name}: {path.name} arrived with another hash and was removed: try again"
            )
        self.shell(f"mv -f {part} {there}")
        return place

    def put_program(self, path: Path) -> tuple[str, ...]:
        """Push a program, and the shared libraries beside it under their own names.

        Returns the words of the command that starts the program on the target.

        Raises:
            CouldNotRunError: The target does not take a file, as with :meth:`put`.
        """
        places: dict[str, str] = {}
        names: dict[str, str] = {}
        for file in (path, *sorted(path.parent.glob("*.so*"))):
            sha256 = sha256_of(file)
            if sha256 not in places:  # libraries are there under several names
                places[sha256] = self.put(file, sha256, executable=True)
            names[file.name] = places[sha256]
        if len(names) == 1:
            return (names[path.name],)
        release = hashlib.sha256(" ".join(places).encode()).hexdigest()[:16]
        folder = f"{self.folder}/release-{release}"
        script = f"mkdir -p {shlex.quote(folder)}"
        for name, there in names.items():
            script += f" && cp {shlex.quote(there)} {shlex.quote(f'{folder}/{name}')}"
        self.shell(script)
        return "env", f"LD_LIBRARY_PATH={folder}", f"{folder}/{path.name}"

    def _send(self, path: Path, script: str, progress: Progress) -> None:
        size = path.stat().st_size
        done = 0
        with (
            subprocess.Popen(
                self.argv(script), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            ) as process,
            path.open("rb") as file,
        ):
            assert process.stdin is not None and process.stderr is not None
            errors = StreamReader(process.stderr, process.kill)
            with contextlib.suppress(BrokenPipeError):  # its status tells why
                while chunk := file.read(_CHUNK_BYTES):
                    process.stdin.write(chunk)
                    done += len(chunk)
                    progress(done, size)
                process.stdin.close()
            errors.join()
            status = process.wait()
        if status or done < size:
            why = _last(errors.taken()) or "the connection broke"
            raise CouldNotRunError(f"{self.name}: pushing {path.name} stopped ({why})")

    def start(self, command: Sequence[str]) -> "Running":
        """Start a command there; it ends when the connection does."""
        own = shlex.quote(self.folder)
        # The shell waits for the end of its input beside the command: a lost connection ends both. Afterwards
        # it holds the CPU time of the command, and stays until the counters were read once more.
        script = (
            f"mkdir -p {own}; cd {own} || exit 9; exec 3<&0;"
            # The command's own process tells its number, before it becomes the command: nothing else is told
            # earlier.
            f""" sh -c 'echo "pid $$ $PPID" >&2; exec "$@"' sh {shlex.join(command)} 3<&- </dev/null & p=$!;"""
            f" echo $p $$ > {own}/run.pid;"
            " (while read -r x; do :; done <&3; kill -9 $p) >/dev/null 2>&1 & w=$!;"
            ' wait $p; s=$?; echo "ended $s" >&2; kill $w 2>/dev/null;'
            f" sleep {_LINGER_S:g}; rm -f {own}/run.pid; exit $s"
        )
        return Running(self, self.argv(script))

    def stop(self) -> None:
        """End what an earlier session left running there."""
        pid = shlex.quote(f"{self.folder}/run.pid")
        # One that works in our folder: another may have its number since.
        ours = f'[ "$(readlink -f /proc/$p/cwd)" = "$(readlink -f {shlex.quote(self.folder)})" ]'
        self.shell(f"read -r p w < {pid} && {ours} && kill -9 $p && sleep 0.2; rm -f {pid}", check=False)

    @contextlib.contextmanager
    def counters(self, *, period_s: float = 0.5) -> Iterator["CounterFrames"]:
        """Frames of the device's counters, and of the command that is started, while the block runs.

        All of them come from one shell, since the start of a shell would disturb the run.
        """
        own = "/proc/$1/stat /proc/$1/status /proc/$2/stat"
        script = (
            f"i=0; while :; do set -- - -; read -r p w < {shlex.quote(self.folder)}/run.pid && set -- $p $w;"
            f" head -v -n 400 {own} {_COUNTERS} 2>/dev/null;"
            f" if [ $i -eq 0 ]; then i={_SLOW_EVERY}; {DUMPS}; fi;"
            f' i=$((i-1)); echo "==> /end <=="; sleep {period_s:g} || exit; done'
        )
        process = subprocess.Popen(
            self.argv(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        found = CounterFrames(process)
        try:
            found.around(0.0, time.monotonic())  # what is started then has a frame before it
            yield found
        finally:
            process.kill()
            process.wait()


class CounterFrames:
    """Frames as they arrive; a device that sends one without end is no longer read."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.frames: list[Frame] = []
        self._slow: dict[str, str] = {}  # what Android's services said last
        self.ended = False
        self._more = threading.Condition()
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, stream: IO[bytes]) -> None:
        taken: list[str] = []
        size = 0
        while size <= _FRAME_MAX_BYTES and (line := stream.readline(_LINE_MAX_BYTES)):
            size += len(line)
            if not line.startswith(b"==> /end"):
                taken.append(line.decode("utf-8", "replace").rstrip("\n"))
                continue
            try:
                files = files_in(taken)
            except BadDataError:
                break
            self._slow |= {name: text for name, text in files.items() if name.startswith("/dumpsys/")}
            with self._more:
                self.frames = [*self.frames, Frame(time.monotonic(), {**self._slow, **files}, size)]
                while sum(frame.size_bytes for frame in self.frames) > _FRAMES_MAX_BYTES:
                    self.frames = self.frames[1:]
                self._more.notify_all()
            taken = []
            size = 0
        with self._more:
            self.ended = True
            self._more.notify_all()

    def around(self, start_s: float, end_s: float, *, patience_s: float = 5.0) -> list[Frame]:
        """Frames from the last one before ``start_s`` to the first one after ``end_s``.

        The call waits for that last frame for ``patience_s`` at most.
        """
        with self._more:
            self._more.wait_for(
                lambda: self.ended or (self.frames and self.frames[-1].at_s >= end_s), patience_s
            )
            times = [frame.at_s for frame in self.frames]
            before = max(bisect_right(times, start_s) - 1, 0)
            return self.frames[before : bisect_left(times, end_s) + 1]


class Running:
    """A command on the target; its lines as they come, and its end."""

    def __init__(self, target: ShellTarget, argv: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.status = LOST
        first = self._readline()
        assert self.process.stdout is not None and self.process.stderr is not None
        if not first.startswith("pid "):
            self.process.kill()
            rest = StreamReader(self.process.stderr, self.process.kill)
            rest.join(_LINGER_S)
            said = _last(first.encode() + rest.taken()) or "the command did not start"
            raise CouldNotRunError(f"{target.name}: {said}")
        with understood(target.name):
            _, self.pid, self.shell_pid = map(int, first.replace("pid", "0").split())
        # Read from the beginning: a command whose output nobody takes would wait for ever.
        self._output = StreamReader(self.process.stdout, self.kill)

    def _readline(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline(_LINE_MAX_BYTES).decode("utf-8", "replace")

    def told(self) -> Iterator[tuple[float, str]]:
        """Lines of the command's error output, each with the time it came (monotonic seconds).

        A command that prints too many lines is killed, so that memory stays bounded.
        """
        size = 0
        while line := self._readline():
            size += len(line)
            if size > MOST_BYTES:
                self.kill()
                return
            if ended := _ENDED.match(line):
                self.status = int(ended[1])
            else:
                yield time.monotonic(), line.rstrip("\r\n")

    def finish(self, timeout_s: float) -> tuple[int, str]:
        """Exit status and output; it is killed there when it takes longer, or prints more than is allowed.

        The status is the one told from there: adb ends well when its device disappears. ``LOST`` without one.
        """
        assert self.process.stderr is not None
        with _limited(timeout_s, self.kill):
            errors = StreamReader(self.process.stderr, self.kill)
            errors.join()
            self._output.join()
            self.process.wait()
        if ended := _ENDED.search(errors.taken().decode("utf-8", "replace")):
            self.status = int(ended[1])
        return self.status, self._output.taken().decode("utf-8", "replace")

    def kill(self) -> None:
        """End it: the end of its input does, there; and the connection here."""
        given, self.process.stdin = self.process.stdin, None  # communicate() would flush what is closed
        with contextlib.suppress(OSError):
            if given is not None:
                given.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()


def files_in(lines: Sequence[str]) -> dict[str, str]:
    """Files in the output of ``head -v``: each after its name, an empty line before the next one."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        if named := _NAMED.match(line):
            if len(found) > _FILES_MAX:
                raise BadDataError(_ANSWER, "", f"more than {_FILES_MAX} files", "some of its counters")
            if name and found[name] and not found[name][-1]:
                found[name].pop()
            name = named[1]
            found[name] = []
        elif name:
            found[name].append(line)
    return {name: "\n".join(text) + "\n" for name, text in found.items()}


@contextlib.contextmanager
def _limited(timeout_s: float, end: Callable[[], None]) -> Iterator[None]:
    """Call ``end`` if the block takes longer."""
    late = threading.Timer(timeout_s, end)
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _last(errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
