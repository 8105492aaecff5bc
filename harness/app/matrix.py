"""Many questions at once: devices x models x quantisations x contexts, each the same question as ``fit`` asks."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

from harness.app.case import case_of
from harness.app.resolve import (
    THIS_MACHINE,
    ResolvedModel,
    api_named,
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
from harness.domain.quant import split
from harness.domain.question import Asked, Question
from harness.errors import InputError, RefusedError

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
        pool: Its name.
        decode_tokens_per_s: Decode speed by the best way, with its 90 % interval; None where there is none.
    """

    device: str
    api: str
    model: str
    quant: str
    context_tokens: int
    needed_bytes: int
    available_bytes: int
    pool: str
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

    @property
    def cell_count(self) -> int:
        """Answers in all."""
        return len(self.devices) * len(self.models) * len(self.contexts)

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
            return Cell(*asked, 0, 0, "", "impossible", None)
        verdict = best.prediction.verdict
        is_split = verdict.word == "fits" and not best.kind.is_whole
        usable = {int(pool.usable_bytes.value): pool.name for pool in device.pools}
        return Cell(
            *asked,
            verdict.needed_bytes,
            verdict.available_bytes,
            usable.get(verdict.available_bytes, "ram"),
            "fits split" if is_split else verdict.word,
            best.prediction.speed.decode_tokens_per_s if best.runs else None,
        )


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
    api_named(asked.api if asked else "")
    names = matching("device", devices, device_names())
    subjects = matching("model", models, model_names())
    mixtures = list(dict.fromkeys(mixture_of(quant)[0] for quant in quants))
    lengths = list(dict.fromkeys(contexts))
    if (count := len(names) * len(subjects) * len(mixtures) * len(lengths)) > MOST_CELLS:
        counts = f"{len(names)} devices x {len(subjects)} models x {len(mixtures)} mixtures x {len(lengths)} contexts"
        raise InputError(f"{count} cells ({counts}): at most {MOST_CELLS} at once, so name fewer of them")
    profiles = [resolve_device(name) for name in names]
    found = [resolve_model(name, quant) for name in subjects for quant in mixtures]
    return Grid(profiles, found, lengths, asked or Asked())


def matching(kind: str, patterns: Sequence[str], known: Sequence[str]) -> list[str]:
    """Names of models or devices that match any pattern or are meant by it, in the catalog's order, then paths.

    Raises:
        UnknownNameError: A pattern matches nothing.
        RefusedError: A model's name has a mixture in it.
    """
    names: set[str] = set()
    paths = [pattern for pattern in patterns if as_path(pattern)]
    for pattern in patterns:
        if pattern in paths:
            continue
        hits = [name for name in known if fnmatchcase(name, pattern)]
        if not hits and kind == "model" and (quant := split(pattern)[1]):
            raise RefusedError(f"{pattern!r} names {quant}: name models here, and mixtures as quants")
        if not hits and kind == "model":
            load_model(pattern)  # no guess stands in a table, where nothing says that it is one
            hits = [resolve_model(pattern).name]
        elif not hits:
            hits = [pattern if pattern in THIS_MACHINE else resolve_device(pattern).name]
        names |= set(hits)
    return [*(name for name in known if name in names), *sorted(names.difference(known)), *paths]
