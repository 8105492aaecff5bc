"""How a field of a struct is written by people: on a command line, in a configuration file, in the help.

A struct's fields are annotated, ``Annotated[int, Meta(ge=64, description="..."), Option(("--context", "-c"))]``:
bounds and help stand in msgspec's own ``Meta``, so that a JSON schema has them too, and the rest stands here.
"""

from typing import Any

from harness.domain.base import Frozen


class Option(Frozen, kw_only=False):
    """How one field is typed.

    Attributes:
        flags: ``("--context", "-c")``; empty for an argument.
        heading: Under which the help lists it.
        metavar: What stands for the value in the help; empty for that of its type.
        unit: ``bytes`` reads ``1.5GiB``, ``tokens`` reads ``128k``; empty takes the number as it is.
        words: Words that may stand in place of a number, with what each means.
        default: What the help says of the default, where the default itself would say nothing.
        in_file: Whether a configuration file may set it: never a path, a server or a command.
    """

    flags: tuple[str, ...] = ()
    heading: str = ""
    metavar: str = ""
    unit: str = ""
    words: dict[str, Any] = {}
    default: str = ""
    in_file: bool = True
