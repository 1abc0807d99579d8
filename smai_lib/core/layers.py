"""Blocks that networks are made of, and how many parameters that is."""

from collections import OrderedDict
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def conv_block(
    c_in: int, c_out: int, kernel_size: int = 3, ceil_mode: bool = False
) -> nn.Sequential:
    """Conv k x k - BatchNorm - ReLU - MaxPool 2x2: (B, c_in, H, W) -> (B, c_out, H // 2, W // 2).

    With `ceil_mode` half of an odd size is rounded up, so that the last row and column count.
    """
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2),
            norm=nn.BatchNorm2d(c_out),
            # max(relu(x)) = relu(max(x)): pooling first gives the same values, and ReLU a quarter of the work
            pool=nn.MaxPool2d(2, ceil_mode=ceil_mode),
            relu=nn.ReLU(inplace=True),
        )
    )


class PatchDeconv2d(nn.ConvTranspose2d):
    """A transposed convolution whose stride is its kernel size: its patches do not overlap.

    So it is one matrix product, with torch's weights and results; on a CPU, channels last, the backward
    runs several times faster than torch's. `as_product = False` brings torch's own back.
    """

    as_product = True

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, O, s H, s W) for a stride of s."""
        if not self.as_product:
            return super().forward(images)
        b, c, h, w = images.shape
        o, s = self.out_channels, self.stride[0]
        weight = self.weight.permute(2, 3, 1, 0).reshape(s * s * o, c)
        bias = None if self.bias is None else self.bias.repeat(s * s)
        patches = F.linear(images.permute(0, 2, 3, 1), weight, bias)  # (B, H, W, s s O)
        patches = patches.view(b, h, w, s, s, o).transpose(2, 3)  # (B, H, s, W, s, O)
        return patches.reshape(b, s * h, s * w, o).permute(0, 3, 1, 2)


def textbook(model: Network) -> Network:
    """`model`, changed in place to convolve with torch's own operations only."""
    for module in model.modules():
        if isinstance(module, PatchDeconv2d):
            module.as_product = False
    return model


def deconv_block(c_in: int, c_out: int) -> nn.Sequential:
    """ConvTranspose 2x2, stride 2 - BatchNorm - ReLU: (B, c_in, H, W) -> (B, c_out, 2H, 2W)."""
    return nn.Sequential(
        OrderedDict(
            deconv=PatchDeconv2d(c_in, c_out, kernel_size=2, stride=2),
            norm=nn.BatchNorm2d(c_out),
            relu=nn.ReLU(inplace=True),
        )
    )


def unit(c_in: int, c_out: int, kernel_size: int) -> nn.Sequential:
    """Conv k x k - BatchNorm - ReLU: (B, c_in, H, W) -> (B, c_out, H, W)."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
    )


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters, biases and BatchNorm included."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
