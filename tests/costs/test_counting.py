"""Costs counted on a module: by loops, by other counters, and with errors planted in it.

The claim `formulas_agree_with_the_module_for_all_sizes` compares all layers with the formulas.
"""

from collections import Counter
from itertools import chain, product

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from smai_lib.colorization.model import ColorizationCNN, ColorizationUNet
from smai_lib.core.errors import ConfigError
from smai_lib.core.layers import parameter_count
from smai_lib.costs import counting, formulas
from smai_lib.costs.counting import count, differences, inputs_per_weight
from smai_lib.costs.formulas import LAYERS

SMALL = {"NF": 2, "NC": 3}


@pytest.mark.parametrize(
    ("layer", "quantity", "factor"),
    [
        ("Conv2", "weights", 2),
        ("Deconv1", "macs", 4),
        ("Conv1", "taps", 2),
        ("Conv3", "outputs", 4),
        ("Deconv3", "prepool_outputs", 3),
        ("Classifier", "biases", 2),
        ("Deconv2", "norm_params", 2),
    ],
)
def test_a_factor_in_one_formula_is_named(layer, quantity, factor):
    true = getattr(LAYERS[layer], quantity)
    wrong = LAYERS[layer]._replace(**{quantity: factor * true})
    table = differences(LAYERS | {layer: wrong}, **SMALL)
    assert table.shape == (1, 2)
    formula, module = table.loc[layer, quantity][["formula", "module"]]
    assert formula == factor * module


@pytest.mark.parametrize(
    ("block", "name", "module", "expected"),
    [
        ("encoder.block2", "conv", nn.Conv2d(2, 4, 5, padding=2), "Conv2 weights macs taps"),
        (
            "decoder.block2",
            "deconv",
            nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1),
            "Deconv2 weights macs taps",
        ),
        ("encoder.block1", "norm", nn.BatchNorm2d(2, affine=False), "Conv1 norm_params"),
        ("encoder.block1", "conv", nn.Conv2d(1, 2, 3, padding=1, bias=False), "Conv1 biases"),
    ],
)
def test_another_layer_in_the_module_is_named(monkeypatch, block, name, module, expected):
    class Changed(ColorizationCNN):
        def __init__(self, **sizes):
            super().__init__(**sizes)
            setattr(self.get_submodule(block), name, module)

    monkeypatch.setattr(counting, "ColorizationCNN", Changed)
    table = differences(**SMALL)
    layer, *quantities = expected.split()
    assert table.index.tolist() == [layer]
    assert list(table.columns.get_level_values(0).unique()) == quantities


# --- connections, weight by weight


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
    ("products", "sizes", "layer"),
    [
        (convolution_products, (2, 3, 1, 4, 5), nn.Conv2d(2, 3, 1)),
        (convolution_products, (2, 3, 3, 4, 5), nn.Conv2d(2, 3, 3, padding=1)),
        (convolution_products, (1, 2, 5, 6, 3), nn.Conv2d(1, 2, 5, padding=2)),
        (deconvolution_products, (3, 2, 2, 3, 4), nn.ConvTranspose2d(3, 2, 2, stride=2)),
    ],
)
def test_connections_are_the_products_that_a_loop_finds(products, sizes, layer):
    image = (sizes[0], *sizes[-2:])
    inputs = set(product(*map(range, image)))
    with_padding = list(products(*sizes))
    strict = [weight for weight, element in with_padding if element in inputs]
    row = count(nn.Sequential(layer), image).iloc[0]
    assert row[["macs", "taps"]].tolist() == [len(with_padding), len(strict)]
    by_autograd = inputs_per_weight(layer, image)
    by_loop = Counter(strict)
    assert len(by_loop) == layer.weight.numel() == row["weights"]
    assert all(by_autograd["weight"][weight] == number for weight, number in by_loop.items())
    assert by_autograd["bias"].count_nonzero() == 0  # it is added, and connects to no input


def test_every_weight_of_the_network_connects_as_the_formulas_say():
    model = ColorizationCNN(in_channels=2, num_filters=2, num_colors=3)
    connections = {"conv": [], "deconv": [], "norm": [], "classifier": []}
    for step in chain.from_iterable(counting.trace(model, (2, 16, 24))):
        if parameter_count(step.module):
            counted = inputs_per_weight(step.module, step.input_shape[1:])["weight"].sum().item()
            connections[step.name.split(".")[-1]].append(counted)
    table = formulas.evaluate(NIC=2, NF=2, NC=3, H=16, W=24).drop("total")
    norms = connections.pop("norm")
    assert sum(connections.values(), []) == table["taps"].tolist()
    assert norms == table["prepool_outputs"].tolist()[:-1]  # one scale for each element


# --- other layers, other counters


def test_grouped_and_strided_convolutions_are_counted():
    layer = nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False)
    row = count(nn.Sequential(layer), (4, 9, 7)).loc["0"]
    assert row[["weights", "biases"]].tolist() == [108, 0]
    assert row[["macs", "taps"]].tolist() == [108 * 4 * 3] * 2


def test_macs_agree_with_two_other_counters():
    fvcore = pytest.importorskip("fvcore.nn")
    model, image = ColorizationCNN(num_filters=6, num_colors=5, kernel_size=5).eval(), (1, 32, 24)
    macs = count(model, image)["macs"].sum()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *image))
    assert counter.get_total_flops() == 2 * macs
    by_operator = fvcore.FlopCountAnalysis(model, torch.zeros(1, *image))
    by_operator.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert sum(by_operator.by_operator()[op] for op in ("conv", "linear")) == macs


# --- what cannot be counted


class Skip(nn.Module):
    """Pools by a function, which no module shows."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

    def forward(self, images):
        return self.second(F.max_pool2d(self.first(images), 2))


class Shifted(nn.Module):
    """Has a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.conv, self.shift = nn.Conv2d(1, 1, 1), nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return self.conv(images) + self.shift


LAYER = nn.Conv2d(1, 1, 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Skip(), "second: found another input .*, expected Skip to be a chain"),
        (ColorizationUNet(num_filters=2), "expected ColorizationUNet to be a chain"),
        (Shifted(), "Shifted: found 3 parameters, expected 2, .* account for: conv"),
        (nn.Sequential(nn.BatchNorm2d(1), LAYER), "found 4 parameters, expected 2"),
        (nn.Sequential(LAYER, nn.Flatten(2), nn.Linear(1024, 2)), "expected 2, .* for: 0"),
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
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
