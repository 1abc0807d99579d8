import numpy as np
import pytest
import torch

from smai_lib.core.errors import ConfigError
from smai_lib.features import maps as fm
from smai_lib.features import plots
from smai_lib.features.browser import browse, plot_map

AS_PUBLISHED = {
    "num_layers": 3,
    "normalize": True,
    "pooling": "average",
    "block_dropout": 0.3,
    "ink_hidden": 5,
    "ink_dropout": 0.3,
}
RESIDUAL = {"backbone": "residual", "pairs": 2, "ink_scaling": "z_score"}


@pytest.mark.parametrize("keys", [AS_PUBLISHED, RESIDUAL])
def test_maps_are_what_the_blocks_compute_in_batches_of_any_size(network, split, keys, monkeypatch):
    monkeypatch.setattr(fm, "BATCH", 7)
    model = network(**keys).train()
    values = fm.maps(model, split.images)
    assert model.backbone.training  # the network is left as it was
    _, expected = model.eval()(split.images.float() / 255, return_maps=True)
    assert list(values) == [f"block{number}" for number in range(1, len(expected) + 1)]
    for block, maps in zip(values.values(), expected, strict=True):
        torch.testing.assert_close(block, maps)


@pytest.mark.parametrize(
    "images, found",
    [
        (torch.zeros(3, 28, 28, dtype=torch.uint8), r"torch.uint8 of shape \(3, 28, 28\)"),
        (torch.zeros(1, 28, 28), "torch.float32 of shape"),
    ],
)
def test_an_unusable_image_is_refused(network, images, found):
    with pytest.raises(ConfigError, match=f"images: found {found}.*, expected .* a uint8 tensor"):
        fm.maps(network(), images)


@pytest.mark.parametrize("keys", [AS_PUBLISHED, RESIDUAL])
def test_an_ablation_costs_what_a_hook_in_the_whole_network_costs(network, split, keys):
    model = network(**keys)

    @torch.inference_mode()
    def measure():
        output = model(split.images.float() / 255)
        right = (output.logits.argmax(1) == split.labels).float()
        return right, (output.ink - split.ink).square().mean().sqrt()

    right, rmse = measure()
    table = fm.ablate(model, split)
    for row in table.itertuples():

        def overwrite(module, inputs, output, channel=row.channel):
            output[:, channel] = output[:, channel].mean(0)

        handle = model.backbone.get_submodule(row.block).register_forward_hook(overwrite)
        right_after, rmse_after = measure()
        handle.remove()
        lost = right - right_after
        costs = [lost.mean(), lost.std() / len(lost) ** 0.5, rmse_after - rmse]
        found = [row.accuracy_cost, row.accuracy_se, row.rmse_cost]
        assert found == pytest.approx(torch.stack(costs).tolist(), abs=2e-6)
    assert len(table) == 4 * (2 ** len(model.backbone) - 1)


def test_a_channel_is_dead_if_no_image_excites_it(network, split):
    model = network()
    norm = model.backbone.block2.norm
    with torch.no_grad():  # before the ReLU, these channels are 1 and -1 for every image
        norm.weight[5:7] = 0
        norm.bias[5:7] = torch.tensor([1.0, -1.0])
    table = fm.activity(fm.responses(model, split.images))
    assert table.loc["block2"].loc[[5, 6]].to_numpy().tolist() == [[1, False], [0, True]]


def test_purity_counts_the_most_common_class_and_leaves_silent_channels_out():
    response = torch.tensor([[0.0, 9.0], [0.0, 8.0], [0.0, 7.0], [0.0, 1.0]])
    shares = fm.purity(response, torch.tensor([4, 4, 2, 2]), count=3)
    assert shares.to_dict() == {1: 2 / 3}


def test_the_browser_follows_its_controls(network, split):
    browser = browse(network(), split.images, ["item"] * len(split.images))
    image, block, channel = browser.children[:3]
    pictures = [browser.picture.value]
    for control, value in ((image, 3), (block, "block2"), (channel, 7)):
        control.value = value
        pictures.append(browser.picture.value)
    assert len(set(pictures)) == 4
    assert channel.value == 7
    block.value = "block1"  # which has four channels
    assert channel.value == 3 and not browser.problem.value


def test_a_map_is_shown_beside_its_image_on_the_scale_of_its_block(network, split):
    maps = fm.maps(network(), split.images[3])["block2"][0]
    left, right = plot_map(split.images[3], maps, 7).axes[:2]
    assert np.array_equal(left.images[0].get_array(), split.images[3, 0])
    assert np.array_equal(right.images[0].get_array(), maps[7])
    assert right.images[0].get_clim() == (0, pytest.approx(maps.max().item()))


def test_all_maps_of_a_block_share_one_colour_scale(network, split):
    maps = fm.maps(network(), split.images[:3])
    figure = plots.plot_maps(split.images[:3], "abc", maps, {"block1": [2, 0], "block2": [7]})
    grid = np.reshape(figure.axes, (3, 4))
    assert [axes.get_title() for axes in grid[0]] == ["input", "b1, 2", "b1, 0", "b2, 7"]
    assert len({axes.images[0].get_clim() for axes in grid[:, 1:3].flat}) == 1
    assert np.array_equal(grid[2, 3].images[0].get_array(), maps["block2"][2, 7])


def test_the_strongest_maps_of_a_block_come_first(network, split):
    maps = fm.maps(network(), split.images[:1])
    figure = plots.plot_blocks(split.images[0], maps, channels=4)
    means = [axes.images[0].get_array().mean() for axes in figure.axes[6:10]]
    expected = maps["block2"].mean((2, 3)).flatten().sort(descending=True).values[:4]
    assert means == pytest.approx(expected.tolist())


def test_the_most_exciting_images_are_plotted_with_their_classes(split):
    images = split._replace(labels=torch.tensor([8, 8, 4]))
    figure = plots.plot_most_exciting(images, {"block1, channel 0": torch.tensor([0, 2, 1])})
    assert figure.axes[0].texts[0].get_text() == "block1, channel 0: 2 Bag, 1 Coat"
    assert np.array_equal(figure.axes[1].images[0].get_array(), split.images[2, 0])
