"""Options of the whole suite, and a home of its own: no test sees or touches what the user keeps.

The whole suite runs in as many processes as there are CPUs; files and tests that are named run in one. Tests marked
``alone`` come last, and have the machine to themselves.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from tests import fake

fake.register()
# An engine that aborts would start a debugger on this process, and that can hang.
os.environ["GGML_NO_BACKTRACE"] = "1"
# Set while the suite is collected, not in a fixture: some tests list devices and models to make their cases.
_HOME = tempfile.TemporaryDirectory(prefix="edge-harness-test-home-")
os.environ["EDGE_HARNESS_HOME"] = _HOME.name
# Hundreds of processes are started: each would compile all that it imports.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A pytest that a test starts is no part of this suite: as one, pytest-benchmark would measure nothing.
for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
    os.environ.pop(name, None)
# Threads of a fit would wait for each other beside another process; what is measured in processes of its own has all.
with patch.dict(os.environ, OPENBLAS_NUM_THREADS="1"):
    import scipy.linalg  # noqa: F401

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="Rewrite the files in tests/golden; then read the diff."
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes for ``-n auto``; 0: no process but this one."""
    whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    return min(cpus, MOST_PROCESSES) if whole and cpus > 1 else 0


MOST_PROCESSES = 4
"""More would wait for the tests that run alone."""


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    node.workerinput["room"] = _HOME.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``alone`` come last; they and those marked ``shared_machine`` are tried again.

    A shared machine stalls what they time now and then. All others have one try. A fault fails each try; the summary
    counts the tries that were needed beyond the first.
    """
    items.sort(key=_is_alone)
    for item in items:
        if _is_alone(item) or item.get_closest_marker("shared_machine"):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=1))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the timeout: waiting is not the test's time
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    room = getattr(item.config, "workerinput", {}).get("room")
    if room is None:
        return (yield)
    with _entered(Path(room), alone=_is_alone(item)):
        return (yield)


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@contextmanager
def _entered(room: Path, *, alone: bool) -> Iterator[None]:
    """The room that tests of all processes share, or have alone; who waits to be alone lets nobody past."""
    import fcntl

    with (room / "door").open("w") as door, (room / "room").open("w") as floor:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(floor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Compares text with a file in tests/golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no {path}: run pytest --update-golden, and read what it wrote"
        assert text == path.read_text(encoding="utf-8")

    return check
