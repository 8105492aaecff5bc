"""ONNX Runtime sessions whose settings are known: execution providers, threads, prepacking.

Weights in an external file are mapped by the engine; with ``prepack=False`` they stay mapped and are computed
from as they are (measured: 501 MB instead of 769 MB for an inline model of 428 MB, at 0.7 of the speed).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from harness.core.errors import BadDataError, EngineError, RefusedError, UnknownNameError, optional

PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}
"""Source: ONNX Runtime, docs/execution-providers."""
CPU: Final = (PROVIDERS["cpu"],)


def providers_for(api: str) -> tuple[str, ...]:
    """The provider that an api names (empty: the CPU), and the CPU for the nodes that it cannot run.

    Raises:
        UnknownNameError: ONNX Runtime has no provider of that name.
    """
    name = api.lower() or "cpu"
    if name not in PROVIDERS:
        raise UnknownNameError("execution provider", api, PROVIDERS)
    return tuple(dict.fromkeys((PROVIDERS[name], *CPU)))


def runtime() -> Any:
    """The package ``onnxruntime`` (MissingPackageError where it is not installed)."""
    with optional("onnxruntime", "onnx"):
        import onnxruntime
    return onnxruntime


class OnnxSession(AbstractContextManager["OnnxSession"]):
    """One loaded graph.

    Args:
        path: ONNX file.
        thread_count: Threads inside one operation; operations run one after the other.
        providers: Execution providers, the best first.
        prepack: Let kernels rewrite weights into their own layout: faster, and a second copy of what is not
            mapped.

    Raises:
        BadDataError: There is no such file.
        EngineError: The engine would not load it.
        MissingPackageError: onnxruntime is not installed.
        RefusedError: This build of the engine has no such provider.
    """

    def __init__(
        self, path: Path, *, thread_count: int = 1, providers: Sequence[str] = CPU, prepack: bool = True
    ) -> None:
        ort = runtime()
        available = ort.get_available_providers()
        if missing := [name for name in providers if name not in available]:
            raise RefusedError(f"this onnxruntime has no {missing[0]}; it has {', '.join(available)}")
        if not path.is_file():
            raise BadDataError(path, "", "no such file", "an ONNX model")
        self.path = path
        options = ort.SessionOptions()
        options.intra_op_num_threads = thread_count
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_prepacking", "0" if prepack else "1")
        try:
            self.raw = ort.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:
            raise EngineError(f"ONNX Runtime would not load {path.name}: {_first_line(error)}") from error
        if dropped := [name for name in providers if name not in self.raw.get_providers()]:
            raise EngineError(
                f"ONNX Runtime fell back without {dropped[0]}: its libraries or its device are missing"
            )
        self.input_names = tuple(port.name for port in self.raw.get_inputs())

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        """Outputs (all unless named) as arrays; EngineError where a shape or a type does not suit the graph.

        Names in ``feeds`` that the graph does not know are left out.
        """
        known = {name: value for name, value in feeds.items() if name in self.input_names}
        try:
            arrays: list[Any] = self.raw.run(outputs, known)
        except Exception as error:
            raise EngineError(f"ONNX Runtime could not run {self.path.name}: {_first_line(error)}") from error
        return arrays

    def close(self) -> None:
        """Free the engine's session; safe to call twice."""
        self.raw = None

    def __exit__(self, *_: object) -> None:
        self.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
