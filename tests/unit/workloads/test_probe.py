"""Probing: properties by hand, the probe against another solver, controls, and what an induction head is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import EngineError, RefusedError, WrongAnswerError
from harness.ports import WorkloadContext
from harness.workloads._language.activations import Captured, LayerTap
from harness.workloads._language.sampling import token_losses
from harness.workloads.probe import WORKLOAD
from harness.workloads.probe.induction import (
    Head,
    copied,
    null_draw,
    prefix_matching,
    random_tokens,
    without,
)
from harness.workloads.probe.linear import Rows, accuracy_of, control_labels, fit, report, token_rule
from harness.workloads.probe.study import (
    PROPERTIES,
    in_indented_line,
    in_parentheses,
    in_quotes,
    token_labels,
    uncertain,
    word_goes_on,
)


def marks(found):
    return "".join("x" if f else "." for f in found)


@pytest.mark.parametrize(
    ("of_text", "text", "expected"),
    [
        (in_parentheses, "a(b(c)d)e", ".xxxxxx.."),
        (in_parentheses, ")a(b", "..xx"),  # a stray bracket closes nothing
        (in_parentheses, "(a\n\nb", "xxx.."),  # a blank line ends what was never closed
        (in_quotes, 'a"b"c', ".xx.."),
        (in_quotes, 'a"b\nc', ".xx.."),
        (in_indented_line, "a\n    b\nc", "..xxxxxx."),
        (in_indented_line, "   a\n", "....."),
        (word_goes_on, "ab c", "x..."),
        (word_goes_on, "a1b", "..."),
    ],
)
def test_properties_by_hand(of_text, text, expected):
    assert marks(of_text(text)) == expected


@given(st.text(alphabet='ab() "\n', max_size=40), st.sampled_from(sorted(PROPERTIES)))
def test_properties_label_every_character(text, name):
    assert PROPERTIES[name](text).shape == (len(text),)


def test_token_labels_are_those_of_the_last_character():
    # f ( "x" ) -> pieces "f(", "x", ")": open, open, closed
    assert token_labels(["f(", "x", ")"], in_parentheses).tolist() == [True, True, False]
    assert token_labels(["(", "", "a"], in_parentheses).tolist() == [True, True, True]
    assert token_labels(["", ""], in_quotes).tolist() == [False, False]


def planted(n=600, d=5, seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, d)) * [1, 5, 0.2, 1, 1] + [0, 9, 0, -3, 0]).astype(np.float32)
    labels = (x @ np.array([1, 0.2, 3, 0, -1]) - 1.8 > 0) ^ (rng.random(n) < noise)
    return x, labels


def test_probe_is_the_optimum_of_its_loss():
    # At the optimum the gradient of the stated loss is zero: computed here from its definition on standardised inputs.
    x, labels = planted()
    l2 = 0.05
    probe = fit(x, labels, l2=l2)
    mean, deviation = x.mean(0, dtype=float), x.std(0, dtype=float)
    w = probe.weights * deviation
    b = probe.bias + mean @ probe.weights
    z = (x - mean) / deviation
    p = 1 / (1 + np.exp(-(z @ w + b)))
    assert np.allclose(z.T @ (p - labels) / len(x) + l2 * w, 0, atol=2e-3)
    assert np.mean(p - labels) == pytest.approx(0, abs=2e-3)


def test_probe_equals_another_library():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    x, labels = planted()
    z = (x - x.mean(0)) / x.std(0)
    theirs = linear_model.LogisticRegression(C=1 / (0.05 * len(x)), tol=1e-8, max_iter=1000).fit(z, labels)
    ours = fit(z, labels, l2=0.05)
    assert np.allclose(ours.weights, theirs.coef_[0], atol=5e-3)
    assert ours.bias == pytest.approx(theirs.intercept_[0], abs=5e-3)


def test_separable_labels_end_too():
    x = np.array([[-1, 0], [-2, 0], [1, 0], [2, 0]], np.float32)
    probe = fit(x, np.array([False, False, True, True]))
    assert probe.predict(x).tolist() == [False, False, True, True]
    assert np.isfinite(probe.weights).all()


def test_labels_of_one_kind_are_refused():
    with pytest.raises(RefusedError, match="both kinds"):
        fit(np.ones((3, 2), np.float32), np.ones(3, np.bool_))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=40, max_size=200), st.floats(0.2, 0.8), st.integers(0, 99))
def test_control_labels_depend_on_the_token_alone(tokens, share, seed):
    ids = np.array(tokens)
    labels = control_labels(ids, share, seed)
    for token in set(tokens):
        assert len(set(labels[ids == token].tolist())) == 1
    assert labels.mean() <= share


def rows(labels, tokens, x=None, windows=None):
    n = len(labels)
    return Rows(
        x=np.zeros((n, 1), np.float32) if x is None else x,
        tokens=np.array(tokens, np.int64),
        labels=np.array(labels, np.bool_),
        windows=np.arange(n) if windows is None else windows,
    )


def test_token_rule_by_hand():
    train = rows([1, 1, 0, 0, 0], [7, 7, 7, 8, 8])  # token 7: two of three; token 8: none; majority: False
    assert token_rule(train, rows([0, 0, 0], [7, 8, 9])).tolist() == [True, False, False]


def test_accuracy_interval_resamples_windows():
    # 20 windows of ten tokens, half of them all right, half all wrong: the standard error is that of 20 draws,
    # sqrt(.25 / 20) = .112, not of 200: an interval of about .5 +- .22
    right = np.repeat(np.arange(20) % 2 == 0, 10)
    found = accuracy_of(right, np.repeat(np.arange(20), 10))
    assert found.mid == 0.5
    assert 0.25 < found.low < 0.36
    assert 0.64 < found.high < 0.75
    # three windows: Wilson's interval for 5 of 10, (.5 + .1921) / 1.3841 +- ... = .2366 to .7634
    few = accuracy_of(np.arange(10) < 5, np.arange(10) % 3)
    assert (few.low, few.high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))


def test_report_tells_context_from_memorised_words():
    rng = np.random.default_rng(1)
    n = 3000
    tokens = rng.integers(0, 40, n)
    labels = rng.random(n) < 0.4  # independent of the token
    x = rng.standard_normal((n, 20)).astype(np.float32)
    x[:, 0] += np.where(labels, 4, -4)  # the context's direction; no dimension knows the token
    part = [rows(labels[a:b], tokens[a:b], x[a:b], np.arange(a, b) // 50) for a, b in ((0, 2000), (2000, 3000))]
    found = report("planted", *part)
    assert found.accuracy.mid > 0.99
    assert found.beats_majority
    assert found.majority == pytest.approx(0.6, abs=0.05)
    assert found.token_rule < 0.7
    assert found.control.mid < 0.75  # nothing to read the token from
    assert found.selectivity == pytest.approx(found.accuracy.mid - found.control.mid)
    assert abs(found.shuffled - found.majority) < 0.2


def test_report_refuses_a_property_that_never_changes():
    train = rows([0, 1], [1, 2])
    with pytest.raises(RefusedError, match="alike"):
        report("x", train, rows([0, 0], [1, 2]))


# -- induction ------------------------------------------------------------------------------------------------------


def test_prefix_matching_by_hand():
    # Length 2, tokens a b a b at positions 0 1 2 3: in the second copy a (2) must look at 1, b (3) at 2.
    attention = np.zeros((2, 4, 8), np.float32)
    attention[0, 2, 1], attention[0, 3, 2] = 0.9, 0.5
    attention[1, 2, 0], attention[1, 3, 1] = 1.0, 1.0  # looks at the same token instead
    assert prefix_matching(attention, 2) == pytest.approx([0.7, 0.0])
    with pytest.raises(EngineError):
        prefix_matching(attention[:, :3], 2)


def test_a_tap_wants_one_result_of_every_layer_and_hands_on_what_is_put_in_its_place():
    tap = LayerTap("kq_soft_max-", lambda layer, values: values * layer)
    assert tap.wants("kq_soft_max-11")
    assert not tap.wants("kq_soft_max-11 (view)")
    assert not tap.wants("kq-11")
    assert tap("kq_soft_max-3", np.array([2.0])).tolist() == [6.0]


class Copier:
    """Knows after one copy: logits of 9 for the token that followed the same token before, else uniform."""

    vocab_count = 50

    def decode(self, tokens, *, position, sequence=0, logits="last"):
        self.tokens = tokens

    def clear(self):
        pass

    def detokenize(self, tokens):
        return {3: "", 4: "\ufffd"}.get(tokens[0], f"t{tokens[0]}")

    def logits(self, index):
        found = np.zeros(50, np.float32)
        earlier = [i for i in range(index) if self.tokens[i] == self.tokens[index]]
        if earlier:
            found[self.tokens[earlier[-1] + 1]] = 9
        return found


def test_losses_of_a_repeated_sequence_by_hand():
    losses, hits = token_losses(Copier(), [5, 6, 7, 5, 6, 7])
    # Targets 6 7 5 6 7: the first three are uniform over 50 (the third follows the first 7), then copied:
    # loss ln(49 + e^9) - 9
    assert losses == pytest.approx([np.log(50)] * 3 + [np.log(49 + np.exp(9)) - 9] * 2)
    assert hits.tolist()[3:] == [True, True]
    assert copied(Copier(), [[5, 6, 7]]) == pytest.approx((np.log(50), np.log(49 + np.exp(9)) - 9, 1.0))


def test_random_tokens_are_ordinary_and_different():
    for sequence in random_tokens(Copier(), 12, 3, 1):
        assert len(set(sequence)) == 12
        assert not {3, 4} & set(sequence)


# -- ablation -------------------------------------------------------------------------------------------------------


def test_a_head_out_writes_its_mean_and_others_stay():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    changed = without([1], values, 2)
    assert changed[:, :2].tolist() == values[:, :2].tolist()
    assert changed[:, 2:].tolist() == [[6.0, 7.0]] * 3  # the middle row is the mean


def test_a_null_draw_takes_as_many_others_of_each_layer():
    heads = [Head(layer=layer, head=head, score=0.1) for layer in range(3) for head in range(4)]
    taken = [Head(layer=1, head=0, score=0.9), Head(layer=1, head=2, score=0.8), Head(layer=2, head=3, score=0.7)]
    drawn = null_draw(heads, taken, np.random.default_rng(1))
    assert sorted(h.layer for h in drawn) == [1, 1, 2]
    places = {(h.layer, h.head) for h in drawn}
    assert len(places) == 3
    assert not {(1, 0), (1, 2), (2, 3)} & places
    with pytest.raises(RefusedError, match="layer 1 has 1 other heads"):
        null_draw(heads, [*taken, Head(layer=1, head=1, score=0.9)], np.random.default_rng(1))


class Certain(Copier):
    """As sure as a half of one token and a half of the rest after token 1, quite sure after token 2."""

    def logits(self, index):
        found = np.zeros(50, np.float32)
        found[0] = 9 if self.tokens[index] == 2 else 3
        return found


def test_uncertainty_is_the_entropy_above_the_median():
    captured = Captured(np.zeros((6, 2), np.float32), np.array([1, 2, 2, 2, 1, 1]), np.array([0, 4]))
    assert uncertain(Certain(), captured).tolist() == [True, False, False, False, True, True]


# -- workload -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    return WORKLOAD.prepare(WORKLOAD.sizes["small"], WorkloadContext(folder, folder, 1, 1))


def test_workload_names_costs_and_operations_alike(state):
    assert [c.operation for c in WORKLOAD.costs(WORKLOAD.sizes["small"])] == [
        o.name for o in WORKLOAD.operations(state)
    ]
    for operation in WORKLOAD.operations(state):
        operation.call()
    assert WORKLOAD.check(state)["cosine"] > 0.8


def test_a_probe_of_another_direction_is_a_wrong_answer(state):
    with pytest.raises(WrongAnswerError, match="cosine"):
        WORKLOAD.check(state._replace(direction=-state.direction))


def test_evaluation_needs_a_model(tmp_path):
    with pytest.raises(RefusedError, match="--model"):
        WORKLOAD.evaluate(WorkloadContext(tmp_path, tmp_path, 1, 1))
