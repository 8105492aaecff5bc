"""The quantisation ladder of one model: size, speed, memory, quality and calibration of every rung."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from harness.app._ladder_work import Asked, Workshop
from harness.app.rungs import Ladder, describe, mark_frontier, reference_of
from harness.catalog.gguf import read_gguf
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, CouldNotRunError, RefusedError
from harness.measure.child import Limits
from harness.runtimes.llamacpp import RUNTIME
from harness.runtimes.llamacpp.quantize import QUANTS

DEFAULT_QUANTS: Final = (
    *("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "IQ3_XXS"),
    *("Q2_K", "IQ2_M", "IQ2_XXS", "TQ2_0", "TQ1_0", "IQ1_S"),
)


def ladder(
    source: Path,
    quants: Sequence[str] = DEFAULT_QUANTS,
    *,
    text: Path | None = None,
    chunk_count: int = 8,
    measure_speed: bool = True,
    scenario: Scenario | None = None,
    repetitions: int = 3,
    folder: Path | None = None,
    keep: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008  an immutable tuple
    say: Callable[[str], None] = lambda _: None,
) -> Ladder:
    """Make every rung from ``source``, score it, run it, and remove it again.

    The reference of all comparisons is the source as the quantizer unpacks it: F16 made from it when it is quantized
    itself, else the source. A rung that cannot be made, or does not run, is a rung with its reason.

    Args:
        source: GGUF file, the less quantized the better.
        quants: Rungs.
        text: Text to score on; None for the one that ships.
        chunk_count: Chunks of 512 tokens; 0 for all.
        measure_speed: Whether speed and memory are measured too.
        scenario: Of the speed test; pp512 and tg64 when None.
        repetitions: Of the speed test.
        folder: Where files are made and removed again; a temporary one when None.
        keep: Folder where files and results stay instead; what is found there is not measured again. The quantized
            files, the reference's and the importance matrix take room.
        limits: Of each child.
        say: Told what goes on.

    Raises:
        RefusedError: A name is no mixture, the weights are synthetic (their quality means nothing), the source is no
            language model, the text is too short, or both folders are given.
        BadDataError: The source is no GGUF file, or the text no UTF-8.
        CouldNotRunError: llama.cpp is not installed, or the folder cannot be written.
        EngineError: The reference could not be made or does not run.
        KeyboardInterrupt: Interrupted; with ``keep``, what is done is kept.
    """
    unknown = [q for q in quants if q not in QUANTS]
    if unknown:
        raise RefusedError(f"no quantisation {unknown[0]!r}; one of: {', '.join(QUANTS)}")
    if reason := RUNTIME.missing():
        raise CouldNotRunError(reason)
    if folder is not None and keep is not None:
        raise RefusedError("a folder to keep files in and one to remove them from: give one of them")
    source_quant = _source_quant(source)
    requantized = "" if source_quant in {"F32", "F16", "BF16"} else source_quant
    asked = Asked(
        chunk_count=chunk_count,
        scenario=(scenario or Scenario(context_tokens=1024, prompt_tokens=512, new_tokens=64))
        if measure_speed
        else None,
        repetitions=repetitions,
    )
    with (
        _folder(folder, keep) as place,
        as_file(files("harness") / "data" / "text" / "python-reference.txt") as shipped,
    ):
        read = text or shipped
        _check_text(read)
        shop = Workshop(source, requantized, read, place, is_kept=keep is not None, limits=limits, say=say)
        if not all(shop.is_scored(quant, asked) for quant in quants):
            shop.prepare()
        rungs = []
        for quant in quants:
            rung = shop.rung(quant, asked)
            say(f"{quant}: {describe(rung)}")
            rungs.append(rung)
    return Ladder(
        model=source.stem,
        source_quant=source_quant,
        reference_quant="F16" if requantized else source_quant,
        text=read.name,
        chunk_count=chunk_count,
        reference=reference_of(rungs),
        rungs=mark_frontier(rungs),
    )


def _source_quant(source: Path) -> str:
    """Mixture of a file that a ladder can be made from."""
    header = read_gguf(source)
    if header.synthetic:
        raise RefusedError(f"{source.name} has synthetic weights: it has speed and size, but no quality to measure")
    if header.metadata.get(f"{header.architecture}.attention.causal") is False:
        raise RefusedError(f"{source.name} ({header.architecture}) is no language model: it predicts no next token")
    return header.weights().quant


@contextmanager
def _folder(scratch: Path | None, keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    try:
        made = tempfile.TemporaryDirectory(prefix="edge-harness-ladder-", dir=scratch)
    except OSError as error:
        raise CouldNotRunError(f"{scratch or 'temporary folder'}: cannot make files here ({error.strerror})") from error
    with made as path:
        yield Path(path)


def _check_text(path: Path) -> None:
    try:
        path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadDataError(path, "", f"unreadable ({error.strerror})", "a text file") from error
    except UnicodeDecodeError as error:
        raise BadDataError(path, f"byte {error.start}", "no UTF-8", "a text file in UTF-8") from error
