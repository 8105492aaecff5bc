"""Training of sparse autoencoders: Adam by hand, gradients by differences, recovery of planted features."""

import numpy as np
import pytest
from sae_cases import planted

from bench.seed_autoencoder import train_seed
from harness.errors import RefusedError
from harness.workloads._adam import Adam
from harness.workloads.sparse_autoencoder.metrics import quality
from harness.workloads.sparse_autoencoder.model import SparseAutoencoder
from harness.workloads.sparse_autoencoder.training import ENCODER_START, Plan, Trainer

# -- training -------------------------------------------------------------------------------------------------------


def test_adam_by_hand():
    # First step: m = .1 g, v = .01 g^2, both corrected to g and g^2: the step is rate * g / |g| = .5 * sign
    p = {"w": np.array([1, 2, 3], np.float32)}
    Adam(p).step({"w": np.array([4, -0.25, 0], np.float32)}, 0.5)
    assert np.allclose(p["w"], [0.5, 2.5, 3.0])


@pytest.mark.parametrize("aux", [0.0, 0.5])
def test_gradients_are_the_slopes_of_the_loss(aux):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((40, 6), dtype=np.float32)
    plan = Plan(feature_count=12, active_count=3, aux_coefficient=aux, dead_after_tokens=1)
    trainer = Trainer(x, plan)
    # Ties and zeros are where a slope does not exist: random parameters of the size of trained ones have none near.
    trainer.parameters["W_enc"] /= np.float32(ENCODER_START)
    for name in ("b_enc", "b_dec", "W_enc"):
        p = trainer.parameters[name]
        p += rng.standard_normal(p.shape).astype(np.float32) * np.float32(0.2)
    if aux:
        trainer._silent_tokens[[2, 5, 8]] = 99
    batch = trainer._x[:32]
    # What is left over counts as a constant target of the dead features, so its slope must not be in the difference:
    # with aux the main loss alone is compared for b_dec and the rest through the dead rows.
    gradients, _ = trainer.gradients(batch)
    for name, gradient in gradients.items():
        p = trainer.parameters[name]
        for index in [tuple(rng.integers(0, n) for n in p.shape) for _ in range(6)]:
            if aux and (name == "b_dec" or not any(dead in index for dead in (2, 5, 8))):
                continue
            saved, losses = p[index], []
            for step in (1e-3, -1e-3):
                p[index] = saved + np.float32(step)
                losses.append(loss_with_fixed_target(trainer, batch, aux, saved, p, index))
            p[index] = saved
            slope = (losses[0] - losses[1]) / 2e-3
            assert gradient[index] == pytest.approx(slope, abs=3e-3), (name, index)


def loss_with_fixed_target(trainer, x, aux, saved, p, index):
    """The loss in float64 from its definition; the dead features' target is computed from the parameters as saved."""
    plan, n = trainer.plan, len(x)
    now = {k: v.astype(np.float64) for k, v in trainer.parameters.items()}

    def forward(w):
        h = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        z = np.maximum(h, 0)
        for row in z:
            row[np.argsort(row)[: -plan.active_count]] = 0
        return h, z, z @ w["W_dec"] + w["b_dec"] - x

    h, _, error = forward(now)
    loss = (error**2).sum() / (n * trainer._variance)
    if aux:
        changed = p[index]
        p[index] = saved
        before = {k: v.astype(np.float64) for k, v in trainer.parameters.items()}
        p[index] = changed
        left = -forward(before)[2]
        dead = np.array([2, 5, 8])
        hat = np.maximum(h[:, dead], 0) @ now["W_dec"][dead]
        loss += aux * min(1.0, 3 / 3) * ((hat - left) ** 2).sum() / (n * trainer._variance)
    return loss


def test_training_explains_planted_features():
    truth, x = planted()
    plan = Plan(
        feature_count=32,
        active_count=3,
        step_count=400,
        batch_tokens=256,
        rate=5e-3,
        dead_after_tokens=3000,
        seed=2,
    )
    sae = Trainer(x[:2500], plan).run()
    assert np.allclose(np.linalg.norm(sae.decoder, axis=1), 1, atol=1e-5)
    found = quality(sae, x[2500:])
    assert found.fvu_ratio < 0.15
    assert found.active_count <= 3
    # each true direction has a learned one: cosine above .9 for nine in ten
    best = (truth.decoder @ sae.decoder.T).max(axis=1)
    assert np.mean(best > 0.9) > 0.9


def test_result_is_for_activations_as_given():
    _, x = planted()
    plan = Plan(feature_count=32, active_count=3, step_count=60, batch_tokens=256, rate=5e-3)
    trainer = Trainer(x * np.float32(40), plan)
    for _ in range(60):
        trainer.step()
    p, s = trainer.parameters, np.float32(trainer.scale)
    scaled = SparseAutoencoder(
        encoder=p["W_enc"],
        encoder_bias=p["b_enc"],
        decoder=p["W_dec"],
        decoder_bias=p["b_dec"],
        active_count=3,
    )
    raw = x[:50] * np.float32(40)
    assert np.allclose(trainer.result().reconstruct(raw) * s, scaled.reconstruct(raw * s), rtol=1e-3, atol=1e-3)


def test_dead_features_come_back_to_life():
    _, x = planted()
    shares = {}
    for aux in (0.0, 0.5):
        plan = Plan(feature_count=64, active_count=3, step_count=300, batch_tokens=128, rate=5e-3,
                    aux_coefficient=aux, dead_after_tokens=1000)  # fmt: skip
        trainer = Trainer(x, plan)
        # Half the dictionary starts where no input is.
        trainer.parameters["b_enc"][:32] = -20
        for _ in range(plan.step_count):
            trainer.step()
        shares[aux] = np.mean(trainer._silent_tokens >= plan.dead_after_tokens)
    assert shares[0.0] >= 0.5
    # relu of a feature that is 20 below zero has no slope either: revival works on those that fire at all
    assert shares[0.5] <= shares[0.0]


def test_the_seed_is_not_sparse_and_topk_is():
    _, x = planted()
    article = quality(train_seed(x[:2500], 64, step_count=200, batch_tokens=256), x[2500:])
    plan = Plan(feature_count=64, active_count=3, step_count=50, batch_tokens=256)
    ours = quality(Trainer(x[:2500], plan).run(), x[2500:])
    assert article.active_count > 16  # a quarter of the dictionary and more
    assert ours.active_count <= 3


@pytest.mark.parametrize("x", [np.empty((0, 4), np.float32), np.full((3, 4), np.nan, np.float32)])
def test_activations_that_cannot_be_trained_on_are_refused(x):
    with pytest.raises(RefusedError):
        Trainer(x, Plan(feature_count=8))
