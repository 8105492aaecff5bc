"""Any server of models that streams: llama-server, Ollama, LM Studio, and whatever speaks OpenAI's completions."""

import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from harness.core.errors import RefusedError
from harness.core.ports import Session
from harness.core.record import EngineIdentity, ModelIdentity
from harness.core.scenario import Scenario
from harness.runtimes.server.dialects import Dialect, dialect_of
from harness.runtimes.server.pieces import Request, ServerAnswer
from harness.runtimes.server.stream import Endpoint, Patience, ServerError

WORDS: Final = tuple(
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which "  # noqa: SIM905
    "one you were all her she there would their we him been has when who will no more if out so up said what its about "
    "than into them can only other time new some could these two may first then do any like my now over such our man "
    "me even most made after also well".split()
)
"""Words that common vocabularies hold as single tokens, so that a shuffled prompt keeps its length."""
_FITS: Final = 24
_FEW: Final = 1.25
"""Tokens a piece that an unfinished character explains."""


class AttachedServer:
    """A server that is there already: asked for completions, never started, stopped or trusted.

    Attributes:
        dialect: The language it speaks.
        described: What it says of itself.
        local: Whether it runs on this machine.
        pid: Its process, where it is local and the system tells; None otherwise.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.described = dialect.described
        endpoint = dialect.endpoint
        self.local = _is_local(endpoint.host)
        self.pid = listener_pid(endpoint.port) if self.local else None
        self._fitted: dict[int, list[str]] = {}

    def ask(self, request: Request) -> ServerAnswer:
        """One completion, streamed; ServerError where it did wrong, or was too slow."""
        return self.dialect.ask(request)

    def contradiction(self, answer: ServerAnswer) -> str:
        """Say what speaks against the server's count of the tokens in its answer; an empty text if nothing does.

        Pieces that it does not number may bring several tokens each: its own tokenizer says how many the text
        has.
        """
        pieces = len(answer.counts)
        if answer.counts[-1] == answer.new_tokens or answer.new_tokens <= _FEW * pieces:
            return ""
        said = f"the server says {answer.new_tokens} tokens, which came in {pieces} pieces"
        found = self.dialect.count_tokens(answer.text)
        if found is None:
            return f"{said}, and has no tokenizer that tells"
        if (
            answer.new_tokens / _FEW - 1 <= found <= answer.new_tokens * _FEW + 2
        ):  # begin and end may be added
            return ""
        return f"{said}, and its tokenizer finds {found} in their text"

    def prompt(self, token_count: int, source: random.Random) -> str | tuple[int, ...]:
        """A prompt of shuffled words with exactly ``token_count`` tokens: as ids where the server takes them.

        Words are made into ids, or fitted once, by the server's own tokenizer, or by what it says of a
        request of one token; then they are shuffled. Whether a prompt had its length is told again by each
        answer.

        Raises:
            ServerError: No text of that many tokens was found.
        """
        if self.described.vocab_count:
            ids = self.dialect.token_ids(" ".join(source.choices(WORDS, k=token_count + 1)))
            if ids is not None and len(ids) >= token_count:
                return ids[:token_count]
        if token_count not in self._fitted:
            self._fitted[token_count] = self._fit(token_count, source)
        fitted = self._fitted[token_count]
        source.shuffle(fitted)
        return " ".join(fitted)

    def _fit(self, token_count: int, source: random.Random) -> list[str]:
        words = source.choices(WORDS, k=token_count)
        found: int | None = None
        for _ in range(_FITS):
            text = " ".join(words)
            found = self.dialect.count_tokens(text)
            if found is None:
                found = self.ask(Request(prompt=text, new_tokens=1)).prompt_tokens
            # A single word is the shortest text there is, whatever the server adds to it.
            if found is None or found == token_count or (found > token_count and len(words) == 1):
                return words
            change = max(1, round(abs(found - token_count) * len(words) / max(found, 1)))
            if found > token_count:
                words = words[: max(1, len(words) - change)]
            else:
                words += source.choices(WORDS, k=change)
        raise ServerError(
            f"no text of {token_count} tokens was found: the server adds some of its own (last {found})"
        )

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """The server as the engine of a run; its address is left out, it may name a host."""
        d = self.described
        return EngineIdentity(
            name=d.software,
            version=d.version,
            build="",
            thread_count=0,
            options={
                "context_tokens": d.context_tokens or scenario.context_tokens,
                "slots": d.slot_count,
                "local": self.local,
                "prompt": "token ids" if d.vocab_count else "words",
            },
        )

    def model(self) -> ModelIdentity:
        """The model as the server reports it; no hash, since nobody read the file."""
        d = self.described
        return ModelIdentity(
            name=d.model or "unnamed",
            quant=d.quant,
            size_bytes=d.size_bytes,
            sha256="",
            architecture=d.architecture,
            parameter_count=d.parameter_count,
        )


class Server:
    """The runtime that attaches to a server instead of loading a model."""

    name = "server"

    def missing(self) -> str | None:
        """None: the standard library is enough."""
        return None

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Always refused: a server is known once it was asked, see :meth:`AttachedServer.identity`."""
        del scenario
        raise RefusedError("the runtime server needs its address: --runtime server:http://host:port")

    def open(self, path: Path, scenario: Scenario) -> Session:
        """Always refused: a server loads its own models."""
        del path, scenario
        raise RefusedError(
            "the runtime server loads no file: start the server, then give --runtime server:http://host:port"
        )

    def attach(
        self,
        url: str,
        *,
        model: str = "",
        patience: Patience = Patience(),  # noqa: B008  immutable
    ) -> AttachedServer:
        """The server at ``url``; errors as :class:`Endpoint` and :func:`dialect_of`."""
        return AttachedServer(dialect_of(Endpoint(url, patience=patience), model))


def listener_pid(port: int) -> int | None:
    """Process that listens at a TCP port of this machine.

    None where there is none or the system does not tell.
    """
    import psutil

    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            is_listening = connection.status == psutil.CONN_LISTEN
            if is_listening and connection.laddr.port == port and connection.pid:
                return int(connection.pid)
    return None


def _is_local(host: str) -> bool:
    """Whether an address is this machine's: only at its own can it listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with suppress(OSError), socket.create_server((host, 0), family=family):
        return True
    return False


RUNTIME = Server()
