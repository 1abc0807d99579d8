"""Blocks that networks are made of."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


def scale_pixels(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images (N, C, H, W) as a network's input: float32 in [0, 1], channels last."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def conv_block(
    c_in: int, c_out: int, kernel_size: int = 3, ceil_mode: bool = False
) -> nn.Sequential:
    """Return Conv k x k - BatchNorm - MaxPool 2 x 2 - ReLU: (B, c_in, H, W) to half H and W.

    Half of an odd size is rounded down, or up with `ceil_mode`.
    """
    layers = OrderedDict(
        conv=nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2),
        norm=nn.BatchNorm2d(c_out),
        # max(relu(x)) = relu(max(x)): pooling first leaves ReLU a quarter of the work
        pool=nn.MaxPool2d(2, ceil_mode=ceil_mode),
        relu=nn.ReLU(inplace=True),
    )
    return nn.Sequential(layers)


class PatchDeconv2d(nn.ConvTranspose2d):
    """A transposed convolution whose stride is its kernel size, so that patches do not overlap.

    It is computed as one matrix product, with the weights and outputs of torch's own layer. On a
    CPU with channels last its backward pass is several times faster.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        size: kernel size and stride.
        bias: whether to add a bias.
    """

    def __init__(self, c_in: int, c_out: int, size: int, *, bias: bool = True):
        super().__init__(c_in, c_out, size, stride=size, bias=bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (B, c_out, s H, s W) of (B, c_in, H, W), for a kernel size of s."""
        b, _, h, w = images.shape
        c_in, c_out, s, _ = self.weight.shape
        weight = self.weight.permute(2, 3, 1, 0).reshape(s * s * c_out, c_in)
        bias = None if self.bias is None else self.bias.repeat(s * s)
        patches = F.linear(images.permute(0, 2, 3, 1), weight, bias)  # (B, H, W, s s c_out)
        patches = patches.view(b, h, w, s, s, c_out).transpose(2, 3)  # (B, H, s, W, s, c_out)
        return patches.reshape(b, s * h, s * w, c_out).permute(0, 3, 1, 2)


def use_torch_deconvolutions(model: nn.Module) -> nn.Module:
    """Return `model`, changed in place to use torch's own transposed convolutions."""
    for module in model.modules():
        if isinstance(module, PatchDeconv2d):
            module.__class__ = nn.ConvTranspose2d  # has the same parameters
    return model


def deconv_block(c_in: int, c_out: int) -> nn.Sequential:
    """Return ConvTranspose 2 x 2 - BatchNorm - ReLU: (B, c_in, H, W) -> (B, c_out, 2 H, 2 W)."""
    layers = OrderedDict(
        deconv=PatchDeconv2d(c_in, c_out, 2),
        norm=nn.BatchNorm2d(c_out),
        relu=nn.ReLU(inplace=True),
    )
    return nn.Sequential(layers)


def unit(c_in: int, c_out: int, kernel_size: int) -> nn.Sequential:
    """Return Conv k x k - BatchNorm - ReLU: (B, c_in, H, W) -> (B, c_out, H, W)."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
    )


def parameter_count(model: nn.Module) -> int:
    """Return the number of trainable parameters, biases and BatchNorm included."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
