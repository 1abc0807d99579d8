"""Blocks that networks are made of."""

from collections import OrderedDict
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from .errors import ConfigError

Network = TypeVar("Network", bound=nn.Module)


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

    It is computed as one matrix product, with the weights and results of torch's own. On a CPU
    with channels last its backward pass is several times faster. `as_product = False` uses torch's.

    Raises:
        ConfigError: another stride than the kernel size, or padding, groups or dilation.
    """

    as_product = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        plain = (self.padding, self.output_padding, self.dilation, self.groups)
        square = self.stride == self.kernel_size and self.stride[0] == self.stride[1]
        if not square or plain != ((0, 0), (0, 0), (1, 1), 1):
            raise ConfigError(
                f"PatchDeconv2d: found kernel_size {self.kernel_size}, stride {self.stride} and "
                f"(padding, output_padding, dilation, groups) {plain}, expected a square kernel, "
                "a stride equal to it, and no padding, dilation or groups"
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (B, O, s H, s W) of (B, C, H, W), for a stride of s."""
        if not self.as_product:
            return super().forward(images)
        b, c, h, w = images.shape
        o, s = self.out_channels, self.stride[0]
        weight = self.weight.permute(2, 3, 1, 0).reshape(s * s * o, c)
        bias = None if self.bias is None else self.bias.repeat(s * s)
        patches = F.linear(images.permute(0, 2, 3, 1), weight, bias)  # (B, H, W, s s O)
        patches = patches.view(b, h, w, s, s, o).transpose(2, 3)  # (B, H, s, W, s, O)
        return patches.reshape(b, s * h, s * w, o).permute(0, 3, 1, 2)


def use_torch_deconvolutions(model: Network) -> Network:
    """Return `model`, changed in place to use torch's own transposed convolutions."""
    for module in model.modules():
        if isinstance(module, PatchDeconv2d):
            module.as_product = False
    return model


def deconv_block(c_in: int, c_out: int) -> nn.Sequential:
    """Return ConvTranspose 2 x 2 - BatchNorm - ReLU: (B, c_in, H, W) -> (B, c_out, 2 H, 2 W)."""
    layers = OrderedDict(
        deconv=PatchDeconv2d(c_in, c_out, kernel_size=2, stride=2),
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
