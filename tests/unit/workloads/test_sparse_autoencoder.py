"""Sparse autoencoders: arithmetic by hand, gradients by differences, recovery of planted features, SAELens's folder."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadDataError, RefusedError, WrongAnswerError
from harness.ports import EndPass, WorkloadContext
from harness.workloads._language.activations import (
    Captured,
    capture,
    norm_limit,
    ordinary,
    windows_of,
)
from harness.workloads._language.texts import further_text, shipped_text, split_text, texts_of
from harness.workloads.sparse_autoencoder import WORKLOAD
from harness.workloads.sparse_autoencoder.encoders import make_encoder, weight_bytes, widen_half
from harness.workloads.sparse_autoencoder.features import top_features
from harness.workloads.sparse_autoencoder.metrics import codes_overlap, fvu, quality, recovered
from harness.workloads.sparse_autoencoder.model import SparseAutoencoder, empty_rows, keep_largest, sparse
from harness.workloads.sparse_autoencoder.seed_baseline import train_seed
from harness.workloads.sparse_autoencoder.splice import Splice, token_loss
from harness.workloads.sparse_autoencoder.training import ENCODER_START, Adam, Plan, Trainer, train
from harness.workloads.sparse_autoencoder.workload import planted_tokens, random_autoencoder


def f32(*rows):
    return np.array(rows, np.float32)


def small(activation="topk", **fields):
    """Two inputs, three features; b_dec = (1, 0)."""
    return SparseAutoencoder(
        encoder=f32([1, 0, 2], [0, 1, 1]),
        encoder_bias=np.array([0, 0.5, -1], np.float32),
        decoder=f32([1, 0], [0, 1], [2, 2]),
        decoder_bias=np.array([1, 0], np.float32),
        activation=activation,
        **{"active_count": 1} if activation == "topk" else {},
        **fields,
    )


# x = (2, 3); x - b_dec = (1, 3); h = (1*1 + 3*0 + 0, 1*0 + 3*1 + .5, 1*2 + 3*1 - 1) = (1, 3.5, 4)
X = f32([2, 3])


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
    z = sae.encode(X)
    assert z.tolist() == [codes]
    assert sae.decode(z).tolist() == [reconstruction]
    assert sae.decode_sparse(sae.encode_sparse(X)).tolist() == [reconstruction]
    assert sae.reconstruct(X).tolist() == [reconstruction]


@pytest.mark.parametrize(("column_count", "stride"), [(1024, 4096 + 320), (1000, 4000), (2048, 8192 + 320)])
def test_rows_are_never_whole_pages_apart(column_count, stride):
    rows = empty_rows(3, column_count)
    assert rows.shape == (3, column_count)
    assert rows.strides == (stride, 4)


def test_fp32_encoder_is_the_autoencoder_whatever_the_layout(tmp_path):
    sae = random_autoencoder(8, 1024, 4, seed=3)
    x = planted_tokens(sae, 5, seed=4)
    h = (x.astype(np.float64) - sae.decoder_bias) @ sae.encoder.astype(np.float64)
    right = np.sort(np.argsort(-h, axis=1)[:, :4], axis=1)
    layouts = {"padded": sae.encoder, "whole": np.ascontiguousarray(sae.encoder), "turned": sae.encoder.T.copy().T}
    for name, encoder in layouts.items():
        codes = make_encoder(replace(sae, encoder=encoder), "fp32", tmp_path).top(x)
        assert codes.indices.reshape(5, 4).tolist() == right.tolist(), name
        assert codes.values.reshape(5, 4) == pytest.approx(np.take_along_axis(h, right, axis=1), rel=1e-5)


def test_negative_values_are_not_active_even_among_the_k_largest():
    sae = replace(small(), active_count=3, encoder_bias=np.array([0, -9, -9], np.float32))
    codes = sae.encode_sparse(X)
    assert (codes.indices.tolist(), codes.values.tolist()) == ([0], [1])
    assert sae.encode(X).tolist() == [[1, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(0, 9, width=16), min_size=6, max_size=6), min_size=1, max_size=5), st.integers(1, 6))
def test_keep_largest_keeps_a_right_multiset_also_with_ties(rows, count):
    h = np.array(rows, np.float32)
    kept = h.copy()
    keep_largest(kept, count)
    for before, after in zip(h, kept, strict=True):
        assert sorted(after[after > 0]) == sorted(v for v in sorted(before)[-count:] if v > 0)
        assert all(a in (0, b) for a, b in zip(after, before, strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["topk", "relu", "jumprelu"]))
def test_sparse_and_dense_ways_agree(seed, activation):
    rng = np.random.default_rng(seed)
    base = random_autoencoder(6, 20, 4, seed)
    threshold = rng.uniform(0, 1, 20).astype(np.float32) if activation == "jumprelu" else None
    sae = replace(base, activation=activation, threshold=threshold, active_count=4 if activation == "topk" else 0)
    x = rng.standard_normal((5, 6), dtype=np.float32)
    z, codes = sae.encode(x), sae.encode_sparse(x)
    again = sparse(z)
    assert all(np.array_equal(a, b) for a, b in zip(codes, again, strict=True))
    assert np.allclose(sae.decode(z), sae.decode_sparse(codes), atol=1e-5)


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


# -- training -------------------------------------------------------------------------------------------------------


def test_adam_by_hand():
    # First step: m = .1 g, v = .01 g^2, both corrected to g and g^2: the step is rate * g / |g| = .5 * sign
    p = {"w": np.array([1, 2, 3], np.float32)}
    Adam(p).step({"w": np.array([4, -0.25, 0], np.float32)}, 0.5)
    assert np.allclose(p["w"], [0.5, 2.5, 3.0])


@pytest.mark.parametrize(("activation", "aux"), [("topk", 0.0), ("topk", 0.5), ("relu", 0.0), ("relu", 0.5)], ids=str)
def test_gradients_are_the_slopes_of_the_loss(activation, aux):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((40, 6), dtype=np.float32)
    plan = Plan(feature_count=12, activation=activation, active_count=3, aux_coefficient=aux, dead_after_tokens=1)
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
    _, gradients, _ = trainer.gradients(batch)
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
        if plan.activation == "topk":
            for row in z:
                row[np.argsort(row)[: -plan.active_count]] = 0
        return h, z, z @ w["W_dec"] + w["b_dec"] - x

    h, z, error = forward(now)
    loss = (error**2).sum() / (n * trainer._variance)
    if plan.activation == "relu":
        loss += plan.sparsity_coefficient * (1 / (plan.step_count / 4)) * z.sum() / n
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


def test_jumprelu_threshold_gradient_by_hand():
    # One token, one feature near its threshold: gradient of log threshold =
    # -(threshold / width) * (threshold * dL/dz + coefficient / n)
    plan = Plan(feature_count=2, activation="jumprelu", step_count=4, sparsity_coefficient=0.3, bandwidth=0.2)
    trainer = Trainer(f32([1, 0], [0, 1], [1, 1]), plan)
    trainer.parameters["log_threshold"][:] = np.log(np.array([0.5, 2.0], np.float32))
    gradient = trainer._threshold_gradient(f32([0.55, 0.0]), f32([0.7, 9.0]))
    # step 0 of 4: the coefficient is fully grown at a quarter of the steps, that is now
    assert gradient == pytest.approx([-(0.5 / 0.2) * (0.5 * 0.7 + 0.3), 0.0], rel=1e-5)


def planted(seed=3):
    truth = random_autoencoder(16, 24, 3, seed)
    return truth, planted_tokens(truth, 3000, seed)


@pytest.mark.parametrize("activation", ["topk", "relu", "jumprelu"])
def test_training_explains_planted_features(activation):
    truth, x = planted()
    plan = Plan(
        feature_count=32,
        activation=activation,
        active_count=3,
        step_count=400,
        batch_tokens=256,
        rate=5e-3,
        sparsity_coefficient={"relu": 5e-2, "jumprelu": 6e-3}.get(activation, 0.0),
        dead_after_tokens=3000,
        seed=2,
    )
    seen = []
    sae = train(x[:2500], plan, seen.append)
    assert np.allclose(np.linalg.norm(sae.decoder, axis=1), 1, atol=1e-5)
    found = quality(sae, x[2500:])
    assert found.fvu_ratio < 0.15
    assert found.active_count < 10
    assert seen[-1].fvu_ratio < seen[0].fvu_ratio
    if activation == "topk":
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
        activation="topk",
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
            progress = trainer.step()
        shares[aux] = progress.dead_ratio
    assert shares[0.0] >= 0.5
    # relu of a feature that is 20 below zero has no slope either: revival works on those that fire at all
    assert shares[0.5] <= shares[0.0]


def test_the_seed_is_not_sparse_and_topk_is():
    _, x = planted()
    article = quality(train_seed(x[:2500], 64, step_count=200, batch_tokens=256), x[2500:])
    ours = quality(train(x[:2500], Plan(feature_count=64, active_count=3, step_count=50, batch_tokens=256)), x[2500:])
    assert article.active_count > 16  # a quarter of the dictionary and more
    assert ours.active_count <= 3


@pytest.mark.parametrize("x", [np.empty((0, 4), np.float32), np.full((3, 4), np.nan, np.float32)])
def test_activations_that_cannot_be_trained_on_are_refused(x):
    with pytest.raises(RefusedError):
        Trainer(x, Plan(feature_count=8))


# -- metrics --------------------------------------------------------------------------------------------------------


def test_metrics_by_hand():
    x = f32([0, 0], [2, 0], [4, 0])  # mean (2, 0), spread 4 + 0 + 4 = 8
    assert fvu(x, f32([1, 0], [2, 1], [4, 0])) == pytest.approx((1 + 1) / 8)
    assert fvu(x, np.broadcast_to(x.mean(0), x.shape)) == 1.0
    assert recovered(2.0, 2.5, 12.0) == pytest.approx(9.5 / 10)
    assert recovered(2.0, 2.5, 2.0) is None
    with pytest.raises(RefusedError):
        fvu(f32([1, 1], [1, 1]), f32([1, 1], [1, 1]))
    found = quality(small(), np.concatenate([X, X + 1]))
    # both tokens have feature 2 alone: of three features two are dead
    assert (found.active_count, found.dead_ratio) == (1.0, pytest.approx(2 / 3))
    assert codes_overlap(small().encode_sparse(X), np.array([[2]])) == 1.0
    assert codes_overlap(small().encode_sparse(X), np.array([[0]])) == 0.0


def test_token_loss_by_hand():
    # logits ln 1, ln 2, ln 5: probabilities 1/8, 2/8, 5/8
    assert token_loss(np.log(f32([1, 2, 5])[0]), 1) == pytest.approx(np.log(4))
    assert token_loss(f32([1000, 0])[0], 0) == 0.0


# -- activations and features ---------------------------------------------------------------------------------------


def test_windows_and_split():
    assert [len(w) for w in windows_of(list(range(1100)), 512)] == [512, 512]  # 76 left: less than a quarter
    assert [len(w) for w in windows_of(list(range(1200)), 512)] == [512, 512, 176]
    first, later = split_text("a\nb\nc\nd\n", 0.5)
    assert (first, later) == ("a\nb\n", "c\nd\n")


def test_massive_tokens_are_told_apart():
    values = f32([3, 4], [0, 5], [5, 0], [300, 400])  # norms 5 5 5 500: the median is 5
    assert norm_limit(values) == 40.0
    assert ordinary(values, 40.0).tolist() == [True, True, True, False]


def test_texts_of_a_folder(tmp_path):
    with pytest.raises(RefusedError, match=r"\.txt"):
        texts_of(tmp_path)
    (tmp_path / "b.md").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.bin").write_bytes(b"\0")
    assert texts_of(tmp_path) == ["one", "two"]


def test_further_text_shares_no_telling_line_with_what_is_known():
    def telling(text):
        return {line.strip() for line in text.splitlines() if len(line.strip()) >= 30}

    shipped = shipped_text()
    more = further_text([shipped])
    assert len(more) > 600_000  # 240 kB of the reference and the library's words
    assert not telling(more) & telling(shipped)
    # A text that is known whole, in typographic quotes too, is not in what comes beside another.
    sentence = next(line for line in more.splitlines() if len(line) > 60 and "'" in line)
    assert sentence not in further_text([shipped, sentence.replace("'", "\u2019")])
    # Beside a text of somebody's own the shipped one is further text, but for the lines that are theirs.
    own = "\n".join(shipped.splitlines()[100:110])
    with_shipped = further_text([own], shipped=True)
    assert len(telling(with_shipped) & telling(shipped)) > 0.9 * len(telling(shipped))
    assert not telling(with_shipped) & telling(own)


def test_splice_changes_ordinary_tokens_only():
    tap = Splice("l_out-1", 10.0, lambda x: x * 2)
    assert tap.wants("l_out-1")
    assert not tap.wants("l_out-2")
    assert tap("l_out-1", f32([1, 2], [30, 40])).tolist() == [[2, 4], [30, 40]]
    assert tap.changed_count == 1
    tap.change = None
    assert tap("l_out-1", X) is None


class Pretend:
    """A session whose residual stream is the token's own row of a table."""

    def __init__(self, tap):
        self.tap = tap

    def tokenize(self, text, *, add_special=True):
        return [ord(c) for c in text]

    def decode(self, tokens, *, position, sequence=0, logits="last"):
        with suppress(EndPass):
            self.tap("l_out-0", f32(*[[t, 1] for t in tokens]))

    def clear(self):
        pass

    def close(self):
        pass


def test_capture_keeps_rows_tokens_and_windows(tmp_path):
    def open_session(path, scenario, tap):
        return Pretend(tap)

    found = capture(open_session, tmp_path, ["a" * 600, "b" * 200], "l_out-0")
    assert found.windows.tolist() == [0, 512]  # 88 left of the first text: less than a quarter of a window
    assert found.tokens.tolist() == [97] * 512 + [98] * 200
    assert found.values[:, 0].tolist() == found.tokens.tolist()
    assert len(capture(open_session, tmp_path, ["a" * 1200], "l_out-0", limit_tokens=600).tokens) == 512
    with pytest.raises(RefusedError):
        capture(open_session, tmp_path, ["short"], "l_out-0")


def test_top_features_show_the_strongest_contexts():
    # Feature 0 fires on token 1 only, feature 1 on token 2 only, as strongly as the input says; none on token 9.
    sae = SparseAutoencoder(
        encoder=f32([1, 0], [0, 1]),
        encoder_bias=np.zeros(2, np.float32),
        decoder=f32([1, 0], [0, 1]),
        decoder_bias=np.zeros(2, np.float32),
        activation="relu",
    )
    tokens = np.array([9, 1, 9, 9, 1, 2, 9, 1, 9, 9], np.int64)
    values = np.zeros((10, 2), np.float32)
    values[[1, 4, 7], 0] = [5, 7, 6]
    values[5, 1] = 50
    captured = Captured(values, tokens, np.array([0, 5]))
    found = top_features(
        sae, captured, 1e9, lambda t: " ".join(map(str, t)), context_count=2, radius_tokens=2, most_firing_ratio=0.5
    )
    (only,) = found  # feature 1 fires once: fewer than two contexts
    assert (only.index, only.firing_ratio, only.mean_activation, only.same_token_ratio) == (0, 0.3, 6.0, 1.0)
    assert [(c.activation, c.before, c.token, c.after) for c in only.contexts] == [
        (7.0, "9 9", "1", ""),  # the window ends at token 4
        (6.0, "2 9", "1", "9 9"),
    ]


# -- encoders -------------------------------------------------------------------------------------------------------


def test_widening_is_the_cast_for_every_finite_half():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert np.array_equal(widen_half(finite, np.empty(finite.shape, np.int32)), finite.astype(np.float32))


@pytest.mark.parametrize(
    ("kind", "least"), [("fp16", 0.99), ("int8", 0.95), ("ort fp32", 0.999), ("ort int8", 0.97), ("ort int4", 0.7)]
)
def test_encoders_find_the_features_of_float32(kind, least, tmp_path):
    if kind.startswith("ort"):
        pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
        pytest.importorskip("onnx_ir", reason="the quantize extra is not installed")
    sae = random_autoencoder(128, 512, 8, 5)
    x = planted_tokens(sae, 40, 6)
    right = sae.encode_sparse(x).indices.reshape(40, 8)
    encoder = make_encoder(sae, kind, tmp_path)
    codes = encoder.top(x)
    assert codes_overlap(codes, right) >= least
    assert encoder.weight_bytes == weight_bytes(kind, 128, 512)
    one = encoder.top(x[:1])
    assert codes_overlap(one, right[:1]) >= least - 0.2


def test_weight_bytes_by_hand():
    # 4 x 32 weights; int8 scales: 32 x 4 bytes; blocks of 32: 4 scales of 4 bytes
    assert [weight_bytes(k, 4, 32) for k in ("fp32", "fp16", "int8", "ort int8", "ort int4")] == [
        512, 256, 128 + 128, 128 + 16, 64 + 16,
    ]  # fmt: skip


def test_other_encoders_are_refused(tmp_path):
    with pytest.raises(RefusedError, match="fp8"):
        make_encoder(random_autoencoder(8, 16, 2, 1), "fp8", tmp_path)
    with pytest.raises(RefusedError, match="TopK"):
        make_encoder(small("relu"), "fp32", tmp_path)


# -- SAELens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["topk", "relu", "jumprelu"])
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_folder_round_trips_exactly(activation, dtype, tmp_path):
    pytest.importorskip("safetensors", reason="the sae extra is not installed")
    from harness.workloads.sparse_autoencoder.saelens import Folder, config_of, load_folder, save_folder

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
    from harness.workloads.sparse_autoencoder.saelens import Folder, config_of, load_folder, save_folder

    sae = small()
    config = config_of(sae) | {"rescale_acts_by_decoder_norm": True}
    save_folder(Folder(sae, config), tmp_path)
    got = load_folder(tmp_path).autoencoder
    # norms 1, 1, sqrt 8: h = (1, 3.5, 4 sqrt 8), z = 4 sqrt 8, and 4 sqrt 8 / sqrt 8 * (2, 2) + (1, 0) = (9, 8)
    assert got.encode(X) == pytest.approx(f32([0, 0, 4 * 8**0.5]))
    assert got.reconstruct(X) == pytest.approx(f32([9, 8]))


def test_folders_of_others_come_out_byte_for_byte(tmp_path):
    numpy_files = pytest.importorskip("safetensors.numpy", reason="the sae extra is not installed")
    from harness.workloads.sparse_autoencoder.saelens import config_of, load_folder, save_folder

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
    from harness.workloads.sparse_autoencoder.saelens import config_of

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
        (OLD | {"architecture": "standard", "activation_fn_str": "relu"}, ("relu", 0, True)),
        (OLD | {"normalize_activations": None, "apply_b_dec_to_input": False}, ("relu", 0, False)),
    ],
)
def test_configurations_before_version_6(config, expected, tmp_path):
    pytest.importorskip("safetensors", reason="the sae extra is not installed")
    from harness.workloads.sparse_autoencoder.saelens import load_folder, save_folder

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
    from harness.workloads.sparse_autoencoder.saelens import load_folder, save_folder

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
    from harness.workloads.sparse_autoencoder.saelens import load_folder, save_folder

    save_folder(small(), tmp_path)
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadDataError, match=word):
        load_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"{}"])
def test_broken_files_are_named(content, tmp_path):
    pytest.importorskip("safetensors", reason="the sae extra is not installed")
    from harness.workloads.sparse_autoencoder.saelens import load_folder, save_folder

    save_folder(small(), tmp_path)
    (tmp_path / "sae_weights.safetensors").write_bytes(content)
    with pytest.raises(BadDataError, match="sae_weights"):
        load_folder(tmp_path)
    (tmp_path / "cfg.json").write_bytes(content)
    with pytest.raises(BadDataError, match=r"cfg\.json"):
        load_folder(tmp_path)


# -- workload -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sae")
    return WORKLOAD.prepare(WORKLOAD.sizes["small"], WorkloadContext(folder, folder, 1, 1))


def test_workload_names_costs_and_operations_alike(state):
    costs = WORKLOAD.costs(WORKLOAD.sizes["small"])
    operations = WORKLOAD.operations(state)
    assert [c.operation for c in costs] == [o.name for o in operations]
    for operation in operations:
        operation.call()
    assert WORKLOAD.check(state)["top_overlap"]["fp32"] >= 0.999


def test_costs_by_hand():
    costs = {c.operation: c for c in WORKLOAD.costs(WORKLOAD.sizes["default"])}
    # 2048 x 16384 float32 = 134,217,728 bytes; sparse decode reads 32 x 2048 weights of 16384 x 2048
    assert costs["encode fp32"].matrix_bytes == 134_217_728
    assert costs["decode dense"].matrix_bytes / costs["decode sparse"].matrix_bytes == 512
    assert costs["encode fp32 x32"].flops_count == 2 * 32 * 2048 * 16384


def test_a_wrong_encoder_has_no_speed(state):
    broken = state.encoders[0]._replace(top=lambda x: state.autoencoder.encode_sparse(x[::-1] * 0 + 1))
    with pytest.raises(WrongAnswerError, match="features"):
        WORKLOAD.check(state._replace(encoders=(broken,)))


def test_evaluation_needs_a_model(tmp_path):
    with pytest.raises(RefusedError, match="--model"):
        WORKLOAD.evaluate(WorkloadContext(tmp_path, tmp_path, 1, 1))
