"""The colorization networks: (B, C, H, W) float images in [0, 1] -> logits of a colour for every pixel."""

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ..core.layers import PatchDeconv2d, conv_block, deconv_block, unit


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

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_filters: int = 32,
        num_colors: int = 24,
        kernel_size: int = 3,
    ):
        super().__init__()
        if min(in_channels, num_filters, num_colors, kernel_size) < 1:
            raise ValueError(
                "in_channels, num_filters, num_colors and kernel_size must be at least 1"
            )
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size: found {kernel_size}, expected an odd number; an even one "
                "makes every map a pixel larger before it is pooled"
            )
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


class ColorizationUNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) that never leaves full resolution: a class for every pixel.

    The full-resolution path keeps each pixel's own luminance, which an encoder-decoder loses; the pooled levels add
    what the pixel is part of. Skips are added, not concatenated, which halves the decoder's work. Two more channels
    tell where a pixel is: its row, and its distance from the vertical axis, which a mirrored image shares. The last
    layer starts at zero, so that above a prior the untrained network predicts the prior.

    Args:
        num_filters: NF, channels at full resolution; the pooled levels have 3, 6 and 8 NF.
        num_colors: NC.
        kernel_size: k, odd.
        dropout_rate: of whole channels, on the pooled levels and in the decoder.

    Raises:
        ValueError: a size below 1 or an even kernel.
    """

    widths = (1, 3, 6, 8)
    memory_format = torch.channels_last  # faster on a CPU

    def __init__(
        self,
        *,
        num_filters: int = 16,
        num_colors: int = 24,
        kernel_size: int = 3,
        dropout_rate: float = 0.1,
    ):
        super().__init__()
        if min(num_filters, num_colors, kernel_size) < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"num_filters, num_colors, kernel_size: found {num_filters}, "
                f"{num_colors}, {kernel_size}, expected at least 1 and an odd kernel"
            )
        widths = [num_filters * width for width in self.widths]
        self.encoder = nn.ModuleList(
            nn.Sequential(unit(c_in, c_out, kernel_size), unit(c_out, c_out, kernel_size))
            for c_in, c_out in pairwise([3, *widths])
        )
        self.up = nn.ModuleList(
            nn.Sequential(
                PatchDeconv2d(c_in, c_out, 2, stride=2, bias=False), nn.BatchNorm2d(c_out)
            )
            for c_in, c_out in pairwise(reversed(widths))
        )
        self.decoder = nn.ModuleList(unit(width, width, kernel_size) for width in widths[-2::-1])
        self.dropout = nn.Dropout2d(dropout_rate)
        self.classifier = nn.Conv2d(widths[0], num_colors, kernel_size=1)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images (B, 1, H, W), H and W multiples of 8 -> logits (B, NC, H, W) float32."""
        b, _, h, w = images.shape
        row = torch.linspace(-1, 1, h, device=images.device).view(1, 1, h, 1).expand(b, 1, h, w)
        column = torch.linspace(-1, 1, w, device=images.device).abs().expand(b, 1, h, w)
        features = torch.cat([images - 0.5, row, column], 1)  # (B, 3, H, W)
        features = self.encoder[0](features.contiguous(memory_format=self.memory_format))
        skips = []
        for block in self.encoder[1:]:  # 32 -> 16 -> 8 -> 4
            skips.append(features)
            features = self.dropout(block(F.max_pool2d(features, 2)))
        for up, block in zip(self.up, self.decoder, strict=True):  # 4 -> 8 -> 16 -> 32
            features = self.dropout(block(F.relu(up(features) + skips.pop())))
        with torch.autocast(images.device.type, enabled=False):
            return self.classifier(features.float())


class Colorizer(nn.Module):
    """A colorization network with what its weights mean nothing without: the palette and the prior.

    Args:
        network: grey images -> logits.
        palette: (NC, 3) uint8.
        prior: its log-probabilities are added to the logits, so that the network learns only what
            a pixel's own luminance does not tell. The network's last layer is then set to zero.
    """

    def __init__(self, network: nn.Module, palette: torch.Tensor, prior: nn.Module | None = None):
        super().__init__()
        self.network = network
        self.register_buffer("palette", palette)
        self.prior = prior
        if prior is not None:
            nn.init.zeros_(network.classifier.weight)
            nn.init.zeros_(network.classifier.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images (B, 1, H, W) -> logits (B, NC, H, W) float32."""
        logits = self.network(images)
        return logits if self.prior is None else logits + self.prior(images)
