import pytest
import torch
import torch.nn.functional as F

from smai_lib.core.layers import conv_block
from smai_lib.multitask.model import MultiTaskCNN


@pytest.mark.parametrize("num_layers, features", [(2, 8 * 7 * 7), (3, 16 * 3 * 3)])
def test_shapes_of_both_heads(num_layers, features):
    model = MultiTaskCNN(num_layers=num_layers, base_filters=4, dropout_rate=0.3)
    output = model(torch.rand(5, 1, 28, 28))
    assert output.logits.shape == (5, 10) and output.ink.shape == (5,)
    assert model.classifier[0].in_features == features == model.regressor[0].in_features


def test_ceil_mode_pools_what_is_left_at_the_border():
    images = torch.randn(2, 1, 7, 7)
    floor, ceil = conv_block(1, 5), conv_block(1, 5, ceil_mode=True)
    ceil.load_state_dict(floor.state_dict())
    maps = F.relu(floor.norm(floor.conv(images)))
    assert torch.equal(floor(images), F.max_pool2d(maps[:, :, :6, :6], 2))
    assert torch.equal(ceil(images), F.max_pool2d(F.pad(maps, (0, 1, 0, 1)), 2))  # maps are at least 0
    for num_layers, side in ((2, 7), (3, 4)):
        model = MultiTaskCNN(num_layers=num_layers, base_filters=4, dropout_rate=0.0, hidden=6, ceil_mode=True)
        assert model.backbone(torch.rand(5, 1, 28, 28)).shape[-2:] == (side, side)
        assert model(torch.rand(5, 1, 28, 28)).logits.shape == (5, 10) and model.regressor[0].out_features == 6


def test_heads_compute_in_float32_under_autocast():
    model = MultiTaskCNN(num_layers=2, base_filters=4, dropout_rate=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.rand(4, 1, 28, 28))
    assert output.logits.dtype == output.ink.dtype == torch.float32
