"""What a streamed answer holds, and whether what it says of itself agrees with what came."""

from itertools import pairwise
from statistics import fmean
from typing import Any, Final

from harness.core.base import Frozen
from harness.runtimes.server.stream import ServerError

_MOST_A_PIECE: Final = 8
"""Tokens a piece from which nobody knows when one came."""
AGREES: Final = 0.6
"""Least share of a time on this clock that the server's own must be: the rest is its queue and the way."""
BELIEVED: Final = 0.9
"""Likewise for the server's own time to stand in place of that on this clock."""
_SLACK_S: Final = 0.05
READ_LATE: Final = "tokens came together: they waited on the way, or here to be read; stop other programs, or ask for more tokens"
TOGETHER: Final = 0.3
"""Share of pieces that come with the one before from which times between tokens are not those of the server."""
_AT_ONCE: Final = 0.05
"""Share of the mean gap, and seconds, below which a piece came with the one before."""
_AT_ONCE_S: Final = 1.5e-3
_MANY: Final = 16


class Request(Frozen):
    """One completion that is asked for; token ids where the server takes those.

    ``context_tokens`` is the context it should have, for servers that set it by request.
    """

    prompt: str | tuple[int, ...]
    new_tokens: int
    context_tokens: int = 4096


class ServerAnswer(Frozen):
    """One completion as it came; None where the server does not say.

    Attributes:
        sent_s: When the request was sent, on ``time.perf_counter``.
        arrivals_s: When each piece was here, on the same clock.
        counts: Tokens known to be here with each piece; as many as pieces where the server does not number
            them.
        new_tokens: Tokens of the answer: as the server says, else its pieces.
        cached_tokens: Tokens of the prompt that it took from its cache.
        read_tokens: Tokens of the prompt that its time for the prompt is of.
        drafted_tokens: Tokens of the answer that it guessed before it computed them.
        prompt_s: The server's own time for the prompt.
        decode_s: Its own time for all tokens after the first (llama-server) or for all (Ollama).
        finish: Why it ended: ``length``, ``stop`` ...
    """

    sent_s: float
    arrivals_s: tuple[float, ...]
    counts: tuple[int, ...]
    text: str
    new_tokens: int
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    read_tokens: int | None = None
    drafted_tokens: int | None = None
    prompt_s: float | None = None
    decode_s: float | None = None
    finish: str = ""

    @property
    def first_token_s(self) -> float:
        """Time to first token (TTFT): from sending the request to the first piece."""
        return self.arrivals_s[0] - self.sent_s

    @property
    def duration_s(self) -> float:
        """End-to-end latency: from sending the request to the last piece."""
        return self.arrivals_s[-1] - self.sent_s

    @property
    def later_count(self) -> int:
        """Tokens after the first piece, which is the first token unless that is no whole character yet.

        Where pieces are not numbered and bring several tokens each, the first one is taken to bring as many
        as others.
        """
        if self.counts[-1] == self.new_tokens:
            return self.new_tokens - self.counts[0]
        return self.new_tokens - -(-self.new_tokens // len(self.counts))

    def doubts(self, wanted: int, *, alone: bool = True) -> tuple[str, ...]:
        """What speaks against the figures of an answer of which ``wanted`` tokens were asked for.

        Times are compared where it was ``alone``: else a request may wait in a queue that the server does not
        count.
        """
        found = []
        if self.new_tokens != wanted:
            found.append(f"the server ended after {self.new_tokens} of {wanted} tokens")
        if self.counts[-1] != self.new_tokens and len(self.counts) < max(2, self.new_tokens // _MOST_A_PIECE):
            found.append(
                f"{self.new_tokens} tokens came in {len(self.counts)} pieces: their times are not known"
            )
        if not alone:
            return tuple(found)
        if self.drafted_tokens:
            found.append(f"the server drafts ({self.drafted_tokens} tokens): this is no plain speed")
        unread = (self.prompt_tokens or 0) - (self.cached_tokens or 0)
        if self.read_tokens is not None and self.read_tokens < unread:
            found.append(
                f"the server's time is of {self.read_tokens} tokens of the prompt, which has {unread}"
            )
        wait_s = self.first_token_s
        if (
            self.prompt_s is not None
            and not AGREES * wait_s - _SLACK_S <= self.prompt_s <= wait_s / AGREES + _SLACK_S
        ):
            found.append(
                f"the server says {self.prompt_s:.3g} s for the prompt, its first token came after {wait_s:.3g} s"
            )
        between_s = self.duration_s - wait_s
        if self.decode_s is not None and self.decode_s < AGREES * between_s - _SLACK_S:
            found.append(
                f"the server says {self.decode_s:.3g} s for its tokens, they came within {between_s:.3g} s"
            )
        return tuple(found)

    @property
    def read_late(self) -> bool:
        """Whether pieces waited to be read, so that the times between them are shorter than those of the server.

        Told by many pieces having come with the piece before, also where a proxy gathered them; else by the
        server's own time, a fifth of it left for what else it counts.
        """
        if self.together_ratio > TOGETHER:
            return True
        between_s = self.arrivals_s[-1] - self.arrivals_s[0]
        return self.decode_s is not None and (
            between_s < 0.8 * self.decode_s * self.later_count / self.new_tokens
        )

    @property
    def together_ratio(self) -> float:
        """Share of the pieces behind the first that came with the piece before; 0 of fewer than three.

        A piece did if it came within a twentieth of the mean gap, and within 1.5 ms: no engine computes a token
        so much faster than others. The longest gap of many is left out, as it may be somebody else's.
        """
        gaps = sorted(after - before for before, after in pairwise(self.arrivals_s))
        if len(gaps) < 2:
            return 0.0
        usual_s = fmean(gaps[:-1] if len(gaps) >= _MANY else gaps)
        return sum(gap <= min(_AT_ONCE * usual_s, _AT_ONCE_S) for gap in gaps) / len(gaps)

    def gaps_s(self) -> tuple[float, ...]:
        """Return the inter-token latencies (ITL) of the tokens after the first piece, in seconds.

        The tuple is empty if the server does not say how its tokens are spread over the pieces. A piece that
        brings k tokens stands for k equal gaps: they were computed one after the other and sent together.
        """
        if self.counts[-1] != self.new_tokens:
            return ()
        gaps: list[float] = []
        for i in range(1, len(self.counts)):
            k = self.counts[i] - self.counts[i - 1]
            if k:
                gaps += [(self.arrivals_s[i] - self.arrivals_s[i - 1]) / k] * k
        return tuple(gaps)


class AnswerPieces:
    """Gathers one answer's pieces.

    Told the server's own words about it, it says where they contradict the stream.
    """

    def __init__(self, wanted: int, sent_s: float) -> None:
        self.wanted = wanted
        self._sent_s = sent_s
        self._arrivals_s: list[float] = []
        self.counts: list[int] = []
        self._texts: list[str] = []
        self.told: dict[str, Any] = {}
        self.complete = False

    @property
    def token_count(self) -> int:
        """Tokens so far."""
        return self.counts[-1] if self.counts else 0

    def piece(self, at_s: float, text: str, count: int | None = None) -> None:
        """A piece with text; ``count`` tokens are here by now, where the server numbers them (ServerError: down)."""
        last = self.token_count
        if count is not None and count < last:
            raise ServerError(f"wrong token count: {count} tokens after {last} had come")
        self._arrivals_s.append(at_s)
        self.counts.append(last + 1 if count is None else count)
        self._texts.append(text)

    def tell(self, name: str, value: Any) -> None:
        """Set a field of :class:`ServerAnswer` to the server's own figure; None leaves the field as it is."""
        if value is not None:
            self.told[name] = value

    def fault(self, what: str) -> ServerError:
        """What went wrong, with how far the answer was."""
        return ServerError(f"{what} (after {len(self.counts)} pieces)")

    def answer(self) -> ServerAnswer:
        """The complete answer; ServerError where it is not, is empty, or its token count cannot be."""
        if not self.complete:
            closed = f"the server closed the stream after {len(self.counts)} pieces, without its end"
            raise ServerError(closed, "crashed")
        if not self.counts:
            raise ServerError("the server ended its answer without a token")
        held = self.counts[-1]
        new_tokens = self.told.get("new_tokens", held)
        finish = self.told["finish"] = str(self.told.get("finish", ""))[:200]
        # A piece may hold several tokens (an unfinished character waits for its end), but none holds less
        # than one; the last token of an answer that stopped by itself is not sent as text.
        if new_tokens < max(held, 1) or new_tokens > self.wanted:
            said = f"{self.wanted} asked for, the server says {new_tokens}, its stream held {held}"
            raise ServerError(f"wrong token count: {said}")
        # Where the server counts nothing, tokens of an unfinished character make fewer pieces.
        if "new_tokens" in self.told and finish in {"length", "limit"} and new_tokens < self.wanted:
            ended = f"ended for length at {new_tokens} of {self.wanted} tokens: its context may be full"
            raise ServerError(f"wrong token count: {ended}")
        return ServerAnswer(
            sent_s=self._sent_s,
            arrivals_s=tuple(self._arrivals_s),
            counts=tuple(self.counts),
            text="".join(self._texts),
            **self.told | {"new_tokens": new_tokens},
        )
