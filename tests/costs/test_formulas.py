"""The closed-form costs against four independent counts, and against errors planted in either side."""

import dataclasses
from itertools import product
from math import prod

import pandas as pd
import pytest
import sympy
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from smai_lib.colorization.model import ColorizationCNN, ColorizationUNet
from smai_lib.core import paths
from smai_lib.core.layers import parameter_count
from smai_lib.costs import figures, formulas, timing
from smai_lib.costs.derivation import (
    COLORIZATION,
    UNET,
    Family,
    connections,
    derive,
    measure,
    multitask,
)
from smai_lib.costs.formulas import HAND, NC, NF, NIC, PUBLISHED, QUANTITIES, CostError, H, W, k
from smai_lib.multitask.model import MultiTaskCNN

REPORTED = {"NIC": 1, "NF": 32, "NC": 24, "k": 3, "H": 32, "W": 32}


@pytest.fixture(scope="module")
def derived():
    return derive(COLORIZATION)


@pytest.fixture
def two_threads():
    """Not the one thread that the derivation and the sweep set for themselves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(threads)


def few(build) -> Family:
    """A family with the sizes NF and NC alone: small enough to plant an error in every test."""
    return Family(build, {NF: (1, 2, 3), NC: (1, 2, 3)}, {NF: (4, 5), NC: (4, 6)})


def colorization(NF, NC):
    return ColorizationCNN(num_filters=NF, num_colors=NC), (1, 32, 32)


def hand_at_32():
    point = {NIC: 1, k: 3, H: 32, W: 32}
    return [layer._replace(cost=formulas.Cost(*(sympy.sympify(getattr(layer.cost, quantity)).subs(point)
                                             for quantity in QUANTITIES))) for layer in HAND]


# --- the proof


def test_hand_equals_module_for_every_layer_and_quantity(derived):
    assert len(HAND) == len(derived) == 7 and len(QUANTITIES) == 7
    assert formulas.compare(HAND, derived) == []


def test_published_weights_and_outputs_are_right_and_macs_count_deconvolutions_four_times(derived):
    for quantity in ("weights", "outputs"):
        assert formulas.diagnose(PUBLISHED[quantity], derived, quantity) == (0, {"conv": 1, "deconv": 1})
    diagnosis = formulas.diagnose(PUBLISHED["macs"], derived)
    assert diagnosis.factors == {"conv": 1, "deconv": 4}
    assert sympy.expand(diagnosis.excess - 3 * H * W * NF * (NF + NC)) == 0


def test_diagnose_admits_that_no_factor_explains_a_claim(derived):
    diagnosis = formulas.diagnose(PUBLISHED["macs"] + NF**3, derived)
    assert diagnosis.factors is None and sympy.expand(diagnosis.excess).has(NF**3)


@pytest.mark.parametrize(("sizes", "weights", "outputs", "macs", "taps", "published"), [
    ({}, 137_056, 75_776, 12_156_928, 11_006_080, 17_661_952),
    ({"k": 5}, 301_408, 75_776, 29_458_432, 23_868_544, 34_963_456),
    ({"H": 64, "W": 64}, 137_056, 303_104, 48_627_712, 46_284_928, 70_647_808),
    ({"k": 5, "H": 64, "W": 64}, 301_408, 303_104, 117_833_728, 106_284_160, 139_853_824),
])
def test_totals(sizes, weights, outputs, macs, taps, published):
    sizes = REPORTED | sizes
    total = formulas.evaluate(HAND, **sizes).loc["total"]
    assert [total[q] for q in ("weights", "outputs", "macs", "taps")] == [weights, outputs, macs, taps]
    assert formulas.value_at(PUBLISHED["macs"], **sizes) == published


def test_biases_and_norm_parameters_complete_the_weights():
    total = formulas.evaluate(HAND, **REPORTED).loc["total"]
    assert total["weights"] + total["biases"] + total["norm_params"] == parameter_count(ColorizationCNN())


# --- planted errors


@pytest.mark.parametrize(("row", "quantity", "factor"), [
    (1, "weights", 2), (3, "macs", 4), (0, "taps", sympy.Rational(1, 2)), (2, "outputs", 4),
    (5, "prepool_outputs", 3), (6, "biases", 2), (4, "norm_params", 2),
])
def test_a_factor_in_one_hand_formula_is_named(derived, row, quantity, factor):
    wrong = HAND.copy()
    cost = wrong[row].cost
    wrong[row] = wrong[row]._replace(
        cost=dataclasses.replace(cost, **{quantity: factor * getattr(cost, quantity)}))
    (mismatch,) = formulas.compare(wrong, derived)
    assert mismatch.layer == f"{HAND[row].name} ({derived[row].name})"
    assert (mismatch.quantity, mismatch.ratio) == (quantity, factor)


def planted(change):
    def build(NF, NC):
        model, image = colorization(NF, NC)
        change(model, NF, NC)
        return model, image

    return {(m.layer, m.quantity): m.ratio for m in formulas.compare(hand_at_32(), derive(few(build), checks=3))}


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


def loop_count(c_in, c_out, kernel, h, w, stride, padding, transposed):
    """Count taps that hit the map, one by one; a transposed convolution scatters, a convolution gathers."""
    out = [(side - 1) * stride + kernel - 2 * padding if transposed else
           (side + 2 * padding - kernel) // stride + 1 for side in (h, w)]
    source, target = ((h, w), out) if transposed else (out, (h, w))
    count = 0
    for y, x, dy, dx in product(*map(range, (*source, kernel, kernel))):
        v, u = y * stride - padding + dy, x * stride - padding + dx
        count += 0 <= v < target[0] and 0 <= u < target[1]
    return c_in * c_out * count


@pytest.mark.parametrize(("kernel", "stride", "padding", "transposed"), [
    (1, 1, 0, False), (3, 1, 1, False), (5, 1, 2, False), (3, 2, 1, False), (4, 1, 2, False),
    (2, 2, 0, True), (3, 3, 0, True), (4, 2, 1, True),
])
def test_connections_match_an_explicit_loop(kernel, stride, padding, transposed):
    weight = (3, 2, kernel, kernel) if transposed else (2, 3, kernel, kernel)
    options = [[stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1]
    assert connections(weight, (1, 3, 5, 4), *options) == loop_count(3, 2, kernel, 5, 4, stride, padding, transposed)


@pytest.mark.parametrize(("kernel", "h", "w"), [(1, 2, 3), (3, 4, 2), (5, 3, 4), (7, 3, 5)])
def test_border_formula_matches_an_explicit_loop(kernel, h, w):
    cost = formulas.conv(3, 2, kernel, h, w)
    assert cost.taps == loop_count(3, 2, kernel, h, w, 1, kernel // 2, False)
    assert cost.macs == 6 * kernel**2 * h * w


def test_deconvolution_uses_each_weight_once_per_input_pixel():
    cost = formulas.deconv(3, 2, 3, 4)
    assert cost.taps == cost.macs == loop_count(3, 2, 2, 3, 4, 2, 0, True) == 288
    assert cost.outputs == nn.ConvTranspose2d(3, 2, 2, stride=2)(torch.zeros(1, 3, 3, 4)).numel()


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
    (multitask(2), {"NF": 8, "NC": 10}, "multitask"), (multitask(3), {"NF": 8, "NC": 10}, "multitask"),
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


@pytest.mark.parametrize(("sizes", "message"), [
    ({"k": 4}, "k: found 4, expected an odd kernel"),
    ({"H": 33}, "H: found 33, expected a multiple of 8"),
    ({"W": 36}, "W: found 36, expected a multiple of 8"),
    ({"NF": 0}, "NF: found 0, expected an integer of at least 1"),
    ({"NC": -3}, "NC: found -3"),
    ({"NIC": 1.5}, "NIC: found 1.5"),
    ({"k": True}, "k: found True"),
    ({"k": 11}, "k: found 11, expected at most 9 for a side of 32"),
    ({"depth": 3}, "sizes: found H, NC, NF, NIC, W, depth, k, expected H, NC"),
])
def test_sizes_outside_the_formulas_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        formulas.evaluate(HAND, **REPORTED | sizes)


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


def test_latex_has_a_row_per_layer_and_the_total():
    text = formulas.latex(HAND, ["weights", "macs"])
    assert text.startswith(r"\begin{array}{lll}") and text.endswith(r"\end{array}")
    assert [number for number, line in enumerate(text.splitlines()) if line == r"\hline"] == [2, 10]
    assert text.count(r"\\") == 9 and text.count(" & ") == 18
    assert r"\text{Deconv3} & 4 \mathit{NC} \mathit{NF} & H \mathit{NC} \mathit{NF} W" in text


def test_latex_shortens_a_total_that_no_factoring_shortens():
    text = formulas.latex(HAND, ["macs", "taps"])
    assert text.count(r"\text{the sum}") == 1 and text.splitlines()[-2].endswith(r"\text{the sum} \\")


# --- recorded tables, timing, figures


def test_recorded_counters_split_at_the_transposed_convolution():
    table = pd.read_csv(paths.RESULTS / "cost_counters.csv")
    true = formulas.evaluate(HAND, **REPORTED).loc["total", "macs"]
    assert (table["ratio"] - table["count"] / table["units_per_mac"] / true).abs().max() < 1e-4
    wrong = table["deconv_factor"] > 2
    # what is left is what the counters add for biases, BatchNorm, ReLU and pooling: a few percent
    truth = wrong.map({True: formulas.value_at(PUBLISHED["macs"], **REPORTED), False: true})
    assert ((table["count"] / table["units_per_mac"] / truth).between(1, 1.05)).all()


def test_recorded_timing_holds_the_counts_of_today():
    for row in timing.timing("recorded").itertuples():
        total = formulas.evaluate(HAND, **REPORTED | {"NF": row.NF, "k": row.k}).loc["total"]
        assert (row.macs, row.weights, row.prepool_outputs) == (
            total["macs"], total["weights"], total["prepool_outputs"])


def test_deriving_leaves_the_threads(two_threads):
    derive(few(colorization), checks=1)
    assert torch.get_num_threads() == two_threads


def test_sweep_measures_every_pair_and_leaves_the_threads(two_threads):
    table = timing.sweep((2, 3), (1, 5), images=2, repeats=1)
    assert list(zip(table["NF"], table["k"], strict=True)) == [(2, 1), (2, 5), (3, 1), (3, 5)]
    assert (table["seconds"] > 0).all() and torch.get_num_threads() == two_threads
    with pytest.raises(ValueError, match="profile: found 'fast', expected one of recorded, quick, full"):
        timing.timing("fast")


def test_fit_finds_the_rates_that_made_the_times():
    table = pd.DataFrame({"a": [1e6, 2e6, 4e6, 3e6], "b": [3e3, 1e3, 2e3, 9e3]})
    table["seconds"] = 1e-3 + 2e-9 * table["a"] + 5e-7 * table["b"]
    assert timing.fit(table, "a", "b") == pytest.approx(table["seconds"].to_numpy())
    assert timing.explained(table, "a", "b") == pytest.approx(1)
    assert timing.explained(table, "a") < 0.9


@pytest.mark.parametrize("transposed", [False, True])
def test_reach_sums_to_the_connections(transposed):
    options = {"stride": 2, "padding": 1, "transposed": transposed}
    table = figures.reach(3, 4, **options)
    assert table.sum() == loop_count(1, 1, 3, 4, 4, 2, 1, transposed)
    assert table.shape == ((7, 7, 4, 4) if transposed else (2, 2, 4, 4))


def test_taps_figure_colours_the_pixels_that_reach_the_chosen_ones():
    reached = figures.reach(3, 4, padding=1)
    grid = figures.taps({"conv": reached}, {"conv": [(1, 2), (0, 0)]})
    inputs, outputs = grid[0]
    assert len(inputs.patches) == 9 + 4
    assert {patch.get_xy() for patch in inputs.patches[9:]} == {(u - 0.5, v - 0.5) for u in (0, 1) for v in (0, 1)}
    assert [int(text.get_text()) for text in outputs.texts[:5]] == [4, 6, 6, 4, 6]


def test_timing_figure_draws_milliseconds_over_the_count():
    table = pd.DataFrame({"NF": [8, 16, 8, 16], "k": [1, 1, 3, 3], "macs": [10, 400, 20, 900],
                          "seconds": [0.001, 0.002, 0.003, 0.004]})
    (axes,) = figures.time_against_counts(table, {"macs": "MACs"}, {"macs": 0.5})[0]
    assert [line.get_label() for line in axes.lines] == ["k = 1", "k = 3"]
    assert axes.lines[1].get_xydata().tolist() == [[20, 3], [900, 4]]
    assert axes.get_title() == "R² = 0.50"
