"""Connections in the assignment's words, counted weight by weight and input by input, against the closed forms."""

from collections import defaultdict
from itertools import product

import pytest
import torch
from torch import nn

from smai_lib.colorization.model import ColorizationCNN
from smai_lib.costs import formulas
from smai_lib.costs.counting import forward_pass, inputs_of_each_weight
from smai_lib.costs.formulas import HAND, PUBLISHED

SIZES = {"NIC": 2, "NF": 2, "NC": 3, "k": 3, "H": 16, "W": 24}


def convolution_triples(c_in, c_out, kernel, h, w, *, frame=False):
    """(weight, input, output) of every product of a convolution with padding kernel // 2; its frame of zeros too."""
    p = kernel // 2
    for b, a, y, x, dy, dx in product(*map(range, (c_out, c_in, h, w, kernel, kernel))):
        v, u = y + dy - p, x + dx - p
        if frame or (0 <= v < h and 0 <= u < w):
            yield (b, a, dy, dx), (a, v, u), (b, y, x)


def transposed_triples(c_in, c_out, h, w):
    """(weight, input, output) of every product of a transposed convolution, 2 x 2, stride 2; gathered, output first."""
    for b, a, v, u, dy, dx in product(*map(range, (c_out, c_in, 2 * h, 2 * w, 2, 2))):
        (y, off_y), (x, off_x) = divmod(v - dy, 2), divmod(u - dx, 2)
        if off_y == off_x == 0 and 0 <= y < h and 0 <= x < w:
            yield (a, b, dy, dx), (a, y, x), (b, v, u)


def inputs_of(triples):
    """Weight -> how many distinct elements of the input it multiplies."""
    met = defaultdict(set)
    for weight, pixel, _ in triples:
        met[weight].add(pixel)
    return {weight: len(pixels) for weight, pixels in met.items()}


LAYERS = {
    "conv1": (convolution_triples, (2, 3, 1, 4, 5), nn.Conv2d(2, 3, 1)),
    "conv3": (convolution_triples, (2, 3, 3, 4, 5), nn.Conv2d(2, 3, 3, padding=1)),
    "conv5": (convolution_triples, (1, 2, 5, 6, 3), nn.Conv2d(1, 2, 5, padding=2)),
    "deconv": (transposed_triples, (3, 2, 3, 4), nn.ConvTranspose2d(3, 2, 2, stride=2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_enumeration_is_the_layer(name):
    enumerate_triples, sizes, layer = LAYERS[name]
    image = torch.rand(1, sizes[0], *sizes[-2:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = layer(image)[0]
        summed = layer.bias.view(-1, 1, 1).expand_as(expected).clone()
        for weight, pixel, output in enumerate_triples(*sizes):
            summed[output] += layer.weight[weight] * image[0][pixel]
    assert torch.allclose(summed, expected, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_autograd_counts_the_same_inputs_of_every_weight(name):
    enumerate_triples, sizes, layer = LAYERS[name]
    counted = inputs_of_each_weight(layer, (sizes[0], *sizes[-2:]))
    enumerated = inputs_of(enumerate_triples(*sizes))
    assert len(enumerated) == counted["weight"].numel()
    assert all(counted["weight"][weight] == number for weight, number in enumerated.items())
    assert counted["bias"].count_nonzero() == 0  # a bias is added, and connects to no input


@pytest.mark.parametrize(("kernel", "h", "w"), [(1, 2, 3), (3, 4, 2), (5, 3, 4), (7, 3, 5)])
def test_convolution_in_both_readings(kernel, h, w):
    cost = formulas.conv(2, 3, kernel, h, w)
    strict = inputs_of(convolution_triples(2, 3, kernel, h, w))
    with_frame = inputs_of(convolution_triples(2, 3, kernel, h, w, frame=True))
    assert len(with_frame) == cost.weights
    assert sum(strict.values()) == cost.taps
    assert sum(with_frame.values()) == cost.macs and set(with_frame.values()) == {h * w}


def test_a_weight_off_the_centre_misses_as_many_rows_as_it_is_off():
    for (*_, dy, dx), number in inputs_of(convolution_triples(1, 2, 5, 6, 4)).items():
        assert number == (6 - abs(dy - 2)) * (4 - abs(dx - 2))


def test_transposed_convolution_connects_every_weight_to_the_inputs_area():
    found = inputs_of(transposed_triples(3, 2, 3, 4))
    assert set(found.values()) == {3 * 4}  # not 6 * 8, the area of its output
    cost = formulas.deconv(3, 2, 3, 4)
    assert len(found) == cost.weights and sum(found.values()) == cost.macs == cost.taps


def test_a_scale_of_batchnorm_connects_to_its_map_and_a_shift_to_nothing():
    found = inputs_of_each_weight(nn.BatchNorm2d(3).eval(), (3, 4, 5))
    assert found["weight"].tolist() == [20] * 3 and found["bias"].tolist() == [0] * 3


@pytest.mark.parametrize("kernel", [3, 5])
def test_every_weight_of_a_whole_network(kernel):
    sizes = SIZES | {"k": kernel}
    table = formulas.evaluate(HAND, **sizes)
    nic, nf, nc, h, w = (sizes[name] for name in ("NIC", "NF", "NC", "H", "W"))
    shapes = [
        (nic, nf, h, w),
        (nf, 2 * nf, h // 2, w // 2),
        (2 * nf, 4 * nf, h // 4, w // 4),
        (4 * nf, 2 * nf, h // 8, w // 8),
        (2 * nf, nf, h // 4, w // 4),
        (nf, nc, h // 2, w // 2),
        (nc, nc, h, w),
    ]
    strict, usual = [], []
    for layer, (c_in, c_out, rows, columns) in zip(HAND, shapes, strict=True):
        if layer.startswith("Deconv"):
            found = [inputs_of(transposed_triples(c_in, c_out, rows, columns))] * 2
        else:
            width = 1 if layer == "Classifier" else kernel
            found = [
                inputs_of(convolution_triples(c_in, c_out, width, rows, columns, frame=frame))
                for frame in (False, True)
            ]
        strict.append(sum(found[0].values()))
        usual.append(sum(found[1].values()))
    assert table["taps"].tolist() == [*strict, sum(strict)]
    assert table["macs"].tolist() == [*usual, sum(usual)]
    deconvs = sum(
        number for layer, number in zip(HAND, usual, strict=True) if layer.startswith("Deconv")
    )
    assert (
        formulas.value_at(PUBLISHED["macs"], **sizes) == sum(usual) + 3 * deconvs
    )  # each counted four times


def test_every_weight_of_the_module_by_autograd():
    model = ColorizationCNN(in_channels=2, num_filters=2, num_colors=3)
    counted = {
        step.name: (
            step.module,
            inputs_of_each_weight(step.module, step.reads[1:])["weight"].sum().item(),
        )
        for step in forward_pass(model, (2, SIZES["H"], SIZES["W"]))
        if list(step.module.parameters())
    }
    table = formulas.evaluate(HAND, **SIZES)
    norms = [number for module, number in counted.values() if isinstance(module, nn.BatchNorm2d)]
    assert [
        number for module, number in counted.values() if not isinstance(module, nn.BatchNorm2d)
    ] == table["taps"].tolist()[:-1]
    assert norms == table["prepool_outputs"].tolist()[:-2]  # the classifier has no BatchNorm
