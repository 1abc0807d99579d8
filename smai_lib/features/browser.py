"""A browser of feature maps for a live notebook: choose an image, a block and a channel."""

from collections.abc import Sequence

import ipywidgets
import torch
from matplotlib.figure import Figure

from ..core.plots import new_axes
from ..multitask.model import MultiTaskCNN
from .maps import maps
from .plots import show, show_image


def browse(
    model: MultiTaskCNN, images: torch.Tensor, titles: Sequence[str]
) -> ipywidgets.interactive:
    """Return a widget that shows a chosen image beside one of its maps.

    The colour scale spans all maps of the image in the block, so channels can be compared.

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
    block = ipywidgets.Dropdown(options=list(maps_of_block))
    channel = ipywidgets.BoundedIntText()

    def limit_channel(change=None):
        channel.max = maps_of_block[block.value].shape[1] - 1  # a larger value becomes this one

    def draw(image: int, block: str, channel: int) -> Figure:
        values = maps_of_block[block][image]
        left, right = new_axes(1, 2, width=3.2, height=3.2)[0]
        show_image(left, images[image])
        left.set_title("input")
        shown = show(right, values[channel], values.max())
        right.set_title(f"{block}, channel {channel}")
        right.figure.colorbar(shown, ax=right, shrink=0.8)
        return right.figure

    limit_channel()
    block.observe(limit_channel, "value")
    options = {"auto_display": True}
    return ipywidgets.interactive(draw, options, image=names, block=block, channel=channel)
