"""The multi-task network: (B, 1, 28, 28) images in [0, 1] -> class logits and ink."""

import math
from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from ..core.layers import conv_block, unit
from .data import CLASSES, PIXEL_DEVIATION, PIXEL_MEAN

if TYPE_CHECKING:
    from .config import MultiTaskConfig

IMAGE_SIZE = 28  # pixels


class MultiTaskOutput(NamedTuple):
    """Predictions for a batch, in float32."""

    logits: torch.Tensor  # (B, 10)
    ink: torch.Tensor  # (B,)
    log_variances: torch.Tensor | None = None  # (2,) if the loss weights are learned


class Standardize(nn.Module):
    """Standardization of pixels by the mean and standard deviation of Fashion-MNIST."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the standardized pixels, in the shape of `images`."""
        return (images - PIXEL_MEAN) / PIXEL_DEVIATION


class ResidualPair(nn.Module):
    """Two 3 x 3 convolutions with a skip connection (He et al. 2016).

    The skip connection is a 1 x 1 convolution where the numbers of channels differ.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.pair = nn.Sequential(unit(c_in, c_out, 3), *unit(c_out, c_out, 3)[:2])
        self.skip = nn.Identity() if c_in == c_out else nn.Sequential(*unit(c_in, c_out, 1)[:2])
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return relu(skip + convolutions): (B, c_in, H, W) -> (B, c_out, H, W)."""
        return self.relu(self.skip(maps) + self.pair(maps))


def residual_block(
    c_in: int, c_out: int, pairs: int, *, first: bool, ceil_mode: bool = False
) -> nn.Sequential:
    """Return a block of residual pairs, after a convolution (`first`) or a 2 x 2 average pool.

    He et al. halve the maps with strided convolutions, which skip three pixels in four. Averaging
    changes less when the image shifts by one pixel (Zhang 2019).
    """
    start = unit(c_in, c_out, 3) if first else nn.AvgPool2d(2, ceil_mode=ceil_mode)
    block = nn.Sequential(OrderedDict(start=start))
    widths = [c_out if first else c_in] + [c_out] * pairs
    for number, (narrow, wide) in enumerate(pairwise(widths), start=1):
        block.add_module(f"pair{number}", ResidualPair(narrow, wide))
    return block


def build_block(config: "MultiTaskConfig", c_in: int, c_out: int, *, first: bool) -> nn.Sequential:
    """Return one block of the backbone that `config` describes."""
    if config.backbone == "plain":
        block = conv_block(c_in, c_out, ceil_mode=config.ceil_mode)
    else:
        block = residual_block(c_in, c_out, config.pairs, first=first, ceil_mode=config.ceil_mode)
    if config.normalize and first:
        # inside the block, so that the backbone alone takes the same images as the network
        layers = OrderedDict(block.named_children())
        block = nn.Sequential(OrderedDict(standardize=Standardize()) | layers)
    if config.block_dropout:
        block.add_module("dropout", nn.Dropout(config.block_dropout))
    return block


class MultiTaskCNN(nn.Module):
    """A shared backbone of blocks, with a head for the class and a head for the ink.

    Args:
        config: the architecture.
        ink_scale: mean and standard deviation of the training images' ink, for z-scored ink.
    """

    def __init__(self, config: "MultiTaskConfig", ink_scale: tuple[float, float] = (0.0, 1.0)):
        super().__init__()
        widths = [1] + [config.base_filters * 2**block for block in range(config.num_layers)]
        self.backbone = nn.Sequential()
        for number, (c_in, c_out) in enumerate(pairwise(widths), start=1):
            block = build_block(config, c_in, c_out, first=number == 1)
            self.backbone.add_module(f"block{number}", block)
        self.average_maps = config.pooling == "average"
        features = widths[-1] * (1 if self.average_maps else _side_of_last_maps(config) ** 2)
        self.classifier = nn.Sequential(
            nn.Linear(features, config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout_rate),
            nn.Linear(config.hidden, len(CLASSES)),
        )
        ink_hidden = config.ink_hidden or config.hidden
        dropout = [nn.Dropout(config.ink_dropout)] if config.ink_dropout else []
        self.regressor = nn.Sequential(
            nn.Linear(features, ink_hidden),
            nn.ReLU(inplace=True),
            *dropout,
            nn.Linear(ink_hidden, 1),
        )
        scaled = config.ink_scaling == "z_score"
        self.register_buffer("ink_scale", torch.tensor(ink_scale) if scaled else None)
        learned = config.weighting == "uncertainty"
        # -0.5 is the start value of LibMTL
        self.log_variances = nn.Parameter(torch.full((2,), -0.5)) if learned else None

    def forward(self, images: torch.Tensor, return_maps: bool = False):
        """Return the predictions, and on request the feature maps of every block.

        Args:
            images: (B, 1, 28, 28) float32 in [0, 1].
            return_maps: return a pair: the predictions, and a list of (B, C, H, W) maps.
        """
        maps = []
        hidden = images
        for block in self.backbone:
            hidden = block(hidden)
            if return_maps:
                maps.append(hidden)
        output = self.heads(hidden)
        return (output, maps) if return_maps else output

    def heads(self, maps: torch.Tensor) -> MultiTaskOutput:
        """Return the predictions from the last block's maps (B, C, H, W)."""
        # bfloat16 has 8 bits of mantissa, too few for a regression to three decimals
        with torch.autocast(maps.device.type, enabled=False):
            features = maps.float().mean((2, 3)) if self.average_maps else maps.flatten(1).float()
            ink = self.regressor(features).squeeze(1)
            if self.ink_scale is not None:
                ink = self.ink_scale[0] + self.ink_scale[1] * ink
            return MultiTaskOutput(self.classifier(features), ink, self.log_variances)


def _side_of_last_maps(config: "MultiTaskConfig") -> int:
    """Return height and width of the last block's maps; each pool halves them."""
    pools = config.num_layers if config.backbone == "plain" else config.num_layers - 1
    side = IMAGE_SIZE / 2**pools
    return math.ceil(side) if config.ceil_mode else math.floor(side)
