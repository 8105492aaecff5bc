"""The routing of a synthetic mixture of experts, from the law that predictions go by."""

from harness.catalog.synthesize import Routing
from harness.domain.model import ModelShape
from harness.errors import RefusedError
from harness.predict.moe import inclusion


def routing_of(shape: ModelShape, skew: float) -> Routing:
    """How often each expert is to be chosen: k different ones of n, drawn by a Zipf law of exponent ``skew``.

    Raises:
        RefusedError: The model has no experts.
    """
    if shape.experts is None:
        raise RefusedError(f"{shape.architecture}: this model has no experts, so there is nothing to route")
    shares = inclusion(shape.experts.expert_count, shape.experts.used_count, skew)
    return Routing(skew, tuple(float(s) for s in shares))
