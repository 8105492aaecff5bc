"""Where a measurement runs: this machine, one behind SSH, an Android device on a cable; none needs Python."""

import re
from typing import Final

from harness.errors import RefusedError
from harness.targets.adb import adb_words
from harness.targets.shell import ShellTarget

_SSH_OPTIONS: Final = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=20",
    "ServerAliveInterval=5",
)


def target_named(text: str, *, folder: str = "") -> ShellTarget:
    """The target that ``text`` names: ``local``, ``ssh://user@host[:port]``, ``adb://``, ``adb://SERIAL``.

    ``adb://`` alone means the only device there is; a serial may be ``host:port``. What is pushed goes to
    ``folder``, one that is meant for such things unless given. Keys, and the hosts to believe, are OpenSSH's
    own configuration's.

    Raises:
        RefusedError: It names no target.
        CouldNotRunError: adb is not installed, or that device cannot be used; says what to do.
    """
    kind, separator, place = text.partition("://")
    if text in {"local", "this", "here"}:
        return ShellTarget("local", ("sh", "-c"), folder=folder)
    if kind == "adb" and separator:
        return ShellTarget(text, adb_words(place), folder=folder)
    found = re.fullmatch(
        r"((?:[\w.+-]+@)?(?!-)[\w.-]+|(?:[\w.+-]+@)?\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?", place
    )
    if kind != "ssh" or found is None or not 0 < int(found[2] or 22) < 65536:
        raise RefusedError(
            f"{text!r} is not a target: expected local, ssh://user@host[:port], adb:// or adb://SERIAL"
        )
    told = [*_SSH_OPTIONS, *([f"Port={found[2]}"] if found[2] else [])]
    words = [word for option in told for word in ("-o", option)]
    host = found[1].replace("[", "").replace("]", "")
    return ShellTarget(text, ("ssh", *words, "--", host), folder=folder, quoted=True)
