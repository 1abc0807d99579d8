"""A browser of feature maps for a live notebook: choose an image, a block and a channel."""

import io
from collections.abc import Sequence

import ipywidgets
import torch
from matplotlib.figure import Figure

from ..multitask.model import MultiTaskCNN
from . import figures
from .maps import FeatureError, block_names, check_images, maps


def view(model: MultiTaskCNN, image: torch.Tensor, layer: str, channel: int) -> Figure:
    """One raw image beside one map of it.

    The colour scale spans the layer's whole answer to the image, so that channels can be compared.

    Raises:
        FeatureError: an image of the wrong size or type, or a layer or channel that does not exist.
    """
    (image,) = check_images(image)
    values = maps(model, image, [layer])[layer]
    if not 0 <= channel < values.shape[1]:
        raise FeatureError(f"channel: found {channel}, expected 0 to {values.shape[1] - 1}, the channels of {layer}")
    return figures.view(image, values[0, channel], f"{layer}, channel {channel}", values.max().item())


class Browser:
    """Three controls and the picture that they redraw; show `browser.widget`.

    Args:
        model: a trained network.
        images: (N, 1, 28, 28) uint8, any images: a test set, or one's own.
        titles: N names.

    Raises:
        FeatureError: images of the wrong size or type.
        ValueError: no image, or not a title for each.
    """

    def __init__(self, model: MultiTaskCNN, images: torch.Tensor, titles: Sequence[str]):
        self.model, self.images = model, check_images(images)
        if not len(self.images) == len(titles) > 0:
            raise ValueError(f"titles: found {len(titles)} for {len(self.images)} images, expected one for each")
        self.widths = {block: len(getattr(model.backbone, block).norm.weight) for block in block_names(model)}
        names = [(f"{number}: {title}", number) for number, title in enumerate(titles)]
        self.image = ipywidgets.Dropdown(options=names, description="image")
        self.block = ipywidgets.Dropdown(options=list(self.widths), description="block")
        self.channel = ipywidgets.BoundedIntText(0, min=0, description="channel")
        self.picture = ipywidgets.Image(format="png")
        self.block.observe(self._new_block, "value")
        for control in (self.image, self.block, self.channel):
            control.observe(self._redraw, "value")
        self._new_block()
        self._redraw()
        self.widget = ipywidgets.VBox([ipywidgets.HBox([self.image, self.block, self.channel]), self.picture])

    def figure(self) -> Figure:
        """What the controls ask for."""
        return view(self.model, self.images[self.image.value], self.block.value, self.channel.value)

    def _new_block(self, _=None) -> None:
        self.channel.max = self.widths[self.block.value] - 1  # a channel past the end becomes the last

    def _redraw(self, _=None) -> None:
        file = io.BytesIO()
        self.figure().savefig(file, format="png")
        self.picture.value = file.getvalue()
