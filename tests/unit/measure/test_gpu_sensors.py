"""Counters of GPUs: the kernel's files in their units, absence said, throttling a doubt."""

from pathlib import Path

import pytest

from harness.measure import gpu_sensors
from harness.measure.gpu_sensors import GpuReading, absence, gpu_readings
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
        # microwatts, millidegrees
        (
            "amdgpu",
            {"power1_average": "187000000", "temp1_input": "64000"},
            GpuReading("amdgpu hwmon3", "amdgpu", 187.0, None),
        ),
        ("xe", {"energy1_input": "5000000"}, GpuReading("xe hwmon3", "xe", None, 5.0)),
        ("amdgpu", {}, GpuReading("amdgpu hwmon3", "amdgpu")),
    ],
)  # fmt: skip
def test_the_kernels_files(tmp_path: Path, name: str, files: dict[str, str], expected: GpuReading):
    assert [r for r in gpu_readings(root=tree(tmp_path, name, files)) if r.source == name] == [expected]


def test_other_sensors_are_no_gpu(tmp_path: Path):
    assert not [r for r in gpu_readings(root=tree(tmp_path, "k10temp", {"temp1_input": "50000"})) if r.source != "nvml"]


def test_absence_is_said():
    assert "not available" in absence(()) or "macOS" in absence(())
    assert absence((GpuReading("card", "amdgpu"),)) == "no power from card"
    assert absence((GpuReading("card", "amdgpu", power_watts=3.0),)) == ""


def test_a_throttled_gpu_is_a_doubt(monkeypatch: pytest.MonkeyPatch):
    hot = GpuReading("GeForce", "nvml", power_watts=300.0, throttled=("heat (hardware)",))
    monkeypatch.setattr("harness.measure.validity.gpu_readings", lambda *, root: (hot,))
    probe = ValidityProbe()
    probe.start()
    assert any("GeForce ran slower than it could (heat (hardware))" in doubt for doubt in probe.finish().doubts)
    assert gpu_sensors._THROTTLED[0x40] == "heat (hardware)"
