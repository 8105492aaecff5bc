"""Programs of others, run to their end: bounded in time, and what went wrong in one line."""

import subprocess
from collections.abc import Collection, Mapping, Sequence

from harness.errors import CouldNotRunError


def output_of(
    command: Sequence[str],
    called: str,
    *,
    timeout_s: float,
    ends: Collection[int] = (0,),
    fault: type[CouldNotRunError] = CouldNotRunError,
    when_late: str = "",
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Standard output of a program that ended with one of these exit statuses; errors begin with what it is ``called``.

    ``when_late`` is what to do where it does not end.

    Raises:
        CouldNotRunError: As ``fault``: it cannot be started, took longer, or ended otherwise; tells its last line.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False, env=environment
        )
    except OSError as error:
        raise fault(f"{called}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise fault(f"{called}: no end after {timeout_s:g} s{when_late and ': '}{when_late}") from error
    if done.returncode not in ends:
        lines = (done.stderr.strip() or done.stdout.strip() or b"no word").decode(errors="replace").splitlines()
        raise fault(f"{called}: exit status {done.returncode}: {lines[-1][:400]}")
    return done.stdout
