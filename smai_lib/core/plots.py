"""Helpers for figures: style, diagrams, common charts, and saving with a digest of their data.

A figure under `figures/` names the recorded tables that it shows, with their checksums. The report
is not built with a figure whose tables have changed since.
"""

import io
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullFormatter

from . import paths
from .errors import ConfigError
from .files import sha256, write

# seaborn's "colorblind" palette
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
STYLE = {
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "font.family": ["STIXGeneral", "DejaVu Sans"],  # the report's typeface, then for rare signs
    "mathtext.fontset": "stix",
    "font.size": 10,
    "figure.labelsize": 10,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
}
TEXT_WIDTH, LEAST_HEIGHT = 6.7, 1.9  # inches, of the report's text and of a chart in it
FLATTENED = 0.75  # height of a chart of full width, relative to the notebook's
SAVE_VARIABLE = "SMAI_SAVE_FIGURES"  # set while notebooks run in place
MARK = "smai-tables"  # begins a figure's description


def use_style() -> None:
    """Reset matplotlib to its defaults and the style of this project; notebooks call it once.

    A reader's matplotlibrc would otherwise leak in, for example `image.origin: lower`. Figures in a
    notebook have twice the resolution of the display.
    """
    from IPython import get_ipython
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    backend = matplotlib.get_backend()
    matplotlib.rcdefaults()
    matplotlib.use(backend)
    matplotlib.rcParams.update(STYLE)
    if get_ipython():
        set_matplotlib_formats("retina")


def style():
    """Return a context in which matplotlib has its defaults and the style of this project."""
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    return matplotlib.rc_context(defaults | STYLE)


def new_axes(
    rows: int = 1, columns: int = 1, *, width: float = 5.0, height: float = 3.2, **settings
) -> np.ndarray:
    """Return (rows, columns) Axes of `width` x `height` inches, of a figure outside pyplot.

    Args:
        rows: number of rows.
        columns: number of columns.
        width: width of a panel in inches.
        height: height of a panel in inches.
        settings: further arguments of `Figure.subplots`, such as sharex.
    """
    with style():
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        return figure.subplots(rows, columns, squeeze=False, **settings)


def draw_box(axes: Axes, x: float, y: float, lines: Sequence[str]) -> None:
    """Draw a box of a diagram with lines of text, centred at x, y."""
    box = {"boxstyle": "round,pad=0.4", "facecolor": "#e8f0f8", "edgecolor": "0.4"}
    axes.text(x, y, "\n".join(lines), ha="center", va="center", fontsize=9, bbox=box)


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow of a diagram between two boxes, given by their centres."""
    arrow = {"arrowstyle": "->", "shrinkA": 38, "shrinkB": 38}
    axes.annotate("", end, start, arrowprops=arrow)


def label_log_axis(axis: Axis, formatter: Formatter | str = "{x:g}") -> None:
    """Label a logarithmic axis at 1, 2 and 5 of every decade, with plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(formatter)
    axis.set_minor_formatter(NullFormatter())


def legend_above(axes: Axes) -> None:
    """Put the legend of `axes` above its figure, in one row."""
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))


def caption(figure: Figure, text: str) -> Figure:
    """Put a caption of 9 points below a figure, wrapped at its width."""
    characters = int(figure.get_figwidth() / 0.075)
    figure.supxlabel(textwrap.fill(text, characters), fontsize=9, color="0.4")
    return figure


def save(
    figure: Figure,
    name: str,
    tables: Sequence[pd.DataFrame],
    *,
    kind: str = "svg",
    width: float = 1.0,
) -> None:
    """Save a figure as `figures/NAME.svg` for the report, where `make notebooks` runs a notebook.

    Anywhere else it does nothing, so that no reader changes the report's figures. The file names
    the tables that it shows, with their checksums.

    Args:
        figure: the figure; it is saved at the size of the report, and keeps its own.
        name: its name.
        tables: recorded tables whose numbers it shows, as a study returns them; none for pictures
            of the data.
        kind: "svg" for charts, "png" for photographs and feature maps.
        width: share of the report's text width.

    Raises:
        ConfigError: a table is not one of `report/results/`.
    """
    if not os.environ.get(SAVE_VARIABLE):
        return
    names = [table.attrs.get("file") for table in tables]
    if None in names:
        raise ConfigError(
            f"{name}: found a table that is not recorded; pass study.results, study.history or "
            "study.table(...) as they are"
        )
    size = figure.get_size_inches()
    scaled = size * width * TEXT_WIDTH / size[0]
    if kind == "svg":  # a wide one flatter, but with room for text, which keeps its size
        scaled[1] = max(scaled[1] * (FLATTENED if width == 1 else 1), LEAST_HEIGHT)
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    metadata["Description"] = " ".join([MARK, *map(_mark, names)])
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "savefig.transparent": kind == "svg"}):
        figure.set_size_inches(scaled)
        figure.savefig(content, format=kind, dpi=200, metadata=metadata)
        figure.set_size_inches(size)
    paths.FIGURES.mkdir(exist_ok=True)
    write(paths.FIGURES / f"{name}.{kind}", content.getvalue())


def _mark(table: str) -> str:
    file = paths.RESULTS / table
    return f"{table}:{sha256(file)[:16] if file.exists() else 'missing'}"


def stale_tables(file: Path) -> list[str]:
    """Return the names of the recorded tables that have changed since a figure was saved."""
    marked = re.search(rb"%s((?: [\w.]+:[0-9a-f]{16})*)" % MARK.encode(), file.read_bytes())
    if not marked:
        return ["no table, since it was not saved by a notebook"]
    names = {mark: mark.split(":")[0] for mark in marked[1].decode().split()}
    return [name for mark, name in names.items() if mark != _mark(name)]


def plot_curves(
    history: pd.DataFrame,
    metrics: Mapping[str, str],
    colors: Mapping[str, str],
    *,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Plot learning curves, a panel a metric and a line a run.

    Args:
        history: a row a run (`name`) and `epoch`.
        metrics: column of `history` -> label of its axis.
        colors: name of a run -> colour.
        labels: name of a run -> text of the legend, by default the name.
    """
    grid = new_axes(1, len(metrics), width=3.6, height=3)
    marker = "o" if history["epoch"].max() < 5 else None
    for axes, (column, label) in zip(grid.flat, metrics.items(), strict=True):
        for name, color in colors.items():
            run = history[history["name"] == name]
            text = (labels or {}).get(name, name)
            axes.plot(run["epoch"], run[column], color=color, marker=marker, label=text)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_above(axes)
    return axes.figure


def plot_intervals(
    tables: Mapping[str, pd.DataFrame], *, reference: float = 0.0, reference_name: str = ""
) -> Figure:
    """Plot horizontal intervals, a panel a table, with a dashed line to compare them with.

    Args:
        tables: label of the x axis -> low, mean and high by name (the index).
        reference: where the dashed line is.
        reference_name: its text in the legend.
    """
    rows = max(len(table) for table in tables.values())
    grid = new_axes(1, len(tables), width=10 / len(tables), height=0.35 * rows + 0.8)
    for axes, (label, table) in zip(grid.flat, tables.items(), strict=True):
        errors = [table["mean"] - table["low"], table["high"] - table["mean"]]
        axes.errorbar(table["mean"], table.index, xerr=errors, fmt="o", capsize=3)
        axes.axvline(reference, color="0.4", linestyle="--", label=reference_name)
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.label_outer()
    if reference_name:
        grid[0, 0].legend()
    return grid[0, 0].figure


def plot_published(table: pd.DataFrame, labels: Mapping[str, str], by: str) -> Figure:
    """Plot our metrics over the published ones, a panel a metric and a point a run.

    Args:
        table: table of `stats.beside_published`.
        labels: metric -> label.
        by: column of `table` whose values the points' colours show.
    """
    grid = new_axes(1, len(labels), width=5.2, height=4.4)
    for axes, (metric, label) in zip(grid.flat, labels.items(), strict=True):
        values = table[[f"published_{metric}", metric]]
        ends = [values.min(axis=None), values.max(axis=None)]
        axes.plot(ends, ends, color="0.6", linestyle="--", label="equal")
        for name, rows in table.groupby(by):
            axes.plot(rows[f"published_{metric}"], rows[metric], "o", label=name)
        axes.set(xlabel=f"published {label} (A)", ylabel=f"our {label} (B)")
    grid[0, 0].legend(title=by)
    return grid[0, 0].figure
