import numpy as np
import pytest
import torch
from torch import nn

from smai_lib.core.errors import ConfigError
from smai_lib.features import maps as fm
from smai_lib.features import plots
from smai_lib.features.browser import browse, view
from smai_lib.multitask.config import MultiTaskConfig

AS_PUBLISHED = {
    "num_layers": 3,
    "normalize": True,
    "pooling": "average",
    "block_dropout": 0.3,
    "ink_hidden": 5,
    "ink_dropout": 0.3,
}
Z_SCORED = {"num_layers": 3, "ceil_mode": True, "ink_scaling": "z_score"}
RESIDUAL = {"backbone": "residual", "pairs": 2, "ink_scaling": "z_score"}


def network(seed=0, **keys):
    """Return a small untrained network whose BatchNorms are not the identity."""
    torch.manual_seed(seed)
    keys = {"num_layers": 2, "base_filters": 4, "dropout_rate": 0.5} | keys
    model = MultiTaskConfig(**keys).build_network((0.3, 2.0))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


def make_constant(block, channel, value):
    """Make a channel's output before the ReLU `value` for every image."""
    with torch.no_grad():
        block.norm.weight[channel], block.norm.bias[channel] = 0, value


@pytest.fixture
def split(tiny):
    return tiny.train._make(column[:60] for column in tiny.train)


@pytest.mark.parametrize("keys", [{}, AS_PUBLISHED, RESIDUAL])
def test_maps_are_what_the_blocks_compute_in_batches_of_any_size(split, keys, monkeypatch):
    monkeypatch.setattr(fm, "BATCH", 7)
    model = network(**keys).train()
    values = fm.maps(model, split.images)
    assert model.backbone.training  # the network is left as it was
    _, expected = model.eval()(split.images.float() / 255, return_maps=True)
    assert list(values) == fm.block_names(model)
    for block, maps in zip(values.values(), expected, strict=True):
        torch.testing.assert_close(block, maps)


def test_a_layer_before_a_relu_has_negative_values(split):
    """The network's ReLU overwrites its input."""
    maps = fm.maps(network(), split.images, ["block1.pool", "block1"])
    assert (maps["block1.pool"] < 0).any()
    assert torch.equal(maps["block1.pool"].relu(), maps["block1"])


@pytest.mark.parametrize(
    "images, found",
    [
        (torch.zeros(28, 27, dtype=torch.uint8), r"shape \(28, 27\)"),
        (torch.zeros(3, 28, 28, dtype=torch.uint8), r"shape \(3, 28, 28\)"),
        (torch.zeros(1, 1, 1, 28, 28, dtype=torch.uint8), r"shape \(1, 1, 1, 28, 28\)"),
        (torch.zeros(1, 28, 28), "torch.float32"),
        ("shoe.png", "str"),
    ],
)
def test_an_unusable_image_is_refused(images, found):
    expected = rf"images: found {found}, expected a uint8 tensor of shape \(28, 28\)"
    with pytest.raises(ConfigError, match=expected):
        view(network(), images, "block1", 0)


@pytest.mark.parametrize(
    "layer, channel, message",
    [
        ("block3", 0, r"found 'block3', expected one of block1, block1.conv, .*block2.relu$"),
        ("block1", -1, "channel: found -1, expected 0 to 3, the channels of block1"),
        ("block1", 4, "channel: found 4, expected 0 to 3"),
    ],
)
def test_a_missing_layer_or_channel_is_refused_with_those_that_exist(
    split, layer, channel, message
):
    with pytest.raises(ConfigError, match=message):
        view(network(), split.images[0], layer, channel)


@pytest.mark.parametrize("keys", [{}, Z_SCORED, AS_PUBLISHED, RESIDUAL])
@pytest.mark.parametrize("replace_by", fm.REPLACEMENTS)
def test_an_ablation_costs_what_a_hook_in_the_whole_network_costs(split, keys, replace_by):
    model = network(**keys)
    table = fm.ablate(model, split, replace_by=replace_by).set_index(["block", "channel"])

    def measure():
        with torch.inference_mode():
            output = model(split.images.float() / 255)
        right = (output.logits.argmax(1) == split.labels).float()
        return right, (output.ink - split.ink).square().mean().sqrt()

    right, rmse = measure()
    for (block, channel), row in table.iterrows():

        def overwrite(module, inputs, output, channel=channel):
            output[:, channel] = output[:, channel].mean(0) if replace_by == "mean" else 0
            return output

        handle = getattr(model.backbone, block).register_forward_hook(overwrite)
        right_after, rmse_after = measure()
        handle.remove()
        lost = right - right_after
        assert row["accuracy_cost"] == pytest.approx(lost.mean().item(), abs=1e-6)
        assert row["accuracy_se"] == pytest.approx(lost.std().item() / len(lost) ** 0.5, abs=1e-6)
        assert row["rmse_cost"] == pytest.approx((rmse_after - rmse).item(), abs=2e-6)
    assert len(table) == 4 * (2 ** len(model.backbone) - 1)
    assert table["rmse_cost"].abs().max() > 1e-4


def test_a_constant_channel_costs_nothing_by_mean_and_something_by_zero(split):
    model = network()
    make_constant(model.backbone.block2, 3, 2)
    costs = {}
    for replace_by in fm.REPLACEMENTS:
        table = fm.ablate(model, split, replace_by=replace_by).set_index(["block", "channel"])
        costs[replace_by] = abs(table.loc[("block2", 3), "rmse_cost"])
    assert costs["mean"] < 1e-6 and costs["zero"] > 1e-3
    with pytest.raises(ConfigError, match="found 'noise', expected one of mean, zero"):
        fm.ablate(model, split, replace_by="noise")


def test_a_channel_is_dead_if_no_image_excites_it(split):
    model = network()
    for value in (1, -1):
        make_constant(model.backbone.block2, 5, value)
        table = fm.activity(fm.responses(model, split.images)).set_index(["block", "channel"])
        row = table.loc[("block2", 5)]
        assert row["active_share"] == (value > 0) and row["dead"] == (value < 0)
    assert len(table) == 12 and not table["dead"].all()


def test_the_most_exciting_images_have_the_highest_peaks(split):
    model = network()
    response = fm.responses(model, split.images)["block2"]
    peaks = fm.maps(model, split.images)["block2"][:, 2].flatten(1).max(1).values
    nine = fm.most_exciting(response, 2)
    assert nine.tolist() == sorted(range(60), key=lambda image: -peaks[image])[:9]


def test_purity_counts_the_most_common_class_and_leaves_silent_channels_out():
    response = torch.tensor([[0.0, 9.0], [0.0, 8.0], [0.0, 7.0], [0.0, 1.0]])
    table = fm.purity(response, torch.tensor([4, 4, 2, 2]), count=3)
    assert table.to_dict("records") == [{"channel": 1, "label": 4, "share": 2 / 3}]


def test_the_browser_follows_its_controls(split):
    model = network()
    browser = browse(model, split.images, ["item"] * len(split.images))
    assert browser.auto_display  # otherwise nothing is shown when the controls move
    image, block, channel = browser.children[:3]
    image.value, block.value, channel.value = 3, "block2", 7
    left, right = browser.result.axes[:2]
    assert right.get_title() == "block2, channel 7"
    assert np.array_equal(left.images[0].get_array(), split.images[3, 0].numpy())
    values = fm.maps(model, split.images[3])["block2"][0]
    assert np.array_equal(right.images[0].get_array(), values[7].numpy())
    assert right.images[0].get_clim() == (0, pytest.approx(values.max().item()))
    block.value = "block1"  # which has four channels
    assert channel.value == 3 and browser.result.axes[1].get_title() == "block1, channel 3"
    with pytest.raises(ConfigError, match="titles: found 1 for 60 images"):
        browse(model, split.images, ["one"])


def test_all_maps_of_a_figure_share_one_colour_scale(split):
    maps = fm.maps(network(), split.images[:3])
    figure = plots.plot_maps(split.images[:3], "abc", maps, {"block1": [2, 0], "block2": [7]})
    grid = np.reshape(figure.axes[:12], (3, 4))  # the last axes are the colour bar's
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["a", "b", "c"]
    shown = [[axes.images[0] for axes in row[1:]] for row in grid]
    assert len({image.get_clim() for row in shown for image in row}) == 1
    assert np.array_equal(shown[0][0].get_array(), maps["block1"][0, 2])
    assert np.array_equal(shown[2][2].get_array(), maps["block2"][2, 7])


def test_networks_are_compared_by_the_same_channels(split):
    maps = {str(seed): fm.maps(network(seed), split.images[:1])["block1"][0] for seed in (0, 1)}
    figure = plots.plot_networks(split.images[0], maps, channels=[3, 1])
    grid = np.reshape(figure.axes[:6], (2, 3))
    assert grid[1, 0].get_ylabel() == "1"
    assert np.array_equal(grid[1, 1].images[0].get_array(), maps["1"][3])


def test_the_most_exciting_images_are_plotted_with_their_classes(split):
    labels = {"block1, channel 0": ["Bag", "Bag", "Coat"]}
    figure = plots.plot_most_exciting({"block1, channel 0": split.images[:3]}, labels)
    assert figure.axes[0].get_title(loc="left") == "block1, channel 0: 2 Bag, 1 Coat"
    assert np.array_equal(figure.axes[2].images[0].get_array(), split.images[2, 0])
