"""llama.cpp's functions by whichever package brings them: the same structures, the same tokens, one clear refusal."""

import ctypes
import sys
from pathlib import Path

import pytest

from harness.core.errors import EngineError, MissingPackageError
from harness.core.scenario import Scenario
from harness.measure.probe.tiny_model import tiny_shape, write_tiny
from harness.runtimes.llamacpp import library as binding
from harness.runtimes.llamacpp.loaded_devices import devices
from harness.runtimes.llamacpp.session import LlamaSession
from harness.runtimes.xllamacpp import RUNTIME

PACKAGES = [name for name in ("llama_cpp", "xllamacpp") if name in binding.installed()]
each = pytest.mark.parametrize("module", PACKAGES)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ModelParams", "llama_model_params"),
        ("ContextParams", "llama_context_params"),
        ("Batch", "llama_batch"),
        ("QuantizeParams", "llama_model_quantize_params"),
        ("ImportanceData", "llama_model_imatrix_data"),
    ],
)
def test_structures_are_those_of_llama_cpp_python(ours: str, theirs: str) -> None:
    reference = getattr(pytest.importorskip("llama_cpp.llama_cpp"), theirs)

    def layout(kind: type[ctypes.Structure]) -> list[tuple[str, int, int]]:
        return [(name, getattr(kind, name).offset, getattr(kind, name).size) for name, *_ in kind._fields_]

    kind = binding._KINDS[ours]
    assert layout(kind) == layout(reference)
    assert ctypes.sizeof(kind) == ctypes.sizeof(reference)


@pytest.mark.engine
@each
def test_each_package_s_library_opens_and_sees_the_cpu(module: str) -> None:
    lib = binding.library(module)
    assert lib.brought_by.startswith(binding.PACKAGES[module][0])
    assert [device.kind for device in devices(lib)].count("cpu") == 1
    assert lib.llama_max_devices() >= 1


@pytest.mark.engine
@pytest.mark.skipif(len(PACKAGES) < 2, reason="one package alone brings llama.cpp here")
def test_both_packages_give_the_same_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny(path, tiny_shape(3, 256, 512, 4, 2), "Q8_0")

    def greedy(module: str) -> list[int]:
        scenario = Scenario(context_tokens=128, thread_count=1)
        with LlamaSession(path, scenario, batch_tokens=32, lib=binding.library(module)) as session:
            session.decode([1, 7, 3, 9], position=0)
            tokens = [int(session.logits().argmax())]
            for position in range(4, 24):
                session.decode(tokens[-1:], position=position)
                tokens.append(int(session.logits().argmax()))
            return tokens

    first, second = map(greedy, PACKAGES)
    assert first == second


@pytest.mark.engine
def test_a_library_of_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if not PACKAGES:
        pytest.skip("no package brings llama.cpp here")
    monkeypatch.setitem(binding._INTERFACE, "defaults", {"llama_context_default_params": {"2048": "n_ctx"}})
    with pytest.raises(EngineError, match=r"of a newer one has another layout .* n_ctx = 512, expected 2048"):
        binding.Library(binding.installed()[PACKAGES[0]], "a newer one")


@pytest.mark.engine
@pytest.mark.skipif("xllamacpp" not in PACKAGES, reason="xllamacpp is not installed")
def test_what_a_build_leaves_out_is_named() -> None:
    with pytest.raises(EngineError, match="llama_model_quantize_default_params; that of llama-cpp-python has"):
        binding.library("xllamacpp").llama_model_quantize_default_params()


def test_a_folder_that_is_named_is_taken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suffix = {"darwin": "libllama.dylib", "win32": "llama.dll"}.get(sys.platform, "libllama.so")
    (tmp_path / suffix).write_bytes(b"no library")
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    assert next(iter(binding.installed())) == ""
    assert binding.brought_by() == str(tmp_path / suffix)
    with pytest.raises(EngineError, match="cannot be loaded"):
        binding.Library(tmp_path / suffix, "a file")


def test_without_any_package_the_one_that_needs_no_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "installed", dict)
    with pytest.raises(MissingPackageError, match=r"\.\[xllamacpp\]"):
        binding.brought_by()
    assert ".[xllamacpp]" in (RUNTIME.missing() or "")
