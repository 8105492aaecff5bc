"""Many questions at once: which devices, which models, which mixtures, which contexts; and the answers as columns."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.app.resolve import mixture_of, resolve_device, resolve_model
from harness.catalog.devices import device_names, load_device
from harness.catalog.models import model_names
from harness.catalog.names import load_model
from harness.catalog.paths import as_path
from harness.domain.model import ModelCard, ModelShape
from harness.domain.quant import split
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.predict.sweep import WORDS, Grid, sweep
from harness.predict.verdict import check_entitlement

Columns = dict[str, NDArray[Any]]


def ask(
    *,
    devices: Sequence[str] = ("*",),
    models: Sequence[str] = ("*",),
    quants: Sequence[str] = ("Q4_K_M",),
    contexts: Sequence[int] = (4096,),
    scenario: Scenario | None = None,
    entitled: bool = False,
) -> Grid:
    """The grid of everything that the patterns match.

    Raises:
        UnknownNameError: A pattern matches nothing, or there is no such mixture.
        RefusedError: A matched model has no table of tensors.
    """
    profiles = [load_device(name) for name in matching("device", devices, device_names())]
    shapes = [(name, shape) for name, _, shape in map(subject, matching("model", models, model_names()))]
    check_entitlement(entitled, *profiles)
    names = list(dict.fromkeys(mixture_of(q)[0] for q in quants))
    return sweep(profiles, shapes, names, list(dict.fromkeys(contexts)), scenario=scenario, entitled=entitled)


def subject(ref: str) -> tuple[str, ModelCard | None, ModelShape]:
    """Name, card and shape of a model that was asked about, by a name or by a path."""
    if as_path(ref):
        found = resolve_model(ref)
        return Path(ref).stem, found.card, found.weights.shape
    card = load_model(ref)
    return ref, card, card.shape


def columns(grid: Grid) -> Columns:
    """The grid as columns of equal length, one row a cell, the context running fastest."""
    axes = np.indices(grid.verdict.shape, dtype=np.int32).reshape(4, -1)
    words = np.array([*WORDS, "impossible"])
    return {
        "device": np.array(grid.devices)[axes[0]],
        "api": np.array(grid.apis)[axes[0]],
        "model": np.array(grid.models)[axes[1]],
        "quant": np.array(grid.quants)[axes[2]],
        "context_tokens": np.array(grid.contexts)[axes[3]],
        "needed_bytes": grid.needed_bytes.ravel(),
        "available_bytes": grid.available_bytes.ravel(),
        "verdict": words[grid.verdict.ravel()],
        "decode_tokens_per_s": grid.reached_tokens_per_s.ravel(),
    }


def matching(kind: str, patterns: Sequence[str], known: Sequence[str]) -> list[str]:
    """Names of models or devices that match any pattern or are meant by it, in the catalog's order, then paths.

    Raises:
        UnknownNameError: A pattern matches nothing.
        RefusedError: A model's name has a mixture in it.
    """
    found: set[str] = set()
    paths = [pattern for pattern in patterns if as_path(pattern)]
    for pattern in patterns:
        if pattern in paths:
            continue
        hits = [name for name in known if fnmatchcase(name, pattern)]
        if not hits and kind == "model" and (quant := split(pattern)[1]):
            raise RefusedError(f"{pattern!r} names {quant}: name models here, and mixtures with --quants")
        found |= set(hits or [load_model(pattern).name if kind == "model" else resolve_device(pattern).name])
    return [*(name for name in known if name in found), *sorted(found.difference(known)), *paths]


def plain(table: Mapping[str, NDArray[Any]]) -> dict[str, list[Any]]:
    """Columns as lists, nan as None."""
    lists = {name: column.tolist() for name, column in table.items()}
    speeds = lists.get("decode_tokens_per_s", [])
    lists["decode_tokens_per_s"] = [None if value != value else value for value in speeds]  # noqa: PLR0124 - nan
    return lists
