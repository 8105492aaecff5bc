"""From what a user names (a card, a GGUF file, a config.json, a device, this machine) to domain values."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from harness.core.device import APIS, Calibration, Device
from harness.core.errors import (
    HOW_TO_NAME_A_MODEL,
    BadDataError,
    FetchError,
    HarnessError,
    InputError,
    RefusedError,
    UnknownNameError,
    what_is_there,
)
from harness.core.foreign import typed
from harness.core.model import ModelCard, ModelShape, Weights
from harness.core.paths import as_path, data_files, table_rows
from harness.core.placement import Placement
from harness.core.printable import clean
from harness.core.program import program_named
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.models.cards import load_card
from harness.models.formats import Format, by_bits, format_named
from harness.models.ggml import BLOCKS, KV_TYPES
from harness.models.guess import Guess
from harness.models.names import (
    hub_parts,
    is_another,
    is_hub,
    is_repository,
    load_model,
    match,
    nearest,
    reads_only,
)
from harness.models.quant import split, understood
from harness.models.quant_mix import quant_named
from harness.models.vision import ImageTower, tower_of
from harness.models.weights import weights_of

if TYPE_CHECKING:  # no question about a known model reads a file or asks a hub
    from harness.models.hub import Repository

PROBED_NAME: Final = "this-machine"
"""Stem of the profile that ``edge-harness devices probe`` writes into the user's devices folder."""
THIS_MACHINE: Final = ("this", "here", PROBED_NAME)

_TIMED: Final = ("ik", "xllamacpp")
"""Runtimes with costs of their own beside llama.cpp's."""
_SAME_FILE_RATIO: Final = 0.005
_SAME_COUNT_RATIO: Final = 0.1
"""How far a card's count of weights may lie from its shape's; those that ship are within 2.1 %."""
_NO_WIDTHS: Final = "scratch of the image tower is estimated, as a third of its file: nobody told its widths"
_FILES: Final = frozenset({".gguf", ".json", ".toml", ".onnx"})
_TYPED_REPO: Final = re.compile(
    r"(?:(?:https://)?(?:hf\.co|huggingface\.co)/)?([\w-]+/[\w.-]*(?:gguf|mlx)[\w.-]*|mlx-community/[\w.-]+)(?::[\w.-]+)?\Z",
    re.IGNORECASE,
)
"""A repository of files in the form that a program loads."""
_ALSO_GGUF: Final = frozenset({"BF16", "NVFP4", "MXFP4", "MLX", "compressed-tensors", "bitsandbytes"})
"""Formats whose word also means a type of GGUF files where it is asked for by an option."""
_MADE_FROM: Final = re.compile(
    r"(?i)(?:bf|fp?)(?:16|32|8).*|nvfp4.*|awq.*|gptq.*|w\d+a\d+.*|exl\d.*|int\d.*|qat"
)
"""Types that other files are made from, or that no GGUF file has."""
_API_NAMES: Final = {"hexagon": "npu"}
"""What llama.cpp calls the backend of an api, where that is another word."""


class Model(NamedTuple):
    """A model, ready to be asked about: by the card's name or the file's stem, and the canonical name of its mixture.

    ``guess`` bounds it where nobody knows the model; ``path`` is its file, even one that is not here;
    ``notes`` say what was assumed on the way; ``repo`` and ``file`` where on the hub it was read, or that it
    was typed to lie in; ``tower``
    is what it looks at images with. ``asked_name`` is what was typed where the card is another version's,
    ``asked_quant`` where a mixture stands for it: no file of the card, or of the mixture, is what was asked
    for. ``reads_only``: it writes nothing. ``format`` is that of its weights where they are no GGUF file.
    """

    name: str
    quant: str
    weights: Weights
    card: ModelCard | None = None
    path: Path | None = None
    guess: Guess | None = None
    notes: tuple[str, ...] = ()
    repo: str = ""
    file: str = ""
    tower: ImageTower | None = None
    asked_name: str = ""
    asked_quant: str = ""
    reads_only: bool = False
    format: Format | None = None

    @property
    def shown(self) -> tuple[str, str]:
        """Its name and its quantisation as they were asked for."""
        return self.asked_name or self.name, self.asked_quant or self.quant

    @property
    def tower_bytes(self) -> int:
        """Of the image tower, where the model was asked for as one that looks at images."""
        return self.tower.file_bytes if self.tower and self.tower.is_asked else 0


def resolve_model(ref: str, quant: str | None = None) -> Model:
    """The model that ``ref`` names, as people write it, or the one in a ``.gguf``, ``config.json`` or ``.toml``.

    ``ref`` is a card's name or what ``catalog.names`` reads as one, with a quantisation in it or not;
    ``hf:org/repo`` or ``hf:org/repo:file.gguf``; a path. A model that nobody knows but that tells its size is
    bounded. Without ``quant`` the name's own counts, else the card's usual one; a GGUF file that holds
    another gives its shape alone.

    Raises:
        UnknownNameError: No such model, or no such quantisation.
        BadDataError: The file is not what its ending says.
        RefusedError: Its architecture has no table of tensors, or the name is none of a model.
        FetchError: The hub could not be asked.
    """
    model = _seeing(ref, _language_model(ref, quant))
    if model.format is not None and not model.repo and is_repository(ref):
        model = model._replace(repo=ref.partition(":")[0])
    typed_repo = _TYPED_REPO.match(ref)
    if typed_repo and not (model.repo or model.path):
        model = model._replace(repo=typed_repo[1])
    return model._replace(reads_only=reads_only(ref, model.card))


def _seeing(ref: str, model: Model) -> Model:
    """The model with what it looks at images with."""
    tower = model.tower or tower_of(Path(ref).name, model.name)
    if tower is None or not tower.is_asked:
        return model._replace(tower=tower)
    if tower.model:
        untold = () if tower.hidden_dim else (_NO_WIDTHS,)
        name = model.name if model.path or model.repo else tower.model
        return model._replace(name=name, asked_name="", tower=tower, notes=(*model.notes, *untold))
    alone = "the language model alone: its image tower (mmproj) comes on top, and nobody told its size"
    return model._replace(tower=tower, notes=(*model.notes, alone))


def _language_model(ref: str, quant: str | None) -> Model:
    if afar := _from_afar(ref, quant):
        return afar
    path = as_path(ref)
    elsewhere = path is not None and path.suffix == ".gguf" and ref == path.name and not path.exists()
    if path is not None and not elsewhere and (path.exists() or path.suffix in _FILES):
        return _from_file(path, quant)
    try:
        found = match(ref)
    except UnknownNameError as unknown:
        if elsewhere and path:
            expected = "a .gguf file, or the name of a known model's"
            raise BadDataError(path, "", what_is_there(path), expected) from unknown
        if not is_repository(ref):
            raise
        found = None
    untold = ("no such file here",) if elsewhere else ()
    if found is None or (found.guess is not None and is_repository(ref)):
        try:
            return _from_hub(ref, quant)
        except HarnessError as error:
            if found is None:
                raise _unknown_repository(ref, error) from error
            untold = (f"the hub gave no shape: {error}",)
    asked = one_quant(ref, found.quant, quant or "")
    if found.quant and quant and found.quant.lower() != "qat" and _is_history(ref, found.quant):
        untold = (*untold, f"{found.quant} in its name is what it was made of: {quant} is answered")
    own = own_format(ref, found.quant, quant or "")
    if own is not None:
        asked = own.recipe or asked or own.usual
    if found.guess is not None:
        asked = asked or "Q4_K_M"
        model = _from_shape(ref, found.guess.shape, asked, (*untold, found.why))
        weights = model.weights.replace(speed_doubt=found.guess.speed_doubt)
        model = model._replace(weights=weights, guess=found.guess, path=path if elsewhere else None)
        return _in_format(model, own, found.quant)
    assert found.card is not None
    asked = asked or found.card.default_quant
    model = _from_card(found.card, asked)
    said = (found.card.caveat,) if found.card.caveat else ()
    if found.card.name != ref:  # what was read into the name is told, unless it is the card's own
        here = "no such file here; " if elsewhere else ""
        said = (f"{ref!r}: {here}{found.why}", *said)
    said = (*said, *(one for one in untold if not elsewhere))
    asked_name = clean(split(ref.removesuffix(".gguf"))[0]) if is_another(ref, found.card) else ""
    return _in_format(model._replace(asked_name=asked_name, notes=(*said, *model.notes)), own, found.quant)


def own_format(ref: str, named: str, asked: str) -> Format | None:
    """The format that a name tells, or a quantisation that is asked for; None where a GGUF file is meant."""
    if not asked:
        return format_named(ref, named)
    if named and re.fullmatch(r"(?i)exl\d.*", named) and re.search(r"(?i)bpw", asked):
        return format_named(ref, named)
    found = format_named("any/model", asked)
    return found if found and found.name not in _ALSO_GGUF else None


def _in_format(model: Model, own: Format | None, word: str) -> Model:
    """The model as a repository of that format; by the quantisation that its name has."""
    if own is None:
        return model
    recipe = understood(own.recipe or word)
    if recipe and recipe.bits:
        bits = (*own.heads, *recipe.bits[len(own.heads) :])
        model = model._replace(weights=by_bits(model.weights, bits))
    return model._replace(format=own, asked_quant=word or model.asked_quant or own.name)


def _unknown_repository(ref: str, error: HarnessError) -> HarnessError:
    """The error of a repository that no card knows and the hub gave no shape of: says what else can be asked."""
    if not isinstance(error, FetchError):
        return error
    close = nearest(ref)
    alike = f" Names like it: {', '.join(close)}." if close else ""
    return FetchError(f"{clean(ref)!r} is in no card here, and {error}.{alike} {HOW_TO_NAME_A_MODEL}")


def one_quant(ref: str, named: str, asked: str) -> str:
    """The quantisation that is asked for beside a model's name, or the one in the name, or an empty text.

    Raises:
        RefusedError: They differ, and the one in the name is a file's or a tag's.
    """
    if asked and named.lower() != "qat" and _is_history(ref, named):
        named = ""
    if "unquantized" in ref.lower() and not asked:
        return "BF16"
    if asked and named.lower() == "qat":  # how it was trained, and no file of it
        named = asked = f"qat-{asked}" if asked.lower().startswith("ud") else asked
    if named and asked and mixture_of(named)[0] != mixture_of(asked)[0]:
        raise RefusedError(f"{ref!r} names {named}, and {asked} is asked for: leave one of the two out")
    exact = understood(asked) if named and asked else None
    chosen = (
        named if exact is not None and not exact.bits else asked or named
    )  # a recipe says more than its mixture
    return f"{ref.partition('/')[0]}:{chosen}" if chosen and is_repository(ref) else chosen


def _is_history(ref: str, named: str) -> bool:
    """Whether a type in a name only tells what a model was made of or trained for (``-BF16-heretic``).

    It does not at the end of a name, of a file's or of a tag, unless no GGUF file of a smaller type has that type.
    """
    ends = ref.lower().removesuffix(".gguf").removesuffix("-gguf").endswith(named.lower())
    return not ends or (":" not in ref and re.fullmatch(_MADE_FROM, named) is not None)


def mixture_of(quant: str, architecture: str = "") -> tuple[str, tuple[str, ...]]:
    """The mixture that a quantisation's name means or is nearest to, and the sentences that say so.

    Some publishers mix a quantisation in another way for an ``architecture`` of their own.

    Raises:
        UnknownNameError: No mixture has such a name.
    """
    found = understood(quant, architecture)
    if found is None:
        return quant_named(quant), ()
    return quant_named(found.mixture), (f"{quant}: {found.why}",) if found.why else ()


def repository_of(name: str) -> str:
    """A repository of GGUF files of a card, by its uploader's naming; empty where none is listed."""
    listed = next((row["repo"] for row in table_rows("models", "repositories") if row["card"] == name), "")
    if listed or name not in data_files("models"):
        return listed
    return load_card(name).repo


_RARE_MIXTURES: Final = frozenset({"Q5_0", "Q5_1", "IQ3_S"})
"""Mixtures that those who upload files rarely make."""
_TAGS: Final = {"MXFP4_MOE": "MXFP4"}
"""How a file's name ends, where it is not the mixture's."""


def _tag(quant: str) -> str:
    """What a file's name says of a quantisation: how a model was trained stands in that of the model."""
    return quant[4:] if quant.lower().startswith("qat-") else quant


def published_file(model: Model) -> str:
    """Repository and tag of the hub that has the model's file, as ``org/repo:TAG``, or an empty text.

    A model that a card or a mixture merely stands in for has none, since its file is a local one.
    """
    if model.format is not None:
        return ""
    if model.repo:
        if "gguf" not in model.repo.lower():
            return ""
        tag = model.asked_quant or _TAGS.get(model.quant, model.quant)
        return f"{model.repo}:{_tag(tag)}"
    if model.path or model.asked_name or model.quant in _RARE_MIXTURES:
        return ""
    recipe = model.asked_quant.upper()
    # Of a repository that a refresh read one file is known.
    known_quant = model.card.default_quant if model.card and model.card.repo else model.quant
    repository = repository_of(model.name) if model.quant == known_quant else ""
    if recipe and not (recipe.startswith("UD-") and repository.startswith("unsloth/")):
        return ""
    tag = recipe or _TAGS.get(model.quant, model.quant)
    return f"{repository}:{tag}" if repository else ""


def resolve_device(ref: str) -> Device:
    """The device of that name or in that file.

    ``this`` (or ``here``) for this machine, as probed or else by its parts.

    Raises:
        UnknownNameError: No device of that name.
        BadDataError: The file breaks the schema.
    """
    if ref not in THIS_MACHINE:
        return load_device(ref)
    from harness.measure.probe.machine_profile import own_profile, rough_machine

    return own_profile() or rough_machine()


def with_kept_costs(device: Device, scenario: Scenario, runtime: str = "") -> Device:
    """The profile of this machine with the engine's costs that were timed with the scenario's threads and repacking.

    They are nearer to the truth than its bandwidth alone: the runtime's own, or llama.cpp's where it has
    none, as programs and servers are not timed. As it is where none were, or where it carries some already;
    another machine's has none from here.
    """
    if device.calibrations or device.name != PROBED_NAME:
        return device
    from harness.measure.probe.calibrate import kept

    names = dict.fromkeys(("cpu", *(name for engine in device.engines for name in engine.apis)))
    asked: dict[str, Any] = {"thread_count": scenario.thread_count, "repack": scenario.repack}
    own = runtime if runtime in _TIMED else "llamacpp"
    costs = [kept(**asked, api=name, runtime=own) or kept(**asked, api=name) for name in names]
    return with_costs(device, tuple(found for found in costs if found is not None))


def with_costs(device: Device, costs: tuple[Calibration, ...]) -> Device:
    """The profile with these costs.

    Its CPU has the instruction sets that the engine found, where that tells them.
    """
    told = next((c.isa for c in costs if c.api == "cpu" and c.isa is not None), None)
    if told is None:
        return device.replace(calibrations=costs)
    engines = tuple(e.replace(isa=told) if e.kind == "cpu" else e for e in device.engines)
    return device.replace(calibrations=costs, engines=engines)


def scenario_from(fields: Mapping[str, Any]) -> Scenario:
    """A scenario from options of the command line.

    Raises:
        BadDataError: A field is unknown.
        UnknownNameError: llama.cpp keeps no cache of that type, or nothing is driven by that api.
        InputError: Fields that contradict each other.
    """
    given = dict(fields)
    for name, usual in (("kv_type", "F16"), ("value_type", "")):
        given[name] = str(given.get(name, usual)).upper()
        if given[name] not in {usual, *KV_TYPES}:
            raise UnknownNameError("KV type", given[name], KV_TYPES)
    program_named(str(given.get("program", "")))
    given["api"] = api_named(str(given.get("api", "")))
    given |= dict.fromkeys((part.replace("-", "_") for part in given.pop("without", ())), False)
    given["placement"] = given.pop("placement", None) or Placement()
    scenario = typed(given, Scenario, "scenario")
    values = scenario.value_type or scenario.kv_type
    if BLOCKS[values].elements > 1 and not scenario.flash_attention:
        raise InputError(
            f"a cache of {values} needs flash attention: no --without flash-attention, or take F16"
        )
    words, asked = "prompt or new", max(scenario.prompt_tokens, scenario.new_tokens)
    if scenario.depth_tokens:
        words, asked = (
            "depth + prompt + new",
            scenario.depth_tokens + scenario.prompt_tokens + scenario.new_tokens,
        )
    if asked > scenario.context_tokens:
        raise InputError(
            f"{asked} tokens ({words}) do not fit in a context of {scenario.context_tokens}: raise it with -c"
        )
    return scenario


def api_named(name: str) -> str:
    """The api of that name, empty for the device's usual one.

    Raises:
        UnknownNameError: Nothing is driven by it.
    """
    api = _API_NAMES.get(name.lower(), name.lower())
    if api in {"", *APIS}:
        return api
    from harness.onnx.ort_session import PROVIDERS

    if api not in PROVIDERS:
        raise UnknownNameError("api", api, dict.fromkeys([*APIS, *PROVIDERS]))
    return api


def _from_file(path: Path, quant: str | None) -> Model:
    if not path.is_file():
        raise BadDataError(path, "", what_is_there(path), "a .gguf, config.json or .toml")
    if path.suffix == ".json":
        from harness.models.hf_config import read_hf_config

        name = path.parent.name if path.stem == "config" and path.parent.name else path.stem
        return _from_shape(name, read_hf_config(path), quant or "Q4_K_M")
    if path.suffix != ".gguf":
        card = load_model(str(path))
        return _from_card(card, quant or card.default_quant)
    from harness.models.gguf import read_weights

    weights = read_weights(path)
    if quant is None or mixture_of(quant)[0] == weights.quant:
        said = ("its weights are random: it has speed and size, never quality",) if weights.synthetic else ()
        return Model(path.stem, weights.quant, weights, path=path, notes=said)
    note = (
        f"{path.name} holds {weights.quant}; the sizes of {mixture_of(quant)[0]} are computed from its shape"
    )
    return _from_shape(path.stem, weights.shape, quant, (note,))


def _from_card(card: ModelCard, quant: str) -> Model:
    """Weights from the card's shape; the size of a published file corrects what the shape does not tell.

    Raises:
        BadDataError: The card states another count of weights than its shape has.
    """
    mixture, said = mixture_of(quant, card.shape.architecture)
    weights, notes = weights_of(card.shape, quant), [*said]
    count = weights.weight_count
    if card.shape.tied_embeddings:  # a copy that some publishers store is no weight of the model
        count -= sum(tensor.element_count for tensor in weights.tensors if tensor.role == "output")
    if card.parameter_count and abs(count / card.parameter_count - 1) > _SAME_COUNT_RATIO:
        counted = f"about {count}: so many weights has its shape, which lacks or misstates a field"
        raise BadDataError(f"{card.name}.toml", "parameter_count", str(card.parameter_count), counted)
    published = 0
    if weights.size_doubt == (1.0, 1.0):
        published = next((f.size_bytes for f in card.files if quant_named(f.quant) == mixture), 0)
    off = abs(weights.file_bytes / published - 1) if published else 0.0
    if off > _SAME_FILE_RATIO and card.shape.tied_embeddings:
        untied = weights_of(card.shape.replace(tied_embeddings=False), quant)
        if abs(untied.file_bytes / published - 1) <= _SAME_FILE_RATIO:
            notes.append(
                "the published file stores the output matrix apart from the token table it is tied to"
            )
            weights, off = untied, abs(untied.file_bytes / published - 1)
    if off > _SAME_FILE_RATIO:
        notes.append(f"the published file has {published} bytes, the shape says {weights.file_bytes}")
    written = _as_written(quant, mixture, said)
    return Model(card.name, mixture, weights, card=card, notes=tuple(notes), asked_quant=written)


def _from_shape(name: str, shape: ModelShape, quant: str, said: tuple[str, ...] = ()) -> Model:
    mixture, notes = mixture_of(quant, shape.architecture)
    weights = weights_of(shape, quant)
    written = _as_written(quant, mixture, notes)
    return Model(name, mixture, weights, notes=(*said, *notes), asked_quant=written)


def _as_written(quant: str, mixture: str, said: Sequence[str]) -> str:
    """A quantisation as it was written, without the owner of a repository.

    Empty where it is the mixture's own name, or nothing is ``said`` of what it stands for.
    """
    written = quant.rpartition(":")[2]
    return written if said and written.upper() != mixture else ""


def _from_afar(ref: str, quant: str | None) -> Model | None:
    """The model of a name that says where to read it: a hub, a registry, an address. None for other names."""
    if is_hub(ref):
        return _from_hub(ref, quant)
    registry = re.match(r"ollama:|(?:https://)?(?:registry\.ollama\.ai|ollama\.com)/", ref)
    if not registry and not ref.startswith(("http://", "https://")):
        return None
    from harness.models.hub import read_ollama, read_url

    if registry:
        return _as_read(ref, read_ollama(ref[registry.end() :].removeprefix("library/")), quant)
    return _as_read(ref, read_url(ref), quant)


def _from_hub(ref: str, quant: str | None) -> Model:
    """A repository of the hub: its GGUF file's header where it has one, else its config.json."""
    from harness.models.hub import read_repository

    repo, file, named = hub_parts(ref)
    wanted = quant or named
    found = read_repository(repo, file, "" if file else wanted)
    return _as_read(repo, found, wanted)._replace(repo=repo, file=file)


def _as_read(name: str, found: "Repository", quant: str | None) -> Model:
    """A model as it was read from afar; of a config.json the weights are computed."""
    if found.weights is None:
        return _from_shape(name, found.shape, quant or "Q4_K_M", (found.why,))
    if found.format is not None and quant:
        return _from_shape(name, found.shape, quant, (found.why,))
    tower = ImageTower(name, found.tower_bytes, 0, 0.0, is_asked=True) if found.tower_bytes else None
    model = Model(name, found.weights.quant, found.weights, notes=(found.why,), tower=tower)
    if found.format is None:
        return model
    return model._replace(format=found.format, asked_quant=found.format.name)
