"""A small decoder-only transformer, trained here in NumPy: forward and backward by hand, every product counted.

Block: x + attention(norm(x)), x + feed_forward(norm(x)); RMSNorm, rotary positions on neighbouring pairs, causal
softmax attention, SwiGLU, and in a mixture SwiGLU experts of which the router takes the k likeliest, weighted by a
softmax over those k. These are the conventions of a ``llama`` file, so that llama.cpp runs what is trained here.

FLOPs by hand, for a step of N tokens in sequences of s: a matrix of P weights takes 2 P forward and 4 P backward for
each token; scores and their sums take 2 s d each forward and twice that backward, L layers of width d: 12 L d s N
(Narayanan et al. 2021), not halved for causality, since the whole square is multiplied. Sources: Vaswani et al. 2017;
Su et al. 2021 (rotary); Shazeer 2020 (SwiGLU); Fedus et al. 2021 (balance loss E sum f P).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.workloads._adam import Adam

Floats = NDArray[Any]
"""float32; the tests put float64 in, where a difference of the loss is exact enough."""
Back = Callable[[Floats], Floats]
EPSILON = 1e-5
ROPE_BASE = 10_000.0


class Config(NamedTuple):
    """Sizes; ``expert_count`` 0 is a dense model. ``balance`` weighs the loss that keeps experts evenly used."""

    dim: int = 128
    layer_count: int = 4
    head_count: int = 4
    inner_dim: int = 384
    vocab_count: int = 256
    expert_count: int = 0
    used_count: int = 2
    balance: float = 0.01

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.dim // self.head_count

    def step_flops(self, batch_count: int, sequence_tokens: int) -> float:
        """FLOPs of the products of one training step: the table is looked up, the output multiplied."""
        used = self.used_count if self.expert_count else 1
        block = 4 * self.dim**2 + used * 3 * self.dim * self.inner_dim + self.dim * self.expert_count
        active_count = self.layer_count * block + self.dim * self.vocab_count
        attention = 12 * self.layer_count * self.dim * sequence_tokens
        return float((6 * active_count + attention) * batch_count * sequence_tokens)


class Transformer:
    """Weights by the names of a GGUF file ([out, in] each), their gradients, and the FLOPs multiplied so far.

    Attributes:
        weights: By name.
        flops_count: 2 m n k of every product since it was last set to 0.
        choices: Experts [layer][tokens, used] of the last forward pass.
    """

    def __init__(self, config: Config, seed: int = 1) -> None:
        self.config, rng = config, np.random.default_rng(seed)
        c, d, f = config, config.dim, config.inner_dim
        stack = (c.expert_count,) if c.expert_count else ()
        suffix = "_exps" if stack else ""

        def drawn(*dims: int, scale: float = 1.0) -> Floats:
            return rng.standard_normal(dims, np.float32) * np.float32(scale / np.sqrt(dims[-1]))

        self.weights: dict[str, Floats] = {"token_embd": drawn(c.vocab_count, d, scale=4)}
        for at in range(c.layer_count):
            block = {name: drawn(d, d) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
            block |= {name: np.ones(d, np.float32) for name in ("attn_norm", "ffn_norm")}
            block |= {f"ffn_{n}{suffix}": drawn(*stack, f, d) for n in ("gate", "up")}
            block[f"ffn_down{suffix}"] = drawn(*stack, d, f)
            if stack:
                block["ffn_gate_inp"] = drawn(c.expert_count, d)
            self.weights |= {f"blk.{at}.{name}": value for name, value in block.items()}
        self.weights |= {"output_norm": np.ones(d, np.float32), "output": drawn(c.vocab_count, d)}
        self.gradients = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self._adam = Adam(self.weights, (0.9, 0.95))
        self.flops_count = 0.0
        self.choices: list[NDArray[np.int64]] = []
        self.balance_loss = 0.0

    # -- forward and backward -----------------------------------------------------------------------------------

    def _forward(self, tokens: NDArray[np.int64]) -> tuple[Floats, list[Back]]:
        """(logits [batch x sequence, vocabulary], the way back through each residual block and the output)."""
        self.choices, self.balance_loss = [], 0.0
        x = self.weights["token_embd"][tokens.ravel()]
        feed = self._mixture if self.config.expert_count else self._swiglu
        ways: list[Back] = []
        for at in range(self.config.layer_count):
            attention = partial(self._attention, shape=tokens.shape)
            for name, part in (("attn_norm", attention), ("ffn_norm", feed)):
                normed, norm_back = self._norm(x, f"blk.{at}.{name}")
                made, part_back = part(normed, at)
                x = x + made
                ways += [norm_back, part_back]
        normed, norm_back = self._norm(x, "output_norm")
        found, output_back = self._linear(normed, "output")
        return found, [*ways, norm_back, output_back]

    def logits(self, tokens: NDArray[np.int64]) -> Floats:
        """Logits [batch x sequence, vocabulary] of tokens [batch, sequence]."""
        return self._forward(tokens)[0]

    def loss(self, tokens: NDArray[np.int64]) -> float:
        """Mean negative log-likelihood, nats a token, of tokens [batch, sequence + 1]."""
        logs, wanted = _log_softmax(self.logits(tokens[:, :-1])), tokens[:, 1:].ravel()
        return float(-logs[np.arange(wanted.size), wanted].mean())

    def backward(self, tokens: NDArray[np.int64], taught: Floats | None = None) -> float:
        """Fill ``gradients`` for tokens [batch, sequence + 1]; gives the loss without the balance term.

        Of the cross entropy with a teacher's distribution [batch x sequence, vocabulary], where one is ``taught``.
        """
        for gradient in self.gradients.values():
            gradient.fill(0)
        wanted = tokens[:, 1:].ravel()
        logits, ways = self._forward(tokens[:, :-1])
        logs = _log_softmax(logits)
        rows = np.arange(wanted.size)
        loss = float(-logs[rows, wanted].mean())
        grad = np.exp(logs)
        if taught is None:
            grad[rows, wanted] -= 1
        else:
            grad -= taught
        grad /= np.float32(wanted.size)
        output_back, norm_back = ways.pop(), ways.pop()
        x = norm_back(output_back(grad))
        while ways:
            part_back, norm_back = ways.pop(), ways.pop()
            x = x + norm_back(part_back(x))
        np.add.at(self.gradients["token_embd"], tokens[:, :-1].ravel(), x)
        return loss

    def step(self, tokens: NDArray[np.int64], rate: float = 2e-3, taught: Floats | None = None) -> float:
        """One Adam step with gradients clipped to a norm of 1; gives the loss before it."""
        loss = self.backward(tokens, taught)
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in self.gradients.values()))
        for gradient in self.gradients.values():
            np.multiply(gradient, np.float32(min(1.0, 1.0 / max(norm, 1e-9))), out=gradient)
        self._adam.step(self.gradients, rate)
        return loss

    # -- parts, each with its way back: from the loss's gradient by the output to that by the input ---------------

    def _mul(self, a: Floats, b: Floats) -> Floats:
        """A @ b, counted."""
        self.flops_count += 2.0 * a.size * b.shape[-1]
        product: Floats = a @ b
        return product

    def _linear(self, x: Floats, name: str) -> tuple[Floats, Back]:
        def back(grad: Floats) -> Floats:
            self.gradients[name] += self._mul(grad.T, x)
            return self._mul(grad, self.weights[name])

        return self._mul(x, self.weights[name].T), back

    def _norm(self, x: Floats, name: str) -> tuple[Floats, Back]:
        scale = 1 / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + np.float32(EPSILON))
        unit = x * scale

        def back(grad: Floats) -> Floats:
            self.gradients[name] += (grad * unit).sum(axis=0)
            inner = grad * self.weights[name]
            found: Floats = scale * (inner - unit * np.mean(inner * unit, axis=1, keepdims=True))
            return found

        return unit * self.weights[name], back

    def _heads(self, x: Floats, shape: tuple[int, ...]) -> Floats:
        return x.reshape(*shape, self.config.head_count, -1).transpose(0, 2, 1, 3)

    def _attention(self, x: Floats, at: int, shape: tuple[int, ...]) -> tuple[Floats, Back]:
        (q, q_back), (k, k_back), (v, v_back) = (self._linear(x, f"blk.{at}.attn_{n}") for n in "qkv")
        frequencies = ROPE_BASE ** (-np.arange(0, self.config.head_dim, 2) / self.config.head_dim)
        angles = np.arange(shape[1])[:, None] * frequencies
        cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        q, k, v = (self._heads(part, shape) for part in (q, k, v))
        q, k = _turned(q, cosine, sine), _turned(k, cosine, sine)
        scores = self._mul(q, k.transpose(0, 1, 3, 2)) * np.float32(self.config.head_dim**-0.5)
        scores[..., np.triu(np.ones((shape[1], shape[1]), np.bool_), 1)] = -np.inf
        share = np.exp(_log_softmax(scores))
        mixed = self._mul(share, v).transpose(0, 2, 1, 3).reshape(len(x), -1)
        made, output_back = self._linear(mixed, f"blk.{at}.attn_output")

        def back(grad: Floats) -> Floats:
            grad = self._heads(output_back(grad), shape)
            to_share = self._mul(grad, v.transpose(0, 1, 3, 2))
            to_v = self._mul(share.transpose(0, 1, 3, 2), grad)
            to_scores = share * (to_share - (to_share * share).sum(axis=-1, keepdims=True))
            to_scores *= np.float32(self.config.head_dim**-0.5)
            to_q = _turned(self._mul(to_scores, k), cosine, -sine)
            to_k = _turned(self._mul(to_scores.transpose(0, 1, 3, 2), q), cosine, -sine)
            total = np.zeros_like(x)
            for part, part_back in ((to_v, v_back), (to_k, k_back), (to_q, q_back)):
                total += part_back(part.transpose(0, 2, 1, 3).reshape(x.shape))
            return total

        return made, back

    def _swiglu(self, x: Floats, at: int, expert: int | None = None) -> tuple[Floats, Back]:
        """down(silu(gate(x)) up(x)), of a dense layer or of one expert."""
        names = [f"blk.{at}.ffn_{n}{'' if expert is None else '_exps'}" for n in ("gate", "up", "down")]
        part = ... if expert is None else expert
        gate_w, up_w, down_w = (self.weights[name][part] for name in names)
        gate, up = self._mul(x, gate_w.T), self._mul(x, up_w.T)

        def back(grad: Floats) -> Floats:
            gate_g, up_g, down_g = (self.gradients[name][part] for name in names)
            sigmoid = 1 / (1 + np.exp(-gate))
            active = gate * sigmoid
            down_g += self._mul(grad.T, active * up)
            inner = self._mul(grad, down_w)
            to_up, to_gate = inner * active, inner * up * (sigmoid + active * (1 - sigmoid))
            gate_g += self._mul(to_gate.T, x)
            up_g += self._mul(to_up.T, x)
            return self._mul(to_gate, gate_w) + self._mul(to_up, up_w)

        return self._mul(gate / (1 + np.exp(-gate)) * up, down_w.T), back

    def _mixture(self, x: Floats, at: int) -> tuple[Floats, Back]:
        c = self.config
        logits, router_back = self._linear(x, f"blk.{at}.ffn_gate_inp")
        chosen = np.argsort(-logits, axis=1, kind="stable")[:, : c.used_count]
        share = np.exp(_log_softmax(np.take_along_axis(logits, chosen, axis=1)))
        every = np.exp(_log_softmax(logits))
        used = np.bincount(chosen.ravel(), minlength=c.expert_count) / np.float32(chosen.size)
        self.balance_loss += c.balance * c.expert_count * float(used @ every.mean(axis=0))
        self.choices.append(chosen)
        out = np.zeros_like(x)
        kept = []
        for expert in range(c.expert_count):
            rows, place = np.nonzero(chosen == expert)
            made, expert_back = self._swiglu(x[rows], at, expert)
            out[rows] += share[rows, place, None] * made
            kept.append((rows, place, made, expert_back))

        def back(grad: Floats) -> Floats:
            to_x, to_share = np.zeros_like(grad), np.zeros_like(share)
            for rows, place, made, expert_back in kept:
                to_share[rows, place] = (grad[rows] * made).sum(axis=1)
                to_x[rows] += expert_back(grad[rows] * share[rows, place, None])
            to_logits = np.zeros_like(every)
            to_chosen = share * (to_share - (to_share * share).sum(axis=1, keepdims=True))
            np.put_along_axis(to_logits, chosen, to_chosen, axis=1)
            even = np.float32(c.balance * c.expert_count / len(every)) * used
            to_logits += every * (even - (every * even).sum(axis=1, keepdims=True))
            return to_x + router_back(to_logits.astype(np.float32))

        return out, back


def _log_softmax(x: Floats) -> Floats:
    shifted = x - x.max(axis=-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def _turned(x: Floats, cosine: Floats, sine: Floats) -> Floats:
    """Pairs (2 i, 2 i + 1) of the last axis turned by their position's angle."""
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2] = even * cosine - odd * sine
    out[..., 1::2] = even * sine + odd * cosine
    return out
