"""What the gate needs from the layers below: predictions of devices nobody has at hand, and the history."""

from collections.abc import Callable

from harness.app.fit import predict
from harness.app.resolve import resolve_device, resolve_model
from harness.catalog.paths import home_dir
from harness.domain.prediction import Prediction
from harness.domain.record import RunRecord
from harness.domain.scenario import Scenario
from harness.records.history import History


def predictor(scenario: Scenario | None = None) -> Callable[[str, str], Prediction]:
    """A function (device, model[:quant]) -> prediction, in the given scenario or the usual one."""

    def ask(device: str, model: str) -> Prediction:
        name, _, quant = model.partition(":")
        return predict(resolve_model(name, quant or None), resolve_device(device), scenario or Scenario())

    return ask


def history_records(limit: int = 1000) -> list[RunRecord]:
    """The newest runs of this machine's history; empty when there is none yet."""
    path = home_dir() / "history.sqlite"
    return list(History(path).records(limit=limit)) if path.exists() else []
