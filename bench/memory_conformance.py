"""What memory llama.cpp allocates beside what is predicted, for every kind of architecture.

    python -m bench.memory_conformance [--kind lfm2] [--out reports/memory/conformance.json]

For each kind a tiny model with random weights is written and loaded, in a process of its own; the sizes come from the
engine's own log lines ("model buffer size", "KV buffer size", "RS buffer size", "compute buffer size"). Exit status 1
when weights or cache differ by more than 1 % anywhere, or when the engine refuses a model. The log prints hundredths of
a MiB: half of that is allowed on top, per line. The compute buffer is shown and not judged: a run on a CPU touches a
part of it, and that part is what the prediction promises.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from harness.core.model import ModelShape
from harness.core.tables import shipped_table

ALLOWED_RATIO: Final = 0.01
_LINE_MIB: Final = 0.005  # half of the last digit that the engine prints
_LINE: Final = re.compile(r"(?P<buffer>\S+) +(?P<part>model|KV|RS|compute) buffer size = +(?P<mib>[\d.]+) MiB")

KINDS: Final = msgspec.convert(shipped_table("kinds.toml", "bench"), dict[str, ModelShape])
"""Tiny shapes by "kind: name"."""
LOADS: Final = [
    (kv_type, context, sequences)
    for kv_type in ("F16", "Q8_0", "Q4_0")
    for context, sequences in ((1024, 1), (4096, 1), (16384, 1), (4096, 4))
]


def measure(key: str, quant: str) -> list[dict[str, Any]]:
    """Load one kind with every KV type and context; what the engine logged beside what is predicted, in bytes."""
    from bench.made_models import synthesize
    from harness.core.errors import RefusedError
    from harness.core.scenario import Scenario
    from harness.measure.machine import cpu
    from harness.memory.compute_buffer import HOST, scratch_bytes, whole_layout
    from harness.memory.kv_cache import kv_cache_bytes
    from harness.memory.peak import weight_parts
    from harness.memory.repack import repacked_bytes
    from harness.models.gguf import read_gguf
    from harness.models.weights import weights_of
    from harness.runtimes.llamacpp.library import ENGINE_LOG
    from harness.runtimes.llamacpp.session import LlamaSession

    shape = KINDS[key]
    isa = cpu().isa
    rows: list[dict[str, Any]] = []

    def note(part: str, logged: list[float], predicted: int, **case: Any) -> None:
        rows.append({"kind": key, "quant": quant, "part": part, "logged_mib": round(sum(logged), 2),
                     "log_lines": len(logged), "predicted_bytes": predicted, **case})  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        path = synthesize(weights_of(shape, quant), Path(folder) / "tiny.gguf")
        weights = read_gguf(path).weights()
        if (read := weights.shape) != shape:
            differing = [f for f in shape.__struct_fields__ if getattr(read, f) != getattr(shape, f)]
            rows.append({"kind": key, "part": "header", "differs": differing})
        for repack in (False, True):
            ENGINE_LOG.sizes.clear()
            scenario = Scenario(repack=repack, thread_count=1)
            try:
                with LlamaSession(path, scenario, output_tokens=512):
                    logged = buffers_of(ENGINE_LOG.sizes)
            except RefusedError:  # latent attention in AMX's layout: llama.cpp would end this process
                continue
            if repack:
                # The engine's mapped part shrinks by what it rewrites; the file's pages were read all the same.
                note("repacked weights", logged.get("repack", []), repacked_bytes(weights, isa))
                continue
            mapped = sum(p.file_bytes + p.anonymous_bytes for p in weight_parts(weights, scenario, "cpu", None))
            note("weights", logged.get("model", []), mapped)
            for kv_type, context, sequences in LOADS:
                ENGINE_LOG.sizes.clear()
                case = msgspec.structs.replace(
                    scenario, kv_type=kv_type, context_tokens=context, batch_count=sequences, thread_count=1
                )
                with LlamaSession(path, case, output_tokens=512):
                    logged = buffers_of(ENGINE_LOG.sizes)
                ids = {"kv_type": kv_type, "context_tokens": context, "sequence_count": sequences}
                cache = kv_cache_bytes(shape, case)
                note("cache", logged.get("KV", []) + logged.get("RS", []), cache, **ids)
                reserved = scratch_bytes(shape, case, whole_layout(shape, "cpu"))[HOST]
                note("compute buffer", logged.get("compute", []), reserved, **ids)
    return rows


def measure_in_child(asked: dict[str, str], emit: Any) -> None:
    """Child entry: emit ``rows`` of one kind."""
    emit("rows", measure(asked["kind"], asked["quant"]))


def buffers_of(lines: list[str]) -> dict[str, list[float]]:
    """Sizes in MiB by part; what the CPU backend rewrote is a part of its own."""
    sizes: dict[str, list[float]] = {}
    reserved = max((i for i, line in enumerate(lines) if "compute buffer size" in line), default=-1)
    for index, line in enumerate(lines):
        if found := _LINE.search(line):
            part = "repack" if "REPACK" in found["buffer"] else found["part"]
            if part != "compute" or index == reserved:  # the engine reserves more than once; the last one stays
                sizes.setdefault(part, []).append(float(found["mib"]))
    return sizes


def judged(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its error; what the log's rounding may hide is taken off."""
    if "logged_mib" not in row:
        return row
    mib = row["predicted_bytes"] / (1 << 20)
    off = max(abs(mib - row["logged_mib"]) - _LINE_MIB * max(row["log_lines"], 1), 0.0)
    ratio = off / row["logged_mib"] if row["logged_mib"] else float(off > 0)
    return row | {"error_ratio": round(ratio, 5)}


@click.command()
@click.option("--kind", "wanted", multiple=True, help="Part of a kind's name; all kinds unless given.")
@click.option("--quant", default="Q4_0", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
@click.option("--child", hidden=True)
def main(wanted: tuple[str, ...], quant: str, out: Path | None, child: str | None) -> None:
    """Compare allocations with predictions; see the module's docstring."""
    if child:
        click.echo(json.dumps(measure(child, quant)))
        return
    rows: list[dict[str, Any]] = []
    for key in KINDS:
        if wanted and not any(w in key for w in wanted):
            continue
        command = [sys.executable, "-m", "bench.memory_conformance", "--child", key, "--quant", quant]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            why = (done.stderr.strip().splitlines() or ["no output"])[-1]
            rows.append({"kind": key, "part": "refused", "status": done.returncode, "why": why[:300]})
        else:
            rows += [judged(row) for row in json.loads(lines[-1])]
        _print(key, [r for r in rows if r["kind"] == key])
    exact = [r for r in rows if r["part"] in {"weights", "repacked weights", "cache"}]
    worst = max(exact, key=lambda r: float(r["error_ratio"]), default=None)
    refused = [r for r in rows if r["part"] == "refused"]
    met = not refused and worst is not None and worst["error_ratio"] <= ALLOWED_RATIO
    if out:
        from importlib.metadata import version

        record = {"command": "python -m bench.memory_conformance", "engine": f"llama-cpp-python "
                  f"{version('llama-cpp-python')}", "quant": quant, "worst": worst, "rows": rows}  # fmt: skip
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n")
    click.echo(f"{'met' if met else 'NOT MET'}: weights and cache within 1 % in {len(exact)} cases; worst {worst}")
    sys.exit(0 if met else 1)


def _print(key: str, rows: list[dict[str, Any]]) -> None:
    """One line: the worst error of each part."""
    text = []
    for part in ("weights", "repacked weights", "cache", "compute buffer"):
        errors = [r["error_ratio"] for r in rows if r["part"] == part]
        text.append(f"{part} {max(errors):.2%}" if errors else "")
    text += [f"REFUSED {r['why']}" for r in rows if r["part"] == "refused"]
    text += [f"header read back with other {', '.join(r['differs'])}" for r in rows if r["part"] == "header"]
    click.echo(f"{key:38} " + "  ".join(t for t in text if t))


if __name__ == "__main__":
    main()
