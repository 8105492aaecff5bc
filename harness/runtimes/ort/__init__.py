"""ONNX decoders by ONNX Runtime; nothing here imports the engine before it is used."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.domain.record import EngineIdentity
from harness.domain.scenario import Scenario
from harness.plugins import Packaged
from harness.runtimes._threads import default_thread_count

if TYPE_CHECKING:
    from harness.runtimes.ort.session import OrtSession


class Ort(Packaged):
    """The ONNX Runtime."""

    name = "ort"
    formats = ("onnx",)
    needs = tuple((module, module, "onnx") for module in ("onnxruntime", "tokenizers"))

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Version, providers and the options a run of ``scenario`` uses."""
        from harness.onnx.session import providers_for, runtime

        ort = runtime()
        return EngineIdentity(
            name="onnxruntime",
            version=str(ort.__version__),
            build=str(ort.get_build_info()).removeprefix("ORT Build Info: "),
            thread_count=scenario.thread_count or default_thread_count(),
            options={
                "context_tokens": scenario.context_tokens,
                "ubatch_tokens": scenario.ubatch_tokens,
                "repack": scenario.repack,
                "providers": list(providers_for(scenario.api)),
            },
        )

    def open(self, path: Path, scenario: Scenario) -> "OrtSession":
        """Load a model; errors are those of :class:`~harness.runtimes.ort.session.OrtSession`."""
        from harness.runtimes.ort.session import OrtSession

        return OrtSession(path, scenario)


RUNTIME = Ort()
