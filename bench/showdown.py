"""Other tools and published formulas beside ours, on rows that ours has not seen: ``python -m bench showdown``.

Rows: published decode speeds of trust A and B, each predicted by a fit without its chip and its source. Everybody is
told the machine's bandwidth, the file's bytes, weights and active weights, the type and the depth; llmfit and whichllm
(``pip install llmfit whichllm``; a tool that is not there is left out) are asked through their own code. Printed and
kept in ``reports/validation/showdown.json``: median and 90th percentile of |said / measured - 1|, share within a factor
1.3, rows answered, coverage and width of stated intervals, and of all pairs of rows of one chip, api and source that
differ by a tenth or more, how many are ranked rightly.
"""

import json
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from shutil import which
from typing import Final, NamedTuple

import click

from bench._kept import REPORTS, write
from bench.fits.leave_out import fitted, leave_out
from harness.answer.nearest import shipped_rows
from harness.speed.published.errors_of_rows import Judged, score
from harness.speed.published.rows import PublishedRow, is_trusted

_NOMINAL: Final = ((r"f32", 4.0), (r"f16", 2.0), (r"q8|8[- ]?bit|int8|w8", 1.0), (r"q6", 0.75), (r"q5", 0.625),
                   (r"q3|3[- ]?bit|iq3", 0.375), (r"q2|2[- ]?bit|iq2|iq1|tq|ternary|1[- ]?bit|q1", 0.25))  # fmt: skip
"""Bytes of a weight as calculators count them."""
_RANKED_RATIO: Final = 1.1
"""Speeds nearer to each other than that are no ranking."""
_ASKED_GB_S: Final = 100.0
_VENDORS: Final = {"NVIDIA": "nvidia", "AMD": "amd", "Apple GPU": "apple", "Intel": "intel"}


class Said(NamedTuple):
    """Tokens/s, and the interval where one was stated."""

    mid: float
    low: float = 0.0
    high: float = 0.0


Peer = Callable[[PublishedRow], Said | None]


def _bytes(row: PublishedRow) -> tuple[float, float]:
    """Of the file, and of what a token reads by active over all weights."""
    size = float(row.raw["model_bytes"])
    return size, row.machine.bandwidth_bytes_per_s / row.promised


def _params(row: PublishedRow) -> tuple[float, float]:
    assert row.work is not None
    count = row.raw.number("params_b") * 1e9 or row.work.weight_count
    return count, row.raw.number("active_params_b") * 1e9 or (row.work.weight_count if row.work.moe else count)


def share_of(share: float) -> Peer:
    """A share of bandwidth / bytes read."""
    return lambda row: Said(share * row.promised)


def nominal(share: float, *, active: bool, low: float = 0.0, high: float = 0.0) -> Peer:
    """A share of bandwidth over weights times the bytes that a type's name tells; ``low`` and ``high`` as stated."""

    def ask(row: PublishedRow) -> Said:
        each = next((size for words, size in _NOMINAL if re.search(words, row.raw["quant"].lower())), 0.5)
        ceiling = row.machine.bandwidth_bytes_per_s / (_params(row)[1 if active else 0] * each)
        return Said(share * ceiling, low * ceiling, high * ceiling)

    return ask


def gguf_parser(row: PublishedRow) -> Said:
    """1 / (max(8 N / FLOP/s, bytes / W) + cache / W), N and bytes those of all experts: its "max TPS"."""
    assert row.work is not None
    count, _ = _params(row)
    compute = 8 * count / row.machine.traits.matrix_flops_per_s  # four tokens a batch of the cache, two FLOP each
    w = row.machine.bandwidth_bytes_per_s
    return Said(1 / (max(compute, _bytes(row)[0] / w) + row.work.kv_bytes / w))


def whichllm(row: PublishedRow) -> Said | None:
    """Its own functions, given the file's size and the machine's bandwidth."""
    from whichllm.engine.performance import estimate_speed_uncertainty, estimate_tok_per_sec
    from whichllm.hardware.types import GPUInfo
    from whichllm.models.types import GGUFVariant, ModelInfo

    count, active = _params(row)
    moe, quant = active < 0.9 * count, row.raw["quant"].split()[0]
    model = ModelInfo("x", "x", "x", int(count), int(active) if moe else None, is_moe=moe)
    variant = GGUFVariant("file", quant, int(_bytes(row)[0]))
    gpu, fit = None, "cpu_only"
    if row.machine.side == "gpu":
        vendor, shared = _VENDORS.get(row.machine.hardware, "other"), row.machine.traits.memory == "lpddr"
        bandwidth = row.machine.bandwidth_bytes_per_s / 1e9
        gpu, fit = GPUInfo("x", vendor, 2**40, memory_bandwidth_gbps=bandwidth, shared_memory=shared), "full_gpu"
    elif row.machine.side == "npu":
        return None
    speed = estimate_tok_per_sec(model, variant, gpu, fit)
    _, span, _ = estimate_speed_uncertainty(model, variant, gpu, fit, speed)
    return Said(speed, *span) if span and speed else None


@cache
def _llmfit_models() -> dict[str, tuple[str, float]]:
    """Its names and parameters by the plain name of the model, the shortest of each."""
    listed = json.loads(subprocess.run(["llmfit", "list", "--json"], capture_output=True, check=True).stdout)
    found: dict[str, tuple[str, float]] = {}
    for one in sorted(listed, key=lambda m: len(m["name"])):
        found.setdefault(_plain(one["name"].rpartition("/")[2]), (one["name"], float(one["parameters_raw"] or 0)))
    return found


def _plain(name: str) -> str:
    words = re.sub(r"(?i)[-_ .]?(instruct|it|chat|hf|base|gguf|v\d(\.\d)?)\b", "", name)
    return re.sub(r"[^a-z0-9]", "", words.lower())


@cache
def _llmfit(name: str, side: str, shared: bool, quant: str) -> float | None:
    """Its answer at ``_ASKED_GB_S``: on a GPU it goes with the bandwidth, on a CPU it does not know of any."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "machine.json"
        hardware: dict[str, float] = {"total_ram_gb": 1024, "unified_memory": shared, "gpu_compute_tflops_fp16": 50}
        hardware |= {"ddr_bandwidth_gbps": _ASKED_GB_S, "gpu_memory_bandwidth_gbps": _ASKED_GB_S}
        machine = {"name": "machine", "schema_version": 1, "hardware": hardware, "match": {"gpu_name_contains": "x"}}
        path.write_text(json.dumps(machine))
        asked = ["plan", name, "--context", "4096", "--quant", quant, "--json"]
        done = subprocess.run(["llmfit", "--profile", str(path), *asked], capture_output=True, check=False)
    if done.returncode:
        return None
    wanted = "gpu" if side == "gpu" else "cpu_only"
    paths = {one["path"]: one["estimated_tps"] for one in json.loads(done.stdout)["run_paths"]}
    return paths.get(wanted)


def llmfit(row: PublishedRow) -> Said | None:
    """Its own program, given a profile of the machine; of a model that it does not list by name one of its size."""
    if row.machine.side == "npu":
        return None
    models, count = _llmfit_models(), _params(row)[0]
    name, _ = models.get(_plain(row.raw["model"]), ("", 0.0))
    if not name and row.work is not None and not row.work.moe:
        near = min(models.values(), key=lambda m: abs(m[1] - count))
        name = near[0] if abs(near[1] / count - 1) < 0.02 else ""
    if not name:
        return None
    shared = row.machine.traits.memory == "lpddr" or row.machine.side == "cpu"
    speed = _llmfit(name, row.machine.side, shared, row.raw["quant"].split()[0])
    scale = row.machine.bandwidth_bytes_per_s / 1e9 / _ASKED_GB_S if row.machine.side == "gpu" else 1.0
    return Said(scale * speed) if speed else None


PEERS: Final[dict[str, tuple[Peer, str]]] = {
    "llmfit 1.1.17": (llmfit, "the package llmfit 1.1.17"),
    "whichllm 0.5.21": (whichllm, "the package whichllm 0.5.21"),
    "gguf-parser": (
        gguf_parser,
        "https://github.com/gpustack/gguf-parser-go/blob/8dc7a62/file_estimate__llamacpp.go#L886",
    ),
    "induwara.lk": (nominal(0.7, active=True), "https://induwara.lk/tools/ai-inference-speed-calculator"),
    "inventivehq.com": (
        nominal(0.625, active=True, low=0.5, high=0.75),
        "https://inventivehq.com/tools/llm-inference-speed-calculator",
    ),
    "gpudojo": (nominal(1.0, active=False), "https://gpudojo-v2.pages.dev/articles/speed-estimation"),
    "bandwidth / bytes": (share_of(1.0), "roofline: Williams et al. 2009"),
}
"""Who is asked, and where the formula stands. LM Studio and llama-fit-params state memory and no speed."""


def _rightly(rows: Sequence[PublishedRow], said: Mapping[int, Said]) -> float:
    """Share of pairs of rows of one chip, api and source whose faster one is named."""
    pairs: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for i in sorted(said):
        pairs[rows[i].chip, rows[i].machine.api, rows[i].source].append(i)
    right = total = 0
    for own in pairs.values():
        for one, two in combinations(own[:60], 2):
            ratio = rows[one].measured / rows[two].measured
            if max(ratio, 1 / ratio) >= _RANKED_RATIO:
                total += 1
                right += (ratio > 1) == (said[one].mid > said[two].mid)
    return right / total if total else 0.0


_GROUPS: Final[dict[str, Callable[[PublishedRow], bool]]] = {
    "all": lambda _: True,
    "dense, llama.cpp": lambda r: r.group == "dense" and r.machine.runtime == "llama.cpp",
    "experts": lambda r: r.group == "moe",
    "below four bits": lambda r: r.group == "sub-4-bit",
    "phones": lambda r: r.group == "phone",
    "CPUs": lambda r: r.machine.side == "cpu" and not r.machine.phone,
}


@click.command()
def main() -> None:
    """Ask everybody, print the table and keep it."""
    ours = [
        j for j in leave_out(fitted(shipped_rows()), "chip+source") if is_trusted(j.row) and j.row.phase == "decode"
    ]
    there = {"llmfit 1.1.17": which("llmfit"), "whichllm 0.5.21": find_spec("whichllm")}
    peers = {name: peer for name, (peer, _) in PEERS.items() if there.get(name, True)}
    rows = [j.row for j in ours]
    said: dict[str, dict[int, Said]] = {"edge-harness": {i: Said(*one[1:]) for i, one in enumerate(ours)}}
    for name, peer in peers.items():
        asked = ((i, peer(row)) for i, row in enumerate(rows))
        said[name] = {i: one for i, one in asked if one is not None and one.mid > 0}
        click.echo(f"{name}: {len(said[name])} of {len(rows)}", err=True)
    table = []
    for group, chosen in _GROUPS.items():
        at = [i for i, row in enumerate(rows) if chosen(row)]
        promised = score([Judged(rows[i], rows[i].promised) for i in at])
        share = promised.best_constant[0] if promised and promised.best_constant else 0.0
        named = said | {"best constant, tuned on these rows": {i: Said(share * rows[i].promised) for i in at}}
        for name, answers in named.items():
            own = {i: answers[i] for i in at if i in answers}
            if found := score([Judged(rows[i], *one) for i, one in own.items()]):
                ratios = found.median_ratio, found.p90_ratio, found.within_ratio, found.coverage_ratio
                shown = ["-" if ratio is None else f"{ratio:.0%}" for ratio in (len(own) / len(at), *ratios)]
                width = "-" if found.width_ratio is None else f"{found.width_ratio:.2f}"
                table.append([group, name, *shown, width, f"{_rightly(rows, own):.0%}"])
    columns = [
        "rows",
        "who",
        "answered",
        "median error",
        "90 % below",
        "within 1.3",
        "in interval",
        "width",
        "ranked rightly",
    ]
    kept = {"columns": columns, "rows": table, "sources": {name: link for name, (_, link) in PEERS.items()}}
    click.echo(write(REPORTS / "validation" / "showdown.json", "python -m bench showdown", kept), nl=False)


if __name__ == "__main__":
    main()
