"""A file from the model hub, by its own client; ``HF_ENDPOINT`` names another hub."""

import threading
from pathlib import Path, PurePosixPath
from typing import Final

from harness.catalog._progress import Progress
from harness.domain.model import HubSource
from harness.errors import FetchError, MissingPackageError

_POLL_S: Final = 0.5


def from_hub(source: HubSource, size_bytes: int, staging: Path, progress: Progress) -> Path:
    """Download into ``staging``; goes on where an earlier call was interrupted.

    Raises:
        MissingPackageError: The hub's client is not installed.
        FetchError: The hub does not answer, or has no such file.
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ImportError:
        raise MissingPackageError("huggingface-hub", "hub") from None
    parts = PurePosixPath(source.file).parts
    if source.file.startswith("/") or ".." in parts or "\\" in source.file or not parts:
        raise FetchError(f"{source.repo}/{source.file}: not a path inside a repository")
    folder = staging / "hub"
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder, size_bytes, progress, stop), daemon=True)
    watcher.start()
    try:
        there = get_hf_file_metadata(hf_hub_url(source.repo, source.file, revision=source.revision)).size
        if there is not None and there > size_bytes:
            raise FetchError(f"it has {there} bytes, the card says {size_bytes}")  # noqa: TRY301 - named as the others
        return Path(
            hf_hub_download(
                source.repo, source.file, revision=source.revision, local_dir=folder, library_name="edge-harness"
            )
        )
    except Exception as error:
        message = str(error).strip().splitlines()
        raise FetchError(
            f"{source.repo}/{source.file}: {type(error).__name__}: {message[0] if message else ''}"
        ) from error
    finally:
        stop.set()
        watcher.join()


def _watch(folder: Path, size_bytes: int, progress: Progress, stop: threading.Event) -> None:
    """Report the size of what is there, as the client's own bar would."""
    while not stop.wait(_POLL_S):
        sizes = [f.stat().st_size for f in folder.rglob("*") if f.suffix in {".incomplete", ".gguf"} and f.is_file()]
        progress(max(sizes, default=0), size_bytes)
