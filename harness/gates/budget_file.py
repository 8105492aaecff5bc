"""Read a budgets file: ``[[budget]]`` tables, each with exactly one limit."""

import re
from difflib import get_close_matches
from pathlib import Path

from harness.core.base import Frozen
from harness.core.budget import PINS, Budget
from harness.core.errors import BadDataError
from harness.core.foreign import toml_in, typed
from harness.core.metric import FIGURES
from harness.core.printable import clean

LIMITS = ("floor", "ceiling", "baseline_ratio", "slowdown_ratio", "prediction_ratio", "roofline_ratio")


class _BudgetFile(Frozen):
    budget: tuple[Budget, ...]


def load_budgets(path: Path) -> tuple[Budget, ...]:
    """Budgets of a file, each one checked.

    Raises:
        BadDataError: Not such a file, an unknown key or metric, not exactly one limit, a limit that is not
            positive, a floor on a cost or a ceiling on a speed, or a prediction asked for without a device.
    """
    file = typed(toml_in(path), _BudgetFile, path)
    if not file.budget:
        raise BadDataError(path, "budget", "no budget", "at least one [[budget]] table")
    for index, budget in enumerate(file.budget):
        check_budget(budget, path, f"budget[{index}]")
    return file.budget


def budget_lines(path: Path, count: int) -> list[int]:
    """Line number of each ``[[budget]]`` table of a file that has been read.

    Every number is 1 if the file writes its tables in another way.
    """
    text = path.read_text(encoding="utf-8").splitlines()
    lines = [
        number
        for number, line in enumerate(text, 1)
        if re.match(r"\s*\[\[\s*[\"']?budget[\"']?\s*\]\]", line)
    ]
    if len(lines) == count:
        return lines
    return [1] * count


def check_budget(budget: Budget, path: Path | str, place: str) -> None:
    """Refuse a budget without exactly one sound limit.

    BadDataError as for a file, ``path`` and ``place`` say where.
    """
    if budget.metric not in FIGURES:
        near = get_close_matches(budget.metric, FIGURES, n=3) or FIGURES
        raise BadDataError(
            path, f"{place}.metric", repr(clean(budget.metric)), f"a figure such as {', '.join(near)}"
        )
    given = {name: getattr(budget, name) for name in LIMITS if getattr(budget, name) is not None}
    if len(given) != 1:
        limits = " and ".join(given) or "no limit"
        raise BadDataError(path, place, limits, f"exactly one of: {', '.join(LIMITS)}")
    name, limit = next(iter(given.items()))
    if limit == float("inf"):
        raise BadDataError(path, f"{place}.{name}", repr(limit), "a finite number")
    right = "floor" if FIGURES[budget.metric].higher_is_better else "ceiling"
    if name in {"floor", "ceiling"} and name != right:
        raise BadDataError(
            path, f"{place}.{name}", f"a {name} on {budget.metric}", f"a {right} for this metric"
        )
    if name == "roofline_ratio" and budget.metric != "decode_tokens_per_s":
        raise BadDataError(path, f"{place}.{name}", f"metric {budget.metric}", "decode_tokens_per_s")
    if unknown := sorted(set(budget.pin) - set(PINS)):
        raise BadDataError(path, f"{place}.pin.{unknown[0]}", "an unknown key", f"one of: {', '.join(PINS)}")
    if budget.predicted and name not in {"floor", "ceiling"}:
        raise BadDataError(
            path, f"{place}.{name}", f"predicted with {name}", "predicted with a floor or a ceiling"
        )
    if budget.predicted and ("*" in budget.device or "*" in budget.model):
        raise BadDataError(path, f"{place}.device", "a pattern", "the names of one device and one model")
