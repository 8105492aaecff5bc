"""Counters of GPUs: the kernel's files in their units, throttling a doubt."""

from pathlib import Path

import pytest

from harness.measure import gpu_sensors
from harness.measure.gpu_sensors import GpuReading, gpu_readings
from harness.measure.sensors import EnergyMeter
from harness.measure.validity import ValidityProbe


def tree(root: Path, name: str, files: dict[str, str]) -> Path:
    folder = root / "sys/class/hwmon/hwmon3"
    for path, text in {"name": name, **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        # microwatts
        ("amdgpu", {"power1_average": "187000000"}, GpuReading("amdgpu hwmon3", "amdgpu", 187.0, None)),
        # a part of a processor tells its northbridge's voltage
        (
            "amdgpu",
            {"power1_input": "15000000", "in1_input": "700"},
            GpuReading("amdgpu hwmon3", "amdgpu", 15.0, apart=False),
        ),
        ("xe", {"energy1_input": "5000000"}, GpuReading("xe hwmon3", "xe", None, 5.0)),
        ("amdgpu", {}, GpuReading("amdgpu hwmon3", "amdgpu")),
    ],
)  # fmt: skip
def test_the_kernels_files(tmp_path: Path, name: str, files: dict[str, str], expected: GpuReading):
    assert [r for r in gpu_readings(root=tree(tmp_path, name, files)) if r.source == name] == [expected]


def test_other_sensors_are_no_gpu(tmp_path: Path):
    assert not [r for r in gpu_readings(root=tree(tmp_path, "k10temp", {"temp1_input": "50000"})) if r.source != "nvml"]


def test_a_throttled_gpu_is_a_doubt(monkeypatch: pytest.MonkeyPatch):
    hot = GpuReading("GeForce", "nvml", power_watts=300.0, throttled=("heat (hardware)",))
    monkeypatch.setattr("harness.measure.validity.gpu_readings", lambda *, root: (hot,))
    probe = ValidityProbe()
    probe.start()
    assert any("GeForce ran slower than it could (heat (hardware))" in doubt for doubt in probe.finish().doubts)
    assert gpu_sensors._THROTTLED[0x40] == "heat (hardware)"


def test_a_card_counts_beside_its_processor_and_a_part_of_it_does_not(tmp_path: Path):
    """40 W and 60 W at both ends of 10 s: 500 J, and 3 J of the package."""
    card = tree(tmp_path, "amdgpu", {"power1_average": "40000000"}) / "sys/class/hwmon/hwmon3"
    package = tmp_path / "sys/class/powercap/intel-rapl:0"
    package.mkdir(parents=True)
    for name, text in {"name": "package-0", "energy_uj": "1000000", "max_energy_range_uj": "10000000"}.items():
        (package / name).write_text(text)

    def used() -> float | None:
        now = [0.0]
        meter = EnergyMeter(root=tmp_path, clock=lambda: now[0])
        (package / "energy_uj").write_text("4000000")
        (card / "power1_average").write_text("60000000")
        now[0] = 10.0
        joules = meter.finish_joules()
        (package / "energy_uj").write_text("1000000")
        (card / "power1_average").write_text("40000000")
        assert meter.source == (
            "RAPL package-0" if (card / "in1_input").exists() else "RAPL package-0 and AMD board x 1"
        )
        return joules

    assert used() == pytest.approx(503)
    (card / "in1_input").write_text("700")
    assert used() == pytest.approx(3)
