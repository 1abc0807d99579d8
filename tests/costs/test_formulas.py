"""The closed-form costs, derived by hand: right in total, typeset, and refused where they do not hold."""

import pytest
import sympy
import torch
from torch import nn

from smai_lib.colorization.model import ColorizationCNN
from smai_lib.core.layers import parameter_count
from smai_lib.costs import formulas
from smai_lib.costs.formulas import HAND, NC, NF, PUBLISHED, QUANTITIES, H, W


def test_published_weights_and_outputs_are_right_and_macs_count_deconvolutions_four_times():
    rows = formulas.formula_table(HAND)
    for quantity in ("weights", "outputs"):
        assert sympy.expand(PUBLISHED[quantity] - rows.loc["total", quantity]) == 0
    deconvs = rows.loc[["Deconv1", "Deconv2", "Deconv3"], "macs"].sum()
    excess = sympy.expand(PUBLISHED["macs"] - rows.loc["total", "macs"])
    assert (
        sympy.expand(excess - 3 * deconvs) == 0
        and sympy.expand(excess - 3 * H * W * NF * (NF + NC)) == 0
    )


@pytest.mark.parametrize(
    ("sizes", "weights", "outputs", "macs", "taps", "published"),
    [
        ({}, 137_056, 75_776, 12_156_928, 11_006_080, 17_661_952),
        ({"k": 5}, 301_408, 75_776, 29_458_432, 23_868_544, 34_963_456),
        ({"H": 64, "W": 64}, 137_056, 303_104, 48_627_712, 46_284_928, 70_647_808),
        ({"k": 5, "H": 64, "W": 64}, 301_408, 303_104, 117_833_728, 106_284_160, 139_853_824),
    ],
)
def test_totals(reported, sizes, weights, outputs, macs, taps, published):
    sizes = reported | sizes
    total = formulas.evaluate(HAND, **sizes).loc["total"]
    assert [total[q] for q in ("weights", "outputs", "macs", "taps")] == [
        weights,
        outputs,
        macs,
        taps,
    ]
    assert formulas.value_at(PUBLISHED["macs"], **sizes) == published


def test_biases_and_norm_parameters_complete_the_weights(reported):
    total = formulas.evaluate(HAND, **reported).loc["total"]
    assert total["weights"] + total["biases"] + total["norm_params"] == parameter_count(
        ColorizationCNN()
    )


@pytest.mark.parametrize(("kernel", "h", "w"), [(1, 2, 3), (3, 4, 2), (5, 3, 4), (7, 3, 5)])
def test_border_formula_matches_an_explicit_loop(loop_count, kernel, h, w):
    cost = formulas.conv(3, 2, kernel, h, w)
    assert cost.taps == loop_count(3, 2, kernel, h, w, 1, kernel // 2, False)
    assert cost.macs == 6 * kernel**2 * h * w


def test_deconvolution_uses_each_weight_once_per_input_pixel(loop_count):
    cost = formulas.deconv(3, 2, 3, 4)
    assert cost.taps == cost.macs == loop_count(3, 2, 2, 3, 4, 2, 0, True) == 288
    assert cost.outputs == nn.ConvTranspose2d(3, 2, 2, stride=2)(torch.zeros(1, 3, 3, 4)).numel()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"k": 4}, "k: found 4, expected an odd kernel"),
        ({"H": 33}, "H: found 33, expected a multiple of 8"),
        ({"W": 36}, "W: found 36, expected a multiple of 8"),
        ({"NF": 0}, "NF: found 0, expected an integer of at least 1"),
        ({"NC": -3}, "NC: found -3"),
        ({"NIC": 1.5}, "NIC: found 1.5"),
        ({"k": True}, "k: found True"),
        ({"k": 11}, "k: found 11, expected at most 9 for a side of 32"),
        ({"depth": 3}, "sizes: found H, NC, NF, NIC, W, depth, k, expected H, NC"),
    ],
)
def test_sizes_outside_the_formulas_are_refused(reported, sizes, message):
    with pytest.raises(ValueError, match=message):
        formulas.evaluate(HAND, **reported | sizes)


def test_latex_sets_names_upright_with_gaps():
    assert formulas.latex(4 * NC * NF * formulas.k) == r"4 \, \mathrm{NC} \, \mathrm{NF} \, k"


def test_latex_table_has_a_row_per_layer_and_the_total():
    table = formulas.formula_table(HAND)[["weights", "macs"]].rename(
        columns={"macs": "connections"}
    )
    lines = formulas.latex_table(table).splitlines()
    assert lines[:3] == [
        r"\begin{array}{lll}",
        r"\text{layer} & \text{weights} & \text{connections} \\",
        r"\hline",
    ]
    assert [number for number, line in enumerate(lines) if line == r"\hline"] == [2, 10] and len(
        lines
    ) == 13
    assert lines[8] == (
        r"\text{Deconv3} & 4 \, \mathrm{NC} \, \mathrm{NF} & "
        r"H \, \mathrm{NC} \, \mathrm{NF} \, W \\"
    )
    assert lines[11].startswith(r"\text{total} & ")
    assert r"\hline" not in formulas.latex_table(table.drop("total")).splitlines()[3:]


def test_latex_sum_shows_factors_products_and_what_they_share():
    assert formulas.latex_sum([(4 * NF, H * W / 2), (NC, H * W)]).splitlines() == [
        r"\begin{aligned}",
        r"&= 4 \, \mathrm{NF} \cdot \frac{H \, W}{2} + \mathrm{NC} \cdot H \, W \\",
        r"&= 2 \, H \, \mathrm{NF} \, W + H \, \mathrm{NC} \, W \\",
        r"&= H \, W \, \left(\mathrm{NC} + 2 \, \mathrm{NF}\right) \\",
        r"\end{aligned}",
    ]


def test_formula_table_ends_in_the_sum():
    table = formulas.formula_table(HAND)
    assert table.index.tolist() == [*HAND, "total"] and tuple(table) == QUANTITIES
    assert sympy.expand(table["taps"].iloc[:-1].sum() - table["taps"]["total"]) == 0
