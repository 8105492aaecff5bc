"""Texts to read activations from: the one that ships, those of a folder, and more that the interpreter itself brings.

What the interpreter brings (PSF licence) is read where it lies and never copied: the topics of its language reference
and the documentation strings of its library.
"""

import ast
import sysconfig
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from harness.domain.base import shipped_table
from harness.errors import RefusedError

_TELLING_CHARS: Final = 30  # shorter lines (braces, headings) occur everywhere
_SHARED_RATIO: Final = 1 / 20
_LEAST_CHARS: Final = 300  # a documentation string of less is mostly a signature in words
_STRAIGHT: Final = str.maketrans("\u2018\u2019\u201c\u201d\u2014\u2013", "''\"\"--")


_FOLDER: Final = Path(__file__).parents[2] / "data" / "text"


def shipped_text() -> str:
    """The text that ships with the harness: parts of the Python language reference."""
    return (_FOLDER / "python-reference.txt").read_text(encoding="utf-8")


def text_table(name: str) -> dict[str, Any]:
    """Words or sentences that ship with the harness: ``english``, ``made-up``, ``entailment`` ..."""
    return shipped_table(f"data/text/{name}.toml")


def texts_of(folder: Path) -> list[str]:
    """Every ``.txt`` and ``.md`` file under a folder, by name; RefusedError where there is none."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix in {".txt", ".md"})
    if not paths:
        raise RefusedError(f"{folder}: no .txt or .md files")
    return [p.read_text(encoding="utf-8", errors="replace") for p in paths]


def split_text(text: str, held_out_share: float = 0.1) -> tuple[str, str]:
    """(training part, later part), cut at the end of a line."""
    cut = text.rfind("\n", 0, int(len(text) * (1 - held_out_share))) + 1
    return text[:cut], text[cut:]


def further_text(known: Iterable[str], *, shipped: bool = False) -> str:
    """What the interpreter brings beyond the known texts, the language reference first, the library's words after it.

    With ``shipped`` the text that ships comes before both.

    A piece that shares more than a twentieth of its telling lines (30 characters or more) with a known text is left
    out, and so is every shared line of the others: what is held out of a known text is in none of them. Pieces that
    repeat others come once. The library's pieces come in an order of their own, so that the first ones are of all
    kinds.
    """
    from pydoc_data.topics import topics

    reference = sorted(topics.values(), key=lambda t: (-len(t), t))  # the longest first, since others repeat parts
    lines_known = {line.strip() for text in known for line in text.translate(_STRAIGHT).splitlines()} - {""}
    seen: set[str] = set()
    parts = []
    for piece in (*([shipped_text()] if shipped else []), *reference, *_library()):
        lines = piece.translate(_STRAIGHT).splitlines()
        own = {line.strip() for line in lines if len(line.strip()) >= _TELLING_CHARS}
        most = len(own) * _SHARED_RATIO
        if not own or len(own & lines_known) > most or len(own & seen) > most:
            continue
        seen |= own
        parts.append("\n".join(x for x in lines if x.strip() not in lines_known or len(x.strip()) < _TELLING_CHARS))
    return "\n\n".join(parts)


@cache
def _library() -> list[str]:
    """Documentation strings of the standard library; none where an installation has no sources."""
    root, left_out = Path(sysconfig.get_path("stdlib")), {"site-packages", "dist-packages", "test", "tests", "idlelib"}
    paths = (path for path in root.rglob("*.py") if not left_out & set(path.relative_to(root).parts))
    found = [doc for path in paths for doc in _documentation(path)]
    return sorted(found, key=lambda doc: sha256(doc.encode("utf-8", "replace")).digest())


def _documentation(path: Path) -> list[str]:
    """Documentation strings of a file that are long enough to say something."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return [doc for doc in found if doc and len(doc) >= _LEAST_CHARS]
