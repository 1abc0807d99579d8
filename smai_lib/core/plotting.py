"""Every figure: arrays in, Axes out. Nothing here trains, reads data or calls `show`."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import paths

# the reference report's colours: blue equal, red lambda1 > lambda2, green lambda2 > lambda1
LAMBDA_COLORS = {"lambda1 = lambda2": "tab:blue", "lambda1 > lambda2": "tab:red",
                 "lambda2 > lambda1": "tab:green"}  # fmt: skip


def new_axes(rows: int = 1, columns: int = 1, *, width: float = 5.0, height: float = 3.2) -> np.ndarray:
    """(rows, columns) Axes of a figure that pyplot does not keep alive."""
    figure = Figure(figsize=(width * columns, height * rows), dpi=80, layout="constrained")
    return figure.subplots(rows, columns, squeeze=False)


def caption(figure: Figure, text: str) -> Figure:
    """Put small text below the picture, in as many lines as its width needs."""
    characters = int(figure.get_figwidth() / 0.055)  # at 7 points
    figure.supxlabel(textwrap.fill(text, characters), fontsize=7, color="0.4")
    return figure


def save_figure(figure: Figure, name: str) -> Path:
    """Write `figures/NAME.png` and return its path."""
    paths.FIGURES.mkdir(exist_ok=True)
    file = paths.FIGURES / f"{name}.png"
    figure.savefig(file, dpi=150, metadata={"Software": None})
    return file


def lambda_group(lambda1: float, lambda2: float) -> str:
    """Which of the reference report's three groups a pair of weights belongs to."""
    if lambda1 == lambda2:
        return "lambda1 = lambda2"
    return "lambda1 > lambda2" if lambda1 > lambda2 else "lambda2 > lambda1"


def images(pixels: torch.Tensor, titles: Sequence[str], *, columns: int = 10) -> np.ndarray:
    """A grid of grey images, (N, 1, H, W), each under its title."""
    rows = -(-len(pixels) // columns)
    grid = new_axes(rows, columns, width=1.0, height=1.35)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, pixels, titles, strict=False):
        axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=255 if image.dtype == torch.uint8 else 1)
        axes.set_title(title, fontsize=7)
    return grid


def ink_by_class(ink: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]) -> Axes:
    """Box plot of ink within each class."""
    axes = new_axes(width=7)[0, 0]
    axes.boxplot([ink[labels == label].numpy() for label in range(len(classes))],
                 showfliers=False)  # fmt: skip
    axes.set_xticks(range(1, len(classes) + 1), classes, rotation=30, ha="right")
    axes.set_ylabel("ink (mean intensity)")
    return axes


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
                      label=(labels or {}).get(name, name))  # fmt: skip
        axes.set(xlabel="epoch", ylabel=label, xlim=(0.5, history["epoch"].max() + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in grid.flat[len(metrics):]:
        axes.axis("off")
    grid.flat[0].legend(fontsize=6)
    return grid


def intervals(names: Sequence[str], low: Sequence[float], middle: Sequence[float], high: Sequence[float],
              label: str, *, reference: dict[str, float] | None = None,
              colors: Sequence[str] | None = None) -> Axes:
    """Horizontal intervals, one a name, with dashed lines at named reference values."""
    axes = new_axes(width=7, height=0.32 * len(names) + 0.9)[0, 0]
    for row, (a, b, c) in enumerate(zip(low, middle, high, strict=True)):
        color = colors[row] if colors is not None else "tab:blue"
        axes.plot([a, c], [row, row], color=color)
        axes.plot(b, row, "o", color=color)
    for number, (name, value) in enumerate((reference or {}).items()):
        axes.axvline(value, color="0.4", linestyle=["--", ":", "-."][number % 3], label=name)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    if reference:
        axes.legend(fontsize=7)
    return axes


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Axes:
    """Confusion matrix, row true and column predicted, coloured by share of the true class."""
    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes = new_axes(width=6, height=5.2)[0, 0]
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(column, row, count, ha="center", va="center", fontsize=7,
                      color="white" if share[row, column] > 0.5 else "black")  # fmt: skip
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    return axes


@torch.inference_mode()
def feature_maps(model: torch.nn.Module, image: torch.Tensor, *, channels: int = 8) -> Figure:
    """The input, (1, 1, 28, 28) uint8, beside the first channels of every block, one scale a block."""
    model.eval()
    maps, hidden = [], image.float() / 255
    for block in model.backbone:
        hidden = block(hidden)
        maps.append(hidden[0, :channels].float())
    grid = new_axes(len(maps), channels + 1, width=1.0, height=1.05)
    for axes in grid.flat:
        axes.axis("off")
    for row, (axes, block) in enumerate(zip(grid, maps, strict=True), start=1):
        axes[0].imshow(image[0, 0].numpy(), cmap="gray")
        axes[0].set_title("input", fontsize=7)
        for channel, (panel, values) in enumerate(zip(axes[1:], block, strict=False)):
            panel.imshow(values.numpy(), cmap="magma", vmin=0, vmax=max(block.max().item(), 1e-6))
            panel.set_title(f"block {row}, {channel}", fontsize=6)
    return grid.flat[0].figure
