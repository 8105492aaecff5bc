"""What a published row's test needs of its machine: from a model's card where there is one, else from its size."""

import math
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from harness.domain.model import ModelShape
from harness.predict.decode import Work
from harness.predict.kv_cache import kv_read_bytes
from harness.predict.prefill import Prompt, prompt_of

_DROPPED: Final = re.compile(
    r"\(.*?\)|meta[- ]|-?(instruct|chat|it|4bit|mlx|preview|reasoning plus|reasoning|text)\b"
    r"|-?(2501|2503|2506|2407|2512|v0\.[123])\b"
)


class Known(NamedTuple):
    """What is known of the model that a row names.

    Attributes:
        shape: Its shape.
        params_b: Parameters (10**9).
        file_bytes: Of its file.
        sized: Whether that is a file in the row's quantisation, rather than an evenly quantised one.
        read_bytes: Of the file, what one decoded token reads.
        read_count: Weights that one decoded token reads.
        prompt_count: Weights that a token of a prompt goes through.
        table_bytes: Of the token table.
    """

    shape: ModelShape
    params_b: float
    file_bytes: float
    sized: bool
    read_bytes: float
    read_count: float
    prompt_count: float
    table_bytes: float


ModelOf = Callable[[str, float, str], Known | None]
"""Finds a model by its published name, its parameters as stated (10**9, 0 if not) and its quantisation."""


def row_work(
    name: str,
    known: Known | None,
    size_bytes: float,
    params_b: float,
    active_ratio: float,
    quant: str,
    depth_tokens: float,
    prompt: Prompt,
) -> tuple[Work, Prompt]:
    """What a token of this model needs, and the prompt with its attention.

    Bytes are the row's own; the card tells which share of them is read. A file that exceeds the card's by just the
    token table has an output matrix of its own.

    Args:
        name: Published name.
        known: What the catalog knows of it.
        size_bytes: Of the file.
        params_b: All parameters (10**9).
        active_ratio: Of them active; 1 without experts.
        quant: Class of quantisation.
        depth_tokens: Mean tokens in the cache of a decode test.
        prompt: Without its attention.
    """
    if known is None:
        return _by_size(name, size_bytes, params_b, active_ratio, quant, depth_tokens, prompt)
    shape = known.shape
    untied = abs(size_bytes - known.file_bytes - known.table_bytes) < 0.02 * size_bytes
    if known.sized and shape.tied_embeddings and untied:
        read = known.read_bytes
    else:
        read = size_bytes * (known.read_bytes / known.file_bytes)
    kv = kv_read_bytes(shape, round(depth_tokens))
    work = Work(read, known.read_count, shape.layer_count, kv, quant, prompt_weight_count=known.prompt_count)
    return work, prompt_of(shape, prompt.tokens, prompt.depth_tokens)


def _by_size(
    name: str,
    size_bytes: float,
    params_b: float,
    active_ratio: float,
    quant: str,
    depth_tokens: float,
    prompt: Prompt,
) -> tuple[Work, Prompt]:
    """Without a card: layers = 15.5 x params^0.385 and width = 128 x layers.

    The usual dense models follow that within 20 % (1B 16, 8B 32, 70B 80); a mixture of experts has the layers of a dense
    model of the geometric mean of its active and all parameters. What is cached is what models of such a name or size
    cache (``_ENTRIES``). From 4.5B on some 5 % are a token table that is not read.
    """
    layers = max(round(15.5 * (params_b * math.sqrt(active_ratio)) ** 0.385), 1)
    width = 128 * layers
    entries, share = next((e, a) for pattern, e, a in _ENTRIES if re.search(pattern, name.lower()))
    row = min(entries or 2 * width, 2 * width)
    if not entries and not re.match(r"(?i)llama[- ]?(1|2|v2|7b|13b)?[- ]?(1-)?(7|13)b", name):
        row = 2048 if params_b >= 6 and active_ratio == 1 else 1024
    table_b = 0.0 if params_b < 4.5 or active_ratio < 1 else min(0.05 * params_b, 0.6)
    read = active_ratio * (1 - table_b / params_b)
    count = read * params_b * 1e9
    work = Work(size_bytes * read, count, layers, 2 * row * share * layers * depth_tokens, quant)
    pairs = prompt.tokens * (prompt.depth_tokens + prompt.tokens / 2)
    return work, prompt._replace(attention_flops=4 * width * layers * share * pairs)


_ENTRIES: Final = (
    (r"deepseek-?(v|r1|coder-v2)|glm[- ]?(4\.7-flash|5)|kimi-(k|vl|l)|minicpm3", 576, 1.0),
    (r"qwen-?3\.[5-9]|qwen35|qwen3-(coder-)?next|ornith", 1024, 0.25),
    (r"nemotron|granite-?4.*h|lfm2|falcon-?h1|jamba|mamba|rwkv", 1024, 0.2),
    (r"gemma-?[34]|gpt-oss|phi-?4-mini-flash|smallthinker|command-?a|exaone-?4", 2048, 0.3),
    (r"", 0, 1.0),
)
"""Entries that a layer caches for a token (0: by size), and share of layers that keep all of them, by name: latent
attention, linear attention beside some full layers, state spaces, sliding windows. From published configurations."""


def slug(name: str) -> str:
    """A published model name as a card would spell it."""
    text = _DROPPED.sub("", name.lower())
    text = re.sub(r"[ _/]+", "-", text).strip("-")
    text = re.sub(r"-(moe|sparse|128k)\b", "", text)
    text = re.sub(r"^(gemma|qwen|llama)-?(\d)", lambda m: f"{m[1]}{'' if m[1] == 'qwen' else '-'}{m[2]}", text)
    return re.sub(r"-{2,}", "-", text).strip("-")


def active_named(name: str) -> float:
    """Active parameters (10**9) that a name tells, as in 35B-A3B; 0 for none."""
    found = re.search(r"\bA(\d+(?:\.\d+)?)B\b", name)
    return float(found[1]) if found else 0.0
