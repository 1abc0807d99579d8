"""Costs counted on a module, against other counters, and against errors planted in the module or the formulas."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from smai_lib.colorization.model import ColorizationCNN, ColorizationUNet
from smai_lib.core.layers import parameter_count
from smai_lib.costs import counting, formulas
from smai_lib.costs.counting import CostError, count, disagreements
from smai_lib.costs.formulas import HAND

SIZES = {"NIC": 1, "NF": 2, "NC": 3, "k": 3, "H": 32, "W": 32}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"NIC": 2},
        {"NF": 5},
        {"NC": 4},
        {"k": 1},
        {"k": 5},
        {"k": 9},
        {"H": 40},
        {"W": 48},
        {"NIC": 3, "NF": 3, "k": 7, "W": 40},
    ],
)
def test_the_formulas_are_the_module(changed):
    assert disagreements(HAND, **SIZES | changed).empty


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
    cost = dataclasses.replace(HAND[layer], **{quantity: factor * getattr(HAND[layer], quantity)})
    found = disagreements(HAND | {layer: cost}, **SIZES)
    assert found.shape == (1, 2)
    assert (
        found.loc[layer, (quantity, "formula")] == factor * found.loc[layer, (quantity, "module")]
    )


def different(monkeypatch, block: str, name: str, module: nn.Module):
    """What is found to differ once one module of the network is another."""

    class Changed(ColorizationCNN):
        def __init__(self, **sizes):
            super().__init__(**sizes)
            setattr(self.get_submodule(block), name, module)

    monkeypatch.setattr(counting, "ColorizationCNN", Changed)
    found = disagreements(HAND, **SIZES).stack(0, future_stack=True).dropna()
    return {key: (row["formula"], row["module"]) for key, row in found.iterrows()}


def test_a_swapped_kernel_in_the_module_is_named(monkeypatch):
    found = different(monkeypatch, "encoder.block2", "conv", nn.Conv2d(2, 4, 5, padding=2))
    assert set(found) == {("Conv2", "weights"), ("Conv2", "macs"), ("Conv2", "taps")}
    assert found["Conv2", "weights"] == (2 * 4 * 9, 2 * 4 * 25)


def test_a_larger_kernel_of_a_transposed_convolution_is_named(monkeypatch):
    found = different(
        monkeypatch, "decoder.block2", "deconv", nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1)
    )
    assert set(found) == {("Deconv2", "weights"), ("Deconv2", "macs"), ("Deconv2", "taps")}


def test_a_norm_without_parameters_is_named(monkeypatch):
    found = different(monkeypatch, "encoder.block1", "norm", nn.BatchNorm2d(2, affine=False))
    assert found == {("Conv1", "norm_params"): (4, 0)}


def test_a_bias_that_is_missing_is_named(monkeypatch):
    found = different(
        monkeypatch, "encoder.block1", "conv", nn.Conv2d(1, 2, 3, padding=1, bias=False)
    )
    assert found == {("Conv1", "biases"): (2, 0)}


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "transposed"),
    [
        (1, 1, 0, False),
        (3, 1, 1, False),
        (5, 1, 2, False),
        (3, 2, 1, False),
        (4, 1, 2, False),
        (2, 2, 0, True),
        (3, 3, 0, True),
        (4, 2, 1, True),
    ],
)
def test_taps_match_an_explicit_loop(loop_count, kernel, stride, padding, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    table = count(nn.Sequential(kind(3, 2, kernel, stride=stride, padding=padding)), (3, 5, 4))
    assert table["taps"].tolist() == [loop_count(3, 2, kernel, 5, 4, stride, padding, transposed)]


def test_grouped_and_strided_convolutions_are_counted():
    table = count(nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False)), (4, 9, 7))
    assert table.loc["0", ["weights", "biases", "macs", "taps"]].tolist() == [
        108,
        0,
        108 * 4 * 3,
        108 * 4 * 3,
    ]


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


def test_a_tiny_layer_has_as_many_nonzero_second_derivatives_as_taps():
    # d2 output / d input d weight is 1 for every connection and 0 elsewhere
    images, weight = torch.rand(1, 2, 2, 2), torch.rand(2, 1, 2, 2)

    def gradient(weight):
        return torch.func.jacrev(lambda x: F.conv_transpose2d(x, weight, stride=2))(images)

    second = torch.func.jacrev(gradient)(weight)
    assert second.count_nonzero() == formulas.deconv(2, 1, 2, 2).taps


# --- bad input


class Skip(nn.Module):
    """Pools by a function, which no module shows."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

    def forward(self, images):
        return self.second(F.max_pool2d(self.first(images), 2))


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.shift = nn.Conv2d(1, 1, 1), nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return self.conv(images) + self.shift


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Skip(), r"second: reads \(1, 2, 16, 16\) and the module before it gives \(1, 2, 32, 32\)"),
        (ColorizationUNet(num_filters=2), "ColorizationUNet is none"),
        (Shifted(), "Shifted holds 3 parameters, and its convolutions account for 2: conv"),
        (
            nn.Sequential(nn.Conv2d(1, 1, 1), nn.PReLU()),
            "holds 3 parameters, and its convolutions account for 2: 0",
        ),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(2), nn.Linear(1024, 2)), "account for 2: 0"),
    ],
)
def test_what_would_be_missed_is_refused(model, message):
    with pytest.raises(CostError, match=message):
        count(model, (1, 32, 32))


def test_a_layer_called_twice_is_refused():
    layer = nn.Conv2d(1, 1, 1)
    with pytest.raises(CostError, match="0: called twice"):
        count(nn.Sequential(layer, layer), (1, 8, 8))


def test_counting_leaves_the_model_as_it_was():
    model = ColorizationCNN(num_filters=2).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count(model, (1, 16, 16))[
        ["weights", "biases", "norm_params"]
    ].to_numpy().sum() == parameter_count(model)
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
