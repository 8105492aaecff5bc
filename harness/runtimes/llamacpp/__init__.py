"""llama.cpp through the low-level functions of llama-cpp-python; nothing here imports the engine before it is used."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.domain.record import EngineIdentity
from harness.domain.scenario import Scenario
from harness.plugins import Packaged
from harness.runtimes._threads import default_thread_count

if TYPE_CHECKING:
    from harness.runtimes.llamacpp.session import LlamaSession


_OPTIONS: Final = ("context_tokens", "ubatch_tokens", "kv_type", "flash_attention", "repack", "mmap")


class LlamaCpp(Packaged):
    """The llama.cpp runtime."""

    name = "llamacpp"
    formats = ("gguf",)
    needs = (("llama_cpp", "llama-cpp-python", "llama"),)

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
            options={name: getattr(scenario, name) for name in _OPTIONS} | {"sequences": scenario.batch_count},
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
