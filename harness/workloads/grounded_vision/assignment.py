"""Who belongs to whom: the cheapest one-to-one assignment of rows to columns."""

import numpy as np
from numpy.typing import NDArray


def assign(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (row, column) of least total cost, min(rows, columns) of them, in the order of the rows.

    Shortest augmenting paths with dual prices, O(n^2 m). Source: Jonker and Volgenant 1987.

    Raises:
        ValueError: A cost is not finite.
    """
    costs = np.asarray(costs, np.float64)
    if costs.size and not np.isfinite(costs).all():
        raise ValueError("a cost is not finite")
    row_count, column_count = costs.shape if costs.ndim == 2 else (0, 0)
    if row_count > column_count:
        return sorted((row, column) for column, row in assign(costs.T))
    # Column 0 is where each search begins: it holds the row that has no partner yet.
    row_price, column_price = np.zeros(row_count + 1), np.zeros(column_count + 1)
    partner = np.zeros(column_count + 1, np.int64)
    for row in range(1, row_count + 1):
        partner[0] = row
        column = 0
        shortest = np.full(column_count + 1, np.inf)
        before = np.zeros(column_count + 1, np.int64)
        is_done = np.zeros(column_count + 1, np.bool_)
        while partner[column]:
            is_done[column] = True
            at = int(partner[column])
            free = np.flatnonzero(~is_done[1:]) + 1
            reduced = costs[at - 1, free - 1] - row_price[at] - column_price[free]
            shorter = reduced < shortest[free]
            shortest[free[shorter]] = reduced[shorter]
            before[free[shorter]] = column
            following = int(free[shortest[free].argmin()])
            step = shortest[following]
            row_price[partner[is_done]] += step
            column_price[is_done] -= step
            shortest[free] -= step
            column = following
        while column:
            previous = int(before[column])
            partner[column] = partner[previous]
            column = previous
    return sorted((int(partner[c]) - 1, c - 1) for c in range(1, column_count + 1) if partner[c])
