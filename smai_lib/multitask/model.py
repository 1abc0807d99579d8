"""The multi-task network: (B, 1, 28, 28) float images in [0, 1] -> class and ink."""

from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

from ..core.layers import conv_block, unit
from .fashion_mnist import CLASSES, PIXEL_DEVIATION, PIXEL_MEAN


class MultiTaskOutput(NamedTuple):
    """logits (B, 10) and ink (B,), float32; log_variances (2,) where a model learns its loss weights."""

    logits: torch.Tensor
    ink: torch.Tensor
    log_variances: torch.Tensor | None = None


class Standardize(nn.Module):
    """Pixels in [0, 1] -> in deviations from the mean of Fashion-MNIST's: any shape."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - PIXEL_MEAN) / PIXEL_DEVIATION


class ResidualPair(nn.Module):
    """ReLU(skip(x) + two convolutions 3 x 3 of x) (He et al. 2016): (B, c_in, H, W) -> (B, c_out, H, W).

    The skip is the identity, or a convolution 1 x 1 where the widths differ.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.pair = nn.Sequential(unit(c_in, c_out, 3), *unit(c_out, c_out, 3)[:2])
        self.skip = nn.Identity() if c_in == c_out else nn.Sequential(*unit(c_in, c_out, 1)[:2])
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.skip(x) + self.pair(x))


def residual_block(
    c_in: int, c_out: int, pairs: int, *, first: bool, ceil_mode: bool = False
) -> nn.Sequential:
    """One convolution if `first`, else an average pool 2 x 2; then so many residual pairs.

    Averages of all pixels, where He et al. skip three in four: a shift by one pixel changes less (Zhang 2019).
    """
    start = unit(c_in, c_out, 3) if first else nn.AvgPool2d(2, ceil_mode=ceil_mode)
    widths = [c_out if first else c_in] + [c_out] * pairs
    return nn.Sequential(
        OrderedDict(
            start=start,
            **{f"pair{n}": ResidualPair(*ends) for n, ends in enumerate(pairwise(widths), start=1)},
        )
    )


class MultiTaskCNN(nn.Module):
    """A shared backbone of blocks with a head for the class and a head for the ink.

    Args:
        ink_scale: mean and standard deviation of ink; the ink head then predicts deviations from
            the mean in units of the second. The output is ink in any case.
        learn_weights: hold a log variance for either loss, at first -0.5 as in LibMTL.
        num_layers, ...: the keys of `MultiTaskConfig`, which says what each means.

    Raises:
        ValueError: the pools leave no pixel.
    """

    image_size = 28

    def __init__(
        self,
        *,
        num_layers: int,
        base_filters: int,
        dropout_rate: float,
        ink_scale: tuple[float, float] | None = None,
        learn_weights: bool = False,
        hidden: int = 128,
        ceil_mode: bool = False,
        backbone: str = "plain",
        pairs: int = 1,
        pooling: str = "flatten",
        block_dropout: float = 0.0,
        ink_hidden: int = 0,
        ink_dropout: float = 0.0,
        normalize: bool = False,
    ):
        super().__init__()
        halves = 2 ** (num_layers - (backbone == "residual"))
        side = -(-self.image_size // halves) if ceil_mode else self.image_size // halves
        if not side:
            raise ValueError(
                f"num_layers: found {num_layers}, whose pools leave no pixel of {self.image_size}"
            )
        widths = [1] + [base_filters * 2**block for block in range(num_layers)]
        blocks = [
            conv_block(*ends, ceil_mode=ceil_mode)
            if backbone == "plain"
            else residual_block(*ends, pairs, first=not n, ceil_mode=ceil_mode)
            for n, ends in enumerate(pairwise(widths))
        ]
        if (
            normalize
        ):  # within the block, so that whoever calls the backbone gives it the same images
            blocks[0] = nn.Sequential(
                OrderedDict(standardize=Standardize(), **dict(blocks[0].named_children()))
            )
        if block_dropout:
            for block in blocks:
                block.add_module("dropout", nn.Dropout(block_dropout))
        self.backbone = nn.Sequential(
            OrderedDict((f"block{n}", block) for n, block in enumerate(blocks, start=1))
        )
        self.averages = pooling == "average"
        features = widths[-1] * (1 if self.averages else side**2)
        self.classifier = nn.Sequential(
            nn.Linear(features, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout_rate),
            nn.Linear(hidden, len(CLASSES)),
        )
        ink_hidden = ink_hidden or hidden
        self.regressor = nn.Sequential(
            nn.Linear(features, ink_hidden),
            nn.ReLU(inplace=True),
            *([nn.Dropout(ink_dropout)] if ink_dropout else []),
            nn.Linear(ink_hidden, 1),
        )
        self.register_buffer("ink_scale", None if ink_scale is None else torch.tensor(ink_scale))
        self.log_variances = nn.Parameter(torch.full((2,), -0.5)) if learn_weights else None

    def forward(self, images: torch.Tensor) -> MultiTaskOutput:
        """images (B, 1, 28, 28) -> logits (B, 10), ink (B,)."""
        return self.heads(self.backbone(images))

    def heads(self, maps: torch.Tensor) -> MultiTaskOutput:
        """The backbone's maps (B, C, H, W) -> logits (B, 10), ink (B,)."""
        # bfloat16 has 8 bits of mantissa, too few for a regression to three decimals
        with torch.autocast(maps.device.type, enabled=False):
            # (B, 4F, 3, 3) -> (B, 36F) for three blocks, or (B, 4F)
            features = maps.float().mean((2, 3)) if self.averages else maps.flatten(1).float()
            ink = self.regressor(features).squeeze(1)
            if self.ink_scale is not None:
                ink = self.ink_scale[0] + self.ink_scale[1] * ink
            return MultiTaskOutput(self.classifier(features), ink, self.log_variances)
