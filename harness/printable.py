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

_UNSEEN_CLASS: Final = "\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff"
_UNSEEN: Final = re.compile(f"[\x00-\x1f{_UNSEEN_CLASS}]+")
_UNSEEN_IN_LINES: Final = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSEEN_CLASS}]")


def clean(text: str, most: int = NAME_MAX) -> str:
    """Text on one line, without signs that cannot be seen: controls, zero widths, changes of direction; cut to size."""
    shown = " ".join(_UNSEEN.sub(" ", text[: 8 * most]).split())
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def clean_lines(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay, any other such sign becomes U+FFFD."""
    return _UNSEEN_IN_LINES.sub("\ufffd", text)


def escaped(json_text: str) -> str:
    """A JSON document with each such sign written as its escape: the same document, safe to print."""
    return _UNSEEN_IN_LINES.sub(lambda sign: f"\\u{ord(sign[0]):04x}", json_text)


class Guarded(io.TextIOWrapper):
    """A text stream over the bytes of another one; a reader that has gone away (``| head``) changes nothing else."""

    def __init__(self, raw: Any) -> None:
        super().__init__(raw.buffer, encoding=raw.encoding, errors="replace", line_buffering=raw.line_buffering)

    def write(self, text: str) -> int:
        """Write the text; once nobody reads, to nowhere."""
        try:
            return super().write(text)
        except BrokenPipeError:
            return self._to_nowhere() or len(text)

    def flush(self) -> None:
        """Write what is held back; once nobody reads, to nowhere."""
        try:
            super().flush()
        except BrokenPipeError:
            self._to_nowhere()

    def _to_nowhere(self) -> int:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return 0


class Cleaned(Guarded):
    """The same, cleaned.

    Attributes:
        styled: The stream beneath, for what Rich styles of cleaned text.
    """

    def __init__(self, raw: Any) -> None:
        super().__init__(raw)
        self.styled = Guarded(raw)

    def write(self, text: str) -> int:
        """Write the text, cleaned."""
        super().write(clean_lines(text))
        self.flush()
        return len(text)


@contextmanager
def cleaned_streams() -> Iterator[None]:
    """Within, nothing that this process prints can steer a terminal."""
    before = sys.stdout, sys.stderr
    made = [Cleaned(stream) for stream in before if hasattr(stream, "buffer")]
    if len(made) == len(before):
        sys.stdout, sys.stderr = made
    try:
        yield
    finally:
        for stream in made:
            for part in (stream, stream.styled):
                part.flush()
                part.detach()  # or the bytes beneath would be closed with it
        sys.stdout, sys.stderr = before
