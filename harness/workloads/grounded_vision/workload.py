"""Grounded vision as a workload: encode a picture with regions, find and read its text, track objects."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from harness.domain.workload import Cost
from harness.errors import BadDataError, RefusedError, WrongAnswerError
from harness.ports import Operation, WorkloadContext
from harness.workloads._described import Described
from harness.workloads.grounded_vision import cost
from harness.workloads.grounded_vision.boxes import MAX_REGIONS
from harness.workloads.grounded_vision.encoder import BITS, GRID, SIDE, GroundedEncoder, prepared
from harness.workloads.grounded_vision.films import LOOKS_DIM, Errors, detected, film, scored
from harness.workloads.grounded_vision.images import BAND
from harness.workloads.grounded_vision.reading import TextReader
from harness.workloads.grounded_vision.study import compare, followed

_FIND_PX: Final = 640
_FIND_PIXELS: Final = _FIND_PX * _FIND_PX * 3 // 4
_LINE_PX: Final = (48, 320)
_FRAMES: Final = 40
_THINGS: Final = 8


class State(NamedTuple):
    """An encoder, a reader, a picture with regions (one of them text), and a film's detections."""

    encoder: Any
    reader: Any
    image: Any
    regions: Any
    pixels: Any
    film: Any
    detections: Any
    size: Mapping[str, int]


class VisionWorkload(Described):
    """An image and its regions as grounded tokens; text in it; objects over frames."""

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Encoding and text by their layers (``cost``), cutting by two products and passes a window, tracks by code."""
        n, bits = size["region_count"], checked(size)["weight_bits"]
        session = cost.encoder_cost(1 + n, weight_bits=bits)
        width, height = size["image_px"], size["image_px"] * 3 // 4
        finder = cost.finder_cost(_FIND_PIXELS)
        reader = cost.reader_cost(_LINE_PX[1])
        # The files' weights and packed ones, and what a call keeps.
        own = sum(2 * network.weight_bytes + network.activation_bytes for network in (session, finder, reader))
        region_px = max(40, width // 12)  # of the image's width, with its margin
        windows = (
            _window_cost(height, width, SIDE * 3 // 4, SIDE, SIDE),
            *(_window_cost(region_px, region_px, SIDE, SIDE, SIDE) for _ in range(n)),
        )
        flops, passes, turned, bands = (sum(w[at] for w in windows) for at in range(4))
        copied = _window_cost(height, width, _FIND_PX * 3 // 4, _FIND_PX, _FIND_PX)
        one: dict[str, Any] = {"parallel": False, "resident_bytes": own + 3 * width * height}
        called: dict[str, Any] = {"resident_bytes": own, "session_calls_count": 1, "numpy_calls_count": 2}
        return (
            Cost(
                operation="encode",
                kernels=session.kernels,
                python_ops_count=281,
                array_steps_count=cost.RESIZE_STEPS,
                **called,
            ),
            Cost(
                operation="cut",
                flops_count=flops,
                product_dim=12,
                pass_bytes=passes,
                array_steps_count=turned,
                pass_set_bytes=float(1 << 20),  # a band with its product, and the target rows
                python_ops_count=2710 + 1170 * n + 130 * bands,
                numpy_calls_count=55 + 50 * n + 5 * bands,
                **one,
            ),
            Cost(
                operation="find text",
                kernels=finder.kernels,
                flops_count=copied[0] if width > _FIND_PX else 0.0,
                product_dim=12,
                pass_bytes=copied[1] + 60.0 * _FIND_PIXELS,
                pass_set_bytes=float(1 << 22),
                # Turned into channels; labelled, and looked through for each part by scipy.
                array_steps_count=copied[2] + 12.0 * _FIND_PIXELS,
                python_ops_count=9000,
                **(called | {"numpy_calls_count": 120}),
            ),
            Cost(
                operation="read a line",
                kernels=reader.kernels,
                pass_bytes=200.0 * _LINE_PX[0] * _LINE_PX[1],
                pass_set_bytes=float(1 << 20),
                # The largest of 18,710 letters at each of 40 steps, twice.
                array_steps_count=40 * 18_710 / 2.0,
                python_ops_count=2500,
                **(called | {"numpy_calls_count": 60}),
            ),
            Cost(
                operation="track",
                flops_count=4.0 * _THINGS**2 * LOOKS_DIM,
                product_dim=_THINGS,
                pass_bytes=_THINGS * 8 * 16.0 * LOOKS_DIM + 20 * 16.0 * _THINGS**2,
                pass_set_bytes=24.0 * _THINGS * LOOKS_DIM,
                python_ops_count=1580 + 335 * _THINGS,
                numpy_calls_count=60 + 28 * _THINGS,
                **one,
            ),
        )

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Fetch the networks once, cut (and quantize) the encoder's graph once, make a picture.

        Raises:
            FetchError: The weights could not be had.
            RefusedError: A size that there is not.
            MissingPackageError: onnxruntime or onnx is not installed, or what makes a graph of fewer bits.
        """
        folder = context.cache / "vision"
        path = prepared(folder, weight_bits=checked(size)["weight_bits"])
        encoder = GroundedEncoder(path, thread_count=context.thread_count)
        reader = TextReader(folder, thread_count=context.thread_count)
        image, line = picture(size["image_px"], context.seed)
        low = np.random.default_rng(context.seed).uniform(0.05, 0.8, (size["region_count"] - 1, 2))
        regions = np.concatenate([line[None], np.concatenate([low, low + 0.08], axis=1)])
        made = film(context.seed, frame_count=_FRAMES, thing_count=_THINGS)
        seen = detected(made, Errors(), context.seed)
        return State(encoder, reader, image, regions, encoder.pack(image, regions)[0], made, seen, size)

    def operations(self, state: State) -> Sequence[Operation]:
        """The session call; everything before it; text found, and one line read; a film followed."""
        encoder, reader = state.encoder, state.reader
        return (
            Operation("encode", lambda: encoder.run(state.pixels)),
            Operation("cut", lambda: encoder.pack(state.image, state.regions)),
            Operation("find text", lambda: reader.find(state.image, _FIND_PX)),
            Operation("read a line", lambda: reader.read(state.image, state.regions[:1])),
            Operation("track", lambda: followed(state.detections), _FRAMES),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """One session serves any number of regions, none disturbs another; bad boxes are refused; tracks hold.

        Raises:
            WrongAnswerError: One of these is not so.
        """
        encoder, image = state.encoder, state.image
        low = np.random.default_rng(0).uniform(0, 0.8, (3, 2))
        boxes = np.concatenate([low, low + 0.15], axis=1)
        whole = encoder.encode(image, boxes).tokens
        # Dynamic 8-bit ranges are those of the whole batch: there a region does change its neighbours' last digits.
        limit = 1e-4 if state.size["weight_bits"] != 8 else 0.5
        for n in range(len(boxes) + 1):
            part = encoder.encode(image, boxes[:n]).tokens
            worst = float(np.abs(part - whole[: len(part)]).max() / np.abs(whole).max())
            if len(part) != GRID**2 + n or worst > limit:
                raise WrongAnswerError(f"{n} regions: tokens differ by {worst:.2g} from those of {len(boxes)} regions")
        for bad in ((0, 0, 1920, 1080), (0.5, 0.5, 0.5, 0.6), (0.6, 0.1, 0.4, 0.2), (-0.1, 0, 0.5, 0.5)):
            try:
                encoder.encode(image, [bad])
            except BadDataError:
                continue
            raise WrongAnswerError(f"the box {bad} was taken")
        scores = scored(state.film, followed(state.detections))
        if scores.idf1 < 0.98:
            raise WrongAnswerError(f"a film without errors is followed at an IDF1 of {scores.idf1:.2f}")
        return {
            "token_count": GRID**2 + state.size["region_count"],
            "engine": encoder.session.identity(),
            "tracks": scores._asdict(),
        }

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """Words on photographs read from regions and from whole copies, a trained projection, and tracking."""
        return compare(context.cache / "vision", thread_count=context.thread_count)


def picture(width: int, seed: int) -> tuple[Any, Any]:
    """A picture without a photograph's package (smooth colours, noise), and the box of a line in it."""
    rng = np.random.default_rng(seed)
    height = width * 3 // 4
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (37 + 11 * c) + y / (53 - 7 * c) + c) for c in range(3)]
    smooth = 120 + 60 * np.stack(waves, axis=-1) + rng.normal(0, 8, (height, width, 3))
    image = np.clip(smooth, 0, 255).astype(np.uint8)
    # A line as wide as 320 columns of 48 rows once its margin is shown.
    tall = 48 / 1.3 / 960
    return image, np.array([0.1, 0.1, 0.1 + (320 - 0.3 * 48 / 1.3) / 1280, 0.1 + tall])


def _window_cost(rows: int, columns: int, tall: int, wide: int, side: int) -> tuple[float, float, float, float]:
    """(FLOP of products, bytes of passes, values turned, bands) of one window of rows x columns put into a square.

    A band of rows meets the target rows it reaches, a / b of them and three, first along rows, then along columns. Rows
    are bytes made floats (a cast, twice 5 bytes); columns come turned (a copy in another order) and are floats already
    (a copy of a band); each band adds its product to the target (12 bytes a value). The result is scaled, shifted and
    divided (48 bytes a value), and put into its place in the square channel by channel (in another order again).
    """
    flops = passes = bands = 0.0
    for before, after, across, bytes_each in ((rows, tall, columns, 10.0), (columns, wide, tall, 8.0)):
        of_line = -(-before // BAND)
        reached = min(BAND, before) * after / before + 3
        values = 3.0 * across
        flops += 2.0 * values * before * min(reached, after)
        passes += values * (before * bytes_each + of_line * min(reached, after) * 12.0 + 4.0 * after)
        bands += of_line
    turned = 3.0 * (tall * columns + tall * wide)
    return flops, passes + 3.0 * (tall * wide * 48.0 + side * side * 4.0), turned, bands


def checked(size: Mapping[str, int]) -> Mapping[str, int]:
    """The size; RefusedError where there are no such bits, number of regions or image."""
    if size["weight_bits"] not in BITS:
        raise RefusedError(f"weight_bits {size['weight_bits']}; one of {', '.join(map(str, BITS))}")
    if not 1 <= size["region_count"] <= MAX_REGIONS:
        raise RefusedError(f"{size['region_count']} regions: 1 to {MAX_REGIONS}")
    if size["image_px"] < 320:
        raise RefusedError(f"image_px {size['image_px']}: at least 320")
    return size
