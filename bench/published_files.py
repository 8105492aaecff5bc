"""Files of quantised models that strangers published, beside the sizes that are computed for them.

    python -m bench.published_files ../shared/data/models/files.csv [--by recipe|arch|uploader]

A row names a model, who made the file, its recipe and its bytes, exact or rounded. Errors are told twice: against the
figure as it stands, and against the nearest size that rounds to it.
"""

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final, NamedTuple

import click
import numpy as np

from harness.app.resolve import ResolvedModel, resolve_model
from harness.errors import HarnessError
from harness.units import GIB, MIB

_HALF_STEPS: Final = (
    ("0.1 GiB", 0.05 * GIB), ("0.1 MiB", 0.05 * MIB), ("0.01 (GiB", 0.005 * GIB), ("0.1 GB", 0.05e9),
)  # fmt: skip
"""Half of the last digit, by what a row says of its figure."""


class FileSize(NamedTuple):
    """One file: bytes computed and published, half of the last digit of these; whether a recipe's interval holds."""

    row: dict[str, str]
    model: ResolvedModel
    computed: float
    published: float
    half_step: float

    @property
    def error(self) -> float:
        """Share by which it is off, the rounding taken off."""
        return max(abs(self.computed - self.published) - self.half_step, 0) / self.published

    @property
    def inside(self) -> bool | None:
        """Whether it lies where files of the recipe do; None where a mixture is exactly meant."""
        if self.model.bits is None:
            return None
        count = self.model.weights.weight_count
        low, high = (bits * count / 8 for bits in self.model.bits)
        return low - self.half_step <= self.published <= high + self.half_step


def size_of(row: dict[str, str]) -> FileSize:
    """The computed size of a row's file.

    Raises:
        HarnessError: Nobody knows the model or the recipe.
        ValueError: It tells no bytes.
    """
    published, told = float(row["bytes"]), row["bytes_exact"]
    half = next((step for words, step in _HALF_STEPS if words in told), 0.0)
    half = published * (5e-4 if "0.03 %" in told else 5e-3) if "0.03 %" in told or "figures" in told else half
    name = re.sub(r"(?i)^ai/|[-_]gguf$", "", row["model"])
    owner = row["uploader"].split("/")[0]
    model = resolve_model(name, f"{owner}:{row['recipe']}" if owner else row["recipe"])
    tensors = sum(t.size_bytes for t in model.weights.tensors)
    computed = tensors if "tensor bytes" in row["what"] else model.weights.file_bytes
    return FileSize(row, model, computed, published, half)


@click.command()
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--by", type=click.Choice(("recipe", "arch", "uploader")), default="uploader", show_default=True)
def main(table: Path, by: str) -> None:
    """Compare the files in TABLE with what is computed for them; projectors are left out."""
    left, found = Counter[str](), list[FileSize]()
    with table.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if any("mmproj" in row[cell] for cell in ("recipe", "model", "what")):
                left["projectors"] += 1
                continue
            try:
                found.append(size_of(row))
            except (HarnessError, ValueError) as error:
                left[type(error).__name__] += 1
    groups = defaultdict[str, list[FileSize]](list)
    for one in found:
        kind = one.model.weights.shape.architecture if by == "arch" else one.row[by]
        known = "guessed" if one.model.guess else "recipes" if one.model.bits else "mixtures"
        for key in ("all", f"all, {known}", kind):
            groups[key].append(one)
    for key, files in sorted(groups.items(), key=lambda pair: (not pair[0].startswith("all"), -len(pair[1]))):
        errors, plain = [f.error for f in files], [abs(f.computed / f.published - 1) for f in files]
        holds = [f.inside for f in files if f.inside is not None]
        click.echo(
            f"{key:24}{len(files):5} median {np.median(errors):7.2%} nine of ten {np.quantile(errors, 0.9):7.2%}; as "
            f"told {np.median(plain):7.2%} {np.quantile(plain, 0.9):7.2%}"
            + (f"; {np.mean(holds):.0%} inside" if holds else "")
        )
    click.echo("left out: " + ", ".join(f"{count} {why}" for why, count in left.items()))


if __name__ == "__main__":
    main()
