"""Many questions at once: devices x models x quantisations x contexts, each the same question as ``fit`` asks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

from harness.app.case import case_of
from harness.app.resolve import (
    ResolvedModel,
    mixture_of,
    resolve_device,
    resolve_model,
)
from harness.app.ways import ways
from harness.catalog.devices import device_names
from harness.catalog.models import model_names
from harness.catalog.names import load_model
from harness.catalog.paths import as_path
from harness.domain.device import DeviceProfile
from harness.domain.prediction import Interval
from harness.domain.question import Asked, Question
from harness.errors import InputError, RefusedError, UnknownNameError

MOST_CELLS: Final = 20_000
"""Cells of one table: at some ten milliseconds each, a few minutes."""

CellWord = Literal["fits", "fits split", "fits with streaming", "too slow", "does not fit", "impossible"]
"""A verdict; ``fits split``: a part of the model, or all of it, lies with the CPU. ``impossible``: the device
has no such api, or the KV type does not divide a row of the model's keys."""


class Cell(NamedTuple):
    """One answer.

    Attributes:
        needed_bytes: What the best way must hold or reads for every token, in the pool that is fullest.
        available_bytes: What one app may use of that pool.
        decode_tokens_per_s: Decode speed by the best way, with its 90 % interval; None where there is none.
    """

    device: str
    api: str
    model: str
    quant: str
    context_tokens: int
    needed_bytes: int
    available_bytes: int
    verdict: CellWord
    decode_tokens_per_s: Interval | None


class Grid(NamedTuple):
    """What is asked about, each model in each mixture.

    Cells follow in the order of the fields, contexts fastest.
    """

    devices: list[DeviceProfile]
    models: list[ResolvedModel]
    contexts: list[int]
    asked: Asked

    def cells(self) -> Iterator[Cell]:
        """Every answer, computed as it is asked for."""
        for device in self.devices:
            for model in self.models:
                for context in self.contexts:
                    yield self._cell(device, model, context)

    def _cell(self, device: DeviceProfile, model: ResolvedModel, context: int) -> Cell:
        fields = {name: getattr(self.asked, name) for name in Asked.__struct_fields__}
        fields |= {"quant": model.quant, "context_tokens": context}
        question = Question(model=str(model.path or model.name), device=device.name, **fields)
        asked = device.name, device.api(self.asked.api), model.name, model.quant, context
        try:
            best = ways(case_of(question, model, device))[0]
        except RefusedError:
            return Cell(*asked, 0, 0, "impossible", None)
        verdict = best.prediction.verdict
        word: CellWord = verdict.word
        if word == "fits" and not best.kind.is_whole:
            word = "fits split"
        speed = None
        if best.runs:
            speed = best.prediction.speed.decode_tokens_per_s
        return Cell(*asked, verdict.needed_bytes, verdict.available_bytes, word, speed)


def ask(
    *,
    devices: Sequence[str] = ("*",),
    models: Sequence[str] = ("*",),
    quants: Sequence[str] = ("Q4_K_M",),
    contexts: Sequence[int] = (4096,),
    asked: Asked | None = None,
) -> Grid:
    """Everything that the patterns match.

    Raises:
        UnknownNameError: A pattern matches nothing, or there is no such mixture.
        InputError: More than ``MOST_CELLS`` cells.
        RefusedError: A model's architecture has no table of tensors.
    """
    names = matching("device", devices, device_names)
    subjects = matching("model", models, model_names)
    for name in subjects:
        if as_path(name) is None:
            load_model(name)  # no guess stands in a table, where nothing says that it is one
    mixtures = list(dict.fromkeys(mixture_of(quant)[0] for quant in quants))
    lengths = list(dict.fromkeys(contexts))
    if (count := len(names) * len(subjects) * len(mixtures) * len(lengths)) > MOST_CELLS:
        counts = f"{len(names)} devices x {len(subjects)} models x {len(mixtures)} mixtures x {len(lengths)} contexts"
        raise InputError(f"{count} cells ({counts}): at most {MOST_CELLS} at once, so name fewer of them")
    profiles = [resolve_device(name) for name in names]
    found = [resolve_model(name, quant) for name in subjects for quant in mixtures]
    return Grid(profiles, found, lengths, asked or Asked())


def matching(kind: str, words: Iterable[str], names: Callable[[], Sequence[str]]) -> list[str]:
    """Each word once, or in place of a pattern the names of the catalog that it matches.

    Raises:
        UnknownNameError: A pattern matches nothing.
    """
    found: list[str] = []
    for word in words:
        if "*" not in word:
            found.append(word)
            continue
        hits = [name for name in names() if fnmatchcase(name, word)]
        if not hits:
            raise UnknownNameError(kind, word, names())
        found += hits
    return list(dict.fromkeys(found))
