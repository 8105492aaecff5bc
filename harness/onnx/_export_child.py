"""Runs by its path in an interpreter that has torch and an exporter; it imports nothing of the harness.

Takes one JSON object as its argument: ``source`` (a GGUF file or a checkpoint folder), ``scratch`` (a folder to work
in), ``out`` (the folder to fill), ``by`` (the exporter), ``quant`` and ``needs`` (modules). Prints one JSON object that
says which modules are ``missing``, and on its last line one with versions.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def main() -> None:
    """Do the job."""
    sys.path.pop(0)  # this folder: its modules must not stand in for others of the same name
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    job = json.loads(sys.argv[1])
    missing = [module for module in job["needs"] if not _is_there(module)]
    sys.stdout.write(json.dumps({"missing": missing}) + "\n")
    if missing:
        return
    checkpoint = _checkpoint(Path(job["source"]), Path(job["scratch"]))
    told = _by_optimum(checkpoint, job) if job["by"] == "optimum" else _to_genai(checkpoint, job)
    told["versions"]["torch"] = version("torch")
    told["versions"]["transformers"] = version("transformers")
    sys.stdout.write("\n" + json.dumps(told) + "\n")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def _checkpoint(source: Path, scratch: Path) -> Path:
    """A folder with configuration, weights and tokenizer; a GGUF file is unpacked to float."""
    if source.is_dir():
        return source
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = scratch / "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    model.hf_quantizer = None  # transformers 5 remembers where the weights came from and would not save them: the
    if hasattr(model.config, "quantization_config"):  # weights are plain floats by now
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name).save_pretrained(folder)
    return folder


def _by_optimum(checkpoint: Path, job: dict[str, Any]) -> dict[str, Any]:
    from optimum.exporters.onnx import main_export

    main_export(str(checkpoint), job["out"], task="text-generation-with-past", local_files_only=True)
    return {"versions": {"optimum": version("optimum"), "optimum-onnx": version("optimum-onnx")}}


def _to_genai(checkpoint: Path, job: dict[str, Any]) -> dict[str, Any]:
    precision = job["quant"]
    options = ["int4_accuracy_level=4", "int4_block_size=32"] if precision == "int4" else []
    command = [
        *(sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint), "-o", job["out"]),
        *("-p", precision, "-e", "cpu", "-c", str(Path(job["scratch"]) / "cache")),
        *(["--extra_options", *options] if options else []),
    ]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"the genai builder ended with {done.returncode}")
    return {"versions": {"onnxruntime-genai": version("onnxruntime-genai")}}


if __name__ == "__main__":
    main()
