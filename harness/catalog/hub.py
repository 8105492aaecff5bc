"""The model hub, by its own client: whole files, and a model's shape without its weights.

A shape is read from config.json, or from the header of a GGUF file.

The header comes by range requests, a MiB first and then as much again as there is, until it is whole; what has come is
kept in the cache (its folder ``hub``), so that an interrupted read goes on and a second one asks nobody.
``HF_ENDPOINT`` names another hub.
"""

import contextlib
import json
import os
import re
import threading
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from harness.catalog._progress import Progress
from harness.catalog.gguf import SPLIT, GgufFile, header_of, joined, parts_of
from harness.catalog.hf_config import read_hf_config
from harness.catalog.paths import cache_dir
from harness.domain.model import HubSource, ModelShape, Weights
from harness.domain.quant import split, understood
from harness.errors import BadDataError, FetchError, UnknownNameError, optional

_POLL_S: Final = 0.5
_ANSWER_S: Final = 4.0
"""Longest time for a first word of the hub: its client alone would try again for 20 s where there is no network."""
_FIRST_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 64 << 20
"""No header of a known model is half of this; what goes on longer is no header."""


class Repository(NamedTuple):
    """What was read of a repository; ``weights`` only where it was the header of a GGUF file."""

    shape: ModelShape
    weights: Weights | None
    why: str


def read_repository(repo: str, file: str = "", quant: str = "") -> Repository:
    """Shape of the model in a repository, and its tensors where it has a GGUF file.

    ``repo`` is ``org/name``; without a GGUF ``file`` of it its config.json is taken, or, where it has none, the file of
    ``quant`` as people write it (Q4_K_M where none is wanted).

    Raises:
        MissingPackageError: The hub's client is not installed.
        FetchError: The hub does not answer, and the cache has nothing; or there is no such repository.
        UnknownNameError: It has no such file, or none of that quantisation.
        BadDataError: What it has is no config.json or no GGUF file.
    """
    if not file:
        names = _files(repo)
        if "config.json" in names:
            return Repository(read_hf_config(_config(repo)), None, f"config.json of {repo}")
        file = _chosen(repo, [n for n in names if n.endswith(".gguf") and "mmproj" not in n], quant)
    weights = joined([_header(repo, part) for part in parts_of(file)]).weights()
    return Repository(weights.shape, weights, f"header of {repo}/{file}")


def _chosen(repo: str, files: list[str], quant: str) -> str:
    """The file of that quantisation, the first part of a split one."""
    wanted = understood(quant or "Q4_K_M")
    fitting = []
    for name in sorted(files):
        part = SPLIT.search(name)
        of_file = understood(split(SPLIT.sub("", name).removesuffix(".gguf"))[1] or "-")
        same = of_file is not None and wanted is not None and of_file.mixture == wanted.mixture
        if same and (part is None or part[1] == "00001"):
            fitting.append(name)
    exact = [name for name in fitting if quant and quant.lower() in name.lower()]
    plain = [name for name in fitting if "ud-" not in name.lower()]
    if not fitting:
        raise UnknownNameError(f"GGUF file of {quant or 'Q4_K_M'} in {repo}", quant or "Q4_K_M", files)
    return (exact or plain or fitting)[0]


def _header(repo: str, file: str) -> GgufFile:
    """The header of one file; what has come of it lies in the cache."""
    folder = cache_dir() / "hub" / repo.replace("/", "--")
    head, size_file = folder / f"{file.replace('/', '--')}.head", folder / f"{file.replace('/', '--')}.size"
    folder.mkdir(parents=True, exist_ok=True)
    have = head.read_bytes() if head.is_file() and size_file.is_file() else b""
    size = int(size_file.read_text()) if have else 0
    want = max(_FIRST_BYTES, len(have))
    while True:
        found = header_of(have, size, Path(file)) if have else None
        if found is not None:
            return found
        if have and (len(have) >= min(size, _MOST_BYTES)):
            raise BadDataError(f"{repo}/{file}", "", f"no whole header in {len(have)} bytes", "a GGUF file")
        more, size = _range(repo, file, len(have), want)
        if not more:
            raise FetchError(f"{repo}/{file}: the hub sent nothing of bytes {len(have)} to {want}")
        size_file.write_text(str(size))
        with head.open("ab" if have else "wb") as out:
            out.write(more)
        have += more
        want = 2 * len(have)


def _range(repo: str, file: str, start: int, end: int) -> tuple[bytes, int]:
    """Bytes ``start`` to ``end`` of a file, and its size; a server that ignores ranges is left after as many bytes."""
    hub = _client()
    url = hub.hf_hub_url(repo, file, endpoint=os.environ.get("HF_ENDPOINT"))
    headers = {**hub.utils.build_hf_headers(library_name="edge-harness"), "Range": f"bytes={start}-{end - 1}"}
    try:
        answer = hub.utils.get_session().get(url, headers=headers, timeout=30)
    except Exception as error:
        raise FetchError(f"{repo}/{file}: {type(error).__name__}: {error}") from error
    if answer.status_code == 404:
        raise UnknownNameError("file of the hub", f"{repo}/{file}", ())
    total = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    if answer.status_code != 206 or total is None:
        raise FetchError(f"{repo}/{file}: the hub answered {answer.status_code} to a request for a range of bytes")
    return answer.content, int(total[1])


def _files(repo: str) -> list[str]:
    """Names of a repository's files; a listing that was had before is not asked for again."""
    kept = cache_dir() / "hub" / repo.replace("/", "--") / "files.json"
    if kept.is_file():
        return [str(name) for name in json.loads(kept.read_text())]
    client = _client()
    _reach(client, repo)
    try:
        names = client.HfApi(endpoint=os.environ.get("HF_ENDPOINT")).list_repo_files(repo)
    except Exception as error:
        raise FetchError(f"{repo}: {type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(names))
    return list(names)


def _config(repo: str) -> Path:
    hub, folder = _client(), cache_dir() / "hub" / "files"
    kept = hub.try_to_load_from_cache(repo, "config.json", cache_dir=folder)
    if isinstance(kept, str):
        return Path(kept)
    _reach(hub, repo)
    asked = {"cache_dir": folder, "endpoint": os.environ.get("HF_ENDPOINT"), "library_name": "edge-harness"}
    try:
        return Path(hub.hf_hub_download(repo, "config.json", **asked))
    except Exception as error:
        raise FetchError(f"{repo}/config.json: {type(error).__name__}: {str(error).strip()[:200]}") from error


def from_hub(source: HubSource, size_bytes: int, staging: Path, progress: Progress) -> Path:
    """Download into ``staging``; goes on where an earlier call was interrupted.

    Raises:
        MissingPackageError: The hub's client is not installed.
        FetchError: The hub does not answer, or has no such file.
    """
    hub = _client()
    parts = PurePosixPath(source.file).parts
    if source.file.startswith("/") or ".." in parts or "\\" in source.file or not parts:
        raise FetchError(f"{source.repo}/{source.file}: not a path inside a repository")
    _reach(hub, source.repo)
    folder = staging / "hub"
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder, size_bytes, progress, stop), daemon=True)
    watcher.start()
    try:
        there = hub.get_hf_file_metadata(hub.hf_hub_url(source.repo, source.file, revision=source.revision)).size
        if there is not None and there > size_bytes:
            raise FetchError(f"it has {there} bytes, the card says {size_bytes}")  # noqa: TRY301 - named as the others
        asked = {"revision": source.revision, "local_dir": folder, "library_name": "edge-harness"}
        return Path(hub.hf_hub_download(source.repo, source.file, **asked))
    except Exception as error:
        message = str(error).strip().splitlines()
        raise FetchError(
            f"{source.repo}/{source.file}: {type(error).__name__}: {message[0] if message else ''}"
        ) from error
    finally:
        stop.set()
        watcher.join()


def snapshot(repo: str, files: list[str]) -> Path:
    """A folder with those of ``files`` that a repository has, fetched where they are not in the cache.

    Raises:
        MissingPackageError: The hub's client is not installed.
        FetchError: The hub does not answer, or there is no such repository.
    """
    hub = _client()
    asked = {"cache_dir": cache_dir() / "hub" / "files", "allow_patterns": files, "library_name": "edge-harness"}
    with contextlib.suppress(Exception):  # not in the cache: whatever its client calls that
        kept = Path(hub.snapshot_download(repo, **asked, local_files_only=True))
        if (kept / "tokenizer.json").is_file():
            return kept
    _reach(hub, repo)
    try:
        return Path(hub.snapshot_download(repo, **asked, endpoint=os.environ.get("HF_ENDPOINT")))
    except Exception as error:
        raise FetchError(f"{repo}: {type(error).__name__}: {str(error).strip()[:200]}") from error


def _watch(folder: Path, size_bytes: int, progress: Progress, stop: threading.Event) -> None:
    """Report the size of what is there, as the client's own bar would."""
    while not stop.wait(_POLL_S):
        sizes = [f.stat().st_size for f in folder.rglob("*") if f.suffix in {".incomplete", ".gguf"} and f.is_file()]
        progress(max(sizes, default=0), size_bytes)


def _reach(hub: Any, repo: str) -> None:
    """Ask the hub for one word, whatever it is.

    Raises:
        FetchError: None came in time; a thread asks, since looking up a name knows no time limit.
    """
    endpoint, faults = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT")).endpoint, ["no answer"]

    def ask() -> None:
        try:
            hub.utils.get_session().head(endpoint, timeout=_ANSWER_S)
            faults.clear()
        except Exception as error:  # noqa: BLE001 - of whichever library the client speaks with
            faults[:] = [f"{type(error).__name__}: {error}"]

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWER_S)
    if faults:
        raise FetchError(f"{repo}: the hub {endpoint} cannot be reached ({faults[0]})")


def _client() -> Any:
    with optional("huggingface-hub", "hub"):
        import huggingface_hub
    return huggingface_hub
