"""Figures of feature maps: arrays in, Figure out. Each picture is about an inch wide."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core.plots import new_axes

CLIP = 0.998  # quantile at the end of the colour scale; a few peaks would darken all else


def plot_maps(
    images: torch.Tensor,
    titles: Sequence[str],
    maps: Mapping[str, torch.Tensor],
    channels: Mapping[str, Sequence[int]],
) -> Figure:
    """Plot a row an image: the input, then chosen channels of every block, in one colour scale.

    A column "b1, 14" is channel 14 of block 1.

    Args:
        images: (N, 1, 28, 28) uint8.
        titles: N names of the rows.
        maps: block -> (N, C, H, W), never negative.
        channels: block -> channels to show, in this order.
    """
    columns = [(block, channel) for block in channels for channel in channels[block]]
    rows = [
        [maps[block][number, channel] for block, channel in columns]
        for number in range(len(images))
    ]
    names = [f"{block.replace('block', 'b')}, {channel}" for block, channel in columns]
    return _plot_rows(images, rows, titles, names)


def plot_blocks(image: torch.Tensor, maps: Mapping[str, torch.Tensor], channels: int) -> Figure:
    """Plot an image and its strongest maps, a row a block, each row in its own colour scale.

    Args:
        image: (1, 28, 28) uint8.
        maps: block -> (1, C, H, W), never negative.
        channels: number of channels to show.
    """
    grid = new_axes(len(maps), channels + 1, width=1.3, height=1.45)
    for axes_of_row, (block, values) in zip(grid, maps.items(), strict=True):
        _show(axes_of_row[0], image[0], "gray", 255)
        axes_of_row[0].set_ylabel(block, fontsize=10)
        strongest = values[0].mean((1, 2)).topk(channels).indices.tolist()
        highest = max(values.max().item(), 1e-6)
        for axes, channel in zip(axes_of_row[1:], strongest, strict=True):
            _show(axes, values[0, channel], "magma", highest)
            axes.set_title(f"channel {channel}", fontsize=9)
    return grid[0, 0].figure


def plot_networks(
    image: torch.Tensor, maps: Mapping[str, torch.Tensor], channels: Sequence[int]
) -> Figure:
    """Plot an image and its maps in one block, a row a network, in one colour scale.

    Channels of two networks correspond only if training started from the same weights.

    Args:
        image: (1, 28, 28) uint8.
        maps: name of a network -> (C, H, W).
        channels: channels to show, in this order in every row.
    """
    rows = [list(values[list(channels)]) for values in maps.values()]
    names = [f"channel {channel}" for channel in channels]
    return _plot_rows([image] * len(rows), rows, list(maps), names)


def plot_most_exciting(
    images: Mapping[str, torch.Tensor], labels: Mapping[str, Sequence[str]]
) -> Figure:
    """Plot the most exciting images of each channel in a row, with counts of their classes.

    Args:
        images: name of a channel -> (N, 1, 28, 28) uint8, most exciting first.
        labels: name of a channel -> N names of classes.
    """
    columns = max(len(pictures) for pictures in images.values())
    grid = new_axes(len(images), columns, width=1.1, height=1.4)
    for axes_of_row, (name, pictures) in zip(grid, images.items(), strict=True):
        for axes, picture in zip(axes_of_row, pictures, strict=False):
            _show(axes, picture[0], "gray", 255)
        counts = pd.Series(labels[name]).value_counts()
        classes = ", ".join(f"{count} {label}" for label, count in counts.items())
        title = axes_of_row[0].set_title(f"{name}: {classes}", fontsize=10, loc="left")
        title.set_in_layout(False)  # it spans the row, not the first picture
    return grid[0, 0].figure


def _plot_rows(
    images: Sequence[torch.Tensor],
    rows: Sequence[Sequence[torch.Tensor]],
    titles: Sequence[str],
    columns: Sequence[str],
) -> Figure:
    """Plot rows of an image (1, 28, 28) and maps (h, w), with names of rows and columns."""
    values = np.concatenate([picture.numpy().ravel() for row in rows for picture in row])
    highest = max(float(np.quantile(values, CLIP)), 1e-6)  # above 0 also if all maps are 0
    grid = new_axes(len(rows), 1 + len(columns), width=1.1, height=1.1)
    for (first, *others), image, row, title in zip(grid, images, rows, titles, strict=True):
        _show(first, image[0], "gray", 255)
        first.set_ylabel(title, fontsize=10)
        for axes, picture in zip(others, row, strict=True):
            scale = _show(axes, picture, "magma", highest)
    for axes, name in zip(grid[0], ["input", *columns], strict=True):
        axes.set_title(name, fontsize=9)
    figure = grid[0, 0].figure
    figure.colorbar(scale, ax=grid, shrink=0.6, extend="max", label="activation")
    return figure


def _show(axes: Axes, picture: torch.Tensor, colors: str, highest: float):
    axes.set(xticks=[], yticks=[])
    return axes.imshow(picture.numpy(), cmap=colors, vmin=0, vmax=highest, interpolation="nearest")
