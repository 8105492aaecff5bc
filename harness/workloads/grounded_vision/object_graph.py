"""A film as structured data: objects with their tracks, and what stands to what in which frames.

Relations between two objects hold over spans of frames in which both are seen:

    left_of   x of a's centre < x of b's centre - margin      (right_of is b left_of a)
    above     y of a's centre < y of b's centre - margin      (below is b above a)
    near      distance of the centres < near, in shares of the image's diagonal; symmetric, told once

and an object appears and disappears at the ends of its track, unless they are the film's own. The whole graph is JSON.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import hypot, sqrt
from typing import Final

import msgspec

from harness.domain.base import Frozen
from harness.errors import BadDataError
from harness.workloads.grounded_vision.tracks import Track

PAIR_KINDS: Final = ("left_of", "above", "near")
EVENT_KINDS: Final = ("appears", "disappears")
MARGIN: Final = 0.02
NEAR: Final = 0.15
_MIRRORED: Final = {"right_of": "left_of", "below": "above"}


class Relation(Frozen, frozen=True, kw_only=True):
    """Something that holds from ``first_frame`` to ``last_frame``, both included; ``other`` is -1 for events."""

    kind: str
    subject: int
    other: int
    first_frame: int
    last_frame: int


class ObjectGraph(Frozen, frozen=True, kw_only=True):
    """Objects of a film (its tracks), what holds between them, and when."""

    frame_count: int
    objects: tuple[Track, ...]
    relations: tuple[Relation, ...]

    def find(self, *, label: str | None = None, frame: int | None = None) -> list[Track]:
        """Objects with that label, seen in that frame."""
        return [o for o in self.objects if (label is None or o.label == label) and (frame is None or frame in o.boxes)]

    def when(self, kind: str, subject: int, other: int = -1) -> list[tuple[int, int]]:
        """Spans of frames in which a relation holds.

        Args:
            kind: ``left_of right_of above below near appears disappears``.
            subject: The object it is told of.
            other: The second one.

        Raises:
            BadDataError: No such relation or object.
        """
        known = (*PAIR_KINDS, *_MIRRORED, *EVENT_KINDS)
        if kind not in known:
            raise BadDataError("relation", "kind", repr(kind), f"one of {', '.join(known)}")
        ids = {o.track_id for o in self.objects}
        for name, track_id in (("subject", subject), *((("other", other),) if kind not in EVENT_KINDS else ())):
            if track_id not in ids:
                raise BadDataError("relation", name, str(track_id), "the number of an object of the graph")
        if kind in _MIRRORED:
            kind, subject, other = _MIRRORED[kind], other, subject
        if kind == "near" and subject > other:
            subject, other = other, subject
        wanted = (kind, subject, -1 if kind in EVENT_KINDS else other)
        return [(r.first_frame, r.last_frame) for r in self.relations if (r.kind, r.subject, r.other) == wanted]

    def at(self, frame: int) -> list[Relation]:
        """Everything that holds in one frame."""
        return [r for r in self.relations if r.first_frame <= frame <= r.last_frame]

    def to_json(self) -> bytes:
        """The graph as a JSON document."""
        return msgspec.json.encode(self)


def build(
    tracks: Sequence[Track], frame_count: int, *, aspect_ratio: float = 1.0, margin: float = MARGIN, near: float = NEAR
) -> ObjectGraph:
    """Objects and relations of tracks.

    Args:
        tracks: From a ``Tracker``.
        frame_count: Frames of the film.
        aspect_ratio: Width of a frame over its height, so that distances mean the same both ways.
        margin: Share of the side that centres must differ by.
        near: Share of the diagonal.
    """
    relations = [r for track in tracks for r in _events(track, frame_count)]
    for at, a in enumerate(tracks):
        for b in tracks[at + 1 :]:
            relations += _between(a, b, aspect_ratio, margin, near)
    return ObjectGraph(frame_count=frame_count, objects=tuple(tracks), relations=tuple(relations))


def _events(track: Track, frame_count: int) -> Iterator[Relation]:
    ends = (("appears", track.first_frame, 0), ("disappears", track.last_frame, frame_count - 1))
    for kind, frame, edge in ends:
        if frame != edge:
            yield Relation(kind=kind, subject=track.track_id, other=-1, first_frame=frame, last_frame=frame)


def _between(a: Track, b: Track, aspect_ratio: float, margin: float, near: float) -> list[Relation]:
    shared = sorted(a.boxes.keys() & b.boxes.keys())
    holds: dict[tuple[str, int, int], list[int]] = {}
    for frame in shared:
        (ax, ay), (bx, by) = _centre(a.boxes[frame]), _centre(b.boxes[frame])
        for kind, gap in (("left_of", bx - ax), ("above", by - ay)):
            if abs(gap) > margin:
                pair = (a.track_id, b.track_id) if gap > 0 else (b.track_id, a.track_id)
                holds.setdefault((kind, *pair), []).append(frame)
        distance = hypot((bx - ax) * aspect_ratio, by - ay) / sqrt(aspect_ratio**2 + 1)
        if distance < near:
            pair = (min(a.track_id, b.track_id), max(a.track_id, b.track_id))
            holds.setdefault(("near", *pair), []).append(frame)
    following = dict(pairwise(shared))
    return [
        Relation(kind=kind, subject=subject, other=other, first_frame=first, last_frame=last)
        for (kind, subject, other), frames in holds.items()
        for first, last in _spans(frames, following)
    ]


def _spans(frames: Sequence[int], following: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Runs of frames; frames in which one of the two was hidden between do not break a run."""
    first = last = frames[0]
    for frame in frames[1:]:
        if following[last] != frame:
            yield first, last
            first = frame
        last = frame
    yield first, last


def _centre(box: tuple[float, float, float, float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
