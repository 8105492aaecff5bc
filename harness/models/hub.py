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
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from harness.core.errors import BadDataError, FetchError, HarnessError, RefusedError, UnknownNameError
from harness.core.foreign import T, inside, json_in, json_of, read_limited, typed
from harness.core.model import HubSource, ModelFile, ModelShape, Weights
from harness.core.paths import cache_dir
from harness.core.progress import Progress, no_progress
from harness.models.formats import Format, as_stored, bytes_by_group, format_of, shards_in, word_of
from harness.models.gguf import SPLIT, GgufFile, header_of, joined, parts_of
from harness.models.hf_config import CONFIG_MAX_BYTES, read_hf_config
from harness.models.quant import split, understood
from harness.models.weights import weights_of

_LISTING_MAX_BYTES: Final = 16 << 20
_ANSWER_S: Final = 4.0
"""Longest time for a first word of the hub: its client alone would try again for 20 s where there is no
network."""
_MOST_LEAPS: Final = 8
"""From one address to the next."""
_FRESH_S: Final = 86_400.0
"""How long nobody asks whether what is kept of the hub is still what it has."""
_TRIES: Final = 3
"""Of a request to a host that is busy or in trouble."""
_LONGEST_WAIT_S: Final = 5.0
"""That is kept of what a host asks to wait; a longer one is told."""
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_PAGE_S: Final = 60.0
_SLOWEST_BYTES_PER_S: Final = 16 << 10
"""Below it a hub is given up: what it may send, at this rate, and a minute, are the time that it has."""
_HEADERS_S: Final = 30.0
"""In which an answer must begin, all addresses in between together."""
_QUESTION_S: Final = 60.0
"""In which a part of a file or a listing must be here: somebody waits for an answer."""
_WINDOW_S: Final = 20.0
"""Each window of a download brings ``_SLOWEST_BYTES_PER_S`` at least."""
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


class Fetched(NamedTuple):
    """Bytes that are here now, those of the whole file, and what its host calls this version of it."""

    done_bytes: int
    file_bytes: int
    tag: str


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
    headers = [_header(f"{repo}/{part}", _url(repo, part), folder / _flat(part)) for part in parts_of(file)]
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
    path = _document(repo, "config.json", _url(repo, "config.json"), CONFIG_MAX_BYTES)
    shape = read_hf_config(path)
    document = json_in(path, "a config.json", CONFIG_MAX_BYTES)
    own = format_of(document, sizes) if isinstance(document, dict) else None
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
    base = weights_of(shape, word_of(document))
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
            place, _url(repo, name), head, _EIB, stop=max(stop, _FIRST_SAFETENSORS_BYTES)
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
    manifest = _document(
        folder, "manifest.json", f"{base}/manifests/{told[3] or 'latest'}", _LISTING_MAX_BYTES
    )
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
            if _reach(place, url) != _text_in(about).partition(" ")[2]:
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


def _document(repo: str, name: str, url: str, most_bytes: int) -> Path:
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
    url = f"{_endpoint()}/api/models/{repo}?blobs=true"
    listing = _document(repo, "listing.json", url, _LISTING_MAX_BYTES)
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
    fetched = download(place, _url(source.repo, source.file, source.revision), part, size_bytes, progress)
    _whole(place, fetched.done_bytes, size_bytes)
    return part


def _whole(place: str, done_bytes: int, size_bytes: int) -> None:
    if done_bytes < size_bytes:
        raise FetchError(f"{place}: the hub gave {done_bytes} of {size_bytes} bytes: try again")


def download(
    place: str,
    url: str,
    part: Path,
    most_bytes: int,
    progress: Progress = no_progress,
    *,
    stop: int = 0,
    silence_s: float = 20.0,
) -> Fetched:
    """Fetch a file of the hub or of another host to its end, or up to byte ``stop``.

    What is there already is not fetched again. Bounded in bytes, in the time without one (``silence_s``), and
    in the time until the last of them is here.

    Raises:
        UnknownNameError: The hub has no such file.
        FetchError: It does not answer, or the file, or what is sent of it, has more than ``most_bytes``.
    """
    _reach(place, "/".join(url.split("/")[:3]))
    token = None if url.startswith(f"{_endpoint()}/") else False  # the hub's token is for the hub alone
    headers = _client().utils.build_hf_headers(token=token, library_name="edge-harness")
    headers["Accept-Encoding"] = "identity"
    most = stop or most_bytes
    end_s = time.monotonic() + _PAGE_S + most / _SLOWEST_BYTES_PER_S
    if stop or most <= _LISTING_MAX_BYTES:
        end_s = min(end_s, time.monotonic() + _QUESTION_S)
    headers_s = time.monotonic() + _HEADERS_S
    session = _client().utils.get_session()
    with part.open("ab") as out, _faults_told(place):
        done = out.tell()
        if done or stop:
            headers["Range"] = f"bytes={done}-{stop - 1 if stop else ''}"
        request = session.build_request("GET", url, headers=headers, timeout=silence_s)
        answer = _answered(session, request, headers_s)
        with closing(answer):
            host = answer.url.host
            status = answer.status_code
            if status == 404 and stop:
                raise UnknownNameError("file of the hub", place, ())
            if status not in {200, 206}:
                raise FetchError(f"{place}: {host} answered {status}: {_why_not(answer)}")
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise FetchError(f"{place}: {host} sent a pressed page, expected one as it was asked for")
            total = "Content-Range"
            if status == 200:  # all of it, whatever was asked for
                out.truncate(0)
                done = 0
                total = "Content-Length"
            told = re.fullmatch(r"(?:.*/)?(\d{1,18})", answer.headers.get(total, ""))
            size = int(told[1]) if told else 0
            if size > most_bytes:
                raise FetchError(f"{place}: found {size} bytes, expected {most_bytes}")
            # A host without ranges sends all of it: what is not asked for is left there.
            slack = _FIRST_BYTES if status == 200 and stop else 0
            for chunk in _in_time(answer.iter_raw(), f"{place}: {host}", most - done + slack, end_s):
                done += len(chunk)
                out.write(chunk)
                progress(done, most_bytes)
                if slack and done >= stop:
                    break
            return Fetched(done, size, _tag(answer))


def _answered(session: Any, request: Any, until_s: float) -> Any:
    """The answer to a request, redirects followed; asked again a few times where the host is busy or in trouble.

    A wait that the host asks for (Retry-After) is kept if it is short.
    """
    for left in reversed(range(_TRIES)):
        following = request
        for _ in range(
            _MOST_LEAPS
        ):  # followed here: the client would read what stands beside each address whole
            answer = _begun(partial(session.send, following, stream=True, follow_redirects=False), until_s)
            following = answer.next_request
            if following is None:
                break
            answer.close()
        wait_s = _wait_s(answer)
        if answer.status_code not in _BUSY or not left or not 0 <= wait_s <= _LONGEST_WAIT_S:
            break
        answer.close()
        time.sleep(wait_s)
    return answer


def _wait_s(answer: Any) -> float:
    """Seconds that a host asks to wait; half a second where it tells none."""
    told = answer.headers.get("Retry-After", "")
    return float(told) if told.isdecimal() else 0.5


def _why_not(answer: Any) -> str:
    """What an answer other than a file means, and what to do."""
    status = answer.status_code
    if status == 429:
        return f"too many requests: try again in {_wait_s(answer):g} s, or set HF_TOKEN for a larger share"
    if status >= 500:
        return f"the host is in trouble (asked {_TRIES} times): try again later"
    return _WHY.get(status, "no file came")


_WHY: Final = {
    401: "there is no such file, or it wants a token: set HF_TOKEN to one that may read it",
    403: "it is gated and wants a token of somebody who accepted its terms: accept them on its page, set HF_TOKEN",
    404: "there is no such file, or it is private and wants a token (HF_TOKEN)",
    410: "it is no longer there",
    416: "the host does not send parts of this file",
}
"""What statuses of a hub mean, and what helps."""


def _in_time(chunks: Iterable[bytes], whose: str, most_bytes: int, end_s: float) -> Iterator[bytes]:
    """The chunks of an answer, as long as they come fast enough.

    Raises:
        FetchError: They are more than ``most_bytes``, not done at ``end_s``, or too few in one window of 20 s.
    """
    came = window_bytes = 0
    window_s = time.monotonic()
    for chunk in chunks:
        came += len(chunk)
        now_s = time.monotonic()
        if came > most_bytes:
            raise FetchError(f"{whose} sends more than the {most_bytes} bytes that it may")
        if now_s > end_s:
            raise FetchError(f"{whose} was too slow: {came} bytes of at most {most_bytes} came")
        if now_s - window_s > _WINDOW_S:
            if came - window_bytes < _SLOWEST_BYTES_PER_S * _WINDOW_S:
                raise FetchError(f"{whose} was too slow: {came - window_bytes} bytes came in {_WINDOW_S:g} s")
            window_s, window_bytes = now_s, came
        yield chunk


def _begun(send: Callable[[], Any], until_s: float) -> Any:
    """The answer to a request, whose headers may come byte by byte: a thread waits, since no single read is late.

    Raises:
        FetchError: They are not here in time.
    """
    came: list[Any] = []
    faults: list[BaseException] = []

    def ask() -> None:
        try:
            came.append(send())
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            faults.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(max(until_s - time.monotonic(), 0.0))
    if faults:
        raise faults[0]
    if not came:
        raise FetchError(f"no answer began in {_HEADERS_S:g} s")
    return came[0]


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


def _tag(answer: Any) -> str:
    return str(answer.headers.get("ETag", ""))[:_NAME_MAX]


def folder_of(repo: str) -> Path:
    """Return the folder for what is kept of a repository, and make the folder if it is absent."""
    folder = cache_dir() / "hub" / repo.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _endpoint() -> str:
    return str(_client().HfApi(endpoint=os.environ.get("HF_ENDPOINT")).endpoint)


def _url(repo: str, file: str, revision: str | None = None) -> str:
    return str(_client().hf_hub_url(repo, file, revision=revision, endpoint=os.environ.get("HF_ENDPOINT")))


def _reach(place: str, url: str) -> str:
    """The ETag of what is at an address; empty where its host tells none.

    Raises:
        FetchError: No word came in time; a thread asks, since looking up a name knows no time limit.
    """
    session = _client().utils.get_session()
    faults = ["no answer"]
    tags = [""]

    def ask() -> None:
        try:
            tags[0] = _tag(session.head(url, timeout=_ANSWER_S, headers={"Connection": "close"}))
            faults.clear()
        except Exception as error:  # noqa: BLE001 - of whichever library the client speaks with
            faults[:] = [f"{type(error).__name__}: {error}"]

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWER_S)
    if faults:
        raise FetchError(f"{place}: {url} cannot be reached ({faults[0]})")
    return tags[0]


def _client() -> Any:
    import huggingface_hub.utils

    if huggingface_hub.__version__.startswith("0."):  # an older one's sessions have no streams
        raise RefusedError(f"huggingface-hub {huggingface_hub.__version__}: 1.0 or later reads the hub")
    return huggingface_hub
