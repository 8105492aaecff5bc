"""Start-ups on GPUs that strangers published, buffer by buffer, beside what is predicted for the program they ran.

    python -m bench.published_memory ../shared/data/published/gpu_memory.csv

Each row is one log: weights, cache, compute buffer of the card and of the host. A pool is compared where the row tells
what decides it; of several cards each. Rows of forks and of models that no card knows are counted and left out.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

import click
import numpy as np

from harness.answer.resolve import resolve_model
from harness.core.errors import HarnessError
from harness.core.placement import Placement
from harness.core.prediction import Interval, PartKind
from harness.core.scenario import Scenario
from harness.core.units import MIB
from harness.memory.compute_buffer import HOST, scratch_bytes
from harness.memory.kv_cache import block_cache_bytes, cells_of
from harness.memory.peak import driver_bytes, weight_parts
from harness.memory.placed import layout_of, parts_of
from harness.models.ggml import KV_TYPES

# Builds of llama.cpp by day, from the dated changes in harness/data/programs.csv.
_BUILDS: Final = """2024-03-13 2413 2024-11-02 4014 2025-05-20 5429 2025-08-30 6325 2025-11-02 6925
2025-12-15 7407 2026-03-06 8218 2026-05-29 9410 2026-06-01 9460 2026-08-11 10364
2026-10-02 11258"""
_UNKNOWN_BUILD: Final = 8218
_HEADS_CACHED: Final = 5136
"""The last build whose latent attention caches every head, as some rows say of theirs."""
_SHARED: Final = re.compile(r"\b(8060S|7[68]0M)")
_TOWERS: Final = re.compile(r"VL\b|\dV\b|mmproj")
_FORKS: Final = re.compile(r"ik_llama|fork|LLamaSharp|ipex|several", re.IGNORECASE)


class Compared(NamedTuple):
    """One pool of one row: predicted and printed, in MiB."""

    row: str
    api: str
    era: str
    pool: str
    predicted: float
    printed: float


def build_of(row: dict[str, str]) -> int:
    """llama.cpp's build of a row: as told, else by its date; 0 where neither is."""
    told = re.search(r"\bb?(\d{4,5})\b", row["build"])
    if told:
        return int(told[1])
    numbers = [int(part) for part in re.findall(r"\d+", row["date"])]
    if len(numbers) < 2:
        return 0
    day = date(numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else 15).toordinal()
    days, builds = _BUILDS.split()[::2], _BUILDS.split()[1::2]
    return int(np.interp(day, [date.fromisoformat(one).toordinal() for one in days], [int(build) for build in builds]))


def scenario_of(row: dict[str, str]) -> Scenario | None:
    """What a row's program was asked for; None where its context or cache is not told."""
    build, kv_type, value_type = build_of(row), row["type_k"].upper() or "F16", row["type_v"].upper() or "F16"
    build = build or _UNKNOWN_BUILD
    if "every head cached" in row["notes"]:
        build = min(build, _HEADS_CACHED)
    if slots_unclear(row) or not row["n_ctx"] or kv_type not in KV_TYPES or value_type not in KV_TYPES:
        return None
    slots = int(row["n_seq"] or 1)
    shared = row["kv_unified"] == "true" or slots == 1
    fused = row["flash_attn"] in {"1", "on", "enabled"} or (row["flash_attn"] in {"", "auto"} and build >= 6325)
    ubatch, context = int(row["n_ubatch"] or 512), int(row["n_ctx"])
    layers = re.match(r"(\d+)(?:/(\d+))?", row["n_gpu_layers"])
    # Layers that draft are counted in the log, and no blocks of the shape.
    drafting = int(layers[2]) - int(row["n_layers"]) - 1 if layers and layers[2] and row["n_layers"] else 0
    return Scenario(
        context_tokens=context,
        ubatch_tokens=ubatch,
        kv_type=kv_type,
        value_type=value_type,
        flash_attention=fused,
        api=row["api"],
        program="llama-cpp-python"
        if "swa_full" in row["notes"]
        else f"llama-server b{build} -np {slots}" + (" -kvu" if shared else ""),
        placement=Placement(
            tensor_split=_shares(row)[0],
            gpu_layers=max(int(layers[1]) - max(drafting, 0), 0) if layers else "all",
            cpu_moe=int(row["n_cpu_moe"] or (1000 if _experts_away(row) else 0)),
        ),
        draft_tokens=_drafts(row["notes"]),
    )


def slots_unclear(row: dict[str, str]) -> bool:
    """Whether several slots may share a cache or not, and the row does not say."""
    return int(row["n_seq"] or 1) > 1 and not row["kv_unified"]


def _drafts(notes: str) -> int:
    """Tokens drafted at a time, as the log tells; where it only has a draft context, 2, as its writer's other logs."""
    told = re.search(r"(\d+) rs_seq", notes)
    return int(told[1]) if told else 2 * bool(re.search(r"draft (cache|context)", notes))


def _experts_away(row: dict[str, str]) -> bool:
    """Whether a model on the GPU with all its layers has most of its bytes with the CPU: its experts, by a pattern."""
    of = [sum(float(part) for part in re.findall(r"[\d.]+", row[cell])) for cell in ("gpu_model_mib", "cpu_model_mib")]
    return of[1] > of[0] > 0


_CARDS: Final = ("gpu_model_mib", "gpu_kv_mib", "gpu_compute_mib")
_ALONE: Final = re.compile(r"sched copies 1|fit on|host experts")
"""Notes of a row whose batches do not overlap: its tensors were placed by name."""


def _shares(row: dict[str, str]) -> tuple[tuple[float, ...], bool]:
    """What each of several cards has of the blocks, and whether the row tells; else by its caches or weights."""
    count = max(row[cell].count(";") for cell in _CARDS) + 1
    told = tuple(float(share) for share in re.findall(r"[\d.]+", row["split"]))
    if len(told) == count:
        return told, True
    for cell in ("gpu_kv_mib", "gpu_model_mib"):
        sizes = tuple(_mib(one) or 0.0 for one in row[cell].split(";"))
        if len(sizes) == count and all(sizes):
            return sizes, count == 1
    return (1.0,) * count, count == 1


def _mib(cell: str) -> float | None:
    """The sum of a cell's buffers on one card; None for several cards or nothing."""
    if not cell or ";" in cell:
        return None
    return sum(float(part) for part in cell.split("+"))


def driver_shares(row: dict[str, str]) -> Iterator[tuple[float, Interval]]:
    """Of each card of a row what its driver took (MiB), by the table that a log ends with, and what is predicted.

    What was in use before the program started is not its own; where the GPU shares the RAM its buffers with the host
    are in the log's figure too. A card with an image tower, and one that another program held, are left out.
    """
    told = [float(cell) for cell in row["unaccounted_mib"].split(";") if cell]
    if not told or "another process" in row["notes"]:
        return
    used, (total, free) = 0.0, (row[name].partition(";")[0] for name in ("total_mib", "free_before_mib"))
    if total and free and float(total) - float(free) < told[0]:
        used = float(total) - float(free)
    if _SHARED.search(row["device"]):
        if not used:
            return
        used += sum(_mib(row[name]) or 0 for name in ("cpu_model_mib", "host_compute_mib", "output_mib"))
    first = bool(_TOWERS.search(row["model"] + row["notes"])) and len(told) > 1
    yield from ((one - used, driver_bytes(row["api"], row["device"])) for one in told[first:])


def compared(row: dict[str, str]) -> Iterator[Compared]:
    """The pools of a row that can be compared.

    Raises:
        HarnessError: No card knows the model, or it has no table of tensors.
    """
    plain = re.sub(r"\(.*?\)| class.*|\.gguf.*", "", row["model"]).strip()
    model = resolve_model(plain, row["quant"].split(" - ")[0] or "Q4_K_M")
    shape, scenario, build = model.weights.shape, scenario_of(row), build_of(row)
    if model.guess is not None or row["arch"] == "bert":  # encoders have no logits, and no cache
        return
    era = "before b9410" if build < 9410 else "between" if build < 9460 else "from b9460"

    def pool(name: str, predicted: Sequence[float], cell: str) -> Iterator[Compared]:
        """The same on each card; a row that tells of fewer buffers than there are cards is not compared."""
        printed = [_mib(one) for one in cell.split(";")]
        if len(printed) != len(predicted):
            return
        label = f"{name}, several cards" if len(printed) > 1 else name
        for told, found in zip(predicted, printed, strict=True):
            if found:
                yield Compared(row["id"], row["api"], era, label, told / MIB, found)

    cards = range(len(scenario.placement.tensor_split) if scenario else 1)
    is_told = _shares(row)[1] and "cache type not seen" not in row["notes"]
    by_pattern = not row["n_cpu_moe"] and _experts_away(row)  # nobody says of which blocks
    if is_told and row["quant"] and row["gpu_model_mib"] and not by_pattern and model.weights.size_doubt == (1.0, 1.0):
        asked = scenario or Scenario(api=row["api"])
        parts = weight_parts(model.weights, asked, row["api"], None)
        on_cards = [part.anonymous_bytes for part in parts if part.kind is PartKind.WEIGHTS]
        yield from pool("weights", on_cards, row["gpu_model_mib"])
    if scenario is None:
        return
    layout = layout_of(parts_of(model.weights, scenario.placement), scenario.placement, row["api"])
    cells = cells_of(scenario)
    blocks = block_cache_bytes(shape, cells)
    rows, states = ([0] * len(cards) for _ in range(2))
    for block, (size, (*_, side)) in enumerate(zip(blocks, layout.blocks, strict=True)):
        if side != HOST:
            (states if shape.layer_kind(block) == "recurrent" else rows)[side] += size
    if is_told and scenario.placement.first_gpu_block(shape.layer_count) <= 1:
        yield from pool("cache", rows, row["gpu_kv_mib"])
        yield from pool("states", states, row["gpu_rs_mib"])
    if row["gpu_compute_mib"] and build:
        if _ALONE.search(row["notes"]):
            layout = layout._replace(is_pipelined=False)
        scratch = scratch_bytes(shape, scenario, layout)
        yield from pool("compute", [scratch.get(card, 0) for card in cards], row["gpu_compute_mib"])
        several = "host compute, several cards" if len(cards) > 1 else "host compute"
        yield from pool(several, [scratch[HOST]], row["host_compute_mib"])


@click.command()
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rows", is_flag=True, help="List every pool that was compared.")
def main(table: Path, *, rows: bool) -> None:
    """Compare the start-ups in TABLE with what is predicted for them."""
    left, found = Counter[str](), list[Compared]()
    drivers = defaultdict[str, list[tuple[float, Interval]]](list)
    with table.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            drivers[row["api"]] += driver_shares(row)
            if _FORKS.search(row["build"] + row["notes"]):
                left["forks"] += 1
                continue
            try:
                found += compared(row)
            except (HarnessError, ValueError) as error:
                left[type(error).__name__] += 1
    if rows:
        for one in found:
            ratio = one.predicted / one.printed - 1
            click.echo(
                f"{one.row:5} {one.api:7} {one.era:13} {one.pool:13} "
                f"{one.predicted:10.2f} {one.printed:10.2f} {ratio:+.1%}"
            )
    groups = defaultdict[str, list[float]](list)
    for one in found:
        for key in (one.pool, f"{one.pool}, {one.era}", f"{one.pool}, {one.api}"):
            groups[key].append(abs(one.predicted / one.printed - 1))
    for key, errors in sorted(groups.items()):
        click.echo(
            f"{key:30} {len(errors):4} median {np.median(errors):7.2%} nine of ten {np.quantile(errors, 0.9):7.2%}"
        )
    for api, shares in sorted(drivers.items()):
        inside = sum(one.low <= share * MIB <= one.high for share, one in shares)
        values = [share for share, _ in shares]
        if values:
            click.echo(
                f"driver, {api:22} {len(values):4} median {np.median(values):6.0f} MiB, {min(values):.0f} to "
                f"{max(values):.0f}; {inside} inside their intervals"
            )
    click.echo("left out: " + ", ".join(f"{count} {why}" for why, count in left.items()))


if __name__ == "__main__":
    main()
