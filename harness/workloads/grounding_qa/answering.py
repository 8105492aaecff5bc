"""Answers from retrieved passages: samples, a vote over their claims, a citation that is checked, abstention."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import comb, exp
from time import perf_counter
from typing import Any, Final, NamedTuple

from harness.ports import Session, WorkloadContext
from harness.stats.intervals import share_interval
from harness.workloads._language.generate import Branches, Plan, Sample, line_end
from harness.workloads._language.judgement import Judge
from harness.workloads._language.texts import text_table
from harness.workloads.grounding_qa.facts import Question
from harness.workloads.grounding_qa.support import Support, objections
from harness.workloads.memory_store import minilm
from harness.workloads.memory_store.embedders import Embedder, HashingEmbedder
from harness.workloads.memory_store.reranking import CANDIDATES, reranked
from harness.workloads.memory_store.store import Memory, MemoryStore, NewMemory

WAVES: Final = (3, 1, 2, 2)
"""Samples drawn before each look at the vote; 8 in all. Three that agree leave a doubt of 1/16, and end it."""

_SHOWN: Final = 3
_TOLD: Final = text_table("instructions")["answers"]
_CITED: Final = re.compile(r"\[\s*(\d+)")
_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_SIGNS: Final = re.compile(r"[^\w\s]")


def doubt(first: int, second: int) -> float:
    """Probability that the runner-up is the more likely answer, with a uniform prior on the two's shares.

    P(p < 1/2) for p ~ Beta(first + 1, second + 1), which is a binomial tail: with n = first + second + 1,
    sum over k from first + 1 to n of C(n, k) / 2**n. Source: Aggarwal et al. 2023, "Let's Sample Step by Step".
    """
    n = first + second + 1
    return float(sum(comb(n, k) for k in range(first + 1, n + 1)) / 2**n)


def vote_in_waves(
    draw: Callable[[Sequence[int]], Sequence[Hashable]], waves: Sequence[int], *, tolerance: float = 0.05
) -> tuple[Hashable, int]:
    """The answer that most samples give, and how many were drawn until that was settled.

    ``draw`` gives the answers of the samples of some numbers, as one batch of a language model; after each wave of so
    many the vote is looked at. It ends when ``doubt`` falls to ``tolerance``; 0 ends it only when no sample left could
    change the answer, and then the answer is that of all samples.
    """
    counts: Counter[Hashable] = Counter()
    most_count, taken = sum(waves), 0
    for size in waves:
        counts.update(draw(range(taken, taken + size)))
        taken += size
        first, second = ([c for _, c in counts.most_common(2)] + [0])[:2]
        is_decided = first - second > most_count - taken  # whatever the samples still to come say
        if is_decided or doubt(first, second) <= tolerance:
            break
    return counts.most_common(1)[0][0], taken


class Citation(NamedTuple):
    """What an answer cites, judged as by ALCE (Gao et al. 2023, arXiv:2305.14627, section 3).

    Attributes:
        exists: Whether each number names a passage that was shown, and the store holds it, word for word.
        supports: Whether the passages cited, put together, support the claim: ALCE's citation recall.
        cited_count: Numbers cited.
        precise_count: Those that support the claim alone, or without which the others do not; none where ``supports``
            is false. ALCE's citation precision is their share.
        contains: Whether a passage cited has the answer's words: the plain baseline.
    """

    exists: bool
    supports: bool
    cited_count: int
    precise_count: int
    contains: bool


class Answer(NamedTuple):
    """One question answered.

    Attributes:
        text: The answer that won the vote, normalised.
        confidence: Mean over the samples of (1 if it gave this answer) x (geometric mean probability of its tokens);
            times the probability that a passage shown supports the claim, where a model judges that.
        citation: Of the first sample that gave this answer.
        is_grounded: Whether any passage shown supports the claim, whatever the model cites.
        sample_count: Samples taken.
        read_count: Prompt tokens read, the examples' left out: they stay in the cache.
        drawn_count: Tokens drawn.
        duration_s: From the question to the answer.
    """

    text: str
    confidence: float
    citation: Citation
    is_grounded: bool
    sample_count: int
    read_count: int
    drawn_count: int
    duration_s: float


def normalise(text: str) -> str:
    """Lower case, no signs, no articles, single spaces (SQuAD's rule, Rajpurkar et al. 2016)."""
    return " ".join(_ARTICLES.sub(" ", _SIGNS.sub(" ", text.lower())).split())


def contains(passage: str, words: str) -> bool:
    """Whether the normalised words stand in the normalised passage, in one run and whole."""
    wanted = normalise(words)
    return bool(wanted) and f" {wanted} " in f" {normalise(passage)} "


def fill_store(
    context: WorkloadContext,
    passages: Sequence[tuple[str, str]],
    name: str = "passages",
    *,
    with_meaning: bool = True,
    capacity: int = 0,
) -> MemoryStore:
    """A store of (identifier, text) in the scratch folder, found by BM25 and vectors of MiniLM or of hashed words.

    Raises:
        FetchError: MiniLM's weights are not in the cache and could not be fetched; MissingPackageError: ``tokenizers``.
    """
    embedder: Embedder = HashingEmbedder(384)
    if with_meaning:
        embedder = minilm.MiniLM(context.cache / "encoders")
    store = MemoryStore(context.folder / f"{name}.db", embedder, capacity=capacity or max(1, len(passages)))
    if passages:
        store.store_many(NewMemory(text, source=identifier) for identifier, text in passages)
    return store


class Grounded:
    """Answers questions over a memory store with one language model.

    Args:
        session: With nine sequences, as many outputs, and room for prompt + 8 answers; sequence 0 keeps the examples.
        store: Where the passages are; a memory's ``source`` is the passage's identifier.
        plan: Of the samples; the end of a line ends an answer.
        examples: Shown before every question.
        support: Judges whether passages support claims, in sequences of the session that the samples leave free; None:
            the exact checks alone, on passages that contain the claim's words.
        relevance: Judges whether passages answer questions, in sequences of its own: what is found is reranked by it.
    """

    def __init__(
        self,
        session: Session,
        store: MemoryStore,
        *,
        plan: Plan | None = None,
        examples: str = _TOLD["passages"],
        support: Support | None = None,
        relevance: Judge | None = None,
    ) -> None:
        self._session, self._store, self._relevance = session, store, relevance
        self._plan = (plan or Plan(new_tokens=12))._replace(ends=line_end(session))
        self._examples, self._support = session.tokenize(examples), support
        self.read_examples()

    def read_examples(self) -> None:
        """Read them into sequence 0; needed again after something else has used the session."""
        self._session.clear()
        self._session.decode(self._examples, position=0, logits="none")
        for judge in (self._support and self._support.judge, self._relevance):
            if judge:
                judge.forget()

    def ask(self, question: Question, *, waves: Sequence[int] = WAVES) -> Answer:
        """Answer one question; ``waves`` of one number draw all samples at once, in one batch, with no early end."""
        start = perf_counter()
        # The best passage stands last, next to the question: small models read what is near.
        hits = self._store.retrieve(question.text, top_k=CANDIDATES if self._relevance else _SHOWN)
        hits = reranked(hits, question.text, self._relevance)[:_SHOWN] if self._relevance else hits
        shown = [hit.memory for hit in reversed(hits)]
        lines = "".join(f"[{at + 1}] {memory.content}\n" for at, memory in enumerate(shown))
        body = f"{lines}Question: {question.text}\nAnswer: {question.stem}".rstrip()
        prompt = [*self._examples, *self._session.tokenize(body, add_special=False)]
        branches = Branches(self._session, prompt, kept_count=len(self._examples))
        samples: list[Sample] = []
        said: list[str] = []

        def draw(numbers: Sequence[int]) -> list[str]:
            drawn = branches.draw(numbers, self._plan)
            samples.extend(drawn)
            said.extend(self._session.detokenize(s.tokens) for s in drawn)
            return [claimed(text) for text in said[-len(drawn) :]]

        winner = str(vote_in_waves(draw, waves, tolerance=0.1)[0])
        agreeing = [(s, text) for s, text in zip(samples, said, strict=True) if claimed(text) == winner]
        sure = sum(exp(s.log_probability / s.step_count) for s, _ in agreeing)
        chances = self._chances(question.claim(winner), question, [memory.content for memory in shown])
        best = max(chances, default=0.0)
        return Answer(
            text=winner,
            confidence=sure / len(samples) * (best if self._support else 1.0),
            citation=self._check(agreeing[0][1], question, winner, shown, chances),
            is_grounded=best >= 0.5,
            sample_count=len(samples),
            read_count=branches.read_count,
            drawn_count=sum(s.step_count for s in samples),
            duration_s=perf_counter() - start,
        )

    def _check(
        self, said: str, question: Question, winner: str, shown: Sequence[Memory], chances: Sequence[float]
    ) -> Citation:
        """Citations as ALCE judges them, by the judge of support."""
        numbers = [int(n) - 1 for n in dict.fromkeys(_CITED.findall(said))]
        cited = [at for at in numbers if 0 <= at < len(shown)]
        kept = all(self._store.get(shown[at].memory_id).content == shown[at].content for at in cited)
        claim = question.claim(winner)

        def supports(places: Sequence[int]) -> bool:
            if len(places) == 1:
                return chances[places[0]] >= 0.5
            joined = " ".join(shown[p].content for p in places)
            return bool(places) and self._chances(claim, question, [joined])[0] >= 0.5

        whole = supports(cited)
        precise = [whole and (supports([at]) or not supports([p for p in cited if p != at])) for at in cited]
        return Citation(
            exists=bool(cited) and len(cited) == len(numbers) and kept,
            supports=whole,
            cited_count=len(numbers),
            precise_count=sum(precise),
            contains=any(contains(shown[at].content, winner) for at in cited),
        )

    def _chances(self, claim: str, question: Question, passages: Sequence[str]) -> list[float]:
        """How likely each passage supports the claim."""
        if self._support:
            return [s.probability for s in self._support.check_many([(claim, passage) for passage in passages])]
        return [float(tells(passage, claim, question)) for passage in passages]


def tells(passage: str, claim: str, question: Question) -> bool:
    """Whether a passage tells a claim, without a model: it contains its answer and subject, and no check objects."""
    answer = claim.removeprefix(question.stem) if question.stem else claim.removeprefix(question.text)
    told = contains(passage, answer) and (not question.subject or contains(passage, question.subject))
    return told and not objections(claim, passage)


def claimed(said: str) -> str:
    """The answer in what was said: what stands before the citation or the end of the sentence, normalised."""
    return normalise(re.split(r"\[|\.\s|\.$|,", said, maxsplit=1)[0])


class Judged(NamedTuple):
    """An answer beside the truth. ``is_right`` is False for every answer to a question that no passage answers."""

    question: Question
    answer: Answer
    is_right: bool


def judge(question: Question, answer: Answer) -> Judged:
    """Right when the answer is the true one, word for word after normalising."""
    return Judged(question, answer, bool(question.answer) and answer.text == normalise(question.answer))


def summary(judged: Sequence[Judged]) -> Mapping[str, Any]:
    """Accuracy where an answer exists, citations, cost: plain shares and means over all questions."""
    answerable = [j for j in judged if j.question.answer]
    citations = [j.answer.citation for j in judged]
    count, cited_count = len(judged), sum(c.cited_count for c in citations)
    return {
        "question_count": count,
        "answerable_count": len(answerable),
        "accuracy": sum(j.is_right for j in answerable) / max(1, len(answerable)),
        "citation_exists_ratio": sum(c.exists for c in citations) / count,
        "citation_recall": share_interval(sum(c.supports for c in citations), count)[:3],
        "citation_precision": share_interval(sum(c.precise_count for c in citations), cited_count)[:3],
        "citation_contains_answer": share_interval(sum(c.contains for c in citations), count)[:3],
        "citation_contains_when_wrong": _share(j.answer.citation.contains for j in judged if not j.is_right),
        "citation_supports_when_right": _share(j.answer.citation.supports for j in judged if j.is_right),
        "citation_supports_when_wrong": _share(j.answer.citation.supports for j in judged if not j.is_right),
        "grounded_when_right": _share(j.answer.is_grounded for j in judged if j.is_right),
        "grounded_when_wrong": _share(j.answer.is_grounded for j in judged if not j.is_right),
        "samples_per_answer": sum(j.answer.sample_count for j in judged) / count,
        "read_tokens_per_answer": sum(j.answer.read_count for j in judged) / count,
        "drawn_tokens_per_answer": sum(j.answer.drawn_count for j in judged) / count,
        "seconds_per_answer": sum(j.answer.duration_s for j in judged) / count,
    }


def _share(values: Iterable[bool]) -> float:
    counted = list(values)
    return sum(counted) / max(1, len(counted))


def abstention(judged: Sequence[Judged], *, needs_support: bool = False) -> dict[str, float | None]:
    """Fit the threshold on the first half of the questions, answer the second half with it, a fifth wrong at most.

    Their order is any that the outcome does not depend on. Where it ``needs_support``, an answer must also be grounded:
    some passage shown contains its claim.

    Returns:
        ``threshold`` (None: nothing may be answered), and on the second half ``coverage``, ``accuracy`` among the
        answered (None where there are none), and ``refused_unanswerable``: the share abstained from where nothing was
        to be known.
    """
    from harness.stats.calibration.selective import answer_threshold

    def confidence(j: Judged) -> float:
        return j.answer.confidence if j.answer.is_grounded or not needs_support else 0.0

    half = len(judged) // 2
    fit, held = judged[:half], judged[half:]
    threshold = answer_threshold([confidence(j) for j in fit], [j.is_right for j in fit], 0.2, allow_few=True)
    answered = [j for j in held if confidence(j) >= threshold]
    unanswerable = [j for j in held if not j.question.answer]
    return {
        "threshold": threshold if threshold < float("inf") else None,
        "coverage": len(answered) / len(held),
        "accuracy": sum(j.is_right for j in answered) / len(answered) if answered else None,
        "refused_unanswerable": (
            sum(confidence(j) < threshold for j in unanswerable) / len(unanswerable) if unanswerable else None
        ),
    }
