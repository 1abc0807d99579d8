"""Figures of the colorization runs: arrays and tables in, figures out."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from ..core.plots import draw_arrow, draw_box, legend_above, new_axes
from .model import ColorizationUNet

MARKERS = "_xo^svD"


def plot_colorizations(
    rows: Mapping[str, torch.Tensor], titles: Sequence[str], *, width: float = 1.0
) -> Figure:
    """Plot a column an image and a row a version of it.

    Args:
        rows: label of a row -> (N, 1, H, W) or (N, 3, H, W) uint8.
        titles: N titles of the columns.
        width: width of an image in inches.
    """
    h, w = next(iter(rows.values())).shape[-2:]
    gap = max(1, w // 32)  # of white pixels around every image
    padded = [F.pad(images.expand(-1, 3, -1, -1), [gap] * 4, value=255) for images in rows.values()]
    canvas = torch.cat([torch.cat(list(images), 2) for images in padded], 1)  # (3, height, width)
    height = np.clip(width * h / w, 0.5, 3 * width)  # of a very wide or tall picture
    margin = 1 if any(rows) else 0  # for the labels
    size = {"width": width * len(titles) + margin, "height": height * len(rows) + 0.4}
    axes = new_axes(**size)[0, 0]
    smoothing = "nearest" if w <= 64 else "auto"
    axes.imshow(canvas.permute(1, 2, 0).numpy(), interpolation=smoothing, origin="upper")
    labels = [textwrap.fill(label, 9) for label in rows]
    axes.set_xticks(range(gap + w // 2, canvas.shape[2], w + 2 * gap), titles)
    axes.set_yticks(range(gap + h // 2, canvas.shape[1], h + 2 * gap), labels)
    axes.tick_params(length=0, top=True, labeltop=True, labelbottom=False)
    axes.tick_params("x", labelsize="small")  # names of neighbours must not touch
    axes.spines[:].set_visible(False)
    return axes.figure


def plot_sweep(history: pd.DataFrame, reference: float) -> Figure:
    """Plot training and validation NLL of every run in a panel of its own.

    Args:
        history: a row a run and epoch.
        reference: NLL of a baseline, a dotted line.
    """
    runs = history.groupby("name", sort=False)
    rows = math.ceil(len(runs) / 7)
    grid = new_axes(rows, 7, width=11 / 7, height=1.9, sharex=True, sharey=True)
    for axes, (name, run) in zip(grid.flat, runs, strict=False):
        axes.plot(run["epoch"], run["train_nll"], color="C0", label="training")
        axes.plot(run["epoch"], run["val_nll"], color="C1", label="validation")
        axes.axhline(reference, color="0.4", linestyle=":", label="lookup table")
        axes.set_title(name, fontsize=9)
    for axes in grid.flat[len(runs) :]:
        axes.remove()
    grid[0, 0].set_ylim(bottom=reference - 0.3)  # the dotted line is above the axis
    legend_above(grid[0, 0])
    figure = grid[0, 0].figure
    figure.supxlabel("epoch")
    figure.supylabel("NLL")
    return figure


def plot_unet(network: ColorizationUNet) -> Figure:
    """Draw the levels of a U-Net with the shapes of their maps, for images of 32 x 32 pixels."""
    channels = [network.classifier.in_channels, *(up[0].in_channels for up in reversed(network.up))]
    axes = new_axes(width=11, height=4.6)[0, 0]
    deepest = len(channels) - 1
    for level, count in enumerate(channels):
        shape = f"{count} × {32 >> level} × {32 >> level}"
        draw_box(axes, level, -level, ["2 × Conv-BN-ReLU", shape])
        if level == deepest:
            break
        right = 2 * deepest - level
        draw_box(axes, right, -level, ["Conv-BN-ReLU", shape])
        draw_arrow(axes, (level, -level), (right, -level))
        axes.text(deepest, 0.06 - level, "skip: added", fontsize=9, ha="center")
        draw_arrow(axes, (level, -level), (level + 1, -level - 1))
        axes.text(level + 0.4, -level - 0.6, "max pool", fontsize=9, ha="right")
        draw_arrow(axes, (right - 1, -level - 1), (right, -level))
        axes.text(right - 0.4, -level - 0.6, "deconv", fontsize=9, ha="left")
    end = 2 * deepest + 1
    draw_box(axes, end, 0, ["Conv 1 × 1", f"{network.classifier.out_channels} × 32 × 32"])
    draw_arrow(axes, (end - 1, 0), (end, 0))
    axes.set(xlim=(-0.6, end + 0.6), ylim=(-deepest - 0.5, 0.5))
    axes.axis("off")
    return axes.figure


def plot_table_shares(
    log_probs: torch.Tensor, palette: torch.Tensor, levels: Sequence[float]
) -> Figure:
    """Plot the share of every colour at each grey level, in that colour, over the level's own.

    Args:
        log_probs: (256, NC) of the luminance table.
        palette: (NC, 3) RGB, 0 to 255.
        levels: (256,) number of pixels at each grey level.
    """
    grid = new_axes(2, width=9, height=2.2, sharex=True, height_ratios=(3, 1))
    (above, below), shares = grid[:, 0], log_probs.exp().T.numpy()
    colors = palette.numpy() / 255
    above.stackplot(range(256), *shares, colors=colors, linewidth=0, antialiased=False)
    above.set(xlim=(0, 255), ylim=(0, 1), ylabel="share of each colour")
    below.fill_between(range(256), np.asarray(levels) / sum(levels), color="0.6")
    below.set(xlabel="grey level of the pixel", ylabel="share of\npixels", ylim=0)
    return above.figure


def plot_by_color(colors: pd.DataFrame, palette: torch.Tensor, names: Sequence[str]) -> Figure:
    """Plot how often each true colour is predicted, a marker a model, over a strip of the colours.

    Args:
        colors: the study's table "colors".
        palette: (NC, 3) RGB, 0 to 255.
        names: names of the models to plot.
    """
    axes = new_axes(width=10, height=3.8)[0, 0]
    axes.set_prop_cycle(marker=list(MARKERS))
    pixels = colors.groupby("color")["pixels"].first().sort_values(ascending=False)
    accuracy = colors.pivot(index="color", columns="name", values="accuracy").loc[pixels.index]
    places = range(len(pixels))
    axes.bar(places, 1, color=palette[list(pixels.index)].numpy() / 255, width=1.0, alpha=0.6)
    style = {"color": "black", "fillstyle": "none", "markersize": 7, "linestyle": ""}
    for name in names:
        axes.plot(places, accuracy[name], label=name, **style)
    axes.set_xticks(places, [f"{share:.0%}" for share in pixels / pixels.sum()])
    axes.set(xlabel="true colour and its share, the most frequent first")
    axes.set(ylabel="share predicted right", ylim=(-0.03, 1.06), xlim=(-0.5, len(pixels) - 0.5))
    legend_above(axes)
    return axes.figure
