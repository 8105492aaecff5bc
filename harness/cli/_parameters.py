"""Arguments and options of a verb, from the table beside its module: ``run.toml`` beside ``run.py``.

A table has a list for each function that is a verb. A row is an argument (``argument``, its name) or an option
(``flags``); a row with ``shared`` names options of ``_shared.toml``, which every verb that takes them words alike, and
its other keys replace theirs. The kind of a value is one key of :data:`KINDS` with its bounds; what click itself takes
(``default``, ``help``, ``metavar``, ``multiple``, ...) is passed on.

Amounts are written as people write them in all verbs: ``128k`` tokens, ``1.5GiB``, ``0,2048`` for several.
"""

import math
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from harness.units import parse_bytes

if TYPE_CHECKING:
    from harness.domain.placement import Placement

MOST_TOKENS: Final = 1 << 24
"""No model has a context of more; a number above is a slip of the keyboard."""
PARTS: Final = ("flash-attention", "repack", "mmap")


class Ending(click.Path):
    """A file to be written, in the format of its ending: told before anything is measured for it."""

    def __init__(self, *endings: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error says what was found and expected."""
        if Path(value).suffix.lower() not in self.endings:
            self.fail(f"found {str(value)!r}, expected an ending of {', '.join(self.endings)}", param, ctx)
        return super().convert(value, param, ctx)


class Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """A size in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of the text; a usage error says what was found and expected."""
        try:
            return value if isinstance(value, int) else parse_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Count(click.ParamType):  # type: ignore[type-arg]
    """A whole number from ``least`` to ``most``, ``k`` and ``m`` stand for 1,024 and 1,048,576; or one of ``words``."""

    name = "count"

    def __init__(self, least: int, most: int = MOST_TOKENS, **words: Any) -> None:
        self.least, self.most, self.words = least, most, words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or what the word stands for; a usage error says what was found and expected."""
        if value in self.words:
            return self.words[value]
        try:
            found = whole(value) if isinstance(value, str) else int(value)
        except ValueError:
            self.fail(f"found {value!r}, expected a whole number such as 4096 or 128k", param, ctx)
        if not self.least <= found <= self.most:
            words = "".join(f", or {word}" for word in self.words)
            self.fail(f"found {value}, expected {self.least:,} to {self.most:,}{words}", param, ctx)
        return found


class Amount(click.ParamType):  # type: ignore[type-arg]
    """A finite number above ``above`` and at most ``most``; with ``or_zero`` also 0."""

    name = "number"

    def __init__(self, above: float = 0.0, most: float = 1e9, *, or_zero: bool = False) -> None:
        self.above, self.most, self.or_zero = above, most, or_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; a usage error says what was found and expected."""
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not self.above < found <= self.most and not (self.or_zero and found == 0):
            self.fail(f"found {value!r}, expected a number above {self.above:g}, at most {self.most:g}", param, ctx)
        return found


def whole(text: str) -> int:
    """A whole number with an optional ``k`` or ``m``; ValueError where it is none."""
    match = re.fullmatch(r"(-?[0-9]+)([km]?)", text.strip().lower())
    if match is None:
        raise ValueError(text)
    return int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2]]


def numbers(*bounds: Any, kind: type[Count | Amount] = Count) -> Callable[..., tuple[Any, ...]]:
    """Callback that reads numbers separated by commas, each within the bounds of its kind."""
    one = kind(*bounds)

    def read(context: click.Context, option: click.Parameter, text: str | None) -> tuple[Any, ...]:
        parts = text.split(",") if text else ()
        return tuple(dict.fromkeys(one.convert(part, option, context) for part in parts))

    return read


def words(_context: click.Context, option: click.Parameter, text: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Callback that reads words separated by commas, of an option that may be repeated or not."""
    texts = text if isinstance(text, tuple) else (text,)
    found = tuple(part.strip() for each in texts if each is not None for part in each.split(","))
    if not all(found):
        raise click.BadParameter(f"found {text!r}, expected names with a comma between", param=option)
    return found


def one_runtime(_context: click.Context, _option: click.Parameter, text: str) -> str:
    """Callback that reads the name of software that runs here."""
    if text.partition(":")[0] == "server" or "," in text:
        raise click.BadParameter(
            f"found {text!r}, expected one name of software that runs here; `run` and `serve-load` measure servers"
        )
    return text


def placement(_context: click.Context, param: click.Parameter, text: str | None) -> "Placement | None":
    """Callback that reads a placement as llama.cpp words it; None where none is given."""
    if text is None:
        return None
    from harness.domain.placement import placement_of

    try:
        return placement_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None


def engine_parts(context: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Callback that reads names of :data:`PARTS`, separated by commas."""
    parts = words(context, param, text)
    if unknown := [part for part in parts if part not in PARTS]:
        raise click.BadParameter(f"found {unknown[0]!r}, expected some of {', '.join(PARTS)}", param=param)
    return parts


KINDS: Final[dict[str, Callable[..., click.ParamType[Any]]]] = {
    "count": Count,
    "amount": Amount,
    "size": Size,
    "ending": Ending,
    "choice": lambda *words: click.Choice(words),
    "file": lambda: click.Path(dir_okay=False, path_type=Path),
    "file_here": lambda: click.Path(exists=True, dir_okay=False, path_type=Path),
    "folder": lambda: click.Path(file_okay=False, path_type=Path),
    "path": lambda: click.Path(path_type=Path),
    "path_here": lambda: click.Path(exists=True, path_type=Path),
}
"""Kinds of values by their key in a table, which holds the kind's bounds, as a list or by their names."""


def parameters_of(verb: Callable[..., Any]) -> Iterator[click.Parameter]:
    """The parameters of a function that is a verb; none where no table stands beside its module."""
    module = sys.modules[verb.__module__]
    file = Path(module.__file__ or "").with_suffix(".toml")
    rows = _read(file).get(verb.__name__, []) if file.is_file() else []
    for row in rows:
        for name in row.get("shared", [""]):
            usual = _read(Path(__file__).with_name("_shared.toml"))[name] if name else {}
            yield _parameter(usual | row, vars(module))


@cache
def _read(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _parameter(row: dict[str, Any], readers: dict[str, Any]) -> click.Parameter:
    """A parameter from its row; ``reads`` names a callback of the verb's module or of this one."""
    settings = {key: value for key, value in row.items() if key not in {"shared", *KINDS}}
    for key in row.keys() & KINDS.keys():
        bounds = row[key]
        settings["type"] = KINDS[key](**bounds) if isinstance(bounds, dict) else KINDS[key](*bounds)
    if "numbers" in settings:
        settings["callback"] = numbers(*settings.pop("numbers"))
    if "amounts" in settings:
        settings["callback"] = numbers(*settings.pop("amounts"), kind=Amount)
    if "reads" in settings:
        name = settings.pop("reads")
        settings["callback"] = readers.get(name) or globals()[name]
    if "argument" in settings:
        return click.Argument([settings.pop("argument")], **settings)
    return click.Option(settings.pop("flags"), **settings)
