"""Figures of the multi-task runs, drawn from tables and tensors."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from ..core import plots
from .data import CLASSES
from .model import IMAGE_SIZE, MultiTaskCNN


def plot_images(images: Sequence[torch.Tensor], titles: Sequence[str]) -> Figure:
    """Plot raw images, each (1, H, W) uint8, five a row, with titles."""
    grid = plots.new_axes(math.ceil(len(images) / 5), 5, width=1.3, height=1.7)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, images, titles, strict=False):
        axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=9)
    return grid[0, 0].figure


def plot_first_maps(blocks: Sequence[torch.Tensor]) -> Figure:
    """Plot the first eight feature maps of one image, a row a block.

    Args:
        blocks: maps of every block, (1, C, H, W).
    """
    grid = plots.new_axes(len(blocks), width=8, height=1.4)
    for number, (axes, maps) in enumerate(zip(grid.flat, blocks, strict=True), start=1):
        row = torch.cat(list(maps[0, :8]), dim=1)  # side by side
        axes.imshow(row.numpy(), cmap="magma")
        axes.set(title=f"block {number}", xticks=[], yticks=[])
    return grid[0, 0].figure


def plot_confusion(counts: Sequence[Sequence[int]]) -> Figure:
    """Plot confusion counts: row true class, column predicted class, colour number of images."""
    axes = plots.new_axes(width=6.6, height=5.4)[0, 0]
    display = ConfusionMatrixDisplay(np.asarray(counts), display_labels=CLASSES)
    display.plot(ax=axes, cmap="Blues", colorbar=False, xticks_rotation=90, text_kw={"fontsize": 9})
    axes.set(xlabel="predicted class", ylabel="true class")
    return axes.figure


def format_ratio(ratio: float) -> str:
    """Return a ratio lambda2 / lambda1 as text: the two ends in words."""
    return {0.0: "class only", math.inf: "ink only"}.get(ratio, f"{ratio:g}")


def plot_by_ratio(intervals: Mapping[str, pd.DataFrame], label: str, axes: Axes) -> None:
    """Plot means with 95 % intervals against lambda2 / lambda1, one line a series.

    Args:
        intervals: series -> table of `stats.mean_intervals`, a row a ratio.
        label: label of the y axis.
        axes: where to plot.
    """
    for number, (name, rows) in enumerate(intervals.items()):
        places = np.arange(len(rows)) + 0.12 * number  # beside each other: bars do not overlap
        errors = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
        axes.errorbar(places, rows["mean"], errors, fmt="o-", markersize=3, capsize=2, label=name)
    axes.set_xticks(range(len(rows)), map(format_ratio, rows.index), rotation=20)
    axes.set(xlabel="λ₂ / λ₁", ylabel=label)
    axes.legend()


def plot_placement(band: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """Plot a run within the spread of recorded runs, a panel a metric; red points lie outside.

    Args:
        band: table of `placement.place`.
        labels: metric -> label of its axis.
    """
    grid = plots.new_axes(1, len(labels), width=2.8, height=2.6)
    for axes, (metric, label) in zip(grid.flat, labels.items(), strict=True):
        rows = band[band["metric"] == metric]
        epoch = rows["epoch"]
        axes.fill_between(epoch, rows["low"], rows["high"], alpha=0.2, label="95 % of runs")
        axes.plot(epoch, rows["mean"], linewidth=1, label="mean of recorded runs")
        axes.plot(epoch, rows["value"], color="0.2", linewidth=1, label="this run")
        colors = np.where(rows["outside"], "C3", "0.2")
        axes.scatter(epoch, rows["value"], s=14, zorder=3, c=colors)
        axes.set(xlabel="epoch", ylabel=label)
        if "accuracy" not in metric:
            axes.set_yscale("log")
            plots.label_log_axis(axes.yaxis)
    plots.legend_above(axes)
    return axes.figure


def plot_ablation(table: pd.DataFrame) -> Figure:
    """Plot what a recipe loses without an ingredient, with 95 % intervals, a panel a metric.

    Args:
        table: table of `recipe.ablation`.
    """
    labels = {
        "accuracy": "test accuracy: loss without it",
        "rmse": "test ink RMSE: loss without it",
    }
    losses = {}
    for metric, label in labels.items():
        columns = {f"{metric}_loss": "mean", f"{metric}_low": "low", f"{metric}_high": "high"}
        losses[label] = table.set_index("run").rename(columns=columns)[list(columns.values())]
    return plots.plot_intervals(losses)


def plot_ladder(table: pd.DataFrame, published: float) -> Figure:
    """Plot the test accuracy of every configuration of the ladder, from top to bottom.

    Args:
        table: table of `recipe.rungs`; bars span the standard deviation over seeds.
        published: the published test accuracy of the first configuration, a dashed line.
    """
    mean, sd = table["test_accuracy"], table["test_accuracy sd"]
    bars = pd.DataFrame({"low": mean - sd, "mean": mean, "high": mean + sd})
    bars.index = table["rung"]
    name = "config 1, published (A)"
    figure = plots.plot_intervals({"test accuracy": bars}, reference=published, reference_name=name)
    figure.axes[0].plot(mean, table["rung"], color="C0", linewidth=1, alpha=0.5)
    return figure


def plot_published(table: pd.DataFrame) -> Figure:
    """Plot our test accuracy over the published one, a point a configuration with its number.

    Args:
        table: table of `studies.comparison`.
    """
    table = table.assign(blocks=table["num_layers"]).sort_values("test_accuracy")
    figure = plots.plot_published(table, {"test_accuracy": "test accuracy"}, by="blocks")
    numbers = table["run"].str.extract(r"(\d+)", expand=False)
    points = zip(numbers, table["published_test_accuracy"], table["test_accuracy"], strict=True)
    for place, (number, x, y) in enumerate(points):
        offset = (0, 5) if place % 2 else (0, -12)  # neighbours on two sides of their points
        figure.axes[0].annotate(
            number, (x, y), offset, textcoords="offset points", ha="center", fontsize=9
        )
    return figure


def plot_small_multiples(history: pd.DataFrame, metric: str, label: str) -> Figure:
    """Plot a metric over the epochs, a panel a run, with all other runs in grey behind it.

    Args:
        history: a row a run and epoch.
        metric: column of `history`.
        label: what the metric is.
    """
    names = history["name"].unique()
    runs = history.pivot(index="epoch", columns="name", values=metric)
    columns = 6
    grid = plots.new_axes(
        math.ceil(len(names) / columns), columns, width=1.8, height=2.2, sharex=True, sharey=True
    )
    for axes, name in zip(grid.flat, names, strict=False):
        axes.plot(runs, color="0.85", linewidth=1)
        axes.plot(runs[name], color="C0", linewidth=2)
        axes.set_title(name.replace(", ", ",\n"), fontsize=10)
    for axes in grid.flat[len(names) :]:
        axes.remove()
    figure = grid[0, 0].figure
    figure.supxlabel("epoch")
    figure.supylabel(label)
    return figure


def plot_loss_curves(
    history: pd.DataFrame, losses: Mapping[str, str], names: Sequence[str]
) -> Figure:
    """Plot losses over the epochs, a panel a loss: training dashed, validation solid.

    Args:
        history: a row a run and epoch.
        losses: column without its prefix `train_` or `val_` -> label.
        names: names of the runs to plot.
    """
    grid = plots.new_axes(1, len(losses), width=11 / len(losses), height=3.8)
    for axes, (column, label) in zip(grid.flat, losses.items(), strict=True):
        for number, name in enumerate(names):
            run = history[history["name"] == name]
            color = f"C{number}"
            axes.plot("epoch", f"train_{column}", "--", data=run, color=color, label="_")
            axes.plot("epoch", f"val_{column}", data=run, color=color, label=name)
        axes.set(xlabel="epoch", ylabel=label, yscale="log")
        plots.label_log_axis(axes.yaxis)
    axes.plot([], "--", color="0.4", label="training")
    axes.plot([], color="0.4", label="validation")
    plots.legend_above(axes)
    return axes.figure


def plot_ink(predicted: torch.Tensor, true: torch.Tensor, labels: torch.Tensor) -> Figure:
    """Plot predicted over true ink, and the errors of every class as box plots.

    Args:
        predicted: (N,) ink.
        true: (N,) ink.
        labels: (N,) classes.
    """
    left, right = plots.new_axes(1, 2, width=5.5, height=4)[0]
    left.plot(true, predicted, ".", markersize=2)
    left.plot([0, true.max()], [0, true.max()], color="0.4", linestyle="--", label="exact")
    left.set(xlabel="true ink", ylabel="predicted ink")
    left.legend()
    errors = predicted - true
    right.boxplot([errors[labels == label].numpy() for label in range(10)], showfliers=False)
    right.axhline(0, color="0.4", linestyle="--")
    right.set_xticks(range(1, 11), CLASSES, rotation=30, ha="right")
    right.set(ylabel="predicted minus true ink")
    return left.figure


def plot_network(model: MultiTaskCNN) -> Figure:
    """Draw the layers of a multi-task network as boxes, each with the shape of its output."""
    image = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        _, maps = model.eval()(image, return_maps=True)
    boxes = [["image"]]
    for number, block in enumerate(model.backbone, start=1):
        boxes.append([f"block {number}", *_layer_names(block)])
    for box, output in zip(boxes, [image, *maps], strict=True):
        box.append(" × ".join(map(str, output.shape[1:])))
    pooling = ["average", "of each map"] if model.average_maps else ["flatten"]
    boxes.append([*pooling, str(model.classifier[0].in_features)])
    axes = plots.new_axes(width=8, height=3.5)[0, 0]
    for place, lines in enumerate(boxes):
        plots.draw_box(axes, place, 0, lines)
    end = len(boxes)
    for place in range(1, end):
        plots.draw_arrow(axes, (place - 1, 0), (place, 0))
    heads = {"class head": (model.classifier, 0.57), "ink head": (model.regressor, -0.57)}
    for name, (head, height) in heads.items():
        plots.draw_box(axes, end, height, [name, *_layer_names(head)])
        plots.draw_arrow(axes, (end - 1, 0), (end, height))
    axes.set(xlim=(-0.5, end + 0.5), ylim=(-1.08, 1.08))
    axes.axis("off")
    return axes.figure


def _layer_names(block: torch.nn.Sequential) -> list[str]:
    """Return the names of a block's layers, with the size of linear layers."""
    names = []
    for layer in block:
        if isinstance(layer, torch.nn.Sequential):
            names += _layer_names(layer)
        elif isinstance(layer, torch.nn.Linear):
            names.append(f"Linear {layer.out_features}")
        else:
            names.append(type(layer).__name__.removesuffix("2d"))
    return names
