"""How well a model predicts a text, and what a change of it did to that."""

from harness.core.base import Frozen
from harness.core.model import Count


class TextScore(Frozen):
    """Quality on one text.

    Attributes:
        perplexity: exp(mean negative log-likelihood).
        perplexity_error: Standard error: perplexity x standard error of the mean.
        kl_divergence: Mean KL(reference || this), nats; None without a reference.
        top1_agreement_ratio: Share of tokens where both have the same most likely token.
    """

    token_count: Count
    perplexity: float
    perplexity_error: float
    kl_divergence: float | None = None
    kl_divergence_error: float | None = None
    top1_agreement_ratio: float | None = None
    top1_agreement_error: float | None = None


class QualityChange(Frozen):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class CalibrationChange(Frozen):
    """Calibration of one model on one kind of rows, beside the reference's.

    Differences are this model minus the reference, with 95 % intervals from a bootstrap over the rows.

    Attributes:
        ece_change: Of the expected calibration error, ten bins.
        nll_change: Of the mean negative log-likelihood, nats.
        lost_count: Rows the reference had right and this one has wrong.
        gained_count: The other way round.
    """

    row_count: Count
    nll_change: QualityChange
    ece_change: QualityChange
    lost_count: Count
    gained_count: Count
