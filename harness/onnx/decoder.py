"""Language models as ONNX graphs: which ports carry the cache.

The names are those that optimum-onnx and the onnxruntime-genai builder write: ``input_ids``,
``attention_mask``, ``position_ids``, ``past_key_values.<layer>.key|value`` and ``present.<layer>.key|value``,
``logits``. ``num_logits_to_keep`` is the name that published exports use for "of the last so many tokens
only" (0 for all).
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from harness.errors import RefusedError

KEEP_INPUT: Final = "num_logits_to_keep"
_KNOWN: Final = frozenset({"input_ids", "attention_mask", "position_ids", KEEP_INPUT})
_TYPES: Final[dict[str, Any]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_PAST: Final = re.compile(r"past_key_values\.(\d+)\.(key|value)")


class DecoderPorts(NamedTuple):
    """How to run a decoder: its cache inputs and outputs in the same order, with their types, and its other inputs.

    ``sizes`` are (heads, head size) of each cache input.
    """

    past: tuple[str, ...]
    present: tuple[str, ...]
    dtype: Any
    sizes: tuple[tuple[int, int], ...]
    vocab_count: int
    inputs: frozenset[str]


def decoder_ports(inputs: Sequence[Any], outputs: Sequence[Any], name: str) -> DecoderPorts:
    """The ports of a decoder with a cache, of those that the engine tells of a graph.

    RefusedError where the graph is something else, or of another form.
    """
    past = [p for p in inputs if _PAST.fullmatch(p.name)]
    others = {p.name for p in inputs} - {p.name for p in past}
    shapes = {p.name: p.shape for p in outputs}
    if "logits" not in shapes or "input_ids" not in others:
        raise RefusedError(f"{name} is not a language model: it has no input_ids or no logits")
    if not past:
        raise RefusedError(f"{name} has no cache: export it with past (task text-generation-with-past)")
    if unknown := sorted(others - _KNOWN):
        raise RefusedError(f"{name} has an input {unknown[0]!r} that this runtime does not know")
    present = [p.name.replace("past_key_values", "present") for p in past]
    if missing := [p for p in present if p not in shapes]:
        raise RefusedError(f"{name} has a cache input without its output {missing[0]!r}")
    kinds = {p.type for p in past}
    if len(kinds) != 1 or not kinds <= _TYPES.keys():
        raise RefusedError(f"{name} keeps its cache as {', '.join(sorted(kinds))}: F32 or F16 is supported")
    *_, vocab_count = shapes["logits"] or ("?",)
    if not isinstance(vocab_count, int):
        raise RefusedError(f"{name} does not say how many logits it has")
    sizes = []
    for port in past:
        match port.shape:
            case [_, int(heads), _, int(size)]:
                sizes.append((heads, size))
            case _:
                raise RefusedError(
                    f"{name}: {port.name} is {port.shape}, expected [batch, heads, tokens, head size]"
                )
    return DecoderPorts(
        past=tuple(p.name for p in past),
        present=tuple(present),
        dtype=_TYPES[past[0].type],
        sizes=tuple(sizes),
        vocab_count=vocab_count,
        inputs=frozenset(others),
    )
