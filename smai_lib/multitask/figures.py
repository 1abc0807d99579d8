"""Figures of Q1: arrays in, Axes out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from sklearn.metrics import ConfusionMatrixDisplay

from ..core.plotting import new_axes


def image_grid(pixels: Sequence[torch.Tensor], titles: Sequence[str], *, columns: int = 10) -> np.ndarray:
    """A grid of grey images, each (1, H, W) and uint8 or in [0, 1], under its title."""
    rows = -(-len(pixels) // columns)
    grid = new_axes(rows, columns, width=1.0, height=1.35)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, pixels, titles, strict=False):
        axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=255 if image.dtype == torch.uint8 else 1)
        axes.set_title(title, fontsize=7)
    return grid


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Axes:
    """Confusion matrix, row true and column predicted, coloured by the number of images."""
    axes = new_axes(width=6, height=5.2)[0, 0]
    ConfusionMatrixDisplay(np.asarray(counts), display_labels=classes).plot(
        ax=axes, cmap="Blues", colorbar=False, xticks_rotation=45, text_kw={"fontsize": 7})
    axes.tick_params(labelsize=8)
    return axes


def tick(ratio: float) -> str:
    """How a ratio lambda2 / lambda1 is written, the two ends in words."""
    return {0.0: "class only", float("inf"): "ink only"}.get(ratio, f"{ratio:g}")


def by_ratio(intervals: dict[str, pd.DataFrame], ratios: Sequence[float], label: str, axes: Axes, *,
             reference: dict[str, float] | None = None) -> Axes:
    """Means with 95 % intervals over the ratios, one line a series.

    Args:
        intervals: series -> a row a ratio with mean, low, high (`significance.mean_intervals`).
        reference: name -> value of a dashed line.
    """
    for number, (name, rows) in enumerate(intervals.items()):
        shift = (number - (len(intervals) - 1) / 2) * 0.12  # side by side, so that bars do not hide each other
        axes.errorbar(np.arange(len(rows)) + shift, rows["mean"], [rows["mean"] - rows["low"], rows["high"] - rows["mean"]],
                      marker="o", markersize=3, linewidth=1, capsize=2, label=name)
    for number, (name, value) in enumerate((reference or {}).items()):
        axes.axhline(value, color="0.4", linestyle=["--", ":"][number % 2], linewidth=1, label=name)
    axes.set_xticks(range(len(ratios)), [tick(ratio) for ratio in ratios], fontsize=7, rotation=20)
    axes.set(xlabel="lambda2 / lambda1", ylabel=label)
    axes.legend(fontsize=6)
    return axes


def front(results: pd.DataFrame, axes: Axes) -> Axes:
    """Accuracy over ink RMSE: a faint point a seed, a full one a mean, joined in the order of the ratios.

    `results` has a row a run, with series, of which there are at most three, ratio, test_accuracy, test_rmse.
    """
    ratios = sorted(results["ratio"].unique())
    colors = dict(zip(ratios, colormaps["viridis"](np.linspace(0, 0.95, len(ratios))), strict=True))
    for marker, (name, runs) in zip("os^", results.groupby("series", sort=False), strict=False):
        means = runs.groupby("ratio")[["test_rmse", "test_accuracy"]].mean()
        axes.plot(means["test_rmse"], means["test_accuracy"], color="0.7", linewidth=0.8, zorder=1)
        axes.scatter(runs["test_rmse"], runs["test_accuracy"], s=9, marker=marker, alpha=0.35,
                     c=[colors[ratio] for ratio in runs["ratio"]])
        axes.scatter(means["test_rmse"], means["test_accuracy"], s=34, marker=marker, edgecolors="black",
                     linewidths=0.5, c=[colors[ratio] for ratio in means.index], label=name, zorder=3)
        for ratio, point in means.iterrows():
            axes.annotate(tick(ratio), point, fontsize=6, xytext=(4, 3), textcoords="offset points")
    axes.set(xscale="log", xlabel="test ink RMSE", ylabel="test accuracy")
    axes.legend(fontsize=7)
    return axes


def gradients(history: pd.DataFrame, colors: dict[str, str]) -> np.ndarray:
    """Norms of the two losses' gradients on the backbone and their cosine, mean over seeds and range."""
    panels = {"class_gradient": "gradient norm of CE", "ink_gradient": "gradient norm of MSE",
              "gradient_cosine": "cosine of the two"}
    grid = new_axes(1, len(panels), width=3.1, height=2.5)
    for axes, (column, label) in zip(grid.flat, panels.items(), strict=True):
        for name, color in colors.items():
            by_epoch = history[history["name"] == name].groupby("epoch")[column].agg(["mean", "min", "max"])
            axes.plot(by_epoch.index, by_epoch["mean"], color=color, marker="o", markersize=2, linewidth=1, label=name)
            axes.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=color, alpha=0.15, linewidth=0)
        axes.set(xlabel="epoch", ylabel=label)
        if column != "gradient_cosine":
            axes.set_yscale("log")
    grid.flat[2].axhline(0, color="0.5", linewidth=0.7)
    grid.flat[0].legend(fontsize=6)
    return grid


def placement(band: pd.DataFrame, labels: dict[str, str]) -> np.ndarray:
    """A run within the recorded spread: one panel a metric, points outside in red (`spread.place`)."""
    grid = new_axes(1, len(labels), width=2.6, height=2.2)
    for axes, (metric, label) in zip(grid.flat, labels.items(), strict=True):
        rows = band[band["metric"] == metric]
        axes.fill_between(rows["epoch"], rows["low"], rows["high"], color="C0", alpha=0.2, label="95 % of runs")
        axes.plot(rows["epoch"], rows["mean"], color="C0", linewidth=0.8)
        axes.plot(rows["epoch"], rows["value"], color="0.2", linewidth=0.8, label="this run")
        axes.scatter(rows["epoch"], rows["value"], s=14, zorder=3,
                     c=["C3" if outside else "0.2" for outside in rows["outside"]])
        axes.set(xlabel="epoch", ylabel=label)
    grid.flat[0].legend(fontsize=6)
    return grid


def ablation(table: pd.DataFrame, reach: dict[str, float]) -> np.ndarray:
    """What a recipe loses without an ingredient: a bar a run, one panel a measure (`BestRecipe.ablation`).

    The grey band, which is no effect, is `reach` (measure -> half its width) wide either way.
    """
    grid = new_axes(1, len(reach), width=4.2, height=2.4)
    for axes, (label, width) in zip(grid.flat, reach.items(), strict=True):
        axes.axvspan(-width, width, color="0.85", label="another seed, 95 %")
        axes.barh(table["run"], table[f"{label}_loss"], color="C3", height=0.6)
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.invert_yaxis()
        axes.set(xlabel=f"{label}: worse by")
        axes.tick_params(labelsize=7)
    grid.flat[-1].set_yticks([])
    grid.flat[0].legend(fontsize=6)
    return grid
