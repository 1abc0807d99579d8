"""Figures of feature maps: arrays in, Figure out. Each picture is about an inch wide."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ..core.plots import new_axes
from ..multitask.data import CLASSES, Split
from .maps import strongest

CLIP = 0.998  # quantile at the end of the colour scale; a few peaks would darken all else


def show(
    axes: Axes, picture: torch.Tensor, highest: torch.Tensor | int, colors: str = "magma"
) -> AxesImage:
    """Show a picture (H, W), such as a map, in a colour scale from 0 to `highest`."""
    axes.set(xticks=[], yticks=[])
    return axes.imshow(picture.numpy(), colors, vmin=0, vmax=highest, interpolation="nearest")


def show_image(axes: Axes, image: torch.Tensor) -> None:
    """Show a raw image (1, 28, 28)."""
    show(axes, image[0], 255, "gray")


def plot_maps(
    images: torch.Tensor,
    titles: Sequence[str],
    maps: Mapping[str, torch.Tensor],
    channels: Mapping[str, Sequence[int]],
) -> Figure:
    """Plot a row an image: the input, then chosen channels, with a colour scale for each block.

    A column "b1, 14" is channel 14 of block 1.

    Args:
        images: (N, 1, 28, 28) uint8.
        titles: N names of the rows.
        maps: block -> (N, C, H, W), never negative.
        channels: block -> channels to show, in this order.
    """
    columns = [(block, channel) for block, chosen in channels.items() for channel in chosen]
    grid = new_axes(len(images), 1 + len(columns), width=1.1, height=1.1)
    inputs, *others = grid.T
    inputs[0].set_title("input", fontsize=9)
    for axes, image, title in zip(inputs, images, titles, strict=True):
        show_image(axes, image)
        axes.set_ylabel(title, fontsize=10)
    for axes_of_column, (block, channel) in zip(others, columns, strict=True):
        axes_of_column[0].set_title(f"{block.replace('block', 'b')}, {channel}", fontsize=9)
        highest = maps[block][:, channels[block]].quantile(CLIP)
        for axes, values in zip(axes_of_column, maps[block][:, channel], strict=True):
            show(axes, values, highest)
    return grid[0, 0].figure


def plot_blocks(image: torch.Tensor, maps: Mapping[str, torch.Tensor], channels: int) -> Figure:
    """Plot an image and its strongest maps, a row a block, each row in its own colour scale.

    Args:
        image: (1, 28, 28) uint8.
        maps: block -> (1, C, H, W), never negative.
        channels: number of channels to show.
    """
    grid = new_axes(len(maps), channels + 1, width=1.3, height=1.45)
    for (first, *others), (block, values) in zip(grid, maps.items(), strict=True):
        show_image(first, image)
        first.set_ylabel(block.replace("block", "block "), fontsize=10)
        for axes, channel in zip(others, strongest(values, channels), strict=True):
            show(axes, values[0, channel], values.max())
            axes.set_title(f"channel {channel}", fontsize=9)
    return grid[0, 0].figure


def plot_most_exciting(split: Split, exciting: Mapping[str, torch.Tensor]) -> Figure:
    """Plot the images that excite each channel most in a row, with counts of their classes.

    Args:
        split: images and labels.
        exciting: name of a channel -> indices (n,) of its images.
    """
    (columns,) = {len(indices) for indices in exciting.values()}
    grid = new_axes(len(exciting), columns, width=1.1, height=1.4)
    for axes_of_row, (name, indices) in zip(grid, exciting.items(), strict=True):
        for axes, image in zip(axes_of_row, split.images[indices], strict=True):
            show_image(axes, image)
        counts = pd.Series(CLASSES).iloc[split.labels[indices].numpy()].value_counts()
        classes = ", ".join(f"{count} {label}" for label, count in counts.items())
        axes_of_row[0].set_title(" ")  # keeps room for the next, which spans the row
        title = axes_of_row[0].annotate(f"{name}: {classes}", (0, 1.08), xycoords="axes fraction")
        title.set_in_layout(False)
    return grid[0, 0].figure
