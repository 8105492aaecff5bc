"""Synthetic scenes whose every answer is known exactly: coloured shapes on a textured ground, still and moving.

Objects never touch and are small against the image, as they are in photographs: at 224 pixels for the whole image one
is 6 to 13 pixels wide, and its outline is what tells a ring from a disc.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.workloads.grounded_vision.boxes import Boxes
from harness.workloads.grounded_vision.images import Image

SHAPES: Final = ("disc", "square", "triangle", "cross", "ring")
COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (205, 45, 40),
    "green": (50, 160, 60),
    "blue": (45, 80, 205),
    "yellow": (225, 200, 45),
    "magenta": (190, 60, 180),
    "white": (235, 235, 235),
}
CLASS_COUNT: Final = len(SHAPES) * len(COLOURS)
_GAP_PX: Final = 12
_SHADE_PX: Final = 256
_TRIES: Final = 200
_APART: Final = 0.05
"""Share of the image that two centres must differ by before a relation between them is asked for."""


class Thing(NamedTuple):
    """One object: what it is, and where in pixels (centre and half its width)."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float

    @property
    def class_index(self) -> int:
        """Number of its shape and colour together."""
        return class_index(self.shape, self.colour)

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Its normalised box."""
        r = self.radius
        return (self.x - r) / width, (self.y - r) / height, (self.x + r) / width, (self.y + r) / height


class Scene(NamedTuple):
    """An image and what is in it."""

    image: Image
    things: tuple[Thing, ...]

    @property
    def boxes(self) -> Boxes:
        """Normalised boxes [N, 4] of the things, in their order."""
        height, width = self.image.shape[:2]
        return np.array([t.box(width, height) for t in self.things]).reshape(-1, 4)


class Question(NamedTuple):
    """A question about a scene.

    Attributes:
        kind: ``count``, ``left_right``, ``above_below`` or ``box``.
        text: As people ask it.
        subject: Class index of what it is about.
        other: Class index of the second object; -1 for none.
        answer: Number; 1 for left (above) and 0 for right (below); index of the thing whose box is asked for.
    """

    kind: str
    text: str
    subject: int
    other: int
    answer: int


def class_index(shape: str, colour: str) -> int:
    """Number of a shape and a colour together."""
    return SHAPES.index(shape) * len(COLOURS) + list(COLOURS).index(colour)


def class_name(index: int) -> str:
    """``red ring`` and the like."""
    shape, colour = divmod(index, len(COLOURS))
    return f"{list(COLOURS)[colour]} {SHAPES[shape]}"


def scene(seed: int | Sequence[int], *, width: int = 1280, height: int = 960, most: int = 12) -> Scene:
    """One scene of 3 to ``most`` things; the same seed gives the same bytes."""
    rng = np.random.default_rng(seed)
    ground = background(rng, width, height)
    things: list[Thing] = []
    wanted = int(rng.integers(3, most + 1))
    # A few classes a scene, so that some repeat: a count is then not always nought or one.
    palette = rng.choice(CLASS_COUNT, max(2, wanted * 2 // 3), replace=False)
    for _ in range(_TRIES):
        if len(things) == wanted:
            break
        radius = float(rng.uniform(16, 36))
        x, y = (float(rng.uniform(radius + 4, side - radius - 4)) for side in (width, height))
        if all(max(abs(x - t.x), abs(y - t.y)) > radius + t.radius + _GAP_PX for t in things):
            shape, colour = divmod(int(rng.choice(palette)), len(COLOURS))
            things.append(Thing(SHAPES[shape], list(COLOURS)[colour], x, y, radius))
    return Scene(paint(ground, things), tuple(things))


def scenes(seed: int, count: int, **sizes: int) -> Iterator[Scene]:
    """Scenes 0 to ``count`` - 1 of a seed; no two seeds share one."""
    return (scene((seed, at), **sizes) for at in range(count))


def background(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """A grey ground of slow shades and grain [height, width, 3], float 0 to 255."""
    rows, columns = (max(2, 1 + round(side / _SHADE_PX)) for side in (height, width))
    coarse = rng.uniform(85, 165, (rows, columns)).astype(np.float32)
    shades = _linear(rows, height) @ coarse @ _linear(columns, width).T
    tint = rng.uniform(0.92, 1.08, 3).astype(np.float32)
    grain = rng.standard_normal((height, width), np.float32) * 5
    return np.asarray((shades + grain)[:, :, None] * tint, np.float32)


def paint(ground: NDArray[np.float32], things: Sequence[Thing]) -> Image:
    """Draw things on a ground, edges smoothed over one pixel, the later ones above."""
    picture = ground.copy()
    height, width = ground.shape[:2]
    for thing in things:
        left, top = (int(max(0, c - thing.radius - 2)) for c in (thing.x, thing.y))
        right, bottom = int(min(width, thing.x + thing.radius + 3)), int(min(height, thing.y + thing.radius + 3))
        if left >= right or top >= bottom:
            continue
        y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + 0.5
        distance = _distance(thing.shape, (x - thing.x) / thing.radius, (y - thing.y) / thing.radius)
        cover = np.clip(0.5 - distance * thing.radius, 0, 1)[:, :, None]
        patch = picture[top:bottom, left:right]
        patch += (np.array(COLOURS[thing.colour], np.float32) - patch) * cover
    return np.clip(picture, 0, 255).astype(np.uint8)


def _distance(shape: str, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed distance to the edge in units of the radius, negative inside (exact near the edge is enough)."""
    if shape == "square":
        return np.asarray(np.maximum(np.abs(x), np.abs(y)) - 1)
    if shape == "cross":
        upright = np.maximum(np.abs(x) - 0.33, np.abs(y) - 1)
        return np.asarray(np.minimum(upright, np.maximum(np.abs(x) - 1, np.abs(y) - 0.33)))
    if shape == "triangle":  # tip up, base down: |x| <= (y + 1) / 2 within the box
        return np.asarray(np.maximum((np.abs(x) * 2 - y - 1) / np.float32(5**0.5), y - 1))
    radius = np.hypot(x, y)
    return np.asarray(np.maximum(radius - 1, 0.58 - radius) if shape == "ring" else radius - 1)


@lru_cache(maxsize=64)
def _linear(size_from: int, size_to: int) -> NDArray[np.float32]:
    at = np.linspace(0, size_from - 1, size_to)
    low = np.minimum(at.astype(int), size_from - 2)
    table = np.zeros((size_to, size_from), np.float32)
    rows = np.arange(size_to)
    table[rows, low], table[rows, low + 1] = 1 - (at - low), at - low
    return table


def questions(made: Scene, seed: int | Sequence[int], *, each: int = 2) -> list[Question]:
    """Up to ``each`` questions of every kind; relations and boxes ask only for what there is exactly one of."""
    rng = np.random.default_rng(seed)
    height, width = made.image.shape[:2]
    classes = [t.class_index for t in made.things]
    unique = [at for at, c in enumerate(classes) if classes.count(c) == 1]
    absent = [c for c in range(CLASS_COUNT) if c not in classes]
    asked = [int(c) for c in rng.permutation(sorted(set(classes)))[: each - 1]] + [int(rng.choice(absent))]
    found = [Question("count", f"How many things are a {class_name(c)}?", c, -1, classes.count(c)) for c in asked]
    for at in rng.permutation(unique)[:each]:
        c = classes[at]
        found.append(Question("box", f"Where is the {class_name(c)}?", c, -1, int(at)))
    pairs = [(a, b) for a in unique for b in unique if a != b]
    order = rng.permutation(len(pairs))
    for kind, axis, size in (("left_right", "x", width), ("above_below", "y", height)):
        words = kind.split("_")
        taken = 0
        for a, b in (pairs[i] for i in order):
            gap = getattr(made.things[b], axis) - getattr(made.things[a], axis)
            if abs(gap) < _APART * size or taken == each:
                continue
            taken += 1
            text = f"Is the {class_name(classes[a])} {words[0]} or {words[1]} of the {class_name(classes[b])}?"
            found.append(Question(kind, text, classes[a], classes[b], int(gap > 0)))
    return found


class Frame(NamedTuple):
    """One frame of a film: which objects are seen, and where."""

    ids: tuple[int, ...]
    things: tuple[Thing, ...]


def film(
    seed: int, *, frame_count: int = 60, thing_count: int = 8, width: int = 1280, height: int = 960
) -> list[Frame]:
    """Things that move straight, bounce off the edges, pass behind each other, come late and go early.

    A thing is not seen in a frame where a later one covers more than 60 % of its box.
    """
    rng = np.random.default_rng(seed)
    radius = rng.uniform(22, 44, thing_count)
    place = rng.uniform(0.1, 0.9, (thing_count, 2)) * (width, height)
    angle, speed = rng.uniform(0, 2 * np.pi, thing_count), rng.uniform(4, 13, thing_count)
    step = np.stack([np.cos(angle), np.sin(angle)], axis=1) * speed[:, None]
    kinds = [divmod(int(c), len(COLOURS)) for c in rng.integers(0, CLASS_COUNT, thing_count)]
    begin = np.where(rng.random(thing_count) < 0.3, rng.integers(1, frame_count // 2, thing_count), 0)
    end = np.where(rng.random(thing_count) < 0.3, rng.integers(frame_count // 2, frame_count, thing_count), frame_count)
    frames = []
    for at in range(frame_count):
        ids, things = [], []
        for i in range(thing_count):
            hidden = any(
                begin[j] <= at < end[j] and _covered(place[i], radius[i], place[j], radius[j]) > 0.6
                for j in range(i + 1, thing_count)
            )
            if begin[i] <= at < end[i] and not hidden:
                shape, colour = SHAPES[kinds[i][0]], list(COLOURS)[kinds[i][1]]
                ids.append(i)
                things.append(Thing(shape, colour, float(place[i, 0]), float(place[i, 1]), float(radius[i])))
        frames.append(Frame(tuple(ids), tuple(things)))
        place += step
        for axis, size in enumerate((width, height)):
            out = (place[:, axis] < radius) | (place[:, axis] > size - radius)
            step[out, axis] *= -1
            place[:, axis] = np.clip(place[:, axis], radius, size - radius)
    return frames


def _covered(a: NDArray[np.float64], ra: float, b: NDArray[np.float64], rb: float) -> float:
    sides = np.clip(np.minimum(a + ra, b + rb) - np.maximum(a - ra, b - rb), 0, None)
    return float(sides[0] * sides[1] / (4 * ra * ra))
