"""Costs counted on a module: by loops, and with errors planted in formulas and modules.

The claim `formulas_agree_with_the_module_for_all_sizes` compares all layers with the formulas.
"""

from collections import Counter
from itertools import product

import pytest
import torch
from torch import nn

from smai_lib.colorization.model import ColorizationCNN, ColorizationUNet
from smai_lib.core.errors import ConfigError
from smai_lib.costs import counting
from smai_lib.costs.counting import count, differences, inputs_per_weight
from smai_lib.costs.formulas import LAYERS

SMALL = {"NF": 2, "NC": 3}


def test_an_error_in_one_formula_is_named():
    right = LAYERS["Deconv1"]
    table = differences(LAYERS | {"Deconv1": right._replace(macs=4 * right.macs)}, **SMALL)
    assert table.shape == (1, 2)
    formula, module = table.loc["Deconv1", "macs"][["formula", "module"]]
    assert formula == 4 * module


@pytest.mark.parametrize(
    "name, module, quantities",
    [
        ("conv", nn.Conv2d(1, 2, 5, padding=2), ["weights", "macs", "taps"]),
        ("conv", nn.Conv2d(1, 2, 3, padding=1, bias=False), ["biases"]),
        ("norm", nn.BatchNorm2d(2, affine=False), ["norm_params"]),
    ],
)
def test_another_layer_in_the_module_is_named(monkeypatch, name, module, quantities):
    def changed(**sizes):
        model = ColorizationCNN(**sizes)
        setattr(model.encoder.block1, name, module)
        return model

    monkeypatch.setattr(counting, "ColorizationCNN", changed)
    table = differences(**SMALL)
    assert table.index.tolist() == ["Conv1"]
    assert table.columns.get_level_values(0).unique().tolist() == quantities


def convolution_products(c_in, c_out, kernel, h, w):
    """Yield (weight, input element) of every product of a convolution, also with padding."""
    p = kernel // 2
    for b, a, y, x, dy, dx in product(*map(range, (c_out, c_in, h, w, kernel, kernel))):
        yield (b, a, dy, dx), (a, y + dy - p, x + dx - p)


def deconvolution_products(c_in, c_out, kernel, h, w):
    """Yield the same of a transposed convolution whose stride is its kernel size.

    They are found from the output: which weight and input does each of its elements need?
    """
    height, width = kernel * h, kernel * w
    for b, a, v, u in product(*map(range, (c_out, c_in, height, width))):
        (y, dy), (x, dx) = divmod(v, kernel), divmod(u, kernel)
        yield (a, b, dy, dx), (a, y, x)


@pytest.mark.parametrize(
    "products, sizes, layer",
    [
        (convolution_products, (2, 3, 5, 6, 3), nn.Conv2d(2, 3, 5, padding=2)),
        (deconvolution_products, (3, 2, 2, 3, 4), nn.ConvTranspose2d(3, 2, 2, stride=2)),
    ],
)
def test_connections_are_the_products_that_a_loop_finds(products, sizes, layer):
    image = (sizes[0], *sizes[-2:])
    inputs = set(product(*map(range, image)))
    with_padding = list(products(*sizes))
    strict = Counter(weight for weight, element in with_padding if element in inputs)
    row = count(nn.Sequential(layer), image).iloc[0]
    assert row[["macs", "taps"]].tolist() == [len(with_padding), strict.total()]
    connected = inputs_per_weight(layer, image)
    assert {weight: connected["weight"][weight] for weight in strict} == strict
    assert connected["bias"].count_nonzero() == 0  # it is added, and connects to no input


def test_grouped_and_strided_convolutions_are_counted():
    layer = nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False)
    row = count(nn.Sequential(layer), (4, 9, 7)).loc["0"]
    assert row[["weights", "biases"]].tolist() == [108, 0]
    assert row[["macs", "taps"]].tolist() == [108 * 4 * 3] * 2


LAYER = nn.Conv2d(1, 1, 1)


@pytest.mark.parametrize(
    "model, message",
    [
        (ColorizationUNet(num_filters=2), "found another input .*expected ColorizationUNet to be"),
        (nn.Sequential(nn.BatchNorm2d(1), LAYER), "found 4 parameters, expected 2"),
        (nn.Sequential(LAYER, LAYER), "found 2 parameters, expected 4, .* for: 0, 0"),
    ],
)
def test_what_would_be_missed_is_refused(model, message):
    with pytest.raises(ConfigError, match=message):
        count(model, (1, 32, 32))


def test_counting_leaves_the_model_as_it_was():
    model = ColorizationCNN(num_filters=2).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count(model, (1, 16, 16))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
