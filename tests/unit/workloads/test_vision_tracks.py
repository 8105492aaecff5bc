"""Tracks and relations of hand-made films; scores of tracks by hand and by their authors' code."""

import msgspec
import numpy as np
import pytest

from harness.errors import BadDataError
from harness.workloads.grounded_vision import films, object_graph
from harness.workloads.grounded_vision.study import followed
from harness.workloads.grounded_vision.tracks import Detection, Settings, Track, Tracker


def square(x, y, size=0.1):
    return (x - size / 2, y - size / 2, x + size / 2, y + size / 2)


def seen(*places, label="", looks=None):
    looks = looks or [()] * len(places)
    return [Detection(box=square(*p), label=label, appearance=look) for p, look in zip(places, looks, strict=True)]


def test_two_that_pass_each_other_keep_their_names_by_their_looks():
    tracker = Tracker()
    a, b = (1.0, 0.0), (0.0, 1.0)
    found = []
    for at in range(17):
        x = 0.1 + 0.05 * at
        # Told in another order each frame, so that order cannot be what decides.
        row = [((x, 0.5), a), ((1 - x, 0.52), b)][:: 1 if at % 2 else -1]
        ids = tracker.step(seen(*(p for p, _ in row), looks=[k for _, k in row]))
        found.append(dict(zip([k for _, k in row], ids, strict=True)))
    assert all(f == found[0] for f in found)
    assert len(tracker.tracks()) == 2


def test_one_behind_something_comes_back_as_itself_unless_it_was_too_long():
    for gap, tracks in ((3, 1), (5, 2)):
        tracker = Tracker(Settings(patience_frames=3))
        tracker.step(seen((0.3, 0.5)))
        tracker.step(seen((0.32, 0.5)))
        for _ in range(gap):
            tracker.step([])
        # It went on at its speed of 0.02 a frame.
        tracker.step(seen((0.32 + 0.02 * (gap + 1), 0.5)))
        assert len(tracker.tracks()) == tracks


def test_far_things_are_never_one():
    tracker = Tracker()
    assert tracker.step(seen((0.1, 0.1))) == [0]
    assert tracker.step(seen((0.9, 0.9))) == [1]


def test_a_track_has_the_label_seen_most_and_short_ones_can_be_dropped():
    tracker = Tracker(Settings(min_frames=2))
    for label in ("cat", "dog", "cat"):
        tracker.step([*seen((0.5, 0.5), label=label)])
    tracker.step(seen((0.1, 0.1)))
    assert [t.label for t in tracker.tracks()] == ["cat"]
    assert tracker.frame_count == 4


@pytest.mark.parametrize(
    ("frames", "word"),
    [
        ([seen((0.99, 0.5))], r"frame 0: \[0\]"),
        ([seen((0.2, 0.2), (0.5, 0.5), looks=[(1.0,), ()])], "frame 0: appearance"),
        ([seen((0.2, 0.2), looks=[(1.0,)]), seen((0.2, 0.2), looks=[(1.0, 0.0)])], "frame 1: appearance"),
    ],
)
def test_bad_detections_are_named(frames, word):
    tracker = Tracker()
    with pytest.raises(BadDataError, match=word):
        for frame in frames:
            tracker.step(frame)


def test_identities_of_generated_films_hold_without_looks():
    for seed in range(4):
        made = films.film(seed, frame_count=40)
        bare = [[Detection(box=d.box) for d in row] for row in films.detected(made, films.Errors(), seed)]
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


def film_of(*paths):
    """Tracks from centres by frame."""
    return [
        Track(track_id=at, label=f"thing {at}", boxes={f: square(*p) for f, p in path.items()})
        for at, path in enumerate(paths)
    ]


def test_relations_of_a_film_made_by_hand():
    # 0 stands in the middle. 1 goes from left to right along the top in frames 0-4: x .1 .3 .5 .7 .9.
    # 2 is there in frames 1-3 only, close to 0.
    tracks = film_of(
        dict.fromkeys(range(5), (0.5, 0.5)),
        {f: (0.1 + 0.2 * f, 0.2) for f in range(5)},
        dict.fromkeys((1, 2, 3), (0.56, 0.5)),
    )
    graph = object_graph.build(tracks, 5)
    assert graph.when("left_of", 1, 0) == [(0, 1)]
    assert graph.when("left_of", 0, 1) == [(3, 4)]
    assert graph.when("right_of", 1, 0) == [(3, 4)]
    assert graph.when("above", 1, 0) == graph.when("below", 0, 1) == [(0, 4)]
    assert graph.when("above", 0, 1) == []
    # Centres 0.06 apart: 0.06 / sqrt(2) of the diagonal.
    assert graph.when("near", 0, 2) == graph.when("near", 2, 0) == [(1, 3)]
    assert graph.when("appears", 2) == [(1, 1)] and graph.when("disappears", 2) == [(3, 3)]
    assert graph.when("appears", 0) == graph.when("disappears", 0) == []
    assert {o.track_id for o in graph.find(frame=0)} == {0, 1}
    assert [o.track_id for o in graph.find(label="thing 2")] == [2]
    assert {(r.kind, r.subject, r.other) for r in graph.at(0)} == {("left_of", 1, 0), ("above", 1, 0)}


def test_a_relation_goes_on_behind_something():
    tracks = film_of(dict.fromkeys((0, 1, 4, 5), (0.2, 0.5)), dict.fromkeys(range(6), (0.8, 0.5)))
    assert object_graph.build(tracks, 6).when("left_of", 0, 1) == [(0, 5)]


def test_near_means_the_same_both_ways_in_a_wide_frame():
    # In a frame of 2:1, 0.1 across is as long as 0.2 down.
    across = film_of({0: (0.5, 0.5)}, {0: (0.6, 0.5)})
    down = film_of({0: (0.5, 0.5)}, {0: (0.5, 0.7)})
    for near, wanted in ((0.0895, [(0, 0)]), (0.0894, [])):  # 0.2 / sqrt(5) = 0.08944
        for tracks in (across, down):
            found = object_graph.build(tracks, 1, aspect_ratio=2.0, near=near).when("near", 0, 1)
            assert found == wanted


def test_json_there_and_back():
    graph = object_graph.build(film_of({0: (0.2, 0.2), 1: (0.3, 0.2)}, {1: (0.7, 0.7)}), 2)
    assert msgspec.json.decode(graph.to_json(), type=object_graph.ObjectGraph) == graph


@pytest.mark.parametrize(("kind", "ids", "word"), [("beside", (0, 1), "left_of"), ("near", (0, 9), "other")])
def test_a_question_that_cannot_be_says_why(kind, ids, word):
    graph = object_graph.build(film_of({0: (0.2, 0.2)}, {0: (0.7, 0.7)}), 1)
    with pytest.raises(BadDataError, match=word):
        graph.when(kind, *ids)
