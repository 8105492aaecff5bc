"""A sparse autoencoder against its formulas, finite differences, a planted dictionary, and SAELens's folder format."""

import json

import numpy as np
import pytest

from harness.errors import BadDataError, RefusedError
from harness.workloads.sparse_autoencoder.model import CONFIG, WEIGHTS, SparseAutoencoder, load, save
from harness.workloads.sparse_autoencoder.training import Plan, Trainer


def _made(seed=0, dim=12, features=40, **kind):
    rng = np.random.default_rng(seed)
    arrays = {
        "encoder": rng.standard_normal((dim, features)),
        "encoder_bias": 0.1 * rng.standard_normal(features),
        "decoder": rng.standard_normal((features, dim)),
        "decoder_bias": rng.standard_normal(dim),
    }
    return SparseAutoencoder(**{name: a.astype(np.float32) for name, a in arrays.items()}, **kind)


def _dense(sae, codes):
    z = np.zeros((len(codes.values), len(sae.decoder)))
    np.put_along_axis(z, codes.indices, codes.values.astype(np.float64), axis=1)
    return z


def _hidden(sae, x):
    centred = x.astype(np.float64) - sae.decoder_bias * sae.is_centred
    return centred @ sae.encoder.astype(np.float64) + sae.encoder_bias


X = np.random.default_rng(9).standard_normal((7, 12)).astype(np.float32)


def test_top_k_keeps_the_largest_above_zero():
    sae = _made(active_count=5)
    h = _hidden(sae, X)
    z = np.where(h >= np.sort(h, axis=1)[:, -5:-4], np.maximum(h, 0), 0)
    np.testing.assert_allclose(_dense(sae, sae.encode(X)), z, atol=1e-5)
    np.testing.assert_allclose(sae.decode(sae.encode(X)), z @ sae.decoder + sae.decoder_bias, atol=1e-4)


@pytest.mark.parametrize("is_centred", [True, False])
@pytest.mark.parametrize("threshold", [0.0, np.linspace(0, 2, 40, dtype=np.float32)])
def test_relu_and_jump_relu_keep_all_above_their_threshold(threshold, is_centred):
    sae = _made(threshold=threshold, is_centred=is_centred)
    h = _hidden(sae, X)
    np.testing.assert_allclose(_dense(sae, sae.encode(X)), np.where(h > threshold, np.maximum(h, 0), 0), atol=1e-5)


def _trainer(**plan):
    x = np.random.default_rng(3).standard_normal((64, 10)).astype(np.float32)
    return Trainer(x, Plan(feature_count=24, active_count=4, batch_tokens=16, **plan))


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec"])
@pytest.mark.parametrize("with_dead", [False, True])
def test_gradients_are_differences_of_the_loss(name, with_dead):
    trainer = _trainer(aux_coefficient=0.25, dead_after_tokens=1)
    trainer.silent_tokens[:] = 0
    if with_dead:
        trainer.silent_tokens[::2] = 5
    x = trainer._x[:16]
    for key in trainer.parameters:
        trainer.parameters[key] = trainer.parameters[key].astype(np.float64)
    trainer.parameters["W_enc"] *= 5  # away from the start, where everything is tiny
    gradient = trainer.gradients(x.astype(np.float64))[0][name]
    for place in ([0] * gradient.ndim, [3] * gradient.ndim, [-1] * gradient.ndim):
        at = tuple(place)
        slopes = []
        for size in (1e-6, -1e-6):
            trainer.parameters[name][at] += size
            slopes.append(_loss(trainer, x.astype(np.float64), name, at))
            trainer.parameters[name][at] -= size
        assert gradient[at] == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=2e-3, abs=1e-7)


def _loss(trainer, x, name, at):
    """The loss written out, the residual that the dead features are to explain held where it is (as in the paper)."""
    p, plan = trainer.parameters, trainer.plan
    base = {key: value.copy() for key, value in p.items()}
    h = (x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
    z = trainer._chosen(h, plan.active_count)
    error = z @ p["W_dec"] + p["b_dec"] - x
    loss = np.mean(np.sum(error**2, axis=1)) / trainer._variance
    dead = np.flatnonzero(trainer.silent_tokens >= plan.dead_after_tokens)
    if len(dead):
        frozen = getattr(trainer, "_frozen", None)
        if frozen is None:
            trainer._frozen = frozen = -_unmoved_error(trainer, x, base, name, at)
        half = max(1, x.shape[1] // 2)
        left = trainer._chosen(h[:, dead], min(len(dead), half))
        share = plan.aux_coefficient * min(1.0, len(dead) / half)
        loss += share * np.mean(np.sum((left @ p["W_dec"][dead] - frozen) ** 2, axis=1)) / trainer._variance
    return loss


def _unmoved_error(trainer, x, base, name, at):
    h = (x - base["b_dec"]) @ base["W_enc"] + base["b_enc"]
    return trainer._chosen(h, trainer.plan.active_count) @ base["W_dec"] + base["b_dec"] - x


def test_a_planted_dictionary_is_found_and_dead_features_come_back():
    rng = np.random.default_rng(5)
    planted = rng.standard_normal((48, 24)).astype(np.float32)
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)
    codes = np.zeros((4000, 48), np.float32)
    for row in codes:
        row[rng.choice(48, 3, replace=False)] = rng.uniform(1, 2, 3)
    x = codes @ planted + 0.5
    plan = Plan(feature_count=48, active_count=3, step_count=700, batch_tokens=128, rate=1e-2, dead_after_tokens=2000)
    sae = Trainer(x, plan).run()
    best = np.abs(planted @ sae.decoder.T).max(axis=1)
    assert np.mean(best > 0.9) > 0.7
    y = sae.decode(sae.encode(x[:500]))
    assert np.sum((y - x[:500]) ** 2) / np.sum((x[:500] - x[:500].mean(axis=0)) ** 2) < 0.25
    np.testing.assert_allclose(np.linalg.norm(sae.decoder, axis=1), 1, atol=1e-5)


def test_training_refuses_what_cannot_be_trained_on():
    with pytest.raises(RefusedError, match="finite"):
        Trainer(np.full((4, 3), np.nan, np.float32), Plan(feature_count=8, active_count=2))
    with pytest.raises(RefusedError, match="cannot be active"):
        Trainer(np.ones((4, 3), np.float32), Plan(feature_count=8, active_count=9))


def test_a_folder_comes_back_bit_for_bit(tmp_path):
    sae = _made(active_count=5)
    save(sae, tmp_path / "sae", hook_name="l_out-3")
    again = load(tmp_path / "sae")
    assert (again.active_count, again.is_centred) == (5, True)
    for name in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
        np.testing.assert_array_equal(getattr(again, name), getattr(sae, name))
    config = json.loads((tmp_path / "sae" / CONFIG).read_text())
    # what SAELens 6 reads of a TopK
    wanted = {"architecture": "topk", "d_in": 12, "d_sae": 40, "k": 5, "apply_b_dec_to_input": True}
    assert wanted.items() <= config.items()


def _changed(folder, tensors=None, **config):
    from safetensors.numpy import load_file, save_file

    save(_made(active_count=5), folder)
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if tensors:
        save_file(load_file(folder / WEIGHTS) | tensors, folder / WEIGHTS)
    return folder


def test_other_kinds_of_folder(tmp_path):
    threshold = np.linspace(0, 1, 40, dtype=np.float32)
    jump = load(_changed(tmp_path / "a", {"threshold": threshold}, architecture="jumprelu"))
    np.testing.assert_array_equal(jump.threshold, threshold)
    assert load(_changed(tmp_path / "b", architecture="standard")).active_count == 0
    older = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 7}, "k": None}
    assert load(_changed(tmp_path / "c", **older)).active_count == 7


def test_a_rescaled_top_k_chooses_by_activation_times_norm(tmp_path):
    plain = _made(active_count=5)
    folded = load(_changed(tmp_path / "a", rescale_acts_by_decoder_norm=True))
    norms = np.linalg.norm(plain.decoder, axis=1)
    h = _hidden(plain, X) * norms
    z = np.where(h >= np.sort(h, axis=1)[:, -5:-4], np.maximum(h, 0), 0)
    expected = z @ (plain.decoder / norms[:, None]) + plain.decoder_bias
    np.testing.assert_allclose(folded.decode(folded.encode(X)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "tensors", "says"),
    [
        ({"architecture": "gated"}, None, "architecture"),
        ({"normalize_activations": "layer_norm"}, None, "normalize_activations"),
        ({"k": 41}, None, "k"),
        ({"k": "5"}, None, "k"),
        ({}, {"b_enc": np.zeros(3, np.float32)}, "encoder_bias"),
        ({}, {"W_dec": np.zeros((40, 11), np.float32)}, "decoder"),
        ({"architecture": "jumprelu"}, None, "tensors"),
    ],
)
def test_a_folder_that_is_not_read_says_why(tmp_path, config, tensors, says):
    with pytest.raises(BadDataError, match=says):
        load(_changed(tmp_path / "a", tensors, **config))
