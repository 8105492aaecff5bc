"""What a fleet measures: devices x models x quants x depths, from a TOML file."""

import hashlib
import itertools
import re
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from harness.domain.base import Frozen
from harness.domain.foreign import toml_in, typed
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, RefusedError
from harness.measure.runner import check_scenario

CELLS_MAX: Final = 100_000
_NAME: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
_SOME: Final = Meta(min_length=1)


class _Asked(Frozen):
    """What every cell is measured with. Times and memory are limits of one cell.

    ``patience_s`` is the longest time a device spends on its disturbed samples.
    """

    scenario: Scenario = Scenario()
    runtime: str = "llamacpp"
    repetitions: Annotated[int, Meta(gt=0, le=10**6)] = 5
    cold_loads: Annotated[int, Meta(ge=0, le=10**6)] = 1
    timeout_s: Annotated[float, Meta(gt=0, le=10**6)] = 1800.0
    memory_limit_bytes: int | None = None
    patience_s: Annotated[float, Meta(ge=0, le=10**6)] = 20.0


class RunMatrix(_Asked):
    """All that is to be measured.

    Devices are the names that their workers go by; models are names or paths as the devices know them, each
    device fetches them for itself; an empty quant is a model's usual one.
    """

    devices: Annotated[tuple[str, ...], _SOME]
    models: Annotated[tuple[str, ...], _SOME]
    quants: Annotated[tuple[str, ...], _SOME] = ("",)
    depths: Annotated[tuple[int, ...], _SOME] = (0,)


class Task(_Asked):
    """One cell, as it goes to a device."""

    device: str
    model: str
    quant: str

    @property
    def key(self) -> str:
        """File name of its result: what it is for people, and a digest of all that decides it."""
        words = f"{self.device}-{Path(self.model).stem}-{self.quant}-d{self.scenario.depth_tokens}"
        digest = hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]
        return f"{re.sub(r'[^0-9A-Za-z._-]+', '-', words)[:80].strip('-.')}-{digest}"


def load_matrix(path: Path) -> RunMatrix:
    """Read a matrix file; BadDataError where it is no such TOML, asks for nothing, or a value makes no sense."""
    matrix = typed(toml_in(path), RunMatrix, path)
    for field in ("devices", "models", "quants", "depths"):
        if len(set(values := getattr(matrix, field))) != len(values):
            raise BadDataError(path, field, "the same one twice", "each one once")
    for index, device in enumerate(matrix.devices):
        if not is_device_name(device):
            raise BadDataError(
                path, f"devices[{index}]", repr(device)[:60], "letters, digits, dots and dashes"
            )
    for index, depth in enumerate(matrix.depths):
        try:
            check_scenario(matrix.scenario.replace(depth_tokens=depth))
        except RefusedError as error:
            raise BadDataError(
                path, f"depths[{index}]", str(depth), f"one that can be run ({error})"
            ) from error
    count = len(matrix.devices) * len(matrix.models) * len(matrix.quants) * len(matrix.depths)
    if count > CELLS_MAX:
        raise BadDataError(path, "", f"{count} cells", f"at most {CELLS_MAX}")
    return matrix


def is_device_name(name: str) -> bool:
    """Whether a device may be called so: the name goes into file names."""
    return _NAME.fullmatch(name) is not None


def tasks_of(matrix: RunMatrix) -> list[Task]:
    """All cells, the devices in turn so that each one has work from the start."""
    asked = {name: getattr(matrix, name) for name in _Asked.__struct_fields__ if name != "scenario"}
    scenarios = [matrix.scenario.replace(depth_tokens=depth) for depth in matrix.depths]
    return [
        Task(device=device, model=model, quant=quant, scenario=scenario, **asked)
        for model, quant, scenario, device in itertools.product(
            matrix.models, matrix.quants, scenarios, matrix.devices
        )
    ]
