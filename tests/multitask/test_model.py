import pytest
import torch
import torch.nn.functional as F

from smai_lib.multitask.model import ResidualPair

IMAGES = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def pair_of_networks(small, **keys):
    """Return a network with `keys` and the plain one of the same weights, in evaluation mode."""
    torch.manual_seed(0)
    changed = small(num_layers=3, **keys).build_network()
    plain = small(num_layers=3).build_network()
    plain.backbone.load_state_dict(changed.backbone.state_dict())
    return changed.eval(), plain.eval()


@pytest.mark.parametrize(
    "keys, sides",
    [
        ({"num_layers": 3}, [14, 7, 3]),
        ({"num_layers": 3, "ceil_mode": True}, [14, 7, 4]),
        ({"num_layers": 3, "backbone": "residual", "pairs": 2}, [28, 14, 7]),
    ],
)
def test_each_block_halves_its_maps_and_both_heads_read_the_last(small, keys, sides):
    model = small(**keys).build_network().eval()
    output, maps = model(IMAGES, return_maps=True)
    assert [tuple(block.shape) for block in maps] == [
        (5, 4 * 2**number, side, side) for number, side in enumerate(sides)
    ]
    assert output.logits.shape == (5, 10) and output.ink.shape == (5,)


@pytest.mark.parametrize("backbone", ["plain", "residual"])
def test_returned_maps_are_those_of_the_blocks_and_change_no_prediction(small, backbone):
    model = small(backbone=backbone).build_network().eval()
    output, maps = model(IMAGES, return_maps=True)
    assert all(torch.equal(a, b) for a, b in zip(output[:2], model(IMAGES)[:2], strict=True))
    hidden = IMAGES
    for block, values in zip(model.backbone, maps, strict=True):
        hidden = block(hidden)
        assert torch.equal(values, hidden)


def test_heads_compute_in_float32_under_autocast(small):
    with torch.autocast("cpu", torch.bfloat16):
        output = small().build_network()(IMAGES)
    assert output.logits.dtype == output.ink.dtype == torch.float32


def test_normalize_standardizes_pixels_inside_the_backbone(small):
    model, plain = pair_of_networks(small, normalize=True)
    torch.testing.assert_close(model.backbone(IMAGES), plain.backbone((IMAGES - 0.286) / 0.353))


def test_average_pooling_gives_the_heads_the_mean_of_each_map(small):
    model, plain = pair_of_networks(small, pooling="average")
    means = plain.backbone(IMAGES).mean((2, 3))
    torch.testing.assert_close(model(IMAGES).logits, model.classifier(means))


def test_dropout_follows_every_block_in_training_only(small):
    model, plain = pair_of_networks(small, block_dropout=0.5)
    assert torch.equal(model.backbone(IMAGES), plain.backbone(IMAGES))
    for name, block in model.backbone.named_children():
        block.train()
        hidden = torch.rand(64, block.conv.in_channels, 28, 28)
        before = F.relu(block.pool(block.norm(block.conv(hidden))))
        share = (block(hidden) == 0).float().mean() - (before == 0).float().mean()
        assert share == pytest.approx(0.5 * (before > 0).float().mean().item(), abs=0.02), name


def test_the_ink_head_has_its_own_width_and_dropout(small):
    model = small(hidden=20, ink_hidden=9, ink_dropout=0.5).build_network().train()
    assert (model.classifier[0].out_features, model.regressor[0].out_features) == (20, 9)
    maps = torch.rand(6, 8, 7, 7)
    first, second = model.heads(maps), model.heads(maps)
    assert torch.equal(first.logits, second.logits) and not torch.equal(first.ink, second.ink)


@pytest.mark.parametrize("c_out", [4, 6])
def test_a_residual_pair_adds_its_convolutions_to_its_input(c_out):
    pair = ResidualPair(4, c_out).eval()
    maps = torch.randn(2, 4, 7, 7)
    added, skip = pair.pair(maps), pair.skip(maps)
    torch.testing.assert_close(pair(maps.clone()), (added + skip).relu())
    assert torch.equal(skip, maps) == (c_out == 4)
