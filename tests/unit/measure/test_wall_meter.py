"""A meter in the socket: energy by hand, a real program, and programs that are no meters."""

import json
import sys
import time

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.core.errors import CouldNotRunError
from harness.core.record import ModelIdentity
from harness.core.result import Soak, Window
from harness.core.scenario import Scenario
from harness.measure import wall_meter
from harness.measure.child import ChildResult
from harness.measure.jobs.soak import SoakJob, metered, plan, summarise
from harness.measure.pipeline import Measurement
from harness.measure.probe.tiny_model import tiny_shape, write_tiny
from harness.measure.wall_meter import MeterReading, WallMeter, joules_of

JOB = SoakJob(path="x.gguf", scenario=Scenario())
RISING = [MeterReading(100, 10), MeterReading(105, 20), MeterReading(110, 20)]


def program(text):
    return f'{sys.executable} -c "{text}"'


@pytest.mark.parametrize(
    ("start_s", "end_s", "joules"),
    [
        (100, 110, 15 * 5 + 20 * 5),
        (102, 104, 16 * 2),  # 14 W at its begin, 18 W at its end
        (104, 106, (18 + 20) / 2 + 20),
        (105, 110, 100),
        (99, 104, None),
        (104, 111, None),
    ],
)
def test_joules_between_moments_by_hand(start_s, end_s, joules):
    assert joules_of(RISING, start_s, end_s) == (None if joules is None else pytest.approx(joules))


def test_a_long_silence_is_no_reading():
    readings = [MeterReading(0, 10), MeterReading(1, 10), MeterReading(30, 10), MeterReading(31, 10)]
    assert joules_of(readings, 0, 0.5) == pytest.approx(5)
    assert joules_of(readings, 0.5, 30.5) is None
    assert joules_of([], 0, 1) is None


def test_a_program_that_prints_watts():
    prints = "import time\nprint('socket on')\nwhile True: print('power', 12.5, flush=True) or time.sleep(0.02)"
    with WallMeter(program(prints)) as meter:
        start_s = time.perf_counter()
        time.sleep(0.5)
        end_s = time.perf_counter()
        while meter.readings[-1].at_s < end_s:
            time.sleep(0.02)
    assert meter.scope.startswith("wall meter (") and "whole device" in meter.scope
    assert meter.joules(start_s, end_s) == pytest.approx(12.5 * (end_s - start_s))
    assert meter._process.poll() is not None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-meter-here", "no-such-meter-here"),
        ("", "list index"),
        ("'", "No closing quotation"),
        (program("print('offline')"), "it ended"),
        (program("print(-3)"), "found -3 W"),
        (program("print(1e9)"), "found 1e\\+09 W"),
        (program("import time; time.sleep(60)"), "no line with a number within"),
    ],
)
def test_what_is_no_meter_is_said_by_its_command(command, said, monkeypatch):
    monkeypatch.setattr(wall_meter, "FIRST_READING_S", 2.0)
    with pytest.raises(CouldNotRunError, match=said), WallMeter(command):
        pass


def test_a_run_with_a_meter_is_another_than_one_without():
    model = ModelIdentity(
        name="x", quant="Q8_0", size_bytes=1, sha256="0" * 64, architecture="llama", parameter_count=1
    )
    assert plan(JOB, model).key != plan(JOB.replace(meter="meter-of-mine"), model).key


def test_the_option_gives_a_soak_the_energy_of_its_meter(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    model = tmp_path / "tiny.gguf"
    write_tiny(model, tiny_shape(2, 256, 512, 4, 4), "Q8_0")
    prints = program("import time\nwhile True: print(20, flush=True) or time.sleep(0.1)")
    asked = ["soak", str(model), "--minutes", "0.1", "-t", "1", "--meter", prints, "--json"]

    done = CliRunner().invoke(cli, asked, catch_exceptions=False)

    found = json.loads(done.stdout)["result"]
    assert found["energy_scope"].startswith("wall meter (")
    window = found["windows"][0]
    assert window["joules"] == pytest.approx(20 * window["duration_s"])


def test_windows_get_the_energy_of_their_own_seconds():
    windows = [Window(since_start_s=5.0 * i, duration_s=5.0, token_count=50) for i in range(4)]
    without = Measurement("soak", "", JOB, Scenario(), lambda child: summarise(windows, JOB, energy_scope="RAPL"))
    meter = WallMeter("meter-of-mine --fast")
    meter.readings = [MeterReading(at, 20.0 if at < 1010 else 40.0) for at in range(1000, 1018)]
    found = metered(without, JOB, meter, [1005, 1010, 1015, 1020]).read(ChildResult("ok", "", (), None, 0.0))
    assert isinstance(found, Soak)
    # the fourth window ends after the last reading: its energy is unknown, so it does not count
    assert [window.joules for window in found.windows] == [pytest.approx(100), pytest.approx(110), pytest.approx(200)]
    assert found.sustained_joules_per_token == pytest.approx(200 / 50)
    assert found.energy_scope == "wall meter (meter-of-mine), the whole device"
