"""The profile of the machine that this runs on: what was probed of it, and what its engine costs."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from harness.app.resolve import THIS_MACHINE, resolve_device
from harness.catalog.paths import home_dir
from harness.domain.device import DeviceProfile
from harness.domain.scenario import Scenario
from harness.errors import InputError
from harness.measure.calibrate import calibrate
from harness.measure.lock import machine_lock
from harness.measure.probe import probe_machine, save_profile


def this_machine() -> DeviceProfile | None:
    """The probed profile of this machine; None when it was never probed."""
    try:
        return resolve_device(THIS_MACHINE[0])
    except InputError:
        return None


def probed(types: set[str], scenario: Scenario, *, say: Callable[[str], None], again: bool = False) -> DeviceProfile:
    """Profile of this machine with the engine's cost of those weight types, none of it from a model to be predicted.

    Taken from what was kept, where it was measured on this machine; measured anew where not, or when asked to.
    """
    device = None if again else this_machine()
    if device is None:
        say("probing this machine (kept for the next time)")
        with _alone(say):
            device = probe_machine(quick=True, progress=say)
        save_profile(device)
    if not types:
        return device
    with _alone(say):
        costs = calibrate(types, thread_count=scenario.thread_count, repack=scenario.repack, fresh=again, progress=say)
    return msgspec.structs.replace(device, calibrations=(costs,))


def _alone(say: Callable[[str], None]) -> AbstractContextManager[bool]:
    """What is timed for a profile waits its turn as every measurement does."""
    return machine_lock(home_dir() / "run.lock", on_wait=lambda who: say(f"waiting for {who} to finish"))
