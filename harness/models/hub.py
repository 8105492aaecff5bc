"""Repositories of the model hub: whole files, and a model's shape without its weights.

A shape is read from config.json, or from the header of a GGUF file.

The header comes by range requests, a MiB first and then as much again as there is, until it is whole; what
has come is kept in the cache (its folder ``hub``), so that an interrupted read goes on and a second one asks
nobody within a day, and then whether it is still the same (its ETag). ``HF_ENDPOINT`` names another hub.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from harness.core.errors import BadDataError, FetchError, HarnessError, RefusedError, UnknownNameError
from harness.core.foreign import T, inside, json_in, json_of, read_limited, typed
from harness.core.model import HubSource, ModelFile, ModelShape, Weights
from harness.core.paths import cache_dir
from harness.core.progress import Progress
from harness.models.formats import Format, as_stored, bytes_by_group, format_of, shards_in, word_of
from harness.models.gguf import SPLIT, GgufFile, header_of, joined, parts_of
from harness.models.hf_config import CONFIG_MAX_BYTES, read_hf_config
from harness.models.hub_client import LISTING_MAX_BYTES, download, endpoint, file_url, reach
from harness.models.quant import split, understood
from harness.models.weights import weights_of

_FRESH_S: Final = 86_400.0
"""How long nobody asks whether what is kept of the hub is still what it has."""
_NAME_MAX: Final = 180
_FIRST_BYTES: Final = 1 << 20
_EIB: Final = 1 << 60
_MOST_BYTES: Final = 64 << 20
"""No header of a known model is half of this; what goes on longer is no header."""
_OLLAMA: Final = "https://registry.ollama.ai"
_MOST_SHARDS: Final = 16
"""Files of safetensors whose headers are read: of more the listing's bytes are shared out in proportion."""
_FIRST_SAFETENSORS_BYTES: Final = 1 << 17
_USUAL_FILES: Final = (
    "Q4_K_M", "MXFP4_MOE", "UD-Q4_K_XL", "Q4_K_S", "Q4_0", "Q5_K_M", "Q6_K", "Q8_0", "F16", "BF16",
)  # fmt: skip
"""Of a repository's files the first of these that it has, where none is asked for."""


class _Stored(msgspec.Struct):
    sha256: str = ""


class _ListedFile(msgspec.Struct):
    rfilename: str
    size: int | None = None
    lfs: _Stored | None = None


class _Listing(msgspec.Struct):
    """What is read of the hub's answer about a repository: its commit, and its files with their bytes and hashes."""

    siblings: list[_ListedFile]
    sha: str = "main"


class _Layer(msgspec.Struct):
    mediaType: str  # noqa: N815 - the registry's own name
    digest: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
    size: int


class _OllamaManifest(msgspec.Struct):
    """What is read of Ollama's registry about a model."""

    layers: list[_Layer]


class Repository(NamedTuple):
    """What was read of a repository.

    Attributes:
        weights: Of a GGUF file's header; None where a config.json alone told the shape.
        file: The GGUF file, its first part where it has several.
        tower_bytes: Of the file of its image tower in F16, or of the smallest there is; 0 for none.
        format: Of its own files, where these are no GGUF files.
    """

    shape: ModelShape
    weights: Weights | None
    why: str
    file: str = ""
    tower_bytes: int = 0
    format: Format | None = None


def read_repository(repo: str, file: str = "", quant: str = "") -> Repository:
    """Shape of the model in a repository, and its tensors where it has a GGUF file.

    ``repo`` is ``org/name``; without a GGUF ``file`` of it the file of ``quant`` as people write it is taken,
    or the usual one where none is wanted; its config.json where it has no GGUF files.

    Raises:
        FetchError: The hub does not answer, and the cache has nothing; or there is no such repository.
        UnknownNameError: It has no such file, or none of that quantisation.
        BadDataError: What it has is no config.json or no GGUF file.
    """
    sizes = _sizes(repo, file)
    if not file:
        if not any(name.endswith(".gguf") for name in sizes):
            return _of_config(repo, sizes, quant)
        file = _chosen(repo, sizes, quant)
    folder = folder_of(repo)
    headers = [
        _header(f"{repo}/{part}", file_url(repo, part), folder / _flat(part)) for part in parts_of(file)
    ]
    weights = joined(headers).weights()
    towers = {
        name.lower(): size for name, size in sizes.items() if "mmproj" in name and name.endswith(".gguf")
    }
    half = [size for name, size in towers.items() if "f16" in name and "bf16" not in name]
    tower_bytes = min(half or towers.values(), default=0)
    return Repository(weights.shape, weights, f"header of {repo}/{file}", file, tower_bytes)


def _sizes(repo: str, file: str) -> dict[str, int]:
    """Bytes of a repository's files by their names; empty if a file of it is named, and the hub gives no listing."""
    try:
        return {each.rfilename: each.size or 0 for each in _listing(repo).siblings}
    except HarnessError:
        if not file:
            raise
        return {}


def _of_config(repo: str, sizes: dict[str, int], quant: str) -> Repository:
    """A repository without GGUF files: the shape of its config.json, and the bytes of its own files.

    Raises:
        UnknownNameError: It has no config.json either.
        BadDataError: Its config.json is none of a known model.
    """
    if "config.json" not in sizes:
        raise UnknownNameError(f"GGUF file or config.json in {repo}", quant or "model", sizes)
    config = document(repo, "config.json", file_url(repo, "config.json"), CONFIG_MAX_BYTES)
    shape = read_hf_config(config)
    fields = json_in(config, "a config.json", CONFIG_MAX_BYTES)
    own = format_of(fields, sizes) if isinstance(fields, dict) else None
    files = shards_in(sizes)
    if quant or own is None or not sum(files.values()):
        return Repository(shape, None, f"config.json of {repo}")
    tensors: dict[str, int] = {}
    if len(files) <= _MOST_SHARDS:
        with suppress(HarnessError):  # the listing tells the bytes of all of them together
            for name in files:
                tensors |= _tensors_of(repo, name)
    sums = bytes_by_group(tensors)
    tower = sums.get("tower", 0)
    base = weights_of(shape, word_of(fields))
    weights = as_stored(base, sums, sum(files.values()) - tower)
    why = f"files of {repo} as it lists them ({own.name})"
    return Repository(shape, weights, why, tower_bytes=tower, format=own)


def _tensors_of(repo: str, name: str) -> dict[str, int]:
    """Bytes of each tensor in a file of safetensors, by its header alone (BadDataError)."""
    place = f"{repo}/{name}"
    head = folder_of(repo) / f"{_flat(name)}.head"
    stop = 8
    while True:
        data = read_limited(head, _MOST_BYTES) if head.is_file() else b""
        if len(data) >= 8:
            stop = 8 + int.from_bytes(data[:8], "little")
            if stop > _MOST_BYTES:
                raise BadDataError(place, "header", f"{stop} bytes", f"at most {_MOST_BYTES}")
        if len(data) >= stop > 8:
            break
        came = download(
            place, file_url(repo, name), head, _EIB, stop=max(stop, _FIRST_SAFETENSORS_BYTES)
        ).done_bytes
        if came == len(data):
            raise FetchError(f"{place}: the hub sent nothing of bytes {came} to {stop}")
    header = json_of(data[8:stop], place, "a header of safetensors")
    if not isinstance(header, dict):
        raise BadDataError(place, "header", type(header).__name__, "a JSON object")
    return dict(_tensor_bytes(header, place))


def _tensor_bytes(header: dict[str, Any], place: str) -> Iterator[tuple[str, int]]:
    for name, told in header.items():
        if name == "__metadata__":
            continue
        ends = told.get("data_offsets") if isinstance(told, dict) else None
        if not (isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int) for end in ends)):
            raise BadDataError(place, f"{name}.data_offsets", repr(ends)[:40], "two numbers")
        yield name, max(ends[1] - ends[0], 0)


def read_url(url: str) -> Repository:
    """The model in a GGUF file at an address, by its header.

    Raises:
        FetchError: Nothing answers there, or no GGUF file is there.
        BadDataError: What is there is no GGUF file.
    """
    name = _flat(url.partition("?")[0].partition("://")[2])[-_NAME_MAX:]
    weights = _header(url, url, folder_of("url") / name).weights()
    return Repository(weights.shape, weights, f"header of {url}", url)


def read_ollama(name: str) -> Repository:
    """A model of Ollama's registry, ``qwen3:8b`` or ``user/name:tag``, by the header of its file.

    Raises:
        RefusedError: That is no such name.
        FetchError: The registry does not answer, or has no such model.
        BadDataError: Its answer names no model file.
    """
    told = re.fullmatch(r"([\w.-]+/)?([\w.-]+)(?::([\w.-]+))?", name)
    if told is None:
        raise RefusedError(f"{name!r} is no name of Ollama's registry: write ollama:name:tag")
    place = f"ollama:{name}"
    folder = _flat(place)
    base = f"{_OLLAMA}/v2/{told[1] or 'library/'}{told[2]}"
    manifest = document(folder, "manifest.json", f"{base}/manifests/{told[3] or 'latest'}", LISTING_MAX_BYTES)
    layers = {
        layer.mediaType.rpartition(".")[2]: layer for layer in _read(place, manifest, _OllamaManifest).layers
    }
    if "model" not in layers:
        raise BadDataError(place, "layers", "no model file", "a layer of a model")
    digest = layers["model"].digest
    weights = _header(place, f"{base}/blobs/{digest}", folder_of(folder) / _flat(digest)).weights()
    tower = layers.get("projector")
    return Repository(weights.shape, weights, f"header of {place}", "", tower.size if tower else 0)


def files_in(repo: str, file: str = "", quant: str = "") -> list[ModelFile]:
    """The GGUF file of a repository, or the one of ``quant`` (Q4_K_M where none is wanted): its parts with their sizes.

    Raises as ``read_repository``.
    """
    listing = _listing(repo)
    listed = {each.rfilename: each for each in listing.siblings}
    described = []
    for part in parts_of(file or _chosen(repo, listed, quant)):
        if part not in listed:
            raise UnknownNameError(f"file in {repo}", part, listed)
        size = listed[part].size
        if not size:
            raise FetchError(f"{repo}/{part}: the hub does not tell its size")
        stored = listed[part].lfs or _Stored()
        source = HubSource(repo=repo, file=part, revision=listing.sha)
        described.append(ModelFile(quant=quant, size_bytes=size, sha256=stored.sha256, hub=source))
    return described


def _chosen(repo: str, names: Iterable[str], quant: str) -> str:
    """The GGUF file of that quantisation, or the usual one, among all names: the first part of a split one."""
    files = list[str]()
    for name in sorted(names):
        part = SPLIT.search(name)
        if name.endswith(".gguf") and "mmproj" not in name and (part is None or part[1] == "00001"):
            files.append(name)
    for wanted in (quant,) if quant else _USUAL_FILES:
        mixture = _mixture(wanted)
        fitting = [
            name
            for name in files
            if mixture and mixture == _mixture(split(SPLIT.sub("", name).removesuffix(".gguf"))[1])
        ]
        if fitting:  # one that is called so, else one that is no other recipe
            return min(fitting, key=lambda name: (wanted.lower() not in name.lower(), "ud-" in name.lower()))
    if quant or not files:
        raise UnknownNameError(
            f"GGUF file of {quant} in {repo}" if quant else f"GGUF file in {repo}", quant or "model", files
        )
    return files[0]


def _mixture(quant: str) -> str:
    meant = understood(quant)
    return meant.mixture if meant else ""


def _flat(path: str) -> str:
    """A path as one name of a file."""
    return re.sub(r"[^\w.-]", "--", path)


def _header(place: str, url: str, stem: Path) -> GgufFile:
    """The header of the file at ``url``; what has come of it lies in the cache, beginning with ``stem``."""
    head = stem.with_name(f"{stem.name}.head")
    about = head.with_suffix(".about")  # bytes and tag of the whole file
    if head.is_file() and not _is_fresh(head):
        head.touch()
        with suppress(FetchError):  # offline: as it was, for another day
            if reach(place, url) != _text_in(about).partition(" ")[2]:
                head.unlink()
    while True:
        size = _text_in(about).partition(" ")[0]
        data = b""
        if size.isdecimal() and head.is_file():
            data = read_limited(head, _MOST_BYTES)
        if not data:
            head.unlink(missing_ok=True)
        elif header := header_of(data, int(size), Path(place.rpartition("/")[2])):
            return header
        elif len(data) >= min(int(size), _MOST_BYTES):
            raise BadDataError(place, "", f"no whole header in {len(data)} bytes", "a GGUF file")
        stop = max(_FIRST_BYTES, 2 * len(data))
        fetched = download(place, url, head, _EIB, stop=stop)
        if fetched.done_bytes == len(data):
            raise FetchError(f"{place}: the hub sent nothing of bytes {len(data)} to {stop}")
        about.write_text(f"{fetched.file_bytes} {fetched.tag}")


def _is_fresh(path: Path) -> bool:
    """Whether a file of the cache was asked for, or compared with what its host has, within a day."""
    return path.is_file() and time.time() - path.stat().st_mtime < _FRESH_S


def _text_in(path: Path) -> str:
    if path.is_file():
        return read_limited(path, 2 * _NAME_MAX).decode(errors="replace")
    return ""


def document(repo: str, name: str, url: str, most_bytes: int) -> Path:
    """A small document of the hub in the cache, of at most so many bytes.

    It appears there whole or not at all, and is asked for anew after a day, where the hub can be reached.
    """
    path = inside(folder_of(repo), name, repo)
    if _is_fresh(path):
        return path
    try:
        with TemporaryDirectory(dir=path.parent) as own:
            part = Path(own) / "document"
            fetched = download(f"{repo}/{name}", url, part, most_bytes)
            _whole(f"{repo}/{name}", fetched.done_bytes, fetched.file_bytes)
            part.replace(path)
    except FetchError:
        if not path.is_file():
            raise
        path.touch()  # offline: as it was, for another day
    return path


def _listing(repo: str) -> _Listing:
    """A repository's commit and files; BadDataError where the hub's listing is no such list."""
    url = f"{endpoint()}/api/models/{repo}?blobs=true"
    listing = document(repo, "listing.json", url, LISTING_MAX_BYTES)
    return _read(f"{repo}: the hub's listing", listing, _Listing)


def _read(place: str, document: Path, kind: type[T]) -> T:
    """What a document tells; one that is none such is forgotten, and asked for anew (BadDataError)."""
    try:
        return typed(json_of(read_limited(document), place, "names of files"), kind, place)
    except BadDataError:
        document.unlink(missing_ok=True)
        raise


def from_hub(source: HubSource, size_bytes: int, staging: Path, progress: Progress) -> Path:
    """Download into ``staging``, never more than ``size_bytes``, from where an earlier call was interrupted.

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
    fetched = download(place, file_url(source.repo, source.file, source.revision), part, size_bytes, progress)
    _whole(place, fetched.done_bytes, size_bytes)
    return part


def _whole(place: str, done_bytes: int, size_bytes: int) -> None:
    if done_bytes < size_bytes:
        raise FetchError(f"{place}: the hub gave {done_bytes} of {size_bytes} bytes: try again")


def folder_of(repo: str) -> Path:
    """Return the folder for what is kept of a repository, and make the folder if it is absent."""
    folder = cache_dir() / "hub" / repo.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
