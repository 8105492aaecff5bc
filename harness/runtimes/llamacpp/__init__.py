"""llama.cpp through the low-level functions of llama-cpp-python; nothing here imports the engine before it is used."""

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.domain.record import EngineIdentity
from harness.domain.scenario import Scenario
from harness.errors import MissingPackageError
from harness.runtimes._threads import default_thread_count

if TYPE_CHECKING:
    from harness.runtimes.llamacpp.session import LlamaSession


class LlamaCpp:
    """The llama.cpp runtime."""

    name = "llamacpp"
    formats = ("gguf",)

    def missing(self) -> str | None:
        """Why it cannot be used here; None when it can."""
        return None if find_spec("llama_cpp") else str(MissingPackageError("llama-cpp-python", "llama"))

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Version, instruction sets compiled in, and the options a run of ``scenario`` uses."""
        from harness.runtimes.llamacpp.library import library

        found = f"{library().llama_version().decode()} (llama-cpp-python {version('llama-cpp-python')})"
        return self._described("llama.cpp", found, library(), scenario)

    def _described(self, name: str, version: str, library: Any, scenario: Scenario) -> EngineIdentity:
        return EngineIdentity(
            name=name,
            version=version,
            build=library.llama_print_system_info().decode("utf-8", "replace").strip(" |\n"),
            thread_count=scenario.thread_count or default_thread_count(),
            options={
                "context_tokens": scenario.context_tokens,
                "ubatch_tokens": scenario.ubatch_tokens,
                "kv_type": scenario.kv_type,
                "flash_attention": scenario.flash_attention,
                "repack": scenario.repack,
                "mmap": scenario.mmap,
                "sequences": scenario.batch_count,
            },
        )

    def mirror_log(self, write: Callable[[str], object]) -> None:
        """Hand every further line of the engine's log to ``write`` as well."""
        from harness.runtimes.llamacpp.library import ENGINE_LOG

        ENGINE_LOG.mirror = write

    def open(self, path: Path, scenario: Scenario, **options: Any) -> "LlamaSession":
        """Load a model; options and errors are those of :class:`~harness.runtimes.llamacpp.session.LlamaSession`."""
        from harness.runtimes.llamacpp.session import LlamaSession

        return LlamaSession(path, scenario, **options)


RUNTIME = LlamaCpp()
