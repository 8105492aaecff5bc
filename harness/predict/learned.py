"""What measurements of a device taught of it: kept beside its profile, and used by every prediction for it."""

from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from harness.domain.base import Frozen, shipped_text
from harness.domain.device import DeviceProfile
from harness.domain.foreign import json_in, typed
from harness.errors import BadDataError
from harness.predict.coefficients import FILE, Coefficients, shipped


class TaughtSpeed(Frozen):
    """One speed that somebody measured on a device.

    Attributes:
        model: Its name, as it was written.
        quant: Its quantisation, as it was written.
        test: Test as llama-bench prints it: ``pp512``, ``tg128 @ d2048``.
        api: Api that ran it.
        runtime: Software that ran it.
        parameter_count: Of the model, 0 where nobody said.
        thread_count: CPU threads, 0 where nobody said.
        date: Day, such as ``2026-11-25``; empty where nobody said.
    """

    model: str
    quant: str
    test: str
    tokens_per_s: float
    api: str
    runtime: str = "llama.cpp"
    parameter_count: int = 0
    thread_count: int = 0
    date: str = ""


class Learned(Frozen):
    """A device's measurements, which can be shared and merged, and the coefficients that follow from them.

    Attributes:
        device: Name of the device.
        prior: Digest of the shipped coefficients that they changed.
    """

    device: str
    measurements: tuple[TaughtSpeed, ...]
    prior: str
    coefficients: Coefficients


@lru_cache(maxsize=1)
def prior_digest() -> str:
    """Digest of the shipped coefficients."""
    return sha256(shipped_text(FILE, "harness.predict").encode()).hexdigest()[:16]


def believed(device: DeviceProfile) -> Coefficients:
    """The coefficients for a device: those that its measurements taught, or the shipped ones.

    Raises:
        BadDataError: They were learnt from other coefficients than those that ship now.
    """
    if not device.learned:
        return shipped()
    path = Path(device.learned)
    learned = _read(path, path.stat().st_mtime_ns)
    if learned.prior != prior_digest():
        again = f"those of this version: learn them again with `edge-harness learn --device {learned.device}`"
        raise BadDataError(path, "prior", f"coefficients that followed from others ({learned.prior})", again)
    return learned.coefficients


def read_learned(path: Path) -> Learned:
    """What was kept.

    Raises:
        BadDataError: The file is none of ours.
    """
    return typed(json_in(path, "what `edge-harness learn` wrote"), Learned, path)


@lru_cache(maxsize=64)
def _read(path: Path, _changed_ns: int) -> Learned:
    return read_learned(path)
