"""From a GGUF file or a checkpoint folder to an ONNX folder, offline, by one of two exporters.

The builder of onnxruntime-genai wants transformers 5, optimum below 4.58, both want torch: so each runs in a child, in
this interpreter or in another one. The builder joins attention into one node for each layer; optimum exports the graph
as torch has it, in fp32, for any of the architectures that it knows. The folder made
holds ``model.onnx`` with its weights beside it, the tokenizer, and ``export.json``: source and versions.
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
from harness.onnx.files import MODEL_FILE, size_bytes

QUANTS: Final = ("fp32", "int4")
RECORD_FILE: Final = "export.json"
_CHILD: Final = Path(__file__).with_name("_export_child.py")
_NEEDS: Final = {
    "genai": ("genai-build", ("torch", "transformers", "onnxruntime_genai.models.builder")),
    "optimum": ("export", ("torch", "transformers", "optimum.exporters.onnx")),
}
EXPORTERS: Final = tuple(_NEEDS)
_KEPT_SUFFIXES: Final = {".json", ".jinja", ".model", ".txt"}


def export(
    source: Path,
    target: Path,
    *,
    by: str = "genai",
    quant: str = "int4",
    interpreter: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write an ONNX folder; returns its ``model.onnx``.

    Args:
        source: GGUF file, or a folder of a Hugging Face checkpoint.
        target: Folder to make.
        by: ``genai`` or ``optimum``.
        quant: ``fp32``, which alone optimum makes, or ``int4``: weights in blocks of 32, its token table too.
        interpreter: Python that has torch and the exporter; this one when None.
        say: Told what goes on.

    Raises:
        RefusedError: No such target or quantization, or the folder is there already.
        BadDataError: There is no such source.
        CouldNotRunError: The interpreter lacks a package, or the exporter failed.
    """
    if quant not in QUANTS or by not in EXPORTERS or (by, quant) == ("optimum", "int4"):
        raise RefusedError(f"no export to {quant} by {by}: genai makes {' or '.join(QUANTS)}, optimum fp32")
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
        raise RefusedError(f"{target} is there already: name a new folder")
    if not source.exists() or (source.is_dir() and not (source / "config.json").is_file()):
        raise BadDataError(source, "", "no such file or checkpoint", "a GGUF file or a checkpoint folder")
    python = str(interpreter or sys.executable)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        say(f"{source.name}: {quant} by {by}, in {python}")
        job = {"source": str(source.absolute()), "scratch": scratch, "out": str(made), "by": by, "quant": quant}
        told = _run(python, job)
        told |= {"source": source.name, "quant": quant, "size_bytes": size_bytes(made / MODEL_FILE)}
        (made / RECORD_FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        target.mkdir(exist_ok=True)
        for file in sorted(made.iterdir()):
            if file.suffix in _KEPT_SUFFIXES or file.name.startswith(MODEL_FILE):
                shutil.move(file, target / file.name)
    return target / MODEL_FILE


def _run(python: str, job: dict[str, Any]) -> dict[str, Any]:
    extra, modules = _NEEDS[job["by"]]
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
