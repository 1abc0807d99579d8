"""The colorization networks: grey images (B, 1, H, W) in [0, 1] -> logits of a colour per pixel."""

from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..core.layers import PatchDeconv2d, conv_block, deconv_block, unit


class ColorOutput(NamedTuple):
    """Output in training with an auxiliary class head."""

    logits: torch.Tensor  # (B, NC, H, W), colours
    class_logits: torch.Tensor  # (B, classes)


class ColorizationCNN(nn.Module):
    """The reference report's encoder-decoder.

    Args:
        in_channels: NIC, number of input channels; 1 for grey images.
        num_filters: NF, channels after the first block.
        num_colors: NC, number of colours.
        kernel_size: k of the encoder's convolutions, odd, so that padding k // 2 keeps the size.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_filters: int = 32,
        num_colors: int = 24,
        kernel_size: int = 3,
    ):
        super().__init__()
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
        """Return logits (B, NC, H, W) float32 of images (B, NIC, H, W); 8 divides H and W."""
        features = self.decoder(self.encoder(images))
        with torch.autocast(images.device.type, enabled=False):
            return self.classifier(features.float())


class ColorizationUNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) with a path at full resolution.

    That path keeps every pixel's own luminance, which an encoder-decoder loses. Skips are added,
    not concatenated, which halves the decoder's work. Two more input channels give a pixel's row
    and its distance from the vertical axis, which an image shares with its mirror image.

    Args:
        num_filters: NF, channels at full resolution; the pooled levels have 3, 6 and 8 NF.
        num_colors: NC, number of colours.
        kernel_size: k of all convolutions, odd.
        dropout_rate: dropout of whole channels, on the pooled levels and in the decoder.
        num_classes: classes of an auxiliary head on the averages of the deepest maps; 0: no head.
    """

    widths = (1, 3, 6, 8)

    def __init__(
        self,
        *,
        num_filters: int = 16,
        num_colors: int = 24,
        kernel_size: int = 3,
        dropout_rate: float = 0.0,
        num_classes: int = 0,
    ):
        super().__init__()
        widths = [num_filters * width for width in self.widths]
        self.encoder = nn.ModuleList(
            nn.Sequential(unit(c_in, c_out, kernel_size), unit(c_out, c_out, kernel_size))
            for c_in, c_out in pairwise([3, *widths])
        )
        self.up = nn.ModuleList(
            nn.Sequential(PatchDeconv2d(c_in, c_out, 2, bias=False), nn.BatchNorm2d(c_out))
            for c_in, c_out in pairwise(reversed(widths))
        )
        self.decoder = nn.ModuleList(
            unit(width, width, kernel_size) for width in reversed(widths[:-1])
        )
        self.dropout = nn.Dropout2d(dropout_rate)
        self.classifier = nn.Conv2d(widths[0], num_colors, kernel_size=1)
        # created last, so that all other initial weights are those of a network without it
        self.class_head = nn.Linear(widths[-1], num_classes) if num_classes else None

    def forward(self, images: torch.Tensor) -> torch.Tensor | ColorOutput:
        """Return logits (B, NC, H, W) float32 of images (B, 1, H, W); 8 divides H and W.

        In training mode with a class head, return a `ColorOutput`.
        """
        features = torch.cat([images - 0.5, *_positions(images)], 1)  # (B, 3, H, W)
        features = self.encoder[0](features.contiguous(memory_format=torch.channels_last))
        skips = []
        for block in self.encoder[1:]:  # 32 -> 16 -> 8 -> 4
            skips.append(features)
            features = self.dropout(block(F.max_pool2d(features, 2)))
        deepest = features
        for up, block in zip(self.up, self.decoder, strict=True):  # 4 -> 8 -> 16 -> 32
            features = self.dropout(block(F.relu(up(features) + skips.pop())))
        with torch.autocast(images.device.type, enabled=False):
            logits = self.classifier(features.float())
            if self.class_head is None or not self.training:
                return logits
            return ColorOutput(logits, self.class_head(deepest.float().mean((2, 3))))


class Colorizer(nn.Module):
    """A colorization network with the palette and the prior that its weights belong to.

    Args:
        network: grey images -> logits.
        palette: (NC, 3) RGB, 0 to 255.
        prior: log-probabilities of the colours by grey level. They are added to the logits, so that
            the network learns only what a pixel's own luminance does not tell.
    """

    def __init__(self, network: nn.Module, palette: torch.Tensor, prior: nn.Module | None = None):
        super().__init__()
        self.network = network
        self.register_buffer("palette", palette)
        self.prior = prior

    def forward(self, images: torch.Tensor) -> torch.Tensor | ColorOutput:
        """Return logits (B, NC, H, W) float32 of images (B, 1, H, W), prior included."""
        output = self.network(images)
        if self.prior is None:
            return output
        if isinstance(output, ColorOutput):
            return output._replace(logits=output.logits + self.prior(images))
        return output + self.prior(images)


def _positions(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return row (-1 to 1) and distance from the vertical axis (0 to 1), (B, 1, H, W) each."""
    b, _, h, w = images.shape
    row = torch.linspace(-1, 1, h, device=images.device).view(1, 1, h, 1)
    column = torch.linspace(-1, 1, w, device=images.device).abs()
    return row.expand(b, 1, h, w), column.expand(b, 1, h, w)
