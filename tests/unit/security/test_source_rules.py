"""What the product's source may not do at all; read from its syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
RENDERS = {"harness/show/html.py"}
"""The one file that may import the template engine: it renders our own page."""
NEVER_IMPORTED = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "joblib", "telnetlib"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "commands.getoutput"}


def name_of(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def offences(source: str, place: str) -> list[str]:
    tree = ast.parse(source)
    found = [f"imports {name}" for name in imported(tree) if name.partition(".")[0] in NEVER_IMPORTED]
    if place not in RENDERS:
        found += [f"imports {name}" for name in imported(tree) if name.partition(".")[0] in {"jinja2", "mako"}]
    found += [f"imports {name}" for name in imported(tree) if name == "llama_cpp.llama_chat_format"]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        keywords = {w.arg: w.value.value for w in node.keywords if isinstance(w.value, ast.Constant)}
        if name in NEVER_CALLED and not (name == "torch.load" and keywords.get("weights_only") is True):
            found.append(f"calls {name}")
        for word in node.keywords:
            value = word.value.value if isinstance(word.value, ast.Constant) else None
            if word.arg == "shell" and value is not False:
                found.append(f"{name}(shell=...)")
            if word.arg in {"allow_pickle", "trust_remote_code"} and value is not False:
                found.append(f"{name}({word.arg}=...)")
            if word.arg == "autoescape" and value is not True:
                found.append(f"{name}(autoescape=...)")
            if word.arg == "known_hosts" and value is None and isinstance(word.value, ast.Constant):
                found.append(f"{name}(known_hosts=None)")
        if name.rpartition(".")[2] == "Environment" and not any(word.arg == "autoescape" for word in node.keywords):
            found.append(f"{name} without autoescape")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_foreign_is_ever_executed(path: Path) -> None:
    assert offences(path.read_text(), path.relative_to(ROOT.parent).as_posix()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "eval('1')",
        "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=flag)",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "import jinja2",
        "import llama_cpp.llama_chat_format",
        "from jinja2 import Environment\nEnvironment()",
        "asyncssh.connect('h', known_hosts=None)",
        "load(x, trust_remote_code=True)",
    ],
)
def test_the_rule_sees_each_offence(source: str) -> None:
    assert offences(source, "harness/other.py")


def test_the_page_escapes_by_itself() -> None:
    """The one environment there is has autoescape on: the source says so, and so does the engine that it makes."""
    pytest.importorskip("jinja2")
    source = (ROOT / "show" / "html.py").read_text()
    assert "autoescape=True" in source
    assert offences(source, "harness/show/html.py") == []
