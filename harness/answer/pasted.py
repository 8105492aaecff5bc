"""What people paste when a model is slow: load lines of llama.cpp, `ollama ps`, LM Studio's log, `nvidia-smi`.

Each reader takes one fact out of one kind of line. Nothing is guessed: a line that no reader knows is skipped.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.core.base import Frozen
from harness.core.errors import BadDataError
from harness.core.foreign import read_limited

MOST_BYTES: Final = 4 << 20
"""Of a log; a longer one is cut by whoever pastes it."""
_MOST_LINES: Final = 50_000
_LONGEST: Final = 2000
"""Signs of a line that a reader looks at."""


class Seen(Frozen):
    """What a log says of a run; None for what it does not say.

    Attributes:
        layers_on_card: Layers with the GPU, of ``layer_count``; the output counts as one.
        gpu_share: Share of the model with the GPU, 0 to 1 (`ollama ps`).
        gpu_found: Whether the program found a GPU.
        flash_attention: Whether attention is fused.
        thread_count: Threads that compute, of ``cpu_count`` logical CPUs.
        has_avx: Whether the build uses AVX2 code.
        acceptance_ratio: Share of drafted tokens that were right.
        cache_on_card: Whether the KV cache lies with the GPU.
        loads_projector: Whether an image encoder was loaded.
        context_tokens: Context that was made.
        card_count: Cards on which the program holds memory.
        card_is_full: Whether a card has less than 3 % of its memory free.
        is_clocked_down: Whether a card computed (above 20 % busy) in a power state below P2.
        numa_nodes: Memory nodes of the machine.
        tokens_per_s: Decode speed.
        build: Build of llama.cpp, such as ``b9460``.
    """

    layers_on_card: int | None = None
    layer_count: int | None = None
    gpu_share: float | None = None
    gpu_found: bool | None = None
    flash_attention: bool | None = None
    thread_count: int | None = None
    cpu_count: int | None = None
    has_avx: bool | None = None
    acceptance_ratio: float | None = None
    cache_on_card: bool | None = None
    loads_projector: bool | None = None
    context_tokens: int | None = None
    card_count: int | None = None
    card_is_full: bool | None = None
    is_clocked_down: bool | None = None
    numa_nodes: int | None = None
    tokens_per_s: float | None = None
    build: str = ""


Found = dict[str, object]


def _smi(hit: re.Match[str]) -> Found:
    """A card's line of `nvidia-smi`: power state, memory used and there, share of time busy."""
    state, used, total, busy = (int(hit[name]) for name in ("state", "used", "total", "busy"))
    found: Found = {}
    if busy >= 20:
        found["is_clocked_down"] = state > 2
    if total:
        found["card_is_full"] = used > 0.97 * total
    return found


def _ollama(hit: re.Match[str]) -> Found:
    """The column PROCESSOR of `ollama ps`: `100% GPU`, `100% CPU`, or `41%/59% CPU/GPU`."""
    if hit["split"]:
        return {"gpu_share": int(hit["split"]) / 100}
    return {"gpu_share": 1.0 if hit["side"] == "GPU" else 0.0}


_READERS: Final[tuple[tuple[str, Callable[[re.Match[str]], Found]], ...]] = (
    (
        r"offloaded (\d{1,4})/(\d{1,4}) layers to GPU",
        lambda hit: {"layers_on_card": int(hit[1]), "layer_count": int(hit[2])},
    ),
    (r"\b(?:\d{1,3}%/(?P<split>\d{1,3})% CPU/GPU|100% (?P<side>GPU|CPU))\b", _ollama),
    (
        r"no usable GPU found|compiled without (?:GPU|CUDA)|no compatible GPUs|ggml_cuda_init: failed",
        lambda _: {"gpu_found": False},
    ),
    (r"found \d+ (?:CUDA|ROCm|Vulkan|SYCL) devices?", lambda _: {"gpu_found": True}),
    (
        r"flash_attn\s*=\s*(\w+)",
        lambda hit: {"flash_attention": hit[1] not in {"0", "disabled", "off", "false"}},
    ),
    (
        r"n_threads = (\d{1,4})(?: \(n_threads_batch = \d+\))? / (\d{1,4})",
        lambda hit: {"thread_count": int(hit[1]), "cpu_count": int(hit[2])},
    ),
    (r"system_info:.*\bAVX2? = 1\b", lambda _: {"has_avx": True}),
    (r"system_info:.*\bAVX = 0\b(?!.*\bNEON = 1)", lambda _: {"has_avx": False}),
    (r"draft acceptance(?: rate)? = (\d(?:\.\d+)?)", lambda hit: {"acceptance_ratio": float(hit[1])}),
    (
        r"kv_cache.*\bCPU KV buffer size|offload_kqv\s*=\s*(?:0|false)|--no-kv-offload|-nkvo\b",
        lambda _: {"cache_on_card": False},
    ),
    (r"kv_cache.*\b(?:CUDA|ROCm|Vulkan|Metal|SYCL)\d* KV buffer size", lambda _: {"cache_on_card": True}),
    (
        r"clip_model_loader|loaded multimodal model|load_hparams: projector",
        lambda _: {"loads_projector": True},
    ),
    (r"\bn_ctx\s*=\s*(\d{2,8})\b", lambda hit: {"context_tokens": int(hit[1])}),
    (
        r"\bP(?P<state>\d{1,2})\s+\d+W\s*/\s*\d+W\s*\|\s*(?P<used>\d+)MiB\s*/\s*(?P<total>\d+)MiB\s*\|\s*(?P<busy>\d{1,3})%",
        _smi,
    ),
    (r"NUMA node\(s\):\s+(\d+)|available: (\d+) nodes", lambda hit: {"numa_nodes": int(hit[1] or hit[2])}),
    (
        r"^(?!.*prompt)\s*.*\beval (?:time|rate)\b.*?(\d+(?:\.\d+)?) tokens(?: per second|/s)",
        lambda hit: {"tokens_per_s": float(hit[1])},
    ),
    (
        r"\bbuild(?:: |=|\s+)b?(\d{3,6})\b|version: (\d{3,6}) \(",
        lambda hit: {"build": f"b{hit[1] or hit[2]}"},
    ),
)


def seen_in(text: str) -> Seen:
    """What a pasted text says; of a fact that it says twice the last counts.

    Facts of several cards are joined: one full card, and one clocked down, is enough.
    """
    found: Found = {}
    cards = set[str]()
    for line in text.splitlines()[:_MOST_LINES]:
        short = line[:_LONGEST]
        for pattern, read in _PATTERNS:
            if hit := pattern.search(short):
                new = read(hit)
                for name in ("card_is_full", "is_clocked_down"):
                    if name in new:
                        new[name] = bool(new[name] or found.get(name))
                found |= new
        if card := re.search(r"(?:CUDA|ROCm|Vulkan)(\d) model buffer size", short):
            cards.add(card[1])
    if cards:
        found["card_count"] = len(cards)
    return Seen(**found)  # type: ignore[arg-type]


_PATTERNS: Final = tuple((re.compile(pattern), read) for pattern, read in _READERS)


def seen_in_file(name: str) -> Seen:
    """The same of a file; ``-`` is standard input.

    Raises:
        BadDataError: It cannot be read, has more than 4 MiB, or says nothing that is known here.
    """
    if name == "-":
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise BadDataError(name, "", f"more than {MOST_BYTES} bytes", "a log of at most 4 MiB")
    else:
        data = read_limited(Path(name), MOST_BYTES, "a log of at most 4 MiB")
    seen = seen_in(data.decode(errors="replace"))
    if seen == Seen():
        raise BadDataError(
            name, "", "no line that is known here", "load lines of llama.cpp, `ollama ps` or `nvidia-smi`"
        )
    return seen
