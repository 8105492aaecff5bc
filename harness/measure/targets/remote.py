"""edge-harness on a target that has it: the same verb with the same words there, its text and its records here."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from harness.core.errors import BadDataError, CouldNotRunError, RefusedError
from harness.core.record import Record
from harness.measure.targets.shell import LOST, ShellTarget, files_in
from harness.models.file_hash import sha256_of
from harness.onnx.files import model_files
from harness.records.store import RECORD_MAX_BYTES, decode

PROGRAM: Final = "edge-harness"
_FOUND: Final = 'PATH="$PATH:$HOME/.local/bin"'
_ANSWERING: Final = {0, 1, 3, 4, 129, 130, 143}
"""Exit statuses with which a verb has measured something, or says why it did not."""
_GRACE_S: Final = 10.0
_LINES_SAID: Final = 3


class VerbReply(NamedTuple):
    """What a verb said on the target: its exit status, its standard output, and its records."""

    status: int
    text: str
    records: tuple[Record, ...]


def run_there(
    target: ShellTarget,
    words: Sequence[str],
    files: Mapping[str, Path],
    *,
    say: Callable[[str], None] = lambda _line: None,
) -> VerbReply:
    """Run a verb there, on that machine itself: ``words`` are its name, options and arguments.

    ``files`` are pushed once: each by the word that stands for it, also behind an option's ``=``. The verb
    ends there when the connection does. ``say`` gets each line of progress.

    Raises:
        RefusedError: edge-harness is neither on the target's PATH nor where pip puts programs of one user.
        CouldNotRunError: It does not answer, or broke off.
        BadDataError: What came back is no record.
    """
    if not target.shell(f"{_FOUND}; command -v {shlex.quote(PROGRAM)} || true").strip():
        raise RefusedError(
            f"{target.name} has no edge-harness: install it, or --programs names a folder with llama-bench for it"
        )
    target.stop()
    folder = f"{target.folder}/answer"
    own = shlex.quote(folder)
    there: dict[str, str] = {}
    target.shell(f"rm -rf {own}; mkdir -p {own}")
    for word, path in files.items():
        named = f"{folder}/{len(there)}"
        there[word] = f"{named}/{path.name}"  # a record names the file as here
        for file in model_files(path):
            place = target.put(file, sha256_of(file))
            target.shell(shlex.join(["mkdir", "-p", named]))
            target.shell(shlex.join(["ln", "-s", place, f"{named}/{file.name}"]))

    def placed(word: str) -> str:
        option, _, value = word.partition("=")
        return there.get(word) or (f"{option}={there[value]}" if value in there else word)

    end = words.index("--") if "--" in words else len(words)
    # There it is on the machine itself, and keeps its records.
    asked = without(words[:end], ("--on", "--out", "-o"))
    given = [PROGRAM, *asked, "--on", "local", "--out", f"{folder}/records", *words[end:]]
    script = f'{_FOUND}; exec "$@" > {own}/answer.txt'
    running = target.start(["sh", "-c", script, "sh", *map(placed, given)])
    said: list[str] = []
    for _, line in running.told():  # each child there has a limit of its own
        say(line)
        said = [*said[1 - _LINES_SAID :], line]
    status, _ = running.finish(_GRACE_S)
    last = " / ".join(line for line in said if line.strip())
    if status == LOST:
        raise CouldNotRunError(f"{target.name}: the connection broke at: {last}")
    if status not in _ANSWERING:
        raise CouldNotRunError(f"{target.name}: {PROGRAM} ended with status {status}: {last}")
    told = target.shell(
        f"head -v -c {RECORD_MAX_BYTES} {own}/answer.txt {own}/records/*.json 2>/dev/null; rm -rf {own}",
        timeout_s=600,
    )
    found = files_in(told.split("\n"))
    text = found.pop(f"{folder}/answer.txt", "")
    records = []
    for name, document in found.items():
        record = decode(document.encode(), f"{target.name}:{Path(name).name}")
        records.append(record.replace(machine=record.machine.replace(device=target.name)))
    if status == 0 and not records:
        raise BadDataError(target.name, "", "no record", "the records of a verb that measures")
    return VerbReply(status, text, tuple(records))


def without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The words less some options that take a value, whether it stands behind a space or an equals sign."""
    kept = []
    before = ""
    for word in words:
        if not {before, word.partition("=")[0]} & set(options):
            kept.append(word)
        before = word
    return kept
