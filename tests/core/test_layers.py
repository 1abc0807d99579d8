import copy

import pytest
import torch
from torch import nn

from smai_lib.core.layers import PatchDeconv2d, deconv_block, parameter_count, textbook


@pytest.mark.parametrize(
    "kernel, bias, size", [(2, True, (4, 4)), (2, False, (3, 5)), (3, True, (2, 3))]
)
def test_a_patch_deconvolution_is_torchs_own(kernel, bias, size):
    """Same outputs, same gradients of weights, bias and input, in float64, where nothing hides."""
    torch.manual_seed(0)
    ours = PatchDeconv2d(5, 3, kernel, stride=kernel, bias=bias).double()
    theirs = nn.ConvTranspose2d(5, 3, kernel, stride=kernel, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    results = []
    for module in (ours, theirs):
        images = torch.rand(
            2,
            5,
            *size,
            dtype=torch.double,
            generator=torch.Generator().manual_seed(1),
            requires_grad=True,
        )
        output = module(images)
        (output * torch.arange(output.numel()).view_as(output).sin()).sum().backward()
        results.append(
            [output, images.grad, *(parameter.grad for parameter in module.parameters())]
        )
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_textbook_network_computes_with_torchs_operation():
    torch.manual_seed(0)
    ours = deconv_block(4, 2).eval()
    plain = textbook(copy.deepcopy(ours))
    images = torch.rand(2, 4, 3, 3)
    names = []
    for model in (ours, plain):
        with torch.profiler.profile() as profiler:
            model(images)
        names.append({event.key for event in profiler.key_averages()})
    assert "aten::conv_transpose2d" not in names[0] and "aten::conv_transpose2d" in names[1]
    torch.testing.assert_close(ours(images), plain(images))
    assert parameter_count(ours) == parameter_count(plain)
