"""Control groups on a fake tree, memory readings, page cache, lock."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.core.errors import CouldNotRunError
from harness.measure import page_cache
from harness.measure.cgroup import LimitGroup
from harness.measure.lock import holder, machine_lock
from harness.measure.memory_watch import MemoryWatch, read_memory


@pytest.fixture
def version_2(tmp_path: Path) -> Path:
    """A tree as a delegated version 2 hierarchy looks; the kernel's part (files in new groups) is not played."""
    own = tmp_path / "sys/fs/cgroup/user"
    own.mkdir(parents=True)
    (own / "cgroup.subtree_control").write_text("")
    proc = tmp_path / "proc/self"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (proc / "cgroup").write_text("0::/user\n")
    return tmp_path


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write into a folder that all share could have a file of ours truncated."""
    mine = tmp_path / "mine"
    mine.write_text("precious")
    (tmp_path / "run.lock").symlink_to(mine)
    with pytest.raises(CouldNotRunError, match="no lock file"), machine_lock(tmp_path / "run.lock"):
        pass
    assert mine.read_text() == "precious"


def test_a_lock_of_another_user_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with machine_lock(path):
        assert path.stat().st_mode & 0o777 == 0o666
    path.chmod(0o444)
    with machine_lock(path, timeout_s=0):
        pass


def test_no_group_where_the_controller_is_not_handed_down(version_2: Path) -> None:
    assert LimitGroup.make(1 << 30, root=version_2) is None
    assert [path.name for path in (version_2 / "sys/fs/cgroup/user").iterdir()] == ["cgroup.subtree_control"]


def test_counters_of_version_2(version_2: Path) -> None:
    folder = version_2 / "sys/fs/cgroup/user/run"
    folder.mkdir()
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n")
    (folder / "memory.peak").write_text("4096\n")
    group = LimitGroup(2, folder)

    assert (group.oom_kill_count(), group.peak_bytes()) == (1, 4096)
    group.add(123)
    assert (folder / "cgroup.procs").read_text() == "123"


def test_counters_of_version_1(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (tmp_path / "memory.max_usage_in_bytes").write_text("8192\n")
    group = LimitGroup(1, tmp_path)

    assert (group.oom_kill_count(), group.peak_bytes()) == (3, 8192)


def test_memory_of_a_process(tmp_path: Path) -> None:
    proc = tmp_path / "proc/7"
    proc.mkdir(parents=True)
    (proc / "status").write_text(
        "Name:\tx\nVmHWM:\t  500 kB\nVmRSS:\t  300 kB\nRssAnon:\t 100 kB\nRssFile:\t 190 kB\nRssShmem:\t  10 kB\n"
    )

    # Shared memory has no file to be read again from: it counts as anonymous.
    assert read_memory(7, root=tmp_path) == (300 * 1024, 500 * 1024, 110 * 1024, 190 * 1024)
    assert read_memory(8, root=tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no posix_fadvise here")
def test_a_file_just_written_is_cached(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20))

    assert page_cache.cached_ratio(path) == 1.0
    assert page_cache.drop(path)
    left = page_cache.cached_ratio(path)
    assert left is not None and left <= 1.0  # a file system in memory keeps its pages


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no posix_fadvise here")
def test_of_several_files_all_are_dropped_and_weighed_by_their_bytes(tmp_path: Path, monkeypatch) -> None:
    sizes = {tmp_path / "first": 3 << 20, tmp_path / "second": 1 << 20}
    for path, size in sizes.items():
        path.write_bytes(os.urandom(size))
    assert page_cache.cached_ratio(*sizes) == 1.0
    dropped = []
    monkeypatch.setattr(os, "posix_fadvise", lambda number, *_: dropped.append(os.fstat(number).st_size))
    assert page_cache.drop(*sizes)
    assert dropped == list(sizes.values())
    monkeypatch.undo()
    page_cache.drop(tmp_path / "second")
    if page_cache.cached_ratio(tmp_path / "second") == 0.0:  # a file system in memory keeps its pages
        assert page_cache.cached_ratio(*sizes) == 0.75


def test_empty_file_has_no_pages(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert page_cache.cached_ratio(tmp_path / "file") in {0.0, None}


HOLD = "import sys, time; from pathlib import Path; from harness.measure.lock import machine_lock\n" + (
    "with machine_lock(Path(sys.argv[1])):\n print('held', flush=True); time.sleep(60)\n"
)


def test_two_runs_notice_each_other(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert holder(path) == f"process {other.pid}"
        waited_for: list[str] = []
        with (
            pytest.raises(CouldNotRunError, match="end it first"),
            machine_lock(path, timeout_s=0.1, on_wait=waited_for.append),
        ):
            pass
        assert waited_for == [f"process {other.pid}"]
    finally:
        other.kill()  # the lock dies with its holder
        other.wait()
        other.stdout and other.stdout.close()
    with machine_lock(path, timeout_s=10):
        pass


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_a_program_of_a_moment_is_seen_and_not_its_parent() -> None:
    held, peaks = bytearray(200 << 20), []
    for _ in range(5):  # on a busy machine a program may end before the first look at it
        process = subprocess.Popen(["sleep", "0.015"])
        watch = MemoryWatch(process.pid)
        watch.start()
        process.wait()
        peaks.append(watch.stop().peak_rss_bytes)
    assert 0 < max(peaks) < 50 << 20
    assert len(held) == 200 << 20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
@pytest.mark.parametrize(("limit_bytes", "least", "most"), [(None, 1, 6), (1 << 40, 8, 26)])
def test_what_changes_nothing_is_looked_at_once_a_second_and_oftener_beside_a_limit(
    limit_bytes: int | None, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ten looks a second took 2 to 3 % of the speed of an engine that fills all cores.
    process = subprocess.Popen(["sleep", "30"])
    watch = MemoryWatch(process.pid, limit_bytes=limit_bytes)
    looks_s: list[float] = []
    look = watch._look

    def counted() -> int:
        looks_s.append(time.monotonic())
        return look()

    monkeypatch.setattr(watch, "_look", counted)
    try:
        watch.start()
        time.sleep(8)
    finally:
        watch.stop()
        process.kill()
        process.wait()
    assert least <= sum(at > looks_s[0] + 6 for at in looks_s) <= most


@pytest.mark.skipif(sys.platform != "linux", reason="another system tells, or none does")
def test_what_the_system_hides_of_the_page_cache_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 16))
    assert page_cache.cached_ratio(path) == 1.0
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert page_cache.cached_ratio(path) is None
