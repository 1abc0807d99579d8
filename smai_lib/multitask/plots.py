"""Figures of the multi-task runs: arrays in, Axes out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from sklearn.metrics import ConfusionMatrixDisplay

from ..core.plots import new_axes


def plot_images(
    images: Sequence[torch.Tensor], titles: Sequence[str], *, columns: int = 5
) -> np.ndarray:
    """Plot grey images, each (1, H, W) and uint8 or in [0, 1], in a grid with titles."""
    rows = math.ceil(len(images) / columns)
    grid = new_axes(rows, columns, width=1.3, height=1.6)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, images, titles, strict=False):
        white = 255 if image.dtype == torch.uint8 else 1
        axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=white)
        axes.set_title(title, fontsize=9)
    return grid


def plot_confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Axes:
    """Plot a confusion matrix: row true class, column predicted class, colour number of images."""
    axes = new_axes(width=7, height=6)[0, 0]
    display = ConfusionMatrixDisplay(np.asarray(counts), display_labels=classes)
    display.plot(ax=axes, cmap="Blues", colorbar=False, xticks_rotation=45, text_kw={"fontsize": 9})
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(labelsize=9)
    return axes


def format_ratio(ratio: float) -> str:
    """Return a ratio lambda2 / lambda1 as text: the two ends in words."""
    return {0.0: "class only", math.inf: "ink only"}.get(ratio, f"{ratio:g}")


def plot_by_ratio(
    intervals: Mapping[str, pd.DataFrame],
    label: str,
    axes: Axes,
    *,
    reference: Mapping[str, float] | None = None,
) -> Axes:
    """Plot means with 95 % intervals against lambda2 / lambda1, one line a series.

    Args:
        intervals: series -> table with a row a ratio: mean, low, high (`stats.mean_intervals`).
        label: label of the y axis.
        axes: where to plot.
        reference: name -> value of a dashed line.
    """
    for number, (name, rows) in enumerate(intervals.items()):
        offset = (number - (len(intervals) - 1) / 2) * 0.12  # so that error bars do not overlap
        errors = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
        axes.errorbar(
            np.arange(len(rows)) + offset,
            rows["mean"],
            errors,
            marker="o",
            markersize=3,
            linewidth=1,
            capsize=2,
            label=name,
        )
    styles = ("--", ":", "-.")
    for number, (name, value) in enumerate((reference or {}).items()):
        axes.axhline(value, color="0.4", linestyle=styles[number % 3], linewidth=1, label=name)
    ratios = next(iter(intervals.values())).index
    ticks = [format_ratio(ratio) for ratio in ratios]
    axes.set_xticks(range(len(ratios)), ticks, fontsize=9, rotation=20)
    axes.set(xlabel="lambda2 / lambda1", ylabel=label)
    axes.legend(fontsize=9)
    return axes


def plot_placement(band: pd.DataFrame, labels: Mapping[str, str]) -> np.ndarray:
    """Plot a run within the spread of recorded runs, a panel a metric; red points lie outside.

    Args:
        band: table of `placement.place`.
        labels: metric -> label of its axis.
    """
    grid = new_axes(1, len(labels), width=2.8, height=2.6)
    for axes, (metric, label) in zip(grid.flat, labels.items(), strict=True):
        rows = band[band["metric"] == metric]
        epoch = rows["epoch"]
        axes.fill_between(
            epoch, rows["low"], rows["high"], color="C0", alpha=0.2, label="95 % of runs"
        )
        axes.plot(epoch, rows["mean"], color="C0", linewidth=1, label="mean of recorded runs")
        axes.plot(epoch, rows["value"], color="0.2", linewidth=1, label="this run")
        colors = np.where(rows["outside"], "C3", "0.2")
        axes.scatter(epoch, rows["value"], s=14, zorder=3, c=colors)
        axes.set(xlabel="epoch", ylabel=label)
    grid[0, 0].legend(fontsize=9)
    return grid


def plot_ablation(table: pd.DataFrame) -> np.ndarray:
    """Plot what a recipe loses without an ingredient, with 95 % intervals, a panel a metric.

    Args:
        table: table of `recipe.ablation`.
    """
    metrics = {"accuracy": "test accuracy", "rmse": "test ink RMSE"}
    grid = new_axes(1, len(metrics), width=4.2, height=2.8)
    for axes, (metric, label) in zip(grid.flat, metrics.items(), strict=True):
        low, loss, high = (table[f"{metric}_{end}"] for end in ("low", "loss", "high"))
        axes.errorbar(loss, table["run"], xerr=[loss - low, high - loss], fmt="o", capsize=3)
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.invert_yaxis()
        axes.set(xlabel=f"{label}: loss without it")
        axes.tick_params(labelsize=9)
    grid[0, -1].set_yticklabels([])
    return grid
