"""Image towers (mmproj files): what models that look at images hold and do beside their language model.

``models/tables/vision.csv`` has a row a model: bytes of the file in F16; tokens of an image of 1024 x 1024
pixels and the patches that it is cut into; layers of the tower that look at the whole image, and their width.
"""

import re
from functools import cache
from typing import Final, NamedTuple

from harness.core.paths import table_rows
from harness.models.names import TABLES, key
from harness.models.quant import split

_IMAGES: Final = re.compile(rf"\b(?:{TABLES['images']})\b", re.IGNORECASE)


class ImageTower(NamedTuple):
    """The tower of one model.

    Attributes:
        model: Name of the whole, as the table has it; empty where it is in none.
        file_bytes: Of its file in F16; 0 where nobody told.
        image_tokens: That an image of 1024 x 1024 pixels is in a prompt; 0 where nobody told.
        image_flops: Of the tower for that image: two for each weight and patch, and of whole attention.
        is_asked: Whether the model's name says images (VL, Vision), rather than that it can see as well.
        patch_count: Of that image; 0 where nobody told.
        hidden_dim: Entries of a patch between blocks; 0 where nobody told.
    """

    model: str
    file_bytes: int
    image_tokens: int
    image_flops: float
    is_asked: bool
    patch_count: int = 0
    hidden_dim: int = 0


def tower_of(asked: str, card: str) -> ImageTower | None:
    """The vision encoder of a model by the name that was asked for, or by that of its card.

    The result is None for a model that takes no images.
    """
    is_asked = _IMAGES.search(asked) is not None
    for name in (asked, card):
        words = f"{key(split(name)[0])}-"
        for beginning, row in _rows():
            if words.startswith(beginning):
                size, tokens, patches, layers, hidden = (int(row[c]) for c in list(row)[1:6])
                flops = patches * (size + 4 * patches * hidden * layers)
                return ImageTower(row["name"], size, tokens, flops, is_asked, patches, hidden)
    if is_asked:
        return ImageTower("", 0, 0, 0.0, is_asked)
    return None


@cache
def _rows() -> list[tuple[str, dict[str, str]]]:
    """The table, each row with what the names of its models begin with."""
    return [(f"{key(row['name'])}-", row) for row in table_rows("models", "vision")]
