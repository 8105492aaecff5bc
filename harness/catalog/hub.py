"""The model hub, by its own client: whole files, and a model's shape without its weights.

A shape is read from config.json, or from the header of a GGUF file.

The header comes by range requests, a MiB first and then as much again as there is, until it is whole; what
has come is kept in the cache (its folder ``hub``), so that an interrupted read goes on and a second one asks
nobody within a day, and then whether it is still the same (its ETag). ``HF_ENDPOINT`` names another hub.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import msgspec

from harness.catalog._progress import Progress, no_progress
from harness.catalog.gguf import SPLIT, GgufFile, header_of, joined, parts_of
from harness.catalog.hf_config import CONFIG_MAX_BYTES, read_hf_config
from harness.catalog.paths import cache_dir
from harness.domain.foreign import inside, read_limited
from harness.domain.model import HubSource, ModelFile, ModelShape, Weights
from harness.domain.quant import split, understood
from harness.errors import BadDataError, FetchError, HarnessError, RefusedError, UnknownNameError

_CHUNK_BYTES: Final = 1 << 16
_LISTING_MAX_BYTES: Final = 16 << 20
_ANSWER_S: Final = 4.0
"""Longest time for a first word of the hub: its client alone would try again for 20 s where there is no
network."""
_MOST_KEY: Final = "edge_harness_most_bytes"
_FRESH_S: Final = 86_400.0
"""How long nobody asks whether what is kept of the hub is still what it has."""
_PAGE_S: Final = 60.0
_SLOWEST_BYTES_PER_S: Final = 16 << 10
"""Below it a hub is given up: what it may send, at this rate, and a minute, are the time that it has."""
_NAME_MAX: Final = 180
_FIRST_BYTES: Final = 1 << 20
_EIB: Final = 1 << 60
_MOST_BYTES: Final = 64 << 20
"""No header of a known model is half of this; what goes on longer is no header."""


_OLLAMA: Final = "https://registry.ollama.ai"
_OLLAMA_MODEL: Final = "application/vnd.ollama.image.model"
_OLLAMA_TOWER: Final = "application/vnd.ollama.image.projector"
_USUAL_FILES: Final = (
    "Q4_K_M",
    "MXFP4",
    "MXFP4_MOE",
    "UD-Q4_K_XL",
    "Q4_K_S",
    "Q4_0",
    "Q5_K_M",
    "Q6_K",
    "Q8_0",
    "F16",
    "BF16",
)
"""Of a repository's files the first of these that it has, where none is asked for."""


class _File(msgspec.Struct):
    rfilename: str
    size: int | None = None


class _Listing(msgspec.Struct):
    """What is read of the hub's answer about a repository."""

    siblings: list[_File]


class _Layer(msgspec.Struct):
    mediaType: str  # noqa: N815 - the registry's own name
    digest: str
    size: int


class _Manifest(msgspec.Struct):
    """What is read of Ollama's registry about a model."""

    layers: list[_Layer]


class Repository(NamedTuple):
    """What was read of a repository.

    Attributes:
        weights: Of a GGUF file's header; None where a config.json alone told the shape.
        file: The GGUF file, its first part where it has several.
        tower_bytes: Of the file of its image tower in F16, or of the smallest there is; 0 for none.
    """

    shape: ModelShape
    weights: Weights | None
    why: str
    file: str = ""
    tower_bytes: int = 0


def read_repository(repo: str, file: str = "", quant: str = "") -> Repository:
    """Shape of the model in a repository, and its tensors where it has a GGUF file.

    ``repo`` is ``org/name``; without a GGUF ``file`` of it the file of ``quant`` as people write it is taken,
    or the usual one where none is wanted; its config.json where it has no GGUF files.

    Raises:
        FetchError: The hub does not answer, and the cache has nothing; or there is no such repository.
        UnknownNameError: It has no such file, or none of that quantisation.
        BadDataError: What it has is no config.json or no GGUF file.
    """
    if file:
        listed = {}
    else:
        listed = _sizes_in(repo)
    if not file and not any(name.endswith(".gguf") for name in listed):
        if "config.json" not in listed:
            raise UnknownNameError(f"GGUF file or config.json in {repo}", quant or "model", listed)
        config = _document(repo, "config.json", _url(repo, "config.json"), CONFIG_MAX_BYTES)
        return Repository(read_hf_config(config), None, f"config.json of {repo}")
    file = file or _chosen(repo, list(listed), quant)
    headers = [
        _header(f"{repo}/{part}", _url(repo, part), folder_of(repo) / _flat(part)) for part in parts_of(file)
    ]
    weights = joined(headers).weights()
    towers = {name: size for name, size in listed.items() if "mmproj" in name and name.endswith(".gguf")}
    half = [size for name, size in towers.items() if "f16" in name.lower() and "bf16" not in name.lower()]
    tower_bytes = min(half or towers.values(), default=0)
    return Repository(weights.shape, weights, f"header of {repo}/{file}", file, tower_bytes)


def read_url(url: str) -> Repository:
    """The model in a GGUF file at an address, by its header.

    Raises:
        FetchError: Nothing answers there, or no GGUF file is there.
        BadDataError: What is there is no GGUF file.
    """
    name = _flat(url.partition("?")[0].partition("://")[2])[-_NAME_MAX:]
    _reach(url, "/".join(url.split("/")[:3]))
    weights = _header(url, url, folder_of("url") / name).weights()
    return Repository(weights.shape, weights, f"header of {url}", url)


def read_ollama(name: str) -> Repository:
    """A model of Ollama's registry, ``qwen3:8b`` or ``user/name:tag``, by the header of its file.

    Raises:
        FetchError: The registry does not answer, or has no such model.
        BadDataError: Its answer names no model file.
    """
    path, _, tag = name.partition(":")
    if "/" in path:
        repo = path
    else:
        repo = f"library/{path}"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or not re.fullmatch(r"[\w.-]*", tag):
        raise RefusedError(f"{name!r} is no name of Ollama's registry: write ollama:name:tag")
    base = f"{_OLLAMA}/v2/{repo}"
    place = f"ollama:{repo}:{tag or 'latest'}"
    manifest = _document(
        _flat(place), "manifest.json", f"{base}/manifests/{tag or 'latest'}", _LISTING_MAX_BYTES, _OLLAMA
    )
    try:
        layers = msgspec.json.decode(read_limited(manifest), type=_Manifest).layers
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        manifest.unlink(missing_ok=True)  # asked for anew
        raise BadDataError(place, "", f"no such list ({error})", "a manifest") from error
    model = next((layer for layer in layers if layer.mediaType == _OLLAMA_MODEL), None)
    if model is None or not re.fullmatch(r"sha256:[0-9a-f]{64}", model.digest):
        raise BadDataError(place, "layers", "no model file", f"a layer of {_OLLAMA_MODEL}")
    head = folder_of(_flat(place)) / model.digest.removeprefix("sha256:")
    weights = _header(place, f"{base}/blobs/{model.digest}", head).weights()
    towers = [layer.size for layer in layers if layer.mediaType == _OLLAMA_TOWER]
    return Repository(weights.shape, weights, f"header of {place}", "", max(towers, default=0))


def files_in(repo: str, file: str = "", quant: str = "") -> list[ModelFile]:
    """The GGUF file of a repository, or the one of ``quant`` (Q4_K_M where none is wanted): its parts with their sizes.

    Raises as ``read_repository``.
    """
    file = file or _chosen(repo, names_in(repo), quant)
    client = _client()
    described = []
    _session()
    _reach(repo)
    for part in parts_of(file):
        with _faults_told(f"{repo}/{part}"):
            about = client.get_hf_file_metadata(_url(repo, part))
        if about.size is None:
            raise FetchError(f"{repo}/{part}: the hub does not tell its size")
        digest = ""
        if re.fullmatch(r"[0-9a-f]{64}", about.etag or ""):
            digest = about.etag
        source = HubSource(repo=repo, file=part, revision=about.commit_hash or "main")
        described.append(ModelFile(quant=quant, size_bytes=about.size, sha256=digest, hub=source))
    return described


def _chosen(repo: str, names: list[str], quant: str) -> str:
    """The GGUF file of that quantisation among all names, the first part of a split one."""
    files = [name for name in names if name.endswith(".gguf") and "mmproj" not in name]
    if not quant:
        return _usual(repo, files)
    wanted = understood(quant)
    fitting = []
    for name in sorted(files):
        part = SPLIT.search(name)
        of_file = understood(split(SPLIT.sub("", name).removesuffix(".gguf"))[1] or "-")
        same = of_file is not None and wanted is not None and of_file.mixture == wanted.mixture
        if same and (part is None or part[1] == "00001"):
            fitting.append(name)
    exact = [name for name in fitting if quant.lower() in name.lower()]
    plain = [name for name in fitting if "ud-" not in name.lower()]
    if not fitting:
        raise UnknownNameError(f"GGUF file of {quant} in {repo}", quant, files)
    return (exact or plain or fitting)[0]


def _usual(repo: str, files: list[str]) -> str:
    """The file that is taken where none is asked for."""
    for quant in _USUAL_FILES:
        with suppress(UnknownNameError):
            return _chosen(repo, files, quant)
    whole = [name for name in sorted(files) if (part := SPLIT.search(name)) is None or part[1] == "00001"]
    if not whole:
        raise UnknownNameError(f"GGUF file in {repo}", "model", files)
    return whole[0]


def _flat(path: str) -> str:
    """A path as one name of a file."""
    return re.sub(r"[^\w.-]", "--", path)


def _header(place: str, url: str, stem: Path) -> GgufFile:
    """The header of the file at ``url``; what has come of it lies in the cache, beginning with ``stem``."""
    head = stem.with_name(f"{stem.name}.head")
    size_file = head.with_suffix(".size")
    tag_file = head.with_suffix(".etag")
    if head.is_file() and not _is_fresh(head):
        head.touch()
        with suppress(FetchError):  # offline: as it was, for another day
            if _reach(place, url) != _text_in(tag_file):
                head.unlink()
    stop = _FIRST_BYTES
    while True:
        size = _text_in(size_file)
        if size.isdecimal() and head.is_file():
            data = read_limited(head, _MOST_BYTES)
        else:
            data = b""
        if data and (header := header_of(data, int(size), Path(place.rpartition("/")[2]))):
            return header
        if data and len(data) >= min(int(size), _MOST_BYTES):
            raise BadDataError(place, "", f"no whole header in {len(data)} bytes", "a GGUF file")
        if not data:
            head.unlink(missing_ok=True)
            tag_file.write_text(_reach(place, url))
        stop = max(_FIRST_BYTES, 2 * len(data))
        done, total = download(place, url, head, _EIB, stop=stop)
        if done == len(data):
            raise FetchError(f"{place}: the hub sent nothing of bytes {done} to {stop}")
        size_file.write_text(str(total))


def _fetch_whole(place: str, url: str, part: Path, most_bytes: int) -> None:
    done, size = download(place, url, part, most_bytes)
    if done < size:
        raise FetchError(f"{place}: the hub gave {done} of {size} bytes: try again")


def _is_fresh(path: Path) -> bool:
    """Whether a file of the cache was asked for, or compared with what its host has, within a day."""
    return path.is_file() and time.time() - path.stat().st_mtime < _FRESH_S


def _text_in(path: Path) -> str:
    if path.is_file():
        return read_limited(path, _NAME_MAX).decode(errors="replace")
    return ""


def _document(repo: str, name: str, url: str, most_bytes: int, host: str = "") -> Path:
    """A small document of the hub in the cache, of at most so many bytes.

    It appears there whole or not at all, and is asked for anew after a day, where the hub can be reached.
    """
    path = inside(folder_of(repo), name, repo)
    if _is_fresh(path):
        return path
    try:
        _reach(repo, host)
        with TemporaryDirectory(dir=path.parent) as own:
            part = Path(own) / "document"
            _fetch_whole(f"{repo}/{name}", url, part, most_bytes)
            part.replace(path)
    except FetchError:
        if not path.is_file():
            raise
        path.touch()  # offline: as it was, for another day
    return path


def names_in(repo: str) -> list[str]:
    """Names of a repository's files; BadDataError where the hub's listing is no such list."""
    return list(_sizes_in(repo))


def _sizes_in(repo: str) -> dict[str, int]:
    """Names of a repository's files with their bytes, 0 where the hub does not tell them.

    Raises:
        BadDataError: The hub's listing is no such list.
    """
    listing = _document(
        repo, "listing.json", f"{_endpoint()}/api/models/{repo}?blobs=true", _LISTING_MAX_BYTES
    )
    try:
        siblings = msgspec.json.decode(read_limited(listing), type=_Listing).siblings
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        listing.unlink(missing_ok=True)  # asked for anew
        raise BadDataError(
            f"{repo}: the hub's listing", "", f"no such list ({error})", "names of files"
        ) from error
    return {each.rfilename: each.size or 0 for each in siblings}


def from_hub(source: HubSource, size_bytes: int, staging: Path, progress: Progress) -> Path:
    """Download into ``staging``, never more than ``size_bytes``.

    Goes on where an earlier call was interrupted.

    Raises:
        FetchError: The hub does not answer, has no such file, or one of another size.
    """
    place = f"{source.repo}/{source.file}"
    try:
        inside(staging, source.file, place)
    except BadDataError as error:
        raise FetchError(f"{place}: not a path inside a repository") from error
    part = staging / "hub.part"
    if part.is_file() and part.stat().st_size >= size_bytes:
        return part  # its hash decides
    _reach(source.repo)
    done, _ = download(place, _url(source.repo, source.file, source.revision), part, size_bytes, progress)
    if done < size_bytes:
        raise FetchError(f"{place}: the hub gave {done} of {size_bytes} bytes, which are kept: try again")
    return part


def download(
    place: str,
    url: str,
    part: Path,
    most_bytes: int,
    progress: Progress = no_progress,
    *,
    stop: int = 0,
    silence_s: float = 30.0,
) -> tuple[int, int]:
    """Fetch a file of the hub or of another host to its end, or up to byte ``stop``.

    What is there already is not fetched again. Bounded in bytes, in the time without one (``silence_s``), and
    in the time until the last of them is here.

    Returns:
        Bytes that are there now, and those of the whole file.

    Raises:
        UnknownNameError: The hub has no such file.
        FetchError: It does not answer, or the file, or what is sent of it, has more than ``most_bytes``.
    """
    utils = _client().utils
    token = None if url.startswith(f"{_endpoint()}/") else False  # the hub's token is for the hub alone
    headers = {
        **utils.build_hf_headers(token=token, library_name="edge-harness"),
        "Accept-Encoding": "identity",
    }
    with part.open("ab") as out, _faults_told(place):
        done = out.tell()
        if done or stop:
            headers |= {"Range": f"bytes={done}-{stop - 1 if stop else ''}"}
        asked = {_MOST_KEY: stop or most_bytes}
        with _session().stream("GET", url, headers=headers, timeout=silence_s, extensions=asked) as answer:
            status = answer.status_code
            if status == 404 and stop:
                raise UnknownNameError("file of the hub", place, ())
            if status not in {200, 206}:
                raise FetchError(
                    f"{place}: {answer.url.host} answered {status}: there is no such file, or it wants a token"
                )
            if status == 200:  # all of it, whatever was asked for
                out.truncate(0)
                done = 0
            total = answer.headers.get("Content-Length" if status == 200 else "Content-Range", "").rpartition(
                "/"
            )[2]
            if re.fullmatch(r"\d{1,18}", total):
                size = int(total)
            else:
                size = 0
            if size > most_bytes:
                raise FetchError(f"{place}: found {size} bytes, expected {most_bytes}")
            for chunk in answer.iter_bytes(_CHUNK_BYTES):
                done += len(chunk)
                if done > (stop or most_bytes):
                    raise FetchError(
                        f"{place}: it sends more than the {stop or most_bytes} bytes that it may have"
                    )
                out.write(chunk)
                progress(done, most_bytes)
    return done, size


@contextmanager
def _faults_told(place: str) -> Iterator[None]:
    """Make a fault of whichever library the client speaks with a FetchError."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines() or [""]
        raise FetchError(f"{place}: {type(error).__name__}: {text[0][:200]}") from error


def folder_of(repo: str) -> Path:
    """Where what is kept of a repository lies; made if absent."""
    folder = cache_dir() / "hub" / repo.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _endpoint() -> str:
    return str(_client().HfApi(endpoint=os.environ.get("HF_ENDPOINT")).endpoint)


def _url(repo: str, file: str, revision: str | None = None) -> str:
    return str(_client().hf_hub_url(repo, file, revision=revision, endpoint=os.environ.get("HF_ENDPOINT")))


def _reach(place: str, url: str = "") -> str:
    """The ETag of what is at an address, or of the hub's first page; empty where it tells none.

    Raises:
        FetchError: No word came in time; a thread asks, since looking up a name knows no time limit.
    """
    url = url or _endpoint()
    session = _session()
    faults = ["no answer"]
    tags = [""]

    def ask() -> None:
        try:
            tags[0] = session.head(url, timeout=_ANSWER_S).headers.get("ETag", "")[:_NAME_MAX]
            faults.clear()
        except Exception as error:  # noqa: BLE001 - of whichever library the client speaks with
            faults[:] = [f"{type(error).__name__}: {error}"]

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWER_S)
    if faults:
        raise FetchError(f"{place}: the hub {url} cannot be reached ({faults[0]})")
    return tags[0]


def _session() -> Any:
    """The client's own session, whose answers are bounded: in bytes, and in the time until the last of them is here.

    The client asks pages of its own accord (what a file is, where it went), whose size a mirror decides.
    """
    session = _client().utils.get_session()
    hooks = session.event_hooks
    if _bound not in hooks["response"]:
        hooks["response"].append(_bound)
        session.event_hooks = hooks
    return session


def _bound(answer: Any) -> None:
    """Count the bytes of an answer as they come.

    FetchError beyond what its request may have, or at its deadline.
    """
    asked = answer.request.extensions
    most_bytes = asked.get(_MOST_KEY, _LISTING_MAX_BYTES)
    end_s = time.monotonic() + _PAGE_S + most_bytes / _SLOWEST_BYTES_PER_S
    if answer.request.method != "HEAD" and answer.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchError(f"{answer.url.host} sent a pressed page, expected one as it was asked for")
    base = next(kind for kind in type(answer.stream).__mro__ if kind.__name__ == "SyncByteStream")

    class Counted(base):  # type: ignore[misc, valid-type]  # of whichever library the client speaks with
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for chunk in self.stream:
                size += len(chunk)
                if size > most_bytes + _CHUNK_BYTES:
                    raise FetchError(f"{answer.url.host} sends more than the {most_bytes} bytes that it may")
                if time.monotonic() > end_s:
                    raise FetchError(
                        f"{answer.url.host} was too slow: {size} bytes of at most {most_bytes} came"
                    )
                yield chunk

        def close(self) -> None:
            self.stream.close()

    answer.stream = Counted(answer.stream)


def _client() -> Any:
    import huggingface_hub.utils

    if huggingface_hub.__version__.startswith(
        "0."
    ):  # what the extra `export` brings; its sessions have no streams
        version = huggingface_hub.__version__
        raise RefusedError(
            f"huggingface-hub {version}: 1.0 or later reads the hub; install `export` apart from it"
        )
    return huggingface_hub
