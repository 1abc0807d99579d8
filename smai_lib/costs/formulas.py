"""Costs of the colorization network for one image, in closed form, derived by hand.

`counting` counts the same on a PyTorch module. Conventions, for both, of one image in the forward pass:
- weights: elements of the kernels. Biases and BatchNorm's scales and shifts stand apart, in `biases`
  and `norm_params`; running statistics are not parameters.
- outputs: elements of a layer's output after the pooling that follows it (the reference report's
  convention); `prepool_outputs`: before that pooling.
- connections, in the assignment's words: weights times the input elements that each weight connects to.
  `macs` takes padding for input: multiply-accumulates, 1 MAC = 2 FLOP, biases not. `taps` is the strict
  reading: pixels of the map alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import pandas as pd
import sympy
from sympy import Expr, Integer, Rational

SIZES = NIC, NF, NC, k, H, W = sympy.symbols("NIC NF NC k H W", positive=True, integer=True)


@dataclass
class Cost:
    """What one layer costs: sympy expressions, or integers where the sizes are known."""

    weights: Expr
    biases: Expr
    norm_params: Expr
    outputs: Expr
    prepool_outputs: Expr
    macs: Expr
    taps: Expr


QUANTITIES = tuple(field.name for field in fields(Cost))


def conv(
    c_in: Expr, c_out: Expr, kernel: Expr, h: Expr, w: Expr, *, pool: int = 1, norm: bool = True
) -> Cost:
    """kernel x kernel, stride 1, padding kernel // 2, odd kernel: (c_in, h, w) -> (c_out, h, w).

    Every output pixel has kernel**2 taps per pair of channels. Along one axis the offset o, at most
    p = (kernel - 1) / 2 either way, leaves the map at |o| of its h positions, so that
    kernel * h - p * (p + 1) pairs of pixel and tap remain: the border term of `taps`, for h, w >= p.
    """
    weights, pixels, border = c_in * c_out * kernel**2, h * w, (Integer(1) * kernel**2 - 1) / 4
    return Cost(
        weights=weights,
        biases=c_out,
        norm_params=2 * c_out if norm else Integer(0),
        outputs=c_out * pixels / pool**2,
        prepool_outputs=c_out * pixels,
        macs=weights * pixels,
        taps=c_in * c_out * (kernel * h - border) * (kernel * w - border),
    )


def deconv(c_in: Expr, c_out: Expr, h: Expr, w: Expr, *, norm: bool = True) -> Cost:
    """Transposed, 2 x 2, stride 2, no padding: (c_in, h, w) -> (c_out, 2h, 2w).

    Output pixel (u, v) hears only input pixel (u // 2, v // 2), through the one tap (u % 2, v % 2):
    each weight is used once per *input* pixel, and nothing is padded.
    """
    weights = 4 * c_in * c_out
    macs, outputs = weights * h * w, 4 * c_out * h * w
    return Cost(weights, c_out, 2 * c_out if norm else Integer(0), outputs, outputs, macs, macs)


HAND = {
    "Conv1": conv(NIC, NF, k, H, W, pool=2),
    "Conv2": conv(NF, 2 * NF, k, H / 2, W / 2, pool=2),
    "Conv3": conv(2 * NF, 4 * NF, k, H / 4, W / 4, pool=2),
    "Deconv1": deconv(4 * NF, 2 * NF, H / 8, W / 8),
    "Deconv2": deconv(2 * NF, NF, H / 4, W / 4),
    "Deconv3": deconv(NF, NC, H / 2, W / 2),
    "Classifier": conv(NC, NC, Integer(1), H, W, norm=False),
}

# the totals that the reference report prints
PUBLISHED = {
    "weights": k**2 * (NF * NIC + 10 * NF**2) + 40 * NF**2 + 4 * NF * NC + NC**2,
    "outputs": H * W * (Rational(13, 16) * NF + 2 * NC),
    "macs": H * W * (k**2 * NF * (NIC + NF) + 4 * NF**2 + 4 * NF * NC + NC**2),
}


def formula_table(layers: dict[str, Cost]) -> pd.DataFrame:
    """The closed forms: a row per layer and a last row "total", expanded; a column per quantity."""
    table = pd.DataFrame.from_dict(
        {name: vars(cost) for name, cost in layers.items()}, orient="index", dtype=object
    )
    table.loc["total"] = table.sum().map(sympy.expand)
    return table


def value_at(formula: Expr, **sizes: int) -> int:
    """A formula's integer value; the sizes that it does not mention do not matter."""
    return int(formula.subs({symbol: sizes[symbol.name] for symbol in formula.free_symbols}))


def evaluate(layers: dict[str, Cost], **sizes: int) -> pd.DataFrame:
    """Integer costs, a row per layer and a last row "total".

    Raises:
        ValueError: a size that is missing, unknown, or one for which the formulas do not hold.
    """
    if set(sizes) != (needed := {symbol.name for symbol in SIZES}):
        raise ValueError(
            f"sizes: found {', '.join(sorted(sizes))}, expected {', '.join(sorted(needed))}"
        )
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: found {value!r}, expected an integer of at least 1")
        if name == "k" and value % 2 == 0:
            raise ValueError(
                f"k: found {value}, expected an odd kernel; with padding k // 2 an even one "
                "makes the map a pixel larger, and pooling hides it again"
            )
        if name in ("H", "W") and value % 8:
            raise ValueError(
                f"{name}: found {value}, expected a multiple of 8; three poolings would drop "
                "the remainder, and the output would be smaller than the input"
            )
    side = min(sizes["H"], sizes["W"])
    if sizes["k"] // 2 > side // 8:
        raise ValueError(
            f"k: found {sizes['k']}, expected at most {side // 8 * 2 + 1} for a side of {side}: "
            "the formula for taps needs every map, down to an eighth of the side, to be at "
            "least k // 2 wide"
        )
    return formula_table(layers).map(lambda formula: value_at(formula, **sizes))


def latex(formula: Expr) -> str:
    """A formula with NIC, NF and NC upright, and a gap between factors."""
    names = {symbol: rf"\mathrm{{{symbol.name}}}" for symbol in (NIC, NF, NC)}
    return sympy.latex(formula, symbol_names=names, mul_symbol=r" \, ")


def latex_table(table: pd.DataFrame) -> str:
    """A LaTeX array of formulas, factored, with the names of rows and columns; a line above a row "total"."""
    rows = [
        ["layer", *table.columns],
        *([name, *map(sympy.factor, formulas)] for name, *formulas in table.itertuples()),
    ]
    lines = [
        " & ".join(rf"\text{{{c}}}" if isinstance(c, str) else latex(c) for c in row) + r" \\"
        for row in rows
    ]
    lines = [
        r"\hline" + "\n" + line if row[0] == "total" else line
        for row, line in zip(rows, lines, strict=True)
    ]
    return "\n".join(
        [
            rf"\begin{{array}}{{{'l' * len(rows[0])}}}",
            lines[0],
            r"\hline",
            *lines[1:],
            r"\end{array}",
        ]
    )


def latex_sum(terms: Sequence[tuple[Expr, Expr]]) -> str:
    """A sum of products in three steps as LaTeX: written out, multiplied, common factors drawn out."""
    products = [first * second for first, second in terms]
    lines = [
        " + ".join(rf"{latex(first)} \cdot {latex(second)}" for first, second in terms),
        " + ".join(map(latex, products)),
        latex(sympy.factor(sum(products))),
    ]
    return "\n".join([r"\begin{aligned}", *(rf"&= {line} \\" for line in lines), r"\end{aligned}"])
