"""One target over SSH: push model files, run edge-harness there, fetch its records; nothing else runs on the target."""

import asyncio
import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import msgspec

from harness.catalog.fetch import sha256_of
from harness.domain.record import RunRecord
from harness.errors import BadDataError, CouldNotRunError, MissingPackageError, RefusedError
from harness.records.store import RECORD_MAX_BYTES, from_document, save

PUSHED_TO: Final = ".cache/edge-harness/pushed"
_CONNECT_S: Final = 20.0
_ERROR_LINES: Final = 5
_STATUSES: Final = {0, 3, 4, 130}
"""Exit statuses with which ``run`` has printed records."""


class Target(NamedTuple):
    """A machine to log in to; an empty ``user`` is the same one as here.

    Without an ``identity`` (private key file) the agent's and the usual keys are tried; without ``known_hosts`` the
    user's own file of trusted host keys is read.
    """

    host: str
    port: int = 22
    user: str = ""
    identity: Path | None = None
    known_hosts: Path | None = None

    @classmethod
    def parse(cls, text: str, *, identity: Path | None = None, known_hosts: Path | None = None) -> "Target":
        """From ``[user@]host[:port]``.

        Raises:
            RefusedError: It is none.
        """
        found = re.fullmatch(r"(?:([\w.+-]+)@)?(\[[0-9a-fA-F:]+\]|(?!-)[\w.-]+)(?::(\d{1,5}))?", text)
        if found is None or not 0 < int(found[3] or 22) < 65536:
            raise RefusedError(f"{text!r} is no target such as user@192.168.1.20 or user@board:2222")
        for path in (identity, known_hosts):
            if path is not None and not path.is_file():
                raise RefusedError(f"{path}: no such file")
        return cls(found[2].strip("[]"), int(found[3] or 22), found[1] or "", identity, known_hosts)


def run_over_ssh(
    target: Target,
    models: Sequence[str],
    options: Sequence[str] = (),
    *,
    folder: Path,
    program: str = "edge-harness",
    pushed: Sequence[Path] = (),
    timeout_s: float = 3600.0,
) -> list[RunRecord]:
    """Run ``edge-harness run`` on the target with further ``options``, and save its records in ``folder`` here.

    Models are names, or paths on the target. ``pushed`` are model files to copy there first (one of the same SHA-256
    that is there already is kept); among the models the file name of a pushed one stands for that file. ``program`` is
    the command on the target.

    Raises:
        CouldNotRunError: No connection, an unknown or wrong host key, a wrong login, no edge-harness there, too slow.
        BadDataError: What came back is no record.
        RefusedError: A file to be pushed is not there.
        MissingPackageError: asyncssh is not installed.
    """
    for path in pushed:
        if not path.is_file():
            raise RefusedError(f"{path}: no such file")
    try:
        records = asyncio.run(
            asyncio.wait_for(_run(target, models, options, program=program, pushed=pushed), timeout=timeout_s)
        )
    except TimeoutError as error:
        raise CouldNotRunError(f"{target.host}: not done within {timeout_s:g} s; raise --timeout") from error
    for record in records:
        save(record, folder / f"{record.run_id}.json")
    return records


async def _run(
    target: Target, models: Sequence[str], options: Sequence[str], *, program: str, pushed: Sequence[Path]
) -> list[RunRecord]:
    ssh = _asyncssh()
    try:
        async with ssh.connect(target.host, target.port, **_login(target)) as connection:
            there = {path.name: await _push(connection, path) for path in pushed}
            words = [program, "run", *options, "--json", "--", *(there.get(model, model) for model in models)]
            process = await connection.create_process(shlex.join(words), stdin=ssh.DEVNULL, encoding=None)
            try:
                data, errors = await asyncio.gather(_first(process.stdout, target.host), _last(process.stderr))
            except BadDataError:
                connection.abort()  # to end in order would be to hear it out
                raise
            await process.wait_closed()
    except ssh.HostKeyNotVerifiable as error:
        raise CouldNotRunError(
            f"{target.host}: its host key is not known ({error.reason}). Log in once with ssh and check the "
            "fingerprint, or give --known-hosts"
        ) from error
    except ssh.PermissionDenied as error:
        raise CouldNotRunError(f"{target.host}: login refused ({error.reason}); is the key right?") from error
    except (OSError, ssh.Error) as error:
        raise CouldNotRunError(f"{target.host}:{target.port}: {error}") from error
    return _records(target, process.exit_status, data, errors, program)


def _login(target: Target) -> dict[str, Any]:
    # Without known_hosts the user's own file is read, and it must list the host.
    given = {"username": target.user, "client_keys": target.identity, "known_hosts": target.known_hosts}
    return {"connect_timeout": _CONNECT_S} | {key: str(value) for key, value in given.items() if value}


async def _push(connection: Any, path: Path) -> str:
    """Copy a file unless one of the same SHA-256 is there; a half-copied one never has the right name."""
    remote = str(PurePosixPath(PUSHED_TO) / path.name)
    async with connection.start_sftp_client() as sftp:
        await sftp.makedirs(PUSHED_TO, exist_ok=True)
        if await sftp.exists(remote) and (await sftp.stat(remote)).size == path.stat().st_size:
            words = shlex.quote(remote)
            there = await connection.run(f"sha256sum {words} || shasum -a 256 {words}", check=False)
            if str(there.stdout).lstrip("\\").startswith(sha256_of(path)):
                return remote
        await sftp.put(str(path), f"{remote}.part")
        await sftp.posix_rename(f"{remote}.part", remote)
    return remote


async def _first(stream: Any, host: str) -> bytes:
    """All that comes, if it is no longer than a record may be; never more is read."""
    try:
        await stream.readexactly(RECORD_MAX_BYTES + 1)
    except asyncio.IncompleteReadError as error:
        return error.partial
    raise BadDataError(host, "", f"more than {RECORD_MAX_BYTES} bytes", f"at most {RECORD_MAX_BYTES}")


async def _last(stream: Any) -> bytes:
    """The end of what comes."""
    data = b""
    while piece := await stream.read(1 << 16):
        data = (data + piece)[-(1 << 16) :]
    return data


def _records(target: Target, status: int | None, data: bytes, errors: bytes, program: str) -> list[RunRecord]:
    last = " / ".join(errors.decode("utf-8", "replace").strip().splitlines()[-_ERROR_LINES:])
    if status not in _STATUSES or not data.strip():
        if status == 127:
            raise CouldNotRunError(f"{target.host}: no {program} there. Install it, or name its place with --program")
        raise CouldNotRunError(f"{target.host}: {program} ended with status {status}: {last}")
    try:
        documents = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadDataError(target.host, "", f"no JSON ({error})", "a list of run records") from error
    if not isinstance(documents, list):
        raise BadDataError(target.host, "", type(documents).__name__, "a list of run records")
    found = [from_document(document, f"{target.host}[{n}]") for n, document in enumerate(documents)]
    return [msgspec.structs.replace(r, machine=msgspec.structs.replace(r.machine, device=target.host)) for r in found]


def _asyncssh() -> Any:
    try:
        import asyncssh
    except ImportError as error:
        raise MissingPackageError("asyncssh", "fleet") from error
    return asyncssh
