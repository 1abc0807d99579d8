"""A browser of feature maps for a live notebook: choose an image, a block and a channel."""

from collections.abc import Sequence

import ipywidgets
import torch
from matplotlib.figure import Figure

from ..core.errors import ConfigError
from ..core.plots import new_axes
from ..multitask.model import MultiTaskCNN
from .maps import check_images, maps


def view(model: MultiTaskCNN, image: torch.Tensor, layer: str, channel: int) -> Figure:
    """Return a figure of a raw image beside one map of it.

    The colour scale spans all maps of the layer, so that channels can be compared.

    Raises:
        ConfigError: the image is unusable, or the layer or channel does not exist.
    """
    (image,) = check_images(image)
    values = maps(model, image, [layer])[layer][0]
    if not 0 <= channel < len(values):
        raise ConfigError(
            f"channel: found {channel}, expected 0 to {len(values) - 1}, the channels of {layer}"
        )
    left, right = new_axes(1, 2, width=3.2, height=3.2)[0]
    left.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=255)
    left.set_title("input", fontsize=10)
    highest = max(values.max().item(), 1e-6)
    shown = right.imshow(values[channel].numpy(), cmap="magma", vmin=0, vmax=highest)
    right.set_title(f"{layer}, channel {channel}", fontsize=10)
    for axes in (left, right):
        axes.axis("off")
    right.figure.colorbar(shown, ax=right, shrink=0.8)
    return right.figure


def browse(
    model: MultiTaskCNN, images: torch.Tensor, titles: Sequence[str]
) -> ipywidgets.interactive:
    """Return a widget with controls for image, block and channel, which redraw `view`.

    Args:
        model: the network.
        images: raw images, (N, 1, 28, 28) uint8.
        titles: their N names.

    Raises:
        ConfigError: an image is unusable, there is none, or there is not one title for each.
    """
    images = check_images(images)
    if not len(images) == len(titles) > 0:
        raise ConfigError(
            f"titles: found {len(titles)} for {len(images)} images, expected one for each"
        )
    channels = {block: values.shape[1] for block, values in maps(model, images[:1]).items()}
    names = [(f"{number}: {title}", number) for number, title in enumerate(titles)]
    image = ipywidgets.Dropdown(options=names)
    block = ipywidgets.Dropdown(options=list(channels))
    channel = ipywidgets.BoundedIntText(max=channels[block.value] - 1)

    def limit_channel(change):
        channel.max = channels[change.new] - 1  # a larger value becomes the last channel

    def draw(image, block, channel):
        return view(model, images[image], block, channel)

    block.observe(limit_channel, "value")
    options = {"auto_display": True}
    return ipywidgets.interactive(draw, options, image=image, block=block, channel=channel)
