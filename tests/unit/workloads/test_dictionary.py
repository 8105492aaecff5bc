"""A sparse autoencoder against its formulas, finite differences, a planted dictionary, and SAELens's folder format."""

import json

import numpy as np
import pytest

from harness.errors import BadDataError
from harness.workloads.dictionary import Dictionary


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
def test_slopes_are_differences_of_the_loss(name):
    sae = _made(active_count=4)
    arrays = {key: value.astype(np.float64) for key, value in sae.arrays.items()}
    sae = sae._replace(arrays=arrays)
    x = X.astype(np.float64)

    def loss():
        return float(np.sum((sae.decode(sae.encode(x)) - x) ** 2) / np.sum((x - x.mean(axis=0)) ** 2) / 2)

    slope = sae.slopes(x)[name]
    for place in ([0] * slope.ndim, [3] * slope.ndim, [-1] * slope.ndim):
        at = tuple(place)
        losses = []
        for size in (1e-6, -1e-6):
            arrays[name][at] += size
            losses.append(loss())
            arrays[name][at] -= size
        assert slope[at] == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=2e-3, abs=1e-6)


def test_a_planted_dictionary_is_found():
    rng = np.random.default_rng(5)
    planted = rng.standard_normal((48, 24)).astype(np.float32)
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)
    codes = np.zeros((4000, 48), np.float32)
    for row in codes:
        row[rng.choice(48, 3, replace=False)] = rng.uniform(1, 2, 3)
    x = codes @ planted + 0.5
    sae = Dictionary.untrained(x, 2, 3, 1)
    sae.train(x, 600)
    best = np.abs(planted @ sae.arrays["W_dec"].T).max(axis=1)
    assert np.mean(best > 0.9) > 0.5
    y = sae.decode(sae.encode(x[:500]))
    assert np.sum((y - x[:500]) ** 2) / np.sum((x[:500] - x[:500].mean(axis=0)) ** 2) < 0.35
    np.testing.assert_allclose(np.linalg.norm(sae.arrays["W_dec"], axis=1), 1, atol=1e-5)


def _folder(path, tensors=None, **config):
    from safetensors.numpy import save_file

    path.mkdir()
    # as SAELens 6 writes a TopK
    told = {"architecture": "topk", "d_in": 12, "d_sae": 40, "k": 5, "dtype": "float32", "apply_b_dec_to_input": True}
    (path / "cfg.json").write_text(json.dumps(told | config))
    arrays = {name: np.ascontiguousarray(array) for name, array in _made().arrays.items()}
    save_file(arrays | (tensors or {}), path / "sae_weights.safetensors")
    return path


def test_a_folder_of_saelens_is_read(tmp_path):
    pytest.importorskip("safetensors")
    sae = Dictionary.read(_folder(tmp_path / "sae"), 12)
    assert sae.active_count == 5
    for name, array in _made().arrays.items():
        np.testing.assert_array_equal(sae.arrays[name], array)


@pytest.mark.parametrize(
    ("config", "tensors", "says"),
    [
        ({"architecture": "gated"}, None, "topk"),
        ({"k": 41}, None, "topk"),
        ({"k": "5"}, None, "topk"),
        ({}, {"b_enc": np.zeros(3, np.float32)}, "b_enc"),
        ({}, {"W_dec": np.zeros((40, 11), np.float32)}, "W_dec"),
    ],
)
def test_a_folder_that_is_not_read_says_why(tmp_path, config, tensors, says):
    pytest.importorskip("safetensors")
    with pytest.raises(BadDataError, match=says):
        Dictionary.read(_folder(tmp_path / "a", tensors, **config), 12)


def test_a_broken_file_and_another_width_are_refused(tmp_path):
    pytest.importorskip("safetensors")
    folder = _folder(tmp_path / "a")
    with pytest.raises(BadDataError, match="W_enc"):
        Dictionary.read(folder, 24)
    (folder / "sae_weights.safetensors").write_bytes(b"none")
    with pytest.raises(BadDataError, match="safetensors"):
        Dictionary.read(folder, 12)
