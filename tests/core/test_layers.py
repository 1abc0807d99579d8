import copy

import pytest
import torch
from torch import nn

from smai_lib.core.errors import ConfigError
from smai_lib.core.layers import PatchDeconv2d, deconv_block, use_torch_deconvolutions


@pytest.mark.parametrize(
    ("kernel", "bias", "size"), [(2, True, (4, 4)), (2, False, (3, 5)), (3, True, (2, 3))]
)
def test_a_patch_deconvolution_has_torchs_outputs_and_gradients(kernel, bias, size):
    torch.manual_seed(0)
    ours = PatchDeconv2d(5, 3, kernel, stride=kernel, bias=bias).double()
    torchs = nn.ConvTranspose2d(5, 3, kernel, stride=kernel, bias=bias).double()
    torchs.load_state_dict(ours.state_dict())
    results = []
    for module in (ours, torchs):
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(2, 5, *size, dtype=torch.double, generator=generator)
        output = module(images.requires_grad_())
        (output * torch.arange(output.numel()).view_as(output).sin()).sum().backward()
        gradients = [parameter.grad for parameter in module.parameters()]
        results.append([output, images.grad, *gradients])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "changed",
    [
        {"stride": 1},
        {"padding": 1},
        {"output_padding": 1},
        {"groups": 2},
        {"dilation": 2},
        {"kernel_size": (2, 4), "stride": (2, 4)},
    ],
)
def test_a_patch_deconvolution_refuses_what_it_would_compute_wrongly(changed):
    keys = {"kernel_size": 2, "stride": 2} | changed
    with pytest.raises(ConfigError, match="expected a square kernel, a stride equal to it"):
        PatchDeconv2d(4, 2, **keys)


def test_the_torch_network_computes_with_torchs_operation():
    torch.manual_seed(0)
    ours = deconv_block(4, 2).eval()
    torchs = use_torch_deconvolutions(copy.deepcopy(ours))
    images = torch.rand(2, 4, 3, 3)
    operations = []
    for model in (ours, torchs):
        with torch.profiler.profile() as profiler:
            model(images)
        operations.append({event.key for event in profiler.key_averages()})
    without, with_it = operations
    assert "aten::conv_transpose2d" not in without and "aten::conv_transpose2d" in with_it
    torch.testing.assert_close(ours(images), torchs(images))
