"""Everything the harness raises on purpose, with the exit status each one ends in.

HarnessError                  catch this one at the outermost edge
├── InputError        exit 2  what the user gave is wrong
│   ├── UnknownNameError      no device, model, workload or runtime of that name
│   ├── BadDataError          a file breaks its schema: names file, field, found, expected
│   └── RefusedError          well-formed, but not something that can be done (other vocabulary, no disk room, ...)
├── CouldNotRunError  exit 4  the run could not be made
│   ├── MissingPackageError   an optional package is not installed; says how to install it
│   ├── FetchError            a model could not be had, or is not what its card says
│   └── EngineError           the engine's child process crashed, aborted, hung or was killed
└── WrongAnswerError  exit 1  a workload's own check failed: a wrong answer has no speed

A bug in the harness is never one of these: it stays an ordinary exception, with its traceback.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from enum import IntEnum
from pathlib import Path
from typing import ClassVar

from harness.core.printable import MESSAGE_MAX, clean


class Exit(IntEnum):
    """Exit statuses of every verb."""

    OK = 0
    BROKEN = 1
    USAGE = 2
    INCONCLUSIVE = 3
    COULD_NOT_RUN = 4


class HarnessError(Exception):
    """Base of all expected failures; its text is one line that a user can act on."""

    exit_code: ClassVar[Exit] = Exit.COULD_NOT_RUN

    def __str__(self) -> str:
        """The message on one line, without signs that a file's author could steer a terminal with."""
        return clean(super().__str__(), MESSAGE_MAX)


class InputError(HarnessError):
    """What the user gave is wrong."""

    exit_code = Exit.USAGE


HOW_TO_NAME = (
    "name what is in it: a chip, a graphics card, a CPU and its RAM, as `lscpu` and `lspci`, About This Mac, or Settings > "
    "System > About print them (all can be pasted)"
)


HOW_TO_NAME_A_MODEL = (
    "A size in the name ('NAME 8B', 'NAME 30B-A3B') gives bounds; "
    "a .gguf file, a config.json or hf:ORG/NAME gives its shape"
)


class UnknownNameError(InputError):
    """A name that is in no catalog.

    ``known`` are the names there are, of models and devices the nearest first.

    ``understood`` are the parts of a longer line that are known; ``helped`` says how else a device can be asked about.

    Attributes:
        kind: Of what the name is: ``model``, ``device``, ``api``, ...
        close: At most three names that may have been meant.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, understood: Iterable[str] = (), helped: str = ""
    ) -> None:
        known = list(known)
        close = known
        if kind not in {"model", "device"}:
            begun = sorted(each for each in known if len(name) > 2 and each.startswith(name))
            close = begun or get_close_matches(name, known, n=1, cutoff=0.5)
        self.kind = kind
        self.close = close[:3]
        said = f"no {kind} named {clean(name)!r}."
        parts = ", ".join(map(clean, understood))
        if parts:
            said += f" Understood: {parts}."
        if close:
            said += f" Did you mean {' or '.join(map(repr, close[:3]))}?"
        if kind in {"device", "model", "workload"}:
            if name and os.path.isdir(name):  # noqa: PTH112 - any text
                said += f" {name!r} here is a folder."
            said += f" List them with: edge-harness {kind}s {'run' if kind == 'workload' else 'show'}"
        elif known:
            said += f" There are {', '.join(known)}."
        if kind == "device":
            said += f", or {helped or HOW_TO_NAME}"
        elif kind == "model":
            said += f". {HOW_TO_NAME_A_MODEL}"
        super().__init__(said)


class BadDataError(InputError):
    """A file breaks its schema.

    ``file`` may be another name for the source of the data; ``field`` is the path inside it, such as
    ``ram.bandwidth_gb_s.value``, empty for the file as a whole.
    """

    def __init__(self, file: Path | str, field: str, found: str, expected: str) -> None:
        self.file, self.field, self.found, self.expected = str(file), field, found, expected
        if field:
            place = f"{file}: {field}"
        else:
            place = str(file)
        super().__init__(f"{place}: found {found}, expected {expected}")

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.file, self.field, self.found, self.expected)


def what_is_there(path: Path) -> str:
    """What stands where a file was wanted, in words: nothing, a folder, or something that is no regular file."""
    if path.is_dir():
        return "a folder, no regular file"
    if path.exists():
        return "no regular file"
    return "no such file"


class RefusedError(InputError):
    """Well-formed, but not something that can be done; a child that raises it ends as ``refused``."""

    outcome = "refused"


class CouldNotRunError(HarnessError):
    """The run could not be made."""


class MissingPackageError(CouldNotRunError):
    """An optional distribution is not installed, which an ``extra`` of edge-harness brings."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: {installing(extra)}")


def installing(extra: str) -> str:
    """The command that installs an extra: in its checkout, or the packages it stands for where a wheel was installed.

    It never names this project: no registry has it, and whoever takes the name there would be trusted.
    """
    if not (Path(__file__).parents[2] / "pyproject.toml").is_file():
        from importlib.metadata import PackageNotFoundError, requires

        with suppress(PackageNotFoundError):
            declared = [line.partition(";") for line in requires("edge-harness") or ()]
            wanted = [
                name.strip() for name, _, when in declared if re.search(rf"extra == [\"']{extra}[\"']", when)
            ]
            return "pip install " + " ".join(f"'{name}'" for name in wanted)
    return f"pip install '.[{extra}]'"


@contextmanager
def optional(package: str, extra: str) -> Iterator[None]:
    """Imports of an optional distribution; MissingPackageError where it is not installed."""
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(package, extra) from error


class FetchError(CouldNotRunError):
    """A model could not be had, or is not what its card says."""


class EngineError(CouldNotRunError):
    """The engine's child process crashed, aborted, hung or was killed.

    ``outcome`` is what the record of the ended run says of it.
    """

    outcome = "failed"

    def __init__(self, detail: str, outcome: str = "") -> None:
        super().__init__(detail)
        self.outcome = outcome or self.outcome


class WrongAnswerError(HarnessError):
    """A workload's own check failed: a wrong answer has no speed."""

    exit_code = Exit.BROKEN
