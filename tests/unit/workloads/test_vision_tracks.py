"""Tracks of hand-made films; scores of tracks by hand and by their authors' code."""

import numpy as np
import pytest

from harness.errors import BadDataError
from harness.workloads.grounded_vision import films
from harness.workloads.grounded_vision.study import followed
from harness.workloads.grounded_vision.tracks import PATIENCE_FRAMES, Tracker


def square(x, y, size=0.1):
    return (x - size / 2, y - size / 2, x + size / 2, y + size / 2)


def test_two_that_pass_each_other_keep_their_names_by_their_looks():
    tracker = Tracker()
    a, b = (1.0, 0.0), (0.0, 1.0)
    found = []
    for at in range(17):
        x = 0.1 + 0.05 * at
        # Told in another order each frame, so that order cannot be what decides.
        row = [((x, 0.5), a), ((1 - x, 0.52), b)][:: 1 if at % 2 else -1]
        ids = tracker.step([square(*p) for p, _ in row], [k for _, k in row])
        found.append(dict(zip([k for _, k in row], ids, strict=True)))
    assert all(f == found[0] for f in found)
    assert sorted(found[0].values()) == [0, 1]


@pytest.mark.parametrize(("gap", "name"), [(PATIENCE_FRAMES, 0), (PATIENCE_FRAMES + 2, 1)])
def test_one_behind_something_comes_back_as_itself_unless_it_was_too_long(gap, name):
    tracker = Tracker()
    tracker.step([square(0.3, 0.5)])
    tracker.step([square(0.32, 0.5)])
    for _ in range(gap):
        tracker.step([])
    # It went on at its speed of 0.02 a frame.
    assert tracker.step([square(0.32 + 0.02 * (gap + 1), 0.5)]) == [name]


def test_far_things_are_never_one():
    tracker = Tracker()
    assert tracker.step([square(0.1, 0.1)]) == [0]
    assert tracker.step([square(0.9, 0.9)]) == [1]


@pytest.mark.parametrize(
    ("frames", "word"),
    [
        ([([square(0.99, 0.5)],)], r"frame 0: \[0\]"),
        ([([square(0.2, 0.2), square(0.5, 0.5)], [(1.0,), ()])], "frame 0: looks"),
        ([([square(0.2, 0.2)], [(1.0,)]), ([square(0.2, 0.2)], [(1.0, 0.0)])], "frame 1: looks"),
        ([([square(0.2, 0.2)], [(1.0,)]), ([square(0.2, 0.2)],)], "frame 1: looks"),
    ],
)
def test_bad_detections_are_named(frames, word):
    tracker = Tracker()
    with pytest.raises(BadDataError, match=word):
        for frame in frames:
            tracker.step(*frame)


def test_identities_of_generated_films_hold_without_looks():
    for seed in range(4):
        made = films.film(seed, frame_count=40)
        bare = [(boxes, np.empty((0, 0))) for boxes, _ in films.detected(made, films.Errors(), seed)]
        assert films.scored(made, followed(bare)).idf1 > 0.98


@pytest.mark.parametrize(
    "errors",
    [
        films.Errors(),
        films.Errors(miss_ratio=0.2, jitter_ratio=0.05, false_ratio=0.1, swap_ratio=0.1),
        films.Errors(miss_ratio=0.4, jitter_ratio=0.1, false_ratio=0.3, swap_ratio=0.3),
    ],
)
def test_identity_scores_are_those_of_motmetrics(errors, monkeypatch):
    # motmetrics 1.4 still calls a name that NumPy 2 has dropped.
    monkeypatch.setattr(np, "asfarray", lambda a, dtype=float: np.asarray(a, dtype), raising=False)
    motmetrics = pytest.importorskip("motmetrics")
    made = films.film(3)
    found = followed(films.detected(made, errors, 1))
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for (ids, boxes), (names, others) in zip(made, found, strict=True):
        sides = [np.column_stack([b[:, :2], b[:, 2:] - b[:, :2]]) for b in (boxes, others)]
        accumulator.update(ids, names, motmetrics.distances.iou_matrix(*sides, max_iou=0.5))
    expected = motmetrics.metrics.create().compute(accumulator, metrics=["idf1", "num_switches"])
    scores = films.scored(made, found)
    assert scores.idf1 == pytest.approx(float(expected["idf1"].iloc[0]), rel=1e-12)
    assert scores.switch_count == int(expected["num_switches"].iloc[0])


@pytest.mark.parametrize(
    ("errors", "hota"),
    [
        # HOTA of TrackEval 1.3.0 (the authors' code) on these very films.
        (films.Errors(miss_ratio=0.2, jitter_ratio=0.05, false_ratio=0.1, swap_ratio=0.1), 0.6126231851315574),
        (films.Errors(miss_ratio=0.4, jitter_ratio=0.1, false_ratio=0.3, swap_ratio=0.3), 0.26660480133637465),
    ],
)
def test_hota_is_that_of_its_authors(errors, hota):
    made = films.film(3)
    assert films.scored(made, followed(films.detected(made, errors, 1))).hota == pytest.approx(hota, rel=1e-9)


def test_scores_by_hand():
    # One thing for four frames, called 0 twice and then 1 twice, always in its place: IDTP 2 of 4, so IDF1 2 x 2 / 8;
    # DetA 1, AssA 2 / (2 + 2 + 0) = .5 for every box: HOTA sqrt(.5).
    box = np.array([[0.1, 0.1, 0.2, 0.2]])
    scores = films.scored([([7], box)] * 4, [([0], box)] * 2 + [([1], box)] * 2)
    assert scores.idf1 == pytest.approx(0.5)
    assert scores.hota == pytest.approx(0.5**0.5)
    assert scores.switch_count == 1
    nothing = films.scored([([7], box)] * 2, [([], np.empty((0, 4)))] * 2)
    assert (nothing.idf1, nothing.hota) == (0, 0)
