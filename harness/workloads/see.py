"""Seeing: text in regions of a picture, read by PP-OCRv6 through rapidocr from the regions' own pixels.

A vision model sees a picture in a small copy, where letters of fewer than some eight pixels cannot be told
apart: the kind ``copy`` reads from one, as the null of ``read``; ``find`` looks for text in the whole
picture.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from harness.domain.model import Weights
from harness.domain.result import Score
from harness.errors import BadDataError, RefusedError, optional
from harness.workloads.parts import Parts
from harness.workloads.passes import Chain, Op, Pass
from harness.workloads.scores import rows_of, share
from harness.workloads.system import Answers, Case, Context, Size, System

MOST_REGIONS: Final = 16
_LETTERS: Final = "ABCDEFGHKLMNPRTUVXYZ23456789"
"""Letters that no font draws alike."""


class Look(Case, tag="look"):
    """A picture, or the seed of one that is made.

    Regions are boxes [left, top, right, bottom] in shares of the picture, with the text of each.
    """

    how: Literal["read", "copy", "find"]
    image: str = ""
    seed: int = 0
    regions: list[list[float]] = []
    texts: list[str] = []


class SeeState(NamedTuple):
    """The reader, the longer side of a small copy, the width of made pictures, and what times it."""

    engine: Any
    copy_px: int
    image_px: int
    parts: Parts


class SeeSystem(System):
    """Regions of pictures, read."""

    name = "see"
    title = "Seeing: text read from regions of a picture, beside a small copy of the whole"
    kinds = (Look,)
    extra = "vision"
    sizes = {
        "small": {"case_count": 1, "copy_px": 448, "image_px": 1280},
        "default": {"case_count": 8, "copy_px": 448, "image_px": 1920},
    }

    def cases(self, size: Size, seed: int) -> Sequence[Any]:
        """Made pictures, each read from its regions and from a small copy, and looked through once."""
        numbers = range(1000 * seed, 1000 * seed + size["case_count"])
        hows: tuple[Literal["read", "copy", "find"], ...] = ("read", "copy", "find")
        return [Look(how=how, seed=number) for how in hows for number in numbers]

    def prepare(self, parts: Parts, size: Size, context: Context) -> SeeState:
        """Load the networks, which are in the package; MissingPackageError where it is not installed."""
        with optional("rapidocr", "vision"):
            from rapidocr import RapidOCR
        threads = {"EngineConfig.onnxruntime.intra_op_num_threads": context.thread_count}
        engine = RapidOCR(params={"Global.log_level": "error", **threads})
        return SeeState(engine, size["copy_px"], size["image_px"], parts)

    def step(self, state: SeeState, case: Look) -> dict[str, Any]:
        """The texts of the regions, or of the whole picture.

        ``hits`` says of each right text whether it was read.
        """
        import numpy as np

        picture, regions, right = opened(case, state.image_px)
        if case.how == "copy":
            picture.thumbnail((state.copy_px, state.copy_px))
        if case.how == "find":
            pieces = [picture]
        else:
            pieces = crops(picture, regions)
        texts: list[str] = []
        for piece in pieces:
            finds = case.how == "find"
            with state.parts.meter.timed(Pass(part="reader", op=Op.IMAGE)):
                lines = state.engine(np.asarray(piece), use_det=finds, use_cls=False, use_rec=True).txts or ()
            if finds:
                texts += lines
            else:
                texts += [*lines, ""][:1]
        plain = [text.replace(" ", "") for text in texts]
        wanted = [text.replace(" ", "") for text in right]
        if case.how == "find":
            hits = [text in plain for text in wanted]
        else:
            hits = [one == two for one, two in zip(wanted, plain, strict=True)]
        return {"texts": texts, "right": list(right), "hits": hits}

    def chain(self, case: Look, size: Size, chain: Chain) -> None:
        """Passes of the reader, for which nobody has a law."""
        chain.passes.append(Pass(part="reader", op=Op.IMAGE))

    def held_bytes(self, size: Size, weights: Mapping[str, Weights]) -> int:
        """The networks with their arenas, as measured, and some copies of a picture."""
        return (480 << 20) + 12 * size["image_px"] ** 2

    def score(self, cases: Sequence[Any], answers: Answers) -> Sequence[Score]:
        """Of each way the share of texts that were read exactly, blanks left aside, beside the small copy."""
        hits: dict[str, list[bool]] = {}
        for case, answer in rows_of(cases, answers, Look):
            hits.setdefault(case.how, []).extend(answer["hits"])
        copied = hits.get("copy", [])
        if copied:
            nulls = {"a small copy": sum(copied) / len(copied)}
        else:
            nulls = {}
        return [
            share("right_ratio", found, how, {} if how == "copy" else nulls) for how, found in hits.items()
        ]


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
        left = round(box[0] * width)
        top = round(box[1] * height)
        right = round(box[2] * width)
        bottom = round(box[3] * height)
        pieces.append(picture.crop((left, top, max(left + 1, right), max(top + 1, bottom))))
    return pieces


def opened(case: Look, image_px: int) -> tuple[Any, Sequence[Any], Sequence[str]]:
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
    if case.how != "find" and case.texts and len(case.texts) != len(case.regions):
        raise BadDataError(
            path, "texts", f"{len(case.texts)} texts", f"{len(case.regions)}, one for each region"
        )
    return picture, case.regions, case.texts


def made(seed: int, width: int) -> tuple[Any, list[list[float]], list[str]]:
    """A picture with four words in letters a hundredth of its width high, their boxes, and the words."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    rng = random.Random(seed)
    height = width * 3 // 4
    noise = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    stripes = 200 + 20 * np.sin(np.arange(width) / 60)[None, :, None]
    picture = Image.fromarray(np.clip(stripes + noise, 0, 255).astype(np.uint8))
    drawing = ImageDraw.Draw(picture)
    font = ImageFont.load_default(width / 100)
    regions = []
    texts = []
    margin = width / 300
    for row in range(4):
        text = "".join(rng.choices(_LETTERS, k=8))
        place = (rng.uniform(0.05, 0.7) * width, (row + rng.uniform(0.2, 0.7)) * height / 4)
        drawing.text(place, text, fill=(20, 20, 60), font=font)
        left, top, right, bottom = drawing.textbbox(place, text, font=font)
        box = [left - margin, top - margin, right + margin, bottom + margin]
        regions.append([box[0] / width, box[1] / height, box[2] / width, box[3] / height])
        texts.append(text)
    return picture, regions, texts


SYSTEM = SeeSystem()
