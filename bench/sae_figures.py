"""Figures of sparse autoencoders on this machine: quality on a real model's activations, and speed at several sizes.

    python -m bench.sae_figures MODEL.gguf [--part quality|speed|all] [--data FOLDER] [--layer N]

Quality: the seed article's autoencoder as printed (L0 shows that it is not sparse) beside TopK-32 with eight features a
dimension: unexplained variance, dead share and loss recovered on held-out text, cost in generation, some features.
Speed: encoders of one token taking turns, so that drift of the machine hits all alike; gigabytes a second beside
milliseconds and beside the read bandwidth of as many threads, probed before and after. Weights are random, tokens sums
of planted features; ``overlap`` is the share of the 32 right features, for those tokens and for Gaussian ones.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

READ_BYTES: Final = 512 * 2**20
ROUND_COUNT: Final = 9
ROUND_S: Final = 0.02
TARGETS: Final = {
    "fvu_ratio": "at most 0.20",
    "recovered_zero_ratio": "at least 0.95",
    "bandwidth_share": "at least 0.8",
    "int8_speedup": "at least 2.5",
    "int8_overlap": "at least 0.98",
    "decode_speedup": "at least 50",
}


def quality_figures(
    model: Path, data: Path | None, cache: Path | None, thread_count: int, layer: int | None = None
) -> dict[str, Any]:
    """Train both autoencoders on the model's activations and measure them."""
    import msgspec

    from bench.seed_autoencoder import train_seed
    from harness.runtimes.llamacpp import RUNTIME
    from harness.workloads.sparse_autoencoder.metrics import quality
    from harness.workloads.sparse_autoencoder.study import gather, study

    material = gather(RUNTIME.open, model, data, layer=layer, thread_count=thread_count, cache=cache)
    x, held = material.rows()
    _say(f"{len(x)} tokens to train on, {len(held)} held out")
    article = train_seed(x, 8 * x.shape[1])
    seed = quality(article, held)
    _say(f"the article's: L0 {seed.active_count:.0f} of {article.feature_count}, FVU {seed.fvu_ratio:.3f}")

    autoencoder, report = study(RUNTIME.open, model, material, thread_count=thread_count)
    return {
        "feature_count": autoencoder.feature_count,
        "seed": msgspec.to_builtins(seed),
        "topk": msgspec.to_builtins(report),
        "passes": {
            "fvu_ratio": report.held_out.fvu_ratio <= 0.20,
            "recovered_zero_ratio": (report.loss.recovered_zero_ratio or 0.0) >= 0.95,
        },
    }


def speed_figures(sizes: Sequence[tuple[int, int]], thread_count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Every encoder and both decoders at each size (input_dim, expansion_ratio)."""
    from harness.measure.bandwidth import read_bandwidth

    rows = []
    for d, ratio in sizes:
        before = read_bandwidth(thread_count, READ_BYTES, pass_count=4).bytes_per_s
        row = _speed_of(d, ratio, thread_count, seed)
        after = read_bandwidth(thread_count, READ_BYTES, pass_count=4).bytes_per_s
        row["read_bytes_per_s"] = max(before, after)
        row["bandwidth_share"] = row["encoders"]["fp32"]["best_bytes_per_s"] / row["read_bytes_per_s"]
        rows.append(row)
        _say(_speed_line(row))
    return rows


def _speed_of(d: int, ratio: int, thread_count: int, seed: int) -> dict[str, Any]:
    import numpy as np

    from harness.workloads.sparse_autoencoder.encoders import kinds, make_encoder
    from harness.workloads.sparse_autoencoder.metrics import codes_overlap
    from harness.workloads.sparse_autoencoder.workload import planted_tokens, random_autoencoder

    sae = random_autoencoder(d, d * ratio, 32, seed)
    tokens = {
        "planted": planted_tokens(sae, 64, seed),
        "gaussian": np.random.default_rng(seed).standard_normal((64, d), dtype=np.float32),
    }
    right = {name: sae.encode_sparse(x) for name, x in tokens.items()}
    one = tokens["planted"][:1]
    with tempfile.TemporaryDirectory(prefix="edge-harness-sae-") as folder:
        encoders = [make_encoder(sae, k, Path(folder), thread_count=thread_count) for k in kinds(d, d * ratio)]
        codes, dense = sae.encode_sparse(one), sae.encode(one)
        calls: dict[str, Callable[[], object]] = {e.kind: partial(e.top, one) for e in encoders}
        calls["decode sparse"] = lambda: sae.decode_sparse(codes)
        calls["decode dense"] = lambda: sae.decode(dense)
        times = in_turns(calls)
        found: dict[str, Any] = {}
        for encoder in encoders:
            best, middle = min(times[encoder.kind]), sorted(times[encoder.kind])[len(times[encoder.kind]) // 2]
            overlaps = {name: codes_overlap(encoder.top(x), right[name].indices) for name, x in tokens.items()}
            found[encoder.kind] = {
                "weight_bytes": encoder.weight_bytes,
                "best_s": best,
                "median_s": middle,
                "best_bytes_per_s": encoder.weight_bytes / best,
                "median_bytes_per_s": encoder.weight_bytes / middle,
                "overlap": overlaps,
            }
    decode = {kind: sorted(times[f"decode {kind}"])[ROUND_COUNT // 2] for kind in ("sparse", "dense")}
    row: dict[str, Any] = {
        "input_dim": d,
        "expansion_ratio": ratio,
        "thread_count": thread_count,
        "encoders": found,
        "decode_sparse_s": decode["sparse"],
        "decode_dense_s": decode["dense"],
        "decode_speedup": decode["dense"] / decode["sparse"],
    }
    if "ort int8" in found:
        row["int8_speedup"] = found["ort fp32"]["median_s"] / found["ort int8"]["median_s"]
        row["int8_overlap"] = found["ort int8"]["overlap"]["planted"]
    return row


def in_turns(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of one call in each of several rounds; every call has its turn in each round."""
    counts = {}
    for name, call in calls.items():
        call()
        begin = time.perf_counter()
        call()
        counts[name] = max(1, int(ROUND_S / max(time.perf_counter() - begin, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUND_COUNT):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - begin) / counts[name])
    return times


def _speed_line(row: dict[str, Any]) -> str:
    lines = [
        f"d {row['input_dim']} x {row['expansion_ratio']}, {row['thread_count']} thread(s): memory reads "
        f"{row['read_bytes_per_s'] / 1e9:.1f} GB/s"
    ]
    for kind, e in row["encoders"].items():
        lines.append(
            f"  encode {kind:9} {e['median_s'] * 1e3:8.3f} ms  {e['median_bytes_per_s'] / 1e9:6.1f} GB/s (best "
            f"{e['best_bytes_per_s'] / 1e9:.1f})  {e['weight_bytes'] / 1e6:7.1f} MB  overlap "
            f"{e['overlap']['planted']:.3f} / {e['overlap']['gaussian']:.3f}"
        )
    lines.append(
        f"  decode sparse {row['decode_sparse_s'] * 1e3:.4f} ms, dense {row['decode_dense_s'] * 1e3:.3f} ms: "
        f"{row['decode_speedup']:.0f} x;  encode fp32 reads at {row['bandwidth_share']:.2f} of the bandwidth"
        + (f";  ORT int8 {row['int8_speedup']:.2f} x ORT fp32" if "int8_speedup" in row else "")
    )
    return "\n".join(lines)


def _quality_text(found: dict[str, Any]) -> str:
    seed, topk = found["seed"], found["topk"]
    held, loss, speed = topk["held_out"], topk["loss"], topk["generation"]
    lines = [
        f"{topk['model']} {topk['tensor']}, {topk['train_tokens']} tokens, {held['token_count']} held out",
        f"  the article's class, its coefficient: L0 {seed['active_count']:.0f} of {found['feature_count']}, "
        f"FVU {seed['fvu_ratio']:.3f}, dead {seed['dead_ratio']:.1%}",
        f"  TopK-32: L0 {held['active_count']:.1f}, FVU {held['fvu_ratio']:.4f} ({TARGETS['fvu_ratio']}), dead "
        f"{held['dead_ratio']:.1%} of held-out tokens' features, trained in {topk['train_s']:.0f} s",
        f"  loss: clean {loss['clean']:.4f}, spliced {loss['spliced']:.4f}, mean ablation {loss['averaged']:.4f}, zero "
        f"ablation {loss['zeroed']:.4f}",
        f"  recovered: {_share(loss['recovered_zero_ratio'])} against zero ({TARGETS['recovered_zero_ratio']}), "
        f"{_share(loss['recovered_mean_ratio'])} against mean",
        f"  generation: {1 / speed['plain_s']:.0f} tok/s plain, {1 / speed['reading_s']:.0f} read, "
        f"{1 / speed['spliced_s']:.0f} spliced",
    ]
    for feature in topk["features"][:6]:
        best = feature["contexts"][0]
        words = (best["before"][-40:] + "[" + best["token"] + "]" + best["after"][:30]).replace("\n", "\\n")
        lines.append(f"  feature {feature['index']:5} fires on {feature['firing_ratio']:.2%}: {words}")
    return "\n".join(lines)


def _share(ratio: float | None) -> str:
    return "nothing to recover" if ratio is None else f"{ratio:.4f}"


def _say(text: str) -> None:
    click.echo(text, err=True)


def _sizes(_context: click.Context, _parameter: click.Parameter, text: str) -> list[tuple[int, int]]:
    try:
        pairs = [part.split("x") for part in text.split(",")]
        return [(int(d), int(ratio)) for d, ratio in pairs]
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: expected parts such as 2048x8") from error


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--part", type=click.Choice(["quality", "speed", "all"]), default="all", show_default=True)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of texts.")
@click.option(
    "--layer", type=click.IntRange(0), help="Block whose residual stream is encoded; the middle one by default."
)
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Keep activations there.")
@click.option("--sizes", default="576x32,2048x8,2048x16,4096x8", show_default=True, callback=_sizes)
@click.option("--threads", "thread_count", type=click.IntRange(0), default=1, help="0: the physical cores.")
@click.option("--json", "as_json", is_flag=True)
def main(
    model: Path,
    part: str,
    data: Path | None,
    layer: int | None,
    cache: Path | None,
    sizes: list[tuple[int, int]],
    thread_count: int,
    as_json: bool,
) -> None:
    """Print the figures of sparse autoencoders for MODEL and this machine."""
    from harness.runtimes._threads import default_thread_count

    thread_count = thread_count or default_thread_count()
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    if any(os.environ.get(v) != str(thread_count) for v in variables):
        # Libraries read these when they are loaded, and some are by now.
        environment = {**os.environ, **dict.fromkeys(variables, str(thread_count))}
        os.execve(sys.executable, [sys.executable, "-m", "bench.sae_figures", *sys.argv[1:]], environment)  # noqa: S606
    found: dict[str, Any] = {}
    if part != "speed":
        found["quality"] = quality_figures(model, data, cache, thread_count, layer)
    if part != "quality":
        found["speed"] = speed_figures(sizes, thread_count)
    if as_json:
        click.echo(json.dumps(found))
        return
    if "quality" in found:
        click.echo(_quality_text(found["quality"]))
    for row in found.get("speed", []):
        click.echo(_speed_line(row))


if __name__ == "__main__":
    main()
