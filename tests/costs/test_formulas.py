"""The closed forms: values, sizes that they refuse, and how they are shown.

`test_counting.py` and the claims compare them with the module.
"""

import pytest

from smai_lib.core.errors import ConfigError
from smai_lib.costs import formulas
from smai_lib.costs.formulas import NC, NF, PUBLISHED, H, W


@pytest.mark.parametrize(
    "sizes, weights, outputs, macs, taps, published",
    [
        ({}, 137_056, 75_776, 12_156_928, 11_006_080, 17_661_952),
        ({"k": 5, "H": 64, "W": 64}, 301_408, 303_104, 117_833_728, 106_284_160, 139_853_824),
    ],
)
def test_totals_are_those_of_the_assignment(sizes, weights, outputs, macs, taps, published):
    total = formulas.evaluate(**sizes).loc["total"]
    assert total[["weights", "outputs", "macs", "taps"]].tolist() == [weights, outputs, macs, taps]
    assert formulas.value_at(PUBLISHED["macs"], **sizes) == published


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"k": 4}, "k: found 4, expected an odd number"),
        ({"W": 36}, "W: found 36, expected a multiple of 8"),
        ({"NF": 0}, "NF: found 0"),
        ({"k": 19}, "k: found 19, expected an odd number up to 17 for a side of 32"),
        ({"depth": 3}, "size: found 'depth', expected one of NIC, NF, NC, k, H, W"),
    ],
)
def test_sizes_outside_the_formulas_are_refused(sizes, message):
    with pytest.raises(ConfigError, match=message):
        formulas.evaluate(**sizes)


def test_a_markdown_table_has_a_row_a_layer_and_upright_names():
    lines = formulas.markdown_table(formulas.formula_table()[["weights"]]).splitlines()
    assert lines[:2] == ["| Layer | weights |", "| --- | --- |"] and len(lines) == 10
    assert lines[7] == r"| Deconv3 | $\displaystyle 4 \, \mathrm{NC} \, \mathrm{NF}$ |"


def test_a_derivation_shows_factors_products_and_what_they_share():
    assert formulas.derivation([4 * NF, NC], [H * W / 2, H * W]).splitlines() == [
        r"\begin{aligned}",
        r"&= 4 \, \mathrm{NF} \cdot \frac{H \, W}{2} + \mathrm{NC} \cdot H \, W \\",
        r"&= 2 \, H \, \mathrm{NF} \, W + H \, \mathrm{NC} \, W \\",
        r"&= H \, W \, \left(\mathrm{NC} + 2 \, \mathrm{NF}\right) \\",
        r"\end{aligned}",
    ]
