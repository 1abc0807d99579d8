import pytest
import torch
import torch.nn.functional as F

from smai_lib.core.layers import conv_block, parameter_count
from smai_lib.multitask.model import MultiTaskCNN, ResidualPair


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
    assert torch.equal(
        ceil(images), F.max_pool2d(F.pad(maps, (0, 1, 0, 1)), 2)
    )  # maps are at least 0
    for num_layers, side in ((2, 7), (3, 4)):
        model = MultiTaskCNN(
            num_layers=num_layers, base_filters=4, dropout_rate=0.0, hidden=6, ceil_mode=True
        )
        assert model.backbone(torch.rand(5, 1, 28, 28)).shape[-2:] == (side, side)
        assert (
            model(torch.rand(5, 1, 28, 28)).logits.shape == (5, 10)
            and model.regressor[0].out_features == 6
        )


def test_heads_compute_in_float32_under_autocast():
    model = MultiTaskCNN(num_layers=2, base_filters=4, dropout_rate=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.rand(4, 1, 28, 28))
    assert output.logits.dtype == output.ink.dtype == torch.float32


def twins(seed=0, **settings):
    """A network with `settings` and the plain one of the same weights, both in evaluation mode."""
    sizes = {"num_layers": 3, "base_filters": 4, "dropout_rate": 0.0}
    torch.manual_seed(seed)
    changed, plain = MultiTaskCNN(**sizes, **settings), MultiTaskCNN(**sizes)
    plain.backbone.load_state_dict(changed.backbone.state_dict())
    return changed.eval(), plain.eval()


def test_the_backbone_standardizes_what_it_is_given():
    images = torch.rand(5, 1, 28, 28)
    model, plain = twins(normalize=True)
    torch.testing.assert_close(model.backbone(images), plain.backbone((images - 0.286) / 0.353))
    assert not torch.allclose(model.backbone(images), plain.backbone(images))


def test_average_pooling_gives_the_heads_each_maps_mean():
    images = torch.rand(5, 1, 28, 28)
    model, plain = twins(pooling="average")
    means = plain.backbone(images).mean((2, 3))
    torch.testing.assert_close(model(images).logits, model.classifier(means))
    assert model.classifier[0].in_features == model.regressor[0].in_features == 16


def test_dropout_after_blocks_is_for_training_only():
    images = torch.rand(64, 1, 28, 28)
    model, plain = twins(block_dropout=0.5)
    assert torch.equal(model.backbone(images), plain.backbone(images))
    for name, block in model.backbone.named_children():
        block.train()
        hidden = torch.rand(64, block.conv.in_channels, 28, 28)
        before = F.relu(block.pool(block.norm(block.conv(hidden))))
        share = (block(hidden) == 0).float().mean() - (before == 0).float().mean()
        assert share == pytest.approx(0.5 * (before > 0).float().mean().item(), abs=0.02), name


def test_the_heads_have_their_own_widths_and_dropout():
    torch.manual_seed(0)
    model = MultiTaskCNN(
        num_layers=2, base_filters=4, dropout_rate=0.0, hidden=20, ink_hidden=9, ink_dropout=0.5
    ).train()
    assert (model.classifier[0].out_features, model.regressor[0].out_features) == (20, 9)
    maps = torch.rand(6, 8, 7, 7)
    first, second = model.heads(maps), model.heads(maps)
    assert torch.equal(first.logits, second.logits) and not torch.equal(first.ink, second.ink)


def test_a_residual_pair_adds_to_what_it_is_given():
    torch.manual_seed(0)
    for c_out in (4, 6):
        pair = ResidualPair(4, c_out).eval()
        maps = torch.randn(2, 4, 7, 7)
        branch, skip = pair.pair(maps), pair.skip(maps)
        torch.testing.assert_close(pair(maps.clone()), (branch + skip).relu())
        assert branch.abs().max() > 0 and torch.equal(skip, maps) == (c_out == 4)


def test_a_residual_backbone_halves_between_its_blocks():
    model = MultiTaskCNN(
        num_layers=3,
        base_filters=16,
        dropout_rate=0.3,
        backbone="residual",
        pairs=3,
        pooling="average",
        hidden=64,
    )
    hidden, shapes = torch.rand(2, 1, 28, 28), []
    for block in model.backbone:
        hidden = block(hidden)
        shapes.append(tuple(hidden.shape[1:]))
    assert shapes == [(16, 28, 28), (32, 14, 14), (64, 7, 7)]
    assert parameter_count(model) < 500_000
    flat = MultiTaskCNN(num_layers=3, base_filters=4, dropout_rate=0.3, backbone="residual")
    assert (
        flat(torch.rand(2, 1, 28, 28)).ink.shape == (2,)
        and flat.classifier[0].in_features == 16 * 49
    )


def test_pools_that_leave_no_pixel_are_refused():
    with pytest.raises(ValueError, match="num_layers: found 5, whose pools leave no pixel of 28"):
        MultiTaskCNN(num_layers=5, base_filters=4, dropout_rate=0.0)
