"""Four devices in network namespaces of their own: one is killed in mid-run, one has a bad line; what a fleet costs.

Needs root and ``ip netns``. All traffic stays in the namespaces: the scheduler and the client sit in one more of them,
with the bridge.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.app.run import cells_of, run_cells
from harness.fleet.matrix import load_matrix, tasks_of
from harness.fleet.net import write_key
from harness.measure.pipeline import How
from harness.measure.protocol import GenerateJob
from harness.records.derive import summarise
from harness.records.store import load

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and ip netns"
    ),
]

DEVICES = ("phone", "laptop", "board", "server")
HUB = "ehhub"
COMMAND = (sys.executable, "-m", "harness", "fleet")


def ip(*words: str, inside: str = "") -> None:
    place = ("-n", inside) if inside else ()
    subprocess.run(["ip", *place, *words], check=True, capture_output=True)


class Net:
    """Namespaces, and the processes in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        self.address = ""
        self.workers: dict[str, subprocess.Popen[str]] = {}

    def make(self) -> None:
        ip("netns", "add", HUB)
        ip("link", "set", "lo", "up", inside=HUB)
        ip("link", "add", "br0", "type", "bridge", inside=HUB)
        ip("addr", "add", "10.213.0.1/24", "dev", "br0", inside=HUB)
        ip("link", "set", "br0", "up", inside=HUB)
        for number, device in enumerate(DEVICES):
            space = f"eh{device}"
            ip("netns", "add", space)
            ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", space, inside=HUB)
            ip("link", "set", f"v{number}", "master", "br0", "up", inside=HUB)
            ip("addr", "add", f"10.213.0.{10 + number}/24", "dev", "eth0", inside=space)
            ip("link", "set", "eth0", "up", inside=space)
            ip("link", "set", "lo", "up", inside=space)

    def start(self, space: str, *args: str, home: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            ["ip", "netns", "exec", space, *COMMAND, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"EDGE_HARNESS_HOME": str(self.folder / home)},
        )
        self.processes.append(process)
        return process

    def begin(self, devices: tuple[str, ...] = DEVICES, wait_s: str = "30") -> None:
        write_key(self.folder / "fleet.pem")
        up = self.start(
            HUB, "up", "--host", "10.213.0.1", "--port", "0", "--device-wait", wait_s, *self.tls, home="hub"
        )
        self.address = up.stdout.readline().split()[-1]  # type: ignore[union-attr]
        assert "10.213.0.1" in self.address
        for device in devices:
            self.worker(device)

    def worker(self, device: str, home: str = "") -> None:
        process = self.start(
            f"eh{device}", "worker", "--scheduler", self.address, "--device", device, *self.tls,
            home=home or device,
        )  # fmt: skip
        assert "serves" in process.stdout.readline()  # type: ignore[union-attr]
        self.workers[device] = process

    @property
    def tls(self) -> list[str]:
        return [f"--tls={self.folder}/fleet.pem"]

    def remove(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for space in (HUB, *(f"eh{device}" for device in DEVICES)):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "alone-home"))
    made = Net(tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.remove()


LISTENING = """
import json, sys, psutil
print(json.dumps([[c.laddr.ip, c.laddr.port] for c in psutil.net_connections("tcp") if c.status == "LISTEN"]))
"""
KNOCK = """
import json, socket, sys
open_ports = []
for port in json.loads(sys.argv[2]):
    try:
        socket.create_connection((sys.argv[1], port), timeout=1).close()
        open_ports.append(port)
    except OSError:
        pass
print(json.dumps(open_ports))
"""


def python_in(space: str, code: str, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", space, sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stdout


def test_no_port_is_reached_from_another_machine_without_certificates(net: Net) -> None:
    """Scheduler, workers (there are no nannies) and their pages, each tried at the machine's outer address."""
    up = net.start(HUB, "up", "--port", "0", home="hub")
    net.address = up.stdout.readline().split()[-1]  # type: ignore[union-attr]
    for name in ("first", "second"):
        worker = net.start(HUB, "worker", "--scheduler", net.address, "--device", name, home=name)
        assert "serves" in worker.stdout.readline()  # type: ignore[union-attr]
    code = "import socket, time; s = socket.create_server(('0.0.0.0', 7777)); time.sleep(30)"
    net.processes.append(subprocess.Popen(["ip", "netns", "exec", HUB, sys.executable, "-c", code], text=True))
    time.sleep(1)

    places = json.loads(python_in(HUB, LISTENING))
    ports = [port for _, port in places]
    reached = json.loads(python_in("ehphone", KNOCK, "10.213.0.1", json.dumps(ports)))

    print(f"{len(ports) - 1} ports of the fleet, reached from another namespace: {sorted(set(reached) - {7777})}")
    assert len(ports) >= 1 + 2 + 2 * 2, places
    assert reached == [7777], "the open port shows that knocking works; no other one answers"


def test_with_certificates_only_their_holders_join(net: Net, tmp_path: Path) -> None:
    net.begin(("phone",))  # joins: it waits for the line that it serves
    write_key(tmp_path / "other.pem")
    stranger = [f"--tls={tmp_path}/other.pem"]
    plain = net.address.replace("tls://", "tcp://")
    for words, said in (
        (["worker", "--scheduler", plain, "--device", "laptop"], "Give --tls FILE"),
        (["worker", "--scheduler", net.address, "--device", "laptop"], "expected tcp://HOST:PORT without --tls"),
        (["worker", "--scheduler", net.address, "--device", "laptop", *stranger], "no scheduler answered"),
        (["up", "--host", "0.0.0.0"], "Give --tls FILE"),
    ):
        process = net.start("ehlaptop", *words, home="laptop")
        _, err = process.communicate(timeout=60)
        assert process.returncode in {2, 4}
        assert said in err
    # Dask itself, without our refusal before it: no certificate, no word.
    ask = f"import distributed; distributed.Client({plain!r}, timeout=3)"
    python_in("ehlaptop", ask, status=1)


def write_matrix(
    folder: Path,
    devices: tuple[str, ...],
    models: list[str],
    *,
    runtime: str = "fake",
    new: int = 4,
    patience: float = 0,
) -> Path:
    path = folder / "matrix.toml"
    path.write_text(
        f"devices = {json.dumps(devices)}\nmodels = {json.dumps(models)}\nruntime = '{runtime}'\nrepetitions = 2\n"
        f"cold_loads = 0\npatience_s = {patience:.1f}\n"
        f"[scenario]\ncontext_tokens = 512\nprompt_tokens = 16\nnew_tokens = {new}\nthread_count = 1\n"
    )
    return path


def fake(folder: Path, name: str, **fields: Any) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(fields))
    return str(path)


def run_matrix(net: Net, path: Path, *more: str) -> "subprocess.Popen[str]":
    out = str(net.folder / "out")
    words = ("run", str(path), "--scheduler", net.address, "--out", out, "--json", *net.tls, *more)
    return net.start(HUB, *words, home="hub")


@pytest.mark.shared_machine
@pytest.mark.parametrize("replaced", [False, True], ids=["not replaced", "replaced by a new worker"])
def test_one_killed_and_one_slow(net: Net, tmp_path: Path, replaced: bool) -> None:
    # 64, 32 and 16 tokens a second: 1 / (2**-6 s), 1 / (2**-5 s), 1 / (2**-4 s).
    rates = {"fast": 64.0, "middle": 32.0, "slow": 16.0}
    models = [
        fake(tmp_path, name, sleeps=True, load_s=0.5, decode_s_per_token=1 / rate) for name, rate in rates.items()
    ]
    net.begin(wait_s="30" if replaced else "3")
    slow_line("laptop")

    path = write_matrix(tmp_path, DEVICES, models)
    running = run_matrix(net, path)
    wait_for_first_result_of("board", tmp_path / "out")
    net.workers["board"].kill()
    if replaced:
        net.worker("board", home="board-new")
    out, err = running.communicate(timeout=120)

    records = json.loads(out)["items"]
    assert "Traceback" not in err
    assert len(records) == 12, "every cell has its record"
    lost = [r for r in records if r["outcome"] != "ok"]
    if replaced:
        assert (running.returncode, lost) == (0, [])
    else:
        assert running.returncode == 4
        assert lost
        assert {r["machine"]["device"] for r in lost} == {"board"}
        assert all("no worker of board was there for 3 s" in r["detail"] for r in lost)
    # The merged result is right: each record is the one that its device kept, and has that model's known speed.
    for task in tasks_of(load_matrix(path)):
        record = load(tmp_path / "out" / f"{task.key}.json")
        if record.outcome != "ok":
            continue
        assert record.machine.device == task.device
        decode = summarise(record).test("decode")
        assert decode is not None
        assert decode.value == pytest.approx(rates[Path(task.model).stem])


def slow_line(device: str) -> None:
    """150 ms more each way, and lost packets."""
    words = f"tc -n eh{device} qdisc add dev eth0 root netem delay 150ms 30ms loss 1%"
    done = subprocess.run(words.split(), check=False, capture_output=True, text=True)
    if done.returncode:
        # No such queue here: a token bucket is in every kernel.
        words = f"tc -n eh{device} qdisc add dev eth0 root tbf rate 64kbit burst 4kb latency 400ms"
        done = subprocess.run(words.split(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def wait_for_first_result_of(device: str, folder: Path) -> None:
    until_s = time.monotonic() + 60
    while not list(folder.glob(f"{device}-*.json")):
        assert time.monotonic() < until_s
        time.sleep(0.02)


@pytest.mark.shared_machine
def test_a_fleet_costs_little(net: Net, tmp_path: Path) -> None:
    """The same cells alone and by a fleet of one device: runs of known length, so that the rest is the fleet's.

    Compared is the time from the first result to the last; what a command needs to start and to connect is printed.
    """
    models = [fake(tmp_path, f"m{n}", sleeps=True, load_s=2.0, decode_s_per_token=0.75) for n in range(4)]
    path = write_matrix(tmp_path, ("phone",), models)

    alone_s = alone(path, tmp_path, runtime="fake")
    net.begin(("phone",))
    began_s = time.monotonic()
    running = run_matrix(net, path)
    out, _ = running.communicate(timeout=300)
    fleet_s = time.monotonic() - began_s

    assert [r["outcome"] for r in json.loads(out)["items"]] == ["ok"] * 4
    ratio = between(tmp_path / "out") / between(tmp_path / "alone") - 1
    print(
        f"first to last of 4: alone {between(tmp_path / 'alone'):.3f} s, fleet {between(tmp_path / 'out'):.3f} s "
        f"({ratio:+.2%}); all in all {alone_s:.2f} and {fleet_s:.2f} s, the command's start with it"
    )
    assert ratio < 0.03


def between(folder: Path) -> float:
    times = sorted(f.stat().st_mtime for f in folder.glob("*.json"))
    return times[-1] - times[0]


@pytest.mark.shared_machine
@pytest.mark.engine
def test_a_fleet_measures_what_the_device_measures_alone(net: Net, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    model = synthesize_tiny(tmp_path / "tiny.gguf", "Q8_0", layer_count=8)
    path = write_matrix(tmp_path, ("phone",), [str(model)], runtime="llamacpp", new=128, patience=60)

    alone(path, tmp_path, runtime="llamacpp")
    net.begin(("phone",))
    running = run_matrix(net, path)
    out, _ = running.communicate(timeout=300)

    (record,) = json.loads(out)["items"]
    assert record["outcome"] in {"ok", "inconclusive"}
    best, wall = {}, {}
    for place in (tmp_path / "alone", tmp_path / "out"):
        (file,) = place.glob("*.json")
        found = load(file)
        # The best sample: whatever else the machine does can only make one slower.
        best[place.name] = max(s.token_count / s.duration_s for s in found.samples if s.phase == "decode")
        wall[place.name] = found.extra["wall_s"]
    print(
        f"best decode alone {best['alone']:.0f}, by the fleet {best['out']:.0f} tokens/s "
        f"({best['alone'] / best['out'] - 1:+.1%}); run {wall['alone']} and {wall['out']} s"
    )
    assert best["out"] > 0.7 * best["alone"], "far off: the worker disturbs what it measures"


def alone(path: Path, folder: Path, *, runtime: str) -> float:
    """Wall time of the same cells by ``edge-harness run``'s own use case in this process."""
    matrix = load_matrix(path)
    job = GenerateJob(
        runtime=runtime,
        repetitions=matrix.repetitions,
        cold_loads=matrix.cold_loads,
        patience_s=matrix.patience_s,
    )
    began_s = time.monotonic()
    records = run_cells(cells_of(matrix.models, "", matrix.scenario), job, how=How(folder=folder / "alone"))
    assert {r.outcome for r in records} <= {"ok", "inconclusive"}
    return time.monotonic() - began_s
