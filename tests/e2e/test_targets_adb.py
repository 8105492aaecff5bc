"""Targets through the real adb and adbd on the loopback address; a phone's own answers stand first on PATH there."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from bench.running_servers import free_port
from harness.core.errors import BadDataError, CouldNotRunError, RefusedError
from harness.core.result import Soak, Window
from harness.core.scenario import Scenario
from harness.measure import targets
from harness.measure.child import Limits, run_child
from harness.measure.jobs.generate import plan as plan_generation
from harness.measure.jobs.soak import SoakJob
from harness.measure.jobs.soak import plan as plan_soak
from harness.measure.pipeline import How, Measurement, Pipeline
from harness.measure.probe.tiny_model import tiny_shape, write_tiny
from harness.measure.protocol import GenerateJob
from harness.measure.runner import identify, memory_of
from harness.measure.targets import target_named
from harness.measure.targets.bench import There, between, on_target, program_for
from harness.measure.targets.shell import LOST, Frame
from harness.measure.targets.target_facts import _known_device, celsius, drained_joules, facts, probe, ready
from tests.adb_device import Daemon

PHONES = Path(__file__).parent / "phones"
needs_adbd = pytest.mark.skipif(
    not (shutil.which("adb") and shutil.which("adbd") and shutil.which("unshare") and os.geteuid() == 0),
    reason="needs adb, adbd and root (apt install adb adbd)",
)


@pytest.fixture(scope="module")
def server():
    """An adb server of our own, so that nobody's devices are touched."""
    os.environ["ANDROID_ADB_SERVER_PORT"] = str(free_port())
    yield
    subprocess.run(["adb", "kill-server"], capture_output=True, check=False, timeout=20)
    del os.environ["ANDROID_ADB_SERVER_PORT"]


@pytest.fixture
def phone(tmp_path, server):
    daemon = Daemon(tmp_path, PHONES / "pixel-8-pro")
    yield daemon
    daemon.kill()


def blob(path: Path, mib: int, seed: int = 1) -> tuple[Path, str]:
    data = seed.to_bytes(1, "little") * 7 + os.urandom(mib << 20)
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def gone(pid: int, within_s: float = 6.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


@needs_adbd
def test_a_file_is_pushed_once_and_another_of_equal_size_is_not_taken_for_it(phone, tmp_path):
    target = phone.target()
    path, sha256 = blob(tmp_path / "model.gguf", 3)
    told = []
    place = target.put(path, sha256, progress=lambda done, size: told.append((done, size)))
    assert Path(place).read_bytes() == path.read_bytes()
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    assert target.put(path, sha256, progress=lambda *_: pytest.fail("pushed twice")) == place
    other, other_sha256 = blob(tmp_path / "model.gguf", 3, seed=2)
    assert target.put(other, other_sha256) != place
    with pytest.raises(CouldNotRunError, match="another hash"):
        target.put(other, "0" * 64)


@needs_adbd
def test_a_push_that_lost_its_connection_is_made_anew(phone, tmp_path):
    target = phone.target()
    path, sha256 = blob(tmp_path / "model.gguf", 48)

    def cut(done, size):
        if done > size / 2:
            subprocess.run(
                ["adb", "disconnect", f"127.0.0.1:{phone.port}"], capture_output=True, check=False, timeout=20
            )

    with pytest.raises(CouldNotRunError, match=r"pushing model\.gguf stopped"):
        target.put(path, sha256, progress=cut)
    assert Path(phone.target().put(path, sha256)).read_bytes() == path.read_bytes()


@needs_adbd
def test_a_full_storage_is_refused_before_a_byte_is_sent(phone, tmp_path):
    path, sha256 = blob(tmp_path / "model.gguf", 30)
    with pytest.raises(CouldNotRunError, match=r"needs \d+ bytes .* are free"):
        phone.target("small").put(path, sha256, progress=lambda *_: pytest.fail("sent"))


@pytest.mark.shared_machine
@needs_adbd
def test_nothing_is_left_running_when_the_client_or_the_daemon_dies(phone):
    target = phone.target()
    lost = target.start(["sleep", "300"])
    lost.process.kill()
    assert gone(lost.pid)
    target.start(["sleep", "300"]).kill()
    stale = target.start(["sleep", "300"])
    phone.target().stop()
    assert gone(stale.pid)
    assert stale.finish(5)[0] == 137
    dead = target.start(["sleep", "300"])
    phone.kill()
    assert gone(dead.pid)
    assert dead.finish(5)[0] == LOST
    with pytest.raises(CouldNotRunError, match=r"127\.0\.0\.1"):
        target_named(phone.name)


@pytest.mark.shared_machine
@needs_adbd
def test_what_a_command_tells_arrives_and_counters_run_beside_it(phone):
    running = phone.target().start(["sh", "-c", "echo out; echo err >&2; exit 5"])
    with phone.target().counters(period_s=0.2) as counters:
        time.sleep(1.2)
        assert [line for _, line in running.told()] == ["err"]
        assert running.finish(10) == (5, "out\n")
        assert len(counters.frames) >= 4
        gaps = [b.at_s - a.at_s for a, b in zip(counters.frames, counters.frames[1:], strict=False)]
        assert sorted(gaps)[len(gaps) // 2] < 1  # 1 Hz or faster


@pytest.mark.shared_machine
@needs_adbd
@pytest.mark.parametrize(
    ("name", "shipped"), [("pixel-8-pro", "Pixel 8 Pro"), ("galaxy-s24-ultra", "Galaxy S24 Ultra")]
)
def test_a_phone_is_probed_by_reading(tmp_path, server, name, shipped):
    daemon = Daemon(tmp_path, PHONES / name)
    try:
        profile = probe(daemon.target(), "mine")
        assert profile.os == "android" and profile.kind == "phone"
        assert f"Bandwidth and peaks are those of {shipped}." in profile.notes and "skin" in profile.notes
        ram = profile.pool("ram")
        assert ram.total_bytes.confidence == "measured" and ram.total_bytes.value > 1e9
        assert profile.storage.sequential_read_bytes_per_s.value > 1e6
    finally:
        daemon.kill()


@pytest.mark.shared_machine
@needs_adbd
def test_a_phone_that_sleeps_or_is_empty_or_hot_is_told(phone):
    target = phone.target()
    known = facts(target)
    assert (known.title, known.chip, known.android) == ("Google Pixel 8 Pro", "Google Tensor G3", True)
    ready(target, known, 20)
    with pytest.raises(CouldNotRunError, match="71 %"):
        ready(target, known, 80)
    power = phone.answers / "power"
    power.write_text(power.read_text().replace("Awake", "Asleep"))
    with pytest.raises(CouldNotRunError, match="asleep"):
        ready(target, facts(target), 20)
    status = phone.answers / "thermalservice"
    status.write_text(status.read_text().replace("Thermal Status: 0", "Thermal Status: 3"))
    running = target.start(["sleep", "2"])
    with target.counters(period_s=0.2) as counters:
        frames = counters.around(time.monotonic(), time.monotonic() + 0.5)
        running.kill()
    validity, _ = between(frames, running.pid, running.shell_pid)
    assert any("thermal status is severe" in d for d in validity.doubts)
    assert any("asleep" in d for d in validity.doubts)
    assert validity.temperature_celsius_max == pytest.approx(38.2)


def test_what_leaves_the_battery_by_hand():
    """1 mAh at 3.8 V: 3.6 C x 3.8 V = 13.68 J."""

    def frame(counter, voltage, powered="false"):
        text = f"  USB powered: {powered}\n  Charge counter: {counter}\n  voltage: {voltage}\n"
        return Frame(0, {"/dumpsys/battery": text})

    assert drained_joules(frame(3_001_000, 3900), frame(3_000_000, 3700)) == pytest.approx(13.68)
    assert drained_joules(frame(3_001_000, 3900), frame(3_000_000, 3700, "true")) is None
    assert drained_joules(Frame(0, {}), Frame(1, {})) is None
    hot = (
        "\tTemperature{mValue=38.2, mType=3, mName=skin, mStatus=0}\n\tTemperature{mValue=71.5, mType=0, mName=CPU0}\n"
    )
    assert celsius(Frame(0, {"/dumpsys/thermalservice": hot})) == 71.5


@pytest.mark.parametrize(
    ("listing", "asked", "words"),
    [
        ("R5CT\tunauthorized usb:1-1 transport_id:1", "", "has not allowed this computer"),
        ("R5CT\toffline transport_id:1", "R5CT", "does not answer"),
        ("A1\tdevice model:One\nB2\tdevice model:Two", "", r"several Android devices: A1 \(One\), B2 \(Two\)"),
        ("", "", "no Android device"),
        ("A1\tno permissions (udev); see [http]", "A1", "udev rules"),
        ("A1\tdevice model:One", "B2", "no Android device B2"),
    ],
)
def test_states_of_devices_in_clear_words(tmp_path, monkeypatch, listing, asked, words):
    (tmp_path / "adb").write_text(
        f"#!/bin/sh\ncat <<'X'\nList of devices attached\n{listing.replace(chr(9), '    ')}\nX\n"
    )
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CouldNotRunError, match=words):
        target_named(f"adb://{asked}")


def test_a_server_that_hangs_is_told_with_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "adb").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(targets, "_TIMEOUT_S", 0.2)
    with pytest.raises(CouldNotRunError, match=r"adb devices: no end after 0.2 s: adb kill-server"):
        target_named("adb://")


@pytest.mark.parametrize(
    ("told", "shipped", "same"),
    [
        ("Qualcomm SM8650", "Snapdragon 8 Gen 3", True),
        ("Samsung S5E9945", "Exynos 2400", True),
        ("Google Tensor G3", "Tensor G3", True),
        ("Raspberry Pi 5 Model B Rev 1.0", "BCM2712", True),  # raspberrypi.com: its processor
        ("Qualcomm SM8750", "Snapdragon 8 Elite Gen 5", False),
        ("Qualcomm SM8450", "Snapdragon 8 Gen 2", False),
        ("", "M1", False),
    ],
)
def test_chips_by_the_names_that_devices_tell(told, shipped, same):
    known = _known_device(told)
    assert (known is not None and known.chip == shipped) is same


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ssh://board", "board", None),
        ("ssh://pi@board", "pi@board", None),
        ("ssh://pi@10.0.0.2:2222", "pi@10.0.0.2", "Port=2222"),
        ("ssh://pi@[fe80::1]:2222", "pi@fe80::1", "Port=2222"),
        ("ssh://[::1]", "::1", None),
    ],
)
def test_a_machine_behind_ssh_is_named(text, host, port):
    words = target_named(text).argv("true")
    assert words[-3:-1] == ["--", host] and words[-1].startswith("exec sh -c")
    assert next((w for w in words if w.startswith("Port=")), None) == port
    assert "StrictHostKeyChecking=yes" in words


@pytest.mark.parametrize(
    "text",
    [
        *("", "ftp://x", "ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "adb:x", "ssh://pi@"),
        *("ssh://board:0", "ssh://board:x", "ssh://board:99999"),
    ],
)
def test_what_is_no_target_is_refused(text):
    with pytest.raises(RefusedError, match="is not a target"):
        target_named(text)


def test_each_processor_has_its_program(tmp_path):
    with pytest.raises(BadDataError, match="no llama-bench"):
        program_for(tmp_path, "arm64-v8a")
    for folder in ("x86_64", "arm64-v8a"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "llama-bench").touch()
    assert program_for(tmp_path, "arm64-v8a") == tmp_path / "arm64-v8a" / "llama-bench"


def test_a_local_target_needs_no_device(tmp_path):
    target = target_named("local", folder=str(tmp_path / "pushed"))
    write_tiny(tmp_path / "m.gguf", tiny_shape(1, 64, 128, 1, 1, vocab_count=64), "F16")
    sha256 = hashlib.sha256((tmp_path / "m.gguf").read_bytes()).hexdigest()
    assert Path(target.put(tmp_path / "m.gguf", sha256)).is_file()
    assert facts(target).cpu.logical_cpu_count == os.cpu_count()


def test_what_broke_off_there_has_no_memory_of_this_machine(tmp_path):
    job = There(on="local", folder=str(tmp_path), words=("sh", "-c", "echo no such model >&2; exit 3"))
    ended = run_child(f"{There.__module__}:run_bench", job)
    assert ended.outcome == "refused" and "status 3: no such model" in ended.detail
    assert memory_of(ended) is None


PROGRAMS = os.environ.get("EDGE_HARNESS_PROGRAMS", "")
needs_bench = pytest.mark.skipif(
    not (PROGRAMS and (Path(PROGRAMS) / "llama-bench").is_file()),
    reason="EDGE_HARNESS_PROGRAMS names no folder with llama-bench",
)


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_tiny(path, tiny_shape(2, 256, 512, 4, 4), "Q8_0")
    return path, identify(path, None)


def bench(path, scenario, repetitions=5):
    return plan_generation(GenerateJob(path=str(path), scenario=scenario, repetitions=repetitions), None)


def measured(phone, planned: Measurement, limits: Limits | None = None, on_event=None):
    """The record of a measurement made on the phone."""
    target, limits = phone.target(), limits or Limits()
    there = on_target(planned, target, facts(target), Path(PROGRAMS), cpus=limits.cpus)
    with Pipeline(How(keep=False, limits=limits)) as pipeline:
        return pipeline.measure(there, on_event=on_event)


@pytest.mark.shared_machine
@needs_adbd
@needs_bench
def test_llama_bench_on_the_device_becomes_a_record(phone, tiny):
    scenario = Scenario(context_tokens=256, prompt_tokens=64, new_tokens=128, thread_count=1)
    record = measured(phone, bench(tiny[0], scenario, 20))
    assert record.outcome in {"ok", "inconclusive"}, record.detail
    assert [(s.phase, s.label) for s in record.samples] == [("prefill", "pp64")] * 20 + [("decode", "tg128")] * 20
    # each sample has its own beginning and its own view of the machine
    starts = [s.started_unix_s for s in record.samples]
    assert starts == sorted(starts) and time.time() - starts[0] < 120
    assert all(s.validity.other_load_ratio is not None for s in record.samples)
    assert record.machine.device == "Google Pixel 8 Pro" and record.engine is not None
    assert record.memory is not None and record.memory.peak_rss_bytes > tiny[0].stat().st_size / 2
    assert record.model == tiny[1] and record.runtime == "executable"


@pytest.mark.shared_machine
@needs_adbd
@needs_bench
def test_a_daemon_that_dies_in_mid_run_is_recorded_and_leaves_nothing(phone, tiny):
    scenario = Scenario(context_tokens=256, prompt_tokens=0, new_tokens=64, thread_count=1)
    threading.Timer(3.0, phone.kill).start()
    record = measured(phone, bench(tiny[0], scenario, 1000))
    assert record.outcome == "failed" and "connection broke" in record.detail
    assert gone(int((phone.folder / "pushed/run.pid").read_text().split()[0]))


@pytest.mark.shared_machine
@needs_adbd
@needs_bench
def test_a_run_out_of_time_is_recorded(phone, tiny):
    scenario = Scenario(context_tokens=256, prompt_tokens=0, new_tokens=64, thread_count=1)
    record = measured(phone, bench(tiny[0], scenario, 100_000), Limits(wall_s=3))
    assert record.outcome == "timed out" and record.detail.startswith("stopped after 3 s")


@pytest.mark.shared_machine
@needs_adbd
@needs_bench
def test_a_soak_on_the_device(phone, tiny):
    job = SoakJob(path=str(tiny[0]), scenario=Scenario(thread_count=1), minutes=0.08, window_s=0.5)
    told = []

    def hear(name, data):
        if name == "window":
            told.append(msgspec.convert(data, Window))

    record = measured(phone, plan_soak(job, tiny[1]), on_event=hear)
    assert record.outcome == "ok", record.detail
    assert isinstance(record.result, Soak) and list(record.result.windows) == told
    assert len(told) >= 5 and all(w.celsius == pytest.approx(38.2) for w in told)
    assert all(w.token_count % 16 == 0 for w in told)
    with pytest.raises(FileNotFoundError):
        (phone.folder / "pushed/run.pid").read_text()
    hot = SoakJob(path=str(tiny[0]), scenario=Scenario(thread_count=1), minutes=1, window_s=0.5, celsius_max=38)
    stopped = measured(phone, plan_soak(hot, tiny[1])).result
    assert isinstance(stopped, Soak) and "38.2 C" in stopped.stopped and len(stopped.windows) == 1
    late = measured(phone, plan_soak(job, tiny[1]), Limits(wall_s=2))
    assert late.outcome == "timed out" and late.detail.startswith("stopped after 2 s")


@pytest.mark.shared_machine
@needs_adbd
@needs_bench
def test_a_connection_that_is_cut_in_mid_run_is_recorded_and_leaves_nothing(phone, tiny):
    scenario = Scenario(context_tokens=256, prompt_tokens=0, new_tokens=64, thread_count=1)
    cut = ["adb", "disconnect", f"127.0.0.1:{phone.port}"]
    threading.Timer(3.0, lambda: subprocess.run(cut, capture_output=True, check=False, timeout=20)).start()
    record = measured(phone, bench(tiny[0], scenario, 1000))
    assert record.outcome == "failed" and "connection broke" in record.detail
    assert gone(int((phone.folder / "pushed/run.pid").read_text().split()[0]))


@pytest.mark.shared_machine
@needs_adbd
@needs_bench
def test_priority_and_cpus_are_those_asked_for(phone, tiny):
    """As the device's kernel tells them of the process while it runs."""
    seen = []

    def look():
        pid = (phone.folder / "pushed/run.pid").read_text().split()[0]
        seen.append(Path(f"/proc/{pid}/status").read_text())

    scenario = Scenario(context_tokens=256, prompt_tokens=0, new_tokens=64)
    limits = Limits(wall_s=4, cpus=(1,))
    threading.Timer(2.5, look).start()
    measured(phone, bench(tiny[0], scenario, 100_000), limits)
    assert "Cpus_allowed_list:\t1\n" in seen[0]


@pytest.mark.shared_machine
@needs_adbd
@needs_bench
def test_from_a_device_to_a_check_in_two_commands_and_on_again(phone, tiny, tmp_path):
    environment = os.environ | {"EDGE_HARNESS_HOME": str(tmp_path / "own-home")}

    def harness(*words):
        command = [sys.executable, "-m", "harness", *map(str, words), "--on", phone.name, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert done.returncode in {0, 3}, done.stderr
        return json.loads(done.stdout)

    assert harness("devices", "probe")["title"] == "Google Pixel 8 Pro"
    words = ["check", tiny[0], "-c", "256", "-p", "32", "-n", "32", "-t", "1", "-r", "3", "--programs", PROGRAMS]
    found = harness(*words)
    assert found["device"]["title"] == "Google Pixel 8 Pro"
    (record,) = found["records"]
    assert record["prediction"]["speed"] is not None and found["comparisons"][0] is not None
    again = harness(*words, "--resume")["records"][0]
    assert again["run_id"] == record["run_id"], "what is done is not run again"
