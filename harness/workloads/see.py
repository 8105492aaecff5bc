"""Seeing: text in a part of a picture, read by PP-OCRv6 through rapidocr from the part's own pixels.

A vision model sees a picture in a small copy, where letters of fewer than some eight pixels cannot be told
apart: the kind ``copy`` reads from one, as the null of ``read``.
"""

import random
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from harness.core.errors import BadDataError, optional
from harness.workloads.chain import Op, RecordedPass
from harness.workloads.scores import mean_of, of_kind, share
from harness.workloads.system import Answers, Cases, Context, PartWeights, Scores, Size, System, WorkloadCase

_COPY_PX = 448
"""Longer side of a small copy."""
_LETTERS = "ABCDEFGHKLMNPRTUVXYZ23456789"
"""Letters that no font draws alike."""
Side = Annotated[float, Meta(ge=0, le=1)]
Box = tuple[Side, Side, Side, Side]
"""Left, top, right and bottom in shares of the picture."""


class Picture(WorkloadCase):
    """A picture, or the seed of one that is made, the part of it that is read, and its text."""

    image: str = ""
    seed: int = 0
    box: Box = (0, 0, 1, 1)
    text: str = ""


class ReadPicture(Picture, tag="read"):
    """Read from its own pixels."""


class Copy(Picture):
    """The same from a small copy."""


class SeeSystem(System):
    """Parts of pictures, read."""

    name = "see"
    title = "Seeing: text read from a part of a picture, beside a small copy of the whole"
    kinds = (ReadPicture, Copy)
    usual = {"read": [RecordedPass(part="reader", op=Op.IMAGE)]}
    sizes = {"small": {"case_count": 4, "image_px": 1280}, "default": {"case_count": 32, "image_px": 1920}}

    def cases(self, size: Size) -> Cases:
        """Made pictures, each read from its part and from a small copy."""
        numbers = range(size["case_count"])
        return [kind(seed=number) for kind in self.kinds for number in numbers]

    def prepare(self, context: Context) -> Any:
        """Load the networks, which are in the package; MissingPackageError where it is not installed."""
        with optional("rapidocr", "vision"):
            from rapidocr import RapidOCR
        threads = {"EngineConfig.onnxruntime.intra_op_num_threads": context.thread_count}
        return context, RapidOCR(params={"Global.log_level": "error", **threads})

    def ready(self, state: Any, case: Any) -> Any:
        """The picture, drawn or opened, with the part of it and its text."""
        picture, box, right = opened(case, state[0].size["image_px"])
        if isinstance(case, Copy):
            picture.thumbnail((_COPY_PX, _COPY_PX))
        return picture, box, right

    def step(self, state: Any, case: Any) -> Any:
        """The text, and whether it is the right one, blanks left aside."""
        context, engine = state
        picture, box, right = case
        piece = picture.crop(pixels(box, picture.size))
        with context.parts.meter.timed(RecordedPass(part="reader", op=Op.IMAGE)):
            lines = engine(np.asarray(piece), use_det=False, use_cls=False, use_rec=True).txts
        text = "".join(lines or ())
        return {"text": text, "right": right, "hit": text.replace(" ", "") == right.replace(" ", "")}

    def held_bytes(self, size: Size, weights: PartWeights) -> int:
        """The networks with their arenas, as measured, and some copies of a picture."""
        return (480 << 20) + 12 * size["image_px"] ** 2

    def score(self, cases: Cases, answers: Answers) -> Scores:
        """The share of texts that were read exactly, beside the small copy."""
        hits = [answer["hit"] for _, answer in of_kind(cases, answers, ReadPicture)]
        copies = [answer["hit"] for _, answer in of_kind(cases, answers, Copy)]
        nulls = {"a small copy": mean_of(copies)} if copies else {}
        return [share("right_ratio", hits, "read", nulls)]


def pixels(box: Box, size: tuple[int, int]) -> list[int]:
    """A box in whole pixels; BadDataError where it holds none."""
    found = [round(side * size[at % 2]) for at, side in enumerate(box)]
    if found[0] >= found[2] or found[1] >= found[3]:
        raise BadDataError("box", "", str(box)[:80], f"left < right and top < bottom in {size} pixels")
    return found


def opened(case: Any, image_px: int) -> tuple[Any, Box, str]:
    """A picture with the part of it and its text."""
    with optional("pillow", "vision"):
        from PIL import Image
    if not case.image:
        return made(case.seed, image_px)
    try:
        with Image.open(case.image) as file:
            return file.convert("RGB"), case.box, case.text
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadDataError(case.image, "image", str(error)[:200], "a picture") from error


def made(seed: int, width: int) -> tuple[Any, Box, str]:
    """A picture with a word in letters a hundredth of its width high, where it stands, and the word."""
    from PIL import Image, ImageDraw, ImageFont

    rng = random.Random(seed)
    picture = Image.effect_noise((width, width), 60).convert("RGB")
    drawing = ImageDraw.Draw(picture)
    font = ImageFont.load_default(width / 100)
    text = "".join(rng.choices(_LETTERS, k=8))
    place = (rng.uniform(0.05, 0.7) * width, rng.uniform(0.05, 0.9) * width)
    drawing.text(place, text, fill=(20, 20, 60), font=font)
    corners = drawing.textbbox(place, text, font=font, stroke_width=width // 300)
    box: Any = tuple(side / width for side in corners)
    return picture, box, text


SYSTEM = SeeSystem()
