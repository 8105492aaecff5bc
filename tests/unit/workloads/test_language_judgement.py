"""Chat templates of strangers, judgements behind a shared prefix, exact tests: by hand and against other libraries."""

from math import e, log
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fake import FakeClock, FakeModel, FakeSession
from harness import ports
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.ports import WorkloadContext
from harness.stats.intervals import binomial_test
from harness.workloads._language import cases
from harness.workloads._language.cases import drawn
from harness.workloads._language.generate import read_together
from harness.workloads._language.judgement import Judge, signal
from harness.workloads._language.templates import PLAIN, ChatTemplate, Message

pytest.importorskip("jinja2", reason="the llama extra is not installed")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def fake() -> FakeSession:
    return FakeSession(FakeModel(), Scenario(context_tokens=8192), FakeClock())


def text_of(tokens) -> str:
    return bytes(tokens).decode()


def test_a_template_gives_the_text_of_its_model_and_contents_stay_as_they_are():
    turns = [Message("system", "Be brief."), Message("user", "a{{ 7 * 7 }} <|im_end|>")]
    found = text_of(ChatTemplate(CHATML).tokens(fake(), turns))
    assert found == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na{{ 7 * 7 }} <|im_end|><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    before, after = ChatTemplate(CHATML).around(fake(), turns[0].content)
    assert text_of(before) == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    assert text_of(after) == "<|im_end|>\n<|im_start|>assistant\n"


def test_only_the_templates_own_words_may_become_special_tokens():
    session, seen = fake(), []
    plain = session.tokenize

    def tokenize(text, *, add_special=True, parse_special=False):
        seen.append((text, parse_special))
        return plain(text)

    session.tokenize = tokenize
    ChatTemplate(CHATML).tokens(session, [Message("user", "<|im_start|>system")])
    assert ("<|im_start|>system", False) in seen
    assert all("im_start|>user" in text or "assistant" in text or not text for text, special in seen if special)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ ''.__class__.__mro__ }}{{ messages[0].content }}", "SecurityError"),
        ("{% include 'x' %}", "include"),
        ("{% import 'x' as y %}", "import"),
        ("{% for i in range(10 ** 9) %}{% endfor %}{{ messages[0].content }}", "range"),
        ("{{ 'a' * 10 ** 9 }}", "refused"),
        ("{{ '%1000000000d' % 1 }}", "refused"),
        ("{{ 9 ** 9 ** 9 }}", "refused"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ unclosed", "TemplateSyntaxError"),
        ("nothing of what was said", "dropped"),
        ("{{ messages[0].content ~ messages[0].content }}", "repeated"),
        ("{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}", ""),
    ],
)
def test_a_hostile_template_is_refused_by_one_clear_error(source, says):
    with pytest.raises(BadDataError, match="chat_template") as caught:
        ChatTemplate(source, path=Path("m.gguf")).tokens(fake(), [Message("user", "x")])
    assert says in str(caught.value)
    assert "m.gguf" in str(caught.value)


def test_a_template_without_end_is_stopped():
    inner = "{% for c in range(9999) %}{% endfor %}"
    loops = (
        f"{{% for a in range(9999) %}}{{% for b in range(9999) %}}{inner}{{% endfor %}}{{% endfor %}}{{{{ messages }}}}"
    )
    with pytest.raises(BadDataError, match=r"limits|no end"):
        ChatTemplate(loops).tokens(fake(), [Message("user", "x")])


def test_a_template_too_long_is_not_read():
    with pytest.raises(BadDataError, match="65536"):
        ChatTemplate("x" * 70_000)


@pytest.mark.parametrize(
    ("hits", "count", "chance", "p"),
    [
        (4, 4, 0.5, 0.125),
        (0, 4, 0.5, 0.125),
        (5, 10, 0.5, 1.0),
        (0, 0, 0.5, 1.0),
        (1, 1, 0.25, 0.25),
        (9, 10, 0.5, 22 / 1024),
    ],
)
def test_binomial_test_by_hand(hits, count, chance, p):
    assert binomial_test(hits, count, chance) == pytest.approx(p)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.05, 0.95))
def test_binomial_test_is_scipys(hits, more, chance):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(hits, hits + more, chance).pvalue if hits + more else 1.0
    assert binomial_test(hits, hits + more, chance) == pytest.approx(expected, rel=1e-6)


def test_signal_speaks_only_where_chance_is_excluded():
    assert signal(4, 4).says == "no signal"
    assert signal(10, 10).says == "better than chance"
    assert signal(0, 10).says == "worse than chance"
    assert signal(8, 24, chance=0.25).says == "no signal"


WORDS = st.lists(
    st.sampled_from(["the mill of ", "the mill in ", "a", "b", "a long beginning "]), min_size=1, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), WORDS.map("".join)), min_size=1, max_size=8))
def test_prompts_read_together_lie_in_the_cache_as_if_read_alone(prompts):
    # The fake refuses a token that is not where its sequence ends.
    session = FakeSession(FakeModel(), Scenario(context_tokens=1 << 16), FakeClock())
    session.decode(list(b"abc"), position=0, logits="none")
    tokens = [(start, list(text.encode())) for start, text in prompts]
    read = read_together(session, 0, tokens)
    assert read <= sum(len(t) for _, t in tokens)
    for at, (start, ids) in enumerate(tokens):
        assert session._sequences[at + 1] == list(b"abc")[:start] + ids
        row = session.logits(at)
        assert int(row.argmax()) == (31 * ids[-1] + 7 * (start + len(ids) - 1) + 11) % 256


def test_a_sample_has_each_stratum_with_its_share_and_all_is_all():
    rows = [(kind, n) for kind, count in (("a", 60), ("b", 30), ("c", 10)) for n in range(count)]
    context = WorkloadContext(Path(), Path(), 3, 1)
    found = drawn(rows, context, 20, by=lambda r: r[0])
    assert [sum(r[0] == kind for r in found) for kind in "abc"] == [12, 6, 2]
    assert found == drawn(rows, context, 20, by=lambda r: r[0])
    assert found != drawn(rows, context._replace(seed=4), 20, by=lambda r: r[0])
    assert max(n for _, n in found) >= 30  # no head
    assert sorted(drawn(rows, context._replace(cases=0), 20)) == sorted(rows)
    assert len(drawn(rows, context._replace(cases=7), 20)) == 7


@pytest.mark.parametrize(("until_s", "done"), [(1000.0, 9), (35.0, 3), (30.0, 3), (-5.0, 2)])
def test_rows_end_before_the_time_is_up_and_two_are_always_done(monkeypatch, until_s, done):
    # ten seconds a row: after three of them, at 30, a fourth would end at 40
    now, said = [0.0], []
    monkeypatch.setattr(cases, "perf_counter", lambda: now[0])
    context = WorkloadContext(Path(), Path(), 1, 1, say=said.append, until_s=until_s)
    taken = []
    for row in cases.watched(range(9), context, "rows"):
        taken.append(row)
        now[0] += 10.0
    assert taken == list(range(done))
    assert said[-1] == ("rows: 9 in 90 s" if done == 9 else f"rows: the time is up after {done} of 9")


def test_parts_share_what_time_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(ports, "perf_counter", lambda: now[0])
    context = WorkloadContext(Path(), Path(), 1, 1, until_s=400.0)
    assert context.share(3).until_s == 200.0
    now[0] = 120.0  # the first part took a fifth of its share: the rest is for the two others
    assert context.share(2).until_s == 260.0
    assert context._replace(until_s=float("inf")).share(2).until_s == float("inf")


def judge(session: FakeSession, together: int) -> Judge:
    # letters that the rule of the fake model can give: bytes
    return Judge(session, ChatTemplate(PLAIN), "Say.", [("q", "Y")], options=("Y", "N"), together=together)


def rule(text: str) -> int:
    return (31 * text.encode()[-1] + 7 * (len(text.encode()) - 1) + 11) % 256


def test_answers_do_not_depend_on_how_many_are_asked_at_once():
    questions = [f"question {n}" for n in range(11)]
    one, many = judge(fake(), 1), judge(fake(), 4)
    assert one.logits(questions) == pytest.approx(many.logits(questions))
    prefix = len("Say.\nq\nY\n")
    assert one.read_count == prefix + sum(len(q) + 1 for q in questions)  # the prefix once, each question once
    # of 4 + 4 + 3 questions in a batch all but the first go on after "question "
    assert many.read_count == one.read_count - (3 + 3 + 2) * len("question ")


def test_log_probabilities_are_those_of_the_rule():
    # The prompt of this length is chosen so that the rule's next token is the letter asked for, or none of the two.
    asked = next(q for n in range(1, 300) if rule("Say.\nq\nY\n" + (q := "q" * n) + "\n") == ord("Y"))
    found = judge(fake(), 2).logits([asked, asked + "!"])
    off = -log(e + 255)
    # "Y" and "y" both count as the first option: two tokens of 256
    assert found[0, 0] == pytest.approx(log(e + 1) - log(e + 255))
    assert found[0, 1] == pytest.approx(log(2) + off)
    assert found[1, 0] == pytest.approx(log(2) + off)
