"""Chat templates of instruct models: the model file's own Jinja text, rendered where it can do no harm.

A template is rendered once for each sequence of roles, with marks in place of the contents, in a process of its own
(``_template_child``). What stands between the marks are the template's own words, and only those may become special
tokens: a passage that contains ``<|im_end|>`` stays text.
"""

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from harness.catalog.gguf import read_gguf
from harness.errors import BadDataError, MissingPackageError
from harness.ports import Session

MOST_TEMPLATE_CHARS: Final = 1 << 16
_WAIT_S: Final = 60.0
"""Wall time; the limit on CPU time ends a template without end first, and a busy machine may let a good one wait."""
PLAIN: Final = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
"""For a model without a template: one content a line, no special tokens."""


class Message(NamedTuple):
    """One turn; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


class ChatTemplate:
    """One model's template, Jinja text out of the file ``path``; BadDataError above 65,536 characters."""

    def __init__(self, source: str, *, path: Path = Path("template")) -> None:
        self._source, self._path = source, path
        if len(source) > MOST_TEMPLATE_CHARS:
            raise self._bad(f"{len(source)} characters", f"at most {MOST_TEMPLATE_CHARS}")
        self._shapes: dict[tuple[str, ...], list[str]] = {}

    @classmethod
    def of(cls, path: Path) -> "ChatTemplate":
        """The template in a GGUF file's header; :data:`PLAIN` where it has none or is no GGUF file."""
        source = read_gguf(path).metadata.get("tokenizer.chat_template") if path.suffix == ".gguf" else None
        return cls(source if isinstance(source, str) and source.strip() else PLAIN, path=path)

    def tokens(self, session: Session, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ending in the words that begin an answer.

        Raises:
            BadDataError: The template fails, passes a limit, uses a refused construct, or drops a content.
            MissingPackageError: jinja2 is not installed.
        """
        parts = self._parts(tuple(m.role for m in messages))
        ids = session.tokenize("") + session.tokenize(parts[0], add_special=False, parse_special=True)
        for message, after in zip(messages, parts[1:], strict=True):
            ids += session.tokenize(message.content, add_special=False)
            ids += session.tokenize(after, add_special=False, parse_special=True)
        return ids

    def _parts(self, roles: tuple[str, ...]) -> list[str]:
        if roles not in self._shapes:
            salt = secrets.token_hex(8)
            marks = [f"mark{at}of{salt}" for at in range(len(roles))]
            turns = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
            fixed = {"bos_token": "", "eos_token": "", "tools": None, "add_generation_prompt": True}
            text = self._rendered({**fixed, "messages": turns})
            if re.findall(rf"mark\d+of{salt}", text) != marks:
                raise self._bad("contents dropped, repeated or moved", f"each of {', '.join(roles)} once, in order")
            self._shapes[roles] = re.split(rf"mark\d+of{salt}", text)
        return self._shapes[roles]

    def _rendered(self, variables: dict[str, object]) -> str:
        script = Path(__file__).with_name("_template_child.py")
        job = json.dumps({"template": self._source, "variables": variables})
        command = [sys.executable, "-I", str(script)]
        try:
            done = subprocess.run(command, input=job, capture_output=True, text=True, timeout=_WAIT_S, check=False)
        except subprocess.TimeoutExpired:
            raise self._bad(f"no end after {_WAIT_S:g} s", "a text") from None
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            raise self._bad(f"ended by its limits (status {done.returncode})", "a text") from None
        if "No module named 'jinja2'" in answer.get("error", ""):
            raise MissingPackageError("jinja2", "llama")
        if "error" in answer:
            raise self._bad(answer["error"], "a template that renders")
        return str(answer["text"])

    def _bad(self, found: str, expected: str) -> BadDataError:
        return BadDataError(self._path, "tokenizer.chat_template", found, expected)
