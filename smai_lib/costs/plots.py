"""Figures of the cost notebook: tables or layers in, Figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator
from torch import nn

from ..core.plots import label_log_axis, new_axes
from .counting import CONVOLUTIONS, explained_time, fit_times, trace
from .formulas import LAYERS


def plot_network(model: nn.Module, image: Sequence[int]) -> Figure:
    """Draw the colorization network, with the shape of a map on every arrow.

    A box is a convolution with what follows it. Its height shows the side of its output.

    Args:
        model: a `ColorizationCNN`.
        image: (C, H, W) of the input.
    """
    axes = new_axes(width=10, height=3)[0, 0]
    arrow = {"arrowstyle": "->"}
    shapes = [image]
    for place, (name, block) in enumerate(zip(LAYERS, trace(model, image), strict=True)):
        shapes.append(block[-1].output_shape[1:])
        side = 1.3 + 1.7 * np.log2(8 * shapes[-1][1] / image[1]) / 3  # 1.3 at an eighth, 3 in full
        axes.bar(place, side, 0.6, -side / 2, facecolor="#e8f0f8", edgecolor="0.4")
        lines = [f"$\\bf{{{name}}}$", *(_describe(step.module) for step in block)]
        axes.text(place, 0, "\n".join(lines), ha="center", va="center", fontsize=9)
    for place, (channels, height, width) in enumerate(shapes):
        axes.annotate("", (place - 0.3, 0), (place - 0.7, 0), arrowprops=arrow)
        label = f"{channels}\n{height} × {width}"
        axes.text(place - 0.5, 0.08, label, ha="center", va="bottom", fontsize=9)
    axes.set(xlim=(-0.75, len(LAYERS) - 0.25), ylim=(-1.6, 1.6))
    axes.axis("off")
    return axes.figure


def _describe(module: nn.Module) -> str:
    if isinstance(module, CONVOLUTIONS):
        return "{} × {}".format(*module.kernel_size)
    return type(module).__name__.removesuffix("2d")


def plot_connected(layer: nn.Module, side: int, outputs: Sequence[tuple[int, int]]) -> Figure:
    """Plot which input elements are connected to two output elements of a layer.

    Squares of the output show the number of connections of every element.

    Args:
        layer: a convolution of one input channel and one output channel.
        side: side of its input.
        outputs: two output elements, (row, column).
    """
    # an output depends on an input where its derivative is not zero
    jacobian = torch.func.jacrev(layer)(torch.zeros(1, side, side)).detach()
    connected = jacobian[0, :, :, 0].numpy() != 0  # (h_out, w_out, h_in, w_in)
    colors_of_input, colors_of_output = np.zeros((side, side)), np.zeros(connected.shape[:2])
    for color, output in enumerate(outputs, start=1):
        colors_of_input[connected[output]] = color
        colors_of_output[output] = color
    left, right = new_axes(1, 2, width=3.6, height=3.4)[0]
    _draw_squares(left, colors_of_input, "input")
    _draw_squares(right, colors_of_output, "output, with its number of inputs")
    for (y, x), number in np.ndenumerate(connected.sum((2, 3))):
        right.text(x + 0.5, y + 0.5, number, ha="center", va="center")
    return right.figure


def _draw_squares(axes: Axes, colors: np.ndarray, title: str) -> None:
    """Draw a grid of squares: white for 0, orange for 1, blue for 2."""
    palette = ListedColormap(["white", "C1", "C0"])
    squares = axes.pcolormesh(colors, cmap=palette, vmin=0, vmax=2, edgecolors="0.7", alpha=0.6)
    squares.set_clip_on(False)  # half of the outermost lines
    axes.set(aspect="equal", title=title, xticks=[], yticks=[])
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)


def plot_costs(costs: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Plot costs by layer as bars, a panel a quantity, with the total in its title.

    Args:
        costs: table of `formulas.evaluate`.
        titles: quantity -> title.
    """
    grid = new_axes(1, len(titles), width=3.3, height=3, sharey=True)
    layers = costs.drop("total")
    for axes, (quantity, title) in zip(grid.flat, titles.items(), strict=True):
        axes.barh(layers.index, layers[quantity])
        axes.set_title(f"{title}: {costs.loc['total', quantity]:,}")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    grid[0, 0].invert_yaxis()
    return grid[0, 0].figure


def plot_timing(timing: pd.DataFrame, counts: Mapping[str, Sequence[str]]) -> Figure:
    """Plot time over counts, a panel a count and a line a kernel size, with R² in the title.

    Args:
        timing: recorded table `cost_timing.csv`.
        counts: label -> columns of `timing`, for an even number of panels. Several columns are
            combined by `fit_times`, in ms.
    """
    grid = new_axes(len(counts) // 2, 2, width=4, height=3)
    for axes, (label, columns) in zip(grid.flat, counts.items(), strict=True):
        if len(columns) == 1:
            x, formatter = timing[columns[0]], EngFormatter(sep="")
        else:
            x, formatter = pd.Series(1000 * fit_times(timing, columns)), "{x:g}"
        for kernel, rows in timing.groupby("k"):
            milliseconds = 1000 * rows["seconds"]
            axes.loglog(x[rows.index], milliseconds, "o-", markersize=4, label=f"k = {kernel}")
        axes.set(xlabel=label, ylabel="ms per image", xmargin=0.1)
        axes.set_title(f"R² = {explained_time(timing, columns):.2f}")
        label_log_axis(axes.xaxis, formatter)
        label_log_axis(axes.yaxis)
        if len(columns) == 1:  # counts span decades
            axes.xaxis.set_major_locator(LogLocator())
    grid[0, 0].legend(loc="upper left")
    return grid[0, 0].figure
