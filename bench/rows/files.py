"""The files of published rows that ship here, and what each kind of them has to have."""

from pathlib import Path
from typing import Final

from harness.speed.published.cells import NEEDED, Cells, cells_in

_DATA: Final = Path(__file__).parent / "data"
KINDS: Final[dict[str, tuple[str, str]]] = {
    "speculation": ("spec_decode.csv", "speedup acceptance_rate target method device gamma acceptance_kind"),
    "streaming": (
        "streaming.csv",
        "storage_read_gb_s ram_bytes_or_budget arch model_bytes tokens_per_s params_b active_params_b",
    ),
    "placement": (
        "partial_offload.csv",
        "offload_mode n_gpu_layers n_cpu_moe gpu_chip model quant test tokens_per_s",
    ),
    "energy": ("energy.csv", "joules_per_token power_scope device chip device_class backend model quant"),
    "thermal": ("thermal.csv", "run_id t_s device chip device_class backend model quant tokens_per_s"),
    "batch": ("batch.csv", "batch_npl tg_tokens_per_s_total chip backend model quant memory_bandwidth_gb_s"),
    "speed": ("", " ".join(NEEDED)),
}
"""File of each kind, and columns without which there is no answer."""


def cells_of(kind: str, path: Path | None) -> list[Cells]:
    """Rows of the shipped file of a kind, or of ``path``; errors as ``cells_in``."""
    name, needed = KINDS[kind]
    return cells_in(path or _DATA / name, needed.split())


def kind_of(path: Path) -> str:
    """What a file is about, by the first two columns that each kind needs: speeds where it is none of the others.

    Raises:
        BadDataError: It cannot be read.
    """
    cells = cells_in(path, ())
    for kind, (_, needed) in KINDS.items():
        if cells and cells[0].keys() >= set(needed.split()[:2]):
            return kind
    return "speed"
