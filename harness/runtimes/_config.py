"""Configurations that lie beside a model's weights."""

import json
from pathlib import Path
from typing import Any

from harness.errors import BadDataError


def read_config(path: Path, *place: str, expected: str) -> dict[str, Any]:
    """The JSON object of a configuration in which the number of tokens stands at ``place``.

    Raises:
        BadDataError: There is no such file (``expected`` says what should be there), or no such number.
    """
    try:
        found = value = json.loads(path.read_bytes())
        for key in place:
            value = value[key]
        if not isinstance(value, int):
            raise TypeError(f"{'.'.join(place)} is no number")  # noqa: TRY301
    except OSError as error:
        raise BadDataError(path, "", "no such file", expected) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataError(path, ".".join(place), str(error), "a model's configuration") from error
    return dict(found)
