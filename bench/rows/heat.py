"""Published energy of a token and speeds over minutes; rows of one device, engine and scope are one vote."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

import numpy as np

from bench.rows.files import cells_of
from bench.rows.named import device_named
from harness.core.errors import BadDataError
from harness.core.prediction import Interval
from harness.hardware.traits import bits_of, quant_class
from harness.speed.energy import ENERGY_WIDTH, PLAIN, SHARE_WIDTH, TokenLoad, heat_terms, share_kept, watts
from harness.speed.interval import interval
from harness.speed.published.cells import Cells
from harness.speed.published.row_work import ModelOf, row_work
from harness.speed.published.rows import PublishedRow, api_named, refused

Kind = Literal["energy", "thermal"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_COUNTED_S: Final = 120.0
"""A run counts as sustained from here on."""
_HOT: Final = frozenset({"serious", "critical"})
"""Thermal states in which a system already slows down: a run that begins in one has no burst to keep a share
of."""


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
    load: TokenLoad
    speed_tokens_per_s: float
    measured: float
    doubt: float = 1.0
    knee_s: float | None = None

    @property
    def vote(self) -> tuple[str, ...]:
        """Rows of equal vote count as one."""
        return self.kind, self.device, self.load.engine, str(self.load.whole)

    @property
    def promised(self) -> float:
        """What a simple rule says: the data sheet's watts over the speed.

        Two fifths of the speed, of an NPU's more.
        """
        if self.kind == "thermal":
            if self.load.engine == "npu":
                return 0.67
            return 0.43
        return (self.load.limit_watts or 0.0) / self.speed_tokens_per_s

    def said(self, terms: Mapping[str, float]) -> Interval | None:
        """The same with its interval; None where the model does not know."""
        middle = self.predicted(terms)
        if middle is None:
            return None
        return interval(middle, ENERGY_WIDTH if self.kind == "energy" else SHARE_WIDTH)

    def predicted(self, terms: Mapping[str, float]) -> float | None:
        """The same by the model; None where it does not know."""
        if self.kind == "thermal":
            return share_kept(self.load, self.speed_tokens_per_s, terms)
        return watts(self.load, self.speed_tokens_per_s, terms) / self.speed_tokens_per_s


_KINDS: Final = {"gpu": "desktop", "sbc": "board", "edge": "board", "server-gpu": "server", "iot": "board"}
"""Kinds of device as the model of heat knows them, by the class that a row says."""
_DOUBTS: Final = {"C": 1.5, "D": 2.0}


def heat_rows(kind: Kind, model_of: ModelOf, path: Path | None = None) -> list[tuple[PublishedRow, HeatRow | None]]:
    """Rows of the shipped file of that kind, or of ``path``, judged by the shipped terms.

    Each with what was measured; None where the row, or the first of a run, lacks what the model of heat
    needs.

    Raises:
        BadDataError: It cannot be read, or columns are missing.
    """
    runs: dict[tuple[str, ...], list[Cells]] = {}
    for raw in cells_of(kind, path):
        if kind == "energy":
            one = str(raw.line)
        else:
            one = raw["run_id"]
        runs.setdefault((one, raw["device"], raw["backend"], raw["model"]), []).append(raw)
    read, group = (_energy_row, "energy of a token") if kind == "energy" else (_run, "share of speed that is left")
    rows: list[tuple[PublishedRow, HeatRow | None]] = []
    for run in runs.values():
        try:
            own = read(run, _load(run[0], model_of))
        except BadDataError as error:
            rows.append((refused(run[0], group, error), None))
            continue
        if own is None:
            rows.append((PublishedRow(run[0], group, (), 0.0, reason="no size of the model, or no steady speed"), None))
            continue
        known = own.predicted(heat_terms()) is not None
        reason = "nothing is known of the device's limit"
        if known:
            reason = ""
        law = partial(own.said, heat_terms())
        rows.append((PublishedRow(run[0], group, own.vote, own.measured, own.promised, reason, law), own))
    return rows


def _energy_row(run: Sequence[Cells], load: TokenLoad | None) -> HeatRow | None:
    raw = run[0]
    joules, speed, power = raw.numbers("joules_per_token", "tokens_per_s", "power_w")
    phase = raw.get("phase", "")
    if speed <= 0 or re.search("whole reference|whole task|prefill included|prompt dominated|mixed", phase):
        return None  # what is averaged over the prompt says nothing of one generated token
    joules = joules or power / speed
    doubt = _DOUBTS.get(raw["trust"], 1.0)
    if load is not None and joules > 0:
        return HeatRow("energy", raw["device"], load, speed, joules, doubt)
    return None


def _run(run: Sequence[Cells], load: TokenLoad | None) -> HeatRow | None:
    """Burst and sustained speed of one run; the latter is the middle of its last windows."""
    times = [(raw.number("t_s") if raw["t_s"] else math.inf, raw.number("tokens_per_s")) for raw in run]
    points = [(at, speed) for at, speed in times if speed > 0]
    late = [speed for at, speed in points[1:] if at >= _COUNTED_S]
    if load is None or not late or run[0].get("thermal_state_start", "").lower() in _HOT:
        return None
    burst = points[0][1]
    left = float(np.median(late[-4:]))
    half = (burst + left) / 2
    knee = None
    if left < 0.8 * burst:
        knee = next((at for at, speed in points if speed < half and at < math.inf), None)
    doubt = _DOUBTS.get(run[0]["trust"], 1.0)
    return HeatRow("thermal", run[0]["device"], load, burst, min(left / burst, 1.0), doubt, knee)


def _load(raw: Cells, model_of: ModelOf) -> TokenLoad | None:
    """What a row tells of its token and its device; None without the model's size."""
    size, params, active, limit = raw.numbers("model_bytes", "params_b", "active_params_b", "power_limit_w")
    quant = quant_class(raw["quant"])
    api = api_named(raw["backend"])
    known = model_of(raw["model"], params, raw["quant"], active)
    if known is None or not (size or raw["quant"]):
        return None
    file_bytes = known.file_bytes * (1.0 if known.sized else bits_of(raw["quant"]) / 16)
    work = row_work(known, size or file_bytes, quant, 0.0)
    profile = device_named(raw["chip"]) or device_named(raw["device"])
    engine = None
    if profile is not None:
        engine = profile.engine_for(api)
    own_class = raw["device_class"].split("/")[0]
    card = own_class == "gpu" or re.search(r"\b(RTX|GTX|RX|Tesla|Arc [AB])\b", raw["chip"]) is not None
    card = card or (profile is not None and profile.pool_for(api) == "vram")
    scope = raw.get("power_scope", "").lower()
    kind = _KINDS.get(own_class, own_class or "laptop")
    whole = re.search(r"whole|battery|wall|socket|sys rail|dc input|board dc|board pmic|codecarbon", scope) is not None
    sheet = None
    if profile is not None:
        sheet = profile.power.sustained_watts
    # What the profile says of a phone was measured on such a phone: a device left out must not be told by it. A
    # laptop's card on battery has less than its data sheet.
    told = own_class in {"phone", "tablet"} or "battery" in raw["device"]
    if not limit and sheet is not None and not told:
        limit = sheet.value
    return TokenLoad(
        engine="card" if card else engine.kind if engine else api if api in {"cpu", "npu"} else "gpu",
        kind=kind,
        whole=whole or kind in {"phone", "tablet"},
        byte_count=work.weight_bytes,
        operation_count=2 * work.weight_count,
        plain=quant in PLAIN,
        year=profile.year if profile is not None else 2024,
        limit_watts=limit or None,
    )
