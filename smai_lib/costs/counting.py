"""What a module costs, counted on one real forward pass: no formula of a layer is written here."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..colorization.model import ColorizationCNN
from ..core.layers import parameter_count, textbook
from .formulas import QUANTITIES, Cost, evaluate

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


class CostError(ValueError):
    """A module whose cost is not counted here; the message says where."""


class Step(NamedTuple):
    """One call of a module that has no further modules in it; shapes of the maps it reads and gives, (1, C, H, W)."""

    name: str
    module: nn.Module
    reads: torch.Size
    gives: torch.Size


def forward_pass(model: nn.Module, image: Sequence[int]) -> list[Step]:
    """The steps of a copy of `model`, in evaluation mode, on an image (C, H, W)."""
    model, steps, hooks = textbook(copy.deepcopy(model)).eval(), [], []
    for name, module in model.named_modules():
        if not list(module.children()):
            hooks.append(
                module.register_forward_hook(
                    lambda module, images, output, name=name: steps.append(
                        Step(name, module, images[0].shape, output.shape)
                    )
                )
            )
    with torch.no_grad():
        model(torch.zeros(1, *image))
    for hook in hooks:
        hook.remove()
    return steps


def inputs_of_each_weight(module: nn.Module, image: Sequence[int]) -> dict[str, torch.Tensor]:
    """For every element of every parameter: with how many elements of an input (C, H, W) it is multiplied.

    The assignment's connections, counted by autograd: two elements meet where the outputs' sum has a derivative
    in both. For a module that is linear in either: a convolution, a linear layer, BatchNorm in eval mode.
    """

    def outputs(parameters, images):
        return torch.func.functional_call(module, parameters, images).sum()

    met = torch.func.jacrev(torch.func.grad(outputs), argnums=1)(
        dict(module.named_parameters()), torch.rand(1, *image)
    )
    return {name: derivative.flatten(-4).count_nonzero(-1) for name, derivative in met.items()}


@torch.no_grad()
def count(model: nn.Module, image: Sequence[int]) -> pd.DataFrame:
    """Costs of every convolution in a chain of modules: a row a layer in the order of the chain, a column a quantity.

    MACs are those of torch's own table of operations. Where every weight and every input is 1 and a bias 0,
    the outputs sum to the connections in the strict reading, `taps`. BatchNorm and pooling belong to the
    convolution before them.

    Args:
        image: (C, H, W) of the input.

    Raises:
        CostError: a step that does not read what the one before gives, or comes twice; or a parameter of no such layer.
    """
    rows: dict[str, Cost] = {}
    steps = forward_pass(model, image)
    gave = torch.Size([1, *image])
    for name, module, reads, gives in steps:
        if reads != gave:
            raise CostError(
                f"{name}: reads {tuple(reads)} and the module before it gives {tuple(gave)}; "
                f"expected a chain of modules, and {type(model).__name__} is none"
            )
        gave = gives
        if name in rows:
            raise CostError(
                f"{name}: called twice in one pass, which would count its weights twice"
            )
        if isinstance(module, CONVOLUTIONS):
            with FlopCounterMode(display=False) as counter:
                module(torch.zeros(reads))
            bias = 0 if module.bias is None else nn.init.zeros_(module.bias).numel()
            nn.init.ones_(module.weight)
            taps = module(torch.ones(reads)).sum(dtype=torch.float64)
            rows[name] = Cost(
                module.weight.numel(),
                bias,
                0,
                gives.numel(),
                gives.numel(),
                counter.get_total_flops() // 2,
                int(taps),
            )
            last = rows[name]
        elif isinstance(module, nn.BatchNorm2d):
            last.norm_params = parameter_count(module)
        elif isinstance(module, nn.MaxPool2d):
            last.outputs = gives.numel()
    table = pd.DataFrame.from_dict(
        {name: vars(cost) for name, cost in rows.items()}, orient="index", columns=QUANTITIES
    )
    counted = table[["weights", "biases", "norm_params"]].to_numpy().sum()
    if counted != parameter_count(model):
        raise CostError(
            f"{type(model).__name__} holds {parameter_count(model)} parameters, and its convolutions account "
            f"for {counted}: {', '.join(table.index)}"
        )
    return table


def disagreements(layers: dict[str, Cost], **sizes: int) -> pd.DataFrame:
    """Where the formulas and the colorization network of these sizes differ: nothing where all agree.

    Returns:
        A row a layer that differs; columns (quantity, "formula" or "module"), NaN where they agree.
    """
    model = ColorizationCNN(
        in_channels=sizes["NIC"],
        num_filters=sizes["NF"],
        num_colors=sizes["NC"],
        kernel_size=sizes["k"],
    )
    formula = evaluate(layers, **sizes).drop("total")
    module = count(model, (sizes["NIC"], sizes["H"], sizes["W"]))
    return formula.compare(module.set_axis(formula.index), result_names=("formula", "module"))
