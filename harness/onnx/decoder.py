"""Language models as ONNX graphs: which ports carry the cache.

The names are those that optimum-onnx and the onnxruntime-genai builder write: ``input_ids``,
``attention_mask``, ``position_ids``, ``past_key_values.<layer>.key|value`` and ``present.<layer>.key|value``,
``logits``. ``num_logits_to_keep`` is the name that published exports use for "of the last so many tokens
only" (0 for all).
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

from harness.domain.foreign import json_in
from harness.errors import BadDataError, RefusedError
from harness.onnx.graph import OnnxGraph, Port

KEEP_INPUT: Final = "num_logits_to_keep"
_KNOWN: Final = frozenset({"input_ids", "attention_mask", "position_ids", KEEP_INPUT})
_PAST: Final = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_WRITES_IN_PLACE: Final = "GroupQueryAttention"


class DecoderPorts(NamedTuple):
    """How to run a decoder: its cache inputs and outputs in the same order, with their types, and its other inputs.

    Where the cache is ``shared`` it may be written in place: one buffer of the full context serves as past
    and present.
    """

    past: tuple[str, ...]
    present: tuple[str, ...]
    dtype: str
    head_count: tuple[int, ...]
    head_dims: tuple[int, ...]
    logits_dtype: str
    vocab_count: int
    inputs: frozenset[str]
    shared: bool

    @property
    def keeps(self) -> bool:
        """Whether the graph can compute the logits of the last tokens alone."""
        return KEEP_INPUT in self.inputs


def decoder_ports(graph: OnnxGraph) -> DecoderPorts:
    """The ports of a decoder with a cache.

    RefusedError where the graph is something else, or of another form.
    """
    name = graph.path.parent.name + "/" + graph.path.name
    past = [p for p in graph.inputs if _PAST.fullmatch(p.name)]
    others = [p for p in graph.inputs if not _PAST.fullmatch(p.name)]
    outputs = {p.name: p for p in graph.outputs}
    if "logits" not in outputs or not any(p.name == "input_ids" for p in others):
        raise RefusedError(f"{name} is not a language model: it has no input_ids or no logits")
    if not past:
        raise RefusedError(f"{name} has no cache: export it with past (task text-generation-with-past)")
    if unknown := [p.name for p in others if p.name not in _KNOWN]:
        raise RefusedError(f"{name} has an input {unknown[0]!r} that this runtime does not know")
    present = [p.name.replace("past_key_values", "present") for p in past]
    if missing := [p for p in present if p not in outputs]:
        raise RefusedError(f"{name} has a cache input without its output {missing[0]!r}")
    kinds = {p.dtype for p in past}
    if len(kinds) != 1 or not kinds <= {"F32", "F16"}:
        raise RefusedError(f"{name} keeps its cache as {', '.join(sorted(kinds))}: F32 or F16 is supported")
    vocab_count: int | str = "?"
    if outputs["logits"].dims:
        vocab_count = outputs["logits"].dims[-1]
    if not isinstance(vocab_count, int):
        raise RefusedError(f"{name} does not say how many logits it has")
    attention = [n for n in graph.nodes if n.op_type == _WRITES_IN_PLACE]
    return DecoderPorts(
        past=tuple(p.name for p in past),
        present=tuple(present),
        dtype=past[0].dtype,
        head_count=tuple(_fixed(p, 1, name) for p in past),
        head_dims=_head_dims(past, graph.path.parent, name),
        logits_dtype=outputs["logits"].dtype,
        vocab_count=vocab_count,
        inputs=frozenset(p.name for p in others),
        # Only where every layer's attention writes in place, and none looks at a window of it.
        shared=2 * len(attention) == len(past)
        and all(n.attributes.get("local_window_size", -1) < 0 for n in attention),
    )


def _head_dims(past: list[Port], folder: Path, name: str) -> tuple[int, ...]:
    """Head sizes by the ports; where those leave it open (the genai builder does), by the configuration beside them."""
    if all(isinstance(p.dims[-1], int) for p in past if len(p.dims) == 4):
        return tuple(_fixed(p, 3, name) for p in past)
    for file, keys in (
        ("genai_config.json", ("model", "decoder", "head_size")),
        ("config.json", ("head_dim",)),
    ):
        try:
            value = json_in(folder / file, "a configuration")
            for key in keys:
                value = value[key]
        except (BadDataError, KeyError, TypeError):
            continue
        if isinstance(value, int) and value > 0:
            return (value,) * len(past)
    raise RefusedError(f"{name} does not say how large its heads are, nor does a configuration beside it")


def _fixed(port: Port, axis: int, name: str) -> int:
    size: int | str = "?"
    if len(port.dims) == 4:
        size = port.dims[axis]
    if not isinstance(size, int):
        raise RefusedError(f"{name}: {port.name} is {port.dims}, expected [batch, heads, tokens, head size]")
    return size
