"""Figures of the colorization notebook: arrays in, Axes out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from ..core import plotting
from ..core.plotting import new_axes


def pictures(
    columns: dict[str, torch.Tensor], titles: Sequence[str] | None = None, *, width: float = 0.85
) -> np.ndarray:
    """A row per image and a column per version of it.

    Args:
        columns: title -> (N, 1, H, W) or (N, 3, H, W) uint8.
        titles: what stands beside each row.
        width: of an image, in inches.
    """
    rows, _, h, w = next(iter(columns.values())).shape
    grid = new_axes(rows, len(columns), width=width, height=width * h / w + 0.02 * width / 0.85)
    for (title, images), panels in zip(columns.items(), grid.T, strict=True):
        panels[0].set_title(title, fontsize=max(6, 2.5 * width))
        for axes, image in zip(panels, images, strict=True):
            axes.imshow(
                image.permute(1, 2, 0).expand(-1, -1, 3).numpy(),
                interpolation="nearest" if w <= 64 else "auto",
            )
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, title in zip(grid[:, 0], () if titles is None else titles, strict=False):
        axes.set_ylabel(title, fontsize=6, rotation=0, ha="right", va="center")
    return grid


def table_areas(log_probs: torch.Tensor, colors: torch.Tensor, levels: Sequence[float]) -> Axes:
    """What each grey level tells: the share of every colour, in that colour, and how often the level is.

    Args:
        log_probs: (256, NC) of the luminance table.
        colors: (NC, 3) uint8, the palette.
        levels: (256,) share of the pixels at each grey level, drawn as a line.
    """
    axes = new_axes(width=6, height=2.5)[0, 0]
    axes.stackplot(
        range(256),
        *log_probs.exp().T.numpy(),
        colors=colors.numpy() / 255,
        linewidth=0,
        antialiased=False,
    )
    axes.plot(
        range(256),
        np.asarray(levels) / max(levels),
        color="C3",
        linewidth=1,
        label="how often the grey level occurs",
    )
    axes.set(
        xlabel="grey level of the pixel", ylabel="share of its colours", xlim=(0, 255), ylim=(0, 1)
    )
    axes.legend(fontsize=7, loc="upper center")
    return axes


def differences(intervals: pd.DataFrame, labels: dict[str, str], reference: str) -> np.ndarray:
    """A panel per metric: each model's paired difference from `reference`, with its interval.

    Args:
        intervals: rows of (name, metric) with difference, difference_low and difference_high.
        labels: metric -> label of its axis.
    """
    names = intervals["name"].unique()
    grid = new_axes(1, len(labels), width=3.6, height=0.25 * len(names) + 0.8)
    for axes, (metric, label) in zip(grid[0], labels.items(), strict=True):
        rows = intervals[intervals["metric"] == metric].set_index("name").loc[names]
        for y, (_, row) in enumerate(rows.iterrows()):
            axes.plot([row["difference_low"], row["difference_high"]], [y, y], color="C0")
            axes.plot(row["difference"], y, "o", color="C0", markersize=4)
        axes.axvline(0, color="0.4", linestyle="--", label=reference)
        axes.set_yticks(range(len(names)), names if axes is grid[0, 0] else [], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
    return grid


def against_published(table: pd.DataFrame) -> np.ndarray:
    """Loss and accuracy of `Sweep.comparison`, ours over the published."""
    return plotting.against_published(
        table,
        {"nll": "validation NLL, last epoch", "accuracy": "pixel accuracy, last epoch"},
        by="optimizer",
    )


def by_color(colors: pd.DataFrame, palette: torch.Tensor, names: Sequence[str]) -> Axes:
    """How often each true colour is found, a marker a model, over a strip of the colours, the most frequent first.

    Args:
        colors: rows of `ColorModels.by_color`.
        palette: (NC, 3).
        names: of the models shown.
    """
    axes = new_axes(width=7.5, height=2.8)[0, 0]
    chosen = colors[colors["name"] == names[0]].set_index("color")
    order = chosen["pixels"].sort_values(ascending=False).index
    places = range(len(order))
    axes.bar(places, 1, color=palette.clamp(0, 255)[order].numpy() / 255, width=1.0, alpha=0.8)
    for marker, name in zip("_xo^", names, strict=False):
        values = colors[colors["name"] == name].set_index("color")["accuracy"][order]
        axes.plot(
            places, values, marker, color="C3", markeredgecolor="black", markersize=6, label=name
        )
    axes.set(
        xlabel="true colour, the most frequent first",
        ylabel="share found",
        ylim=(0, 1),
        xlim=(-0.5, len(order) - 0.5),
    )
    axes.set_xticks(
        places,
        [f"{chosen['pixels'][color] / chosen['pixels'].sum():.0%}" for color in order],
        fontsize=6,
    )
    axes.legend(fontsize=7)
    return axes
