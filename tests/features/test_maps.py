import numpy as np
import pytest
import torch
from torch import nn

from smai_lib.features import figures
from smai_lib.features import maps as fm
from smai_lib.features.browser import browse, view
from smai_lib.multitask.fashion_mnist import Split
from smai_lib.multitask.model import MultiTaskCNN


def network(num_layers=2, seed=0, **recipe):
    """A small untrained network whose BatchNorms have seen something, so that they are not the identity."""
    torch.manual_seed(seed)
    model = MultiTaskCNN(num_layers=num_layers, base_filters=4, dropout_rate=0.5, **recipe)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


@pytest.fixture
def split(tiny):
    return Split(*(column[:60] for column in tiny.train))


AS_PUBLISHED = {
    "normalize": True,
    "pooling": "average",
    "block_dropout": 0.3,
    "ink_hidden": 5,
    "ink_dropout": 0.3,
}
RESIDUAL = {"backbone": "residual", "pairs": 2, "ink_scale": (0.3, 2.0)}


@pytest.mark.parametrize("num_layers, recipe", [(2, {}), (3, {}), (3, AS_PUBLISHED), (2, RESIDUAL)])
def test_maps_are_what_the_blocks_compute_and_the_model_stays(split, num_layers, recipe):
    model = network(num_layers, **recipe)
    found = fm.maps(model, split.images)
    hidden = split.images.float() / 255
    for name, block in model.backbone.named_children():
        hidden = block(hidden)
        torch.testing.assert_close(found.pop(name), hidden)
    assert not found
    assert all(module.inplace for module in model.backbone.modules() if isinstance(module, nn.ReLU))


def test_the_layer_before_a_relu_shows_its_own_negative_values(split):
    """The model's ReLU works in place; a plain extractor would return what it left."""
    found = fm.maps(network(), split.images, ["block1.pool", "block1"])
    assert (found["block1.pool"] < 0).any()
    assert torch.equal(found["block1.pool"].relu(), found["block1"])


def test_batches_do_not_show(split, monkeypatch):
    whole = fm.maps(network(), split.images)
    monkeypatch.setattr(fm, "BATCH", 7)
    for block, values in fm.maps(network(), split.images).items():
        torch.testing.assert_close(values, whole[block])


@pytest.mark.parametrize(
    "images, found",
    [
        (torch.zeros(28, 27, dtype=torch.uint8), r"shape \(28, 27\)"),
        (torch.zeros(3, 28, 28, dtype=torch.uint8), r"shape \(3, 28, 28\)"),
        (torch.zeros(1, 1, 1, 28, 28, dtype=torch.uint8), r"shape \(1, 1, 1, 28, 28\)"),
        (torch.zeros(28, dtype=torch.uint8), r"shape \(28,\)"),
        (torch.zeros(1, 28, 28), "torch.float32"),
        (np.zeros((28, 28), np.uint8), "ndarray"),
        ("shoe.png", "str"),
    ],
)
def test_a_wrong_image_is_refused_with_what_was_expected(images, found):
    with pytest.raises(
        fm.FeatureError,
        match=rf"images: found {found}, expected a uint8 tensor of shape \(28, 28\)",
    ):
        view(network(), images, "block1", 0)


def test_a_layer_that_does_not_exist_is_answered_with_those_that_do(split):
    with pytest.raises(
        fm.FeatureError,
        match=r"found 'block3', expected one of block1, block2, block1.conv, .*block2.relu$",
    ):
        view(network(), split.images[0], "block3", 0)


@pytest.mark.parametrize("channel", [-1, 4])
def test_a_channel_that_does_not_exist_is_answered_with_those_that_do(split, channel):
    with pytest.raises(
        fm.FeatureError, match=rf"channel: found {channel}, expected 0 to 3, the channels of block1"
    ):
        view(network(), split.images[0], "block1", channel)


@pytest.mark.parametrize(
    "num_layers, recipe",
    [
        (2, {}),
        (3, {}),
        (3, {"ceil_mode": True, "ink_scale": (0.3, 2.0)}),
        (3, AS_PUBLISHED),
        (2, RESIDUAL),
    ],
)
@pytest.mark.parametrize("replace_by", fm.REPLACEMENTS)
def test_ablation_is_what_a_hook_on_the_block_would_cost(split, num_layers, recipe, replace_by):
    """Witness: the whole network again, its block's output overwritten by a hook."""
    model = network(num_layers, **recipe)
    table = fm.ablate(model, split, replace_by=replace_by).set_index(["block", "channel"])
    images = split.images.float() / 255

    def judge():
        with torch.inference_mode():
            output = model(images)
        return (output.logits.argmax(1) == split.labels).float(), (
            output.ink - split.ink
        ).square().mean().sqrt()

    right, rmse = judge()
    for (block, channel), row in table.iterrows():

        def overwrite(module, inputs, output, channel=channel):
            output[:, channel] = output[:, channel].mean(0) if replace_by == "mean" else 0
            return output

        handle = getattr(model.backbone, block).register_forward_hook(overwrite)
        right_after, rmse_after = judge()
        handle.remove()
        lost = right - right_after
        assert row["accuracy_cost"] == pytest.approx(lost.mean().item(), abs=1e-6)
        assert row["accuracy_se"] == pytest.approx(lost.std().item() / len(lost) ** 0.5, abs=1e-6)
        assert row["rmse_cost"] == pytest.approx((rmse_after - rmse).item(), abs=2e-6)
    assert not model.training and len(table) == sum(4 * 2**block for block in range(num_layers))
    assert table["rmse_cost"].abs().max() > 1e-4


def test_a_channel_that_never_varies_costs_nothing_by_mean_and_something_by_zero(split):
    model = network()
    with torch.no_grad():
        model.backbone.block2.norm.weight[3] = 0
        model.backbone.block2.norm.bias[3] = 2
    cost = {
        how: fm.ablate(model, split, replace_by=how)
        .query("block == 'block2' and channel == 3")["rmse_cost"]
        .item()
        for how in fm.REPLACEMENTS
    }
    assert abs(cost["mean"]) < 1e-6 and abs(cost["zero"]) > 1e-3


def test_an_unknown_replacement_is_refused(split):
    with pytest.raises(ValueError, match="found 'noise', expected one of mean, zero"):
        fm.ablate(network(), split, replace_by="noise")


def test_a_dead_channel_is_found_and_only_that(split):
    model = network()
    dead = {}
    for bias in (1, -1):  # of a channel that is its bias, whatever the image
        with torch.no_grad():
            model.backbone.block2.norm.weight[5] = 0
            model.backbone.block2.norm.bias[5] = bias
        table = fm.activity(fm.responses(model, split.images)).set_index(["block", "channel"])
        assert table.loc[("block2", 5), "active_share"] == (bias > 0)
        dead[bias] = set(table.index[table["dead"]])
    assert len(table) == 12
    assert dead[-1] - dead[1] == {("block2", 5)} and dead[1] < dead[-1]


def test_the_most_exciting_images_are_those_with_the_highest_peaks(split):
    model = network()
    response = fm.responses(model, split.images)["block2"]
    peaks = fm.maps(model, split.images)["block2"][:, 2].flatten(1).max(1).values
    nine = fm.most_exciting(response, 2)
    assert nine.tolist() == sorted(range(60), key=lambda image: -peaks[image])[:9]


def test_purity_counts_the_most_common_class_and_skips_the_silent():
    response = torch.tensor([[0.0, 9.0], [0.0, 8.0], [0.0, 7.0], [0.0, 1.0]])
    found = fm.purity(response, torch.tensor([4, 4, 2, 2]), count=3)
    assert found.to_dict("records") == [{"channel": 1, "label": 4, "share": 2 / 3}]


def test_the_browser_follows_its_controls(split):
    model = network()
    browser = browse(model, split.images, ["item"] * len(split.images))
    assert (
        browser.auto_display
    )  # else a reader moves the controls and sees nothing; `test_lab.py` looks
    image, block, channel = browser.children[:3]
    image.value, block.value, channel.value = 3, "block2", 7
    left, right = browser.result.axes[:2]
    assert right.get_title() == "block2, channel 7"
    assert np.array_equal(left.images[0].get_array(), split.images[3, 0].numpy())
    assert np.array_equal(
        right.images[0].get_array(), fm.maps(model, split.images[3])["block2"][0, 7].numpy()
    )
    block.value = "block1"  # which has four channels
    assert channel.value == 3 and browser.result.axes[1].get_title() == "block1, channel 3"


def test_the_browser_shows_a_residual_network(split):
    _, block, channel = browse(network(2, **RESIDUAL), split.images[:1], "a").children[:3]
    assert block.options == ("block1", "block2") and channel.max == 3


def test_the_browser_refuses_titles_that_do_not_fit(split):
    with pytest.raises(ValueError, match="titles: found 1 for 60 images"):
        browse(network(), split.images, ["one"])


def test_the_view_draws_the_map_and_the_layers_whole_range(split):
    model = network()
    values = fm.maps(model, split.images[:1])["block1"][0]
    shown = view(model, split.images[0], "block1", 1).axes[1].images[0]
    assert np.array_equal(shown.get_array(), values[1].numpy())
    assert shown.get_clim() == (0, pytest.approx(values.max().item()))


def test_all_maps_of_the_overview_share_one_colour_scale(split):
    maps = fm.maps(network(), split.images[:3])
    figure = figures.beside(split.images[:3], "abc", maps, {"block1": [2, 0], "block2": [7]})
    first, second = (axes.images[0] for axes in figure.axes[1:3])
    assert first.get_clim() == second.get_clim()
    assert np.array_equal(
        first.get_array()[:28, :28], np.kron(maps["block1"][0, 2], np.ones((2, 2)))
    )
    assert np.array_equal(
        second.get_array()[60:88, :28], np.kron(maps["block2"][2, 7], np.ones((4, 4)))
    )


def test_a_small_map_is_enlarged_by_whole_pixels_and_centred():
    framed = figures.panel(np.arange(9.0).reshape(3, 3))
    assert framed.shape == (28, 28) and np.isnan(framed[27]).all()
    assert np.array_equal(framed[:27:9, :27:9], np.arange(9.0).reshape(3, 3))


def test_networks_side_by_side_show_the_same_channels_in_every_row(split):
    maps = {
        name: fm.maps(network(seed=seed), split.images[:1])["block1"][0]
        for seed, name in enumerate("ab")
    }
    figure = figures.side_by_side(split.images[0], maps, channels=[3, 1])
    for axes, values in zip(figure.axes[:2], maps.values(), strict=True):
        picture = axes.images[0].get_array()
        assert picture.shape == (28, 3 * 30 - 2)
        assert np.array_equal(picture[::2, 30:58:2], values[3]) and np.array_equal(
            picture[::2, 60:88:2], values[1]
        )
        drawn = np.concatenate(
            [other[[3, 1]].numpy().ravel() for other in maps.values()]
        )  # by any row
        assert axes.images[0].get_clim() == (0, pytest.approx(np.quantile(drawn, figures.CLIP)))
    assert [axes.get_yticklabels()[0].get_text() for axes in figure.axes[:2]] == ["a", "b"]
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["input", "3", "1"]
