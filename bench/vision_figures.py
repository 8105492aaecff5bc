"""Figures of grounded vision: regions, cost, agreement with torch, bits, and whether regions show more.

    python -m bench.vision_figures [--part regions --part cost --part bits --part roi]
    python -m bench.vision_figures --part torch --part export --python INTERPRETER_WITH_TORCH

``export`` makes random ViT-B and MobileNetV2 graphs once (timings do not depend on weights); INTERPRETER_WITH_TORCH
needs the extra ``export`` and transformers < 4.58. ``bits`` compares what is in the cache in turns, in one process: run
``export`` first for those two. Weights of the other networks are real ones.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import click
import numpy as np

from harness.catalog.fetch_registry import wheel_member
from harness.catalog.paths import cache_dir
from harness.errors import BadDataError, EngineError
from harness.onnx.quantize import quantize_dynamic, quantize_static, quantize_weights
from harness.onnx.session import OnnxSession
from harness.stats.intervals import ratio_interval
from harness.workloads.grounded_vision import efficientnet, graph, scenes, study
from harness.workloads.grounded_vision.encoder import GroundedEncoder, prepared
from harness.workloads.grounded_vision.graph import Layout
from harness.workloads.grounded_vision.quantise import quantised

PEER_PACKAGE: Final = "efficientnet-lite-pytorch==0.1.0"
COUNTS: Final = (0, 1, 2, 4, 8, 12, 16)
PARTS: Final = ("regions", "cost", "torch", "export", "bits", "roi")


def regions() -> None:
    """One session serves 0 to 16 regions; boxes outside are refused."""
    encoder, image = _encoder(), scenes.scene(1).image
    boxes = _boxes(16)
    whole = encoder.encode(image, boxes).tokens[0]
    worst = 0.0
    for count in range(17):
        found = encoder.encode(image, boxes[:count]).tokens[0]
        worst = max(worst, float(np.abs(found - whole[: len(found)]).max()))
    click.echo(f"regions: 0 to 16 by one session; largest difference of a token to its value among 16: {worst:.1e}")
    for bad in ((0, 0, 1920, 1080), (0.2, 0.2, 0.2, 0.5), (-0.1, 0, 1, 1), (float("nan"), 0, 1, 1)):
        try:
            encoder.encode(image, [bad])
        except BadDataError as error:
            click.echo(f"  refused: {error}")
        else:
            raise SystemExit(f"the box {bad} was taken")
    layout = encoder.layout
    click.echo(f"  tokens: {layout.token_count(0)} without regions, {layout.token_count(16)} with 16 of 1 token each")


def cost(threads: int, rounds: int) -> None:
    """T(N) = t0 + N t1 fitted by least squares over the medians of rounds in turns, and the largest deviation."""
    encoder, image = _encoder(threads), scenes.scene(1).image
    packed = {n: encoder.pack([image], [_boxes(n)]) for n in COUNTS}
    times = _in_turns({n: partial(encoder.run, p) for n, p in packed.items()}, rounds)
    medians = np.array([np.median(times[n]) for n in COUNTS])
    slope, start = np.polyfit(COUNTS, medians, 1)
    off = medians / (start + slope * np.array(COUNTS)) - 1
    click.echo(f"cost: t0 {start * 1e3:.2f} ms, t1 {slope * 1e3:.3f} ms a region, {threads} thread(s), {rounds} rounds")
    for n, median, share in zip(COUNTS, medians, off, strict=True):
        click.echo(f"  N={n:2d}: {median * 1e3:7.2f} ms, {share:+.1%} from the line")
    click.echo(f"  largest deviation {np.abs(off).max():.1%}")


def against_torch(python: str) -> None:
    """Tokens of 0, 1, 5 and 16 regions against torch with the same checkpoint, network by an independent package."""
    layout, folder = Layout(region_grid=2), _folder()
    encoder = GroundedEncoder(prepared(folder, layout), layout)
    maps = graph.projections(efficientnet.FEATURE_DIM, layout.token_dim)
    counts = (0, 1, 5, 16)
    feeds: dict[str, Any] = {"counts": np.array(counts), "octaves": np.array(graph.OCTAVES), **maps._asdict()}
    own: dict[str, Any] = {}
    for count in counts:
        packed = encoder.pack([scenes.scene(count).image], [_boxes(count)])
        feeds |= {f"{name}_{count}": value for name, value in packed.feeds.items()}
        own |= {f"{n}_{count}": v for n, v in zip(("base_tokens", "region_tokens"), encoder.run(packed), strict=True)}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        np.savez(place / "in.npz", **feeds)
        job = {
            "to": "tokens",
            "wheel": str(_wheel(place)),
            "weights": str(efficientnet.fetch(folder)),
            "inputs": str(place / "in.npz"),
            "out": str(place / "out.npz"),
        }
        _peer(python, job)
        theirs = dict(np.load(place / "out.npz"))
    for count in counts:
        worst = max(
            (float(np.abs(own[n] - theirs[n]).max()) for n in own if n.endswith(f"_{count}") and own[n].size),
            default=0.0,
        )
        largest = float(np.abs(own[f"base_tokens_{count}"]).max())
        shapes = own[f"base_tokens_{count}"].shape, own[f"region_tokens_{count}"].shape
        click.echo(f"torch: N={count:2d}: largest difference {worst:.1e} (values up to {largest:.2f}), {shapes}")


def export(python: str) -> None:
    """Random ViT-B and MobileNetV2 by optimum-onnx, and how far the graph is from torch."""
    for network in ("vit-b", "mobilenet-v2"):
        folder = _folder() / network
        if not (folder / "answer.npz").exists():
            folder.mkdir(parents=True, exist_ok=True)
            _peer(python, {"to": "export", "network": network, "out": str(folder)})
        data = np.load(folder / "answer.npz")
        session = OnnxSession(folder / "model.onnx", thread_count=2)
        found = session.run({session.input_names[0]: data["pixels"]}, ["last_hidden_state"])[0]
        click.echo(f"export: {network}: largest difference to torch {np.abs(found - data['answer']).max():.1e}")


def bits(threads: int, rounds: int, only: Sequence[str]) -> None:
    """Each network in full precision and in fewer bits, timed in turns; slower is reported as a regression."""
    for name, paths, feeds, outputs in _ladders(only):
        sessions = {kind: OnnxSession(path, thread_count=threads) for kind, path in paths.items()}
        times = _in_turns({k: partial(s.run, feeds, outputs) for k, s in sessions.items()}, rounds)
        reference = sessions["fp32"].run(feeds, outputs)[0].ravel()
        click.echo(f"bits: {name}: fp32 {np.median(times['fp32']) * 1e3:.1f} ms, {threads} thread(s)")
        for kind in list(paths)[1:]:
            ratio = ratio_interval(times["fp32"], times[kind])
            found = sessions[kind].run(feeds, outputs)[0].ravel()
            cosine = float(found @ reference / np.linalg.norm(found) / np.linalg.norm(reference))
            word = "  REGRESSION: slower than fp32" if ratio.mid < 1 else ""
            click.echo(
                f"  {kind:12s} {np.median(times[kind]) * 1e3:7.1f} ms, {ratio.mid:.2f} x fp32 "
                f"[{ratio.low:.2f}, {ratio.high:.2f}], cosine {cosine:.4f}{word}"
            )


def roi(threads: int, train_count: int, test_count: int) -> None:
    """Accuracy with 95 % intervals of the whole image, of the same cost without regions, of regions, of int8."""
    found = study.compare(_folder(), train_count=train_count, test_count=test_count, thread_count=threads)
    click.echo(
        f"roi: {train_count} scenes to train, {test_count} to test, proposals find {found['proposal_recall']:.1%}"
    )
    for name, kinds in found["answers"].items():
        parts = (f"{k} {s['share']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for k, s in kinds.items())
        click.echo(f"  {name:8s} {'; '.join(parts)}")
    for name, d in found["differences"].items():
        click.echo(f"  {name}: {d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]")


def _ladders(only: Sequence[str]) -> list[tuple[str, dict[str, Path], dict[str, Any], list[str]]]:
    """Name, graph of each kind, feeds and outputs of every network that is there."""
    folder = _folder()
    image, found = scenes.scene(1).image, []
    for layout in (Layout(), Layout(network="dinov2-s", crop_px=224)):
        if only and layout.network not in only:
            continue
        path = prepared(folder, layout)
        kinds = {"fp32": path, "int8": quantised(path, layout, 8)}
        if layout.network == "dinov2-s":
            kinds["int4"] = quantised(path, layout, 4)
        encoder = GroundedEncoder(path, layout)
        feeds: dict[str, Any] = dict(encoder.pack([image], [_boxes(2)]).feeds)
        if layout.network == "dinov2-s":
            feeds["input_image"] = np.concatenate([feeds["base"], feeds["crops"]])
        found.append((f"{layout.network}, image and 2 regions", kinds, feeds, ["base_tokens"]))
    for network in ("vit-b", "mobilenet-v2"):
        path = folder / network / "model.onnx"
        if not path.exists() or (only and network not in only):
            continue
        feeds = {"pixel_values": np.load(folder / network / "answer.npz")["pixels"]}
        kinds = {"fp32": path, "dynamic-int8": path.with_name("dynamic-int8.onnx")}
        if not kinds["dynamic-int8"].exists():
            quantize_dynamic(path, kinds["dynamic-int8"])
        if network == "vit-b":
            kinds["int4"] = path.with_name("int4.onnx")
            if not kinds["int4"].exists():
                quantize_weights(path, kinds["int4"], bits=4)
        else:
            kinds["static-int8"] = path.with_name("static-int8.onnx")
            if not kinds["static-int8"].exists():
                rng = np.random.default_rng(0)
                samples = [{"pixel_values": rng.standard_normal((1, 3, 224, 224), np.float32)} for _ in range(8)]
                quantize_static(path, kinds["static-int8"], samples)
        found.append((network, kinds, feeds, ["last_hidden_state"]))
    return found


def _in_turns(calls: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, list[float]]:
    """Seconds of each call, one of each a round, after two rounds to warm up."""
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            begin = perf_counter()
            call()
            if turn >= 2:
                times[name].append(perf_counter() - begin)
    return times


def _boxes(count: int) -> Any:
    low = np.random.default_rng(4).uniform(0, 0.85, (16, 2))
    return np.concatenate([low, low + 0.1], axis=1)[:count]


def _encoder(threads: int = 1) -> GroundedEncoder:
    return GroundedEncoder(prepared(_folder(), Layout()), Layout(), thread_count=threads)


def _folder() -> Path:
    return cache_dir() / "vision"


def _wheel(folder: Path) -> Path:
    """The peer's wheel: Python imports from it as it is."""
    wheel_member(PEER_PACKAGE, "efficientnet_lite_pytorch/__init__.py", folder)
    return next(folder.glob("*.whl"))


def _peer(python: str, job: dict[str, Any]) -> None:
    command = [python, str(Path(__file__).with_name("_vision_torch.py")), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"{python}: {' '.join(done.stderr.strip().splitlines()[-2:])}")


@click.command(help=__doc__)
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Which figures; several may be given.")
@click.option("--python", default="", help="Interpreter with torch, for torch and export.")
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(6), default=15, show_default=True, help="Fewer have no interval.")
@click.option("--network", "only", multiple=True, help="Of bits: lite0, dinov2-s, vit-b, mobilenet-v2; all by default.")
@click.option("--train-count", default=240, show_default=True)
@click.option("--test-count", default=120, show_default=True)
def main(
    parts: tuple[str, ...],
    python: str,
    threads: int,
    rounds: int,
    only: tuple[str, ...],
    train_count: int,
    test_count: int,
) -> None:
    """Print the figures asked for; without --part all that can be had."""
    wanted = parts or tuple(p for p in PARTS if python or p not in {"torch", "export"})
    if not python and {"torch", "export"} & set(wanted):
        raise click.UsageError("torch and export need --python")
    run: dict[str, Callable[[], None]] = {
        "regions": regions,
        "cost": lambda: cost(threads, rounds),
        "torch": lambda: against_torch(python),
        "export": lambda: export(python),
        "bits": lambda: bits(threads, rounds, only),
        "roi": lambda: roi(threads, train_count, test_count),
    }
    for part in PARTS:
        if part in wanted:
            run[part]()


if __name__ == "__main__":
    main()
