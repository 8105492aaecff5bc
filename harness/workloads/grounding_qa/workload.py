"""Grounded answers as a workload: a whole answer, and samples drawn in one batch."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

from harness.domain.workload import Cost
from harness.errors import WrongAnswerError
from harness.ports import Operation, WorkloadContext
from harness.workloads._described import Described
from harness.workloads._language.generate import Branches, Plan, in_one_batch
from harness.workloads._language.templates import open_chat
from harness.workloads.grounding_qa import sets
from harness.workloads.grounding_qa.answering import Grounded, contains, fill_store, judge, summary
from harness.workloads.grounding_qa.facts import facts, questions
from harness.workloads.grounding_qa.support import Support, evaluate, objections
from harness.workloads.memory_store.reranking import CANDIDATES, relevance, reranked

_FILLER = "The passage that follows tells of bridges, mills and towers, of who designed them and when they opened. "


class State(NamedTuple):
    """An open session, a filled store, questions, and a prompt of a given length to sample from."""

    session: Any
    store: Any
    grounded: Any
    relevance: Any
    questions: list[Any]
    prompt: list[int]
    plan: Any
    sample_count: int


class GroundingWorkload(Described):
    """Retrieval, eight samples, a vote over claims, a checked citation."""

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Tokens read and steps made; each drawn token passes the vocabulary four times (maximum, gap, near, where).

        ``read_tokens`` (of passages and question), ``rerank_tokens`` (of twelve passages, the question once for each
        six) and ``vocab_count`` are those of SmolLM2 on the made-up facts; other models tokenise otherwise and have
        other vocabularies. Six passages are read in two batches, what they begin with and the rest. An answer that is
        settled at once takes three samples of seven tokens. Retrieval scores ``passage_count`` memories of 384 values;
        with ``minilm`` the question, some 14 tokens, goes through an encoder of 10.6 million weights first, else its
        words are hashed.
        """
        n, steps = size["sample_count"], size["new_tokens"] - 1
        prompt, vocab = size["prompt_tokens"], size["vocab_count"]
        resident = 3000 * size["passage_count"]

        def draws(count: float) -> dict[str, Any]:
            return {
                "pass_bytes": 4 * 8.0 * vocab * count,
                "pass_set_bytes": 2 * 4.0 * vocab,
                "numpy_calls_count": 12.0 * count,
                "python_ops_count": 150.0 * count,
                "parallel": False,
                "resident_bytes": resident,
            }

        encoder = 10.6e6 * size["minilm"]
        answer = {**draws(21), "flops_count": 2.0 * 384 * size["passage_count"] + 2 * 14 * encoder}
        answer |= {"sql_statements_count": 8.0, "file_bytes": round(8.6 * encoder), "product_dim": 14 * size["minilm"]}
        return (
            Cost(
                operation="answer",
                prefill_tokens_count=float(size["read_tokens"]),
                decode_steps_count=7.0,
                decode_sequences_count=3,
                depth_tokens=230.0,
                **answer,
            ),
            Cost(
                operation="rerank",
                prefill_tokens_count=float(size["rerank_tokens"]),
                prefill_passes_count=4.0,
                **(answer | draws(CANDIDATES)),
            ),
            Cost(
                operation="samples in one batch",
                prefill_tokens_count=float(prompt),
                decode_steps_count=float(steps),
                decode_sequences_count=n,
                depth_tokens=prompt + steps / 2,
                **draws(n * (steps + 1)),
            ),
        )

    def context_tokens(self, size: Mapping[str, int]) -> int:
        """Context of the model's session: a question with its passages, or a prompt with all its samples.

        1408 more for what is told before a question of relevance, and six passages, also where a token is a byte.
        """
        n = size["sample_count"]
        return max(1024 + 16 * (n + 1), size["prompt_tokens"] + n * size["new_tokens"]) + 256 + 1408

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Fill a store with made-up facts, open the model, read the examples."""
        known = facts(size["passage_count"], context.seed)
        n, new_tokens = size["sample_count"], size["new_tokens"]
        sequences = max(8, n) + 1
        session, template = open_chat(context, context_tokens=self.context_tokens(size), sequence_count=sequences + 7)
        store = fill_store(context, [(f.identifier, f.passage) for f in known], with_meaning=bool(size["minilm"]))
        plan = Plan(new_tokens=new_tokens, seed=context.seed)
        grounded = Grounded(session, store, plan=Plan(new_tokens=12, seed=context.seed))
        prompt = (session.tokenize(_FILLER * (size["prompt_tokens"] // 8 + 1)))[: size["prompt_tokens"]]
        asked = questions(known, size["question_count"], context.seed)
        ranking = relevance(session, template, home=sequences, together=6)
        return State(session, store, grounded, ranking, asked, prompt, plan, n)

    def operations(self, state: State) -> Sequence[Operation]:
        """A whole answer with an early end of the vote; passages found and reranked; samples drawn in one batch."""
        turn = cycle(state.questions)
        arguments = (state.session, state.prompt, state.sample_count, state.plan)

        def rerank(text: str) -> object:
            return reranked(state.store.retrieve(text, top_k=CANDIDATES), text, state.relevance)

        return (
            Operation("answer", lambda: state.grounded.ask(next(turn))),
            Operation("rerank", lambda: rerank(next(turn).text)),
            Operation("samples in one batch", lambda: in_one_batch(*arguments)),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """What is true whatever the model says.

        The evidence is among the passages retrieved; the same seed gives the same samples; a citation said to support
        its claim does so in the store, read anew. How many of the batch's samples differ from one drawn alone is
        counted. WrongAnswerError where one of these fails.
        """
        arguments = (state.session, state.prompt, state.sample_count, state.plan)
        batch, again = in_one_batch(*arguments), in_one_batch(*arguments)
        if [s.tokens for s in batch] != [s.tokens for s in again]:
            raise WrongAnswerError("the same seed gave other samples")
        grounded = Grounded(state.session, state.store, plan=state.plan._replace(new_tokens=12))
        judged = []
        found = 0
        for question in state.questions:
            answer = grounded.ask(question)
            judged.append(judge(question, answer))
            sources = [h.memory.source for h in state.store.retrieve(question.text, top_k=3)]
            found += not question.source or question.source in sources
            if answer.citation.supports:
                texts = [m.memory.content for m in state.store.search(f'"{question.subject}"')]
                if not any(contains(t, answer.text) and not objections(question.claim(answer.text), t) for t in texts):
                    raise WrongAnswerError(f"{answer.text!r} was said to stand in a passage, and does not")
        if found < len(state.questions):
            raise WrongAnswerError(f"the evidence of {len(state.questions) - found} questions was not retrieved")
        branches = Branches(state.session, state.prompt)
        differ = sum(s.tokens != branches.draw([n], state.plan)[0].tokens for n, s in enumerate(batch))
        return {"batch_differs_count": differ, "sample_count": state.sample_count, **summary(judged)}

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """Support on held-out cases; answers and abstention on made-up facts, and on LoCoMo and TruthfulQA if there."""
        session, template = open_chat(context, context_tokens=4096, sequence_count=23, output_tokens=512)
        support = Support(session, template, home=9, together=6)
        files = [*context.data_files("TruthfulQA*.csv"), *context.data_files("locomo*.json")]
        found = evaluate(support, context.share(2 + len(files)))
        context.tell(found)
        found["made-up facts"] = sets.made_up(session, context.share(4 + len(files)), support)
        for at, path in enumerate(files):
            context.tell(found)
            judged = sets.truthful if path.suffix == ".csv" else partial(sets.locomo, support=support)
            # The last ones, of long talks, take most of the time.
            found[path.stem] = judged(session, context.share(2 * (len(files) - at) - 1), path, template)
        session.close()
        return found
