"""Figures of Q1: arrays in, Axes out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from sklearn.metrics import ConfusionMatrixDisplay

from ..core.plotting import new_axes


def image_grid(
    pixels: Sequence[torch.Tensor], titles: Sequence[str], *, columns: int = 10
) -> np.ndarray:
    """A grid of grey images, each (1, H, W) and uint8 or in [0, 1], under its title."""
    rows = -(-len(pixels) // columns)
    grid = new_axes(rows, columns, width=1.0, height=1.35)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, pixels, titles, strict=False):
        axes.imshow(
            image[0].numpy(), cmap="gray", vmin=0, vmax=255 if image.dtype == torch.uint8 else 1
        )
        axes.set_title(title, fontsize=7)
    return grid


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Axes:
    """Confusion matrix, row true and column predicted, coloured by the number of images."""
    axes = new_axes(width=6, height=5.2)[0, 0]
    ConfusionMatrixDisplay(np.asarray(counts), display_labels=classes).plot(
        ax=axes, cmap="Blues", colorbar=False, xticks_rotation=45, text_kw={"fontsize": 7}
    )
    axes.tick_params(labelsize=8)
    return axes


def tick(ratio: float) -> str:
    """How a ratio lambda2 / lambda1 is written, the two ends in words."""
    return {0.0: "class only", float("inf"): "ink only"}.get(ratio, f"{ratio:g}")


def by_ratio(
    intervals: dict[str, pd.DataFrame],
    ratios: Sequence[float],
    label: str,
    axes: Axes,
    *,
    reference: dict[str, float] | None = None,
) -> Axes:
    """Means with 95 % intervals over the ratios, one line a series.

    Args:
        intervals: series -> a row a ratio with mean, low, high (`significance.mean_intervals`).
        reference: name -> value of a dashed line.
    """
    for number, (name, rows) in enumerate(intervals.items()):
        shift = (
            number - (len(intervals) - 1) / 2
        ) * 0.12  # side by side, so that bars do not hide each other
        axes.errorbar(
            np.arange(len(rows)) + shift,
            rows["mean"],
            [rows["mean"] - rows["low"], rows["high"] - rows["mean"]],
            marker="o",
            markersize=3,
            linewidth=1,
            capsize=2,
            label=name,
        )
    for number, (name, value) in enumerate((reference or {}).items()):
        axes.axhline(value, color="0.4", linestyle=["--", ":"][number % 2], linewidth=1, label=name)
    axes.set_xticks(range(len(ratios)), [tick(ratio) for ratio in ratios], fontsize=7, rotation=20)
    axes.set(xlabel="lambda2 / lambda1", ylabel=label)
    axes.legend(fontsize=6)
    return axes


def placement(band: pd.DataFrame, labels: dict[str, str]) -> np.ndarray:
    """A run within the recorded spread: one panel a metric, points outside in red (`spread.place`)."""
    grid = new_axes(1, len(labels), width=2.6, height=2.2)
    for axes, (metric, label) in zip(grid.flat, labels.items(), strict=True):
        rows = band[band["metric"] == metric]
        axes.fill_between(
            rows["epoch"], rows["low"], rows["high"], color="C0", alpha=0.2, label="95 % of runs"
        )
        axes.plot(rows["epoch"], rows["mean"], color="C0", linewidth=0.8)
        axes.plot(rows["epoch"], rows["value"], color="0.2", linewidth=0.8, label="this run")
        axes.scatter(
            rows["epoch"],
            rows["value"],
            s=14,
            zorder=3,
            c=["C3" if outside else "0.2" for outside in rows["outside"]],
        )
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
