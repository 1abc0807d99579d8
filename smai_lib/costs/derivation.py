"""Closed-form costs read off a PyTorch module, by running it: no formula of a layer is written here.

MACs come from torch's own table of operations, taps from counting connections, everything else from
the shapes of the tensors. `formulas` holds the conventions and the formulas that are derived by hand.
"""

import copy
import random
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import sympy
import torch
from sympy import Expr, Rational, Symbol
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from ..colorization.model import ColorizationCNN, ColorizationUNet
from ..core.layers import textbook
from ..multitask.model import MultiTaskCNN
from .formulas import NC, NF, NIC, QUANTITIES, Cost, CostError, H, Layer, W, k

aten = torch.ops.aten
POOLS = {aten.max_pool2d_with_indices}
NORMS = {aten.native_batch_norm, aten._native_batch_norm_legit_no_training}
# these allocate, copy, compare, add or rearrange: no multiplication; a parameter that one of them
# reads is missed by the count in `measure`, which then raises
FREE = {aten.empty, aten.linspace, aten.clone, aten._to_copy, aten.detach, aten.view, aten.expand, aten.squeeze,
        aten.t, aten.cat, aten.relu, aten.relu_, aten.abs, aten.add, aten.sub, aten.upsample_nearest2d}


def connections(weight: Sequence[int], image: Sequence[int], *options) -> int:
    """Exact number of (input pixel, weight, output pixel) triples of a convolution.

    Where every weight and every pixel is 1 and padding 0, the outputs sum to the number of
    connections: stride, groups, dilation and cropping need no formula.

    Args:
        weight: shape of the kernel, as the module holds it.
        image: (B, C, H, W).
        options: stride, padding, dilation, transposed, output_padding, groups.
    """
    ones = [torch.ones(shape, dtype=torch.float64) for shape in (image, weight)]
    return round(torch.convolution(*ones, None, *options).sum().item())


@contextmanager
def one_thread():
    """torch with one thread: on instances of a few kilobytes a second only waits, and on a busy machine long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache  # a grid of models asks for the same few planes again and again
def _plane_connections(kernel: tuple, plane: tuple, *options) -> int:
    return connections((1, 1, *kernel), (1, 1, *plane), *options, 1)


class _CostRecorder(TorchDispatchMode):
    """Books every tensor operation of a forward pass on the layer whose weight it uses.

    It works below modules and functions alike, so that neither a functional call nor a skip connection escapes it.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.layers: dict[str, Layer] = {}
        self.tracker = ModuleTracker()
        self.weights = {id(parameter): name.removesuffix(".weight")
                        for name, parameter in model.named_parameters() if name.endswith("weight")}
        self.producers: dict[int, str] = {}  # id of a tensor -> the layer it comes out of
        self.alive: list[torch.Tensor] = []  # an id is unique only while its tensor lives

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        output = result[0] if isinstance(result, tuple) else result
        self.alive.append(output)
        operation, source = func.overloadpacket, self.producers.get(id(args[0]))
        if operation is aten.convolution and args[1].dim() == 4:
            image, weight, bias, *options, _groups = args
            plane = _plane_connections(tuple(weight.shape[2:]), tuple(image.shape[2:]),
                                       *(tuple(o) if isinstance(o, list) else o for o in options))
            # all pairs of channels that share a group are wired alike
            self._book(func, "deconv" if args[6] else "conv", weight, bias, output, args,
                       taps=len(image) * weight.shape[0] * weight.shape[1] * plane)
        elif operation is aten.addmm:
            bias, features, weight = args
            self._book(func, "linear", weight, bias, output, args, taps=len(features) * weight.numel())
        elif operation in FREE | NORMS | POOLS:
            if operation in NORMS and source:
                self._update(source, norm_params=sum(t.numel() for t in args[1:3] if t is not None))
            if operation in POOLS and source:
                self._update(source, outputs=output.numel())
            if source:
                self.producers[id(output)] = source
            if operation is aten.t and id(args[0]) in self.weights:
                self.weights[id(output)] = self.weights[id(args[0])]
        else:
            raise CostError(f"{self._where()}: {func} is an operation whose cost is not known here")
        return result

    def _where(self) -> str:
        return max(self.tracker.parents - {"Global"}, key=len, default="the input")

    def _book(self, func, kind, weight, bias, output, args, taps) -> None:
        name = self.weights.get(id(weight))
        if name is None:
            raise CostError(f"{self._where()}: {func} multiplies by a tensor that is not a weight")
        if name in self.layers:
            raise CostError(f"{name}: called twice in one pass, which would count its weights twice")
        flop = flop_registry[func.overloadpacket](*args, out_val=output)
        cost = Cost(weight.numel(), 0 if bias is None else bias.numel(), 0, output.numel(),
                    output.numel(), flop // 2, taps)
        self.layers[name] = Layer(name, kind, cost)
        self.producers[id(output)] = name

    def _update(self, name: str, **counts: int) -> None:
        self.layers[name] = self.layers[name]._replace(cost=replace(self.layers[name].cost, **counts))


def measure(model: nn.Module, image: Sequence[int]) -> list[Layer]:
    """Integer costs of every layer with weights, in the order of one real forward pass.

    Args:
        model: convolutions, transposed convolutions, linear layers, BatchNorm, ReLU, max pooling
            and nearest upsampling, wired in any way.
        image: (C, H, W) of the input.

    Raises:
        CostError: an operation or a parameter that the derivation does not know, by name.
    """
    model = textbook(copy.deepcopy(model)).eval()
    recorder = _CostRecorder(model)
    with torch.no_grad(), recorder.tracker, recorder:
        model(torch.empty(1, *image))
    layers = list(recorder.layers.values())
    known = sum(layer.cost.weights + layer.cost.biases + layer.cost.norm_params for layer in layers)
    held = sum(parameter.numel() for parameter in model.parameters())
    if known != held:
        raise CostError(f"{type(model).__name__} holds {held} parameters, and its layers account for "
                        f"{known}: {', '.join(layer.name for layer in layers)}")
    return layers


class Family(NamedTuple):
    """Models that differ only in their sizes.

    build(**sizes) -> (model, (C, H, W)). `grid` lists, per symbol, one value more than the highest
    power in which the symbol occurs in any cost; `held_out` lists values that are not in it.
    """

    build: Callable[..., tuple[nn.Module, tuple[int, int, int]]]
    grid: dict[Symbol, Sequence[int]]
    held_out: dict[Symbol, Sequence[int]]


# taps hold k to the fourth power: (k**2 - 1) / 4 in either direction
COLORIZATION = Family(
    lambda NIC, NF, NC, k, H, W: (
        ColorizationCNN(in_channels=NIC, num_filters=NF, num_colors=NC, kernel_size=k), (NIC, H, W)),
    {NIC: (1, 2), NF: (1, 2, 3), NC: (1, 2, 3), k: (1, 3, 5, 7, 9), H: (16, 24), W: (16, 24)},
    {NIC: (3, 4), NF: (4, 5, 7), NC: (4, 6, 9), k: (11, 13), H: (32, 40), W: (32, 48)},
)
UNET = Family(
    lambda NF, NC, k, H, W: (ColorizationUNet(num_filters=NF, num_colors=NC, kernel_size=k), (1, H, W)),
    {NF: (1, 2, 3), NC: (1, 2), k: (1, 3, 5, 7, 9), H: (32, 40), W: (32, 40)},
    {NF: (4, 5), NC: (4, 6, 9), k: (11, 13), H: (48, 56), W: (48, 64)},
)


def multitask_family(num_layers: int) -> Family:
    """MultiTaskCNN on 28 x 28: NF base filters, NC classes."""

    def build(NF, NC):
        model = MultiTaskCNN(num_layers=num_layers, base_filters=NF, dropout_rate=0.0, num_classes=NC)
        return model, (1, model.image_size, model.image_size)

    return Family(build, {NF: (1, 2, 3), NC: (1, 2)}, {NF: (4, 5, 8), NC: (5, 10)})


@one_thread()
def derive(family: Family, *, checks: int = 12, seed: int = 0) -> list[Layer]:
    """Closed forms of every layer's costs, read off instances of the module.

    A cost is a polynomial in the sizes, and one of degree d is fixed by d + 1 values: instances on
    the full grid determine every coefficient, in rationals, without rounding. That the degrees are
    no higher than the grid assumes is the premise; random held-out sizes must agree exactly.

    Raises:
        CostError: a held-out instance disagrees: the cost is no polynomial of the assumed degree.
    """
    symbols = list(family.grid)

    def counts(values: Sequence[int]) -> tuple[list[Layer], list[list[int]]]:
        sizes = {symbol.name: value for symbol, value in zip(symbols, values, strict=True)}
        layers = measure(*family.build(**sizes))
        return layers, [[getattr(layer.cost, quantity) for quantity in QUANTITIES] for layer in layers]

    points = list(product(*family.grid.values()))
    coefficients = np.array([counts(point)[1] for point in points], dtype=object)
    coefficients = coefficients.reshape(*map(len, family.grid.values()), *coefficients.shape[1:])
    denominator = 1  # of all coefficients, so that the arithmetic stays in Python's integers
    for axis, values in enumerate(family.grid.values()):
        inverse = sympy.Matrix([[value**power for power in range(len(values))] for value in values]).inv()
        common = sympy.ilcm(*(entry.q for entry in inverse))
        integers = np.array((inverse * common).tolist()).astype(int).astype(object)
        coefficients = np.moveaxis(np.tensordot(integers, coefficients, (1, axis)), 0, axis)
        denominator *= int(common)

    def polynomial(row: int, column: int) -> Expr:
        return sympy.Add(*(Rational(numerator, denominator) * sympy.prod(map(pow, symbols, powers))
                           for powers, numerator in np.ndenumerate(coefficients[..., row, column]) if numerator))

    layers = [layer._replace(cost=Cost(*(polynomial(row, column) for column in range(len(QUANTITIES)))))
              for row, layer in enumerate(counts(points[-1])[0])]
    draw = random.Random(seed)
    for _ in range(checks):
        values = [draw.choice(family.held_out[symbol]) for symbol in symbols]
        for layer, measured in zip(layers, counts(values)[1], strict=True):
            for quantity, count in zip(QUANTITIES, measured, strict=True):
                formula = getattr(layer.cost, quantity).subs(zip(symbols, values, strict=True))
                if formula != count:
                    raise CostError(f"{layer.name} {quantity}: the module has {count} and the interpolated "
                                    f"formula gives {formula} at {dict(zip(symbols, values, strict=True))}")
    return layers
