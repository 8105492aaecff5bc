"""Grounded vision: text in regions of a picture, read from the regions' own pixels, by PP-OCRv6 through rapidocr.

A vision model sees a picture in a small copy, where letters of fewer than some eight pixels cannot be told apart. There
are three kinds of case: ``read`` cuts the regions out of the picture itself; ``copy``, the baseline, cuts them out of a
copy as small as a vision model would see; ``find`` looks for text in the whole picture.
"""

import random
from collections.abc import Sequence
from operator import eq
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.errors import BadDataError, RefusedError, optional
from harness.workloads.parts import SystemParts
from harness.workloads.scores import share
from harness.workloads.system import Answers, Case, Cases, Context, Cost, Costs, Figures, PartNames, Size, System

MOST_REGIONS: Final = 16
_LETTERS: Final = "ABCDEFGHKLMNPRTUVXYZ23456789"
"""Letters that no font draws alike."""
_READ_FLOPS: Final = 6.76e6
_FIND_FLOPS: Final = 2.12e4
_LINE_COLUMNS: Final = 320
_CONVOLUTION_SHARE: Final = 0.28
"""Rate of convolutions with few channels over that of large products, on one thread (measured on Zen 3)."""


class VisionState(NamedTuple):
    """The reader, the longer side of a small copy, and the width of made pictures."""

    engine: Any
    copy_px: int
    image_px: int


class GroundedVision(System, table="grounded_vision"):
    """Regions of pictures, read."""

    def cases(self, size: Size, seed: int) -> Cases:
        """Made pictures, each read from its regions and from a small copy, and looked through once."""
        numbers = range(1000 * seed, 1000 * seed + size["case_count"])
        return [{"kind": kind, "seed": number} for kind in ("read", "copy", "find") for number in numbers]

    def prepare(self, parts: SystemParts, size: Size, context: Context) -> VisionState:
        """Load the networks, which are in the package; MissingPackageError where it is not installed."""
        with optional("rapidocr", "vision"):
            from rapidocr import RapidOCR
        threads = {"EngineConfig.onnxruntime.intra_op_num_threads": context.thread_count}
        return VisionState(RapidOCR(params={"Global.log_level": "error", **threads}), size["copy_px"], size["image_px"])

    def step(self, state: VisionState, case: Case) -> dict[str, Any]:
        """The texts of the regions, or of the whole picture; ``hits`` says of each right text whether it was read."""
        import numpy as np

        kind, (picture, regions, right) = case["kind"], _opened(case, state.image_px)
        parts = [picture]
        if kind == "copy":
            picture.thumbnail((state.copy_px, state.copy_px))
        if kind != "find":
            x, y = picture.size
            edges = np.array(checked(regions)) * (x, y, x, y)
            parts = [
                picture.crop((left, top, max(left + 1, right), max(top + 1, bottom)))
                for left, top, right, bottom in edges.round().astype(int).tolist()
            ]
        texts: list[str] = []
        for part in parts:
            # Said each time: the engine keeps what it was told last.
            lines = state.engine(np.asarray(part), use_det=kind == "find", use_cls=False, use_rec=True).txts or ()
            texts += lines if kind == "find" else [*lines, ""][:1]
        plain = [text.replace(" ", "") for text in texts]
        wanted = [text.replace(" ", "") for text in right]
        hits = [text in plain for text in wanted] if kind == "find" else list(map(eq, wanted, plain))
        return {"texts": texts, "right": right, "hits": hits}

    def cost(self, parts: PartNames, size: Size) -> Costs:
        """FLOP of the networks' layers, a column of a line and a pixel of the picture; four lines in a made picture."""
        lines = 4 * _READ_FLOPS * _LINE_COLUMNS / _CONVOLUTION_SHARE
        pixels = size["image_px"] ** 2 * 3 / 4 / _CONVOLUTION_SHARE
        held: dict[str, Any] = {"file_bytes": 31_000_000, "resident_bytes": 200 << 20}
        return {
            "read": Cost(flops_count=lines, glue_s=0.02, **held),
            "copy": Cost(flops_count=lines, glue_s=0.03, **held),
            "find": Cost(flops_count=lines + _FIND_FLOPS * pixels, glue_s=0.1, **held),
        }

    def score(self, cases: Cases, answers: Answers) -> Figures:
        """Of each kind the share of texts that were read exactly, blanks left aside."""
        scores = {}
        for kind in ("read", "copy", "find"):
            hits = [hit for c, a in zip(cases, answers, strict=True) if c["kind"] == kind for hit in a["hits"]]
            if hits:
                scores[kind] = share(sum(hits), len(hits))
        return scores


def checked(regions: Sequence[Any]) -> Sequence[Any]:
    """The regions; BadDataError for one that is no box inside its picture, RefusedError for none or too many."""
    if not 1 <= len(regions) <= MOST_REGIONS:
        raise RefusedError(f"{len(regions)} regions: 1 to {MOST_REGIONS}")
    for at, box in enumerate(regions):
        is_box = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
        if not (is_box and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            expected = "0 <= left < right <= 1 and 0 <= top < bottom <= 1"
            raise BadDataError("regions", f"[{at}]", str(box)[:80], expected)
    return regions


def _opened(case: Case, image_px: int) -> tuple[Any, Sequence[Any], Sequence[str]]:
    with optional("pillow", "vision"):
        from PIL import Image
    if "image" not in case:
        return made(case.get("seed", 0), image_px)
    path = Path(case["image"])
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadDataError(path, "image", str(error)[:200], "a picture") from error
    texts = case.get("texts", [])
    if case["kind"] != "find" and texts and len(texts) != len(case.get("regions", [])):
        raise BadDataError(path, "texts", f"{len(texts)} texts", f"{len(case.get('regions', []))}, one for each region")
    return picture, case.get("regions", []), texts


def made(seed: int, width: int) -> tuple[Any, list[tuple[float, float, float, float]], list[str]]:
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
    regions, texts = [], []
    for row in range(4):
        text = "".join(rng.choices(_LETTERS, k=8))
        place = (rng.uniform(0.05, 0.7) * width, (row + rng.uniform(0.2, 0.7)) * height / 4)
        drawing.text(place, text, fill=(20, 20, 60), font=font)
        left, top, right, bottom = drawing.textbbox(place, text, font=font)
        margin = width / 300
        box = (left - margin) / width, (top - margin) / height, (right + margin) / width, (bottom + margin) / height
        regions.append(box)
        texts.append(text)
    return picture, regions, texts


SYSTEM = GroundedVision()
