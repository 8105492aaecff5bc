"""llama.cpp through its C functions, in this process; nothing here loads the engine before it is used."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.core.errors import MissingPackageError
from harness.core.record import EngineIdentity
from harness.core.scenario import Scenario
from harness.hardware.threads import default_thread_count
from harness.runtimes.llamacpp import library

if TYPE_CHECKING:
    from harness.core.ports import Tap
    from harness.runtimes.llamacpp.session import EvalHook, LlamaSession


_OPTIONS: Final = ("context_tokens", "ubatch_tokens", "kv_type", "flash_attention", "repack", "mmap")


class LlamaCpp:
    """The llama.cpp runtime, by the library that was compiled for this machine or else a prebuilt one.

    The module ``library`` says in which order the libraries are tried.
    """

    name = "llamacpp"
    formats = ("gguf",)
    module = ""
    """Whose library it is; empty for the first there is."""

    def missing(self) -> str | None:
        """Why it cannot be used here; None when it can."""
        if self.module in (libraries := library.installed()) or (libraries and not self.module):
            return None
        return str(MissingPackageError(*library.PACKAGES[self.module or "xllamacpp"]))

    def library(self) -> Any:
        """The loaded library."""
        return library.library(self.module)

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Version, instruction sets compiled in, and the options a run of ``scenario`` uses."""
        version = f"{self.library().llama_version().decode()} ({self.package()})"
        return self._described("llama.cpp", version, self.library(), scenario)

    def package(self) -> str:
        """The package that brings it, with its version; MissingPackageError where there is none."""
        return library.brought_by(self.module)

    def _described(self, name: str, version: str, lib: Any, scenario: Scenario) -> EngineIdentity:
        return EngineIdentity(
            name=name,
            version=version,
            build=lib.llama_print_system_info().decode("utf-8", "replace").strip(" |\n"),
            variant=lib.variant,
            thread_count=scenario.thread_count or default_thread_count(),
            options={name: getattr(scenario, name) for name in _OPTIONS}
            | {"sequences": scenario.batch_count},
        )

    def mirror_log(self, write: Callable[[str], object]) -> None:
        """Hand every further line of the engine's log to ``write`` as well."""
        library.ENGINE_LOG.mirror = write

    def open(
        self,
        path: Path,
        scenario: Scenario,
        *,
        batch_tokens: int = 2048,
        tap: "Tap | None" = None,
        eval_hook: "EvalHook | None" = None,
    ) -> "LlamaSession":
        """Load a model; options and errors are those of :class:`~harness.runtimes.llamacpp.session.LlamaSession`."""
        from harness.runtimes.llamacpp.session import LlamaSession

        lib = self.library()
        return LlamaSession(path, scenario, lib=lib, batch_tokens=batch_tokens, tap=tap, eval_hook=eval_hook)


RUNTIME = LlamaCpp()
