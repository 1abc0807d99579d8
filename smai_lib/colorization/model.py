"""The networks. Every model maps (B, C, H, W) float images in [0, 1] to the tensors its task needs."""

from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class MultiTaskOutput(NamedTuple):
    """logits (B, 10) and ink (B,), float32; log_variances (2,) where a model learns its loss weights."""

    logits: torch.Tensor
    ink: torch.Tensor
    log_variances: torch.Tensor | None = None


def conv_block(c_in: int, c_out: int, kernel_size: int = 3, ceil_mode: bool = False) -> nn.Sequential:
    """Conv k x k - BatchNorm - ReLU - MaxPool 2x2: (B, c_in, H, W) -> (B, c_out, H // 2, W // 2).

    With `ceil_mode` half of an odd size is rounded up, so that the last row and column count.
    """
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2),
            norm=nn.BatchNorm2d(c_out),
            # max(relu(x)) = relu(max(x)): pooling first gives the same values, and ReLU a quarter
            # of the work
            pool=nn.MaxPool2d(2, ceil_mode=ceil_mode),
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
        self.backbone = nn.Sequential(
            OrderedDict(
                (f"block{n}", conv_block(c_in, c_out, ceil_mode=ceil_mode))
                for n, (c_in, c_out) in enumerate(pairwise(widths), start=1)
            )
        )
        halves = 2**num_layers
        side = -(-self.image_size // halves) if ceil_mode else self.image_size // halves
        features = widths[-1] * side**2
        self.classifier = nn.Sequential(
            nn.Linear(features, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout_rate),
            nn.Linear(hidden, num_classes),
        )
        self.regressor = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 1)
        )
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


class ColorizationUNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) that never leaves full resolution: a class for every pixel.

    The full-resolution path keeps each pixel's own luminance, which an encoder-decoder loses; the
    pooled levels add what the pixel is part of. Skips are added, not concatenated, which halves the
    decoder's work. Two more channels tell where a pixel is: its row, and its distance from the
    vertical axis, which a mirrored image shares. The last layer starts at zero, so that above a
    prior the untrained network predicts the prior.

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

    def __init__(self, *, num_filters: int = 16, num_colors: int = 24, kernel_size: int = 3,
                 dropout_rate: float = 0.1):
        super().__init__()
        if min(num_filters, num_colors, kernel_size) < 1 or kernel_size % 2 == 0:
            raise ValueError(f"num_filters, num_colors, kernel_size: found {num_filters}, "
                             f"{num_colors}, {kernel_size}, expected at least 1 and an odd kernel")
        widths = [num_filters * width for width in self.widths]
        self.encoder = nn.ModuleList(
            nn.Sequential(_unit(c_in, c_out, kernel_size), _unit(c_out, c_out, kernel_size))
            for c_in, c_out in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(c_in, c_out, 2, stride=2, bias=False),
                          nn.BatchNorm2d(c_out))
            for c_in, c_out in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.decoder = nn.ModuleList(_unit(width, width, kernel_size) for width in widths[-2::-1])
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


def _unit(c_in: int, c_out: int, kernel_size: int) -> nn.Sequential:
    """Conv k x k - BatchNorm - ReLU: (B, c_in, H, W) -> (B, c_out, H, W)."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
    )


class GreyTable(nn.Module):
    """Log-probabilities of the colours by grey level, and by row where the table has rows.

    Args:
        log_probs: (R, 256, NC) float32; R is 1, or the height of the images.
    """

    def __init__(self, log_probs: torch.Tensor):
        super().__init__()
        self.register_buffer("log_probs", log_probs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images (B, 1, H, W) of whole grey levels over 255 -> log-probabilities (B, NC, H, W).

        Raises:
            ValueError: a table with rows meets images of another height.
        """
        rows, height = len(self.log_probs), images.shape[2]
        if rows not in (1, height):
            raise ValueError(f"the table has {rows} rows, expected {height}, the images' height")
        level = images[:, 0].mul(255).round().long()
        row = torch.arange(rows, device=images.device).view(1, rows, 1)
        return self.log_probs[row, level].permute(0, 3, 1, 2)  # channels last as it is


class Colorizer(nn.Module):
    """A colorization network with what its weights mean nothing without: the palette and the prior.

    Args:
        network: grey images -> logits.
        palette: (NC, 3) uint8.
        prior: its log-probabilities are added to the logits, so that the network learns only what
            a pixel's own luminance does not tell. The network's last layer is then set to zero.
    """

    def __init__(self, network: nn.Module, palette: torch.Tensor, prior: GreyTable | None = None):
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


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters, biases and BatchNorm included."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
