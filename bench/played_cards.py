"""Compute buffers that llama.cpp reserves on cards that are played to it, beside what is predicted.

    python -m bench.played_cards SOURCES [--api vulkan] [--kv-type Q8_0] [--kind qwen35] [--cards 2] > rows.csv

SOURCES is llama.cpp's folder as the source archive of the installed llama-cpp-python carries it (vendor/llama.cpp). A
card is played to its scheduler and allocator (bench/played_card.cpp), with the order of nodes and the sizes of tensors
of one of its backends; models are read without their weights. No GPU is needed, but a C++ compiler is.
"""

import csv
import ctypes
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import llama_cpp
from llama_cpp import llama_cpp as engine

from bench.made_models import synthesize
from bench.memory_conformance import KINDS, buffers_of
from harness.core.model import ModelShape
from harness.core.placement import Placement
from harness.core.scenario import Scenario
from harness.core.units import MIB
from harness.memory.compute_buffer import HOST, scratch_bytes
from harness.memory.placed import layout_of, parts_of
from harness.models.weights import weights_of

_LIBRARIES: Final = Path(llama_cpp.__file__).parent / "lib"
_CASES: Final = ((4096, 512, 1), (32768, 2048, 4))
_TYPES: Final = {"F16": 1, "Q8_0": 8}
_ORDER: Final = re.compile(
    r"^static constexpr std::initializer_list<(?:ggml_op|std::array<int, 3>)>.*?\};$"
    r"|^static bool ggml_vk_can_fuse_unary_mul\(.*?^\}$|^void ggml_vk_graph_optimize\(.*?^\}$",
    re.MULTILINE | re.DOTALL,
)
"""What of ggml-vulkan orders its nodes."""


def play(sources: Path, folder: Path) -> None:
    """Compile the card with the orders of nodes of these sources, and have the engine load it."""
    backends = sources / "ggml" / "src"
    texts = [(backends / "ggml-vulkan" / name).read_text() for name in ("ggml-vulkan-types.h", "ggml-vulkan.cpp")]
    (folder / "order.inc").write_text("\n".join(_ORDER.findall("\n".join(texts))))
    metal = [str(backends / "ggml-metal" / f"ggml-metal-{name}.cpp") for name in ("common", "fusion")]
    folders = [f"-I{path}" for path in (folder, backends, sources / "ggml" / "include")]
    card, out = Path(__file__).with_name("played_card.cpp"), folder / "played.so"
    linked = ["-o", str(out), f"-L{_LIBRARIES}", "-lggml-base", "-lggml", f"-Wl,-rpath,{_LIBRARIES}"]
    subprocess.run(["c++", "-std=c++17", "-shared", "-fPIC", "-w", *folders, str(card), *metal, *linked], check=True)
    ggml = ctypes.CDLL(str(next(_LIBRARIES.glob("libggml.so.?"))))
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    assert ggml.ggml_backend_load(str(out).encode()), out


def reserved(path: Path, context: int, ubatch: int, slots: int, kv_type: str) -> list[float]:
    """MiB that the engine reserves for a batch on each card, and for the host."""
    lines = list[str]()
    hear = engine.llama_log_callback(lambda _level, text, _data: lines.append(text.decode(errors="replace")))
    engine.llama_log_set(hear, ctypes.c_void_p(0))
    loading, making = engine.llama_model_default_params(), engine.llama_context_default_params()
    loading.n_gpu_layers, loading.no_alloc, making.kv_unified, making.swa_full, making.flash_attn_type = (
        999,
        True,
        True,
        False,
        1,
    )
    making.n_ctx, making.n_ubatch, making.n_seq_max, making.n_outputs_max = context, ubatch, slots, slots
    making.type_k = making.type_v = _TYPES[kv_type]
    model = engine.llama_model_load_from_file(str(path).encode(), loading)
    engine.llama_free(engine.llama_init_from_model(model, making))
    engine.llama_model_free(model)
    return [buffers_of([line])["compute"][0] for line in lines if "compute buffer size" in line]


def predicted(shape: ModelShape, api: str, kv_type: str, cards: int, case: tuple[int, int, int]) -> list[float]:
    """The same as predicted, of a tiny model on so many equal cards."""
    context, ubatch, slots = case
    placement = Placement(tensor_split=(1.0,) * cards)
    scenario = Scenario(
        context_tokens=context,
        ubatch_tokens=ubatch,
        kv_type=kv_type,
        api=api,
        placement=placement,
        program=f"llama-server -np {slots}{' -kvu' * (slots > 1)}",
    )
    scratch = scratch_bytes(shape, scenario, layout_of(parts_of(weights_of(shape, "Q4_0"), placement), placement, api))
    return [scratch.get(side, 0) / MIB for side in (*range(cards), HOST)]


def rows(api: str, kv_type: str, cards: int, kinds: dict[str, ModelShape], folder: Path) -> Iterator[dict[str, Any]]:
    """Each kind and case: MiB that the engine reserves on each card and the host, and the same as predicted."""
    os.environ["PLAYED_API"] = api
    for kind, shape in kinds.items():
        path = synthesize(weights_of(shape, "Q4_0"), folder / "tiny.gguf")
        for case in _CASES:
            *on_cards, host = reserved(path, *case, kv_type)
            named = dict(zip(("context_tokens", "ubatch_tokens", "slots"), case, strict=True))
            told = predicted(shape, api, kv_type, cards, case)
            yield {
                "api": api,
                "kv_type": kv_type,
                "kind": kind,
                "cards": cards,
                **named,
                "card_mib": ";".join(f"{size:g}" for size in on_cards),
                "host_mib": host,
                "predicted_mib": ";".join(f"{size:.2f}" for size in told),
            }


@click.command()
@click.argument("sources", type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path))
@click.option("--api", "apis", multiple=True, default=("cuda", "vulkan", "metal"))
@click.option("--kv-type", type=click.Choice(list(_TYPES)), default="F16")
@click.option("--cards", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--kind", "wanted", help="Part of a kind's name; all of them unless given.", default="")
def main(sources: Path, apis: tuple[str, ...], kv_type: str, wanted: str, cards: int) -> None:
    """Write each case, what the engine reserves and what is predicted for it as CSV; see the module's docstring."""
    kinds, errors = {name: shape for name, shape in KINDS.items() if wanted in name}, list[float]()
    os.environ["PLAYED_CARDS"] = str(cards)
    writer = None
    with tempfile.TemporaryDirectory() as folder:
        play(sources, Path(folder))
        for api in apis:
            for row in rows(api, kv_type, cards, kinds, Path(folder)):
                if writer is None:
                    writer = csv.DictWriter(sys.stdout, row)
                    writer.writeheader()
                writer.writerow(row)
                found = [float(size) for size in f"{row['card_mib']};{row['host_mib']}".split(";")]
                told = [float(size) for size in row["predicted_mib"].split(";")]
                errors += [abs(ours / theirs - 1) for ours, theirs in zip(told, found, strict=True)]
    errors.sort()
    middle, most = errors[len(errors) // 2], errors[int(0.9 * len(errors))]
    words = f"{len(errors)} buffers, off by {middle:.1%} in the median, nine of ten by less than {most:.1%}"
    click.echo(words, err=True)


if __name__ == "__main__":
    main()
