"""Published energy of a token and speeds over minutes: read, fitted, and each device predicted without its own rows.

Rows of one device, engine and scope are one vote. Terms are fitted to ln of what was measured by least squares around
the priors of ``harness.predict.heat``, which pools: a term that few devices speak for stays near its prior.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.catalog.devices import device_names, load_device
from harness.domain.device import DeviceProfile
from harness.domain.ggml import BLOCKS
from harness.domain.prediction import Interval
from harness.predict.heat import (
    PLAIN,
    PRIORS,
    HeatTerms,
    Load,
    heat_terms,
    knee_seconds,
    share_kept,
    watts,
)
from harness.predict.quant_class import quant_class
from harness.predict.traits import chip_key
from harness.published.cells import Cells, read_cells
from harness.published.other_rows import Check
from harness.published.row_work import active_named
from harness.published.rows import api_named

Kind = Literal["energy", "thermal"]
NOISE: Final = 0.3
"""Spread of ln joules between devices that share all terms: what a vote may be off by before it pulls at them."""
_SHARE_NOISE: Final = 0.15
_HUBER: Final = 1.5
_COUNTED_S: Final = 120.0
"""A run counts as sustained from here on."""
_HOT: Final = frozenset({"serious", "critical"})
"""Thermal states in which a system already slows down: a run that begins in one has no burst to keep a share of."""


class HeatRow(NamedTuple):
    """One measurement: joules a token at a steady speed, or the share of its burst speed that a run kept.

    Attributes:
        load: What a token costs there.
        speed_tokens_per_s: Steady speed of an energy row, burst speed of a run.
        measured: J/token, or share.
        doubt: How much more than others it may be off by its trust.
        knee_s: When a run had lost half of what it lost; None for an energy row, or where nothing was lost.
    """

    kind: Kind
    device: str
    load: Load
    speed_tokens_per_s: float
    measured: float
    doubt: float = 1.0
    knee_s: float | None = None

    @property
    def vote(self) -> tuple[str, str, str, bool]:
        """Rows of equal vote count as one."""
        return self.kind, self.device, self.load.engine, self.load.whole

    def predicted(self, terms: Mapping[str, float]) -> float | None:
        """The same by the model; None where it does not know."""
        if self.kind == "thermal":
            return share_kept(self.load, self.speed_tokens_per_s, terms)
        return watts(self.load, self.speed_tokens_per_s, terms) / self.speed_tokens_per_s


class HeatCheck(Check, frozen=True, kw_only=True):
    """How rows were predicted; each device x engine x scope has one vote.

    Attributes:
        votes_count: Votes among the rows.
        coverage_ratio: Share inside the 90 % interval; None without rows.
        baselines: Median error of simpler rules, and on how many rows they can be asked.
    """

    votes_count: int
    coverage_ratio: float | None
    baselines: dict[str, tuple[float, int]]


_DOUBTS: Final = {"C": 1.5, "D": 2.0}


def heat_rows(kind: Kind, path: Path | None = None) -> tuple[list[HeatRow], int]:
    """Rows of the shipped file of that kind, or of ``path``, and how many lack what the model needs.

    Raises:
        BadDataError: It cannot be read, columns are missing, or a number is none.
    """
    cells = read_cells(f"{kind}.csv", path, kind)
    profiles = [load_device(device) for device in device_names()]
    if kind == "energy":
        found = [_energy_row(raw, profiles) for raw in cells]
    else:
        runs: dict[tuple[str, ...], list[Cells]] = {}
        for raw in cells:
            runs.setdefault((raw["run_id"], raw["device"], raw["backend"], raw["model"]), []).append(raw)
        found = [_run(run, profiles) for run in runs.values()]
    return [row for row in found if row is not None], sum(row is None for row in found)


def _energy_row(raw: Cells, profiles: Sequence[DeviceProfile]) -> HeatRow | None:
    joules, speed, power = raw.numbers("joules_per_token", "tokens_per_s", "power_w")
    phase = raw.get("phase", "")
    if speed <= 0 or "whole reference" in phase or "prompt dominated" in phase or "mixed" in phase:
        return None  # what is averaged over the prompt says nothing of one generated token
    load = _load(raw, profiles)
    joules = joules or power / speed
    doubt = _DOUBTS.get(raw["trust"], 1.0)
    return HeatRow("energy", raw["device"], load, speed, joules, doubt) if load is not None and joules > 0 else None


def _run(run: Sequence[Cells], profiles: Sequence[DeviceProfile]) -> HeatRow | None:
    """Burst and sustained speed of one run; the latter is the middle of its last windows."""
    told = [(raw.number("t_s") if raw["t_s"] else math.inf, raw.number("tokens_per_s")) for raw in run]
    points = [(at, speed) for at, speed in told if speed > 0]
    load = _load(run[0], profiles)
    late = [speed for at, speed in points[1:] if at >= _COUNTED_S]
    if load is None or not late or run[0].get("thermal_state_start", "").lower() in _HOT:
        return None
    burst, left = points[0][1], float(np.median(late[-4:]))
    half = (burst + left) / 2
    knee = next((at for at, speed in points if speed < half and at < math.inf), None) if left < 0.8 * burst else None
    doubt = _DOUBTS.get(run[0]["trust"], 1.0)
    return HeatRow("thermal", run[0]["device"], load, burst, min(left / burst, 1.0), doubt, knee)


def _load(raw: Cells, profiles: Sequence[DeviceProfile]) -> Load | None:
    """What a row tells of its token and its device; None without the model's size."""
    size, params, active = raw.numbers("model_bytes", "params_b", "active_params_b")
    model, quant = raw["model"], raw["quant"]
    named = re.search(r"(?<![\dA-Za-z.])(E?)(\d+(?:\.\d+)?)B", model)
    stated = float(named[2]) if named else 0.0
    params = params or stated
    # Elastic models (Gemma E2B) name what a token uses; the rest are tables read sparsely.
    used = (stated if named and named[1] else 0.0) or active or active_named(model) or params
    bits = _bits(quant)
    if not used or not (size or bits):
        return None
    read = size * used / params if size and params else used * 1e9 * bits / 8
    if named and named[1] and bits:
        read = min(size or math.inf, 1.15 * used * 1e9 * bits / 8)
    api = api_named(raw["backend"])
    profile = _profile(raw["chip"], raw["device"], profiles)
    known = profile.engine_for(api) if profile is not None else None
    own_class = raw["device_class"].split("/")[0]
    card = own_class == "gpu" or re.search(r"\b(RTX|GTX|RX|Tesla|Arc [AB])\b", raw["chip"]) is not None
    card = card or (profile is not None and profile.pool_for(api) == "vram")
    engine = "card" if card else known.kind if known else api if api in {"cpu", "npu"} else "gpu"
    scope = raw.get("power_scope", "").lower()
    whole = re.search(r"whole|battery|wall|socket|sys rail|dc input|board dc", scope) is not None
    limit = raw.number("power_limit_w")
    sheet = profile.power.sustained_watts if profile is not None else None
    # What the profile says of a phone was measured on such a phone: a device left out must not be told by it.
    if not limit and sheet is not None and own_class not in {"phone", "tablet"}:
        limit = sheet.value
    return Load(
        engine=engine,
        kind="desktop" if card and own_class == "gpu" else own_class or "laptop",
        whole=whole or own_class in {"phone", "tablet", "board"},
        byte_count=read,
        operation_count=2e9 * used,
        plain=quant_class(quant) in PLAIN,
        year=profile.year if profile is not None else 2024,
        limit_watts=limit or None,
    )


def _bits(quant: str) -> float:
    """Bits of a weight by its quantisation: llama.cpp's blocks, elsewhere a 16-bit scale in 32; 0 unknown."""
    name = quant.upper().replace(" ", "")
    block = next((b for t, b in BLOCKS.items() if re.match(rf"{t}(?![0-9])", name.replace("BF16", "F16"))), None)
    if block is not None:
        return float(block.bits_per_weight) * (1.07 if "_K" in name else 1.0)
    found = re.search(r"(\d+)-?BIT", name) or re.search(r"(?:INT|FP|W|Q)(\d+)", name)
    bits = float(found[1]) if found else 0.0
    return bits + (0.5 if bits < 16 else 0.0) if bits in {2, 3, 4, 5, 6, 8, 16} else 0.0


def _words(text: str) -> list[str]:
    plain = re.sub(r"\(.*?\)|\b(apple|geforce|radeon|nvidia|amd|intel|for galaxy|class)\b|[-,]", " ", text.lower())
    return plain.split()


def _profile(chip: str, device: str, profiles: Sequence[DeviceProfile]) -> DeviceProfile | None:
    """The shipped profile with that chip; among several, the one whose words fit best.

    A key may name a family, as of Strix Halo: another number in it is another chip, with another power.
    """
    number = re.search(r"\d{3,}", chip)
    alike = [profile for profile in profiles if chip_key(profile.chip) == chip_key(chip)]
    found = [profile for profile in alike if number is None or number[0] in profile.chip]
    told = set(_words(f"{chip} {device}"))
    return max(found, key=lambda p: len(told & set(_words(f"{p.chip} {p.title}"))), default=None)


def fit(rows: Sequence[HeatRow], source: str) -> HeatTerms:
    """Terms for the rows: least squares of (ln predicted - ln measured) / noise and of the distance to the priors."""
    from scipy.optimize import least_squares

    keys = tuple(PRIORS)
    mean = np.array([PRIORS[key][0] for key in keys])
    precision = np.array([1 / PRIORS[key][1] for key in keys])
    counts = Counter(row.vote for row in rows)

    def misses(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        terms = dict(zip(keys, theta, strict=True))
        found = []
        for row in rows:
            predicted = row.predicted(terms)
            noise = (NOISE if row.kind == "energy" else _SHARE_NOISE) * row.doubt * math.sqrt(counts[row.vote])
            if predicted is not None:
                found.append(math.log(predicted / row.measured) / noise)
            if row.knee_s:
                knee = knee_seconds(row.load, row.speed_tokens_per_s, terms)
                found.append(math.log(knee / row.knee_s) / (2 * noise) if knee else 0.0)
        return np.array([*map(_huber, found), *((theta - mean) * precision)])

    found = least_squares(misses, mean, diff_step=1e-4)
    spread = np.linalg.inv(found.jac.T @ found.jac)
    return HeatTerms(
        source=source,
        terms={key: round(float(t), 4) for key, t in zip(keys, found.x, strict=True)},
        covariance=tuple(tuple(round(float(c), 6) for c in row) for row in spread),
        energy_floor=NOISE,
        share_floor=_SHARE_NOISE,
    )


def _huber(miss: float) -> float:
    """A miss whose square is Huber's loss: beyond 1.5 it grows with the root, so that no one device decides a term."""
    return miss if abs(miss) <= _HUBER else math.copysign(math.sqrt(_HUBER * (2 * abs(miss) - _HUBER)), miss)


Judged = tuple[HeatRow, Interval]
"""A row with what was said of it."""


def leave_out(rows: Sequence[HeatRow]) -> list[Judged]:
    """Each device predicted by a fit on the rows of all the others, energy and runs together."""
    judged = []
    for device in dict.fromkeys(row.device for row in rows):
        terms = fit([row for row in rows if not _same(row.device, device)], "")
        judged += _judge([row for row in rows if row.device == device], terms)
    return judged


def _same(one: str, other: str) -> bool:
    """One device under two names, such as a MacBook with and without its memory said."""
    return one == other or set(_words(one)) <= set(_words(other)) or set(_words(other)) <= set(_words(one))


def _judge(rows: Sequence[HeatRow], terms: HeatTerms) -> list[Judged]:
    floors = {"energy": terms.energy_floor, "thermal": terms.share_floor}
    said = [row for row in rows if row.predicted(terms.terms) is not None]
    return [(row, terms.interval(row.predicted, floors[row.kind])) for row in said]


def summary(kind: Kind, judged: Sequence[Judged], skipped_count: int, how: str) -> HeatCheck:
    """Errors and coverage over votes, beside the baselines."""
    mine = [(row, said) for row, said in judged if row.kind == kind]
    counts = Counter(row.vote for row, _ in mine)
    weight = [1 / counts[row.vote] for row, _ in mine]
    off = [said.mid / row.measured for row, said in mine]
    inside = [said.low <= row.measured <= said.high for row, said in mine]
    baselines = {}
    for name, rule in _RULES[kind].items():
        errors = [(abs(r / row.measured - 1), w) for (row, _), w in zip(mine, weight, strict=True) if (r := rule(row))]
        if errors:
            baselines[name] = (_median(errors), len(errors))
    return HeatCheck(
        name=f"{'energy of a token' if kind == 'energy' else 'sustained share'}, {how}",
        rows_count=len(mine),
        votes_count=len(counts),
        skipped_count=skipped_count,
        median_ratio=_median([(abs(ratio - 1), w) for ratio, w in zip(off, weight, strict=True)]) if mine else None,
        within_ratio=float(np.average([1 / 1.3 < ratio < 1.3 for ratio in off], weights=weight)) if mine else None,
        coverage_ratio=float(np.average(inside, weights=weight)) if mine else None,
        baselines=baselines,
    )


_RULES: Final[dict[Kind, dict[str, Callable[[HeatRow], float | None]]]] = {
    "energy": {"watts of the data sheet / speed": lambda row: (row.load.limit_watts or 0) / row.speed_tokens_per_s},
    "thermal": {
        "0.43, on an NPU 0.67": lambda row: 0.67 if row.load.engine == "npu" else 0.43,
        "1": lambda _row: 1.0,
    },
}
"""Simpler rules that the model is judged beside."""


def _median(weighted: Sequence[tuple[float, float]]) -> float:
    """Middle of (value, weight)."""
    values, weights = np.array(sorted(weighted)).T
    return float(values[np.searchsorted(np.cumsum(weights), weights.sum() / 2)])


def check(kind: Kind, path: Path | None = None) -> HeatCheck:
    """Joules a token, or the share of burst speed that runs kept.

    The shipped rows, each device left out of the fit; or another file by the shipped terms.

    Raises:
        BadDataError: The file cannot be read, lacks columns, or has a number that is none.
    """
    rows, skipped = heat_rows(kind, path)
    if path is not None:
        return summary(kind, _judge(rows, heat_terms()), skipped, "shipped terms")
    return summary(kind, leave_out(shipped_rows()), skipped, "device left out")


def shipped_rows() -> list[HeatRow]:
    """Rows of both shipped files that the model can use."""
    return heat_rows("energy")[0] + heat_rows("thermal")[0]
