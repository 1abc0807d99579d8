from itertools import product

import pytest


@pytest.fixture(scope="session")
def reported():
    """The sizes of the reference report's totals."""
    return {"NIC": 1, "NF": 32, "NC": 24, "k": 3, "H": 32, "W": 32}


@pytest.fixture(scope="session")
def loop_count():
    """Count taps that hit the map, one by one; a transposed convolution scatters, a convolution gathers."""

    def count_taps(c_in, c_out, kernel, h, w, stride, padding, transposed):
        out = [
            (side - 1) * stride + kernel - 2 * padding
            if transposed
            else (side + 2 * padding - kernel) // stride + 1
            for side in (h, w)
        ]
        source, target = ((h, w), out) if transposed else (out, (h, w))
        count = 0
        for y, x, dy, dx in product(*map(range, (*source, kernel, kernel))):
            v, u = y * stride - padding + dy, x * stride - padding + dx
            count += 0 <= v < target[0] and 0 <= u < target[1]
        return c_in * c_out * count

    return count_taps
