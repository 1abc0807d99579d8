"""What a PyTorch module costs, counted in one forward pass, without a formula of any layer.

And how well such counts explain the time of a forward pass.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from sklearn.metrics import r2_score
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..colorization.model import ColorizationCNN
from ..core.errors import ConfigError
from ..core.layers import parameter_count, use_torch_deconvolutions
from .formulas import LAYERS, REPORTED, Cost, evaluate

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


class Step(NamedTuple):
    """One call of a module without submodules."""

    name: str
    module: nn.Module
    input_shape: torch.Size  # (1, C, H, W)
    output_shape: torch.Size


@torch.no_grad()
def trace(model: nn.Module, image: Sequence[int]) -> list[list[Step]]:
    """Return the steps of a copy of a chain of modules, in evaluation mode.

    Args:
        model: the network; it stays as it is.
        image: (C, H, W) of the input.

    Returns:
        A list for each convolution: itself, and what follows it up to the next one. What comes
        before the first convolution is left out.

    Raises:
        ConfigError: the modules are not a chain.
    """
    model = use_torch_deconvolutions(copy.deepcopy(model)).eval()
    previous = torch.zeros(1, *image)
    blocks = []

    def record(name, module, inputs, output):
        nonlocal previous
        if inputs[0] is not previous:
            raise ConfigError(
                f"{name}: found another input than the output of the module before it, expected "
                f"{type(model).__name__} to be a chain of modules"
            )
        previous = output
        step = Step(name, module, inputs[0].shape, output.shape)
        if isinstance(module, CONVOLUTIONS):
            blocks.append([step])
        elif blocks:
            blocks[-1].append(step)

    handles = [
        module.register_forward_hook(partial(record, name))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    model(previous)
    for handle in handles:
        handle.remove()
    return blocks


def inputs_per_weight(module: nn.Module, image: Sequence[int]) -> dict[str, torch.Tensor]:
    """Count the elements of an input (C, H, W) with which each element of a parameter multiplies.

    These are the assignment's connections, counted by autograd: a weight and an input element are
    multiplied where the second derivative of the outputs' sum by both is not zero. That needs a
    module that is linear in its input and in its parameters: a convolution, a linear layer, or
    BatchNorm in evaluation mode.

    Returns:
        Name of a parameter -> counts, in the parameter's shape.
    """

    def sum_of_outputs(parameters, images):
        return torch.func.functional_call(module, parameters, images).sum()

    by_parameter = torch.func.grad(sum_of_outputs)
    by_both = torch.func.jacrev(by_parameter, argnums=1)
    derivatives = by_both(dict(module.named_parameters()), torch.rand(1, *image))
    return {
        name: derivative.flatten(-4).count_nonzero(-1) for name, derivative in derivatives.items()
    }


@torch.no_grad()
def count(model: nn.Module, image: Sequence[int]) -> pd.DataFrame:
    """Count the costs of every convolution in a chain of modules, a row each, in their order.

    BatchNorm and pooling are counted with the convolution before them.

    Args:
        model: the network; it stays as it is.
        image: (C, H, W) of the input.

    Raises:
        ConfigError: the modules are not a chain, a convolution is called twice, or a parameter
            belongs to no convolution or BatchNorm.
    """
    blocks = trace(model, image)
    table = pd.DataFrame(map(_cost, blocks), [block[0].name for block in blocks])
    counted = table[["weights", "biases", "norm_params"]].to_numpy().sum()
    if counted != parameter_count(model):
        raise ConfigError(
            f"{type(model).__name__}: found {parameter_count(model)} parameters, expected "
            f"{counted}, which its convolutions account for: {', '.join(table.index)}"
        )
    return table


def _cost(block: list[Step]) -> Cost:
    """Return the cost of a convolution with what follows it. Its weights are overwritten.

    MACs are those of torch's own table of operations. With all weights and inputs 1 and all biases
    0, every connection adds 1 to the output, and padding adds nothing.
    """
    _, layer, shape, output_shape = block[0]
    norms = [step.module for step in block if isinstance(step.module, nn.BatchNorm2d)]
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(shape))
    biases = parameter_count(layer) - layer.weight.numel()
    nn.init.ones_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return Cost(
        weights=layer.weight.numel(),
        biases=biases,
        norm_params=sum(map(parameter_count, norms)),
        outputs=block[-1].output_shape.numel(),
        prepool_outputs=output_shape.numel(),
        macs=counter.get_total_flops() // 2,
        taps=int(layer(torch.ones(shape)).sum(dtype=torch.float64)),
    )


def differences(layers: Mapping[str, Cost] = LAYERS, **sizes: int) -> pd.DataFrame:
    """Return where the formulas and the colorization network differ; empty if they agree.

    Args:
        layers: formulas of the layers.
        sizes: as in `formulas.evaluate`.

    Returns:
        A row a layer that differs; columns (quantity, "formula" or "module"), NaN where they agree.

    Raises:
        ConfigError: see `formulas.evaluate`.
    """
    formula = evaluate(layers, **sizes).drop("total")
    sizes = REPORTED | sizes
    model = ColorizationCNN(
        in_channels=sizes["NIC"],
        num_filters=sizes["NF"],
        num_colors=sizes["NC"],
        kernel_size=sizes["k"],
    )
    module = count(model, (sizes["NIC"], sizes["H"], sizes["W"]))
    return formula.compare(module.set_axis(formula.index), result_names=("formula", "module"))


def fit_times(timing: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Return seconds fitted to a constant plus a rate times each count, by non-negative rates.

    The relative error is minimized, so small networks weigh as much as large ones.

    Args:
        timing: recorded table `cost_timing.csv`.
        columns: its columns of counts.
    """
    seconds = timing["seconds"].to_numpy()
    terms = np.column_stack([np.ones(len(timing)), timing[list(columns)] / 1e6])
    rates, _ = nnls(terms / seconds[:, None], np.ones(len(timing)))
    return terms @ rates


def explained_time(timing: pd.DataFrame, columns: Sequence[str]) -> float:
    """Return the share of the variance of log time that `fit_times` explains (R²)."""
    return r2_score(np.log(timing["seconds"]), np.log(fit_times(timing, columns)))
