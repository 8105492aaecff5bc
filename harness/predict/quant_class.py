"""Classes of quantisations that cost alike."""

from harness.predict.traits import first_cells


def quant_class(text: str) -> str:
    """Class of a quantisation by its name: ``f16 q8 q5 q4 q4k q3k q2k iq ternary``.

    Elsewhere ``w8`` to ``w2``.
    """
    return _cells(text)[0]


def bits_of(text: str) -> float:
    """Usual bits of a weight in a quantisation of that name."""
    return float(_cells(text)[1])


def _cells(text: str) -> tuple[str, ...]:
    return first_cells("quant_classes", text.upper()) or ("q4", "4.5")
