"""Costs counted on a module: by loops, by other counters, and with errors planted in it."""

import dataclasses
from collections import Counter

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


@pytest.mark.parametrize("sizes", [{}, {"NIC": 3, "NF": 3, "k": 7, "W": 40}, {"k": 11, "H": 48}])
def test_the_formulas_are_the_module(sizes):
    # all sizes: the claim formulas_agree_with_the_module_for_all_sizes
    sizes = SMALL | {"W": 48} | sizes
    assert differences(**sizes).empty


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
    wrong = dataclasses.replace(LAYERS[layer], **{quantity: factor * true})
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


@pytest.mark.parametrize(
    ("sizes", "layer"),
    [
        ((2, 3, 1, 4, 5), nn.Conv2d(2, 3, 1)),
        ((2, 3, 3, 4, 5), nn.Conv2d(2, 3, 3, padding=1)),
        ((1, 2, 5, 6, 3), nn.Conv2d(1, 2, 5, padding=2)),
        ((3, 2, 3, 4), nn.ConvTranspose2d(3, 2, 2, stride=2)),
    ],
)
def test_autograd_counts_the_inputs_of_every_weight_as_a_loop_does(
    convolution_products, deconvolution_products, sizes, layer
):
    transposed = isinstance(layer, nn.ConvTranspose2d)
    loop = deconvolution_products if transposed else convolution_products
    by_loop = Counter(weight for weight, _ in set(loop(*sizes)))
    counted = inputs_per_weight(layer, (sizes[0], *sizes[-2:]))
    assert len(by_loop) == counted["weight"].numel()
    assert all(counted["weight"][weight] == number for weight, number in by_loop.items())
    assert counted["bias"].count_nonzero() == 0  # a bias is added, and connects to no input
    assert (
        counted["weight"].sum() == count(nn.Sequential(layer), (sizes[0], *sizes[-2:])).taps.sum()
    )


def test_a_scale_of_batchnorm_connects_to_its_map_and_a_shift_to_nothing():
    counted = inputs_per_weight(nn.BatchNorm2d(3).eval(), (3, 4, 5))
    assert counted["weight"].tolist() == [20] * 3 and counted["bias"].tolist() == [0] * 3


def test_every_weight_of_the_network_connects_as_the_formulas_say():
    model = ColorizationCNN(in_channels=2, num_filters=2, num_colors=3)
    connections = {nn.BatchNorm2d: [], nn.Conv2d: []}
    for step in counting.trace(model, (2, 16, 24)):
        if parameter_count(step.module):
            counted = inputs_per_weight(step.module, step.input_shape[1:])["weight"].sum().item()
            kind = nn.BatchNorm2d if isinstance(step.module, nn.BatchNorm2d) else nn.Conv2d
            connections[kind].append(counted)
    table = formulas.evaluate(NIC=2, NF=2, NC=3, H=16, W=24).drop("total")
    assert connections[nn.Conv2d] == table["taps"].tolist()
    assert connections[nn.BatchNorm2d] == table["prepool_outputs"].tolist()[:-1]


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
        (Skip(), r"second: found an input of \(1, 2, 16, 16\), expected \(1, 2, 32, 32\)"),
        (ColorizationUNet(num_filters=2), "ColorizationUNet is no chain"),
        (Shifted(), "Shifted: found 3 parameters, expected 2, .* account for: conv"),
        (nn.Sequential(LAYER, nn.PReLU()), "found 3 parameters, expected 2"),
        (nn.Sequential(nn.BatchNorm2d(1), LAYER), "found 4 parameters, expected 2"),
        (nn.Sequential(LAYER, nn.Flatten(2), nn.Linear(1024, 2)), "expected 2, .* for: 0"),
        (nn.Sequential(LAYER, LAYER), "0: called twice"),
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
