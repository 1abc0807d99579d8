"""The networks. Every model maps (B, C, H, W) float images in [0, 1] to the tensors its task needs."""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn


class MultiTaskOutput(NamedTuple):
    """logits (B, 10) float32 and ink (B,) float32."""

    logits: torch.Tensor
    ink: torch.Tensor


def conv_block(c_in: int, c_out: int) -> nn.Sequential:
    """Conv 3x3 - BatchNorm - ReLU - MaxPool 2x2: (B, c_in, H, W) -> (B, c_out, H // 2, W // 2)."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(c_in, c_out, kernel_size=3, padding=1),
            norm=nn.BatchNorm2d(c_out),
            # max(relu(x)) = relu(max(x)): pooling first gives the same values, and ReLU a quarter
            # of the work
            pool=nn.MaxPool2d(2),
            relu=nn.ReLU(inplace=True),
        )
    )


class MultiTaskCNN(nn.Module):
    """A shared backbone of conv blocks with a head for the class and a head for the ink.

    Args:
        num_layers: blocks in the backbone, 2 or 3.
        base_filters: channels after the first block; each further block doubles them.
        dropout_rate: before the class head's last layer. The ink head has none: ink is a
            deterministic function of the image, and noise could only blur it.
    """

    image_size = 28
    hidden = 128

    def __init__(self, *, num_layers: int, base_filters: int, dropout_rate: float, num_classes: int = 10):
        super().__init__()
        widths = [1] + [base_filters * 2**block for block in range(num_layers)]
        self.backbone = nn.Sequential(
            OrderedDict(
                (f"block{n}", conv_block(c_in, c_out))
                for n, (c_in, c_out) in enumerate(zip(widths, widths[1:], strict=False), start=1)
            )
        )
        features = widths[-1] * (self.image_size // 2**num_layers) ** 2
        self.classifier = nn.Sequential(
            nn.Linear(features, self.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout_rate),
            nn.Linear(self.hidden, num_classes),
        )
        self.regressor = nn.Sequential(
            nn.Linear(features, self.hidden), nn.ReLU(inplace=True), nn.Linear(self.hidden, 1)
        )

    def forward(self, images: torch.Tensor) -> MultiTaskOutput:
        """images (B, 1, 28, 28) -> logits (B, 10), ink (B,)."""
        features = self.backbone(images).flatten(1)  # (B, 4F, 3, 3) -> (B, 36F) for three blocks
        # bfloat16 has 8 bits of mantissa, too few for a regression to three decimals
        with torch.autocast(images.device.type, enabled=False):
            features = features.float()
            return MultiTaskOutput(self.classifier(features), self.regressor(features).squeeze(1))


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters, biases and BatchNorm included."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
