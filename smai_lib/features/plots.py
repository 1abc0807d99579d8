"""Figures of the feature-map notebook: arrays in, Figure out. One panel is 28 x 28 pixels."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core.plotting import new_axes

SIDE = 28
GAP = 2  # pixels between panels
CLIP = 0.998  # share of values that the colour scale spans; a few peaks would darken all else


def panel(values: np.ndarray) -> np.ndarray:
    """A map (h, w), h and w at most 28, enlarged by whole pixels and centred on 28 x 28, NaN around it."""
    factor = SIDE // max(values.shape)
    large = np.kron(values, np.ones((factor, factor)))
    return np.pad(
        large,
        [((SIDE - side) // 2, (SIDE - side + 1) // 2) for side in large.shape],
        constant_values=np.nan,
    )


def mosaic(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Rows of maps as one picture, NaN between them; every row has as many."""
    panels = [
        [np.pad(panel(values), (0, GAP), constant_values=np.nan) for values in row] for row in rows
    ]
    return np.block(panels)[:-GAP, :-GAP]


def beside(
    images: torch.Tensor,
    titles: Sequence[str],
    maps: Mapping[str, torch.Tensor],
    channels: Mapping[str, Sequence[int]],
) -> Figure:
    """A row an image: the input, then chosen channels of every block, all in one colour scale.

    Args:
        images: (N, 1, 28, 28) uint8.
        titles: N names of the rows.
        maps: block -> (N, C, H, W), never negative.
        channels: block -> the channels to show, in this order.
    """
    shown = {block: maps[block][:, list(chosen)].numpy() for block, chosen in channels.items()}
    top = _top(shown.values())
    widths = [
        (SIDE + GAP) * count - GAP for count in (1, *map(len, channels.values()))
    ]  # one size of pixel
    figure = Figure(
        figsize=(sum(widths) / 60 + 2, len(images) / 2 + 0.6), dpi=80, layout="constrained"
    )
    axes = figure.subplots(1, len(widths), width_ratios=widths)
    axes[0].imshow(
        mosaic(images[:, 0].numpy()[:, None]),
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="nearest",
    )
    axes[0].set_title("input", fontsize=8)
    axes[0].set_yticks(_centres(len(images)), titles, fontsize=7)
    for place, (block, values) in zip(axes[1:], shown.items(), strict=True):
        drawn = _maps(place, mosaic(list(values)), top)
        place.set_title(f"{block}, channel", fontsize=8)
        place.set_xticks(_centres(values.shape[1]), channels[block], fontsize=7)
        place.set_yticks([])
    axes[0].set_xticks([])
    for place in axes:
        place.tick_params(length=0)
        place.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes, shrink=0.6, extend="max")
    return figure


def exciting(images: Mapping[str, torch.Tensor], titles: Mapping[str, Sequence[str]]) -> Figure:
    """A block of nine images, 3 x 3, for each named channel, with what they are underneath.

    Args:
        images: name -> (9, 1, 28, 28) uint8, most exciting first; titles: name -> the labels of the nine.
    """
    grid = new_axes(1, len(images), width=1.7, height=2.3)[0]
    for axes, (name, nine) in zip(grid, images.items(), strict=True):
        pictures = nine[:, 0].numpy()
        axes.imshow(
            mosaic([pictures[row : row + 3] for row in range(0, len(pictures), 3)]),
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest",
        )
        counts = pd.Series(titles[name]).value_counts()
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(
            "\n".join(f"{count} {label}" for label, count in counts.items()), fontsize=8
        )
        axes.set(xticks=[], yticks=[])
    return grid[0].figure


def side_by_side(
    image: torch.Tensor, maps: Mapping[str, torch.Tensor], channels: Sequence[int]
) -> Figure:
    """One image, (1, 28, 28) uint8, and its maps in one block of several networks, a row each, in one colour scale.

    Args:
        maps: name of a network -> (C, H, W). Channels correspond only where training began at the same weights.
        channels: those to show, in this order in every row.
    """
    shown = {name: values[list(channels)].numpy() for name, values in maps.items()}
    top = _top(shown.values())
    grid = new_axes(len(maps), 1, width=0.45 * (len(channels) + 1) + 1, height=0.5)[:, 0]
    for axes, (name, values) in zip(grid, shown.items(), strict=True):
        drawn = _maps(axes, mosaic([[image[0].numpy() / 255 * top, *values]]), top)
        axes.set_yticks([SIDE / 2], [name], fontsize=8)
        axes.set_xticks([])
    axes.set_xticks(_centres(len(channels) + 1), ["input", *channels], fontsize=7)
    grid[0].figure.colorbar(drawn, ax=list(grid), shrink=0.8, extend="max")
    return grid[0].figure


def _top(maps: Iterable[np.ndarray]) -> float:
    """Where the colour scale of all these maps ends; above 0, also if they are silent."""
    return max(float(np.quantile(np.concatenate([values.ravel() for values in maps]), CLIP)), 1e-6)


def _maps(axes: Axes, picture: np.ndarray, top: float):
    return axes.imshow(picture, cmap="magma", vmin=0, vmax=top, interpolation="nearest")


def _centres(count: int) -> list[float]:
    return [(SIDE + GAP) * place + SIDE / 2 for place in range(count)]
