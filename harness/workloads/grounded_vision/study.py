"""Do regions show more than the whole image alone? The same heads, the same scenes, four ways of seeing.

    base     the whole image at 224 pixels
    wide     the whole image at as many pixels as base and sixteen regions have together: the same cost without regions
    regions  the regions that ``by_contrast`` proposes from the image itself, nothing told
    int8     the same regions through the graph in eight bits, read by the heads that were trained on full precision

Heads see 49, 196 and at most 16 tokens a scene. Trained on scenes of one seed, tested on those of another.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.workloads.grounded_vision import answer, scenes
from harness.workloads.grounded_vision.boxes import iou
from harness.workloads.grounded_vision.encoder import GroundedEncoder, GroundedTokens, prepared
from harness.workloads.grounded_vision.graph import Layout
from harness.workloads.grounded_vision.propose import by_contrast
from harness.workloads.grounded_vision.quantise import quantised

TRAIN_SEED, TEST_SEED = 11, 12
WIDE_PX: Final = 448
"""224**2 + 16 x 96**2 = 444.5**2; the next multiple of the network's stride."""


class Set(NamedTuple):
    """Scenes (images dropped), their questions, and what each way of seeing gives."""

    scenes: list[scenes.Scene]
    questions: list[list[scenes.Question]]
    views: dict[str, list[answer.View]]
    proposal_recall: float


def compare(
    folder: Path, *, train_count: int = 240, test_count: int = 120, with_int8: bool = True, thread_count: int = 1
) -> dict[str, Any]:
    """Accuracy of each way of seeing by kind of question, and paired differences to ``base`` and ``wide``.

    Args:
        folder: Where weights and graphs are kept.
        train_count: Scenes to train on.
        test_count: Scenes to test on.
        with_int8: Try the quantized graph too (making it needs the extra ``quantize``).
        thread_count: Threads of a session call.
    """
    encoders = _encoders(folder, with_int8, thread_count)
    learn = collect(encoders, TRAIN_SEED, train_count, ("base", "wide", "regions"))
    test = collect(encoders, TEST_SEED, test_count, tuple(encoders))
    for encoder in encoders.values():
        encoder.close()
    found: dict[str, Any] = {"train_count": train_count, "test_count": test_count, "answers": {}, "differences": {}}
    heads = {n: answer.train(v, learn.scenes, learn.questions) for n, v in learn.views.items()}
    outcomes = {}
    for name, views in test.views.items():
        used = heads["regions" if name == "int8" else name]
        outcomes[name] = answer.outcomes(used, views, test.scenes, test.questions)
        shares = {k: answer.scored(sum(o), len(o))._asdict() for k, o in outcomes[name].items()}
        every = [right for k in answer.KINDS for right in outcomes[name][k]]
        found["answers"][name] = shares | {"all": answer.scored(sum(every), len(every))._asdict()}
    groups = [at for k in answer.KINDS for at, asked in enumerate(test.questions) for q in asked if q.kind == k]
    for a, b in (("regions", "base"), ("regions", "wide"), ("int8", "regions")):
        if a in outcomes:
            pair = [[right for k in answer.KINDS for right in outcomes[n][k]] for n in (a, b)]
            mean, low, high = answer.paired_difference(pair[0], pair[1], groups=groups)
            found["differences"][f"{a} - {b}"] = {"mean": mean, "low": low, "high": high}
    found["proposal_recall"] = test.proposal_recall
    return found


def collect(encoders: Mapping[str, GroundedEncoder], seed: int, count: int, names: tuple[str, ...]) -> Set:
    """Scenes of a seed as seen by some of the encoders (``base`` and ``regions`` are one)."""
    made: list[scenes.Scene] = []
    asked, hit, total = [], 0, 0
    views: dict[str, list[answer.View]] = {n: [] for n in names}
    for at, scene in enumerate(scenes.scenes(seed, count)):
        regions = by_contrast(scene.image)
        hit += int((iou(scene.boxes, regions).max(axis=1, initial=0) >= answer.BOX_OVERLAP).sum())
        total += len(scene.things)
        found = encoders["regions"].encode(scene.image, regions)
        views["base"].append(_whole(found))
        views["regions"].append(_regions(found, regions))
        if "wide" in views:
            views["wide"].append(_whole(encoders["wide"].encode(scene.image)))
        if "int8" in views:
            views["int8"].append(_regions(encoders["int8"].encode(scene.image, regions), regions))
        # The pixels are done with; a view of one byte keeps the shape that questions need.
        empty = np.broadcast_to(np.uint8(0), scene.image.shape)
        made.append(scene._replace(image=empty))
        asked.append(scenes.questions(scene, (seed, at, 1)))
    return Set(made, asked, views, hit / max(1, total))


def _encoders(folder: Path, with_int8: bool, thread_count: int) -> dict[str, GroundedEncoder]:
    layout, wide = Layout(), Layout(base_px=WIDE_PX)
    path = prepared(folder, layout)
    one = GroundedEncoder(path, layout, thread_count=thread_count)
    found = {"base": one, "regions": one}
    found["wide"] = GroundedEncoder(prepared(folder, wide), wide, thread_count=thread_count)
    if with_int8:
        found["int8"] = GroundedEncoder(quantised(path, layout, 8), layout, thread_count=thread_count)
    return found


def _whole(found: GroundedTokens) -> answer.View:
    kept = found.mask[0] & (found.regions[0] < 0)
    return answer.View(found.tokens[0][kept], found.boxes[0][kept])


def _regions(found: GroundedTokens, regions: Any) -> answer.View:
    kept = found.regions[0] >= 0
    return answer.View(found.tokens[0][kept].reshape(len(regions), found.tokens.shape[2]), regions)
