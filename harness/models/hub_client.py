"""Requests to the model hub and to other hosts of files: by the hub's own client, bounded in bytes and in time."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.core.errors import FetchError, HarnessError, RefusedError, UnknownNameError
from harness.core.progress import Progress, no_progress

LISTING_MAX_BYTES: Final = 16 << 20
"""Longest listing of a repository or of repositories."""
_ANSWER_S: Final = 4.0
"""Longest time for a first word of the hub: its client alone would try again for 20 s where there is no
network."""
_MOST_REDIRECTS: Final = 8
_TRIES: Final = 3
"""Times that a request is sent to a host that is busy or in trouble."""
_LONGEST_WAIT_S: Final = 5.0
"""Longest wait that a host may ask for (Retry-After); a longer one ends the request with an error that tells it."""
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
_TAG_MAX: Final = 180
"""Longest ETag that is kept."""
_SLACK_BYTES: Final = 1 << 20
"""What a host without ranges may send beyond the part that was asked for, before its answer is closed."""


class Fetched(NamedTuple):
    """Bytes that are here now, those of the whole file, and what its host calls this version of it."""

    done_bytes: int
    file_bytes: int
    tag: str


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
    reach(place, "/".join(url.split("/")[:3]))
    token = None if url.startswith(f"{endpoint()}/") else False  # the hub's token is for the hub alone
    headers = _client().utils.build_hf_headers(token=token, library_name="edge-harness")
    headers["Accept-Encoding"] = "identity"
    most = stop or most_bytes
    end_s = time.monotonic() + _PAGE_S + most / _SLOWEST_BYTES_PER_S
    if stop or most <= LISTING_MAX_BYTES:
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
            slack = _SLACK_BYTES if status == 200 and stop else 0
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
            _MOST_REDIRECTS
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
    return str(answer.headers.get("ETag", ""))[:_TAG_MAX]


def endpoint() -> str:
    """Return the address of the hub: ``HF_ENDPOINT``, else the client's own."""
    return str(_client().HfApi(endpoint=os.environ.get("HF_ENDPOINT")).endpoint)


def file_url(repo: str, file: str, revision: str | None = None) -> str:
    """Return the address of a file in a repository of the hub."""
    return str(_client().hf_hub_url(repo, file, revision=revision, endpoint=os.environ.get("HF_ENDPOINT")))


def reach(place: str, url: str) -> str:
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
