"""No workload's run imports what another one needs: each runs in a process of its own, whose modules are listed."""

import json
import subprocess
import sys

import pytest

from harness import plugins

OPTIONAL = {
    "faiss",
    "onnxruntime",
    "onnx",
    "torch",
    "transformers",
    "llama_cpp",
    "pysat",
    "z3",
    "sae_lens",
    "safetensors",
    "scipy",
}
"""What the extras bring."""

ALLOWED = {
    "memory_store": set(),
    "calibration": {"scipy"},
    "training_efficiency": set(),
    "probe": set(),
    "reasoning": set(),
    "sparse_autoencoder": {"onnxruntime", "onnx"},
    "grounded_vision": {"onnxruntime", "onnx", "scipy"},
    "grounding_qa": set(),
    "debate": set(),
    "assistant": set(),
}
"""What a workload may import beside the base; those with a language model are imported here, not prepared."""

SIZES = {"memory_store": {"entry_count": 50, "dim": 64}, "reasoning": {"trace_count": 3, "step_count": 2}}

SCRIPT = """
import json, sys, tempfile
from pathlib import Path
from harness import plugins
from harness.ports import WorkloadContext
name, size = sys.argv[1], json.loads(sys.argv[2])
workload = plugins.load("harness.workloads", name, "WORKLOAD")
chosen = size or dict(workload.sizes.get("small", workload.sizes["default"]))
workload.costs(chosen)
why = ""
if not workload.needs_model:
    with tempfile.TemporaryDirectory() as folder:
        try:
            state = workload.prepare(chosen, WorkloadContext(Path(folder), Path(folder), 1, 1))
            for operation in workload.operations(state):
                operation.call()
        except Exception as error:
            if type(error).__name__ != "MissingPackageError":
                raise
            why = str(error)
print(json.dumps([why, sorted({m.partition(".")[0] for m in sys.modules})]))
"""


@pytest.mark.parametrize("name", plugins.names("harness.workloads"))
def test_a_workload_imports_only_what_is_its_own(name):
    command = [sys.executable, "-c", SCRIPT, name, json.dumps(SIZES.get(name))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if name == "grounded_vision" and done.returncode:
        pytest.skip(f"its encoder is not here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    why, modules = json.loads(done.stdout.splitlines()[-1])
    assert not why or "pip install" in why
    assert OPTIONAL & set(modules) <= ALLOWED[name], f"{name} imports {sorted(OPTIONAL & set(modules) - ALLOWED[name])}"
