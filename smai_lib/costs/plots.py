"""Figures of the cost notebook: tables or layers in, Axes out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter
from torch import nn

from ..core.plots import label_log_axis, new_axes
from .counting import CONVOLUTIONS, Step, explained_time, fit_times, trace
from .formulas import LAYERS


def plot_network(model: nn.Module, image: Sequence[int]) -> Axes:
    """Draw the colorization network, with the shape of a map on every arrow.

    A box is a convolution with what follows it. Its height shows the side of its output.

    Args:
        model: a `ColorizationCNN`.
        image: (C, H, W) of the input.
    """
    blocks: list[list[Step]] = []
    for step in trace(model, image):
        if isinstance(step.module, CONVOLUTIONS):
            blocks.append([])
        blocks[-1].append(step)
    axes = new_axes(width=10, height=3)[0, 0]
    for place, (name, block) in enumerate(zip(LAYERS, blocks, strict=True)):
        channels, height, width = block[-1].output_shape[1:]
        side = 1.3 + 1.7 * np.log2(8 * height / image[1]) / 3  # 1.3 at an eighth, 3 at full size
        box = Rectangle((place + 0.2, -side / 2), 0.6, side, facecolor="#e8f0f8", edgecolor="0.4")
        axes.add_patch(box)
        lines = [f"$\\bf{{{name}}}$", *map(_describe, block)]
        axes.text(place + 0.5, 0, "\n".join(lines), ha="center", va="center", fontsize=9)
        _draw_arrow(axes, place + 0.8, f"{channels}\n{height} × {width}")
    _draw_arrow(axes, -0.2, f"{image[0]}\n{image[1]} × {image[2]}")
    axes.set(xlim=(-0.25, len(blocks) + 0.25), ylim=(-1.6, 1.6))
    axes.axis("off")
    return axes


def _describe(step: Step) -> str:
    if isinstance(step.module, CONVOLUTIONS):
        return "{} × {}".format(*step.module.kernel_size)
    return type(step.module).__name__.removesuffix("2d")


def _draw_arrow(axes: Axes, x: float, label: str) -> None:
    axes.annotate("", (x + 0.4, 0), (x, 0), arrowprops={"arrowstyle": "->"})
    axes.text(x + 0.2, 0.08, label, ha="center", va="bottom", fontsize=9)


def plot_connected(layer: nn.Module, side: int, outputs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Plot which input elements are connected to two output elements of a layer.

    Args:
        layer: a convolution of one input channel and one output channel.
        side: side of its input.
        outputs: two output elements, (row, column).

    Returns:
        Axes of the input, and of the output with the number of connections of every element.
    """
    # an output depends on an input where its derivative is not zero
    jacobian = torch.func.jacrev(layer)(torch.zeros(1, side, side)).detach()
    connected = jacobian[0, :, :, 0].numpy() != 0  # (h_out, w_out, h_in, w_in)
    grid = new_axes(1, 2, width=3.6, height=3.4)
    left, right = grid[0]
    _draw_squares(left, connected.shape[2:], "input")
    _draw_squares(right, connected.shape[:2], "output, with its number of inputs")
    for (y, x), number in np.ndenumerate(connected.sum((2, 3))):
        right.text(x, y, number, ha="center", va="center")
    for output, color in zip(outputs, ("C1", "C0"), strict=True):
        _color_square(right, output, color)
        for place in np.argwhere(connected[output]):
            _color_square(left, place, color)
    return grid


def _draw_squares(axes: Axes, shape: tuple[int, int], title: str) -> None:
    height, width = shape
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal", title=title)
    axes.set_xticks(np.arange(width + 1) - 0.5, [])
    axes.set_yticks(np.arange(height + 1) - 0.5, [])
    axes.grid(color="0.7")
    axes.tick_params(length=0)
    axes.spines[:].set_color("0.7")


def _color_square(axes: Axes, place: Sequence[int], color: str) -> None:
    y, x = place
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=color, alpha=0.6))


def plot_costs(costs: pd.DataFrame, titles: Mapping[str, str]) -> np.ndarray:
    """Plot costs by layer as bars, a panel a quantity, with the total in its title.

    Args:
        costs: table of `formulas.evaluate`.
        titles: quantity -> title.
    """
    grid = new_axes(1, len(titles), width=3.3, height=3)
    layers = costs.drop("total")
    for axes, (quantity, title) in zip(grid.flat, titles.items(), strict=True):
        axes.barh(layers.index, layers[quantity])
        axes.invert_yaxis()
        axes.set_title(f"{title}: {costs.loc['total', quantity]:,}")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.tick_params(axis="y", labelleft=axes is grid[0, 0])
    return grid


def plot_timing(timing: pd.DataFrame, counts: Mapping[str, str], *, columns: int = 2) -> np.ndarray:
    """Plot time over counts, a panel a count and a line a kernel size, with R² in the title.

    Args:
        timing: recorded table `cost_timing.csv`.
        counts: columns of `timing` separated by "+" -> label. Several are combined by `fit_times`.
        columns: number of panels in a row.
    """
    grid = new_axes(-(-len(counts) // columns), columns, width=4, height=3)
    for axes, (count, label) in zip(grid.flat, counts.items(), strict=True):
        names = count.split("+")
        x = timing[count] if len(names) == 1 else pd.Series(1000 * fit_times(timing, names))
        for kernel, rows in timing.groupby("k"):
            milliseconds = 1000 * rows["seconds"]
            axes.loglog(x[rows.index], milliseconds, "o-", markersize=4, label=f"k = {kernel}")
        axes.set(xlabel=label, ylabel="ms per image")
        axes.set_title(f"R² = {explained_time(timing, names):.2f}")
        label_log_axis(axes.xaxis, EngFormatter(sep="") if len(names) == 1 else "{x:g}")
        label_log_axis(axes.yaxis)
    grid[0, 0].legend()
    return grid
