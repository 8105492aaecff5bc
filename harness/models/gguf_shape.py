"""From the metadata of a GGUF file to a model's shape.

Source: llama.cpp, src/llama-arch.cpp (names of the keys) and src/llama-model.cpp (which architecture reads
which).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final

from harness.core.errors import BadDataError
from harness.core.model import LAZY_TABLE, LETTERS, Experts, LatentAttention, ModelShape, Recurrent, Tensor
from harness.core.tables import expect_all, shipped_table
from harness.models.architecture import ARCHITECTURES, architecture_named, has
from harness.models.quant import MIXTURES
from harness.models.shape_check import check_shape


def read_keys() -> dict[str, Any]:
    """``data/model_files.toml``: the tables of keys for this module and its neighbours; the file says what each is.

    Raises:
        BadDataError: A letter of no kind of layer, or a field that a shape does not have.
    """
    path = "data/model_files.toml"
    document = shipped_table(path, into=dict[str, dict[str, Any]])
    expect_all(path, "table", ((table, table) for table in document), ("layer_letters", "config", "header"))
    expect_all(path, "layer_letters", document["layer_letters"], {*LETTERS.values()})
    parts = {"shape": ModelShape, "experts": Experts, "recurrent": Recurrent, "latent": LatentAttention}
    for table, part in parts.items():
        fields = {*part.__struct_fields__, "key_dim"}
        expect_all(path, f"header.{table}", ((key, key) for key in document["header"][table]), fields)
    recurrent = {one.recurrent for one in ARCHITECTURES.values()}
    known = {*parts, *recurrent, "attention", "sliding", "full_attention", "short_convolution"}
    for form in ("config", "header"):
        expect_all(path, form, ((table, table) for table in document[form]), known)
    return document


KEYS: Final = read_keys()

_STATE: Final = ("ssm_", "shortconv.", "time_mix_")
_KEYS: Final = ("attn_k.", "attn_kv_a_mqa.", "attn_k_b.")
"""How names of tensors begin by which a block keeps a state, or caches keys."""
_GATE: Final = re.compile(r"blk\.\d+\.attn_gate\.weight")
_OWN_CACHES: Final = 20
LAYERS_MAX: Final = 100_000


def quant_name(file_type: Any, tensors: Sequence[Tensor]) -> str:
    """Name of the mixture that a file says it is; else its most used type by bytes."""
    for name, mixture in MIXTURES.items():
        if mixture.file_type == file_type and not isinstance(file_type, bool):
            return name
    sizes = Counter[str]()
    for tensor in tensors:
        sizes[tensor.type_name] += tensor.size_bytes
    if sizes:
        return sizes.most_common(1)[0][0]
    return "F32"


def shape_from_metadata(
    path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Sequence[Tensor]
) -> ModelShape:
    """Shape of the model.

    Raises:
        BadDataError: A key that the architecture needs is missing or makes no sense.
    """
    dims = {t.name: t.dims for t in tensors}
    shape = Header(path, architecture, metadata, f"{architecture}.", dims).shape()
    parts = metadata.get("split.count", 1)
    return check_shape(
        shape, path, dims if parts in {0, 1} else None
    )  # a part of a model has some tensors only


@dataclass
class Keys:
    """Figures of one model by the keys of its file, which all begin with ``prefix``, read with checks.

    ``form`` (``config`` or ``header``) names the tables of ``model_files.toml`` with the keys of each field.
    """

    source: Path | str
    architecture: str
    values: Mapping[str, Any]
    prefix: str = ""
    form: ClassVar[str] = "config"

    def number(self, *keys: str | int | None, most: int = 1 << 40) -> int:
        """The first of ``keys`` there is, as a whole number; a number at the end stands for none.

        Of an array with one number a layer it is the largest.
        """
        for key in keys:
            if isinstance(key, int):
                return key
            value = self.values.get(f"{self.prefix}{key}")
            if value is None:
                continue
            counts = self.listed(str(key)) or (value,)
            if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= most for n in counts):
                raise BadDataError(
                    self.source, f"{self.prefix}{key}", repr(value)[:80], f"a whole number up to {most}"
                )
            return max(counts)
        raise BadDataError(
            self.source, f"{self.prefix}{keys[0]}", "no such key", f"a whole number up to {most}"
        )

    def listed(self, key: str) -> tuple[int, ...]:
        """The values of a key that has one for each block; empty where it has one for all."""
        value = self.values.get(f"{self.prefix}{key}")
        blocks = self.values.get(f"{self.prefix}block_count")
        if not isinstance(value, tuple) or not value:
            return ()
        if len(value) != blocks:
            raise BadDataError(
                self.source, f"{self.prefix}{key}", f"{len(value)} values", f"{blocks}, one for each block"
            )
        return value

    def part(self, table: str) -> dict[str, int]:
        """Fields of a part of the shape, by its table."""
        return {name: self.number(*keys) for name, keys in KEYS[self.form][table].items()}


@dataclass
class Header(Keys):
    """A shape by the keys of a file's header, and by its tensors (``dims``) where it has any.

    ``letters`` are the kinds of a hybrid's layers where a configuration lists them.
    """

    dims: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    letters: str = ""
    form = "header"

    def told_by_tensors(self) -> dict[str, bool]:
        """What the names of the tensors say, and no key."""
        full = [f"blk.{i}.attn_v.weight" for i, slides in enumerate(self.slides()) if not slides]
        return {
            "gated_feed_forward": self.is_gated(),
            "tied_embeddings": bool(self.dims) and "output.weight" not in self.dims,
            "attention_bias": any(name.endswith(("attn_q.bias", "attn_qkv.bias")) for name in self.dims),
            "qk_norm": self.has("attn_q_norm"),
            # Layers that look at everything have no value matrix; a file without tensors counts as having
            # them.
            "values_are_keys": has(self.architecture, "own_full_heads")
            and not any(name in self.dims or not self.dims for name in full),
        }

    def shape(self, traits: Mapping[str, bool] | None = None) -> ModelShape:
        """Everything together; ``traits`` are fields that no key of a header tells, where they are known otherwise."""
        # Extra blocks that predict further tokens stand in the file and are not run in plain decoding.
        layers = max(0, self.number("block_count", most=LAYERS_MAX) - self.number("nextn_predict_layers", 0))
        fields: dict[str, Any] = self.part("shape")
        recurrent = self.recurrent(layers)
        heads = self.number("attention.head_count", 0 if recurrent else None)
        kv_heads, sliding_kv_heads = self.kv_heads(heads)
        head = self.number("attention.key_length", fields["hidden_dim"] // heads if heads else 0)
        value_head = self.number("attention.value_length", head)
        window = self.window()
        # llama.cpp fixes the layers with keys and values of their own to 20 for Gemma 3n.
        sharing = max(0, layers - _OWN_CACHES) * has(self.architecture, "twenty_own_caches")
        row, rows = self.table_of_n_grams()
        latent = self.latent()
        if latent:
            # llama.cpp writes the compressed row as the key; the heads themselves stand in the *_mla keys.
            head = latent.nope_head_dim + latent.rope_head_dim
            value_head = latent.value_head_dim
            kv_heads = heads
        return ModelShape(
            **fields,
            **(self.told_by_tensors() if traits is None else traits),
            architecture=self.architecture,
            layer_count=layers,
            vocab_count=self.vocab(),
            head_count=heads,
            kv_head_count=kv_heads,
            head_dim=head,
            value_head_dim=0 if value_head == head else value_head,
            feed_forward_dim=self.feed_forward(),
            sliding_window_tokens=window,
            sliding_step_count=self.sliding_step(layers) if window else 0,
            experts=self.experts(),
            latent=latent,
            recurrent=recurrent,
            kv_shared_layer_count=self.number("attention.shared_kv_layers", sharing),
            kv_shared_feed_forward_dim=self.shared_feed_forward(),
            sliding_kv_head_count=sliding_kv_heads,
            layer_pattern=self.told_by_blocks(layers) if self.is_unknown else self.mixers(layers)[0],
            mtp_layer_count=self.number("nextn_predict_layers", 0),
            attention_gate_dim=self.gate(),
            indexer_layer_count=sum(name.endswith(".indexer.attn_k.weight") for name in self.dims),
            lazy_row_dim=row,
            lazy_row_count=rows,
        )

    @property
    def is_unknown(self) -> bool:
        """Whether nobody here knows the architecture, so that its tensors alone tell what a block is."""
        return bool(self.dims) and self.architecture not in ARCHITECTURES

    def told_by_blocks(self, layers: int) -> str:
        """A letter for each block, by its tensors and by the flags of sliding windows.

        The text is empty if every block attends to all positions.

        Raises:
            BadDataError: A block that both attends and keeps a state, or a window of which nothing says whose
                it is.
        """
        slides = self.slides()[:layers]
        step = self.values.get(f"{self.prefix}attention.sliding_window_pattern")
        if isinstance(step, int) and step > 1:
            slides = tuple((block + 1) % step != 0 for block in range(layers))
        if self.window() and not slides:
            place = f"{self.prefix}attention.sliding_window_pattern"
            raise BadDataError(
                self.source, place, "no such key", "which layers of this unknown architecture slide"
            )
        letters = list[str]()
        for block in range(layers):
            names = [
                name.removeprefix(f"blk.{block}.") for name in self.dims if name.startswith(f"blk.{block}.")
            ]
            has_state = any(name.startswith(_STATE) for name in names)
            attends = any(
                name.startswith(_KEYS) or (name.startswith("attn_qkv") and not has_state) for name in names
            )
            if has_state and attends:
                raise BadDataError(
                    self.source, f"blk.{block}", "attention and a state in one block", "one of the two"
                )
            if attends:
                letters.append("s" if slides and slides[block] else "a")
            else:
                letters.append("r" if has_state else "-")
        if set(letters) != {"a"}:
            return "".join(letters)
        return ""

    def gate(self) -> int:
        """Width of a gate on attention's output; hybrids call another matrix so."""
        gates = [sizes[1] for name, sizes in self.dims.items() if _GATE.fullmatch(name) and len(sizes) > 1]
        if self.number("ssm.inner_size", 0):
            return 0
        return max(gates, default=0)

    def table_of_n_grams(self) -> tuple[int, int]:
        """Width and number of the rows of a table of n-grams.

        Gemma uses the same tensor names for the embedding tables that each of its layers has.
        """
        table = self.dims.get(LAZY_TABLE, ())
        if len(table) < 2 or self.number("embedding_length_per_layer_input", 0):
            return 0, 0
        return table[0], table[1]

    def slides(self) -> tuple[bool, ...]:
        """One flag a layer, true where it slides; empty where the file does not list them."""
        return tuple(bool(v) for v in self.listed("attention.sliding_window_pattern"))

    def kv_heads(self, heads: int) -> tuple[int, int]:
        """KV heads of the full layers, and of the sliding ones where those have another number (else 0)."""
        most = self.number("attention.head_count_kv", heads)
        each, slides = self.listed("attention.head_count_kv"), self.slides()  # as many as blocks, or none
        counts = list(zip(each, slides, strict=True)) if each and slides else []
        full, own = (max((n for n, slid in counts if slid is kind), default=most) for kind in (False, True))
        sliding = self.number("attention.head_count_kv_swa", own)
        return full or sliding, sliding if sliding != full else 0

    def feed_forward(self) -> int:
        """Inner width of the first block with a dense feed-forward part, 0 if every block routes to experts.

        Blocks that share keys and values may have another width.
        """
        if self.dims and not self.has("ffn_up"):
            return 0
        return next(
            (n for n in self.listed("feed_forward_length") if n), self.number("feed_forward_length", 0)
        )

    def shared_feed_forward(self) -> int:
        """Inner width in the trailing layers without a cache of their own, where it differs."""
        widths = self.listed("feed_forward_length")
        if has(self.architecture, "own_full_heads") and widths and widths[-1] != widths[0]:
            return widths[-1]
        return 0

    def mixers(self, layers: int) -> tuple[str, int, int]:
        """Kinds of a hybrid's layers if its attention follows no period, else step and first index of attention.

        A layer of a hybrid that has no KV heads is a recurrent one.
        """
        counts = self.listed("attention.head_count_kv")
        widths = self.listed("feed_forward_length")
        kinds = self.letters or "".join("a" if heads else "r" for heads in counts[:layers])
        if has(self.architecture, "one_part_a_block"):
            own = zip(counts[:layers], widths, strict=False)
            return self.letters or "".join("a" if n else "-" if w else "r" for n, w in own), 0, 0
        places = [i for i, kind in enumerate(kinds) if kind == "a"]
        steps = {b - a for a, b in pairwise(places)}
        if len(places) not in {0, layers} and (len(steps) > 1 or places[0] >= min(steps, default=layers)):
            return kinds, 0, 0
        if interval := self.number("full_attention_interval", 0):
            return "", interval, interval - 1
        if places and len(kinds) == layers:
            return "", min(steps, default=layers), places[0]
        return "", int(has(self.architecture, "state_beside_attention") and len(kinds) != layers), 0

    def has(self, *parts: str) -> bool:
        """Whether any block has one of these weights."""
        return any(f".{part}.weight" in name for name in self.dims for part in parts)

    def is_gated(self) -> bool:
        """Whether there is a gate matrix; models without any feed-forward part count as gated, as cards do.

        Where the up matrix holds the gate too, it is twice as wide as the block is.
        """
        if not self.has("ffn_up", "ffn_up_exps") or self.has("ffn_gate", "ffn_gate_exps"):
            return True
        up = self.dims.get("blk.0.ffn_up.weight", ())
        return len(up) > 1 and up[1] == 2 * self.number("feed_forward_length", 0)

    def window(self) -> int:
        """Sliding window; 0 where llama.cpp does not read the key (llama, qwen2, phi3 ...) and keeps everything."""
        if self.is_unknown:
            return self.number("attention.sliding_window", 0)
        known = architecture_named(self.architecture)
        if known.global_step:
            return self.number("attention.sliding_window", known.window_tokens)
        return 0

    def moe_places(self) -> tuple[int, int]:
        """Leading dense layers and step of the layers with a router, from the tensors where there are any."""
        router = re.compile(r"blk\.(\d+)\.ffn_gate_inp\.weight")
        places = sorted(int(m[1]) for name in self.dims if (m := router.fullmatch(name)))
        if has(self.architecture, "one_part_a_block"):
            return 0, 1  # its pattern tells which blocks route
        if not places:
            return self.number("leading_dense_block_count", 0), self.number(
                "interleave_moe_layer_step", 1
            ) or 1
        step = places[1] - places[0] if len(places) > 1 else 1
        return max(0, places[0] - (step - 1)), step

    def vocab(self) -> int:
        """Rows of the token table."""
        table = self.dims.get("token_embd.weight")
        if table is not None and len(table) > 1:
            return table[1]
        tokens = self.values.get("tokenizer.ggml.tokens")
        count = len(tokens) if isinstance(tokens, tuple) else getattr(tokens, "element_count", 0)
        return count or self.number("vocab_size", 0)

    def sliding_step(self, layers: int) -> int:
        """Every so manyth layer is global; 0 when none is."""
        pattern = self.values.get(f"{self.prefix}attention.sliding_window_pattern")
        if isinstance(pattern, int) and not isinstance(pattern, bool):
            return pattern
        if len(flags := self.slides()) == layers:
            return next((i + 1 for i, slides in enumerate(flags) if not slides), 0)
        return architecture_named(self.architecture).global_step

    def experts(self) -> Experts | None:
        """The routed part, if any."""
        if not self.number("expert_count", 0):
            if used := self.number("expert_used_count", 0):
                raise BadDataError(
                    self.source, f"{self.prefix}expert_used_count", str(used), "0: expert_count is 0"
                )
            return None
        fields: dict[str, Any] = self.part("experts")
        dense, step = self.moe_places()
        # Shared ones are as wide as routed ones where the file does not say.
        width = self.number(
            "expert_shared_feed_forward_length", fields["shared_count"] * fields["feed_forward_dim"]
        )
        fields |= {"shared_count": fields["shared_count"] or int(width > 0), "shared_feed_forward_dim": width}
        return Experts(**fields, dense_layer_count=dense, layer_step_count=step)

    def latent(self) -> LatentAttention | None:
        """Latent attention, if any."""
        if not self.number("attention.kv_lora_rank", 0):
            return None
        fields = self.part("latent")
        fields["nope_head_dim"] = max(0, fields.pop("key_dim") - fields["rope_head_dim"])
        return LatentAttention(**fields)

    def recurrent(self, layers: int) -> Recurrent | None:
        """State-space layers, if any."""
        short = self.number("shortconv.l_cache", 0)
        inner = self.number("ssm.inner_size", self.number("embedding_length") if short else 0)
        if not inner:
            return None
        fields = self.part("recurrent")
        (_, step, offset) = self.mixers(layers)
        if has(self.architecture, "first_mamba"):
            fields["head_count"] = 0
        fields["group_count"] = fields["group_count"] or 1
        return Recurrent(**fields, inner_dim=inner, attention_step_count=step, attention_offset_count=offset)
