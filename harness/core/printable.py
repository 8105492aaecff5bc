"""Text from files of strangers, made fit to be shown on a terminal, in a log or on a page: the one place for it."""

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

NAME_MAX: Final = 120
MESSAGE_MAX: Final = 2000

_UNSEEN_CLASS: Final = (
    "\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff"
)
_UNSEEN: Final = re.compile(f"[\x00-\x1f{_UNSEEN_CLASS}]+")
_UNSEEN_IN_LINES: Final = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSEEN_CLASS}]")
_COMMAND: Final = re.compile(r"(?m)^([^\S\n]*):(?=:)")
"""A line that GitHub's workflows take for a command, as a wrapped name can begin one."""


def clean(text: str, most: int = NAME_MAX) -> str:
    """Text on one line, without signs that cannot be seen: controls, zero widths, changes of direction.

    A text that is longer than ``most`` characters is cut there.
    """
    shown = " ".join(_UNSEEN.sub(" ", text[: 8 * most]).split())
    if len(shown) <= most:
        return shown
    return shown[: most - 1] + "…"


def clean_lines(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay, any other such sign becomes U+FFFD."""
    return _UNSEEN_IN_LINES.sub("\ufffd", text)


def escaped(json_text: str) -> str:
    """A JSON document with each such sign written as its escape: the same document, safe to print."""
    return _UNSEEN_IN_LINES.sub(lambda sign: f"\\u{ord(sign[0]):04x}", json_text)


def escape_markdown(text: str) -> str:
    """One line of text from which no table cell, link, image, HTML tag or mention can be made."""
    return " ".join(text.translate({ord(sign): f"&#{ord(sign)};" for sign in "&\\`*_{}[]<>#|!@~"}).split())


class CleanStream(io.TextIOWrapper):
    """A text stream over the bytes of another one.

    A reader that has gone away (``| head``) changes nothing else.
    """

    def __init__(self, raw: Any) -> None:
        self._own: io.BufferedWriter | None = None
        if isinstance(
            raw.buffer, io.RawIOBase
        ):  # PYTHONUNBUFFERED: what it does not take at once would be lost
            self._own = io.BufferedWriter(raw.buffer)
        super().__init__(
            self._own or raw.buffer,
            encoding=raw.encoding,
            errors="replace",
            line_buffering=raw.line_buffering,
        )

    def write(self, text: str) -> int:
        """Write the text, cleaned; once nobody reads, to nowhere."""
        with self._or_nowhere():
            super().write(_COMMAND.sub(r"\1: ", clean_lines(text)))
        self.flush()
        return len(text)

    def write_commands(self, text: str) -> None:
        """Write lines that are commands of a workflow by intent: their own data is escaped by who made them."""
        with self._or_nowhere():
            super().write(clean_lines(text))
        self.flush()

    def flush(self) -> None:
        """Write what is held back; once nobody reads, to nowhere.

        Raises:
            OSError: It cannot be written, as on a full disk; the first time only, from then on it goes
                nowhere.
        """
        with self._or_nowhere():
            super().flush()

    def release(self) -> None:
        """Write what is held back and leave the bytes beneath, which would be closed with it."""
        self.flush()
        self.detach()
        if self._own is not None:
            self._own.detach()

    @contextmanager
    def _or_nowhere(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):
                raise OSError(error.errno, error.strerror, "the output") from error


def print_commands(text: str) -> None:
    """Print the product's own workflow commands (``::error file=...``), which a :class:`CleanStream` would break."""
    if isinstance(sys.stdout, CleanStream):
        sys.stdout.write_commands(text)
    else:
        sys.stdout.write(clean_lines(text))


@contextmanager
def cleaned_streams() -> Iterator[None]:
    """Within, nothing that this process prints can steer a terminal."""
    before = sys.stdout, sys.stderr
    if not all(hasattr(stream, "buffer") for stream in before):  # text that goes to no terminal
        yield
        return
    made = [CleanStream(stream) for stream in before]
    sys.stdout, sys.stderr = made
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in made:
            stream.release()
