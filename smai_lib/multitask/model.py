"""The multi-task network: (B, 1, 28, 28) float images in [0, 1] -> class and ink."""

from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

from ..core.layers import conv_block


class MultiTaskOutput(NamedTuple):
    """logits (B, 10) and ink (B,), float32; log_variances (2,) where a model learns its loss weights."""

    logits: torch.Tensor
    ink: torch.Tensor
    log_variances: torch.Tensor | None = None


class MultiTaskCNN(nn.Module):
    """A shared backbone of conv blocks with a head for the class and a head for the ink.

    Args:
        num_layers: blocks in the backbone, 2 or 3.
        base_filters: channels after the first block; each further block doubles them.
        dropout_rate: before the class head's last layer. The ink head has none: ink is a
            deterministic function of the image, and noise could only blur it.
        ink_scale: mean and standard deviation of ink; the ink head then predicts deviations from
            the mean in units of the second. The output is ink in any case.
        learn_weights: hold a log variance for either loss, at first -0.5 as in LibMTL.
        hidden: units of the hidden layer of either head.
        ceil_mode: pools keep the border: 28 -> 14 -> 7 -> 4 instead of 3.
    """

    image_size = 28

    def __init__(self, *, num_layers: int, base_filters: int, dropout_rate: float, num_classes: int = 10,
                 ink_scale: tuple[float, float] | None = None, learn_weights: bool = False,
                 hidden: int = 128, ceil_mode: bool = False):
        super().__init__()
        widths = [1] + [base_filters * 2**block for block in range(num_layers)]
        self.backbone = nn.Sequential(OrderedDict(
            (f"block{n}", conv_block(c_in, c_out, ceil_mode=ceil_mode))
            for n, (c_in, c_out) in enumerate(pairwise(widths), start=1)))
        halves = 2**num_layers
        side = -(-self.image_size // halves) if ceil_mode else self.image_size // halves
        features = widths[-1] * side**2
        self.classifier = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout_rate),
                                        nn.Linear(hidden, num_classes))
        self.regressor = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 1))
        self.register_buffer("ink_scale", None if ink_scale is None else torch.tensor(ink_scale))
        self.log_variances = nn.Parameter(torch.full((2,), -0.5)) if learn_weights else None

    def forward(self, images: torch.Tensor) -> MultiTaskOutput:
        """images (B, 1, 28, 28) -> logits (B, 10), ink (B,)."""
        return self.heads(self.backbone(images).flatten(1))  # (B, 4F, 3, 3) -> (B, 36F) for three blocks

    def heads(self, features: torch.Tensor) -> MultiTaskOutput:
        """The backbone's maps, flattened to (B, F) -> logits (B, 10), ink (B,)."""
        # bfloat16 has 8 bits of mantissa, too few for a regression to three decimals
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            ink = self.regressor(features).squeeze(1)
            if self.ink_scale is not None:
                ink = self.ink_scale[0] + self.ink_scale[1] * ink
            return MultiTaskOutput(self.classifier(features), ink, self.log_variances)
