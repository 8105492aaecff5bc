"""Sparse autoencoders: arithmetic by hand, metrics, activations, encoders, and the workload."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_cases import X, f32, small

from harness.errors import RefusedError, WrongAnswerError
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
from harness.workloads.sparse_autoencoder.model import SparseAutoencoder, empty_rows, largest
from harness.workloads.sparse_autoencoder.splice import Splice
from harness.workloads.sparse_autoencoder.workload import planted_tokens, random_autoencoder


def test_encode_and_decode_by_hand():
    sae = small()
    z = sae.encode(X)
    assert z.tolist() == [[0, 0, 4]]  # the largest only
    assert sae.decode(z).tolist() == [[1 + 8, 8]]
    assert sae.decode_sparse(sae.encode_sparse(X)).tolist() == [[1 + 8, 8]]
    assert sae.reconstruct(X).tolist() == [[1 + 8, 8]]


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
        assert codes.indices.tolist() == right.tolist(), name
        assert codes.values == pytest.approx(np.take_along_axis(h, right, axis=1), rel=1e-5)


def test_negative_values_are_not_active_even_among_the_k_largest():
    sae = replace(small(), active_count=3, encoder_bias=np.array([0, -9, -9], np.float32))
    codes = sae.encode_sparse(X)
    assert (codes.indices.tolist(), codes.values.tolist()) == ([[0, 1, 2]], [[1, 0, 0]])
    assert sae.encode(X).tolist() == [[1, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(-9, 9, width=16), min_size=6, max_size=6), min_size=1, max_size=5), st.integers(1, 6)
)
def test_the_largest_are_a_right_multiset_also_with_ties(rows, count):
    h = np.array(rows, np.float32)
    codes = largest(h, count)
    for row, indices, values in zip(h, *codes, strict=True):
        assert sorted(values) == sorted(max(v, 0) for v in sorted(row)[-count:])
        assert np.maximum(row[indices], 0).tolist() == values.tolist()
        assert len(set(indices)) == count


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_sparse_and_dense_ways_agree(seed):
    sae = random_autoencoder(6, 20, 4, seed)
    x = np.random.default_rng(seed).standard_normal((5, 6), dtype=np.float32)
    codes, in_blocks = sae.encode_sparse(x), sae.encode_blocks(x, block_tokens=2)
    assert codes.indices.tolist() == in_blocks.indices.tolist()
    assert np.allclose(codes.values, in_blocks.values, atol=1e-5)
    assert np.allclose(sae.decode(sae.encode(x)), sae.decode_sparse(codes), atol=1e-5)


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
        active_count=1,
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
    wide = np.empty(finite.shape, np.float32)
    widen_half(finite, wide)
    assert np.array_equal(wide, finite.astype(np.float32))


@pytest.mark.parametrize(
    ("kind", "least"), [("fp16", 0.99), ("int8", 0.95), ("ort fp32", 0.999), ("ort int8", 0.97), ("ort int4", 0.7)]
)
def test_encoders_find_the_features_of_float32(kind, least, tmp_path):
    if kind.startswith("ort"):
        pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
        pytest.importorskip("onnx_ir", reason="the quantize extra is not installed")
    sae = random_autoencoder(128, 512, 8, 5)
    x = planted_tokens(sae, 40, 6)
    right = sae.encode_sparse(x).indices
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
    assert costs["encode fp32"].moved_bytes == 134_217_728
    assert costs["decode dense"].moved_bytes / costs["decode sparse"].moved_bytes == 512
    assert costs["encode fp32 x32"].flops_count == 2 * 32 * 2048 * 16384


def test_a_wrong_encoder_has_no_speed(state):
    broken = state.encoders[0]._replace(top=lambda x: state.autoencoder.encode_sparse(x[::-1] * 0 + 1))
    with pytest.raises(WrongAnswerError, match="features"):
        WORKLOAD.check(state._replace(encoders=(broken,)))


def test_evaluation_needs_a_model(tmp_path):
    with pytest.raises(RefusedError, match="--model"):
        WORKLOAD.evaluate(WorkloadContext(tmp_path, tmp_path, 1, 1))
