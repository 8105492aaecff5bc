"""Grounded vision as a workload: cut, encode and track at a given number of regions."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final, NamedTuple

import numpy as np

from harness.domain.workload import NATIVE_OPS, Cost
from harness.errors import BadDataError, RefusedError, WrongAnswerError
from harness.ports import Operation, WorkloadContext

NETWORKS: Final = {1: "lite0", 2: "dinov2-s"}
_CHECK_SCENES: Final = 10
_FRAMES: Final = 40


class State(NamedTuple):
    """An encoder, one scene with regions, a film's detections, and the size."""

    encoder: Any
    scene: Any
    regions: Any
    packed: Any
    film: Any
    detections: Any
    size: Mapping[str, int]


class VisionWorkload:
    """An image and its regions as grounded tokens; objects over frames."""

    name = "grounded_vision"
    title = "Grounded vision: image and regions to tokens in one session call, object tracks"
    extra = "vision"
    needs_model = False
    sizes: Mapping[str, Mapping[str, int]] = {
        "small": {"region_count": 2, "image_px": 640, "network": 1, "weight_bits": 32},
        "default": {"region_count": 8, "image_px": 1280, "network": 1, "weight_bits": 32},
        "large": {"region_count": 16, "image_px": 1920, "network": 1, "weight_bits": 32},
        "int8": {"region_count": 8, "image_px": 1280, "network": 1, "weight_bits": 8},
        "dinov2-s": {"region_count": 2, "image_px": 1280, "network": 2, "weight_bits": 32},
        "dinov2-s-int8": {"region_count": 2, "image_px": 1280, "network": 2, "weight_bits": 8},
        "dinov2-s-int4": {"region_count": 2, "image_px": 1280, "network": 2, "weight_bits": 4},
    }

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Encoding by the layers (``cost``), cutting by its two products and passes a window, a track by its code."""
        from harness.workloads.grounded_vision.cost import CUBIC_VALUE_STEPS, session_cost

        layout, n = layout_of(size), size["region_count"]
        session = session_cost(layout, 1, n, weight_bits=size["weight_bits"])
        width, height = size["image_px"], size["image_px"] * 3 // 4
        own = 2 * session.weight_bytes + session.activation_bytes  # the file's weights, and packed ones
        image_bytes = 3 * width * height
        # A region is some 1/12 of the image wide with its margin.
        region_px = max(40, width // 12)
        windows = (
            _window_cost(height, width, layout.base_px * 3 // 4, layout.base_px, layout.base_px),
            *(_window_cost(region_px, region_px, layout.crop_px, layout.crop_px, layout.crop_px) for _ in range(n)),
        )
        flops, passes, turned, bands = (sum(w[at] for w in windows) for at in range(4))
        return (
            Cost(
                operation="encode",
                flops_count=0.0,
                moved_bytes=0.0,
                kernels=session.kernels,
                resident_bytes=own,
                python_ops_count=281,
                numpy_calls_count=2,
                session_calls_count=1,
                array_steps_count=CUBIC_VALUE_STEPS * session.cubic_values_count,
            ),
            Cost(
                operation="cut",
                flops_count=flops,
                moved_bytes=0.0,
                product_dim=12,
                pass_bytes=passes,
                array_steps_count=turned,
                pass_set_bytes=float(1 << 20),  # a band with its product, and the target rows
                resident_bytes=own + image_bytes + 24 * layout.base_px**2,
                parallel=False,
                python_ops_count=2710 + 1170 * n + 130 * bands,
                numpy_calls_count=55 + 50 * n + 5 * bands,
            ),
            Cost(
                operation="track",
                flops_count=4.0 * n * n * layout.token_dim,
                moved_bytes=0.0,
                # Looks of each detection: made an array, its norm, scaled; mixed with the track's: eight passes of
                # doubles.
                pass_bytes=n * 8 * 16.0 * layout.token_dim + 20 * 16.0 * n * n,
                pass_set_bytes=24.0 * n * layout.token_dim,
                resident_bytes=own,
                parallel=False,
                product_dim=n,
                # An appearance is a tuple of floats: making an array of it takes one call in C for each value.
                python_ops_count=2040 + (580 + NATIVE_OPS * layout.token_dim) * n,
                numpy_calls_count=60 + 42 * n,
            ),
        )

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Fetch the weights once, build (and quantize) the graph once, make a scene with as many objects as regions.

        Raises:
            FetchError: The weights could not be had.
            RefusedError: A size that there is not.
            MissingPackageError: onnxruntime is not installed, or what making a quantized graph needs.
        """
        from harness.workloads.grounded_vision import scenes
        from harness.workloads.grounded_vision.encoder import GroundedEncoder, prepared
        from harness.workloads.grounded_vision.propose import by_contrast
        from harness.workloads.grounded_vision.quantise import quantised

        layout, wanted = layout_of(size), size["region_count"]
        path = quantised(prepared(context.cache / "vision", layout), layout, size["weight_bits"])
        encoder = GroundedEncoder(path, layout, thread_count=context.thread_count)
        width = size["image_px"]
        made = scenes.scene((context.seed, 0), width=width, height=width * 3 // 4, most=12)
        found = by_contrast(made.image)
        rng = np.random.default_rng(context.seed)
        more = rng.uniform(0.05, 0.8, (max(0, wanted - len(found)), 2))
        regions = np.concatenate([found, np.concatenate([more, more + 0.08], axis=1)])[:wanted]
        packed = encoder.pack([made.image], [regions])
        film = scenes.film(context.seed, frame_count=_FRAMES, thing_count=wanted)
        looks = encoder.run(packed)[1][:, 0].astype(float)
        return State(encoder, made, regions, packed, film, _detections(film, looks), size)

    def operations(self, state: State) -> Sequence[Operation]:
        """The session call; everything before it; one frame of a film given to a tracker."""
        from harness.workloads.grounded_vision.tracks import Tracker

        encoder = state.encoder
        turn = count()
        tracker = [Tracker()]

        def track() -> object:
            at = next(turn) % len(state.detections)
            if at == 0:
                tracker[0] = Tracker()
            return tracker[0].step(state.detections[at])

        return (
            Operation("encode", lambda: encoder.run(state.packed)),
            Operation("cut", lambda: encoder.pack([state.scene.image], [state.regions])),
            Operation("track", track),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """One session serves 0 to 16 regions; regions do not disturb each other; bad boxes are refused; tracks hold.

        Raises:
            WrongAnswerError: One of these is not so, or regions show less than the whole image.
        """
        from harness.workloads.grounded_vision.boxes import MAX_REGIONS

        encoder, image = state.encoder, state.scene.image
        rng = np.random.default_rng(0)
        low = rng.uniform(0, 0.8, (MAX_REGIONS, 2))
        boxes = np.concatenate([low, low + rng.uniform(0.03, 0.2, (MAX_REGIONS, 2))], axis=1)
        counts = range(MAX_REGIONS + 1) if state.size["network"] == 1 else (0, 1, 3)
        exact = state.size["weight_bits"] == 32
        whole = encoder.encode(image, boxes[: max(counts)])
        scale = float(np.abs(whole.tokens).max())
        for n in counts:
            part = encoder.encode(image, boxes[:n])
            length = encoder.layout.token_count(n)
            worst = float(np.abs(part.tokens[0] - whole.tokens[0, :length]).max())
            if part.tokens.shape[1] != length or (exact and worst > 1e-4 * scale):
                raise WrongAnswerError(f"{n} regions: tokens differ by {worst:.2g} from those of {max(counts)} regions")
        for bad in ((0, 0, 1920, 1080), (0.5, 0.5, 0.5, 0.6), (0.6, 0.1, 0.4, 0.2), (-0.1, 0, 0.5, 0.5)):
            try:
                encoder.encode(image, [bad])
            except BadDataError:
                continue
            raise WrongAnswerError(f"the box {bad} was taken")
        switches, seen = _identity_switches(state)
        if switches > seen * 0.02:
            raise WrongAnswerError(f"{switches} of {seen} detections changed their identity")
        found = {
            "region_counts": len(counts),
            "token_count": encoder.layout.token_count(state.size["region_count"]),
            "engine": encoder.session.identity(),
            "identity_switch_count": switches,
            "detection_count": seen,
        }
        return {**found, **_neighbours(encoder)} if state.size["network"] == 1 else found

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """Regions against the whole image alone on synthetic questions, with intervals."""
        from harness.workloads.grounded_vision import study

        return study.compare(context.cache / "vision", thread_count=context.thread_count)


def _window_cost(rows: int, columns: int, tall: int, wide: int, side: int) -> tuple[float, float, float, float]:
    """(FLOP of products, bytes of passes, values turned, bands) of one window of rows x columns put into a square.

    A band of rows meets the target rows it reaches, a / b of them and three, first along rows, then along columns. Rows
    are bytes made floats (a cast, twice 5 bytes); columns come turned (a copy in another order) and are floats already
    (a copy of a band); each band adds its product to the target (12 bytes a value). The result is scaled, shifted and
    divided (48 bytes a value), and put into its place in the square channel by channel (in another order again).
    """
    from harness.workloads.grounded_vision.images import BAND

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


def layout_of(size: Mapping[str, int]) -> Any:
    """The layout of a size.

    Raises:
        RefusedError: No such network, bits or number of regions.
    """
    from harness.workloads.grounded_vision.boxes import MAX_REGIONS
    from harness.workloads.grounded_vision.graph import Layout
    from harness.workloads.grounded_vision.quantise import BITS

    if size["network"] not in NETWORKS:
        raise RefusedError(f"network {size['network']}; 1 is {NETWORKS[1]}, 2 is {NETWORKS[2]}")
    if size["weight_bits"] not in BITS:
        raise RefusedError(f"weight_bits {size['weight_bits']}; one of {', '.join(map(str, BITS))}")
    if size["region_count"] > MAX_REGIONS:
        raise RefusedError(f"{size['region_count']} regions: at most {MAX_REGIONS}")
    if size["image_px"] < 320:
        raise RefusedError(f"image_px {size['image_px']}: at least 320")
    network = NETWORKS[size["network"]]
    return Layout(network=network, crop_px=96 if network == "lite0" else 224)


def _detections(film: Any, looks: Any) -> list[list[Any]]:
    """Each frame's detections; an object's looks are those of a region, the same in all frames."""
    from harness.workloads.grounded_vision.tracks import Detection

    found = []
    for frame in film:
        row = []
        for number, thing in zip(frame.ids, frame.things, strict=True):
            x0, y0, x1, y1 = (float(np.clip(v, 0, 1)) for v in thing.box(1280, 960))
            look = tuple(looks[number % len(looks)].tolist())
            row.append(Detection(box=(x0, y0, x1, y1), label=f"{thing.colour} {thing.shape}", appearance=look))
        found.append(row)
    return found


def _identity_switches(state: State) -> tuple[int, int]:
    from harness.workloads.grounded_vision.tracks import Tracker

    tracker, switches, seen = Tracker(), 0, 0
    last: dict[int, int] = {}
    for frame, detections in zip(state.film, state.detections, strict=True):
        for number, track in zip(frame.ids, tracker.step(detections), strict=True):
            switches += last.get(number, track) != track
            last[number] = track
            seen += 1
    return switches, seen


def _neighbours(encoder: Any) -> dict[str, float]:
    """Share of objects whose nearest neighbour among the others, by token, is of their class: region against cell.

    Raises:
        WrongAnswerError: Regions do no better than the cells of the whole image.
    """
    from harness.workloads.grounded_vision import scenes
    from harness.workloads.grounded_vision.boxes import MAX_REGIONS, centres

    kinds: list[int] = []
    rows: dict[str, list[Any]] = {"region": [], "base": []}
    grid = encoder.layout.base_token_count
    for made in scenes.scenes(5, _CHECK_SCENES):
        boxes = made.boxes[:MAX_REGIONS]
        found = encoder.encode(made.image, boxes)
        for at, (x, y) in enumerate(centres(boxes)):
            cell = found.boxes[0, :grid]
            inside = (cell[:, 0] <= x) & (x < cell[:, 2]) & (cell[:, 1] <= y) & (y < cell[:, 3])
            rows["base"].append(found.tokens[0, int(inside.argmax())])
            rows["region"].append(found.tokens[0, grid + at * encoder.layout.region_token_count])
            kinds.append(made.things[at].class_index)
    shares = {}
    for name, table in rows.items():
        tokens = np.stack(table) - np.mean(table, axis=0)
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        near = tokens @ tokens.T
        np.fill_diagonal(near, -2)
        shares[f"{name}_neighbour_share"] = float(np.mean(np.array(kinds)[near.argmax(axis=1)] == kinds))
    if shares["region_neighbour_share"] <= shares["base_neighbour_share"]:
        raise WrongAnswerError(f"regions show no more than the whole image: {shares}")
    return shares
