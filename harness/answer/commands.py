"""What to type to run a model as it was predicted, by the program that was asked about."""

import re
from collections.abc import Iterator
from typing import Final

from harness.answer.case import Case
from harness.answer.resolve import Model, published_file
from harness.core.device import RAM
from harness.core.placement import Placement
from harness.core.prediction import PartKind
from harness.core.program import option_of, program_named
from harness.core.scenario import Scenario
from harness.core.units import MIB
from harness.core.way import Way, WayKind
from harness.memory.verdict import needed_bytes_of
from harness.speed.streamed import STREAMING_SYSTEMS

HANDHELD: Final = ("phone", "tablet")
"""Kinds of devices on which nobody types a command."""
_OLLAMA_BYTES_MAX: Final = 45e9
"""Files that are larger come in parts, which Ollama does not read (ollama/ollama#5245)."""
_WITHOUT_COMMAND: Final = frozenset({"jan", "koboldcpp", "llama-cpp-python", "lm-studio", "mlc-llm", "vllm"})
"""Programs that people set up in a window or from Python."""
_DEVICES: Final = {"cuda": "CUDA0", "rocm": "ROCm0", "vulkan": "Vulkan0", "metal": "MTL0", "sycl": "SYCL0"}
"""Names of the first device of an api. Source: llama-server --list-devices."""
_HEADS: Final = {"mtp": "draft-mtp", "eagle": "draft-eagle3", "dflash": "draft-dflash"}
"""llama-server's --spec-type for a head of the model's own."""


def commands_of(case: Case, way: Way) -> tuple[str, ...]:
    """What starts it so, the program that was asked about first; empty where no program does it by a command.

    Weights that are streamed are run by `edge-harness stream`, where the system lets it; on a phone nobody types.
    None of these programs drives an NPU.
    """
    if not way.runs or case.device.kind in HANDHELD or way.prediction.api == "npu":
        return ()
    if case.model.format is not None:
        return tuple(_of_format(case, way))
    name = program_named(way.scenario.program).name
    if way.kind.is_read and way.kind is not WayKind.MAPPED:
        lines = [_stream(case, way)]
    elif name == "llama-bench":
        lines = [_llama_bench(case, way)]
    elif name == "ollama":
        lines = [_ollama(case, way)]
    elif name == "mlx":
        lines = [_mlx(case, way)]
    elif name in _WITHOUT_COMMAND:
        lines = []
    else:
        lines = [_llama_server(case, way)]
        if way.scenario.program in {"", "llama-server"}:
            lines.append(_ollama(case, way))
    return tuple(filter(None, lines))


def _of_format(case: Case, way: Way) -> Iterator[str]:
    """What starts each program that loads the model's format by the way's api, the one asked for first.

    Nothing where no repository or folder of it is known: its name would be made up.
    """
    own, place = case.model.format, case.model.repo or str(case.model.path or "")
    if own is None or not place or case.draft or case.head:
        return
    asked = program_named(way.scenario.program).name
    count = case.device.card_count if way.kind is WayKind.CARDS else 1
    for one in sorted(own.programs, key=lambda one: one.name != asked):
        if way.prediction.api not in one.apis:
            continue
        told = {
            "repo": place,
            "name": place.rpartition("/")[2],
            "context": way.scenario.context_tokens,
            "cards": count,
            "file": own.file or f"{place.rpartition('/')[2]}.litertlm",
        }
        yield (one.command + (one.cards if count > 1 else "")).format(**told)


def way_flags(case: Case, way: Way) -> str:
    """Where everything lies, as options of llama.cpp's programs; empty where they do so unasked."""
    device, api = case.device, way.prediction.api
    has_gpu = any(engine.kind == "gpu" for engine in device.engines)
    if api == "cpu":
        return "-dev none" if has_gpu else ""
    blocks = case.model.weights.shape.layer_count
    flags = way.scenario.placement.flags(blocks)
    # A layer that drafts comes on top of those that are counted.
    words = [flags.replace(f"-ngl {blocks + 1}", "-ngl all", 1)]
    if way.card is not None:
        words.append(f"-sm none -mg {way.card}" if way.card else "-sm none")
    if api != device.api("") and api in _DEVICES:
        words.append(f"-dev {_DEVICES[api]}")
    return " ".join(words)


def _llama_server(case: Case, way: Way) -> str:
    """llama-server's (or llama-cli's) command, which makes nothing of its own beside what is told."""
    scenario = way.scenario
    name = program_named(scenario.program).name
    program = "llama-cli" if name == "llama-cli" else "llama-server"
    draft = ""
    if case.draft is not None:
        draft = f"{_file(case.draft, '-hfd', '-md')} --spec-type draft-simple"
    if case.head:
        draft = f"--spec-type {_HEADS[case.head]}"
        if case.head != "mtp":
            draft = f"-md {_local(case.model, case.head)} {draft}"
        if scenario.draft_tokens:
            draft += f" --spec-draft-n-max {scenario.draft_tokens}"
    kept = "--embeddings" if case.model.reads_only else kept_flags(case, way)
    words = [
        f"{program} {_file(case.model, '-hf', '-m')} -c {scenario.context_tokens}",
        _tower(case),
        way_flags(case, way),
        draft,
        scenario.flags,
        _own_options(scenario.program, f"{scenario.flags} {kept}"),
        kept,
    ]
    return " ".join(filter(None, words))


def _llama_bench(case: Case, way: Way) -> str:
    """llama-bench's command; empty for what it cannot do: drafts, pictures, several users."""
    scenario = way.scenario
    if case.draft or case.head or case.model.tower_bytes or scenario.batch_count > 1:
        return ""
    depth = f"-d {scenario.depth_tokens}" if scenario.depth_tokens else ""
    words = [
        f"llama-bench {_file(case.model, '-hf', '-m')} -p {scenario.prompt_tokens} -n {scenario.new_tokens}",
        depth,
        # It offloads all unasked, and knows no word for it.
        way_flags(case, way).replace("-ngl all", ""),
        scenario.flags.replace("--no-repack", "--repack 0"),
        _own_options(scenario.program),
    ]
    return " ".join(" ".join(words).split())


def _own_options(program: str, said: str = "") -> str:
    """The options that were named with the program, but for those that are ``said`` already."""
    there = {option_of(word) for word in said.split() if word.startswith("-")}
    own = re.findall(r"(-\S+)((?: [^-]\S*)?)", program.partition(" ")[2])
    return " ".join(option + value for option, value in own if option_of(option) not in there)


def _tower(case: Case) -> str:
    """What loads the image tower, or keeps it out: a repository's is loaded unasked."""
    is_there = bool(published_file(case.model))
    if case.model.tower_bytes:
        return "" if is_there else "--mmproj mmproj-F16.gguf"
    return "--no-mmproj" if is_there and case.model.tower is not None else ""


def _file(model: Model, from_hub: str, local: str) -> str:
    """The model's file: of the hub where a repository is known to have it, else a local one."""
    if repository := published_file(model):
        return f"{from_hub} {repository}"
    return f"{local} {model.path or _local(model)}"


def _local(model: Model, *more: str) -> str:
    name = "-".join((*model.shown, *more)).rpartition("/")[2]
    return re.sub(r"[^\w.+-]+", "-", name) + ".gguf"


def _stream(case: Case, way: Way) -> str:
    """edge-harness's own streaming under the limit that the verdict counted with; empty where it is told less."""
    threads = way.scenario.thread_count
    told = way.scenario.replace(thread_count=0).flags or case.draft or case.head
    if told or case.device.os not in STREAMING_SYSTEMS:
        return ""
    name, quant = case.model.shown
    words = [
        f"edge-harness stream {case.model.path or name} -q {quant}",
        f"--ram-budget {way.prediction.verdict.available_bytes // MIB}MiB -c {way.scenario.context_tokens}",
    ]
    if threads:
        words.append(f"-t {threads}")
    return " ".join(words)


def _ollama(case: Case, way: Way) -> str:
    """Ollama's command, where it does the same; empty where it would not."""
    repository = published_file(case.model)
    scenario = way.scenario
    if not repository or case.model.weights.file_bytes > _OLLAMA_BYTES_MAX or _is_told(case, way):
        return ""
    if program_named(scenario.program).name != "ollama" and scenario.placement != Placement():
        return ""
    return f"ollama run hf.co/{repository}  # then type: /set parameter num_ctx {scenario.context_tokens}"


def _mlx(case: Case, way: Way) -> str:
    """mlx-lm's command; empty where no repository of it, or folder, was named: none is guessed."""
    place = case.model.path or case.model.repo
    return f"mlx_lm.server --model {place}" if place and not _is_told(case, way) else ""


def _is_told(case: Case, way: Way) -> bool:
    """Whether the way has what only llama.cpp's options say: a draft, a card, an api, a cache; some choose a batch."""
    scenario = way.scenario
    if program_named(scenario.program).name in {"ollama", "mlx"}:
        scenario = scenario.replace(ubatch_tokens=Scenario().ubatch_tokens)
    is_usual = way.prediction.api == case.device.api("")
    return bool(scenario.flags or case.draft or case.head or way.card is not None or not is_usual)


def kept_flags(case: Case, way: Way) -> str:
    """Options that keep what llama-server adds over many turns within the RAM that is left.

    The text is empty where everything has room. Saved states take half of it, or more for one of each slot;
    the caches of other prompts what they leave.
    """
    now = way.prediction
    later = {part.kind: part.anonymous_bytes for part in now.memory.later}
    left = int(case.device.ram.usable_bytes.value) - sum(needed_bytes_of(now.memory.parts, RAM))
    if sum(later.values()) <= left or not later:
        return ""
    words = list[str]()
    states = later.get(PartKind.CHECKPOINTS, 0)
    if states > max(left, 0) / 2:
        most = program_named(way.scenario.program).checkpoints
        count = max(int(most * left / 2 / states), int(states <= most * left))
        words.append(f"--ctx-checkpoints {count}")
        states = states * count // most
    if later.get(PartKind.PROMPT_CACHE, 0) > left - states:
        words.append(f"--cache-ram {max(left - states, 0) // MIB}")
    return " ".join(words)
