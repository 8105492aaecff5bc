"""Published rows with the shapes of the models they name, from the catalog, and those nearest to an answer."""

import itertools
import math
import re
from contextlib import suppress
from functools import lru_cache
from typing import Final

from harness.answer.case import Case
from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.errors import RefusedError, UnknownNameError
from harness.hardware.traits import chip_key
from harness.models.ggml import BLOCKS
from harness.models.names import key, match
from harness.models.quant_mix import BASE_TYPE, quant_named
from harness.models.weights import read_of, weights_of
from harness.speed.coefficients import believed
from harness.speed.fitted import machine_of, work_of
from harness.speed.published.cells import Cells, read_cells
from harness.speed.published.row_work import Known
from harness.speed.published.rows import PublishedRow, api_named, is_trusted, predictable, read_rows

_NEAREST: Final = 6
_SAME_BITS_THROUGHOUT: Final = re.compile(r"(?i)bit|int|awq|gptq|fp|exl|mlx")
_REST_BITS: Final = 6.5625
"""Q6_K: files of 2025 keep Q4_K to Q6_K beside routed experts (loader's logs in ik_llama.cpp pull request 259
and ipex-llm issue 13194), those of 2026 Q8_0 (antirez/deepseek-v4-gguf, README; ik_llama.cpp issue 1420)."""


@lru_cache(maxsize=4096)
def model_of(name: str, params_b: float, quant: str, active_b: float = 0.0) -> Known | None:
    """What the catalog knows of a model in a quantisation, or guesses of one that it does not know.

    Of a quantisation that llama.cpp does not have, and of a guess, shares of an evenly quantised file, and no
    size.
    """
    try:
        found = match(name, params_b=params_b, active_b=active_b)
    except (UnknownNameError, RefusedError):
        return None
    known = found.card or found.guess
    if known is None or known.shape is None:
        return None
    shape = known.shape
    # i1-: made with an importance matrix; _L: the output and the token table in Q8_0. The mixture is the
    # same.
    word = re.sub("^i1-|(?<=^Q[2456]_K)_L$", "", quant.split(" ", maxsplit=1)[0])
    weights = None
    if found.card is not None:
        with suppress(UnknownNameError, RefusedError):
            weights = weights_of(shape, quant_named(word))
    rest_bits = 0.0 if _SAME_BITS_THROUGHOUT.search(word) else _REST_BITS
    split = (
        weights is not None and "experts" in quant
    )  # "BF16 (MXFP4 experts)": the first name is of all else
    if weights is not None and split:
        rest_bits = BLOCKS[BASE_TYPE[weights.quant]].bits_per_weight
    even = weights or weights_of(shape, "F16")
    return Known(
        name=found.card.name if found.card is not None else key(name),
        shape=shape,
        params_b=even.weight_count / 1e9,
        file_bytes=float(even.file_bytes),
        sized=weights is not None and not split,
        read=read_of(even),
        rest_bits=rest_bits,
    )


def measured_of(device: Device) -> list[Cells]:
    """Speeds to write that others published of a device's best engine, the latest first."""
    engine = device.engine()
    chips = {chip_key(device.chip), chip_key(engine.name)}
    rows = list[Cells]()
    for cells in read_cells():
        is_written = cells["test"].startswith("tg") and api_named(cells["backend"]) in engine.apis
        if is_written and chip_key(cells["chip"]) in chips:
            rows.append(cells)
    return sorted(rows, key=lambda cells: cells.get("date", ""), reverse=True)


@lru_cache(maxsize=1)
def shipped_rows() -> list[PublishedRow]:
    """The published speeds that ship with the package."""
    return read_rows(None, model_of)


class Neighbour(Frozen, kw_only=False):
    """A published measurement, and what is predicted of it."""

    phase: str
    chip: str
    model: str
    quant: str
    test: str
    api: str
    measured_tokens_per_s: float
    predicted_tokens_per_s: float
    source: str


def neighbours(case: Case) -> list[Neighbour]:
    """Trusted published measurements nearest by chip, family, api, bytes of a token, quantisation and experts.

    The list begins with the nearest measurements of decode, and those of prefill follow.
    """
    scenario = case.scenario
    values = believed(case.device).values
    machine = machine_of(case.device, scenario)
    work = work_of(case.model.weights, scenario, scenario.depth_tokens + scenario.new_tokens / 2)

    def distance(row: PublishedRow) -> float:
        assert row.work is not None
        other = row.machine
        silicon = 3.0
        if machine.chip == other.chip:
            silicon = 0.0
        elif machine.traits.family == other.traits.family:
            silicon = 1.0
        kind = (work.moe != row.work.moe) + 0.5 * (work.quant_class != row.work.quant_class)
        bytes_ratio = work.weight_bytes / row.work.weight_bytes
        return silicon + 2.0 * (machine.api != other.api) + kind + abs(math.log(bytes_ratio))

    nearest: dict[str, dict[object, PublishedRow]] = {"decode": {}, "prefill": {}}
    for row in sorted(filter(is_trusted, predictable(shipped_rows())), key=distance):
        votes = nearest[row.phase]
        if len(votes) < _NEAREST:
            votes.setdefault(row.vote, row)
    return [
        Neighbour(
            row.phase,
            **row.described,
            measured_tokens_per_s=row.measured,
            predicted_tokens_per_s=row.token_count / math.exp(row.predicted(values)[0]),
            source=row.source,
        )
        for row in itertools.chain(*(votes.values() for votes in nearest.values()))
    ]
