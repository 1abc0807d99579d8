"""What all figures share: arrays in, Axes out. Nothing here trains, reads data or calls `show`."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def new_axes(rows: int = 1, columns: int = 1, *, width: float = 5.0, height: float = 3.2) -> np.ndarray:
    """(rows, columns) Axes of a figure that pyplot does not keep alive."""
    figure = Figure(figsize=(width * columns, height * rows), dpi=80, layout="constrained")
    return figure.subplots(rows, columns, squeeze=False)


def caption(figure: Figure, text: str) -> Figure:
    """Put small text below the picture, in as many lines as its width needs."""
    characters = int(figure.get_figwidth() / 0.055)  # at 7 points
    figure.supxlabel(textwrap.fill(text, characters), fontsize=7, color="0.4")
    return figure


def curves(history: pd.DataFrame, metrics: dict[str, str], groups: dict[str, str],
           *, labels: dict[str, str] | None = None, columns: int = 3) -> np.ndarray:
    """One panel a metric, one line a run.

    Args:
        history: a row per (name, epoch).
        metrics: column of `history` -> label of its axis.
        groups: name of a run -> colour.
        labels: name of a run -> what the legend says, default its name.
    """
    grid = new_axes(-(-len(metrics) // columns), columns, width=3.1, height=2.4)
    marker = "o" if history["epoch"].max() < 5 else None  # so few points make no line
    for axes, (column, label) in zip(grid.flat, metrics.items(), strict=False):
        for name, color in groups.items():
            run = history[history["name"] == name]
            axes.plot(run["epoch"], run[column], color=color, marker=marker, markersize=2.5, linewidth=1,
                      label=(labels or {}).get(name, name))
        axes.set(xlabel="epoch", ylabel=label, xlim=(0.5, history["epoch"].max() + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in grid.flat[len(metrics):]:
        axes.axis("off")
    grid.flat[0].legend(fontsize=6)
    return grid


def intervals(names: Sequence[str], low: Sequence[float], middle: Sequence[float], high: Sequence[float],
              label: str, *, reference: dict[str, float] | None = None) -> Axes:
    """Horizontal intervals, one a name, with dashed lines at named reference values."""
    axes = new_axes(width=7, height=0.32 * len(names) + 0.9)[0, 0]
    rows = range(len(names))
    axes.hlines(rows, low, high, color="tab:blue")
    axes.plot(middle, rows, "o", color="tab:blue")
    for number, (name, value) in enumerate((reference or {}).items()):
        axes.axvline(value, color="0.4", linestyle=["--", ":", "-."][number % 3], label=name)
    axes.set_yticks(rows, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    if reference:
        axes.legend(fontsize=7)
    return axes
