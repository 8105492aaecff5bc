"""Wrongly typed plug-ins of every group: each is named with what was found and expected, and the rest goes on."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cli import main
from harness.core import plugins
from harness.core.errors import EngineError

KEPT = Path(__file__).parents[2] / "records" / "v2-smollm2-135m.json"


def boom(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("wrong by purpose")


def runtime(**fields: Any) -> SimpleNamespace:
    whole = {"name": "bad", "missing": lambda: None, "identity": boom, "open": boom} | fields
    return SimpleNamespace(**{key: value for key, value in whole.items() if value is not Ellipsis})


def system(**fields: Any) -> SimpleNamespace:
    whole: dict[str, Any] = {"name": "bad", "title": "Bad", "kinds": (int,), "sizes": {"default": {}}}
    whole |= {"cases": boom, "step": boom, "score": boom} | fields
    return SimpleNamespace(**{key: value for key, value in whole.items() if value is not Ellipsis})


class Broken:
    """Its name breaks when it is read."""

    missing = identity = open = main = invoke = cases = step = score = staticmethod(boom)
    params: list[Any] = []
    title = "Broken"
    kinds = (int,)
    sizes: dict[str, Any] = {"default": {}}

    @property
    def name(self) -> str:
        return str(boom())


PLAIN: dict[str, Any] = {
    "None": None, "a number": 5, "a text": "x", "bytes": b"x", "a list": [], "a table": {}, "an object": object(),
    "a class": Broken, "a broken property": Broken(),
}  # fmt: skip
WRONG: dict[str, dict[str, Any]] = {
    "runtimes": PLAIN
    | {
        "no name": runtime(name=...), "name is a number": runtime(name=5), "empty name": runtime(name=" "),
        "no missing": runtime(missing=...), "missing is a text": runtime(missing="no"),
        "missing gives a number": runtime(missing=lambda: 5), "missing gives True": runtime(missing=lambda: True),
        "missing gives nothing": runtime(missing=lambda: ""), "missing breaks": runtime(missing=boom),
        "missing takes more": runtime(missing=lambda one: None), "no identity": runtime(identity=...),
        "identity is a table": runtime(identity={}), "no open": runtime(open=...), "open is a path": runtime(open="x"),
        "formats is a text": runtime(formats="gguf"), "formats is a list": runtime(formats=["gguf"]),
        "formats of numbers": runtime(formats=(1,)), "entry is a number": runtime(entry=5),
        "entry without a colon": runtime(entry="module.function"), "package is a text": runtime(package="x 1"),
    },
    "verbs": PLAIN
    | {
        "a function": boom, "no main": SimpleNamespace(name="bad", params=[], invoke=boom),
        "params is None": SimpleNamespace(name="bad", params=None, main=boom, invoke=boom),
        "looks like one": SimpleNamespace(name="bad", params=[], main=boom, invoke=boom),
    },
    "workloads": PLAIN
    | {
        "no title": system(title=...), "kinds is a list": system(kinds=[int]), "no kinds": system(kinds=()),
        "no default size": system(sizes={}), "sizes is a list": system(sizes=[]), "step is a number": system(step=5),
        "no score": system(score=...), "no subclass": system(),
    },
    "companions": {name: wrong for name, wrong in PLAIN.items() if not callable(wrong)}
    | {
        "it breaks": boom, "gives None": lambda: None, "gives three": lambda: ([], boom, 1),
        "gives numbers": lambda: ([5], boom), "gives a text": lambda: ("bad", boom),
        "makes nothing": lambda: (["bad"], 5), "its maker breaks": lambda: (["bad"], boom),
        "its maker gives None": lambda: (["bad"], lambda *_: None),
        "takes something": lambda one: ([], boom),
    },
    "panels": {name: wrong for name, wrong in PLAIN.items() if not callable(wrong)}
    | {
        "it breaks": boom, "gives a text": lambda record: "x", "gives a number": lambda record: 5,
        "gives a table": lambda record: {"title": "x"}, "takes nothing": lambda: None,
    },
}  # fmt: skip
"""By group, what an installed package may declare in place of what the group promises."""
COMMANDS: dict[str, list[list[str]]] = {
    "runtimes": [],  # a run asks the machine first: one is enough, below
    "verbs": [["--help"], ["bad"]],
    "workloads": [["workloads", "run", "bad"]],
    "companions": [["fit", "smollm2-135m", "-d", "raspberry-pi-5", "--with", "bad"]],
    "panels": [["report", str(KEPT), "-o", "page.html"]],
}
CASES = [(group, name) for group, wrong in WRONG.items() for name in wrong]


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str, Any], None]]:
    real = importlib.metadata.entry_points

    def declare(group: str, wrong: Any) -> None:
        def entry_points(**asked: str) -> Any:
            theirs = [SimpleNamespace(name="bad", value="theirs:BAD", module="theirs", load=lambda: wrong)]
            return [*real(**asked), *(theirs if asked.get("group") == f"edge_harness.{group}" else [])]

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
        plugins._entries.cache_clear()

    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield declare
    plugins._entries.cache_clear()


def test_there_are_as_many_as_were_tried() -> None:
    assert len(CASES) >= 68


@pytest.mark.parametrize("words", [["--help"], ["gate", "--help"], ["models", "show", "smollm2-135m"]])
def test_without_docstrings_the_verbs_work(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words],
        check=False,
        env=os.environ | {"PYTHONOPTIMIZE": "2"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("group", "name"), CASES, ids=[f"{group}: {name}" for group, name in CASES])
def test_a_wrong_plug_in_is_named_and_nothing_is_unforeseen(
    group: str,
    name: str,
    declared: Callable[[str, Any], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    declared(group, WRONG[group][name])
    if group == "runtimes":
        with pytest.raises(EngineError, match=r"runtime 'bad'.*(found|broken|wrong by purpose)"):
            plugins.usable_runtime("bad")
    for words in COMMANDS[group]:
        monkeypatch.setattr("sys.argv", ["edge-harness", *words])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capfd.readouterr()
        said = printed.out + printed.err
        assert "nobody foresaw" not in said and "the traceback is in" not in said
        if group == "panels":
            assert (end.value.code == 0 and "left out" in said) or "expected" in said
        elif words != ["--help"]:
            assert end.value.code and ("bad" in said or "expected" in said)
