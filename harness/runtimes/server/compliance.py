"""Whether a server does what a measurement takes for granted: tried in some 20 s before it is measured.

Six promises, as MLPerf's TEST04 (inputs that repeat) and TEST01 (outputs as they were) ask them of a submission:

- cache: an answer that was given before is computed again.
- prompts: a longer prompt takes longer to read.
- tokens: an answer has the tokens that the server counts, by its own tokenizer.
- drafts: text that is easy to guess is written no faster than other text.
- bunching: tokens are sent one by one, when they are there.
- prefixes: a prompt that was read before is read again, or the server says that it is not.

Other programs only add time, and the fastest of some tries is least disturbed. So times are compared by their
least, and what looks broken is tried a second time with other prompts: a promise is broken if it is so twice.

Source:
    MLCommons, "MLPerf Inference compliance testing", tests TEST01 and TEST04.
"""

import random
import time
from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple

from harness.core.result import ServerCheck, Verdict
from harness.core.units import format_seconds
from harness.runtimes.server import AttachedServer
from harness.runtimes.server.pieces import TOGETHER, Request, ServerAnswer

_ANSWER_S: Final = 0.8
"""What one answer should take, of 12 to 48 tokens."""
_PROMPT_S: Final = 0.6
_SHORT: Final = 16
_MOST_PROMPT: Final = 4096
_TRIES: Final = 3
_WAITS: Final = 2
_CACHED: Final = 0.5
"""Share of the time of a new answer, or prompt, below which one was not computed again."""
_LONGER: Final = 1.3
"""Times that a prompt of twice the length must take at least, where reading is most of it; 2 is what reading takes."""
_READS: Final = 3.0
"""Times a short prompt's wait from which reading is most of it."""
_MOST_PER_S: Final = 5e5
"""Tokens of one prompt a second: five times what a small model reaches on the fastest cards."""
_LENGTHS: Final = 3
_GUESSED: Final = 1.4
"""Times that easy text may be written faster than other text."""
_COUNTED: Final = 1.4
"""Tokens told, of those that the tokenizer finds: a text may be cut in other ways than it was written."""
_AT_THE_END: Final = 0.1
"""Share of the time of an answer of a dozen tokens or more within which they do not all come."""
_FEW: Final = 4
_SAYS: Final = "the server says that it drafted"
"""What it says itself takes no second look."""
_EASY: Final = ("red green blue ", "one two three ", "north east south west ", "do re mi fa ")
_ORDER: Final = ("cache", "prompts", "tokens", "drafts", "bunching", "prefixes")


class _NoTimeError(Exception):
    """The look has taken as long as it may."""


class _Looked(NamedTuple):
    """Answers of one look, by what was asked: new prompts, one again and again, text that is easy to guess."""

    fresh: list[ServerAnswer]
    again: list[ServerAnswer]
    easy: list[ServerAnswer]


class _Looker:
    """Asks a server within a time."""

    def __init__(self, server: AttachedServer, draw: random.Random, within_s: float) -> None:
        self.server = server
        self.draw = draw
        self._until_s = time.monotonic() + within_s

    @property
    def left_s(self) -> float:
        """Time that is left."""
        return self._until_s - time.monotonic()

    def ask(self, prompt: str | tuple[int, ...], count: int) -> ServerAnswer:
        """One answer; ``_NoTimeError`` once the time is over."""
        if self.left_s < 0:
            raise _NoTimeError
        return self.server.ask(Request(prompt=prompt, new_tokens=count))

    def wait_s(self, prompt: str | tuple[int, ...]) -> tuple[float, ServerAnswer]:
        """Time to the first token of a prompt, and the answer."""
        answer = self.ask(prompt, 1)
        return answer.first_token_s, answer

    def new(self, token_count: int) -> str | tuple[int, ...]:
        """A prompt that the server has not seen."""
        return self.server.prompt(token_count, self.draw)

    def answers(self, looked: _Looked) -> None:
        """Fill in the answers of three rounds, one of each kind in turns, so that what drifts falls on all alike."""
        first = self.ask(self.new(_SHORT), _FEW)
        step_s = _token_s(first) or first.duration_s
        count = min(48, max(12, round(_ANSWER_S / max(step_s, 1e-4))))
        repeated = self.new(_SHORT)
        easy = self.draw.choice(_EASY)
        for _ in range(_TRIES):
            looked.fresh.append(self.ask(self.new(_SHORT), count))
            looked.again.append(self.ask(repeated, count))
            looked.easy.append(self.ask(f"{self.draw.randint(10, 99)} {easy * 10}".strip(), count))


def check_server(server: AttachedServer, *, within_s: float = 20.0, seed: int = 1) -> tuple[ServerCheck, ...]:
    """What came of each of the six promises, in the order of the list above.

    What has no time left is not known. A broken one takes a second look, so that the longest time is twice
    ``within_s``.

    Raises:
        ServerError: The server cannot be reached, or failed.
    """
    found = _look(server, random.Random(seed), within_s)
    doubtful = [check for check in found.values() if check.verdict == "broken" and _SAYS not in check.detail]
    if doubtful:
        second = _look(server, random.Random(seed + 1), within_s)
        for check in doubtful:
            if second[check.name].verdict != "broken":
                detail = f"{check.detail}; a second time: {second[check.name].detail}"
                found[check.name] = check.replace(verdict="unknown", detail=detail)
    return tuple(found[name] for name in _ORDER)


def _look(server: AttachedServer, draw: random.Random, within_s: float) -> dict[str, ServerCheck]:
    looker = _Looker(server, draw, within_s)
    looked = _Looked([], [], [])
    found: dict[str, ServerCheck] = {}
    late: Callable[[str], ServerCheck] = lambda name: _check(  # noqa: E731 - said of six
        name, "unknown", f"no time was left: it takes more than {within_s:g} s"
    )
    try:
        looker.answers(looked)
        found["tokens"] = _tokens(looker, looked)
        found |= _reading(looker)
    except _NoTimeError:
        pass
    if len(looked.easy) == _TRIES:
        found |= {"cache": _cache(looked), "drafts": _drafts(looked), "bunching": _bunching(looked)}
    return {name: found.get(name) or late(name) for name in _ORDER}


def _check(name: str, verdict: Verdict, detail: str) -> ServerCheck:
    return ServerCheck(name=name, verdict=verdict, detail=detail)


def _token_s(answer: ServerAnswer) -> float:
    """Seconds a token behind the first piece; 0 where all came in one."""
    count = answer.later_count
    return (answer.duration_s - answer.first_token_s) / count if count > 0 else 0.0


def _cache(looked: _Looked) -> ServerCheck:
    """Whether an answer is computed again where its prompt is the same."""
    new_s = min(map(_token_s, looked.fresh))
    again_s = min(map(_token_s, looked.again[1:]))
    if not new_s:
        return _check("cache", "unknown", "answers come in one piece: no time between their tokens")
    said = (
        f"{format_seconds(again_s)} a token where the prompt was asked before, {format_seconds(new_s)} else"
    )
    return _check("cache", "broken" if again_s < _CACHED * new_s else "kept", said)


def _drafts(looked: _Looked) -> ServerCheck:
    """Whether the server says that it drafts, or easy text is written faster, or comes in groups of tokens."""
    told = sum(answer.drafted_tokens or 0 for answer in (*looked.fresh, *looked.again, *looked.easy))
    if told:
        return _check("drafts", "broken", f"{_SAYS} {told} tokens")
    other, easy = ([_token_s(answer) for answer in side] for side in (looked.fresh, looked.easy))
    if not min(easy) or not min(other):
        return _check("drafts", "unknown", "answers come in one piece: no time between their tokens")
    said = f"{format_seconds(min(easy))} a token of easy text, {format_seconds(min(other))} of other text"
    grouped = [sorted(answer.together_ratio for answer in side)[1] for side in (looked.easy, looked.fresh)]
    if grouped[0] > grouped[1] + TOGETHER:
        said += f"; {grouped[0]:.0%} of the easy tokens came with the one before, {grouped[1]:.0%} of others"
        return _check("drafts", "broken", said)
    is_faster = min(other) > _GUESSED * min(easy) and min(other) > max(easy)
    return _check("drafts", "broken" if is_faster else "kept", said)


def _bunching(looked: _Looked) -> ServerCheck:
    """Whether tokens come one by one, whatever the text."""
    shares = sorted(answer.together_ratio for answer in looked.fresh)
    pieces = sum(len(answer.counts) for answer in looked.fresh)
    tokens = sum(answer.new_tokens for answer in looked.fresh)
    said = f"{shares[1]:.0%} of the tokens came with the one before"
    if tokens > 2 * pieces:
        return _check("bunching", "broken", f"{tokens} tokens came in {pieces} pieces")
    ends = sorted((answer.duration_s - answer.first_token_s) / answer.duration_s for answer in looked.fresh)
    if ends[1] < _AT_THE_END:
        return _check("bunching", "broken", f"all tokens came within the last {ends[1]:.0%} of the wait")
    return _check("bunching", "broken" if shares[1] > TOGETHER else "kept", said)


def _tokens(looker: _Looker, looked: _Looked) -> ServerCheck:
    """Whether answers have the tokens that the server counts: by its tokenizer, or by what it says of them as a prompt."""
    told = sum(answer.new_tokens for answer in looked.easy)
    found = 0
    for answer in looked.easy:
        count = looker.server.dialect.count_tokens(answer.text) if answer.text.strip() else None
        if count is None and answer.text.strip():
            around, whole = (looker.ask(text, 1).prompt_tokens for text in ("a", answer.text))
            count = None if around is None or whole is None else max(0, whole - around + 1)
        if count is None:
            return _check("tokens", "unknown", "the server has no tokenizer that tells, or wrote nothing")
        found += count
    said = f"the server counts {told} tokens in its answers, its tokenizer {found}"
    return _check("tokens", "broken" if told > _COUNTED * found + 2 else "kept", said)


def _reading(looker: _Looker) -> dict[str, ServerCheck]:
    """Whether longer prompts take longer, and whether a prompt that was read before is read again.

    Lengths double until a prompt takes a second, or the context is full.
    """
    room = (looker.server.described.context_tokens or 1024) - 8
    waits_s: dict[int, float] = {}
    prompt: str | tuple[int, ...] = ""
    count = _SHORT
    while count <= min(room, _MOST_PROMPT) and (len(waits_s) < _LENGTHS or waits_s[count // 2] < _PROMPT_S):
        if len(waits_s) >= _LENGTHS and looker.left_s < 4 * _WAITS * waits_s[count // 2]:
            break
        for _ in range(_WAITS):
            prompt = looker.new(count)
            waits_s[count] = min(waits_s.get(count, inf), looker.wait_s(prompt)[0])
        count *= 2
    if len(waits_s) < _LENGTHS:
        unknown = f"its context of {room + 8} tokens is too short to tell"
        return {name: _check(name, "unknown", unknown) for name in ("prompts", "prefixes")}
    long = max(waits_s)
    short_s, mid_s, long_s = (waits_s[length] for length in (_SHORT, long // 2, long))
    said = ", ".join(f"{format_seconds(waits_s[length])} of {length}" for length in (_SHORT, long // 2, long))
    is_flat = (long_s - mid_s) * _MOST_PER_S < long // 2
    if is_flat or (mid_s > _READS * short_s and long_s < _LONGER * mid_s):
        broken = _check("prompts", "broken", f"time to the first token of a prompt: {said} tokens")
        return {
            "prompts": broken,
            "prefixes": _check("prefixes", "unknown", "its prompts take no time to read"),
        }
    found = {"prompts": _check("prompts", "kept", f"time to the first token of a prompt: {said} tokens")}
    repeats = [looker.wait_s(prompt) for _ in range(_WAITS)]
    again_s = min(taken_s for taken_s, _ in repeats)
    told = [answer.cached_tokens for _, answer in repeats]
    said = f"{format_seconds(again_s)} for the prompt of {long} tokens once more"
    if long_s < _READS * short_s:
        found["prefixes"] = _check("prefixes", "unknown", f"its prompts are read too fast to tell; {said}")
    elif again_s > _CACHED * long_s:
        found["prefixes"] = _check("prefixes", "kept", said)
    elif any(told):
        found["prefixes"] = _check(
            "prefixes", "noted", f"{said}, and it says so: {max(filter(None, told))} cached"
        )
    elif 0 in told:
        found["prefixes"] = _check("prefixes", "broken", f"{said}, and it says that none was cached")
    else:
        found["prefixes"] = _check("prefixes", "noted", f"{said}, and it does not say that it was cached")
    return found
