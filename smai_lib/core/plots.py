"""What figures share: style, captions, learning curves, and saving with a digest of their data.

A figure under `figures/` holds the SHA-256 of the tables that it shows. A test compares them with
the recorded tables, so a figure that is out of date is found.
"""

import hashlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from . import paths
from .files import write

# seaborn's "colorblind" palette, which readers with fewer colours can tell apart
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
    "font.size": 10,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
}
LINE_STYLES = ("--", ":", "-.")
DIGEST = re.compile(rb"smai-tables:([0-9a-f]{64})")


def use_style() -> None:
    """Reset matplotlib to its defaults and the style of this project; notebooks call it once.

    A reader's matplotlibrc would otherwise leak in, for example `image.origin: lower`.
    """
    backend = matplotlib.get_backend()
    matplotlib.rcdefaults()
    matplotlib.use(backend)
    matplotlib.rcParams.update(STYLE)


def style():
    """Return a context in which matplotlib has its defaults and the style of this project."""
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    return matplotlib.rc_context(defaults | STYLE)


def new_axes(
    rows: int = 1, columns: int = 1, *, width: float = 5.0, height: float = 3.2
) -> np.ndarray:
    """Return (rows, columns) Axes of `width` x `height` inches, of a figure outside pyplot."""
    with style():
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        return figure.subplots(rows, columns, squeeze=False)


def caption(figure: Figure, text: str) -> Figure:
    """Put a caption of 9 points below a figure, wrapped at its width."""
    characters = int(figure.get_figwidth() / 0.075)
    figure.supxlabel(textwrap.fill(text, characters), fontsize=9, color="0.4")
    return figure


def digest_of_tables(tables: Sequence[pd.DataFrame]) -> str:
    """Return the SHA-256 of the content of tables."""
    digest = hashlib.sha256()
    for table in tables:
        digest.update(table.to_csv(index=False).encode())
    return digest.hexdigest()


def save(figure: Figure, name: str, tables: Sequence[pd.DataFrame], *, kind: str = "svg") -> Path:
    """Save a figure as `figures/NAME.svg`, with the digest of the tables that it shows.

    The file depends on figure and tables only, so saving it again changes nothing.

    Args:
        figure: the figure.
        name: its name.
        tables: recorded tables whose numbers it shows; none for pictures of the data.
        kind: "svg" for charts, "png" for photographs and feature maps.
    """
    paths.FIGURES.mkdir(exist_ok=True)
    file = paths.FIGURES / f"{name}.{kind}"
    part = file.with_name(f".{name}.{kind}")
    mark = f"smai-tables:{digest_of_tables(tables)}"
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        if kind == "svg":
            figure.savefig(part, metadata={"Date": None, "Description": mark})
        else:
            metadata = {"Software": None, "Description": mark}
            figure.savefig(part, dpi=200, metadata=metadata)
    content = part.read_bytes()
    part.unlink()
    if not file.exists() or file.read_bytes() != content:
        write(file, content)
    return file


def saved_digest(file: Path) -> str:
    """Return the digest of the tables that a saved figure shows, or "" if it has none."""
    if file.suffix == ".png":
        with Image.open(file) as image:
            content = image.info.get("Description", "").encode()
    else:
        content = file.read_bytes()
    match = DIGEST.search(content)
    return match[1].decode() if match else ""


def curves(
    history: pd.DataFrame,
    metrics: Mapping[str, str],
    colors: Mapping[str, str],
    *,
    labels: Mapping[str, str] | None = None,
    columns: int = 3,
) -> np.ndarray:
    """Plot learning curves, a panel a metric and a line a run.

    Args:
        history: a row a run (`name`) and `epoch`.
        metrics: column of `history` -> label of its axis.
        colors: name of a run -> colour.
        labels: name of a run -> text of the legend, by default the name.
        columns: number of panels in a row.
    """
    labels = labels or {}
    grid = new_axes(-(-len(metrics) // columns), columns, width=3.8, height=3)
    marker = "o" if history["epoch"].max() < 5 else None
    for axes, (column, label) in zip(grid.flat, metrics.items(), strict=False):
        for name, color in colors.items():
            run = history[history["name"] == name]
            text = labels.get(name, name)
            axes.plot(run["epoch"], run[column], color=color, marker=marker, label=text)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in grid.flat[len(metrics) :]:
        axes.axis("off")
    grid.flat[0].legend()
    return grid


def intervals(
    table: pd.DataFrame, label: str, *, reference: Mapping[str, float] | None = None
) -> Axes:
    """Plot horizontal intervals, one a row of a table.

    Args:
        table: low, mean and high by name (the index).
        label: label of the x axis.
        reference: name -> value of a vertical line.
    """
    axes = new_axes(width=8, height=0.35 * len(table) + 1.2)[0, 0]
    places = range(len(table))
    errors = [table["mean"] - table["low"], table["high"] - table["mean"]]
    axes.errorbar(table["mean"], places, xerr=errors, fmt="o", capsize=3)
    for number, (name, value) in enumerate((reference or {}).items()):
        line = LINE_STYLES[number % len(LINE_STYLES)]
        axes.axvline(value, color="0.4", linestyle=line, label=name)
    axes.set_yticks(places, table.index)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    if reference:
        axes.legend()
    return axes
