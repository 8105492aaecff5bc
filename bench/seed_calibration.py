"""The seed article's ECE, kept as a baseline; not for use.

It gives 0 for no rows, takes 1.2 for the last bin and -0.3 for the eighth (a negative index), and cuts longer columns.
"""

from collections.abc import Sequence


def compute_calibration_error(
    predictions: Sequence[object], confidences: Sequence[float], labels: Sequence[object]
) -> float:
    """Expected calibration error in ten bins, as printed there."""
    correct, confidence, count = [0] * 10, [0.0] * 10, [0] * 10
    for pred, conf, label in zip(predictions, confidences, labels):  # noqa: B905  as printed
        at = min(int(conf * 10), 9)
        count[at] += 1
        confidence[at] += conf
        if pred == label:
            correct[at] += 1
    total = sum(count)
    ece = 0.0
    for i in range(10):
        if count[i]:
            ece += (count[i] / total) * abs(correct[i] / count[i] - confidence[i] / count[i])
    return ece
