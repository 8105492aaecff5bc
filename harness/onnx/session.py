"""ONNX Runtime sessions whose settings are known: providers, threads, prepacking, profiling.

Weights in an external file are mapped by the engine; with ``prepack=False`` they stay mapped and are computed from as
they are (measured: 501 MB instead of 769 MB for an inline model of 428 MB, at 0.7 of the speed).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from harness.errors import BadDataError, EngineError, MissingPackageError, RefusedError

CPU: Final = ("CPUExecutionProvider",)


def runtime() -> Any:
    """The package ``onnxruntime`` (MissingPackageError where it is not installed)."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError("onnxruntime", "onnx") from error
    return onnxruntime


class OnnxSession:
    """One loaded graph; BadDataError where there is no such file, EngineError where the engine would not load it.

    MissingPackageError where onnxruntime is not installed, RefusedError where this build has no such provider.

    Args:
        path: ONNX file.
        thread_count: Threads inside one operation; operations run one after the other.
        providers: Execution providers, the best first.
        provider_options: Options by provider's name, such as ``{"OpenVINOExecutionProvider": {"device_type": "CPU"}}``.
        prepack: Let kernels rewrite weights into their own layout: faster, and a second copy of what is not mapped.
        profile: Prefix of a profile of the file's own nodes, for ``providers.node_events``: the engine then merges and
            reorders none. Never inside timed rounds.
    """

    def __init__(
        self,
        path: Path,
        *,
        thread_count: int = 1,
        providers: Sequence[str] = CPU,
        provider_options: Mapping[str, Mapping[str, str]] | None = None,
        prepack: bool = True,
        profile: Path | None = None,
    ) -> None:
        ort = runtime()
        there = ort.get_available_providers()
        if missing := [p for p in providers if p not in there]:
            raise RefusedError(f"this onnxruntime has no {missing[0]}; it has {', '.join(there)}")
        given = provider_options or {}
        if unused := [p for p in given if p not in providers]:
            raise RefusedError(f"options of {unused[0]}, which is not among the providers {', '.join(providers)}")
        if not path.is_file():
            raise BadDataError(path, "", "no such file", "an ONNX model")
        options = ort.SessionOptions()
        options.intra_op_num_threads = thread_count
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_prepacking", "0" if prepack else "1")
        if profile is not None:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        try:
            self.raw = ort.InferenceSession(
                str(path), options, providers=[(p, dict(given.get(p, {}))) for p in providers]
            )
        except Exception as error:
            raise EngineError(f"ONNX Runtime would not load {path.name}: {_first_line(error)}") from error
        if dropped := [p for p in providers if p not in self.raw.get_providers()]:
            raise EngineError(f"ONNX Runtime fell back without {dropped[0]}: its libraries or its device are missing")
        self.path = path
        self.thread_count = thread_count
        self.prepack = prepack
        self.input_names = tuple(i.name for i in self.raw.get_inputs())

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        """Outputs (all unless named) as arrays; EngineError where a shape or a type does not suit the graph.

        Names in ``feeds`` that the graph does not know are left out.
        """
        known = {name: value for name, value in feeds.items() if name in self.input_names}
        try:
            found: list[Any] = self.raw.run(outputs, known)
        except Exception as error:
            raise EngineError(f"ONNX Runtime could not run {self.path.name}: {_first_line(error)}") from error
        return found

    def identity(self) -> dict[str, Any]:
        """Engine version, providers in use, threads, prepacking and what the weights are: JSON values."""
        from harness.onnx.files import quantization
        from harness.onnx.graph import read_graph

        return {
            "engine": f"onnxruntime {runtime().__version__}",
            "providers": list(self.raw.get_providers()),
            "thread_count": self.thread_count,
            "prepack": self.prepack,
            "quantization": quantization(read_graph(self.path)),
        }

    def close(self) -> None:
        """Free the engine's session; safe to call twice."""
        self.raw = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
