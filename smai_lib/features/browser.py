"""A browser of feature maps for a live notebook: choose an image, a block and a channel."""

from collections.abc import Sequence

import ipywidgets
import torch
from matplotlib.figure import Figure

from ..core.plotting import new_axes
from ..multitask.model import MultiTaskCNN
from .maps import FeatureError, check_images, maps


def view(model: MultiTaskCNN, image: torch.Tensor, layer: str, channel: int) -> Figure:
    """One raw image beside one map of it; the colour scale spans the layer's whole answer, so that channels compare.

    Raises:
        FeatureError: an image of the wrong size or type, or a layer or channel that does not exist.
    """
    (image,) = check_images(image)
    values = maps(model, image, [layer])[layer][0]
    if not 0 <= channel < len(values):
        raise FeatureError(
            f"channel: found {channel}, expected 0 to {len(values) - 1}, the channels of {layer}"
        )
    left, right = new_axes(1, 2, width=2.6, height=2.6)[0]
    left.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=255)
    drawn = right.imshow(
        values[channel].numpy(), cmap="magma", vmin=0, vmax=max(values.max().item(), 1e-6)
    )
    right.set_title(f"{layer}, channel {channel}", fontsize=9)
    for axes in (left, right):
        axes.axis("off")
    right.figure.colorbar(drawn, ax=right, shrink=0.8)
    return right.figure


def browse(
    model: MultiTaskCNN, images: torch.Tensor, titles: Sequence[str]
) -> ipywidgets.interactive:
    """Three controls, the first of its `children`, and the `view` that they redraw, its `result`.

    Args:
        images: (N, 1, 28, 28) uint8, any images: a test set, or one's own; titles: N names.

    Raises: FeatureError, as `check_images`; ValueError for no image, or not a title for each.
    """
    images = check_images(images)
    if not len(images) == len(titles) > 0:
        raise ValueError(
            f"titles: found {len(titles)} for {len(images)} images, expected one for each"
        )
    widths = {block: values.shape[1] for block, values in maps(model, images[:1]).items()}
    image = ipywidgets.Dropdown(
        options=[(f"{number}: {title}", number) for number, title in enumerate(titles)]
    )
    block = ipywidgets.Dropdown(options=list(widths))
    channel = ipywidgets.BoundedIntText(max=widths[block.value] - 1)
    # a channel past the end of another block becomes its last
    block.observe(lambda change: channel.set_trait("max", widths[change.new] - 1), "value")
    return ipywidgets.interactive(
        lambda image, block, channel: view(model, images[image], block, channel),
        {"auto_display": True},
        image=image,
        block=block,
        channel=channel,
    )
