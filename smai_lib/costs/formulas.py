"""Costs of a network for one image, in closed form: by hand, compared with any other derivation.

`derivation` derives the same formulas from a PyTorch module. Conventions, for both:
- weights: elements of the kernels. Biases and BatchNorm's scales and shifts stand apart, in `biases`
  and `norm_params`; running statistics are not parameters.
- outputs: elements of a layer's output after the pooling that follows it (the reference report's
  convention); `prepool_outputs`: before that pooling.
- macs: multiply-accumulates, 1 MAC = 2 FLOP, those on zero padding included, biases not.
  taps: the MACs whose input is a pixel of the map, not padding.
- All counts are for one image, in the forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import pandas as pd
import sympy
import torch
from sympy import Expr, Integer, Rational

NIC, NF, NC, k, H, W = sympy.symbols("NIC NF NC k H W", positive=True, integer=True)


class CostError(ValueError):
    """A module whose cost the derivation cannot state; the message names the layer."""


@dataclass(frozen=True)
class Cost:
    """What one layer costs: sympy expressions, or integers where the sizes are known."""

    weights: Expr
    biases: Expr
    norm_params: Expr
    outputs: Expr
    prepool_outputs: Expr
    macs: Expr
    taps: Expr


class Layer(NamedTuple):
    """One layer with weights; kind is "conv", "deconv" or "linear"."""

    name: str
    kind: str
    cost: Cost


QUANTITIES = tuple(field.name for field in fields(Cost))


def conv(c_in: Expr, c_out: Expr, kernel: Expr, h: Expr, w: Expr, *, pool: int = 1, norm: bool = True) -> Cost:
    """kernel x kernel, stride 1, padding kernel // 2, odd kernel: (c_in, h, w) -> (c_out, h, w).

    Every output pixel has kernel**2 taps per pair of channels. Along one axis the offset o, at most
    p = (kernel - 1) / 2 either way, leaves the map at |o| of its h positions, so that
    kernel * h - p * (p + 1) pairs of pixel and tap remain: the border term of `taps`, for h, w >= p.
    """
    weights, pixels, border = c_in * c_out * kernel**2, h * w, (Integer(1) * kernel**2 - 1) / 4
    return Cost(weights=weights, biases=c_out, norm_params=2 * c_out if norm else Integer(0),
                outputs=c_out * pixels / pool**2, prepool_outputs=c_out * pixels, macs=weights * pixels,
                taps=c_in * c_out * (kernel * h - border) * (kernel * w - border))


def deconv(c_in: Expr, c_out: Expr, h: Expr, w: Expr, *, norm: bool = True) -> Cost:
    """Transposed, 2 x 2, stride 2, no padding: (c_in, h, w) -> (c_out, 2h, 2w).

    Output pixel (u, v) hears only input pixel (u // 2, v // 2), through the one tap (u % 2, v % 2):
    each weight is used once per *input* pixel, and nothing is padded.
    """
    weights = 4 * c_in * c_out
    macs, outputs = weights * h * w, 4 * c_out * h * w
    return Cost(weights, c_out, 2 * c_out if norm else Integer(0), outputs, outputs, macs, macs)


HAND = [
    Layer("Conv1", "conv", conv(NIC, NF, k, H, W, pool=2)),
    Layer("Conv2", "conv", conv(NF, 2 * NF, k, H / 2, W / 2, pool=2)),
    Layer("Conv3", "conv", conv(2 * NF, 4 * NF, k, H / 4, W / 4, pool=2)),
    Layer("Deconv1", "deconv", deconv(4 * NF, 2 * NF, H / 8, W / 8)),
    Layer("Deconv2", "deconv", deconv(2 * NF, NF, H / 4, W / 4)),
    Layer("Deconv3", "deconv", deconv(NF, NC, H / 2, W / 2)),
    Layer("Classifier", "conv", conv(NC, NC, Integer(1), H, W, norm=False)),
]

# the totals that the reference report prints
PUBLISHED = {
    "weights": k**2 * (NF * NIC + 10 * NF**2) + 40 * NF**2 + 4 * NF * NC + NC**2,
    "outputs": H * W * (Rational(13, 16) * NF + 2 * NC),
    "macs": H * W * (k**2 * NF * (NIC + NF) + 4 * NF**2 + 4 * NF * NC + NC**2),
}


def check_sizes(**sizes: int) -> None:
    """Raise ValueError where the formulas do not hold: the value found, and the values expected."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: found {value!r}, expected an integer of at least 1")
        if name == "k" and value % 2 == 0:
            raise ValueError(f"k: found {value}, expected an odd kernel; with padding k // 2 an even one "
                             "makes the map a pixel larger, and pooling hides it again")
        if name in ("H", "W") and value % 8:
            raise ValueError(f"{name}: found {value}, expected a multiple of 8; three poolings would drop "
                             "the remainder, and the output would be smaller than the input")
    side = min(sizes.get("H", 0), sizes.get("W", 0))
    if side and sizes.get("k", 1) // 2 > side // 8:
        raise ValueError(f"k: found {sizes['k']}, expected at most {side // 8 * 2 + 1} for a side of {side}: "
                         "the formula for taps needs every map, down to an eighth of the side, to be at "
                         "least k // 2 wide")


def total(layers: Sequence[Layer]) -> Cost:
    """The sum over all layers, expanded."""
    return Cost(*(sympy.expand(sum(getattr(layer.cost, quantity) for layer in layers)) for quantity in QUANTITIES))


def value_at(formula: Expr, **sizes: int) -> int:
    """A formula's integer value; the sizes that it does not mention do not matter."""
    return int(formula.subs({symbol: sizes[symbol.name] for symbol in formula.free_symbols}))


def evaluate(layers: Sequence[Layer], **sizes: int) -> pd.DataFrame:
    """Integer costs, a row per layer and a last row "total".

    Raises:
        ValueError: a size that is missing, unknown, or outside the formulas' domain (`check_sizes`).
    """
    needed = {symbol.name for layer in layers for quantity in QUANTITIES
              for symbol in getattr(layer.cost, quantity).free_symbols}
    if set(sizes) != needed:
        raise ValueError(f"sizes: found {', '.join(sorted(sizes))}, expected {', '.join(sorted(needed))}")
    check_sizes(**sizes)
    table = pd.DataFrame(
        [[value_at(getattr(layer.cost, quantity), **sizes) for quantity in QUANTITIES] for layer in layers],
        columns=list(QUANTITIES), index=[layer.name for layer in layers])
    table.loc["total"] = table.sum()
    return table


class Mismatch(NamedTuple):
    """A quantity of a layer on which two derivations differ; ratio is hand / module."""

    layer: str
    quantity: str
    hand: Expr
    module: Expr
    ratio: Expr


def compare(hand: Sequence[Layer], derived: Sequence[Layer]) -> list[Mismatch]:
    """Every difference between two lists of layers, paired in order. Empty means proved equal.

    Raises:
        CostError: the lists do not hold the same kinds of layers.
    """
    kinds = [[layer.kind for layer in layers] for layers in (hand, derived)]
    if kinds[0] != kinds[1]:
        raise CostError(f"layers differ: {', '.join(kinds[0])} by hand, {', '.join(kinds[1])} in the module")
    mismatches = []
    for (name, _, ours), (path, _, theirs) in zip(hand, derived, strict=True):
        for quantity in QUANTITIES:
            a, b = (sympy.expand(getattr(cost, quantity)) for cost in (ours, theirs))
            if sympy.expand(a - b) != 0:
                mismatches.append(Mismatch(f"{name} ({path})", quantity, a, b, sympy.simplify(a / b)))
    return mismatches


class Diagnosis(NamedTuple):
    """claim - truth, and by which factor the claim counts each kind of layer; None: by no such factor."""

    excess: Expr
    factors: dict[str, Expr] | None


def diagnose(claim: Expr, layers: Sequence[Layer], quantity: str = "macs") -> Diagnosis:
    """Explain a claimed total: solve claim = sum of factor * total of the kind, for constant factors.

    Kinds are the finest split that a total can tell apart: Deconv1 and Deconv2 have equal MACs.
    """
    kinds = {layer.kind: sympy.Dummy() for layer in layers}
    explained = sum(kinds[layer.kind] * getattr(layer.cost, quantity) for layer in layers)
    sizes = sorted(sympy.expand(explained - claim).free_symbols - set(kinds.values()), key=str)
    equations = sympy.Poly(sympy.expand(claim - explained), *sizes).coeffs()
    solution = sympy.solve(equations, list(kinds.values()), dict=True)
    factors = {kind: solution[0][factor] for kind, factor in kinds.items()} if solution else None
    return Diagnosis(sympy.factor(claim - getattr(total(layers), quantity)), factors)


def latex(layers: Sequence[Layer], quantities: Sequence[str]) -> str:
    """A LaTeX array: a row per layer and their total, a column per quantity."""
    names = {symbol: rf"\mathit{{{symbol.name}}}" for symbol in (NIC, NF, NC)}

    def cell(formula: Expr) -> str:
        formula = formula if formula.is_Mul else sympy.factor(formula)
        # a total of border terms has dozens of summands, which show less than the rows above it
        return sympy.latex(formula, symbol_names=names) if formula.count_ops() < 40 else r"\text{the sum}"

    rows = [[rf"\text{{{heading}}}" for heading in ("layer", *(q.replace("_", " ") for q in quantities))]]
    for name, cost in [*((layer.name, layer.cost) for layer in layers), ("total", total(layers))]:
        rows.append([rf"\text{{{name}}}", *(cell(getattr(cost, quantity)) for quantity in quantities)])
    lines = [" & ".join(row) + r" \\" for row in rows]
    body = "\n".join([lines[0], r"\hline", *lines[1:-1], r"\hline", lines[-1]])
    return rf"\begin{{array}}{{l{'l' * len(quantities)}}}" + f"\n{body}\n" + r"\end{array}"


def pixel_taps(kernel: int, side: int, *, stride: int = 1, padding: int = 0, transposed: bool = False) -> np.ndarray:
    """Taps from every input pixel to every output pixel of one channel: (H_out, W_out, side, side).

    One image per input pixel, 1 there and 0 elsewhere, through a kernel of ones.
    """
    images = torch.eye(side * side).view(side * side, 1, side, side)
    outputs = torch.convolution(images, torch.ones(1, 1, kernel, kernel), None, [stride] * 2, [padding] * 2,
                                [1, 1], transposed, [0, 0], 1)
    height, width = outputs.shape[2:]
    return outputs.permute(2, 3, 0, 1).reshape(height, width, side, side).int().numpy()
