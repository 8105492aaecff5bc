"""Every shipped device and model: readable, sourced, named as promised, and true to published counts."""

import math
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from harness.core.foreign import toml_in
from harness.core.model import ModelShape
from harness.core.paths import data_files, table_rows
from harness.hardware.devices import device_names, dump_device, load_device
from harness.hardware.parts import keys_of
from harness.models.cards import model_names
from harness.models.names import load_model
from harness.models.weights import tensors_of

DEVICES, MODELS = device_names(), list(data_files("models"))
ROWS = sorted(set(model_names()) - set(MODELS))
TABLES = Path(__file__).parents[2]
PROMISED = [
    "iphone-16-pro",
    "pixel-9-pro",
    "galaxy-s24-ultra",
    "oneplus-12",
    "macbook-air-m2",
    "macbook-pro-m4-max",
    "snapdragon-x-elite",
    "lunar-lake",
    "laptop-ddr5",
    "strix-halo",
    "mac-studio-m2-ultra",
    "rtx-4090-desktop",
    "raspberry-pi-5",
    "jetson-agx-orin-64gb",
    "dgx-spark",
]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))


def test_there_are_enough_of_each() -> None:
    assert len(DEVICES) >= 65
    assert len(MODELS) >= 55
    assert set(PROMISED) <= set(DEVICES)
    kinds = {load_device(name).kind for name in DEVICES}
    assert kinds >= {"phone", "tablet", "laptop", "desktop", "workstation", "board", "edge-server", "gpu-server"}


@pytest.mark.parametrize("name", DEVICES)
def test_device(name: str, tmp_path: Path) -> None:
    """Comment first; rate and width of each pool; a source for every figure; equal after a round trip."""
    file = data_files("devices")[name]
    text, document = file.read_text(), toml_in(file)

    assert text.startswith("# ")
    assert name == name.lower()
    for pool in ("ram", "vram"):
        if pool in document:
            rate, width = (document[pool][key]["value"] for key in ("transfer_mt_s", "bus_width_bits"))
            stated = document[pool]["bandwidth_gb_s"]["value"]
            assert stated == pytest.approx(rate * width / 8000, rel=0.02), "MT/s x bits / 8 is MB/s"
    for figure in _figures(document):
        assert len(figure["source"]) >= 3
        assert figure["confidence"] != "measured" or "recall" not in figure["source"]

    device = load_device(name)
    again = tmp_path / f"{name}.toml"
    again.write_text(dump_device(device))
    assert load_device(str(again)) == device

    for pool in device.pools:
        most = 1.02 * pool.bandwidth_bytes_per_s.value
        for measured in (pool.measured_read_bytes_per_s,):
            assert measured is None or measured.value <= most, "measured more than the memory can carry"
    for engine in device.engines:
        ratio = engine.sustained_ratio
        assert ratio is None or 0.2 <= ratio.value <= 1
        assert all(1e10 <= peak.value <= 3e15 for peak in engine.peak_flops_per_s.values())


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    card = load_model(name)

    assert data_files("models")[name].read_text().startswith("# ")
    # Read from the model itself, made up, or a shape that somebody else states or that we assume: the card says which.
    said = ("config", "header of a GGUF file", "published rows call it", "assumed as")
    assert card.family == "hypothetical" or any(word in card.source for word in said)
    assert card.active_parameter_count > 0
    assert (card.active_parameter_count == card.parameter_count) == (card.shape.experts is None)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_table_of_shapes(name: str) -> None:
    """Its matrices agree with the published count within 3.5 % (linear attention counted as Mamba-2's: 11 %)."""
    card = load_model(name)
    counted = sum(math.prod(dims) for dims in tensors_of(card.shape).values())

    assert counted == pytest.approx(card.parameter_count, rel=0.035)
    assert card.source
    assert (card.active_parameter_count == card.parameter_count) == (card.shape.experts is None)


def test_the_tables_of_devices_hold_what_they_promise() -> None:
    """Bandwidth is MT/s x bits / 8 in every row that tells all three, keys are those of names, a wheel stays small."""
    for table in ("devices", "chips", "cpus", "cards"):
        rows = table_rows("devices", table)
        assert len(rows) > 200
        for row in rows:
            assert keys_of([row["name"]])[0] in row["keys"].split(";")
            if row.get("mt_s") and row["bits"] and row["gb_s"] and row["memory"] != "LPDDR6":
                expected = float(row["mt_s"]) * float(row["bits"]) / 8000
                assert float(row["gb_s"]) == pytest.approx(expected, rel=0.02), row["name"]
    assert sum(len(zlib.compress(p.read_bytes())) for p in TABLES.rglob("tables/*.csv")) < 500_000


def _figures(value: object) -> list[dict[str, str]]:
    if isinstance(value, dict):
        return [value] if "confidence" in value else [f for v in value.values() for f in _figures(v)]
    return [f for v in value for f in _figures(v)] if isinstance(value, list) else []


def _matrices(shape: ModelShape) -> int:
    """Weights in the matrices of a decoder: token table, output, q k v o, feed-forward or experts, router."""
    h, total = shape.hidden_dim, shape.vocab_count * shape.hidden_dim * (1 if shape.tied_embeddings else 2)
    value_dim = shape.value_head_dim or shape.head_dim
    for layer in range(shape.layer_count):
        if shape.latent is not None:
            a = shape.latent
            q = shape.head_count * (a.nope_head_dim + a.rope_head_dim)
            total += h * a.q_rank_dim + a.q_rank_dim * q if a.q_rank_dim else h * q
            total += h * (a.kv_rank_dim + a.rope_head_dim)
            total += a.kv_rank_dim * shape.head_count * (a.nope_head_dim + a.value_head_dim)
            total += shape.head_count * a.value_head_dim * h
        else:
            total += h * shape.head_count * (shape.head_dim + value_dim)
            total += h * shape.kv_head_count * (shape.head_dim + value_dim)
        e = shape.experts
        if e is not None and shape.is_moe_layer(layer):
            total += h * e.expert_count + 3 * h * (e.expert_count * e.feed_forward_dim + e.shared_feed_forward_dim)
        else:
            total += (3 if shape.gated_feed_forward else 2) * h * shape.feed_forward_dim
    return total


# Gemma 3n and the small Gemma 4 have token tables of their own in each layer, which no field of the shape states, and
# Gemma 4 has other heads in its sliding layers. An assumed shape has a published count beside a like model's widths.
COUNTABLE = [
    n
    for n in MODELS
    if not (n.startswith(("gemma-3n", "gemma-4")) or load_model(n).shape.recurrent or "assumed" in load_model(n).source)
]


@pytest.mark.parametrize("name", COUNTABLE)
def test_shape_gives_the_published_parameter_count(name: str) -> None:
    """Matrices alone, without norms and biases, are within 1 % of the published count on the card.

    Where a card was written from memory this is its check: a wrong width or layer count moves the sum.
    """
    card = load_model(name)

    assert _matrices(card.shape) == pytest.approx(card.parameter_count, rel=0.01)


def test_counting_by_hand() -> None:
    """Llama 2 7B: 2 x 32000 x 4096 + 32 x (4 x 4096 x 4096 + 3 x 4096 x 11008) = 6 738 149 376."""
    assert _matrices(load_model("llama-2-7b").shape) == 6_738_149_376


@pytest.mark.parametrize(
    ("name", "full", "sliding", "recurrent"),
    [
        ("gemma-3-270m", 3, 15, 0),  # every sixth of 18 is global
        ("gemma-3-27b", 10, 52, 0),  # 62 // 6
        ("gemma-2-9b", 21, 21, 0),
        ("gpt-oss-20b", 12, 12, 0),
        ("llama-4-scout", 12, 36, 0),
        ("mamba-2.8b", 0, 0, 64),
        ("jamba-v0.1", 4, 0, 28),  # one in eight
        ("qwen3-next-80b-a3b", 12, 0, 36),
        ("granite-4.0-h-tiny", 4, 0, 36),  # layers 5, 15, 25, 35
        ("llama-3.1-8b", 32, 0, 0),
    ],
)
def test_layers_by_kind(name: str, full: int, sliding: int, recurrent: int) -> None:
    shape = load_model(name).shape
    kinds = [shape.layer_kind(layer) for layer in range(shape.layer_count)]

    assert (kinds.count("full"), kinds.count("sliding"), kinds.count("recurrent")) == (full, sliding, recurrent)


@pytest.mark.parametrize("verb", ["devices", "models"])
def test_listing_imports_no_engine_and_no_numpy(verb: str, tmp_path: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from harness.cli import cli;"
        f"r = CliRunner().invoke(cli, ['{verb}', 'show', '--json']); assert r.exit_code == 0, r.output;"
        "print([m for m in ('numpy', 'llama_cpp', 'onnxruntime', 'torch', 'pandas') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"
