"""From a checkpoint folder to a folder that ONNX Runtime runs, offline.

``optimum`` exports the graph as torch has it, in fp32; ONNX Runtime's own quantizer makes int4 of its matrices (blocks
of 32, accuracy level 4). Both run in child processes, because they import torch and hold the whole model.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from harness.errors import BadDataError, RefusedError
from harness.onnx.files import MODEL_FILE
from harness.outside import output_of

QUANTS: Final = ("fp32", "int4")
_EXPORT: Final = ("optimum.commands.optimum_cli", "export", "onnx", "--task", "text-generation-with-past")
_QUANTIZE: Final = ("onnxruntime.quantization.matmul_nbits_quantizer", "--block_size", "32", "--accuracy_level", "4")
_LONGEST_S: Final = 24 * 3600.0


def export(checkpoint: Path, folder: Path, quant: str) -> Path:
    """Write ``folder`` with ``model.onnx``, its weights beside it and the tokenizer; returns its ``model.onnx``.

    Args:
        checkpoint: Folder of a Hugging Face model: ``config.json``, weights, tokenizer.
        folder: Folder to make.
        quant: One of ``QUANTS``.

    Raises:
        BadDataError: ``checkpoint`` is no such folder.
        RefusedError: ``folder`` holds something already.
        CouldNotRunError: A package is missing, or an exporter failed.
    """
    if not (checkpoint / "config.json").is_file():
        raise BadDataError(checkpoint, "", "no config.json", "the folder of a Hugging Face checkpoint")
    if folder.exists():
        raise RefusedError(f"{folder} is there already: name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as scratch:
        floats = Path(scratch) / "fp32"
        _python(*_EXPORT, "--model", str(checkpoint.absolute()), str(floats))
        if quant == "int4":
            smaller = Path(scratch) / "int4"
            smaller.mkdir()
            _python(*_QUANTIZE, "--input_model", str(floats / MODEL_FILE), "--output_model", str(smaller / MODEL_FILE))
            for file in floats.iterdir():
                if not file.name.startswith(MODEL_FILE):
                    shutil.move(file, smaller / file.name)
            floats = smaller
        floats.rename(folder)
    return folder / MODEL_FILE


def _python(module: str, *arguments: str) -> None:
    """Run a module's command line in a child of this interpreter."""
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    called = f"{module.partition('.')[0]} (of edge-harness[export])"
    output_of((sys.executable, "-m", module, *arguments), called, timeout_s=_LONGEST_S, environment=offline)
