"""Seeing: text in regions of a picture, read by PP-OCRv6 through rapidocr from the regions' own pixels.

A vision model sees a picture in a small copy, where letters of fewer than some eight pixels cannot be told
apart: the kind ``copy`` reads from one, as the null of ``read``.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.domain.model import Weights
from harness.domain.result import Score
from harness.errors import BadDataError, RefusedError, optional
from harness.workloads.parts import Parts
from harness.workloads.passes import Op, Pass
from harness.workloads.scores import mean_of, share
from harness.workloads.system import Answers, Case, Context, Size, System

MOST_REGIONS: Final = 16
_COPY_PX: Final = 448
"""Longer side of a small copy."""
_LETTERS: Final = "ABCDEFGHKLMNPRTUVXYZ23456789"
"""Letters that no font draws alike."""


class Read(Case, tag="read"):
    """A picture, or the seed of one that is made, with boxes [left, top, right, bottom] in shares of it, and their texts."""

    image: str = ""
    seed: int = 0
    regions: list[list[float]] = []
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
        for piece in crops(picture, regions):
            with state.parts.meter.timed(Pass(part="reader", op=Op.IMAGE)):
                lines = state.engine(np.asarray(piece), use_det=False, use_cls=False, use_rec=True).txts
            texts.append([*(lines or ()), ""][0])
        hits = [one.replace(" ", "") == two.replace(" ", "") for one, two in zip(right, texts, strict=True)]
        return {"texts": texts, "right": list(right), "hits": hits}

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


def crops(picture: Any, regions: Sequence[Any]) -> list[Any]:
    """The regions' own pixels; BadDataError for what is no box inside its picture, RefusedError for none or many."""
    if not 1 <= len(regions) <= MOST_REGIONS:
        raise RefusedError(f"{len(regions)} regions: 1 to {MOST_REGIONS}")
    pieces = []
    width, height = picture.size
    for at, box in enumerate(regions):
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            expected = "0 <= left < right <= 1 and 0 <= top < bottom <= 1"
            raise BadDataError("regions", f"[{at}]", str(box)[:80], expected)
        left, top, right, bottom = (
            round(share * size) for share, size in zip(box, (width, height) * 2, strict=True)
        )
        pieces.append(picture.crop((left, top, max(left + 1, right), max(top + 1, bottom))))
    return pieces


def opened(case: Any, image_px: int) -> tuple[Any, Sequence[Any], Sequence[str]]:
    """A picture with its regions and texts."""
    with optional("pillow", "vision"):
        from PIL import Image
    if not case.image:
        return made(case.seed, image_px)
    path = Path(case.image)
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadDataError(path, "image", str(error)[:200], "a picture") from error
    if len(case.texts) != len(case.regions):
        raise BadDataError(path, "texts", f"{len(case.texts)}", f"{len(case.regions)}, one for each region")
    return picture, case.regions, case.texts


def made(seed: int, width: int) -> tuple[Any, list[list[float]], list[str]]:
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
        box = drawing.textbbox(place, text, font=font)
        signs = (-1, -1, 1, 1)
        regions.append([side / width + sign / 300 for side, sign in zip(box, signs, strict=True)])
        texts.append(text)
    return picture, regions, texts


SYSTEM = SeeSystem()
