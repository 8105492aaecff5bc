"""Adam (Kingma and Ba 2015) in place over named arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]


class Adam:
    """Steps on ``parameters``, float32 arrays by name.

    ``betas`` are the shares kept of the means of gradients and of their squares. Training is short here, some hundred
    steps: the mean of squares forgets after a hundred of them, not a thousand.
    """

    def __init__(self, parameters: dict[str, Floats], betas: tuple[float, float] = (0.9, 0.99)) -> None:
        self._parameters, self._betas = parameters, betas
        self._moments = {n: (np.zeros_like(p), np.zeros_like(p), np.empty_like(p)) for n, p in parameters.items()}
        self._t = 0

    def step(self, gradients: dict[str, Floats], rate: float) -> None:
        """One step; the gradients are used up."""
        self._t += 1
        beta1, beta2 = self._betas
        fix1, fix2 = 1 - beta1**self._t, 1 - beta2**self._t
        for name, moments in self._moments.items():
            g, (m, v, scratch) = gradients[name], moments
            m *= np.float32(beta1)
            m += np.multiply(g, np.float32(1 - beta1), out=scratch)
            v *= np.float32(beta2)
            g *= g
            g *= np.float32(1 - beta2)
            v += g
            np.sqrt(v, out=g)
            g *= np.float32(1 / fix2**0.5)
            g += np.float32(1e-8)
            np.divide(m, g, out=scratch)
            scratch *= np.float32(rate / fix1)
            self._parameters[name] -= scratch
