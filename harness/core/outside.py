"""Programs of others, run to their end: bounded in time and in what they print, and what went wrong in one line."""

import os
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Final

from harness.core.errors import CouldNotRunError

MOST_BYTES: Final = 16 << 20
"""Of what a program prints on either stream."""
_CHUNK_BYTES: Final = 1 << 16
_LINGER_S: Final = 2.0
"""How long what a program left running may hold its output open."""


def output_of(
    command: Sequence[str],
    called: str,
    *,
    timeout_s: float,
    ends: Collection[int] | None = (0,),
    fault: type[CouldNotRunError] = CouldNotRunError,
    when_late: str = "",
    errors_too: bool = False,
    environment: Mapping[str, str] = {},
) -> bytes:
    """Standard output of a program that ended with one of these exit statuses.

    ``called`` is the program's name in errors. ``ends`` is None where any status will do, and ``when_late`` says
    what a user can do where the program does not end. With ``errors_too`` its error output is part of the result.
    ``environment`` is set beside that of this process.

    Raises:
        CouldNotRunError: Of the class ``fault``, with the program's last line: it cannot be started, took longer
            than ``timeout_s``, printed more than is read, or ended with another status.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors_too else subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **environment},
        )
    except OSError as error:
        raise fault(f"{called}: {error.strerror}") from error
    readers = [
        StreamReader(stream, process.kill)
        for stream in (process.stdout, process.stderr)
        if stream is not None
    ]
    try:
        status = process.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        raise fault(f"{called}: no end after {timeout_s:g} s{when_late and ': '}{when_late}") from error
    finally:
        process.kill()  # nothing where it has ended; Ctrl-C leaves none behind
        process.wait()
        for reader in readers:
            reader.join(_LINGER_S)
    if any(reader.is_full for reader in readers):
        raise fault(f"{called}: it printed more than {MOST_BYTES} bytes")
    if ends is not None and status not in ends:
        said = [reader.taken().strip() for reader in reversed(readers)]
        lines = next(filter(None, said), b"no word").decode(errors="replace").splitlines()
        raise fault(f"{called}: exit status {status}: {lines[-1][:400]}")
    return readers[0].taken()


@contextmanager
def understood(called: str) -> Iterator[None]:
    """What another machine or program says is read within: CouldNotRunError where it is nothing that can be meant."""
    try:
        yield
    except (ValueError, LookupError, ArithmeticError) as error:
        raise CouldNotRunError(f"{called}: it answered what cannot be read: {error}") from error


class StreamReader(threading.Thread):
    """Takes what comes from a stream while the program runs; where it is too much, ``end`` is called."""

    def __init__(self, stream: IO[bytes], end: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._end = end
        self._chunks: list[bytes] = []
        self.is_full = False
        self.start()

    def run(self) -> None:
        """Until the end of the stream."""
        size = 0
        read = getattr(self._stream, "read1", self._stream.read)  # of a buffered one what is there
        with self._stream:
            while chunk := read(_CHUNK_BYTES):
                size += len(chunk)
                if size > MOST_BYTES:
                    self.is_full = True
                    self._end()
                    return
                self._chunks.append(chunk)

    def taken(self) -> bytes:
        """What came so far."""
        return b"".join(self._chunks)
