"""Costs read off a module, against independent counts, and against errors planted in the module."""

from math import prod

import pytest
import sympy
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from smai_lib.colorization.model import ColorizationCNN, ColorizationUNet
from smai_lib.core.layers import parameter_count
from smai_lib.costs import formulas
from smai_lib.costs.derivation import UNET, Family, connections, derive, measure, multitask_family
from smai_lib.costs.formulas import HAND, NC, NF, NIC, QUANTITIES, CostError, H, W, k
from smai_lib.multitask.model import MultiTaskCNN


def few(build) -> Family:
    """A family with the sizes NF and NC alone: small enough to plant an error in every test."""
    return Family(build, {NF: (1, 2, 3), NC: (1, 2, 3)}, {NF: (4, 5), NC: (4, 6)})


def colorization(NF, NC):
    return ColorizationCNN(num_filters=NF, num_colors=NC), (1, 32, 32)


def hand_at_32():
    point = {NIC: 1, k: 3, H: 32, W: 32}
    return [layer._replace(cost=formulas.Cost(*(sympy.sympify(getattr(layer.cost, quantity)).subs(point)
                                             for quantity in QUANTITIES))) for layer in HAND]


def planted(change):
    def build(NF, NC):
        model, image = colorization(NF, NC)
        change(model, NF, NC)
        return model, image

    return {(m.layer, m.quantity): m.ratio for m in formulas.compare(hand_at_32(), derive(few(build), checks=3))}


# --- planted errors


def test_the_unchanged_module_has_no_mismatch():
    assert planted(lambda model, NF, NC: None) == {}


def test_a_swapped_kernel_in_the_module_is_named():
    def change(model, NF, NC):
        model.encoder.block2.conv = nn.Conv2d(NF, 2 * NF, 5, padding=2)

    found = planted(change)
    layer = "Conv2 (encoder.block2.conv)"
    assert set(found) == {(layer, "weights"), (layer, "macs"), (layer, "taps")}
    assert found[layer, "weights"] == found[layer, "macs"] == sympy.Rational(9, 25)


def test_a_stride_in_the_module_is_named():
    def change(model, NF, NC):
        model.decoder.block2.deconv = nn.ConvTranspose2d(2 * NF, NF, 4, stride=2, padding=1)

    layer = "Deconv2 (decoder.block2.deconv)"
    assert set(planted(change)) == {(layer, "weights"), (layer, "macs"), (layer, "taps")}

    def shrink(model, NF, NC):
        model.encoder.block3.conv = nn.Conv2d(2 * NF, 4 * NF, 3, stride=2, padding=1)
        model.encoder.block3.pool = nn.Identity()

    layer = "Conv3 (encoder.block3.conv)"
    found = planted(shrink)
    assert set(found) == {(layer, "prepool_outputs"), (layer, "macs"), (layer, "taps")}
    assert found[layer, "macs"] == 4


def test_other_kinds_of_layers_are_refused():
    def change(model, NF, NC):
        model.decoder.block2 = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2 * NF, NF, 1))

    with pytest.raises(CostError, match="conv, conv, conv, deconv, deconv.* by hand"):
        planted(change)


def test_a_cost_of_too_high_degree_is_refused():
    def cubic(NF, NC):
        return nn.Sequential(nn.Conv2d(NF**2, NF * NC, 1)), (NF**2, 8, 8)

    with pytest.raises(CostError, match="0 weights: the module has"):
        derive(few(cubic), checks=3)


# --- witnesses


@pytest.mark.parametrize(("kernel", "stride", "padding", "transposed"), [
    (1, 1, 0, False), (3, 1, 1, False), (5, 1, 2, False), (3, 2, 1, False), (4, 1, 2, False),
    (2, 2, 0, True), (3, 3, 0, True), (4, 2, 1, True),
])
def test_connections_match_an_explicit_loop(loop_count, kernel, stride, padding, transposed):
    weight = (3, 2, kernel, kernel) if transposed else (2, 3, kernel, kernel)
    options = [[stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1]
    assert connections(weight, (1, 3, 5, 4), *options) == loop_count(3, 2, kernel, 5, 4, stride, padding, transposed)


def test_a_tiny_layer_has_as_many_nonzero_second_derivatives_as_taps():
    # d2 output / d input d weight is 1 for every connection and 0 elsewhere
    images, weight = torch.rand(1, 2, 2, 2), torch.rand(2, 1, 2, 2)

    def gradient(weight):
        return torch.func.jacrev(lambda x: F.conv_transpose2d(x, weight, stride=2))(images)

    second = torch.func.jacrev(gradient)(weight)
    assert second.count_nonzero() == formulas.deconv(2, 1, 2, 2).taps


MODELS = {
    "colorization": (lambda: ColorizationCNN(num_filters=6, num_colors=5, kernel_size=5), (1, 32, 24)),
    "multitask": (lambda: MultiTaskCNN(num_layers=3, base_filters=8, dropout_rate=0.3), (1, 28, 28)),
    "unet": (lambda: ColorizationUNet(num_filters=4, num_colors=5), (1, 32, 24)),
}


@pytest.mark.parametrize("name", MODELS)
def test_macs_agree_with_two_other_counters(name):
    fvcore = pytest.importorskip("fvcore.nn")
    build, image = MODELS[name]
    model = build().eval()
    macs = sum(layer.cost.macs for layer in measure(model, image))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *image))
    assert counter.get_total_flops() == 2 * macs
    by_operator = fvcore.FlopCountAnalysis(model, torch.zeros(1, *image))
    by_operator.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert sum(by_operator.by_operator()[op] for op in ("conv", "linear")) == macs


@pytest.mark.parametrize(("family", "sizes", "name"), [
    (multitask_family(2), {"NF": 8, "NC": 10}, "multitask"), (multitask_family(3), {"NF": 8, "NC": 10}, "multitask"),
    (UNET, {"NF": 6, "NC": 5, "k": 3, "H": 64, "W": 96}, "unet"),
], ids=["multitask2", "multitask3", "unet"])
def test_other_models_are_derived(family, sizes, name):
    total = formulas.evaluate(derive(family, checks=4), **sizes).loc["total"]
    model, image = family.build(**sizes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *image))
    assert 2 * total["macs"] == counter.get_total_flops()
    assert total["weights"] + total["biases"] + total["norm_params"] == parameter_count(model)
    assert total["taps"] < total["macs"] and total["outputs"] < total["prepool_outputs"]


class Skip(nn.Module):
    """Pools by a function and joins a skip: nothing that a chain of modules would show."""

    def __init__(self, c):
        super().__init__()
        self.down, self.norm = nn.Conv2d(1, c, 3, padding=1), nn.BatchNorm2d(c)
        self.up, self.last = nn.ConvTranspose2d(c, c, 2, stride=2), nn.Conv2d(2 * c, 1, 1, groups=1)

    def forward(self, images):
        full = F.relu(self.norm(self.down(images)))
        return self.last(torch.cat([full, self.up(F.max_pool2d(full, 2))], 1))


def test_skips_and_functional_calls_are_counted():
    down, up, last = measure(Skip(3), (1, 8, 6))
    assert down == ("down", "conv", formulas.conv(1, 3, 3, 8, 6, pool=2))
    assert up == ("up", "deconv", formulas.deconv(3, 3, 4, 3, norm=False))
    assert last == ("last", "conv", formulas.conv(6, 1, 1, 8, 6, norm=False))


def test_grouped_and_strided_convolutions_are_counted():
    (layer,) = measure(nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False)), (4, 9, 7))
    assert layer.cost.weights == prod((6, 2, 3, 3)) and layer.cost.biases == 0
    assert layer.cost.macs == layer.cost.taps == 108 * 4 * 3


# --- bad input


@pytest.mark.parametrize(("layer", "message"), [
    (nn.GELU(), r"Sequential\.1\.1: aten\.gelu"),
    (nn.Upsample(scale_factor=2, mode="bilinear"), r"Sequential\.1\.1: aten\.upsample_bilinear2d"),
    (nn.LocalResponseNorm(2), r"Sequential\.1\.1: aten\."),
    (nn.Conv1d(8, 1, 1), r"Sequential\.1\.1: aten\.convolution"),
    (nn.Linear(8, 2, bias=False), r"Sequential\.1\.1: aten\.mm"),
])
def test_an_unknown_layer_is_named_and_never_counted_as_zero(layer, message):
    reshape = {nn.Linear: nn.Flatten(0, 2), nn.Conv1d: nn.Flatten(0, 1)}.get(type(layer), nn.Identity())
    with pytest.raises(CostError, match=message):
        measure(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(reshape, layer)), (1, 8, 8))


def test_parameters_outside_the_layers_are_refused():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.shift = nn.Conv2d(1, 1, 1), nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return self.conv(images) + self.shift

    with pytest.raises(CostError, match="Shifted holds 3 parameters, and its layers account for 2: conv"):
        measure(Shifted(), (1, 8, 8))


def test_a_weight_that_is_no_parameter_is_refused():
    class Blur(nn.Module):
        kernel = torch.ones(1, 1, 3, 3)

        def forward(self, images):
            return F.conv2d(images, self.kernel)

    with pytest.raises(CostError, match="Blur: aten.convolution.default multiplies by a tensor that is not a"):
        measure(Blur(), (1, 8, 8))


def test_a_layer_called_twice_is_refused():
    layer = nn.Conv2d(1, 1, 1)
    with pytest.raises(CostError, match="0: called twice"):
        measure(nn.Sequential(layer, layer), (1, 8, 8))


def test_measuring_leaves_the_model_as_it_was():
    model = ColorizationCNN(num_filters=2).train()
    before = [buffer.clone() for buffer in model.buffers()]
    measure(model, (1, 16, 16))
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


def test_deriving_leaves_the_threads(two_threads):
    derive(few(colorization), checks=1)
    assert torch.get_num_threads() == two_threads
