"""The seed article's sparse autoencoder as printed, in numpy: free decoder, no pre-bias, averaged penalty.

loss = mean over tokens and dimensions of (y - x)^2 + coefficient * mean over tokens and features of z
y = relu(x W_e + b_e) W_d + b_d, weights and biases uniform in +-1/sqrt(fan-in) as torch's Linear has them, Adam.

The mean divides the penalty by the size of the dictionary, and a decoder without a norm lets codes shrink for nothing:
the result is not sparse. It is kept to show that.
"""

import numpy as np

from bench.other_autoencoders import OtherAutoencoder
from harness.errors import RefusedError
from harness.workloads._adam import Adam
from harness.workloads.sparse_autoencoder.model import Floats

ARTICLE_COEFFICIENT = 1e-3


def train_seed(
    x: Floats,
    feature_count: int,
    *,
    coefficient: float = ARTICLE_COEFFICIENT,
    step_count: int = 300,
    batch_tokens: int = 512,
    rate: float = 1e-3,
    seed: int = 1,
) -> OtherAutoencoder:
    """Train the article's class on activations [token_count, input_dim], scaled to a mean square of 1.

    The article gives neither optimiser nor scaling; these are the usual ones. The scale folds into the biases.

    Raises:
        RefusedError: No activations.
    """
    if len(x) == 0:
        raise RefusedError("training needs activations")
    rng = np.random.default_rng(seed)
    d, m = x.shape[1], feature_count
    scale = np.float32(1 / np.sqrt(np.mean(x.astype(np.float64) ** 2)))
    into, out = 1 / np.sqrt(d), 1 / np.sqrt(m)
    p: dict[str, Floats] = {
        "W_enc": rng.uniform(-into, into, (d, m)).astype(np.float32),
        "b_enc": rng.uniform(-into, into, m).astype(np.float32),
        "W_dec": rng.uniform(-out, out, (m, d)).astype(np.float32),
        "b_dec": rng.uniform(-out, out, d).astype(np.float32),
    }
    adam = Adam(p)
    for _ in range(step_count):
        batch = x[rng.choice(len(x), min(batch_tokens, len(x)), replace=False)] * scale
        n = len(batch)
        z = np.maximum(batch @ p["W_enc"] + p["b_enc"], 0)
        g = (z @ p["W_dec"] + p["b_dec"] - batch) * np.float32(2 / (n * d))
        d_h = g @ p["W_dec"].T + np.float32(coefficient / (n * m))
        d_h *= z > 0
        gradients = {"W_enc": batch.T @ d_h, "b_enc": d_h.sum(axis=0), "W_dec": z.T @ g, "b_dec": g.sum(axis=0)}
        adam.step(gradients, rate)
    return OtherAutoencoder(
        encoder=p["W_enc"],
        encoder_bias=p["b_enc"] / scale,
        decoder=p["W_dec"],
        decoder_bias=p["b_dec"] / scale,
        activation="relu",
        centred=False,
    )
