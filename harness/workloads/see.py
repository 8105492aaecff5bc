"""Seeing: text in regions of a picture, read by PP-OCRv6 through rapidocr from the regions' own pixels.

A vision model sees a picture in a small copy, where letters of fewer than some eight pixels cannot be told
apart: the kind ``copy`` reads from one, as the null of ``read``.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from msgspec import Meta

from harness.domain.model import Weights
from harness.domain.result import Score
from harness.errors import BadDataError, optional
from harness.workloads.parts import Parts
from harness.workloads.passes import Op, Pass
from harness.workloads.scores import mean_of, share
from harness.workloads.system import Answers, Case, Context, Size, System

_COPY_PX: Final = 448
"""Longer side of a small copy."""
_LETTERS: Final = "ABCDEFGHKLMNPRTUVXYZ23456789"
"""Letters that no font draws alike."""
Side = Annotated[float, Meta(ge=0, le=1)]
Box = tuple[Side, Side, Side, Side]
"""Left, top, right and bottom in shares of the picture."""


class Read(Case, tag="read"):
    """A picture, or the seed of one that is made, with boxes in it and their texts."""

    image: str = ""
    seed: int = 0
    regions: Annotated[list[Box], Meta(max_length=16)] = []
    texts: list[str] = []


class Copy(Read, tag="copy"):
    """The same from a small copy."""


class SeeState(NamedTuple):
    """The reader, the width of made pictures, and what times it."""

    engine: Any
    image_px: int
    parts: Parts


class SeeSystem(System):
    """Regions of pictures, read."""

    name = "see"
    title = "Seeing: text read from regions of a picture, beside a small copy of the whole"
    kinds = (Read, Copy)
    extra = "vision"
    sizes = {"small": {"case_count": 1, "image_px": 1280}, "default": {"case_count": 8, "image_px": 1920}}

    def cases(self, size: Size, seed: int) -> Sequence[Any]:
        """Made pictures, each read from its regions and from a small copy."""
        numbers = range(1000 * seed, 1000 * seed + size["case_count"])
        return [kind(seed=number) for kind in self.kinds for number in numbers]

    def prepare(self, parts: Parts, size: Size, context: Context) -> SeeState:
        """Load the networks, which are in the package; MissingPackageError where it is not installed."""
        with optional("rapidocr", "vision"):
            from rapidocr import RapidOCR
        threads = {"EngineConfig.onnxruntime.intra_op_num_threads": context.thread_count}
        engine = RapidOCR(params={"Global.log_level": "error", **threads})
        return SeeState(engine, size["image_px"], parts)

    def step(self, state: SeeState, case: Any) -> dict[str, Any]:
        """The texts of the regions; ``hits`` says of each whether it is the right one, blanks left aside."""
        picture, regions, right = opened(case, state.image_px)
        if isinstance(case, Copy):
            picture.thumbnail((_COPY_PX, _COPY_PX))
        texts = []
        for box in regions:
            piece = picture.crop(pixels(box, picture.size))
            with state.parts.meter.timed(Pass(part="reader", op=Op.IMAGE)):
                lines = state.engine(np.asarray(piece), use_det=False, use_cls=False, use_rec=True).txts
            texts.append([*(lines or ()), ""][0])
        hits = [one.replace(" ", "") == two.replace(" ", "") for one, two in zip(right, texts, strict=True)]
        return {"texts": texts, "right": right, "hits": hits}

    def held_bytes(self, size: Size, weights: Mapping[str, Weights]) -> int:
        """The networks with their arenas, as measured, and some copies of a picture."""
        return (480 << 20) + 12 * size["image_px"] ** 2

    def score(self, cases: Sequence[Any], answers: Answers) -> Sequence[Score]:
        """The share of texts that were read exactly, beside the small copy."""
        hits: dict[bool, list[bool]] = {True: [], False: []}
        for case, answer in zip(cases, answers, strict=True):
            hits[isinstance(case, Copy)] += answer["hits"]
        nulls = {"a small copy": mean_of(hits[True])} if hits[True] else {}
        return [share("right_ratio", hits[False], "read", nulls)]


def pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in whole pixels, at least one wide and high; BadDataError where its sides are the wrong way round."""
    if box[0] >= box[2] or box[1] >= box[3]:
        raise BadDataError("regions", "", str(box)[:80], "left < right and top < bottom")
    left, top, right, bottom = (round(side * size[at % 2]) for at, side in enumerate(box))
    return left, top, max(left + 1, right), max(top + 1, bottom)


def opened(case: Any, image_px: int) -> tuple[Any, Sequence[Box], Sequence[str]]:
    """A picture with its regions and texts."""
    with optional("pillow", "vision"):
        from PIL import Image
    if not case.image:
        return made(case.seed, image_px)
    if len(case.texts) != len(case.regions):
        raise BadDataError(
            case.image, "texts", f"{len(case.texts)}", f"{len(case.regions)}, one for each region"
        )
    try:
        with Image.open(case.image) as file:
            return file.convert("RGB"), case.regions, case.texts
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadDataError(case.image, "image", str(error)[:200], "a picture") from error


def made(seed: int, width: int) -> tuple[Any, list[Box], list[str]]:
    """A picture with four words in letters a hundredth of its width high, their boxes, and the words."""
    from PIL import Image, ImageDraw, ImageFont

    rng = random.Random(seed)
    picture = Image.effect_noise((width, width), 60).convert("RGB")
    drawing = ImageDraw.Draw(picture)
    font = ImageFont.load_default(width / 100)
    regions = []
    texts = []
    for row in range(4):
        text = "".join(rng.choices(_LETTERS, k=8))
        place = (rng.uniform(0.05, 0.7) * width, (0.1 + 0.2 * row) * width)
        drawing.text(place, text, fill=(20, 20, 60), font=font)
        left, top, right, bottom = drawing.textbbox(place, text, font=font, stroke_width=width // 300)
        regions.append((left / width, top / width, right / width, bottom / width))
        texts.append(text)
    return picture, regions, texts


SYSTEM = SeeSystem()
