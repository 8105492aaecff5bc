"""Arrays by what they hold, as annotations name them."""

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
"""Weights, activations, logits and vectors."""
Doubles = NDArray[np.float64]
"""Statistics, and whatever is summed."""
Integers = NDArray[np.int64]
"""Positions, tokens and counts."""
Flags = NDArray[np.bool_]
"""Yes or no of each."""
