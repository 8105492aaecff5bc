"""Large analytic sweeps on the workers of a fleet: each computes the cells of one device profile at a time."""

from collections.abc import Sequence

import numpy as np

from harness.app.matrix import Columns, ask, columns, matching
from harness.catalog.devices import device_names
from harness.errors import CouldNotRunError
from harness.fleet.net import Tls, client_of, dask


def sweep_fleet(
    scheduler: str,
    *,
    devices: Sequence[str] = ("*",),
    models: Sequence[str] = ("*",),
    quants: Sequence[str] = ("Q4_K_M",),
    contexts: Sequence[int] = (4096,),
    tls: Tls = Tls(),
    timeout_s: float = 3600.0,
) -> Columns:
    """The same columns as ``harness.app.matrix`` computes alone, in the same order.

    Profiles and models are looked up by name on the workers: all must have the same version of edge-harness.

    Raises:
        UnknownNameError: A pattern matches nothing.
        RefusedError: The address or the TLS files are wrong, or a model has no table of tensors.
        CouldNotRunError: No scheduler, no worker, or not done in time.
    """
    names = matching("device", devices, device_names())
    with client_of(scheduler, tls) as client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise CouldNotRunError(f"{scheduler} has no worker. Start one with: edge-harness fleet worker")
        futures = client.map(_part, names, [(tuple(models), tuple(quants), tuple(contexts))] * len(names), pure=False)
        try:
            with client.as_current():
                dask().wait(futures, timeout=timeout_s)
            parts: list[Columns] = client.gather(futures)
        except TimeoutError as error:
            raise CouldNotRunError(f"the sweep was not done within {timeout_s:g} s") from error
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _part(device: str, asked: tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]) -> Columns:
    models, quants, contexts = asked
    return columns(ask(devices=[device], models=models, quants=quants, contexts=contexts))
