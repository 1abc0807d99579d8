import copy

import pytest
import torch
from torch import nn

from smai_lib.core.layers import PatchDeconv2d, use_torch_deconvolutions


@pytest.mark.parametrize("size, bias, shape", [(2, False, (3, 5)), (3, True, (2, 3))])
def test_a_patch_deconvolution_has_the_outputs_and_gradients_of_torchs_own(size, bias, shape):
    torch.manual_seed(0)
    ours = PatchDeconv2d(5, 3, size, bias=bias).double()
    torchs = use_torch_deconvolutions(copy.deepcopy(ours))
    assert type(torchs) is nn.ConvTranspose2d
    images = torch.rand(2, 5, *shape, dtype=torch.double, requires_grad=True)
    results = []
    for module in (ours, torchs):
        output = module(images)
        loss = (output * torch.arange(output.numel()).view_as(output).sin()).sum()
        results.append([output, *torch.autograd.grad(loss, [images, *module.parameters()])])
    torch.testing.assert_close(*results)
