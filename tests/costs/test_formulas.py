"""The closed-form costs, derived by hand: equal to what the module shows, right in total, wrong when altered."""

import dataclasses

import pytest
import sympy
import torch
from torch import nn

from smai_lib.colorization.model import ColorizationCNN
from smai_lib.core.layers import parameter_count
from smai_lib.costs import formulas
from smai_lib.costs.formulas import HAND, NC, NF, PUBLISHED, QUANTITIES, H, W


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
def test_totals(reported, sizes, weights, outputs, macs, taps, published):
    sizes = reported | sizes
    total = formulas.evaluate(HAND, **sizes).loc["total"]
    assert [total[q] for q in ("weights", "outputs", "macs", "taps")] == [weights, outputs, macs, taps]
    assert formulas.value_at(PUBLISHED["macs"], **sizes) == published


def test_biases_and_norm_parameters_complete_the_weights(reported):
    total = formulas.evaluate(HAND, **reported).loc["total"]
    assert total["weights"] + total["biases"] + total["norm_params"] == parameter_count(ColorizationCNN())


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


@pytest.mark.parametrize(("kernel", "h", "w"), [(1, 2, 3), (3, 4, 2), (5, 3, 4), (7, 3, 5)])
def test_border_formula_matches_an_explicit_loop(loop_count, kernel, h, w):
    cost = formulas.conv(3, 2, kernel, h, w)
    assert cost.taps == loop_count(3, 2, kernel, h, w, 1, kernel // 2, False)
    assert cost.macs == 6 * kernel**2 * h * w


def test_deconvolution_uses_each_weight_once_per_input_pixel(loop_count):
    cost = formulas.deconv(3, 2, 3, 4)
    assert cost.taps == cost.macs == loop_count(3, 2, 2, 3, 4, 2, 0, True) == 288
    assert cost.outputs == nn.ConvTranspose2d(3, 2, 2, stride=2)(torch.zeros(1, 3, 3, 4)).numel()


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
def test_sizes_outside_the_formulas_are_refused(reported, sizes, message):
    with pytest.raises(ValueError, match=message):
        formulas.evaluate(HAND, **reported | sizes)


def test_latex_has_a_row_per_layer_and_the_total():
    text = formulas.latex(HAND, ["weights", "macs"])
    assert text.startswith(r"\begin{array}{lll}") and text.endswith(r"\end{array}")
    assert [number for number, line in enumerate(text.splitlines()) if line == r"\hline"] == [2, 10]
    assert text.count(r"\\") == 9 and text.count(" & ") == 18
    assert r"\text{Deconv3} & 4 \mathit{NC} \mathit{NF} & H \mathit{NC} \mathit{NF} W" in text


def test_latex_shortens_a_total_that_no_factoring_shortens():
    text = formulas.latex(HAND, ["macs", "taps"])
    assert text.count(r"\text{the sum}") == 1 and text.splitlines()[-2].endswith(r"\text{the sum} \\")
