from itertools import product

import pytest


@pytest.fixture(scope="session")
def convolution_products():
    """Yield (weight, input) of every product of a padded convolution; its zeros too on request."""

    def products(c_in, c_out, kernel, h, w, *, padded=False):
        p = kernel // 2
        for b, a, y, x, dy, dx in product(*map(range, (c_out, c_in, h, w, kernel, kernel))):
            v, u = y + dy - p, x + dx - p
            if padded or (0 <= v < h and 0 <= u < w):
                yield (b, a, dy, dx), (a, v, u)

    return products


@pytest.fixture(scope="session")
def deconvolution_products():
    """Yield (weight, input) of every product of a transposed convolution 2 x 2, stride 2.

    They are found from the output: which weight and input does each of its elements need?
    """

    def products(c_in, c_out, h, w):
        for b, a, v, u, dy, dx in product(*map(range, (c_out, c_in, 2 * h, 2 * w, 2, 2))):
            (y, off_y), (x, off_x) = divmod(v - dy, 2), divmod(u - dx, 2)
            if off_y == off_x == 0:
                yield (a, b, dy, dx), (a, y, x)

    return products
