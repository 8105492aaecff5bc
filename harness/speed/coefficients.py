"""Fitted coefficients, with what they were fitted on: read from a data file that ships with the package.

What measurements of a device taught of it: kept beside its profile, and used by every prediction for it.
"""

import base64
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from hashlib import sha256
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.errors import BadDataError
from harness.core.foreign import json_in, typed
from harness.core.prediction import Basis, Evidence
from harness.core.tables import shipped_text
from harness.speed.interval import scale_of
from harness.speed.terms import prior_of
from harness.speed.work import Machine, Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE: Final = "data/coefficients.json"
NOISE: Final = 0.15
"""Spread of one measurement in ln t where no row has told."""
_CORRELATION: Final = struct.Struct("<e")


class Coefficient(Frozen):
    """One term of a log-linear law: the natural logarithm (or slope) that it adds, and its standard error.

    ``rows_count`` are votes that it applies to; 0: the prior alone stands.
    """

    value: float
    rows_count: int = 0
    spread: float = 0.0


class Covariance(Frozen):
    """How sure a fit is of its best known terms together; of any other each stands alone.

    Attributes:
        keys: Terms.
        correlations: Lower triangle without the diagonal, one row after another: float16, base64.
    """

    keys: tuple[str, ...] = ()
    correlations: str = ""

    @staticmethod
    def of(keys: Iterable[str], matrix: "NDArray[np.float64]") -> "Covariance":
        """From a covariance matrix [keys, keys]."""
        import numpy as np  # half of the time in which `fit` starts

        spread = np.sqrt(np.diag(matrix))
        lower = (matrix / spread / spread[:, None])[np.tril_indices(len(matrix), -1)]
        return Covariance(
            keys=tuple(keys), correlations=base64.b64encode(lower.astype("<f2").tobytes()).decode()
        )


class Measured(Frozen):
    """A chip that others measured by one api, and how often: votes of each phase.

    Attributes:
        name: What most of them call it.
    """

    name: str
    family: str
    bandwidth_gb_s: float
    decode_count: int
    prefill_count: int

    def count(self, phase: str) -> int:
        """Votes of a phase."""
        if phase == "decode":
            return self.decode_count
        return self.prefill_count


class Coefficients(Frozen, dict=True):
    """All terms of a fit, by key, and the spread that remained.

    Attributes:
        source: Where the rows came from and the command that fitted.
        terms: Terms of both laws.
        widths: Fitted width of each kind of level.
        noise: Spread of one measurement in ln t, by phase, side and whether it is a phone.
        scales: By phase and class, factors of the half-width of an interval in units of the spread that the
            fit expects, by its errors on chips and sources left out (``interval.py``).
        covariance: Of the terms that rows speak for.
        effective_count: Terms as rows see them.
        measured: Chips that rows are of, by :func:`engine_key`.
    """

    source: str
    terms: dict[str, Coefficient]
    widths: dict[str, float]
    noise: dict[str, float]
    scales: dict[str, float]
    covariance: Covariance = Covariance()
    effective_count: float = 0.0
    measured: dict[str, Measured] = {}

    @cached_property
    def values(self) -> dict[str, float]:
        """Logarithm of each term."""
        return {key: one.value for key, one in self.terms.items()}

    @cached_property
    def _places(self) -> dict[str, int]:
        """The place of each term that rows speak for."""
        return {key: place for place, key in enumerate(self.covariance.keys)}

    @cached_property
    def _packed(self) -> bytes:
        return base64.b64decode(self.covariance.correlations)

    def covariance_of(self, keys: Iterable[str]) -> "NDArray[np.float64]":
        """Covariance [keys, keys]; a term that no row spoke for stands alone."""
        import numpy as np

        return np.array(self._covariances(list(keys)))

    def _covariances(self, keys: Sequence[str]) -> list[list[float]]:
        """The same in rows, for the few terms of one prediction."""
        spreads = []
        result = []
        packed = self._packed
        for row, key in enumerate(keys):
            spreads.append(self.terms[key].spread if key in self.terms else prior_of(key, self.widths)[1])
            result.append([0.0] * len(keys))
            result[row][row] = spreads[row] ** 2
            for column, other in enumerate(keys[:row]):
                if key in self._places and other in self._places:
                    left, below = sorted((self._places[key], self._places[other]))
                    # Of the lower triangle, two bytes an entry.
                    (told,) = _CORRELATION.unpack_from(packed, below * (below - 1) + 2 * left)
                    result[row][column] = result[column][row] = told * spreads[row] * spreads[column]
        return result

    def spread(self, gradient: Mapping[str, float], phase: str, machine: Machine) -> float:
        """Expected spread of ln(measured / predicted) for an unknown source: sqrt(g' S g + noise^2).

        g is ``gradient``, the change of ln t by each term; S is the covariance of the terms.
        """
        source = source_key(phase, machine.side)
        if not any(key.startswith(source) for key in gradient):
            gradient = {**gradient, source: 1.0}
        noise = self.noise.get(noise_class(phase, machine), NOISE)
        slopes = list(gradient.values())
        variance = 0.0
        for slope, row in zip(slopes, self._covariances(list(gradient)), strict=True):
            variance += slope * sum(map(mul, slopes, row))
        return math.sqrt(max(variance, 0.0) + noise**2)

    def half_width(self, gradient: Mapping[str, float], phase: str, work: Work, machine: Machine) -> float:
        """Half of the 90 % interval of ln(measured / predicted)."""
        scale = scale_of(self.scales, phase, work, machine, known=self.knows(machine))
        return scale * self.spread(gradient, phase, machine)

    def knows(self, machine: Machine) -> bool:
        """Whether rows of this chip on this api taught it."""
        return engine_key(machine) in self.measured

    def evidence(self, phase: str, machine: Machine) -> Evidence:
        """Who measured what a speed of this machine is predicted from."""
        taught = self.terms.get(source_key(phase, machine.side))
        own = self.measured.get(engine_key(machine))
        name = ""
        if own is not None:
            name = own.name
        if taught is not None:
            return Evidence(basis=Basis.TAUGHT, count=taught.rows_count, nearest=name)
        if own is not None and own.count(phase):
            return Evidence(basis=Basis.CHIP, count=own.count(phase), nearest=name)
        family = machine.traits.family
        of_phase = {key: one for key, one in self.measured.items() if one.count(phase)}
        by_api = [one for key, one in of_phase.items() if key.endswith(f"|{machine.api}")]
        relatives = [one for one in by_api if one.family == family]
        if not family or not relatives:
            family_known = not family or any(one.family == family for one in of_phase.values())
            return Evidence(is_unmeasured=not by_api or not family_known)
        gb_s = machine.bandwidth_bytes_per_s / 1e9
        nearest = min(relatives, key=lambda one: abs(math.log(one.bandwidth_gb_s / gb_s)))
        count = sum(one.count(phase) for one in relatives)
        return Evidence(basis=Basis.RELATIVES, count=count, nearest=nearest.name)


def engine_key(machine: Machine) -> str:
    """Key of a chip by one api."""
    return f"{machine.side}:{machine.chip}|{machine.api}"


def source_key(phase: str, side: str) -> str:
    """Key of the level of a source of rows; without its name that of one which nobody knows."""
    return f"{'s' if phase == 'decode' else 'g'}/source {side}:"


def noise_class(phase: str, machine: Machine) -> str:
    """Class of measurements that scatter alike."""
    return f"{phase}/{machine.side}{'/phone' if machine.phone else ''}"


@lru_cache(maxsize=1)
def shipped() -> Coefficients:
    """The coefficients that ship with the package."""
    return msgspec.json.decode(shipped_text(FILE, "harness.speed"), type=Coefficients)


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
    return sha256(shipped_text(FILE, "harness.speed").encode()).hexdigest()[:16]


def believed(device: Device) -> Coefficients:
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
