"""SAELens's folders: byte for byte both ways, older configurations, and refusals by name."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.other_autoencoders import OtherAutoencoder
from harness.errors import BadDataError, RefusedError


def f32(*rows):
    return np.array(rows, np.float32)


def small(activation="topk", **fields):
    """Two inputs, three features; b_dec = (1, 0)."""
    return OtherAutoencoder(
        encoder=f32([1, 0, 2], [0, 1, 1]),
        encoder_bias=np.array([0, 0.5, -1], np.float32),
        decoder=f32([1, 0], [0, 1], [2, 2]),
        decoder_bias=np.array([1, 0], np.float32),
        activation=activation,
        active_count=1,
        **fields,
    )


X = f32([2, 3])
# x = (2, 3); x - b_dec = (1, 3); h = (1*1 + 3*0 + 0, 1*0 + 3*1 + .5, 1*2 + 3*1 - 1) = (1, 3.5, 4)


@pytest.mark.parametrize(
    ("sae", "codes", "reconstruction"),
    [
        (small(), [0, 0, 4], [1 + 8, 8]),  # the largest only
        (small("relu"), [1, 3.5, 4], [1 + 1 + 8, 3.5 + 8]),
        (small("jumprelu", threshold=np.array([0.5, 3.5, 3.9], np.float32)), [1, 0, 4], [1 + 1 + 8, 8]),  # 3.5 > 3.5 no
        (replace(small("relu"), centred=False), [2, 3.5, 6], [1 + 2 + 12, 3.5 + 12]),  # h = (2, 3 + .5, 4 + 3 - 1)
    ],
)
def test_encode_and_decode_by_hand(sae, codes, reconstruction):
    assert sae.encode(X).tolist() == [codes]
    assert sae.decode(sae.encode(X)).tolist() == [reconstruction]
    assert sae.reconstruct(X).tolist() == [reconstruction]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"activation": "gelu"}, "gelu"),
        ({"active_count": 4}, "between 1 and 3"),
        ({"activation": "jumprelu"}, "threshold"),
        ({"decoder": f32([1, 0])}, "decoder has shape"),
    ],
)
def test_bad_autoencoders_are_refused(fields, word):
    with pytest.raises(RefusedError, match=word):
        replace(small(), **fields)


@pytest.mark.parametrize("activation", ["topk", "relu", "jumprelu"])
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_folder_round_trips_exactly(activation, dtype, tmp_path):
    pytest.importorskip("safetensors", reason="the sae extra is not installed")
    from bench.saelens_folder import Folder, config_of, load_folder, save_folder

    threshold = np.array([0.5, 0.25, 0.1], np.float32) if activation == "jumprelu" else None
    sae = small(activation, **({"threshold": threshold} if threshold is not None else {}))
    config = config_of(sae, {"model_name": "m", "hook_name": "l_out-15"}) | {"of_their_own": [1, {"x": None}]}
    save_folder(Folder(sae, config, dtype), tmp_path / "a")
    first = load_folder(tmp_path / "a")
    save_folder(first, tmp_path / "b")
    second = load_folder(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "cfg.json").read_text()) == config == second.config
    name = "sae_weights.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert second.dtype == dtype
    for field in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
        stored = getattr(sae, field).astype({"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32)
        assert np.array_equal(getattr(second.autoencoder, field), stored)
    assert second.autoencoder.activation == activation
    assert second.autoencoder.active_count == sae.active_count


def test_decoder_norms_of_a_training_checkpoint_are_folded(tmp_path):
    pytest.importorskip("safetensors", reason="the sae extra is not installed")
    from bench.saelens_folder import Folder, config_of, load_folder, save_folder

    sae = small()
    config = config_of(sae) | {"rescale_acts_by_decoder_norm": True}
    save_folder(Folder(sae, config), tmp_path)
    got = load_folder(tmp_path).autoencoder
    # norms 1, 1, sqrt 8: h = (1, 3.5, 4 sqrt 8), z = 4 sqrt 8, and 4 sqrt 8 / sqrt 8 * (2, 2) + (1, 0) = (9, 8)
    assert got.encode(X) == pytest.approx(f32([0, 0, 4 * 8**0.5]))
    assert got.reconstruct(X) == pytest.approx(f32([9, 8]))


def test_folders_of_others_come_out_byte_for_byte(tmp_path):
    numpy_files = pytest.importorskip("safetensors.numpy", reason="the sae extra is not installed")
    from bench.saelens_folder import config_of, load_folder, save_folder

    sae, source = small(), tmp_path / "a"
    source.mkdir()
    config = config_of(sae) | {"rescale_acts_by_decoder_norm": True}
    (source / "cfg.json").write_bytes(json.dumps(config, indent=3).encode() + b"\r\n")  # another writer's layout
    tensors = {"W_enc": sae.encoder, "b_enc": sae.encoder_bias, "W_dec": sae.decoder, "b_dec": sae.decoder_bias}
    numpy_files.save_file(tensors | {"of_their_own": np.arange(3)}, source / "sae_weights.safetensors", {"by": "them"})
    found = load_folder(source)
    save_folder(found, tmp_path / "b")
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / "b" / name).read_bytes() == (source / name).read_bytes(), name
    # Another autoencoder in its place is written as it is: its norms are its own.
    save_folder(replace(found, autoencoder=replace(found.autoencoder, active_count=1)), tmp_path / "c")
    again = load_folder(tmp_path / "c")
    assert again.config["rescale_acts_by_decoder_norm"] is False
    assert np.array_equal(again.autoencoder.decoder, found.autoencoder.decoder)
    assert np.array_equal(again.autoencoder.encode(X), found.autoencoder.encode(X))


def test_a_new_configuration_has_the_keys_of_saelens_in_their_order():
    from bench.saelens_folder import config_of

    # What SAELens 6.54.12 wrote for TopKSAE(TopKSAEConfig(d_in=2, d_sae=3, k=1)).
    theirs = (
        '{"d_in": 2, "d_sae": 3, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": true, '
        '"normalize_activations": "none", "reshape_activations": "none", "metadata": {"sae_lens_version": "6.54.12", '
        '"sae_lens_training_version": "6.54.12"}, "k": 1, "rescale_acts_by_decoder_norm": false, '
        '"architecture": "topk"}'
    )
    ours = config_of(small()) | {}
    ours["metadata"] = ours["metadata"] | {"sae_lens_training_version": "6.54.12"}  # ours was not trained by it
    assert json.dumps(ours) == theirs


OLD = {"d_in": 2, "d_sae": 3, "hook_name": "blocks.3.hook_resid_post", "sae_lens_version": "5.10.1"}
"""Keys that SAELens wrote before its version 6."""


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (OLD | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 1}}, ("topk", 1, True)),
        (OLD | {"architecture": "standard", "activation_fn_str": "relu"}, ("relu", 3, True)),
        (OLD | {"normalize_activations": None, "apply_b_dec_to_input": False}, ("relu", 3, False)),
    ],
)
def test_configurations_before_version_6(config, expected, tmp_path):
    pytest.importorskip("safetensors", reason="the sae extra is not installed")
    from bench.saelens_folder import load_folder, save_folder

    save_folder(small(), tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    found = load_folder(tmp_path).autoencoder
    assert (found.activation, found.active_count, found.centred) == expected


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"activation_fn_str": "tanh-relu"}, "activation_fn_str"),
        ({"activation_fn_str": "topk"}, r"activation_fn_kwargs\.k"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
        ({"hook_name": "blocks.3.attn.hook_z"}, "reshape_activations"),
    ],
)
def test_old_configurations_that_mean_more_are_refused(change, word, tmp_path):
    pytest.importorskip("safetensors", reason="the sae extra is not installed")
    from bench.saelens_folder import load_folder, save_folder

    save_folder(small(), tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(OLD | change))
    with pytest.raises(BadDataError, match=word):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"architecture": "gated"}, "architecture"),
        ({"k": 0}, "k"),
        ({"k": 9}, "k"),
        ({"d_in": 3}, "W_enc"),
        ({"d_sae": None}, "d_sae"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations"),
        ({"reshape_activations": "hook_z"}, "reshape_activations"),
    ],
)
def test_other_folders_are_refused_by_name(change, word, tmp_path):
    pytest.importorskip("safetensors", reason="the sae extra is not installed")
    from bench.saelens_folder import load_folder, save_folder

    save_folder(small(), tmp_path)
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadDataError, match=word):
        load_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"{}"])
def test_broken_files_are_named(content, tmp_path):
    pytest.importorskip("safetensors", reason="the sae extra is not installed")
    from bench.saelens_folder import load_folder, save_folder

    save_folder(small(), tmp_path)
    (tmp_path / "sae_weights.safetensors").write_bytes(content)
    with pytest.raises(BadDataError, match="sae_weights"):
        load_folder(tmp_path)
    (tmp_path / "cfg.json").write_bytes(content)
    with pytest.raises(BadDataError, match=r"cfg\.json"):
        load_folder(tmp_path)
