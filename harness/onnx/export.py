"""From a model to a folder that ONNX Runtime runs: ``optimum`` makes the graph, ONNX Runtime's quantiser its 4 bits.

Both want other versions of packages than edge-harness itself, and torch. So they live in an environment of their own,
which the first export makes, and run in child processes.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import Final

from harness.core.errors import BadDataError, RefusedError
from harness.core.outside import output_of
from harness.core.paths import cache_dir
from harness.onnx.files import MODEL_FILE

PRECISIONS: Final = ("int4", "fp32")
_EXPORT: Final = ("optimum.commands.optimum_cli", "export", "onnx", "--task", "text-generation-with-past")
_QUANTISE: Final = (
    "onnxruntime.quantization.matmul_nbits_quantizer",
    *("--block_size", "32", "--accuracy_level", "4"),
)
_UNPACK: Final = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, file, out = sys.argv[1:]
AutoModelForCausalLM.from_pretrained(folder, gguf_file=file).save_pretrained(out)
AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)
"""
"""Writes a GGUF file's weights as floats, with its tokenizer, by transformers."""
_LONGEST_S: Final = 6 * 3600.0


def export(source: Path, folder: Path, precision: str, say: Callable[[str], None]) -> Path:
    """Write ``folder`` with ``model.onnx``, its weights and its tokenizer; returns the path of ``model.onnx``.

    Args:
        source: A GGUF file, whose weights are unpacked first, or the folder of a Hugging Face model.
        folder: Folder to make.
        precision: Of the graph's matrices, one of ``PRECISIONS``; ``int4`` in blocks of 32 weights.
        say: Told each step as it begins.

    Raises:
        BadDataError: ``source`` is neither.
        RefusedError: ``folder`` is there already.
        CouldNotRunError: The exporter cannot be installed, or failed.
    """
    if source.is_dir() and not (source / "config.json").is_file():
        raise BadDataError(source, "", "no config.json", "a GGUF file or the folder of a Hugging Face model")
    if folder.exists():
        raise RefusedError(f"{folder} is there already: name a new folder with -o")
    python = exporter(say)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as scratch:
        checkpoint, made = source.absolute(), Path(scratch) / "fp32"
        if source.is_file():
            say("unpacking the weights")
            checkpoint = Path(scratch) / "checkpoint"
            _run(python, "-c", _UNPACK, str(source.absolute().parent), source.name, str(checkpoint))
        say("making the graph")
        _run(python, "-m", *_EXPORT, "--model", str(checkpoint), str(made))
        if precision == "int4":
            say("quantising its matrices to 4 bits")
            floats, made = made, Path(scratch) / "int4"
            made.mkdir()
            _run(
                python,
                *("-m", *_QUANTISE),
                *("--input_model", str(floats / MODEL_FILE), "--output_model", str(made / MODEL_FILE)),
            )
            for file in floats.iterdir():
                if not file.name.startswith(MODEL_FILE):
                    shutil.move(file, made / file.name)
        made.rename(folder)
    return folder / MODEL_FILE


def exporter(say: Callable[[str], None]) -> Path:
    """The Python of the exporter's own environment, which is made where it is not there yet.

    Raises:
        CouldNotRunError: It cannot be made, as without a network.
    """
    place = cache_dir() / "exporter"
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ready, packages = place / "ready", exporter_packages()
    if ready.is_file() and ready.read_text(encoding="utf-8").splitlines() == packages:
        return python
    say(f"installing optimum and torch in {place}, once")
    shutil.rmtree(place, ignore_errors=True)
    output_of((sys.executable, "-m", "venv", str(place)), "python -m venv", timeout_s=300)
    output_of((str(python), "-m", "pip", "install", "-q", *packages), "pip", timeout_s=_LONGEST_S)
    ready.write_text("\n".join(packages), encoding="utf-8")
    return python


def exporter_packages() -> list[str]:
    """The requirements of the extra ``export``, as they are told to pip."""
    told = [line.partition(";") for line in requires("edge-harness") or ()]
    return sorted(name.strip() for name, _, when in told if re.search(r"extra == ['\"]export['\"]", when))


def _run(python: Path, *arguments: str) -> None:
    """Run the exporter's Python offline; the last line that it printed is the error."""
    environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    called = "the exporter (optimum)"
    output_of((str(python), *arguments), called, timeout_s=_LONGEST_S, environment=environment)
