"""What all figures share: arrays in, Axes out. Nothing here trains, reads data or calls `show`."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

# told apart by readers who see fewer colours, too (seaborn's "colorblind"); C0 to C9 in every figure
COLORS = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#d55e00",
    "#cc78bc",
    "#ca9161",
    "#fbafe4",
    "#949494",
    "#ece133",
    "#56b4e9",
)
matplotlib.rcParams["axes.prop_cycle"] = matplotlib.cycler(color=COLORS)
COLUMN, POINTS = 6.7, 9  # inches of a page's text, and the least size of its figures' text


def new_axes(
    rows: int = 1, columns: int = 1, *, width: float = 5.0, height: float = 3.2
) -> np.ndarray:
    """(rows, columns) Axes of a figure that pyplot does not keep alive."""
    figure = Figure(figsize=(width * columns, height * rows), dpi=80, layout="constrained")
    return figure.subplots(rows, columns, squeeze=False)


def legible(figure: Figure, height: float) -> None:
    """Make `figure` as wide as a page's text, with no text below 9 points."""
    figure.set_size_inches(COLUMN, height)
    for axes in figure.axes:
        axes.tick_params(labelsize=POINTS)
    for text in figure.findobj(Text):
        text.set_fontsize(max(POINTS, text.get_fontsize()))


def caption(figure: Figure, text: str) -> Figure:
    """Put small text below the picture, in as many lines as its width needs."""
    characters = int(figure.get_figwidth() / 0.055)  # at 7 points
    figure.supxlabel(textwrap.fill(text, characters), fontsize=7, color="0.4")
    return figure


def curves(
    history: pd.DataFrame,
    metrics: dict[str, str],
    groups: dict[str, str],
    *,
    labels: dict[str, str] | None = None,
    columns: int = 3,
) -> np.ndarray:
    """One panel a metric, one line a run.

    Args:
        history: a row per (name, epoch).
        metrics: column of `history` -> label of its axis.
        groups, labels: name of a run -> colour, and what the legend says, by default the name.
    """
    grid = new_axes(-(-len(metrics) // columns), columns, width=3.1, height=2.4)
    marker = "o" if history["epoch"].max() < 5 else None  # so few points make no line
    for axes, (column, label) in zip(grid.flat, metrics.items(), strict=False):
        for name, color in groups.items():
            run = history[history["name"] == name]
            axes.plot(
                run["epoch"],
                run[column],
                color=color,
                marker=marker,
                markersize=2.5,
                linewidth=1,
                label=(labels or {}).get(name, name),
            )
        axes.set(xlabel="epoch", ylabel=label, xlim=(0.5, history["epoch"].max() + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in grid.flat[len(metrics) :]:
        axes.axis("off")
    grid.flat[0].legend(fontsize=6)
    return grid


def intervals(
    names: Sequence[str],
    low: Sequence[float],
    middle: Sequence[float],
    high: Sequence[float],
    label: str,
    *,
    reference: dict[str, float] | None = None,
) -> Axes:
    """Horizontal intervals, one a name, with dashed lines at named reference values."""
    axes = new_axes(width=7, height=0.32 * len(names) + 0.9)[0, 0]
    rows = range(len(names))
    axes.hlines(rows, low, high, color="C0")
    axes.plot(middle, rows, "o", color="C0")
    for number, (name, value) in enumerate((reference or {}).items()):
        axes.axvline(value, color="0.4", linestyle=["--", ":", "-."][number % 3], label=name)
    axes.set_yticks(rows, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    if reference:
        axes.legend(fontsize=7)
    return axes


def against_published(table: pd.DataFrame, labels: dict[str, str], by: str) -> np.ndarray:
    """Ours over the published value of each run, a panel a metric, with the line where they are equal.

    Args:
        table: a row a run, of `significance.beside_published`; a point is labelled with what follows the run's first word.
        labels: column of `table` -> what it is.
        by: the column that markers tell apart.
    """
    grid = new_axes(1, len(labels), width=3.8, height=3.2)
    for axes, (key, label) in zip(grid[0], labels.items(), strict=True):
        theirs, ours = table[f"published_{key}"], table[key]
        ends = [min(ours.min(), theirs.min()), max(ours.max(), theirs.max())]
        axes.plot(ends, ends, color="0.6", linestyle="--", linewidth=1, label="equal")
        for marker, (name, rows) in zip("os^", table.groupby(by), strict=False):
            axes.plot(rows[f"published_{key}"], rows[key], marker, markersize=4, label=name)
        for run, *point in zip(table["run"], theirs, ours, strict=True):
            axes.annotate(
                run.split(maxsplit=1)[-1],
                point,
                fontsize=6,
                xytext=(4, -6),
                textcoords="offset points",
            )
        axes.set(xlabel=f"published {label}", ylabel="here")
    grid[0, 0].legend(fontsize=7)
    return grid
