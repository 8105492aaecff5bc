"""Savings: curves made by hand, the schedule of a curriculum, and what a teacher's distribution teaches."""

import numpy as np
import pytest

from bench.training_savings import Curve, arms_of, distribution, drawn, reached, saving, verdict
from harness.workloads.training_efficiency.transformer import Config, Transformer

TINY = Config(dim=16, layer_count=1, head_count=2, inner_dim=24, vocab_count=11)


def test_the_cost_of_a_loss_lies_straight_between_two_looks():
    found = Curve([100.0, 200.0, 300.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    assert reached(found, found.tokens, 1.5) == pytest.approx(250)
    assert reached(found, found.flops, 2.0) == pytest.approx(2)
    assert reached(found, found.tokens, 3.5) == 100


def test_an_arm_twice_as_fast_saves_half_and_a_slower_one_costs():
    base = [Curve([100.0 * (i + 1) for i in range(4)], [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0])] * 3
    fast = [Curve(base[0].tokens, [9.0, 18.0, 27.0, 36.0], [3.0, 1.0, 0.9, 0.8])] * 3
    assert saving(fast, base, "tokens") == pytest.approx((0.5, 0.5, 0.5))
    # the same loss of 1 at the second look of the arm, 18 FLOPs, and the fourth of the base, 4
    assert saving(fast, base, "flops")[0] == pytest.approx(1 - 18 / 4)
    # the slower side's last loss is what both must reach
    assert saving(base, fast, "tokens")[0] == pytest.approx(1 - 400 / 200)
    assert [verdict(*ends) for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))] == [
        "pays", "does not pay", "no saving shown",
    ]  # fmt: skip


def test_a_paced_order_begins_at_its_easy_end_and_ends_with_all():
    rows = list(drawn(np.arange(1000), 200, 1, paced=True))
    assert max(rows[0]) < 100  # c0 = 0.1 of 1,000
    assert max(map(max, rows[150:])) > 900
    plain = list(drawn(np.arange(1000), 200, 1, paced=False))
    assert max(map(max, plain[:20])) > 900


def test_a_teacher_is_followed_to_its_own_distribution():
    """The gradient of the cross entropy with q is softmax - q: zero at q itself, and its slope elsewhere."""
    model, tokens = Transformer(TINY, 3), np.random.default_rng(0).integers(0, 11, (3, 9))
    for table in (model.weights, model.gradients):
        for name in table:
            table[name] = table[name].astype(np.float64)
    model.backward(tokens, distribution(model, tokens))
    assert all(np.abs(gradient).max() < 1e-12 for gradient in model.gradients.values())
    taught = distribution(Transformer(TINY, 4), tokens).astype(np.float64)
    model.backward(tokens, taught)
    for name, gradient in model.gradients.items():
        at = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        weight, found = model.weights[name], []
        kept = weight[at]
        for step in (1e-5, -1e-5):
            weight[at] = kept + step
            found.append(-float((taught * np.log(distribution(model, tokens))).sum(axis=1).mean()))
        weight[at] = kept
        assert (found[0] - found[1]) / 2e-5 == pytest.approx(gradient[at], rel=1e-5, abs=1e-7), name


def test_every_arm_counts_what_it_multiplies():
    windows = np.random.default_rng(1).integers(0, 256, (40, 129))
    teacher = Transformer(Config(dim=32, layer_count=1, head_count=1, inner_dim=32), 1)
    arms = arms_of(windows, windows[:2], teacher, 25, 1)
    assert arms["labels"].tokens == [25 * 8 * 128]
    passes = 25 * Config(dim=32, layer_count=1, head_count=1, inner_dim=32).step_flops(8, 128) / 3
    # a pass forward is a third of a step: 2 of 6 FLOPs a weight, 4 of 12 of attention
    assert arms["teacher"].flops[0] - arms["labels"].flops[0] == pytest.approx(passes)
    assert arms["easy first"].flops[0] > arms["labels"].flops[0]
