"""Blocks that networks are made of, and how many parameters that is."""

from collections import OrderedDict

from torch import nn


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


def deconv_block(c_in: int, c_out: int) -> nn.Sequential:
    """ConvTranspose 2x2, stride 2 - BatchNorm - ReLU: (B, c_in, H, W) -> (B, c_out, 2H, 2W)."""
    return nn.Sequential(
        OrderedDict(
            deconv=nn.ConvTranspose2d(c_in, c_out, kernel_size=2, stride=2),
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
