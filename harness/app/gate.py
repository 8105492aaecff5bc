"""What the gate needs from the layers below: predictions of devices nobody has at hand, and the history."""

from collections.abc import Callable

import msgspec

from harness.app.fit import predict
from harness.app.resolve import resolve_device, resolve_model
from harness.domain.prediction import Prediction
from harness.domain.record import RunRecord
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.measure.pipeline import open_history
from harness.records.store import from_document


def predictor() -> Callable[[str, str], Prediction]:
    """A function (device, model[:quant]) -> prediction, in the usual scenario."""

    def ask(device: str, model: str) -> Prediction:
        name, _, quant = model.partition(":")
        return predict(resolve_model(name, quant or None), resolve_device(device), Scenario())

    return ask


def history_records(limit: int = 1000) -> list[RunRecord]:
    """The newest runs of this machine's history; empty when there is none yet."""
    history = open_history()
    return list(history.records(limit=limit)) if history.path.exists() else []


def single_record(output: bytes, source: str) -> RunRecord:
    """The one record that ``run MODEL --json`` prints.

    Raises:
        BadDataError: It printed something else, or more than one.
    """
    try:
        document = msgspec.json.decode(output)
    except msgspec.DecodeError as error:
        raise BadDataError(source, "", f"no JSON ({error})", "one run record") from error
    if isinstance(document, list):
        if len(document) != 1:
            raise BadDataError(source, "", f"{len(document)} records", "one: name one model and one cell")
        document = document[0]
    return from_document(document, source)
