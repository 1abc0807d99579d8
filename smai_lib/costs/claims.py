"""Conclusions about the costs of the colorization network; see `smai_lib.claims`.

Formulas are compared as polynomials, so a claim about them holds for all sizes. Where numbers are
rounded, the sentence states all digits that are checked.
"""

import itertools

import sympy

from ..claims import claim
from ..core.study import read_table
from . import counting, formulas
from .formulas import LAYERS, NC, NF, NIC, PUBLISHED, H, W, k

DECONVOLUTIONS = [name for name in LAYERS if name.startswith("Deconv")]
# one value of each size more than the highest degree of a cost in it
GRID = {
    NIC: (1, 2),
    NF: (1, 2, 3),
    NC: (1, 2, 3),
    k: (1, 3, 5, 7, 9),
    H: (32, 40),
    W: (32, 40),
}


def _equal(first: sympy.Expr, second: sympy.Expr) -> bool:
    return sympy.expand(first - second) == 0


def _total(quantity: str) -> sympy.Expr:
    return formulas.formula_table().loc["total", quantity]


@claim
def published_weights_and_outputs_are_right():
    """The published formulas for weights and outputs agree with ours for all sizes."""
    return all(_equal(PUBLISHED[key], _total(key)) for key in ("weights", "outputs"))


@claim
def published_connections_count_deconvolutions_four_times():
    """The published formula for connections counts each transposed convolution four times, whether
    or not padding counts as input, and every other layer once."""
    table = formulas.formula_table().drop("total")
    published = formulas.published_by_layer()
    ratios = (published / table["macs"]).map(sympy.simplify).to_dict()
    padded = table.index[table["macs"] != table["taps"]]
    return (
        ratios == {name: 4 if name in DECONVOLUTIONS else 1 for name in LAYERS}
        and _equal(published.sum(), PUBLISHED["macs"])
        and not set(padded) & set(DECONVOLUTIONS)
    )


@claim
def published_excess_is_three_hw_nf_times_nf_plus_nc():
    r"""The published formula counts exactly $3\,HW\,\mathrm{NF}\,(\mathrm{NF}+\mathrm{NC})$
    connections too many."""
    return _equal(PUBLISHED["macs"] - _total("macs"), 3 * H * W * NF * (NF + NC))


@claim
def published_connections_are_45_or_19_percent_too_many():
    """For the published sizes (NF = 32, NC = 24) its connections are 45.28 % too many at $k=3$ and
    18.69 % too many at $k=5$, for every image size."""
    excess = PUBLISHED["macs"] / _total("macs") - 1
    fixed = {symbol: formulas.REPORTED[symbol.name] for symbol in (NIC, NF, NC)}
    shares = [sympy.simplify(excess.subs(fixed | {k: kernel})) for kernel in (3, 5)]
    return [round(float(share), 4) for share in shares] == [0.4528, 0.1869]


@claim
def formulas_agree_with_the_module_for_all_sizes():
    """Formulas and module agree in every layer and quantity in all networks of a grid. The grid has
    one value of each size more than the highest degree in it, so they agree for all sizes that
    `evaluate` accepts."""
    totals = formulas.formula_table().loc["total"]
    for symbol, values in GRID.items():
        if len(values) <= max(sympy.degree(total, symbol) for total in totals):
            return False
    names = [symbol.name for symbol in GRID]
    networks = [dict(zip(names, sizes, strict=True)) for sizes in itertools.product(*GRID.values())]
    return all(counting.differences(**sizes).empty for sizes in networks)


@claim
def doubling_the_side_quadruples_connections():
    """Twice the side of the image means four times the outputs and connections, and the same number
    of weights."""
    doubled = {H: 2 * H, W: 2 * W}
    factors = {"weights": 1, "outputs": 4, "prepool_outputs": 4, "macs": 4}
    return all(
        _equal(_total(key).subs(doubled, simultaneous=True), factor * _total(key))
        for key, factor in factors.items()
    )


@claim
def five_of_nine_counters_count_deconvolutions_four_times():
    """Four of nine popular counters count a transposed convolution right: `torch`, `fvcore`,
    `ptflops` and `ultralytics-thop`. Five count it four times: `torchinfo`, `thop`,
    `torchprofile`, `torchscan` and `flopth`."""
    expected = dict.fromkeys(["torch", "fvcore", "ptflops", "ultralytics-thop"], 1)
    expected |= dict.fromkeys(["torchinfo", "thop", "torchprofile", "torchscan", "flopth"], 4)
    table = read_table("cost_counters.csv")
    # torchscan counts 8 operations for a bias that the layer does not have: 4.0005 times
    table["factor"] = table["deconv_factor"].round(2)
    agree = table["factor"] == table["tool"].map(expected)
    return bool(agree.all()) and set(table["tool"]) == set(expected)


@claim
def multiply_adds_alone_do_not_explain_time():
    """Multiply-adds and outputs before pooling together explain more than 95 % of the variance of
    (log) time over sixteen networks, and more than either alone."""
    table = read_table("cost_timing.csv")
    alone = [counting.explained_time(table, [column]) for column in ("macs", "prepool_outputs")]
    together = counting.explained_time(table, ["macs", "prepool_outputs"])
    # 0.95 leaves a twentieth to noise of measurement and to what no count describes
    return together > 0.95 and together > max(alone)


@claim
def published_connections_explain_time_better():
    """The published connections, though wrong, explain the time better than the true multiply-adds
    do."""
    table = read_table("cost_timing.csv")
    published = counting.explained_time(table, ["report_macs"])
    return published > counting.explained_time(table, ["macs"])


@claim
def time_grows_far_less_than_multiply_adds():
    """With 64 filters, a kernel of 7 instead of 1 takes 20 times the multiply-adds, and less than
    five times the time."""
    table = read_table("cost_timing.csv").query("NF == 64").set_index("k")
    factors = table.loc[7, ["macs", "seconds"]] / table.loc[1, ["macs", "seconds"]]
    # recorded: 3.9 times the time
    return round(factors["macs"]) == 20 and factors["seconds"] < 5
