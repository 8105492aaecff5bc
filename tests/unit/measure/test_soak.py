"""Soaks: limits and sums by hand, and real runs whose CPU quota is cut in their middle."""

import contextlib
import threading

import msgspec
import pytest

from bench.soak_cut import Quota
from harness.core.errors import CouldNotRunError
from harness.core.result import Soak, Window
from harness.core.scenario import Scenario
from harness.measure import sensors
from harness.measure.child import Limits, run_child
from harness.measure.jobs.soak import SoakJob, limit_reached, summarise
from harness.measure.probe.tiny_model import tiny_shape, write_tiny

JOB = SoakJob(path="x.gguf", scenario=Scenario(), celsius_max=90, battery_percent_min=20)


def windows(speeds, joules=None):
    return [
        Window(since_start_s=5.0 * i, duration_s=5.0, token_count=round(5 * s), joules=joules and joules[i])
        for i, s in enumerate(speeds)
    ]


def test_burst_knee_and_level_by_hand():
    speeds = [100, 102, 98, 100, 101, 99, 100, 100, 60, 62, 58, 60, 60, 61, 59, 60]
    found = summarise(windows(speeds, [50.0] * 8 + [15.0] * 8), JOB, energy_scope="battery", battery_joules=60_000)
    assert found is not None
    assert found.knee_s == 40 and found.burst_tokens_per_s == 100 and found.sustained_tokens_per_s == 60
    assert found.drop_ratio == pytest.approx(0.4)
    assert found.sustained_joules_per_token == pytest.approx(0.05)
    assert found.tokens_per_charge == pytest.approx(1_200_000)
    assert found.minutes == pytest.approx(80 / 60)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Soak) == found
    flat = summarise(windows([100, 101, 99, 100] * 6), JOB)
    assert flat is not None and flat.knee_s is None and flat.drop_ratio == 0 and flat.energy_scope == ""
    assert summarise([], JOB) is None


def test_limits_of_heat_and_battery():
    window = windows([1])[0]
    assert limit_reached(window, JOB) == ""
    assert "91.0 C" in limit_reached(msgspec.structs.replace(window, celsius=91), JOB)
    assert "battery at 19 %" in limit_reached(msgspec.structs.replace(window, battery_percent=19), JOB)


def test_power_sensors_of_a_board(tmp_path):
    folder = tmp_path / "sys/class/hwmon/hwmon0"
    folder.mkdir(parents=True)
    (folder / "power1_input").write_text("5000000\n")
    now = [0.0]
    meter = sensors.EnergyMeter(root=tmp_path, clock=lambda: now[0])
    assert meter.source == "power sensors (hwmon)"
    meter.start()
    (folder / "power1_input").write_text("7000000\n")
    now[0] = 10.0
    assert meter.finish_joules() == pytest.approx(60)
    battery = tmp_path / "sys/class/power_supply/BAT0"
    battery.mkdir(parents=True)
    for name, text in (("type", "Battery"), ("status", "Discharging"), ("power_now", "9000000"), ("capacity", "55")):
        (battery / name).write_text(text)
    assert sensors.EnergyMeter(root=tmp_path).source == "battery discharge"
    assert sensors.battery_percent(root=tmp_path) == 55


@pytest.mark.parametrize(
    ("minutes", "window_s", "cut_s", "quota_us"),
    [(0.2, 0.5, 6.0, 5_000), pytest.param(10.0, 5.0, 240.0, 30_000, marks=pytest.mark.slow)],
)
def test_a_quota_cut_in_mid_run_is_found(tmp_path, minutes, window_s, cut_s, quota_us):
    """One thread of a real engine, held to a share of a CPU from then on."""
    found, outcome = soaked(tmp_path, minutes, window_s, cut_s, quota_us)
    assert outcome == "ok"
    soak = summarise(found, JOB)
    assert soak is not None and soak.knee_s is not None
    assert abs(soak.knee_s - cut_s) <= window_s + 0.7  # and the poll that carries the first event here
    assert soak.drop_ratio > 0.5
    if minutes > 1:  # on a quiet machine: the level is the quota's
        assert soak.sustained_tokens_per_s / soak.burst_tokens_per_s == pytest.approx(quota_us / 1e5, abs=0.03)


@pytest.mark.slow
def test_a_run_without_a_cut_shows_no_fall(tmp_path):
    soak = summarise(soaked(tmp_path, 10.0, 5.0, None, 0)[0], JOB)
    assert soak is not None and soak.knee_s is None


def soaked(folder, minutes, window_s, cut_s, quota_us):
    """Windows and outcome of a real run; its CPU quota is cut ``cut_s`` after its start."""
    path = folder / "tiny.gguf"
    scenario = Scenario(context_tokens=256, thread_count=1)
    job = SoakJob(path=str(path), scenario=scenario, minutes=minutes, window_s=window_s)
    pytest.importorskip("llama_cpp")
    write_tiny(path, tiny_shape(2, 256, 512, 4, 4), "Q8_0")
    found: list[Window] = []

    def hear(name, data):
        if name == "window":
            found.append(msgspec.convert(data, Window))
            if len(found) == 1 and cut_s is not None:
                threading.Timer(cut_s - found[0].duration_s, lambda: quota.cut(quota_us)).start()

    with contextlib.ExitStack() as stack:
        try:
            quota = stack.enter_context(Quota())
        except CouldNotRunError as error:
            pytest.skip(str(error))
        limits = Limits(wall_s=60 * minutes + 60, use_group=False)
        result = run_child("harness.measure.jobs.soak:run", job, limits=limits, on_event=hear)
    return found, result.outcome
