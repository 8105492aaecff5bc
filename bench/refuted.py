"""Published runs that an answer of ``fit`` contradicts: said not to run, or run faster than the memory can deliver.

    python -m bench refuted ../shared/data/published [--sample 20]

Every file of published rows counts that names a device, a model and what it ran in: speeds, batches, splits, drafts,
streaming, start-ups on cards, energy, heat, loads. A run is asked about as it was: on its device with the memory that
its words tell, in its context. Where a row tells no RAM, a size in which the model lies is taken, since it ran.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import click
from msgspec.structs import replace

from harness.app.case import Case
from harness.app.resolve import ResolvedModel, resolve_model
from harness.app.ways import ways
from harness.catalog.devices import load_device
from harness.catalog.parts import find
from harness.domain.device import DeviceProfile
from harness.domain.ggml import KV_TYPES
from harness.domain.scenario import Scenario
from harness.errors import HarnessError
from harness.units import GIB

FILES: Final = (
    "decode", "batch", "partial_offload", "spec_decode", "streaming", "gpu_memory", "energy", "thermal", "load",
    "batch_verify",
)  # fmt: skip
_BOUNDS: Final = re.compile(r"\bat most\b|\bno more than\b|\bup to \d")
_SIZE: Final = re.compile(r"(?<![\d.x*])(\d+) ?(?:GB|GiB)\b(?! ?(?:vram|/s))", re.IGNORECASE)
_SEVERAL: Final = re.compile(r"(?:^|[ ;+])([2-9]) ?[x*] |(?: [x*] ?([2-9]))\b", re.IGNORECASE)
_RUNS_ELSEWHERE: Final = re.compile(
    r"rpc|cluster|nodes|\d machines|paper|not named|not stated|TPU|class \(", re.IGNORECASE
)


class Run(NamedTuple):
    """One published run; ``speed`` is decoded tokens/s of one sequence, 0 where it is of something else."""

    file: str
    line: int
    device: str
    chip: str
    model: str
    quant: str
    model_bytes: float
    context_tokens: int
    users: int
    kv_type: str
    speed: float
    cards: int
    host: str
    ram_bytes: float


def runs_of(folder: Path) -> Iterator[Run]:
    """Every run of the files there, one of each kind of question."""
    for file in FILES:
        seen: dict[tuple[object, ...], Run] = {}
        with (folder / f"{file}.csv").open(encoding="utf-8-sig", newline="") as rows:
            for line, row in enumerate(csv.DictReader(rows), 2):
                run = _run(file, line, row)
                key = run._replace(line=0, speed=0.0)
                if key not in seen or run.speed > seen[key].speed:  # the fastest is the hardest to bound
                    seen[key] = run
        yield from seen.values()


def _number(text: str | None) -> float:
    found = re.match(r"\d+(?:\.\d+)?", (text or "").replace(",", ""))
    return float(found[0]) if found else 0.0


def _run(file: str, line: int, row: dict[str, str]) -> Run:
    test = row.get("test") or ""
    deepest = _number((row.get("context_depth") or "").rpartition("..")[2])
    told = sum(float(n) for n in re.findall(r"(?:pp|tg|d) ?(\d+)", test))
    needed = _number(row.get("n_ctx")) or max(deepest + 128, told)
    needed = needed or _number(row.get("prompt_tokens")) + _number(row.get("gen_tokens")) or 512
    users = int(_number(row.get("batch_npl")) or _number(row.get("concurrency")) or 1)
    beyond = _number(row.get("implied_eff")) > 1  # the row's own bytes and bandwidth contradict its speed
    decodes = file in {"decode", "partial_offload"} and test.startswith("tg") and not beyond
    kv_type = (row.get("kv_type") or row.get("type_k") or "F16").upper()
    chip = row.get("gpu_chip") or row.get("chip") or ""
    return Run(
        file=file,
        line=line,
        device=(row.get("device") or "").strip(),
        chip=chip,
        model=row.get("model") or row.get("target") or "",
        quant=(row.get("quant") or "").partition(" - ")[0].split(" ")[0],
        model_bytes=_number(row.get("model_bytes")),
        context_tokens=int(-(-needed // 256) * 256),
        users=users,
        kv_type=kv_type if kv_type in KV_TYPES else "F16",
        speed=_number(row.get("tokens_per_s")) if decodes and users == 1 else 0.0,
        cards=int(_number(row.get("n_gpus")) or _number("".join(filter(None, _cards(row.get("device") or ""))))) or 1,
        host=row.get("cpu_chip") or "",
        ram_bytes=_number(row.get("ram_bytes_or_budget")),
    )


def _cards(words: str) -> tuple[str, ...]:
    found = _SEVERAL.search(words)
    return found.groups() if found else ()


@lru_cache(maxsize=4096)
def device_of(
    device: str, chip: str, cards: int, host: str, model_bytes: float, ram_bytes: float
) -> DeviceProfile | None:
    """The device of a run, with the memory that its words tell or else enough for what it ran; None for nobody's."""
    sizes = [int(size) for size in _SIZE.findall(device)]
    bare = re.sub(r"\(.*?\)", " ", device)
    for name in dict.fromkeys((device, bare, chip, re.sub(r"\(.*?\)", " ", chip))):
        words = _SIZE.sub(" ", name).strip(" ,+/")
        if not words or _RUNS_ELSEWHERE.search(name):
            continue
        for size in (*sizes, 0):
            asked = f"{cards}x " * (cards > 1) + (f"{words} {size}GB" if size else words)
            for beside in dict.fromkeys((re.sub(r"\(.*?\)|\bVM\b", " ", host).strip(), "")):
                with suppress(HarnessError, ValueError):
                    profile = load_device(f"{asked} + {beside}" if beside else asked)
                    named = not any("known by its memory alone" in reading for reading in profile.readings)
                    return _held(profile, sizes, words, model_bytes, ram_bytes) if named else None
    return None


def _held(profile: DeviceProfile, sizes: list[int], words: str, model_bytes: float, ram_bytes: float) -> DeviceProfile:
    """The device with RAM in which the run's model lies, unless its words tell how much it has."""
    pool = profile.pool("ram")
    card = profile.engine().pool == "vram"
    told = not card and round(pool.total_bytes.value / GIB) in sizes
    if told or not model_bytes:
        return profile
    largest = max((part.sizes_gb[-1] for part in find(words) if part.sizes_gb and part.layer != "cards"), default=0)
    enough = max(pool.total_bytes.value, largest * GIB, 1.5 * model_bytes if card and not ram_bytes else 0)
    share = pool.usable_bytes.value / pool.total_bytes.value
    grown = replace(
        pool,
        total_bytes=replace(pool.total_bytes, value=enough),
        usable_bytes=replace(pool.usable_bytes, value=max(pool.usable_bytes.value, share * enough)),
    )
    return replace(profile, pools=tuple(grown if p.name == "ram" else p for p in profile.pools))


@lru_cache(maxsize=1024)
def model_of(name: str, quant: str) -> ResolvedModel | None:
    """The model of a run, in its quantisation or, where that is of no llama.cpp's, in its usual one."""
    for asked in (quant or None, None):
        with suppress(HarnessError, ValueError):
            return resolve_model(name.partition(" (")[0], asked)
    return None


def verdict(run: Run) -> tuple[str, str]:
    """What comes of a run, and the answer's first line.

    The first is ``agrees``, ``no``, ``above the ceiling``, ``bounded in words``, ``refused`` or ``not asked: ...``.
    """
    if re.search(r"x ?2\b|dual", run.host):
        return "not asked: two sockets", ""
    model = model_of(run.model, run.quant)
    size = run.model_bytes or (model.weights.file_bytes if model else 0)
    device = device_of(run.device, run.chip, run.cards, run.host, size, run.ram_bytes)
    if device is None or model is None:
        return f"not asked: nobody's {'model' if device else 'device'}", ""
    pools = {round(pool.total_bytes.value / GIB) for pool in device.pools}
    if re.search(r"\b(?:RTX|GTX|RX|Arc)\b", run.chip) and pools.isdisjoint(
        map(int, _SIZE.findall(run.device) or pools)
    ):
        return "not asked: another memory", ""
    if run.model_bytes and not 0.8 < run.model_bytes / model.weights.file_bytes < 1.25:
        return "not asked: another recipe", ""
    scenario = Scenario(
        context_tokens=max(run.context_tokens * run.users, 256),
        prompt_tokens=64,
        new_tokens=64,
        batch_count=run.users,
        kv_type=run.kv_type,
    )
    try:
        listed = ways(Case.of(model, device, scenario))
    except (HarnessError, ValueError) as error:
        return "refused", str(error)
    best = listed[0]
    decode = best.prediction.speed.decode_tokens_per_s
    line = f"{model.name} on {device.title}: {best.kind}, {decode.low:.3g} to {decode.high:.3g} tokens/s"
    fastest = max(pool.bandwidth_bytes_per_s.value for pool in device.pools) * run.cards
    whole = fastest / best.prediction.speed.active_bytes  # another way than ours may hold more on the card
    ceiling = max(whole, *(way.prediction.speed.roofline_tokens_per_s for way in listed))
    faults = {
        "no": not best.runs,
        "bounded in words": _BOUNDS.search(" ".join((line, *best.prediction.verdict.reasons))),
        "above the ceiling": model.bits is None and run.speed > 1.02 * ceiling,  # of a file of just these bytes
    }
    found = next((name for name, holds in faults.items() if holds), "agrees")
    return found, f"{run.speed:g} of {ceiling:.3g} tokens/s; {line}"


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--sample", type=int, default=1, help="Only every so manyth question of each file.")
def main(folder: Path, sample: int) -> None:
    """Print counts by file, and every contradiction."""
    counts: dict[str, Counter[str]] = {}
    asked: Counter[str] = Counter()
    for run in runs_of(folder):
        asked[run.file] += 1
        if asked[run.file] % sample:
            continue
        found, line = verdict(run)
        counts.setdefault(run.file, Counter())[found] += 1
        if not found.startswith(("agrees", "not asked")):
            click.echo(f"{found}: {run.file}.csv:{run.line} {run.device}; {run.model} {run.quant}: {line}")
    for file, count in counts.items():
        click.echo(f"{file}: {dict(count.most_common())}")


if __name__ == "__main__":
    main()
