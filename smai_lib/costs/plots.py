"""Figures of the cost notebook: arrays in, Axes out."""

import numpy as np
from matplotlib.patches import Rectangle

from ..core.plotting import new_axes

CHOSEN = ("C1", "C0")  # two output pixels, and the input pixels that reach them


def taps(reached: dict[str, np.ndarray], chosen: dict[str, list[tuple[int, int]]]) -> np.ndarray:
    """A row per layer: the input, coloured where it reaches a chosen output; the taps of every output.

    Args:
        reached: name of a layer -> whether an output pixel has a tap to an input pixel, (H_out, W_out, H_in, W_in).
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
    axes.set(
        xlim=(-0.5, width - 0.5),
        ylim=(height - 0.5, -0.5),
        aspect="equal",
        title=title,
        xticks=np.arange(width + 1) - 0.5,
        yticks=np.arange(height + 1) - 0.5,
        xticklabels=[],
        yticklabels=[],
    )
    axes.grid(color="0.7")
    axes.tick_params(length=0)
    for (y, x), value in np.ndenumerate(values) if numbers else ():
        axes.text(x, y, value, ha="center", va="center", fontsize=8)
