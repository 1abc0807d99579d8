"""Costs of the colorization network for one image, in closed form, derived by hand.

`counting` counts the same on a PyTorch module. Both count one image in the forward pass:

- `weights`: elements of the kernels. `biases` and the scales and shifts of BatchNorm
  (`norm_params`) are counted apart. Running statistics are no parameters.
- `outputs`: elements of a layer's output after the pooling that follows it, as the reference report
  counts; `prepool_outputs`: before that pooling.
- Connections: every weight times the number of input elements that it connects to, as the
  assignment defines them. `macs` (multiply-accumulates; 1 MAC = 2 FLOP) counts the zeros of the
  padding as input elements, `taps` does not.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import sympy
from sympy import Expr, Integer, Rational

from ..core.config import whole_number
from ..core.errors import ConfigError

SYMBOLS = sympy.symbols("NIC NF NC k H W", positive=True, integer=True)
NIC, NF, NC, k, H, W = SYMBOLS
# sizes for which the reference report prints numbers
REPORTED = {"NIC": 1, "NF": 32, "NC": 24, "k": 3, "H": 32, "W": 32}


class Cost(NamedTuple):
    """Cost of one layer: sympy expressions, or integers where the sizes are known."""

    weights: Expr
    biases: Expr
    norm_params: Expr
    outputs: Expr
    prepool_outputs: Expr
    macs: Expr
    taps: Expr


def conv(
    c_in: Expr, c_out: Expr, kernel: Expr, h: Expr, w: Expr, *, pool: int = 1, norm: bool = True
) -> Cost:
    """Return the cost of a convolution (c_in, h, w) -> (c_out, h, w), stride 1, same padding.

    `taps` holds for h, w >= p, with the padding p = (kernel - 1) / 2. Along one axis, the weight at
    offset o from the centre misses |o| of h positions. The kernel keeps kernel * h - p * (p + 1) of
    its kernel * h pairs of weight and position.

    Args:
        c_in: input channels.
        c_out: output channels.
        kernel: odd side of the kernel.
        h: height of the input.
        w: width of the input.
        pool: side of the max pooling that follows.
        norm: whether BatchNorm follows.
    """
    weights = c_in * c_out * kernel**2
    border = (kernel**2 - 1) / 4  # p * (p + 1)
    return Cost(
        weights=weights,
        biases=c_out,
        norm_params=2 * c_out if norm else Integer(0),
        outputs=c_out * h * w / pool**2,
        prepool_outputs=c_out * h * w,
        macs=weights * h * w,
        taps=c_in * c_out * (kernel * h - border) * (kernel * w - border),
    )


def deconv(c_in: Expr, c_out: Expr, h: Expr, w: Expr) -> Cost:
    """Return the cost of a transposed convolution 2 x 2, stride 2, with BatchNorm.

    It maps (c_in, h, w) to (c_out, 2 h, 2 w). Output pixel (u, v) depends on input pixel
    (u // 2, v // 2) alone, through weight (u % 2, v % 2). So every weight connects to each *input*
    pixel once, and nothing is padded.
    """
    weights = 4 * c_in * c_out
    outputs = 4 * c_out * h * w
    return Cost(
        weights=weights,
        biases=c_out,
        norm_params=2 * c_out,
        outputs=outputs,
        prepool_outputs=outputs,
        macs=weights * h * w,
        taps=weights * h * w,
    )


LAYERS = {
    "Conv1": conv(NIC, NF, k, H, W, pool=2),
    "Conv2": conv(NF, 2 * NF, k, H / 2, W / 2, pool=2),
    "Conv3": conv(2 * NF, 4 * NF, k, H / 4, W / 4, pool=2),
    "Deconv1": deconv(4 * NF, 2 * NF, H / 8, W / 8),
    "Deconv2": deconv(2 * NF, NF, H / 4, W / 4),
    "Deconv3": deconv(NF, NC, H / 2, W / 2),
    "Classifier": conv(NC, NC, Integer(1), H, W, norm=False),
}

# totals that the reference report prints; its connections correspond to `macs`
PUBLISHED = {
    "weights": k**2 * (NF * NIC + 10 * NF**2) + 40 * NF**2 + 4 * NF * NC + NC**2,
    "outputs": H * W * (Rational(13, 16) * NF + 2 * NC),
    "macs": H * W * (k**2 * NF * (NIC + NF) + 4 * NF**2 + 4 * NF * NC + NC**2),
}


def formula_table() -> pd.DataFrame:
    """Return the formulas, a row a layer, then "total" (expanded); a column a quantity."""
    table = pd.DataFrame(LAYERS.values(), list(LAYERS))
    table.loc["total"] = table.sum().map(sympy.expand)
    return table


def published_by_layer() -> pd.Series:
    """Return the published connections of every layer: weights times the area of its *output*.

    They add up to `PUBLISHED["macs"]`.
    """
    table = formula_table().drop("total")
    output_area = table["prepool_outputs"] / table["biases"]  # a bias is an output channel
    return table["weights"] * output_area


def value_at(formula: Expr, **sizes: int) -> int:
    """Return the value of a formula; sizes that are not given are those of REPORTED."""
    sizes = REPORTED | sizes
    return int(formula.xreplace({symbol: Integer(sizes[symbol.name]) for symbol in SYMBOLS}))


def evaluate(layers: Mapping[str, Cost] = LAYERS, **sizes: int) -> pd.DataFrame:
    """Return costs as integers, a row a layer, then "total"; a column a quantity.

    Args:
        layers: formulas of the layers.
        sizes: NIC, NF, NC, k, H, W; what is not given is as in REPORTED.

    Raises:
        ConfigError: a size is unknown, or one for which the formulas do not hold.
    """
    _check(REPORTED | sizes)
    table = pd.DataFrame(layers.values(), list(layers))
    table = table.map(lambda formula: value_at(formula, **sizes))
    table.loc["total"] = table.sum()
    return table


def _check(sizes: Mapping[str, int]) -> None:
    for name, value in sizes.items():
        if name not in REPORTED:
            raise ConfigError(f"size: found {name!r}, expected one of {', '.join(REPORTED)}")
        whole_number(name, value, least=1)
        if name in ("H", "W") and value % 8:
            raise ConfigError(
                f"{name}: found {value}, expected a multiple of 8. Three poolings would drop the "
                "remainder, and the output would be smaller than the input"
            )
    side = min(sizes["H"], sizes["W"])
    largest = side // 4 * 2 + 1  # its padding is as wide as the input of Conv3
    if sizes["k"] % 2 == 0 or sizes["k"] > largest:
        raise ConfigError(
            f"k: found {sizes['k']}, expected an odd number up to {largest} for a side of {side}. "
            "With padding k // 2 an even kernel makes every map a pixel larger, and pooling hides "
            "it again; the input of Conv3, a quarter of the side, must be at least k // 2 wide"
        )


def latex(formula: Expr) -> str:
    """Return a formula as LaTeX, with NIC, NF and NC upright."""
    names = {symbol: rf"\mathrm{{{symbol.name}}}" for symbol in (NIC, NF, NC)}
    return sympy.latex(formula, symbol_names=names, mul_symbol=r" \, ")


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table of formulas, factored, as Markdown."""
    lines = [["Layer", *table.columns], ["---"] * (len(table.columns) + 1)]
    for name, formulas in table.iterrows():
        lines.append(
            [name, *(rf"$\displaystyle {latex(sympy.factor(formula))}$" for formula in formulas)]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def derivation(first: Sequence[Expr], second: Sequence[Expr]) -> str:
    """Return a sum of products in three steps as LaTeX: written out, multiplied, factored."""
    pairs = list(zip(first, second, strict=True))
    products = [a * b for a, b in pairs]
    lines = [
        " + ".join(rf"{latex(a)} \cdot {latex(b)}" for a, b in pairs),
        " + ".join(map(latex, products)),
        latex(sympy.factor(sum(products))),
    ]
    steps = [rf"&= {line} \\" for line in lines]
    return "\n".join([r"\begin{aligned}", *steps, r"\end{aligned}"])
