"""Figures of the colorization notebook: arrays in, Axes out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from ..core.plotting import new_axes


def palette_shares(colors: torch.Tensor, shares: Sequence[float]) -> Axes:
    """The palette's colours, (NC, 3) uint8, as bars of the pixels that have them."""
    axes = new_axes(width=7, height=2.2)[0, 0]
    axes.bar(range(len(colors)), 100 * np.asarray(shares), color=colors.numpy() / 255, width=1.0, edgecolor="0.5")
    axes.set(xlabel="colour, dark to light", ylabel="% of the pixels", xlim=(-0.7, len(colors) - 0.3))
    return axes


def pictures(columns: dict[str, torch.Tensor], titles: Sequence[str] | None = None) -> np.ndarray:
    """A row per image and a column per version of it.

    Args:
        columns: title -> (N, 1, H, W) or (N, 3, H, W) uint8.
        titles: what stands beside each row.
    """
    rows = len(next(iter(columns.values())))
    grid = new_axes(rows, len(columns), width=0.85, height=0.87)
    for (title, images), panels in zip(columns.items(), grid.T, strict=True):
        panels[0].set_title(title, fontsize=6)
        for axes, image in zip(panels, images, strict=True):
            axes.imshow(image.permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="nearest")
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
    axes.stackplot(range(256), *log_probs.exp().T.numpy(), colors=colors.numpy() / 255, linewidth=0, antialiased=False)
    axes.plot(range(256), np.asarray(levels) / max(levels), color="tab:red", linewidth=1,
              label="how often the grey level occurs")
    axes.set(xlabel="grey level of the pixel", ylabel="share of its colours", xlim=(0, 255), ylim=(0, 1))
    axes.legend(fontsize=7, loc="upper center")
    return axes


def reliability(calibration: dict[str, np.ndarray]) -> Axes:
    """Pixels right against pixels expected right, by confidence.

    Args:
        calibration: name -> (bins, 2), summed confidence and pixels right in each bin.
    """
    axes = new_axes(width=3.8, height=2.8)[0, 0]
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="as confident as right")
    for name, bins in calibration.items():
        some = bins[:, 0] > 1e-3 * bins[:, 0].sum()  # a bin of a few pixels says nothing
        centres = (np.arange(len(bins)) + 0.5) / len(bins)
        # a bin's pixels are not kept, but its confidences lie within it
        right = centres[some] * bins[some, 1] / bins[some, 0]
        axes.plot(centres[some], right, "o-", markersize=3, linewidth=1, label=name)
    axes.set(xlabel="probability of the most likely colour", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize=7)
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
            axes.plot([row["difference_low"], row["difference_high"]], [y, y], color="tab:blue")
            axes.plot(row["difference"], y, "o", color="tab:blue", markersize=4)
        axes.axvline(0, color="0.4", linestyle="--", label=reference)
        axes.set_yticks(range(len(names)), names if axes is grid[0, 0] else [], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
    return grid


def against_published(table: pd.DataFrame) -> np.ndarray:
    """Ours over the published value of each run, loss and accuracy, with the line where they are equal.

    Args:
        table: rows of `Sweep.comparison`.
    """
    grid = new_axes(1, 2, width=3.8, height=3.2)
    for axes, (key, label) in zip(grid[0], {"nll": "validation NLL, last epoch", "accuracy": "pixel accuracy, last epoch"}.items(),
                                  strict=True):
        ends = [table[[key, f"published_{key}"]].min(axis=None), table[[key, f"published_{key}"]].max(axis=None)]
        axes.plot(ends, ends, color="0.6", linestyle="--", linewidth=1, label="equal")
        for marker, (optimizer, rows) in zip("os", table.groupby("optimizer"), strict=False):
            axes.plot(rows[f"published_{key}"], rows[key], marker, markersize=4, label=optimizer)
        for row in table.itertuples():
            axes.annotate(row.run.removeprefix("run "), (getattr(row, f"published_{key}"), getattr(row, key)), fontsize=6,
                          xytext=(4, -6), textcoords="offset points")
        axes.set(xlabel=f"published {label}", ylabel="here")
    grid[0, 0].legend(fontsize=7)
    return grid
