"""The scheduler, a device's worker, and how both are spoken to: Dask distributed with our settings."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from harness.errors import CouldNotRunError, RefusedError, optional
from harness.fleet.matrix import is_device_name

CONNECT_S: Final = 10.0
_SETTINGS: Final = {
    # Measuring devices must be left alone: no sampling profiler, rare heartbeats.
    "distributed.worker.profile.enabled": False,
    "distributed.worker.profile.interval": "10s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.heartbeat.interval": "2s",
    # A device that says nothing for so long (no power, no net) is lost.
    "distributed.scheduler.worker-ttl": "30s",
    "distributed.scheduler.allowed-failures": 2,
    # A cell stays with its device's workers until one of them is free: never taken to be started elsewhere.
    "distributed.scheduler.work-stealing": False,
    "distributed.comm.timeouts.connect": f"{CONNECT_S:g}s",
    "distributed.comm.retry.count": 2,
}


def dask(settings: Mapping[str, Any] | None = None) -> Any:
    """The package, with our settings and those given; MissingPackageError where it is not installed."""
    with optional("distributed", "fleet"):
        import dask.config
        import distributed
    dask.config.set(_SETTINGS | dict(settings or {}))
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is told by us, in one line
    return distributed


def write_key(path: Path) -> None:
    """Write the key of a new fleet with its certificate, for every machine of it.

    Only the file's owner can read it.

    Raises:
        RefusedError: The file is there already, or cannot be written.
        MissingPackageError: The extra ``fleet`` is not installed.
    """
    with optional("cryptography", "fleet"):
        made = dask().Security.temporary()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(made.tls_client_key + made.tls_client_cert)
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}; a key that is there is never replaced") from error


def security_of(tls: Path | None) -> Any:
    """Dask's security object, for which one file is authority, certificate and key; None without TLS.

    Raises:
        RefusedError: The file is not there, or holds something else.
    """
    if tls is None:
        return None
    try:  # here, or the first connection would end in a traceback
        ssl.create_default_context(cafile=tls).load_cert_chain(tls)
    except OSError as error:
        raise RefusedError(
            f"--tls: found no certificate with its key in {tls} ({error}), expected a key of `edge-harness fleet up`"
        ) from error
    parts = {
        f"tls_{role}_{part}": str(tls)
        for role in ("client", "worker", "scheduler")
        for part in ("cert", "key")
    }
    return dask().Security(tls_ca_file=str(tls), require_encryption=True, **parts)


@contextlib.contextmanager
def client_of(scheduler: str, tls: Path | None) -> Iterator[Any]:
    """A connected client, for the length of a ``with`` block.

    Raises:
        CouldNotRunError: No scheduler answers there.
        RefusedError: The address or the key is wrong.
        MissingPackageError: The extra ``fleet`` is not installed.
    """
    check_address(scheduler, tls)
    security = security_of(tls)
    try:
        client = dask().Client(scheduler, security=security, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise unreachable(scheduler, error) from error
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):  # a scheduler that is gone cannot be told good-bye
            client.close(timeout=5)


def unreachable(scheduler: str, error: BaseException) -> CouldNotRunError:
    """One line for a scheduler that does not answer."""
    cause = re.sub(r"^in <.*?>: ", "", str(error.__cause__ or error)).splitlines()
    return CouldNotRunError(
        f"no scheduler answered at {scheduler} within {CONNECT_S:g} s ({cause[0] if cause else type(error).__name__}). "
        "Start one with: edge-harness fleet up"
    )


def check_address(scheduler: str, tls: Path | None) -> str:
    """The host of an address that can be meant.

    Raises:
        RefusedError: Not ``tcp://host:port``, or ``tls://host:port`` with a key; or beyond this machine
            without one.
    """
    wanted = "tcp"
    if tls:
        wanted = "tls"
    kind, separator, rest = scheduler.partition("://")
    host, _, port = rest.rpartition(":")
    if not separator or kind != wanted or not host or not port.isdigit():
        with_key = "without --tls"
        if tls:
            with_key = "with --tls"
        raise RefusedError(f"--scheduler: found {scheduler!r}, expected {wanted}://HOST:PORT {with_key}")
    check_reach(host, tls)
    return host.strip("[]")


def check_reach(host: str, tls: Path | None) -> None:
    """Refuse to be reached from, or to trust, another machine without a key: Dask runs what it is sent.

    Raises:
        RefusedError: The host is not this machine alone, and there is no TLS.
    """
    if tls:
        return
    try:
        alone = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        alone = host == "localhost"
    if not alone:
        raise RefusedError(
            f"{host}: without TLS a fleet stays on this machine (127.0.0.1), since whoever reaches it can run code. "
            "Give --tls FILE: `edge-harness fleet up` makes the key, which every machine of the fleet needs"
        )


def serve_device(scheduler: str, device: str, tls: Path | None, *, said: Callable[[str], None]) -> None:
    """Be a device's worker until the scheduler goes away: one measurement at a time.

    Raises:
        CouldNotRunError: No scheduler answers there.
        RefusedError: The device cannot be called so, or the address is wrong.
    """
    if not is_device_name(device):
        raise RefusedError(f"{device!r} is not a name of a device: expected letters, digits, dots and dashes")
    there = check_address(scheduler, tls)

    def worker() -> Any:
        return dask().Worker(
            scheduler,
            nthreads=1,
            name=f"{device}-{secrets.token_hex(4)}",
            resources={f"device:{device}": 1},
            security=security_of(tls),
            memory_limit=None,  # the measured child has its own limit
            dashboard=False,
            dashboard_address="127.0.0.1:0",
            host=dask().utils.get_ip(there),  # never all interfaces: only the one that leads to the scheduler
            death_timeout=CONNECT_S,
        )

    _serve(
        worker,
        lambda made: said(f"{device} serves {scheduler} as {made.name}"),
        lambda error: unreachable(scheduler, error),
    )


def _serve(
    make: Callable[[], Any], begun: Callable[[Any], None], fault: Callable[[BaseException], CouldNotRunError]
) -> None:
    """Make a scheduler or a worker and let it serve until it ends.

    What went wrong at the start is a ``fault``.
    """

    async def serve() -> None:
        made = make()
        try:
            await made
        except (OSError, TimeoutError, RuntimeError) as error:  # Dask wraps the cause
            raise fault(error) from error
        try:
            begun(made)
            await made.finished()
        finally:
            await made.close()

    asyncio.run(serve())


def up(host: str, port: int, tls: Path | None, device_wait_s: float, *, said: Callable[[str], None]) -> None:
    """A scheduler, until interrupted; a cell whose device has no worker for ``device_wait_s`` fails.

    Raises:
        RefusedError: The address is not this machine alone, and there is no TLS.
        CouldNotRunError: The address is taken.
    """
    check_reach(host, tls)
    if tls and not tls.exists():
        write_key(tls)
        said(f"made the key {tls}: copy it to every machine of the fleet, and name it with --tls there")
    dask({"distributed.scheduler.no-workers-timeout": device_wait_s})

    def scheduler() -> Any:
        return dask().Scheduler(
            host=host,
            port=port,
            protocol="tls" if tls else "tcp",
            security=security_of(tls),
            dashboard=False,
            dashboard_address="127.0.0.1:0",
        )

    with contextlib.suppress(KeyboardInterrupt):
        _serve(
            scheduler,
            lambda made: said(f"scheduler at {made.address}"),
            lambda error: CouldNotRunError(
                f"no scheduler can listen at {host}:{port}: {error.__cause__ or error}"
            ),
        )
