"""Places where a measurement runs: this machine, one behind SSH, an Android device; none of them needs Python.

Source: Android platform tools, packages/modules/adb, docs/user/adb.1.md and client/transport.cpp (names of
states).
"""

import re
import shutil
from typing import Final

from harness.core.errors import CouldNotRunError, RefusedError
from harness.core.outside import output_of
from harness.measure.targets.shell import ShellTarget

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


_TIMEOUT_S: Final = 20.0
_STATES: Final = {
    "unauthorized": "it has not allowed this computer: unlock it and accept the question about USB debugging",
    "authorizing": "it is still asking whether to allow this computer: unlock it and accept the question",
    "offline": "it does not answer: plug it in again, or `adb reconnect`",
    "recovery": "it is in recovery mode: start Android",
    "bootloader": "it is in its bootloader: start Android",
    "sideload": "it waits for an update: start Android",
    "no permissions": "this user may not open its USB device: install the udev rules for Android",
}


def _devices() -> dict[str, tuple[str, str]]:
    """State and model (empty where it is not told) of each device that the adb server sees, by serial."""
    told = re.findall(r"(?m)^([^\s*]\S*) +(no permissions|\S+)(?:.* model:(\S+))?", _adb("devices", "-l"))
    return {serial: (state, model) for serial, state, model in told if serial != "List"}


def adb_words(serial: str) -> tuple[str, ...]:
    """The command that runs a shell command on that device; the only one there is for an empty serial.

    Raises:
        CouldNotRunError: There is none, there are several, or it cannot be used; says what to do.
    """
    there = _devices()
    if ":" in serial and there.get(serial, ("", ""))[0] != "device":
        _adb("connect", serial)  # over the network a device is there once it was asked for
        there = _devices()
    listed = ", ".join(f"{name} ({model or state})" for name, (state, model) in there.items()) or "none"
    if not serial and len(there) > 1:
        raise CouldNotRunError(f"several Android devices: {listed}. Name one: adb://SERIAL")
    chosen = serial or next(iter(there), "")
    if chosen not in there:
        raise CouldNotRunError(
            f"no Android device {serial or 'on a cable'}; adb sees: {listed}. Is USB debugging on?"
        )
    state, _ = there[chosen]
    if state != "device":
        raise CouldNotRunError(f"Android device {chosen}: {_STATES.get(state, f'its state is {state!r}')}")
    return "adb", "-s", chosen, "shell", "-T"


def _adb(*words: str) -> str:
    if shutil.which("adb") is None:
        raise CouldNotRunError(
            "adb is not installed: take it from Android's platform tools, or apt install adb"
        )
    printed = output_of(("adb", *words), f"adb {words[0]}", timeout_s=_TIMEOUT_S, when_late="adb kill-server")
    return printed.decode(errors="replace")
