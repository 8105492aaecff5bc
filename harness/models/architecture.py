"""What is known of an architecture beyond what a model's file says: one line each in ``data/architectures.toml``."""

from pathlib import Path
from typing import Any, Final

from harness.core.base import Frozen
from harness.core.errors import BadDataError
from harness.core.foreign import typed
from harness.core.tables import shipped_table

_FILE: Final = Path("data/architectures.toml")


class Architecture(Frozen):
    """One architecture.

    Attributes:
        like: Another whose words hold too.
        has: Words that hold, of those that the file declares.
        config: Its names in config.json, with spaces between them.
        global_step: Every so manyth layer is global; 0 for a model without a window.
        window_tokens: The window of the other layers, where a file does not tell it.
        recurrent: The table of keys of its recurrent layers.
        with_experts: The architecture that it is with experts.
    """

    like: str = ""
    has: str = ""
    config: str = ""
    global_step: int = 0
    window_tokens: int = 0
    recurrent: str = ""
    with_experts: str = ""


class _ArchitectureTable(Frozen):
    words: dict[str, str]
    architectures: dict[str, Architecture]


def _read(document: dict[str, Any]) -> _ArchitectureTable:
    """The table, with the words of those that an architecture is like.

    Raises:
        BadDataError: A word is not declared, or there is no such architecture.
    """
    table = typed(document, _ArchitectureTable, _FILE)
    found: dict[str, Architecture] = {}
    for name, one in table.architectures.items():
        for other in (one.like, one.with_experts):
            if other and other not in table.architectures:
                raise BadDataError(_FILE, name, other, "the name of an architecture in this file")
        words = one.has.split()
        like = one.like
        while like:
            words += table.architectures[like].has.split()
            like = table.architectures[like].like
        for word in words:
            if word not in table.words:
                raise BadDataError(_FILE, f"{name}.has", word, "a word that [words] declares")
        found[name] = one.replace(has=" ".join(words))
    return table.replace(architectures=found)


def read_architectures() -> _ArchitectureTable:
    """``data/architectures.toml``.

    Raises:
        BadDataError: A word that is not declared, or an architecture that there is not.
    """
    return _read(shipped_table(str(_FILE)))


_TABLE: Final = read_architectures()
WORDS: Final = frozenset(_TABLE.words)
ARCHITECTURES: Final = _TABLE.architectures
"""All whose tensors are known."""
OF_CONFIG: Final = {text: name for name, one in ARCHITECTURES.items() for text in one.config.split()}
"""By the names in config.json."""
_HAS: Final = {name: frozenset(one.has.split()) for name, one in ARCHITECTURES.items()}


def architecture_named(name: str) -> Architecture:
    """What is known of an architecture; nothing of a stranger's."""
    return ARCHITECTURES.get(name, Architecture())


def has(name: str, word: str) -> bool:
    """Whether a word holds for an architecture; KeyError for one that is not declared."""
    if word not in WORDS:
        raise KeyError(word)
    return word in _HAS.get(name, frozenset())
