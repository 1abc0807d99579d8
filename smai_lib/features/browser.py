"""A browser of feature maps for a live notebook: choose an image, a block and a channel."""

from collections.abc import Sequence

import ipywidgets
import torch
from matplotlib.figure import Figure

from ..core.plots import new_axes
from ..core.widgets import Explorer, explore
from ..multitask.model import MultiTaskCNN
from .maps import maps
from .plots import show, show_image


def browse(model: MultiTaskCNN, images: torch.Tensor, titles: Sequence[str]) -> Explorer:
    """Return a widget that shows a chosen image beside one of its maps.

    Args:
        model: the network.
        images: raw images, (N, 1, 28, 28) uint8.
        titles: their N names.

    Raises:
        ConfigError: an image is unusable.
        ValueError: there is not one title for each image.
    """
    maps_of_block = maps(model, images)
    numbers = range(len(images))
    names = [(f"{number}: {title}", number) for number, title in zip(numbers, titles, strict=True)]
    blocks = ipywidgets.Dropdown(options=list(maps_of_block))
    channels = ipywidgets.BoundedIntText()

    def limit_channel(change=None):
        channels.max = maps_of_block[blocks.value].shape[1] - 1  # a larger value becomes this one

    def draw(image: int, block: str, channel: int) -> Figure:
        figure = plot_map(images[image], maps_of_block[block][image], channel)
        figure.axes[1].set_title(f"{block}, channel {channel}")
        return figure

    limit_channel()
    blocks.observe(limit_channel, "value")
    return explore(draw, image=names, block=blocks, channel=channels)


def plot_map(image: torch.Tensor, maps: torch.Tensor, channel: int) -> Figure:
    """Return an image beside one of its maps, on the colour scale of all maps of the block.

    Args:
        image: (1, 28, 28).
        maps: (C, H, W).
        channel: number of the map.
    """
    left, right = new_axes(1, 2, width=3.2, height=3.2)[0]
    show_image(left, image)
    left.set_title("input")
    shown = show(right, maps[channel], maps.max())
    right.figure.colorbar(shown, ax=right, shrink=0.8)
    return right.figure
