"""Text in an image: where it is (PP-OCRv6 detection) and what it says (recognition), by the networks of ``rapidocr``.

Reading small text in a large picture is what a low resolution costs: letters of fewer than some eight pixels cannot be
told apart, however good the network. So text is looked for in a small copy and read from the image itself.

Detection gives a map of how likely each pixel belongs to text; connected parts above a threshold are boxes, widened by
area x 1.6 / perimeter as the labels it was trained on are shrunk (Liao et al. 2020, "Real-time scene text detection
with differentiable binarization"). Recognition gives letters for each step along a line; repeats and blanks are
dropped (CTC, Graves et al. 2006).
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.onnx.session import OnnxSession
from harness.workloads import _networks
from harness.workloads.grounded_vision.boxes import Boxes
from harness.workloads.grounded_vision.images import Image, Pixels, checked_image, resize

LINE_PX: Final = 48
_STEP_PX: Final = 32
_THRESHOLD, _LEAST_MEAN, _WIDENED = 0.3, 0.5, 1.6
_LEAST_PX: Final = 3
_SHOWN_RATIO: Final = 0.15
"""Of a box's height, shown around it."""


class TextReader:
    """Finds and reads text, by two networks (31 MB) that are kept in ``folder``, and fetched when they are not there.

    FetchError where the networks could not be had, MissingPackageError where onnxruntime is not installed.
    """

    def __init__(self, folder: Path, *, thread_count: int = 1) -> None:
        self._finder = OnnxSession(_networks.fetch(folder, "text-detection"), thread_count=thread_count)
        self._reader = OnnxSession(_networks.fetch(folder, "text-recognition"), thread_count=thread_count)
        self._letters = ["", *self._reader.raw.get_modelmeta().custom_metadata_map["character"].split("\n")]

    def find(self, image: Image, side_px: int) -> Boxes:
        """Boxes [N, 4] of lines of text, likeliest first, seen in a copy whose longer side is ``side_px`` at most."""
        height, width = checked_image(image).shape[:2]
        scale = min(1.0, side_px / max(height, width))
        tall, wide = (max(_STEP_PX, round(s * scale / _STEP_PX) * _STEP_PX) for s in (height, width))
        return boxes_of(self._finder.run({"x": _fed(resize(image, tall, wide))})[0][0, 0])

    def read(self, image: Image, boxes: Boxes) -> list[str]:
        """What each box says, from the image's own pixels."""
        height, width = image.shape[:2]
        found = []
        for x0, y0, x1, y1 in boxes * (width, height, width, height):
            margin = _SHOWN_RATIO * (y1 - y0)
            left, top = (max(0, int(v - margin)) for v in (x0, y0))
            right, bottom = ceil(x1 + margin), ceil(y1 + margin)
            part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
            wide = max(LINE_PX, round(part.shape[1] * LINE_PX / part.shape[0]))
            best = self._reader.run({"x": _fed(resize(part, LINE_PX, wide))})[0][0].argmax(axis=1)
            kept = (best != 0) & np.concatenate(([True], best[1:] != best[:-1]))
            found.append("".join(self._letters[i] if i < len(self._letters) else " " for i in best[kept]))
        return found

    def close(self) -> None:
        """Free both sessions."""
        self._finder.close()
        self._reader.close()


def _fed(pixels: Pixels) -> Pixels:
    """RGB of 0 to 255 as the networks want it: BGR, from -1 to 1, channels first."""
    return np.ascontiguousarray((pixels[:, :, ::-1] / np.float32(127.5) - 1).transpose(2, 0, 1))[None]


def boxes_of(likely: NDArray[np.float32]) -> Boxes:
    """Boxes [N, 4] of the connected parts of a map [height, width] of probabilities, by their mean."""
    from scipy import ndimage

    labels, count = ndimage.label(likely > _THRESHOLD, np.ones((3, 3)))
    means = np.asarray(ndimage.mean(likely, labels, range(1, count + 1)))
    found: list[tuple[float, Sequence[float]]] = []
    height, width = likely.shape
    for mean, (rows, columns) in zip(means, ndimage.find_objects(labels), strict=True):
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        if mean < _LEAST_MEAN or min(tall, wide) < _LEAST_PX:
            continue
        more = tall * wide * _WIDENED / (2 * (tall + wide))
        x, y = (columns.start - more, columns.stop + more), (rows.start - more, rows.stop + more)
        box = np.array([x[0] / width, y[0] / height, x[1] / width, y[1] / height])
        found.append((float(mean), np.clip(box, 0, 1).tolist()))
    found.sort(key=lambda pair: -pair[0])
    return np.array([box for _, box in found]).reshape(-1, 4)
