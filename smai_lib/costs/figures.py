"""Figures of the cost notebook: arrays in, Axes out."""

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from ..core.plotting import new_axes

CHOSEN = ("tab:orange", "tab:blue")  # two output pixels, and the input pixels that reach them


def taps(reached: dict[str, np.ndarray], chosen: dict[str, list[tuple[int, int]]]) -> np.ndarray:
    """A row per layer: the input, coloured where it reaches a chosen output; the taps of every output.

    Args:
        reached: name of a layer -> its `formulas.pixel_taps`.
        chosen: name of a layer -> two output pixels, (row, column).
    """
    grid = new_axes(len(reached), 2, width=3.6, height=3.3)
    for row, (name, table) in zip(grid, reached.items(), strict=True):
        _squares(row[0], np.ones(table.shape[2:]), f"{name}: input")
        _squares(row[1], table.sum((2, 3)), "output, with its number of taps", numbers=True)
        for (y, x), color in zip(chosen[name], CHOSEN, strict=True):
            row[1].add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=color, alpha=0.6))
            for v, u in np.argwhere(table[y, x]):
                row[0].add_patch(Rectangle((u - 0.5, v - 0.5), 1, 1, color=color, alpha=0.6))
    return grid


def _squares(axes, values: np.ndarray, title: str, *, numbers: bool = False) -> None:
    height, width = values.shape
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal", title=title,
             xticks=np.arange(width + 1) - 0.5, yticks=np.arange(height + 1) - 0.5, xticklabels=[], yticklabels=[])
    axes.grid(color="0.7")
    axes.tick_params(length=0)
    for (y, x), value in np.ndenumerate(values) if numbers else ():
        axes.text(x, y, value, ha="center", va="center", fontsize=8)


def time_against_counts(table: pd.DataFrame, labels: dict[str, str], explained: dict[str, float]) -> np.ndarray:
    """A panel per column: milliseconds an image over it, both logarithmic, a line over NF for each k.

    Args:
        table: columns NF, k, seconds and those of `labels`.
        labels: column -> label of its axis.
        explained: column -> R2, shown in the title.
    """
    grid = new_axes(1, len(labels), width=2.9, height=3.0)
    for axes, (column, label) in zip(grid[0], labels.items(), strict=True):
        for marker, (kernel, rows) in zip("o^sDvPX*", table.groupby("k"), strict=False):
            axes.plot(rows[column], 1000 * rows["seconds"], marker=marker, label=f"k = {kernel}")
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.set_title(f"R² = {explained[column]:.2f}", fontsize=10)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        wide = table[column].max() > 20 * table[column].min()
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
        if not wide:
            axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    grid[0, 0].set_ylabel("processor ms an image")
    grid[0, 0].legend(fontsize=7, title="a line over NF", title_fontsize=7)
    return grid
