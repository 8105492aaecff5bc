"""Plug-ins are found by their name; a name of ours cannot be taken."""

import importlib.metadata
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from harness.core import plugins
from harness.core.errors import UnknownNameError


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def found(*, group: str, name: str = "") -> list[SimpleNamespace]:
        assert group == "edge_harness.runtimes"

        def runtime(name: str) -> SimpleNamespace:
            return SimpleNamespace(name=f"their {name}", missing=str, identity=str, open=str)

        theirs = [SimpleNamespace(name=n, value=n, load=lambda n=n: runtime(n)) for n in ("ort", "mine")]
        return [e for e in theirs if not name or e.name == name]

    monkeypatch.setattr(importlib.metadata, "entry_points", found)
    plugins._entries.cache_clear()
    yield
    plugins._entries.cache_clear()


@pytest.mark.usefixtures("entries")
def test_names_and_loading() -> None:
    assert {"llamacpp", "mine", "ort"} <= set(plugins.names("harness.runtimes"))
    assert plugins.load("harness.runtimes", "mine", "RUNTIME").name == "their mine"
    assert plugins.load("harness.runtimes", "ort", "RUNTIME").name == "ort"
    with pytest.raises(UnknownNameError, match="Did you mean 'mine'"):
        plugins.load("harness.runtimes", "min", "RUNTIME")
    with pytest.raises(UnknownNameError):
        plugins.load("harness.runtimes", "_rows", "RUNTIME")


def test_an_installed_plug_in_is_found() -> None:
    assert "fake" in plugins.names("harness.runtimes"), "by the entry point in tests/plugins"
    assert plugins.load("harness.runtimes", "fake", "RUNTIME").name == "fake"
