"""Published speeds of several sequences decoded together, against the law of batches."""

from pathlib import Path
from typing import Final

from harness.predict.coefficients import shipped
from harness.predict.decode import Machine, Work
from harness.predict.fitted import few_tokens
from harness.predict.passes import Pass
from harness.published.cells import Cells, read_cells
from harness.published.other_rows import Check, check_of
from harness.published.row_work import ModelOf
from harness.published.rows import Row, row_of

_SAME: Final = {"Q4_K_4": "Q4_K_M", "Q8R16": "Q8_0"}
"""Layouts of one vendor's build, of the same bits as llama.cpp's."""


def check_batches(path: Path | None, model_of: ModelOf) -> tuple[Check, Check]:
    """Tokens/s of all sequences together, by the shipped coefficients; and the same where one sequence's was measured.

    Rows of several processes at once are left out: they are several engines, each with threads of its own. ``path``
    None: the shipped rows.

    Raises:
        BadDataError: Columns are missing, or a number is none.
    """
    cells = read_cells("batch.csv", path, "batch")
    found = [
        (count, _row(raw, model_of))
        for raw in cells
        if (count := int(raw.number("batch_npl"))) and raw.number("n_processes") in {0, 1}
    ]
    quotients = [
        (_run(row), count, count / _step_s(row.work, row.machine, count) / row.tokens_per_s)
        for count, row in found
        if row.work is not None
    ]
    alone = {run: quotient for run, count, quotient in quotients if count == 1}
    together = [(run, quotient) for run, count, quotient in quotients if count > 1]
    related = [quotient / alone[run] for run, quotient in together if run in alone]
    return (
        check_of("several sequences together", [quotient for _, quotient in together], len(cells)),
        check_of("several sequences, where one was measured", related, len(cells)),
    )


def _step_s(work: Work, machine: Machine, count: int) -> float:
    """Seconds of one token of each of so many sequences."""
    return float(few_tokens(work, machine, Pass(1, sequences=count), shipped().values).total_s)


def _row(raw: Cells, model_of: ModelOf) -> Row:
    """A batch as a row of decode: its speed is that of all sequences."""
    new, quant = raw.get("gen_tokens") or "128", raw["quant"]
    told = {
        "test": f"tg{new.split('.')[0]}",
        "quant": _SAME.get(quant, quant),
        "tokens_per_s": raw["tg_tokens_per_s_total"],
        "context_depth": raw.get("prompt_tokens", ""),
    }
    return row_of(Cells(raw | told, raw.path, raw.line), model_of)


def _run(row: Row) -> tuple[str, ...]:
    """What the batches of one run share."""
    return tuple(
        row.raw.get(k, "") for k in ("source", "chip", "runtime", "model", "quant", "n_threads", "prompt_tokens")
    )
