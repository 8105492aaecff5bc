"""What ends llama.cpp's process is refused before it does; the shapes are those that an AMX machine aborted on."""

import ctypes
from pathlib import Path
from typing import Any

import pytest

from bench.made_models import synthesize
from bench.memory_conformance import KINDS
from harness.core.errors import RefusedError
from harness.core.result import EngineBuffer
from harness.core.scenario import Scenario
from harness.models.weights import weights_of
from harness.runtimes.llamacpp import session as session_module
from harness.runtimes.llamacpp.library import library
from harness.runtimes.llamacpp.session import LlamaSession, would_abort

LATENT = {"general.architecture": "deepseek2", "deepseek2.attention.key_length_mla": "192"}


class Header:
    """A loaded model's header, as the library tells it."""

    def __init__(self, keys: dict[str, str]) -> None:
        self.keys = keys

    def llama_model_meta_val_str(self, _model: Any, key: bytes, out: Any, room: int) -> int:
        """Length of a value, written into ``out``; -1 where the header has no such key."""
        value = self.keys.get(key.decode())
        if value is None:
            return -1
        ctypes.memmove(out, value.encode() + b"\0", min(room, len(value) + 1))
        return len(value)


@pytest.mark.parametrize(
    ("keys", "device", "aborts"),
    [
        pytest.param(LATENT, "AMX", True, id="latent attention on AMX"),
        pytest.param(LATENT, "CPU_REPACK", False, id="latent attention elsewhere"),
        pytest.param({"general.architecture": "llama"}, "AMX", False, id="any other model on AMX"),
        pytest.param({}, "AMX", False, id="no header"),
    ],
)
def test_what_aborts(keys: dict[str, str], device: str, aborts: bool) -> None:
    laid = [EngineBuffer(device=device, part="weights", size_bytes=1)]
    assert would_abort(Header(keys), 1, laid) is aborts  # type: ignore[arg-type]


@pytest.mark.engine
@pytest.mark.parametrize(
    ("kind", "refused"),
    [("latent and experts: deepseek2", True), ("latent: minicpm3", False), ("full: llama", False)],
)
def test_a_real_header_says_it(kind: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    library()
    path = synthesize(weights_of(KINDS[kind], "Q4_0"), tmp_path / "tiny.gguf")
    on_amx = (EngineBuffer(device="AMX", part="weights", size_bytes=1),)
    monkeypatch.setattr(session_module, "buffers", lambda _lines: on_amx)
    scenario = Scenario(context_tokens=256, thread_count=1, repack=False)
    if refused:
        with pytest.raises(RefusedError, match="without repack"):
            LlamaSession(path, scenario, batch_tokens=32)
    else:
        LlamaSession(path, scenario, batch_tokens=32).close()
