"""From a GGUF file or a checkpoint folder to an ONNX folder, offline, in an interpreter that has torch.

The exporter (optimum-onnx wants transformers below 4.58, the genai builder wants 5) runs in a child, in this
interpreter or in another one; what follows runs here and needs the extra ``quantize`` only. The folder made holds
``model.onnx`` with its weights beside it, the tokenizer, and ``export.json``: source, versions, and what torch itself
answers, so that the graph can be checked without torch.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from harness.errors import BadDataError, CouldNotRunError, RefusedError
from harness.onnx import quantize as quantizers
from harness.onnx.decoder import keep_last_logits, quantize_decoder, table_by_rows
from harness.onnx.files import MODEL_FILE, size_bytes

TARGETS: Final = ("onnx", "genai")
QUANTS: Final = ("fp32", "int8", "int4", "builder-int4")
RECORD_FILE: Final = "export.json"
_CHILD: Final = Path(__file__).with_name("_export_child.py")
_NEEDS: Final = {
    "onnx": ("export", ("torch", "transformers", "optimum.exporters.onnx")),
    "genai": ("genai-build", ("torch", "transformers", "onnxruntime_genai.models.builder")),
}
_KEPT_SUFFIXES: Final = {".json", ".jinja", ".model", ".txt"}


def export(
    source: Path,
    target: Path,
    *,
    to: str = "onnx",
    quant: str = "int4",
    interpreter: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write an ONNX folder; returns its ``model.onnx``.

    Args:
        source: GGUF file, or a folder of a Hugging Face checkpoint.
        target: Folder to make.
        to: ``onnx``: optimum-onnx, for the runtime ``ort``. ``genai``: the builder, for ``genai`` and ``ort``; its
            attention is one operation, and decodes at twice the speed on a small model.
        quant: ``fp32``, or weights in blocks: ``int8``, ``int4`` (the token table in 8 bits); ``builder-int4`` is what
            the genai builder itself makes, its token table in 4 bits too.
        interpreter: Python that has torch and the exporter; this one when None.
        say: Told what goes on.

    Raises:
        RefusedError: No such target or quantization, or the folder is there already.
        BadDataError: There is no such source.
        CouldNotRunError: The interpreter lacks a package, or the exporter failed.
    """
    if to not in TARGETS or quant not in QUANTS or (to, quant) == ("onnx", "builder-int4"):
        raise RefusedError(f"no export to {to} {quant}: {' or '.join(TARGETS)}, {' or '.join(QUANTS)}")
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
        raise RefusedError(f"{target} is there already: name a new folder")
    if not source.exists() or (source.is_dir() and not (source / "config.json").is_file()):
        raise BadDataError(source, "", "no such file or checkpoint", "a GGUF file or a checkpoint folder")
    python = str(interpreter or sys.executable)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        say(f"{source.name}: {to} export by {python}")
        precision = "int4" if quant == "builder-int4" else "fp32"
        job = {"source": str(source.absolute()), "scratch": scratch, "out": str(made), "to": to, "quant": precision}
        told = _run(python, job)
        say(f"{source.name}: {quant}")
        change = keep_last_logits if to == "onnx" else table_by_rows if quant == "fp32" else None
        if change is not None:
            graph = quantizers.load(made / MODEL_FILE)
            change(graph)
            quantizers.save(graph, made / MODEL_FILE)
            (made / f"{MODEL_FILE}_data").unlink(missing_ok=True)  # where the exporter puts weights above 2 GB
        if quant in {"int4", "int8"}:
            quantize_decoder(made / MODEL_FILE, made / MODEL_FILE, bits=int(quant[3:]))
        told |= {"source": source.name, "to": to, "quant": quant, "size_bytes": size_bytes(made / MODEL_FILE)}
        (made / RECORD_FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        target.mkdir(exist_ok=True)
        for file in sorted(made.iterdir()):
            if file.suffix in _KEPT_SUFFIXES or file.name.startswith(MODEL_FILE):
                shutil.move(file, target / file.name)
    return target / MODEL_FILE


def read_record(folder: Path) -> dict[str, Any]:
    """What ``export`` wrote of how a folder was made; empty for one from elsewhere."""
    path = folder / RECORD_FILE
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}


def _run(python: str, job: dict[str, Any]) -> dict[str, Any]:
    extra, modules = _NEEDS[job["to"]]
    command = [python, str(_CHILD), json.dumps(job | {"needs": modules})]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        missing = json.loads(lines[0])["missing"]
    except (OSError, ValueError, LookupError) as error:
        raise CouldNotRunError(f"{python} is no Python of version 3.11 or later: {error}") from error
    if missing:
        raise CouldNotRunError(
            f"{python} has no {missing[0].partition('.')[0]}. Install it there with: pip install "
            f"'edge-harness[{extra}]', or name another interpreter with --python"
        )
    if done.returncode or len(lines) < 2 or not (Path(job["out"]) / MODEL_FILE).is_file():
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["it said nothing"]
        raise CouldNotRunError(f"the export ended with {done.returncode}: {last[0][:400]}")
    return dict(json.loads(lines[-1]))
