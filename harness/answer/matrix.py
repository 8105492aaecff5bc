"""Many questions at once: devices x models x quantisations x contexts, each answered as ``fit`` answers it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import product
from typing import Final, Literal

from harness.answer.answer import Answer, answer, answered, ready
from harness.answer.resolve import resolve_device, resolve_model
from harness.core.errors import InputError, RefusedError, UnknownNameError
from harness.core.paths import as_path
from harness.core.question import Asked, Question
from harness.hardware.devices import device_names
from harness.models.cards import model_names
from harness.models.names import load_model

MOST_CELLS: Final = 20_000
"""Cells of one table: at some tens of milliseconds each, a few minutes."""

_USUAL: Final = Asked()


def ask(
    devices: Sequence[str],
    models: Sequence[str],
    quants: Sequence[str] = ("Q4_K_M",),
    contexts: Sequence[int] = (4096,),
    asked: Asked = _USUAL,
) -> Iterator[tuple[Question, Answer | None]]:
    """Everything that the patterns match, contexts fastest, each answered as it is asked for.

    None where the device has no such api, or the KV type does not divide a row of the model's keys.

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
    count = len(names) * len(subjects) * len(quants) * len(contexts)
    if count > MOST_CELLS:
        raise InputError(f"{count} cells: at most {MOST_CELLS} at once, so name fewer devices or models")
    profiles = [resolve_device(name) for name in names]
    found = [resolve_model(name, quant) for name in subjects for quant in quants]
    fields = {name: getattr(asked, name) for name in Asked.__struct_fields__}
    for profile, model, context in product(profiles, found, contexts):
        fields |= {"quant": model.quant, "context_tokens": context}
        question = Question(model=str(model.path or model.name), device=profile.name, **fields)
        try:
            yield question, answered(question, ready(question, model, profile))
        except RefusedError:
            yield question, None


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


def types_and_contexts(
    question: Question, quants: Sequence[str], contexts: Sequence[int | Literal["max"] | None]
) -> list[tuple[str, list[Answer | None]]]:
    """One model on one device in several quantisations (rows) and contexts; None where it cannot be asked for.

    Raises:
        UnknownNameError: No such model, device or quantisation.
    """
    rows = []
    for quant in quants:
        cells: list[Answer | None] = []
        for context in contexts:
            try:
                cells.append(answer(question.replace(quant=quant, context_tokens=context), advises=False))
            except UnknownNameError:
                raise
            except (RefusedError, InputError):
                cells.append(None)
        named = next((one.quant for one in cells if one), quant)
        rows.append((named, cells))
    return rows
