"""A small mixture of experts trained here: its router's habits, and what a cache of experts makes of them.

A router that was trained is what published hit ratios come from, and what a synthetic one (a Zipf law, drawn anew for
each token) stands in for. Skew: the exponent z of the Zipf law whose shares are nearest to the router's (least
Kullback-Leibler divergence). Reuse: r = (a - e) / (1 - e), a the share of choices that the token before made too, e
what popularity alone gives. Hits: a cache for each layer that drops the least recently used expert, replayed over
held-out text, beside ``predict.moe.hit_ratio``.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.catalog.gguf_write import metadata_of, write_gguf
from harness.domain.model import Experts, ModelShape, Tensor
from harness.predict.moe import DEFAULT_SKEW, hit_ratio, inclusion
from harness.workloads._language.texts import shipped_text, split_text
from harness.workloads.training_efficiency.transformer import ROPE_BASE, Config, Transformer

MIXTURE: Final = Config(inner_dim=128, expert_count=16, vocab_count=257)
"""Bytes, and one more token (two bytes 0), as llama.cpp's vocabulary wants a merge."""
BUDGETS: Final = (0.25, 0.5, 0.75)
SEQUENCE_TOKENS: Final = 128
_BATCH: Final = 8
_SKEWS: Final = tuple(round(0.02 * step, 2) for step in range(101))

Choices = NDArray[np.int64]
"""Experts [tokens, layers, used], in the order of the text."""


def batches(text: bytes, sequence_tokens: int, batch_count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Random windows [batch, sequence + 1] of a text's bytes, for ever."""
    data, rng = np.frombuffer(text, np.uint8).astype(np.int64), np.random.default_rng(seed)
    while True:
        starts = rng.integers(0, len(data) - sequence_tokens, batch_count)
        yield data[starts[:, None] + np.arange(sequence_tokens + 1)]


def train(config: Config = MIXTURE, *, step_count: int = 300, seed: int = 1) -> Transformer:
    """A model of the text that ships, by bytes; its last tenth is held out."""
    text, _ = split_text(shipped_text())
    return train_on(batches(text.encode(), SEQUENCE_TOKENS, _BATCH, seed), config, step_count, seed)


def train_on(windows: Iterable[NDArray[np.int64]], config: Config, step_count: int, seed: int) -> Transformer:
    """A model of batches of windows [batch, sequence + 1], one a step; the rate falls to a tenth (cosine)."""
    model = Transformer(config, seed)
    for at, tokens in zip(range(step_count), windows, strict=False):
        rate = 3e-3 * min(1.0, (at + 1) / 20) * (0.55 + 0.45 * np.cos(np.pi * at / step_count))
        model.step(tokens, rate)
    return model


def choices_of(model: Transformer, text: bytes) -> tuple[Choices, float]:
    """(choices for each token of a text, mean loss): windows one after the other."""
    data = np.frombuffer(text, np.uint8).astype(np.int64)
    made, losses = [], []
    for start in range(0, len(data) - SEQUENCE_TOKENS, SEQUENCE_TOKENS):
        losses.append(model.loss(data[None, start : start + SEQUENCE_TOKENS + 1]))
        made.append(np.stack(model.choices, axis=1))
    return np.concatenate(made), float(np.mean(losses))


def habits(model: Transformer) -> dict[str, Any]:
    """What the router does on the held-out text.

    Loss in nats a byte beside that of byte frequencies, skew, reuse, and for each share of the experts in memory the
    hits: replayed; predicted from the default skew, from the fitted one, and from it with reuse; and what holding the
    most wanted experts of this very text would give.
    """
    known, held = (part.encode() for part in split_text(shipped_text()))
    choices, loss = choices_of(model, held)
    frequency = (np.bincount(np.frombuffer(known, np.uint8), minlength=256) + 1) / (len(known) + 256)
    count, used = model.config.expert_count, model.config.used_count
    skew, reuse = skew_of(choices, count), reuse_of(choices, count)
    counts = _counts(choices, count)
    hits = {}
    for share in BUDGETS:
        cached = round(share * count)
        hits[f"{share:.0%} of the experts in memory"] = {
            "measured": replayed(choices, cached),
            "by_default_skew": hit_ratio(count, cached, skew=DEFAULT_SKEW, used_count=used),
            "by_skew": hit_ratio(count, cached, skew=skew, used_count=used),
            "by_skew_and_reuse": hit_ratio(count, cached, skew=skew, used_count=used, reuse_ratio=reuse),
            "most_wanted": float(counts[:, :cached].sum() / counts.sum()),
        }
    return {
        "loss": loss,
        "frequency_loss": float(-np.log(frequency[np.frombuffer(held, np.uint8)]).mean()),
        "skew": skew,
        "reuse": reuse,
        "token_count": len(choices),
        "hits": hits,
    }


def _counts(choices: Choices, expert_count: int) -> NDArray[np.int64]:
    """Choices of each expert [layers, experts], the most wanted one of each layer first."""
    layers = choices.transpose(1, 0, 2)
    return np.stack([np.sort(np.bincount(layer.ravel(), minlength=expert_count))[::-1] for layer in layers])


def skew_of(choices: Choices, expert_count: int) -> float:
    """Exponent of the Zipf law nearest to the sorted shares, on average over the layers."""
    counts = _counts(choices, expert_count)
    shares = (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    laws = [inclusion(expert_count, choices.shape[2], z) / choices.shape[2] for z in _SKEWS]
    return _SKEWS[int(np.argmax([float(shares @ np.log(law)) for law in laws]))]


def reuse_of(choices: Choices, expert_count: int) -> float:
    """Share of choices that come again from the token before beyond what popularity gives, over all layers."""
    chosen = np.zeros((*choices.shape[:2], expert_count), np.bool_)
    np.put_along_axis(chosen, choices, values=True, axis=2)
    again = float((chosen[1:] & chosen[:-1]).sum() / chosen[1:].sum())
    wanted = chosen.mean(axis=0)
    expected = float((wanted**2).sum() / wanted.sum())
    return max(0.0, (again - expected) / (1 - expected))


def replayed(choices: Choices, cached_count: int) -> float:
    """Share of choices that a least-recently-used cache of so many experts a layer held, from the second half on."""
    hits = total = 0
    for layer in choices.transpose(1, 0, 2).tolist():
        held: dict[int, None] = {}
        for at, wanted in enumerate(layer):
            if at >= len(layer) // 2:
                hits += sum(expert in held for expert in wanted)
                total += len(wanted)
            for expert in wanted:
                held.pop(expert, None)
                held[expert] = None
            while len(held) > cached_count:
                del held[next(iter(held))]
    return hits / total


def write(model: Transformer, path: Path) -> Path:
    """The model as a GGUF file that llama.cpp runs; a byte is a token. OSError where the disk cannot take it."""
    table = {f"{name}.weight": value for name, value in model.weights.items()}
    c = model.config
    shape = ModelShape(
        architecture="llama",
        layer_count=c.layer_count,
        hidden_dim=c.dim,
        vocab_count=c.vocab_count,
        head_count=c.head_count,
        kv_head_count=c.head_count,
        head_dim=c.head_dim,
        feed_forward_dim=c.inner_dim,
        context_max_tokens=4096,
        experts=Experts(expert_count=c.expert_count, used_count=c.used_count, feed_forward_dim=c.inner_dim),
    )
    metadata = metadata_of(shape, name=path.stem, quant="F32") | {
        "llama.rope.freq_base": ROPE_BASE,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": _byte_names(),
        "tokenizer.ggml.token_type": [1] * 257,
        "tokenizer.ggml.merges": ["\u0100 \u0100"],
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
    tensors = [
        Tensor(name=n, type_name="F32", dims=tuple(reversed(v.shape)), size_bytes=v.nbytes) for n, v in table.items()
    ]

    def fill(out: IO[bytes], tensor: Tensor) -> None:
        out.write(table[tensor.name].tobytes())

    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(path, metadata, tensors, fill)
    return path


def _byte_names() -> list[str]:
    """GPT-2's letters for bytes (those that print stand for themselves, others follow from U+0100), and the merge."""
    prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [*(chr(byte) if byte in prints else chr(next(others)) for byte in range(256)), "\u0100\u0100"]
