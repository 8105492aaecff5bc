"""Several models as the configuration of a program that loads and unloads them: llama-swap, llama-server's router."""

import shlex
from collections.abc import Sequence
from typing import Final, Literal

from harness.answer.answer import Resident
from harness.core.errors import RefusedError

Format = Literal["llama-swap", "models-ini"]
_SWITCH: Final = "true"


def configuration(residents: Sequence[Resident], form: Format) -> str:
    """The file's text.

    Raises:
        RefusedError: A model is started by another program than llama-server, or by none.
    """
    for one in residents:
        if not one.command.startswith("llama-server "):
            raise RefusedError(f"--format {form}: {one.name} {one.quant} is not run by llama-server there")
    if form == "llama-swap":
        return _llama_swap(residents)
    return _models_ini(residents)


def _llama_swap(residents: Sequence[Resident]) -> str:
    """YAML by llama-swap's schema: models with their commands, and the group that stays in memory together."""
    lines = ["models:"]
    for one in residents:
        program, _, words = one.command.partition(" ")
        lines += [f'  "{_name(one)}":', f"    cmd: {program} --port ${{PORT}} {words}"]
    staying = [one for one in residents if one.stays]
    if len(staying) > 1:
        lines += ["groups:", '  "together":', "    swap: false", "    exclusive: false", "    members:"]
        lines += [f'      - "{_name(one)}"' for one in staying]
    return "\n".join(lines) + "\n"


def _models_ini(residents: Sequence[Resident]) -> str:
    """Presets of llama-server's router (--models-preset): a section a model, options without their dashes."""
    most = max(sum(one.stays for one in residents), 1)
    lines = [f"; llama-server --models-preset THIS_FILE --models-max {most}", "version = 1"]
    for one in residents:
        lines += ["", f"[{_name(one)}]"]
        words = shlex.split(one.command)[1:]
        for word, value in zip(words, [*words[1:], "-"], strict=True):
            if word.startswith("-"):
                lines.append(f"{word.lstrip('-')} = {_SWITCH if value.startswith('-') else value}")
    return "\n".join(lines) + "\n"


def _name(one: Resident) -> str:
    return f"{one.name}-{one.quant}".replace('"', "").replace("]", "").replace("/", "-")
