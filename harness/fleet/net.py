"""The scheduler, a device's worker, and how both are spoken to: Dask distributed with our settings."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import secrets
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

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


class Tls(NamedTuple):
    """Files of Dask's TLS settings; all three or none."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def dask() -> Any:
    """The package, with our settings; MissingPackageError where it is not installed."""
    with optional("distributed", "fleet"):
        import dask.config
        import distributed
    dask.config.set(_SETTINGS)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is told by us, in one line
    return distributed


def security_of(tls: Tls) -> Any:
    """Dask's security object; None without TLS.

    Raises:
        RefusedError: Only some of the files are given, or one is not there or holds something else.
    """
    if not any(tls):
        return None
    if missing := [name for name, path in tls._asdict().items() if path is None]:
        raise RefusedError(f"TLS wants all three files; missing: {', '.join(f'--tls-{name}' for name in missing)}")
    for path in tls:
        if path is not None and not path.is_file():
            raise RefusedError(f"{path}: no such file")
    try:  # here, or the first connection would end in a traceback
        context = ssl.create_default_context(cafile=tls.ca)
        context.load_cert_chain(tls.cert or "", tls.key)
    except OSError as error:
        raise RefusedError(
            f"--tls-ca, --tls-cert, --tls-key: no PEM of certificates and their key ({error})"
        ) from error
    own = {"cert": str(tls.cert), "key": str(tls.key)}
    files = {f"tls_{role}_{part}": own[part] for role in ("client", "worker", "scheduler") for part in own}
    return dask().Security(tls_ca_file=str(tls.ca), require_encryption=True, **files)


@contextlib.contextmanager
def client_of(scheduler: str, tls: Tls) -> Iterator[Any]:
    """A connected client, for the length of a ``with`` block.

    Raises:
        CouldNotRunError: No scheduler answers there.
        RefusedError: The address or the TLS files are wrong.
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


def check_address(scheduler: str, tls: Tls) -> str:
    """The host of an address that can be meant.

    Raises:
        RefusedError: Not ``tcp://host:port`` or ``tls://host:port``, not of the kind the TLS files want, or beyond this
            machine without TLS.
    """
    wanted = "tls" if any(tls) else "tcp"
    kind, separator, rest = scheduler.partition("://")
    host, _, port = rest.rpartition(":")
    if not separator or kind not in {"tcp", "tls"} or not host or not port.isdigit():
        raise RefusedError(f"{scheduler!r} is no address such as {wanted}://192.168.1.10:8786")
    if kind != wanted:
        raise RefusedError(
            f"{scheduler}: with --tls-ca, --tls-cert and --tls-key it is tls://"
            if wanted == "tls"
            else f"{scheduler}: a tls:// address needs --tls-ca, --tls-cert and --tls-key"
        )
    check_reach(host, tls)
    return host.strip("[]")


def check_reach(host: str, tls: Tls) -> None:
    """Refuse to be reached from, or to trust, another machine without certificates: Dask runs what it is sent.

    Raises:
        RefusedError: The host is not this machine alone, and there is no TLS.
    """
    if any(tls):
        return
    try:
        alone = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        alone = host == "localhost"
    if not alone:
        raise RefusedError(
            f"{host}: without TLS a fleet stays on this machine (127.0.0.1), since whoever reaches it can run code. "
            "Make certificates with: edge-harness fleet certs MACHINE... and give --tls-ca, --tls-cert and --tls-key"
        )


def serve_device(scheduler: str, device: str, tls: Tls, *, host: str = "", said: Callable[[str], None]) -> None:
    """Be a device's worker until the scheduler goes away: one measurement at a time.

    Raises:
        CouldNotRunError: No scheduler answers there.
        RefusedError: The device cannot be called so, or the address is wrong.
    """
    if not is_device_name(device):
        raise RefusedError(f"{device!r} is no name of a device: letters, digits, dots and dashes")
    there = check_address(scheduler, tls)
    if host:
        check_reach(host, tls)

    async def serve() -> None:
        worker = dask().Worker(
            scheduler,
            nthreads=1,
            name=f"{device}-{secrets.token_hex(4)}",
            resources={f"device:{device}": 1},
            security=security_of(tls),
            memory_limit=None,  # the measured child has its own limit
            dashboard=False,
            dashboard_address="127.0.0.1:0",
            host=host or dask().utils.get_ip(there),  # never all interfaces: only the one that leads to the scheduler
            death_timeout=CONNECT_S,
        )
        try:
            await worker
        except (OSError, TimeoutError, RuntimeError) as error:  # Dask wraps what went wrong at the start
            raise unreachable(scheduler, error) from error
        try:
            said(f"{device} serves {scheduler} as {worker.name}")
            await worker.finished()
        finally:
            await worker.close()

    asyncio.run(serve())


def up(host: str, port: int, local_count: int, tls: Tls, *, said: Callable[[str], None]) -> None:
    """A scheduler, and workers on this machine to try it with, until interrupted.

    The local workers share this machine and so its lock: they measure in turn.

    Raises:
        RefusedError: The address is not this machine alone, and there is no TLS.
        CouldNotRunError: The address is taken.
    """
    check_reach(host, tls)

    async def serve() -> None:
        scheduler = dask().Scheduler(
            host=host,
            port=port,
            protocol="tls" if any(tls) else "tcp",
            security=security_of(tls),
            dashboard=False,
            dashboard_address="127.0.0.1:0",
        )
        try:
            await scheduler
        except (OSError, RuntimeError) as error:  # Dask wraps what went wrong at the start
            raise CouldNotRunError(f"no scheduler can listen at {host}:{port}: {error.__cause__ or error}") from error
        said(f"scheduler at {scheduler.address}")
        workers = [_local_worker(scheduler.address, f"local-{n + 1}", tls) for n in range(local_count)]
        try:
            await scheduler.finished()
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.wait(5)
                worker.kill()
            await scheduler.close()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())


def _local_worker(address: str, device: str, tls: Tls) -> "subprocess.Popen[bytes]":
    files = [part for name, path in tls._asdict().items() if path for part in (f"--tls-{name}", str(path))]
    command = [sys.executable, "-m", "harness", "fleet", "worker", "--scheduler", address, "--device", device, *files]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})
