"""The networks. Every model maps (B, C, H, W) float images in [0, 1] to the tensors its task needs."""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn


class MultiTaskOutput(NamedTuple):
    """logits (B, 10) float32 and ink (B,) float32."""

    logits: torch.Tensor
    ink: torch.Tensor


def conv_block(c_in: int, c_out: int, kernel_size: int = 3) -> nn.Sequential:
    """Conv k x k - BatchNorm - ReLU - MaxPool 2x2: (B, c_in, H, W) -> (B, c_out, H // 2, W // 2)."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2),
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


def deconv_block(c_in: int, c_out: int) -> nn.Sequential:
    """ConvTranspose 2x2, stride 2 - BatchNorm - ReLU: (B, c_in, H, W) -> (B, c_out, 2H, 2W)."""
    return nn.Sequential(
        OrderedDict(
            deconv=nn.ConvTranspose2d(c_in, c_out, kernel_size=2, stride=2),
            norm=nn.BatchNorm2d(c_out),
            relu=nn.ReLU(inplace=True),
        )
    )


class ColorizationCNN(nn.Module):
    """The reference report's encoder-decoder, layer for layer: a colour class for every pixel.

    Args:
        in_channels: NIC, 1 for grey images.
        num_filters: NF, channels after the first block.
        num_colors: NC, colours to choose from.
        kernel_size: k of the encoder's convolutions, odd, so that padding k // 2 keeps the size.

    Raises:
        ValueError: a size below 1 or an even kernel.
    """

    def __init__(self, *, in_channels: int = 1, num_filters: int = 32, num_colors: int = 24,
                 kernel_size: int = 3):
        super().__init__()
        if min(in_channels, num_filters, num_colors, kernel_size) < 1:
            raise ValueError("in_channels, num_filters, num_colors and kernel_size must be at least 1")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: found {kernel_size}, expected an odd number; an even one "
                             "makes every map a pixel larger before it is pooled")
        nf = num_filters
        self.encoder = nn.Sequential(
            OrderedDict(
                block1=conv_block(in_channels, nf, kernel_size),  # 32 -> 16
                block2=conv_block(nf, 2 * nf, kernel_size),  # 16 -> 8
                block3=conv_block(2 * nf, 4 * nf, kernel_size),  # 8 -> 4
            )
        )
        self.decoder = nn.Sequential(
            OrderedDict(
                block1=deconv_block(4 * nf, 2 * nf),  # 4 -> 8
                block2=deconv_block(2 * nf, nf),  # 8 -> 16
                block3=deconv_block(nf, num_colors),  # 16 -> 32
            )
        )
        self.classifier = nn.Conv2d(num_colors, num_colors, kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images (B, NIC, H, W), H and W multiples of 8 -> logits (B, NC, H, W) float32."""
        features = self.decoder(self.encoder(images))
        with torch.autocast(images.device.type, enabled=False):
            return self.classifier(features.float())


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters, biases and BatchNorm included."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
