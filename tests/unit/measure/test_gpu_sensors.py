"""Counters of GPUs: the kernel's files in their units, throttling a doubt."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

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
        assert meter.source == ("RAPL package-0" if (card / "in1_input").exists() else "RAPL package-0 + AMD board")
        return joules

    assert used() == pytest.approx(503)
    (card / "in1_input").write_text("700")
    assert used() == pytest.approx(3)


NVML = {
    "nvmlInit": None,
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": 7,
    "nvmlDeviceGetName": "NVIDIA H100",
    "nvmlDeviceGetPowerUsage": 350_000,
    "nvmlDeviceGetTotalEnergyConsumption": 5_000,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x4 | 0x40,
    "nvmlDeviceGetProcessUtilization": [SimpleNamespace(pid=11, smUtil=30), SimpleNamespace(pid=12, smUtil=10)],
}
"""Answers as NVML's reference has them: milliwatts, millijoules, bits, per cent."""


def play(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
    """A package that answers so; what is an error it raises."""
    module = ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})  # type: ignore[attr-defined]
    module.__spec__ = SimpleNamespace()  # type: ignore[assignment]

    def function(answer: Any):
        def call(*_: Any) -> Any:
            if answer is Exception:
                raise module.NVMLError  # type: ignore[attr-defined]
            return answer

        return call

    for name, answer in answers.items():
        setattr(module, name, function(answer))
    monkeypatch.setitem(sys.modules, "pynvml", module)


WHOLE = GpuReading("NVIDIA H100", "nvml", 350.0, 5.0, ("heat (hardware)",), loads=((11, 0.3), (12, 0.1)))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, WHOLE),
        # a card that tells none of the loads of processes
        ({"nvmlDeviceGetProcessUtilization": Exception}, WHOLE._replace(loads=())),
        # a card that tells neither power nor energy
        (
            {"nvmlDeviceGetPowerUsage": Exception, "nvmlDeviceGetTotalEnergyConsumption": Exception},
            WHOLE._replace(power_watts=None, energy_joules=None),
        ),
    ],
)  # fmt: skip
def test_nvml_as_its_packages_and_cards_answer(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], expected: GpuReading
):
    play(
        monkeypatch,
        **{name: answer for name, answer in (NVML | changed).items() if answer is not None or name == "nvmlInit"},
    )
    reading = next(r for r in gpu_readings() if r.source == "nvml")
    assert reading == expected


@pytest.mark.parametrize("missing", ["nvmlInit", "nvmlDeviceGetCount"])
def test_a_machine_without_its_driver_has_no_card(monkeypatch: pytest.MonkeyPatch, missing: str):
    play(monkeypatch, **NVML | {"nvmlInit": Exception, "nvmlDeviceGetCount": Exception, missing: Exception})
    assert not [r for r in gpu_readings() if r.source == "nvml"]


@pytest.mark.parametrize(
    ("own", "doubted"),
    [({11}, True), ({11, 12}, False), ({99}, False)],  # of a container's numbers nobody is known
)
def test_what_others_do_on_a_card_is_a_doubt(monkeypatch: pytest.MonkeyPatch, own: set[int], doubted: bool):
    monkeypatch.setattr("harness.measure.validity.gpu_readings", lambda *, root: (WHOLE._replace(throttled=()),))
    probe = ValidityProbe(own_pids=own)
    probe.start()
    assert any("other programs took 10% of NVIDIA H100" in doubt for doubt in probe.finish().doubts) == doubted
