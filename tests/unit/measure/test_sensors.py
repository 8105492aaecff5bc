"""Energy counters, batteries and thermal zones, on a fake /sys tree."""

from pathlib import Path

import pytest

from harness.measure import sensors


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def rapl(root: Path, folder: str, name: str, microjoules: int) -> Path:
    base = root / "sys/class/powercap" / folder
    write(base / "name", f"{name}\n")
    write(base / "energy_uj", f"{microjoules}\n")
    write(base / "max_energy_range_uj", "10000000\n")
    return base / "energy_uj"


def test_a_machine_without_sensors_says_so(tmp_path: Path) -> None:
    kinds, notes = sensors.report(root=tmp_path)
    assert not any(kinds.values())
    assert notes == ["energy counter: not available", "battery: not available", "thermal zone: not available"]
    assert sensors.EnergyMeter(root=tmp_path).source == "not available"
    assert sensors.hottest_celsius(root=tmp_path) is None
    meter = sensors.EnergyMeter(root=tmp_path)
    meter.start()
    assert meter.finish_joules() is None


def test_packages_and_dram_add_up_without_the_cores(tmp_path: Path) -> None:
    package = rapl(tmp_path, "intel-rapl:0", "package-0", 9_000_000)
    dram = rapl(tmp_path, "intel-rapl:0:1", "dram", 100_000)
    rapl(tmp_path, "intel-rapl:0:0", "core", 0)
    meter = sensors.EnergyMeter(root=tmp_path)
    assert meter.source == "RAPL package-0 + RAPL dram"
    meter.start()
    package.write_text("2000000\n")  # wrapped at 10 J: 10 - 9 + 2 = 3 J
    dram.write_text("600000\n")  # 0.5 J
    assert meter.finish_joules() == pytest.approx(3.5)


def test_the_platform_counter_holds_the_packages(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 0)
    rapl(tmp_path, "intel-rapl:1", "psys", 0)
    assert [c.name for c in sensors.energy_counters(root=tmp_path)] == ["psys"]


def test_battery_discharge_is_power_times_time(tmp_path: Path) -> None:
    base = tmp_path / "sys/class/power_supply/BAT0"
    write(base / "type", "Battery\n")
    write(base / "status", "Discharging\n")
    write(base / "power_now", "10000000\n")  # 10 W
    write(base / "energy_full", "50000000\n")  # 50 Wh = 180 kJ
    now = [0.0]
    meter = sensors.EnergyMeter(root=tmp_path, clock=lambda: now[0])
    assert meter.source == "battery discharge"
    meter.start()
    now[0] = 3.0
    write(base / "power_now", "20000000\n")  # mean 15 W x 3 s
    assert meter.finish_joules() == pytest.approx(45.0)
    assert sensors.battery_joules(root=tmp_path) == pytest.approx(180_000)
    write(base / "status", "Charging\n")
    assert sensors.battery_watts(root=tmp_path) is None


def test_battery_by_current_and_voltage(tmp_path: Path) -> None:
    base = tmp_path / "sys/class/power_supply/battery"
    write(base / "type", "Battery\n")
    write(base / "status", "Discharging\n")
    write(base / "current_now", "-500000\n")  # 0.5 A, negative while discharging on many phones
    write(base / "voltage_now", "4000000\n")  # 4 V
    assert sensors.battery_watts(root=tmp_path) == pytest.approx(2.0)


def test_thermal_zones_and_hwmon(tmp_path: Path) -> None:
    write(tmp_path / "sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\n")
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", "61000\n")
    write(tmp_path / "sys/class/thermal/thermal_zone1/type", "broken\n")
    write(tmp_path / "sys/class/thermal/thermal_zone1/temp", "-273000\n")
    write(tmp_path / "sys/class/hwmon/hwmon0/name", "k10temp\n")
    write(tmp_path / "sys/class/hwmon/hwmon0/temp1_input", "70500\n")
    write(tmp_path / "sys/class/hwmon/hwmon0/temp1_label", "Tctl\n")
    assert sensors.thermal_zones(root=tmp_path) == (("x86_pkg_temp", 61.0), ("k10temp Tctl", 70.5))
    assert sensors.hottest_celsius(root=tmp_path) == 70.5


def test_frequency_and_throttling(tmp_path: Path) -> None:
    for index, khz in enumerate((1_000_000, 3_000_000)):
        write(tmp_path / f"sys/devices/system/cpu/cpu{index}/cpufreq/scaling_cur_freq", f"{khz}\n")
        write(tmp_path / f"sys/devices/system/cpu/cpu{index}/thermal_throttle/core_throttle_count", f"{index}\n")
    assert sensors.cpu_frequency_hz(root=tmp_path) == 2e9
    assert sensors.throttle_count(root=tmp_path) == 1
