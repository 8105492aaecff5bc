"""Photographs with small text whose words are known: those of scikit-image, enlarged, with cards put on them."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.errors import optional
from harness.workloads._language.texts import shipped_text
from harness.workloads.grounded_vision.boxes import Boxes, iou
from harness.workloads.grounded_vision.images import Image

PHOTOGRAPHS: Final = (
    "astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    "hubble_deep_field.jpg", "ihc.png",
)  # fmt: skip
"""Files of the package's own folder (scikit-image names their sources: public domain, CC0 or CC BY)."""
WIDTH: Final = 1920
LETTER_PX: Final = (14, 36)
"""Heights of the letters, from and to."""
WORD_COUNT: Final = 4
_PADDING_PX: Final = 6


class Written(NamedTuple):
    """A photograph, the words on it, and where they are."""

    image: Image
    words: tuple[str, ...]
    boxes: Boxes


def pictures(seed: int, count: int, names: Sequence[str] = PHOTOGRAPHS) -> Iterator[Written]:
    """Pictures of ``WIDTH`` pixels in turns over the photographs, each with four words of the shipped text.

    Raises:
        MissingPackageError: scikit-image, which brings Pillow for the letters, is not installed.
    """
    for at in range(count):
        yield _written(names[at % len(names)], np.random.default_rng((seed, at)))


def _written(name: str, rng: np.random.Generator) -> Written:
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    canvas = Pillow.fromarray(_photograph(name))
    draw = ImageDraw.Draw(canvas)
    words: list[str] = []
    boxes = np.empty((0, 4))
    size = np.array([*canvas.size, *canvas.size], float)
    while len(words) < WORD_COUNT:
        word = str(rng.choice(_vocabulary()))
        font = ImageFont.load_default(int(rng.integers(*LETTER_PX, endpoint=True)))
        x, y = (int(v) for v in rng.uniform(0.03, 0.8, 2) * canvas.size)
        left, top, right, bottom = draw.textbbox((x, y), word, font=font)
        card = np.array([left, top, right, bottom]) + np.array([-1, -1, 1, 1]) * _PADDING_PX
        box = (card / size)[None]
        if card[2] > canvas.width or card[3] > canvas.height or iou(box, boxes).any():
            continue
        ground, ink = rng.integers(170, 256, 3), rng.integers(0, 90, 3)
        draw.rectangle(tuple(card.tolist()), fill=tuple(ground.tolist()))
        draw.text((x, y), word, font=font, fill=tuple(ink.tolist()))
        words.append(word)
        boxes = np.concatenate([boxes, box])
    return Written(np.asarray(canvas), tuple(words), boxes)


@cache
def _vocabulary() -> tuple[str, ...]:
    return tuple(sorted({w for w in shipped_text().split() if w.isascii() and w.isalpha() and 5 <= len(w) <= 11}))


@cache
def _photograph(name: str) -> Any:
    with optional("scikit-image", "photographs"):
        import skimage
        from PIL import Image as Pillow
    with Pillow.open(Path(skimage.__file__).parent / "data" / name) as file:
        picture = file.convert("RGB")
    return np.asarray(picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Pillow.Resampling.BICUBIC))
