"""Scenes know their answers; proposals find what is there; heads read planted tokens."""

import numpy as np
import pytest

from harness.workloads.grounded_vision import answer, boxes, propose, scenes


@pytest.fixture(scope="module")
def made():
    return [scenes.scene((1, at), width=640, height=480, most=6) for at in range(6)]


@pytest.fixture(scope="module")
def many():
    # Without pictures: what is in a scene does not depend on them.
    return [scenes.scene((9, at), width=640, height=480, most=9) for at in range(60)]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(made):
    again = scenes.scene((1, 0), width=640, height=480, most=6)
    assert np.array_equal(again.image, made[0].image) and again.things == made[0].things
    assert made[0].things != made[1].things


def test_a_thing_is_where_and_what_it_says():
    ground = np.full((100, 100, 3), 100, np.float32)
    red, grey = scenes.COLOURS["red"], (100, 100, 100)
    for shape, inside, outside in (
        ("disc", (50, 50), (66, 34)),
        ("square", (64, 36), (75, 50)),
        ("triangle", (50, 60), (40, 36)),  # tip up: its upper left corner is ground
        ("cross", (50, 35), (40, 40)),
        ("ring", (50, 34), (50, 50)),  # nothing in the middle
    ):
        image = scenes.paint(ground, [scenes.Thing(shape, "red", 50, 50, 20)])
        assert tuple(image[inside[1], inside[0]]) == red, shape
        assert tuple(image[outside[1], outside[0]]) == grey, shape


def test_things_do_not_touch_and_lie_inside(made):
    for scene in made:
        assert len(boxes.checked(scene.boxes)) == len(scene.things) >= 3
        overlaps = boxes.iou(scene.boxes, scene.boxes)
        assert (overlaps[~np.eye(len(overlaps), dtype=bool)] == 0).all()


def test_answers_follow_from_the_things(many):
    asked = [(s, q) for at, s in enumerate(many) for q in scenes.questions(s, at)]
    assert {q.kind for _, q in asked} == set(answer.KINDS)
    for scene, question in asked:
        mine = [t for t in scene.things if t.class_index == question.subject]
        if question.kind == "count":
            assert question.answer == len(mine)
            continue
        assert len(mine) == 1
        if question.kind == "box":
            assert scene.things[question.answer] == mine[0]
            continue
        other = next(t for t in scene.things if t.class_index == question.other)
        axis = "x" if question.kind == "left_right" else "y"
        assert question.answer == (getattr(mine[0], axis) < getattr(other, axis))


def test_class_names():
    assert scenes.class_name(scenes.class_index("ring", "blue")) == "blue ring"
    assert len({scenes.class_name(c) for c in range(scenes.CLASS_COUNT)}) == 30


def test_proposals_find_most_things_and_little_else(made):
    things = sum(len(s.things) for s in made)
    found = [propose.by_contrast(s.image) for s in made]
    hits = sum(int((boxes.iou(s.boxes, f).max(axis=1) > 0.6).sum()) for s, f in zip(made, found, strict=True))
    assert hits >= 0.9 * things
    assert sum(len(f) for f in found) <= 1.2 * things


def test_nothing_is_proposed_where_nothing_is():
    assert len(propose.by_contrast(np.full((200, 300, 3), 90, np.uint8))) == 0
    assert len(propose.by_contrast(np.zeros((2, 2, 3), np.uint8))) == 0


def test_no_more_than_asked_for(made):
    assert len(propose.by_contrast(made[0].image, limit=2)) == 2


def test_connected_parts_by_hand():
    mask = np.array([list(row) for row in ("#.#..", "#.#.#", ".#..#", "....#", "#....")]) == "#"
    labels, count = propose.components(mask)
    # The two legs of the V meet below; touching corners count.
    assert count == 3
    assert labels.tolist() == [[1, 0, 1, 0, 0], [1, 0, 1, 0, 2], [0, 1, 0, 0, 2], [0, 0, 0, 0, 2], [3, 0, 0, 0, 0]]


def test_regions_by_hand():
    strength = np.zeros((10, 20), np.float32)
    strength[2:5, 4:8] = 1
    strength[6:9, 10:14] = 3
    found = propose.regions(strength, 0.5, 6, 16)
    assert found == pytest.approx(np.array([[0.5, 0.6, 0.7, 0.9], [0.2, 0.2, 0.4, 0.5]]))
    assert len(propose.regions(strength, 0.5, 13, 16)) == 0


def planted(made, seed):
    """Tokens that hold class and box of their own thing, turned and with a little noise: heads must find them."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0]
    views = []
    for scene in made:
        rows = np.zeros((len(scene.things), 40))
        rows[np.arange(len(rows)), [t.class_index for t in scene.things]] = 1
        rows[:, 30:] = rng.standard_normal((len(rows), 10)) * 0.1
        views.append(answer.View((rows @ turn).astype(np.float32), scene.boxes))
    return views


def test_heads_answer_from_tokens_that_hold_the_answer_and_not_from_noise(many):
    asked = [scenes.questions(s, at) for at, s in enumerate(many)]
    views = planted(many, 1)
    heads = answer.train(views[:45], many[:45], asked[:45])
    good = answer.evaluate(heads, views[45:], many[45:], asked[45:])
    assert good["box"].share > 0.9 and good["left_right"].share > 0.9 and good["count"].share > 0.9
    noise = [answer.View(v.tokens[:, ::-1] * 0 + 1, v.boxes) for v in views]
    blind = answer.train(noise[:45], many[:45], asked[:45])
    assert answer.evaluate(blind, noise[45:], many[45:], asked[45:])["box"].share < 0.6


def test_no_token_is_answered_with_nothing(many):
    empty = np.zeros((0, scenes.CLASS_COUNT))
    question = scenes.Question("count", "", 0, -1, 0)
    assert answer.answer(question, empty, np.zeros((0, 4)), 0.5) == 0


def test_a_score_has_the_textbook_interval():
    # 8 of 10: (0.8 + 1.92073/10) / (1 + 3.84146/10) = 0.71675; half = 1.95996/1.38415 sqrt(.016 + .0096036) = .22657
    found = answer.scored(8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=2e-4)
    assert answer.scored(10, 10).high == pytest.approx(1.0)
    assert answer.scored(0, 10).low == pytest.approx(0, abs=1e-12)


def test_paired_difference_draws_whole_scenes():
    a, b = [True] * 40, [True, False] * 20
    mean, low, high = answer.paired_difference(a, b, groups=[i // 2 for i in range(40)])
    # Every scene has one of two: no scene drawn can change the mean.
    assert (mean, low, high) == (0.5, 0.5, 0.5)
