"""Speculation with the verifier elsewhere: a small model drafts here, a server verifies by one request a draft.

With E the tokens of a cycle (Leviathan et al. 2023, equation 1), m the tokens drafted, d the time of one here, r the
round trip and t(k) the server's time for k tokens whose prefix it holds, the speed is E / (m d + r + t(m + 1)), which
is the law of ``fit --verifier``. It is compared with the server's own plain generation, which pays one round trip
for a whole answer: a request of k tokens costs ``verify_s[k]`` = r + t(k), and ``verify_s[1]`` is a plain token's time.
"""

import time
import timeit
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from harness.domain.drafting import Decoding
from harness.errors import EngineError
from harness.measure.jobs.speculate import PLAIN, SpeculationJob, choose, turns
from harness.measure.jobs.timed import Timed
from harness.runtimes.llamacpp.draft_policy import AdaptivePolicy, FixedPolicy
from harness.runtimes.llamacpp.drafters import ModelDrafter, Proposal
from harness.runtimes.llamacpp.session import LlamaSession
from harness.runtimes.llamacpp.speculative import Cycle, decoding_of, probe
from harness.runtimes.server import RUNTIME
from harness.runtimes.server.answer import Request
from harness.runtimes.server.stream import KEY_VARIABLE
from harness.runtimes.server.verifier import Verifier, is_text

VERIFY_SIZES: Final = (2, 4, 8, 16)


class VerifierJob(SpeculationJob, frozen=True, kw_only=True):
    """Speculation whose ``target`` is a server's address; ``model`` is its name there, where it has several."""

    model: str = ""
    key_variable: str = KEY_VARIABLE


class TripPolicy(AdaptivePolicy):
    """The adaptive policy where a plain step would cost a trip: plain answers keep the time of a plain token honest."""

    def limit(self) -> int:
        """Most tokens to draft now; 0 where it does not pay."""
        self._since_plain_count = 0
        return super().limit()

    def pass_tokens(self, size: int) -> int:
        """Nothing is filled up: padding would go over the line."""
        return size


class Remote:
    """The decoding loop over text; the draft's tokens are counted on both sides, so that rates are of the same text.

    ``text`` is the last answer's.
    """

    def __init__(self, verifier: Verifier, drafter: ModelDrafter, policy: FixedPolicy) -> None:
        self.verifier, self.drafter, self.draft, self.policy = verifier, drafter, drafter.session, policy
        self.text = ""

    def tokens(self, prompt: str, text: str) -> list[int]:
        """Tokens of ``text`` where it follows ``prompt``."""
        return self.draft.tokenize(prompt + text)[len(self.draft.tokenize(prompt)) :]

    def plain(self, prompt: str, new_tokens: int) -> Decoding:
        """The server's own greedy answer, streamed; its time begins with the first token."""
        answer = self.verifier.server.ask(Request(prompt=prompt, new_tokens=new_tokens, reuse=True))
        self.text, tokens = answer.text, self.tokens(prompt, answer.text)
        duration_s = answer.duration_s - answer.first_token_s
        if len(tokens) < 2 or duration_s <= 0:
            raise EngineError(f"the server's plain answer has {len(tokens)} tokens: no time of a token can be told")
        cycles = [Cycle(0, 0, 0.0, duration_s / (len(tokens) - 1))] * (len(tokens) - 1)
        return decoding_of(tokens, duration_s, answer.first_token_s, cycles, 1)

    def speculative(self, prompt: str, new_tokens: int) -> Decoding:
        """The same by drafts, until they stop paying: the rest is then the server's own plain generation."""
        now_s, policy = time.perf_counter, self.policy
        self.drafter.forget()
        if policy.limit() == 0:
            answer = self.plain(prompt, new_tokens)
            self._without_draft(prompt, prompt + self.text, answer.decoded_count)
            return answer
        begun_s = now_s()
        text = prompt + "".join(self.verifier.verify(prompt, ""))
        started_s = now_s()
        cycles: list[Cycle] = []
        count = 1
        while count < new_tokens:
            history = self.draft.tokenize(text)
            t0_s = now_s()
            room = min(policy.limit(), new_tokens - count - 1)
            proposal = self.drafter.propose(history, room, policy.go_on) if room > 0 else Proposal([], [], [])
            drafted = self._words(history, proposal.tokens)
            t1_s = now_s()
            found = self.verifier.verify(text, drafted) if drafted or count == new_tokens - 1 else []
            if drafted and not found:  # the server's tokens go across the beginning of the draft
                found, drafted = self.verifier.verify(text, ""), ""
            found = found[: new_tokens - count]
            known = next((i for i, token in enumerate(found) if not is_text(token)), len(found))
            text += "".join(found[:known])
            count += known
            t2_s = now_s()
            if known:
                accepted = min(known - (known == len(found)), len(proposal.tokens)) if drafted else 0
                cycles.append(Cycle(len(proposal.tokens), accepted, t1_s - t0_s, t2_s - t1_s))
                policy.saw_cycle(proposal.buckets, accepted, t1_s - t0_s, t2_s - t1_s)
            if known == len(found) and found:
                continue
            # Off, or the server's next token is no text (an end, a part of a character): it goes on alone.
            rest = self.verifier.rest(text, new_tokens - count)
            others = len(self.tokens(text, rest))
            cycles += [Cycle(0, 0, 0.0, (now_s() - t2_s) / max(others, 1))] * others
            text += rest
            break
        duration_s = now_s() - started_s
        self._without_draft(prompt, text, sum(c.drafted == 0 for c in cycles))
        self.text = text[len(prompt) :]
        tokens, widest = self.tokens(prompt, self.text), max((c.drafted + 1 for c in cycles), default=1)
        return decoding_of(tokens, duration_s, started_s - begun_s, cycles, widest)

    def _without_draft(self, prompt: str, text: str, count: int) -> None:
        """So many tokens came plainly: a pause gets shorter, and when it is over the draft is asked about ``text``."""
        for _ in range(count):
            self.policy.saw_cycle((), 0, 0.0, self.policy.costs.verify_s(1) if self.policy.costs else 0.0)
        probe(self.drafter, self.policy, self.draft.tokenize(text), len(self.draft.tokenize(prompt)) + 1)

    def _words(self, history: list[int], drafted: list[int]) -> str:
        """Text of the drafted tokens up to one that is no whole character."""
        tail = history[-8:]
        return self.draft.detokenize([*tail, *drafted])[len(self.draft.detokenize(tail)) :].partition("\ufffd")[0]

    def verify_s(self, prompt: str, text: str) -> dict[int, float]:
        """Seconds of a request over k new tokens of ``text``, its prefix kept, for each size k that the text has."""
        ids, known = self.draft.tokenize(prompt + text), len(self.draft.tokenize(prompt))
        before = self.draft.detokenize(ids[:known])
        found = {}
        for size in (k for k in VERIFY_SIZES if known + k <= len(ids)):
            words = self._words(ids[:known], ids[known : known + size])
            keep, ask = (partial(self.verifier.verify, before, of) for of in ("", words))
            found[size] = min(timeit.repeat(ask, keep, number=1, repeat=3))
        return found


def run_verified(arguments: Mapping[str, Any], emit: Callable[..., None]) -> None:
    """Child's entry; events as :func:`harness.measure.jobs.speculate.run`.

    Raises:
        RefusedError: The server gives no log-probabilities of a prompt.
        EngineError: The server or the draft failed.
    """
    job = msgspec.convert(arguments, VerifierJob)
    server = RUNTIME.attach(job.target, model=job.model, key_variable=job.key_variable)
    verifier = Verifier(server)
    emit("engine", server.identity(job.scenario))
    timed = Timed(emit, pid=server.pid)
    pilots, prompts = job.split()

    def make(name: str) -> ModelDrafter:
        return ModelDrafter(LlamaSession(Path(name), job.draft_scenario or job.scenario, batch_tokens=512))

    first = make(job.drafts[0])
    with closing(first.session):
        remote = Remote(verifier, first, FixedPolicy(0))
        heard = [(p, remote.plain(p, max(job.pilot_tokens, VERIFY_SIZES[-1] + 2)), remote.text) for p in pilots]
        trip_s = verifier.round_trip_s()
        verify_s = {1: median(a.duration_s / a.decoded_count for _, a, _ in heard)}
        for size, seconds in remote.verify_s(pilots[0], heard[0][2]).items():
            verify_s[size] = max(seconds, *verify_s.values()) if size > 2 else seconds
        answers = [(remote.draft.tokenize(prompt), answer.tokens) for prompt, answer, _ in heard]
    advice, chosen, policy = choose(job, make, answers, verify_s, TripPolicy)
    emit("advice", msgspec.structs.replace(advice, round_trip_s=trip_s))
    drafter = make(chosen)
    with closing(drafter.session):
        remote = Remote(verifier, drafter, policy)
        for prompt, marks in turns(job, prompts):
            told: dict[str, tuple[Decoding, str]] = {}
            for mark in marks:
                ask = remote.plain if mark else remote.speculative
                told[mark] = timed.answer(partial(ask, prompt, job.new_tokens), mark), remote.text
            (slow, own), (fast, other) = told[PLAIN], told[""]
            if policy.costs:
                policy.costs.saw_pass(1, slow.duration_s / slow.decoded_count)
            emit("answer", {"plain": slow, "speculative": fast, "difference": explain(verifier, prompt, own, other)})


def explain(verifier: Verifier, prompt: str, plain: str, other: str) -> dict[str, Any] | None:
    """Where two greedy answers of a server part, and the margin there; None where they are equal.

    The plain answer is sent whole, with nothing of it in the cache, and again with all of it: ``noise`` is the greatest
    difference (nats) of a log-probability between the two. The margin is that of the plain token over the other one,
    1e9 where the other is none of the likeliest; explained is one of at most twice the noise, or below 0.
    """
    if plain == other:
        return None
    at = next((i for i, (a, b) in enumerate(zip(plain, other, strict=False)) if a != b), None)
    if at is None:  # one ends where the other goes on
        return {"at_characters": min(len(plain), len(other)), "explained": False}
    verifier.echo("Another text, so that nothing is kept.")
    whole, again = (verifier.echo(prompt + plain, likeliest=5) for _ in range(2))
    # A token that is a part of a character has no text: what is before the answer is counted from its end.
    first = len(prompt + plain) - sum(map(len, whole.tokens))
    ends = list(accumulate(map(len, whole.tokens), initial=first))[1:]
    index = next(i for i, end in enumerate(ends) if end > len(prompt) + at)
    pairs = zip(whole.tops, again.tops, strict=True)
    noise = max((abs(a[t] - b[t]) for a, b in pairs for t in a.keys() & b.keys() if is_text(t)), default=0.0)
    token, top = whole.tokens[index], whole.tops[index]
    rest = other[ends[index] - len(token) - len(prompt) :]
    rivals = [top[t] for t in top if is_text(t) and t != token and rest.startswith(t)]
    margin = top[token] - max(rivals) if rivals and token in top else 1e9
    return {"at_characters": at, "margin": margin, "noise": noise, "explained": margin <= 2 * noise}
