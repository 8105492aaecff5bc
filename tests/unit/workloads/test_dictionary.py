"""A sparse autoencoder against its formulas, finite differences, a planted dictionary, and SAELens's folder format."""

import json

import numpy as np
import pytest

from harness.errors import BadDataError
from harness.workloads.dictionary import CONFIG, WEIGHTS, Dictionary, gradients, load, save, top, train


def _made(seed=0, dim=12, features=40, active_count=5):
    rng = np.random.default_rng(seed)
    arrays = {
        "W_enc": rng.standard_normal((dim, features)),
        "b_enc": 0.1 * rng.standard_normal(features),
        "W_dec": rng.standard_normal((features, dim)),
        "b_dec": rng.standard_normal(dim),
    }
    return Dictionary(arrays={name: a.astype(np.float32) for name, a in arrays.items()}, active_count=active_count)


def _hidden(sae, x):
    a = sae.arrays
    centred = x.astype(np.float64) - a["b_dec"]
    return centred @ a["W_enc"].astype(np.float64) + a["b_enc"]


X = np.random.default_rng(9).standard_normal((7, 12)).astype(np.float32)


def test_top_k_keeps_the_largest_above_zero():
    sae = _made(active_count=5)
    h = _hidden(sae, X)
    z = np.where(h >= np.sort(h, axis=1)[:, -5:-4], np.maximum(h, 0), 0)
    np.testing.assert_allclose(sae.encode(X), z, atol=1e-5)
    np.testing.assert_allclose(sae.decode(sae.encode(X)), z @ sae.arrays["W_dec"] + sae.arrays["b_dec"], atol=1e-4)


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec"])
def test_gradients_are_differences_of_the_loss(name):
    arrays = {key: value.astype(np.float64) for key, value in _made().arrays.items()}
    x = X.astype(np.float64)

    def loss():
        hidden = np.maximum((x - arrays["b_dec"]) @ arrays["W_enc"] + arrays["b_enc"], 0)
        error = top(hidden, 4) @ arrays["W_dec"] + arrays["b_dec"] - x
        return float(np.sum(error**2))

    gradient = gradients(arrays, x, 4, 2.0)[name]
    for place in ([0] * gradient.ndim, [3] * gradient.ndim, [-1] * gradient.ndim):
        at = tuple(place)
        slopes = []
        for size in (1e-6, -1e-6):
            arrays[name][at] += size
            slopes.append(loss())
            arrays[name][at] -= size
        assert gradient[at] == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=2e-3, abs=1e-5)


def test_a_planted_dictionary_is_found():
    rng = np.random.default_rng(5)
    planted = rng.standard_normal((48, 24)).astype(np.float32)
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)
    codes = np.zeros((4000, 48), np.float32)
    for row in codes:
        row[rng.choice(48, 3, replace=False)] = rng.uniform(1, 2, 3)
    x = codes @ planted + 0.5
    sae = train(x, 48, 3, 600)
    best = np.abs(planted @ sae.arrays["W_dec"].T).max(axis=1)
    assert np.mean(best > 0.9) > 0.5
    y = sae.decode(sae.encode(x[:500]))
    assert np.sum((y - x[:500]) ** 2) / np.sum((x[:500] - x[:500].mean(axis=0)) ** 2) < 0.35
    np.testing.assert_allclose(np.linalg.norm(sae.arrays["W_dec"], axis=1), 1, atol=1e-5)


def test_a_folder_comes_back_bit_for_bit(tmp_path):
    sae = _made(active_count=5)
    save(sae, tmp_path / "sae")
    again = load(tmp_path / "sae")
    assert again.active_count == 5
    for name, array in sae.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
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


@pytest.mark.parametrize(
    ("config", "tensors", "says"),
    [
        ({"architecture": "gated"}, None, "architecture"),
        ({"k": 41}, None, "k"),
        ({"k": "5"}, None, "k"),
        ({}, {"b_enc": np.zeros(3, np.float32)}, "b_enc"),
        ({}, {"W_dec": np.zeros((40, 11), np.float32)}, "W_dec"),
        ({"architecture": "jumprelu"}, None, "architecture"),
    ],
)
def test_a_folder_that_is_not_read_says_why(tmp_path, config, tensors, says):
    with pytest.raises(BadDataError, match=says):
        load(_changed(tmp_path / "a", tensors, **config))
