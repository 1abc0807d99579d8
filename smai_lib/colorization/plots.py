"""Figures of the colorization runs: arrays in, Axes out."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core.plots import new_axes

MARKERS = "_xo^svD"


def plot_pictures(
    columns: Mapping[str, torch.Tensor],
    titles: Sequence[str] = (),
    *,
    width: float = 1.2,
) -> np.ndarray:
    """Plot a row an image and a column a version of it.

    Args:
        columns: title -> (N, 1, H, W) or (N, 3, H, W) uint8.
        titles: text beside each row, N or none.
        width: width of an image in inches.
    """
    count, _, h, w = next(iter(columns.values())).shape
    height = min(max(width * h / w, 0.5), 3 * width)  # of a very wide or tall picture
    grid = new_axes(count, len(columns), width=width, height=height + 0.05)
    for (title, images), panels in zip(columns.items(), grid.T, strict=True):
        panels[0].set_title(title, fontsize=9)
        for axes, image in zip(panels, images, strict=True):
            pixels = image.permute(1, 2, 0).expand(-1, -1, 3).numpy()
            axes.imshow(pixels, interpolation="nearest" if w <= 64 else "auto", origin="upper")
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, title in zip(grid[:, 0], titles if len(titles) else [""] * count, strict=True):
        axes.set_ylabel(title, fontsize=9, rotation=0, ha="right", va="center")
    return grid


def plot_colorizations(rows: Mapping[str, torch.Tensor], titles: Sequence[str]) -> Figure:
    """Plot a column an image and a row a version of it, at 1.1 inches an image.

    Args:
        rows: label of a row -> (N, 1, H, W) or (N, 3, H, W) uint8.
        titles: N titles of the columns.
    """
    figure = Figure(figsize=(1.1 * len(titles) + 1, 1.12 * len(rows) + 0.4), layout="compressed")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for panels, (label, images) in zip(grid, rows.items(), strict=True):
        panels[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axes, image in zip(panels, images, strict=True):
            pixels = image.permute(1, 2, 0).expand(-1, -1, 3).numpy()
            axes.imshow(pixels, interpolation="nearest", origin="upper")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    return figure


def plot_sweep(history: pd.DataFrame, reference: float) -> Figure:
    """Plot training and validation NLL of every run in a panel of its own.

    Args:
        history: a row a run and epoch.
        reference: NLL of a baseline, a dotted line.
    """
    runs = history.groupby("name", sort=False)
    columns = min(7, len(runs))
    rows = -(-len(runs) // columns)
    figure = Figure(figsize=(13, 1.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(runs) :]:
        axes.remove()
    for axes, (name, run) in zip(grid.flat[: len(runs)], runs, strict=True):
        run = run.set_index("epoch")
        axes.plot(run["train_nll"], color="C0", label="training")
        axes.plot(run["val_nll"], color="C1", label="validation")
        axes.axhline(reference, color="0.4", linestyle=":", label="lookup table")
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0.8, 3.2)
    grid[0, -1].legend(fontsize=9)
    figure.supxlabel("epoch")
    figure.supylabel("NLL")
    return figure


def plot_unet(network: torch.nn.Module) -> Figure:
    """Draw the levels of a U-Net with the shapes of their maps, read from the network."""
    shapes = _shapes_of_levels(network)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots()
    levels = len(shapes)
    for level, shape in enumerate(shapes):
        text = " × ".join(map(str, shape))
        _draw_box(axes, level, -level, f"2 × Conv-BN-ReLU\n{text}")
        if level == levels - 1:
            continue
        right = 2 * levels - 2 - level
        _draw_box(axes, right, -level, f"Conv-BN-ReLU\n{text}")
        _draw_arrow(axes, (level, -level), (right, -level), "skip: added")
        _draw_arrow(axes, (level, -level), (level + 1, -level - 1), "max pool")
        _draw_arrow(axes, (right - 1, -level - 1), (right, -level), "deconv")
    colors = network.classifier.out_channels
    height, width = shapes[0][1:]
    end = 2 * levels - 1
    _draw_box(axes, end, 0, f"Conv 1 × 1\n{colors} × {height} × {width}")
    _draw_arrow(axes, (end - 1, 0), (end, 0), "")
    axes.set(xlim=(-0.6, end + 0.6), ylim=(0.5 - levels, 0.5))
    axes.axis("off")
    return figure


def _shapes_of_levels(network: torch.nn.Module) -> list[tuple[int, ...]]:
    """Return (C, H, W) of the encoder's maps at every level, for an image of 32 x 32."""
    shapes = []
    hooks = [
        block.register_forward_hook(lambda _, __, maps: shapes.append(tuple(maps.shape[1:])))
        for block in network.encoder
    ]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 1, 32, 32))
    for hook in hooks:
        hook.remove()
    return shapes


def _draw_box(axes: Axes, x: float, y: float, text: str) -> None:
    box = {"boxstyle": "round,pad=0.4", "facecolor": "#e8f0f8", "edgecolor": "0.4"}
    axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box)


def _draw_arrow(axes: Axes, start: tuple, end: tuple, label: str) -> None:
    arrow = {"arrowstyle": "->", "shrinkA": 42, "shrinkB": 42}
    axes.annotate("", end, start, arrowprops=arrow)
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.06)
    axes.text(*middle, label, ha="center", fontsize=9)


def plot_table_shares(
    log_probs: torch.Tensor, palette: torch.Tensor, levels: Sequence[float]
) -> Axes:
    """Plot the share of every colour at each grey level, in that colour.

    Args:
        log_probs: (256, NC) of the luminance table.
        palette: (NC, 3) RGB, 0 to 255.
        levels: (256,) share of the pixels at each grey level, a line.
    """
    axes = new_axes(width=9, height=3.6)[0, 0]
    shares = log_probs.exp().T.numpy()
    axes.stackplot(
        range(256), *shares, colors=palette.numpy() / 255, linewidth=0, antialiased=False
    )
    frequency = np.asarray(levels) / max(levels)
    axes.plot(range(256), frequency, color="C3", label="frequency of the grey level")
    axes.set(xlabel="grey level of the pixel", ylabel="share of its colours")
    axes.set(xlim=(0, 255), ylim=(0, 1))
    axes.legend(loc="upper center")
    return axes


def plot_differences(
    intervals: pd.DataFrame, labels: Mapping[str, str], reference: str
) -> np.ndarray:
    """Plot each model's paired difference from a reference with its interval, a panel a metric.

    Args:
        intervals: rows of (name, metric) with difference, difference_low and difference_high.
        labels: metric -> label of its axis.
        reference: name of the model that differences are taken from.
    """
    names = list(intervals["name"].unique())
    grid = new_axes(1, len(labels), width=4, height=0.35 * len(names) + 1)
    for axes, (metric, label) in zip(grid[0], labels.items(), strict=True):
        rows = intervals[intervals["metric"] == metric].set_index("name").loc[names]
        difference = rows["difference"]
        errors = [difference - rows["difference_low"], rows["difference_high"] - difference]
        axes.errorbar(difference, range(len(names)), xerr=errors, fmt="o", capsize=3)
        axes.axvline(0, color="0.4", linestyle="--", label=reference)
        axes.set_yticks(range(len(names)), names if axes is grid[0, 0] else [])
        axes.invert_yaxis()
        axes.set_xlabel(label)
    return grid


def plot_published(table: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """Plot our metrics over the published ones, a point a run.

    Args:
        table: table of `studies.comparison`.
        labels: metric -> label.
    """
    figure = Figure(figsize=(5 * len(labels), 4.4), layout="constrained")
    grid = figure.subplots(1, len(labels), squeeze=False)[0]
    for axes, (metric, label) in zip(grid, labels.items(), strict=True):
        published, ours = table[f"published_{metric}"], table[metric]
        ends = [min(published.min(), ours.min()), max(published.max(), ours.max())]
        axes.plot(ends, ends, color="0.6", linestyle="--", label="equal")
        for optimizer, rows in table.groupby("optimizer"):
            axes.plot(rows[f"published_{metric}"], rows[metric], "o", label=optimizer)
        axes.set(xlabel=f"published {label}", ylabel=f"{label}, trained here")
    grid[0].legend()
    return figure


def plot_by_color(colors: pd.DataFrame, palette: torch.Tensor, names: Sequence[str]) -> Axes:
    """Plot how often each true colour is predicted, a marker a model, over a strip of the colours.

    Args:
        colors: the study's table "colors".
        palette: (NC, 3) RGB, 0 to 255.
        names: names of the models to plot.
    """
    axes = new_axes(width=10, height=3.8)[0, 0]
    first = colors[colors["name"] == names[0]].set_index("color")
    order = first["pixels"].sort_values(ascending=False).index
    places = range(len(order))
    strip = palette.clamp(0, 255)[list(order)].numpy() / 255
    axes.bar(places, 1, color=strip, width=1.0, alpha=0.8)
    for marker, name in zip(cycle(MARKERS), names, strict=False):
        accuracy = colors[colors["name"] == name].set_index("color")["accuracy"][order]
        style = {"color": "white", "markeredgecolor": "black", "markersize": 7}
        axes.plot(places, accuracy, marker, label=name, **style)
    shares = first["pixels"][order] / first["pixels"].sum()
    axes.set_xticks(places, [f"{share:.0%}" for share in shares])
    axes.set(xlabel="true colour and its share, the most frequent first")
    axes.set(ylabel="share predicted right", ylim=(0, 1), xlim=(-0.5, len(order) - 0.5))
    axes.legend()
    return axes
