import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from smai_lib.features import probes
from smai_lib.multitask.fashion_mnist import Split
from smai_lib.multitask.model import MultiTaskCNN


def network(seed=0, num_layers=2):
    torch.manual_seed(seed)
    return MultiTaskCNN(num_layers=num_layers, base_filters=4, dropout_rate=0.0).eval()


def part(split, first, last):
    return Split(*(column[first:last] for column in split))


def three(split):
    return part(split, 0, 150), part(split, 150, 200), part(split, 200, 300)


@pytest.mark.parametrize("images, features", [(40, 7), (20, 31)])
def test_ridge_is_scikit_learns_in_both_forms(images, features):
    generator = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(images, features, generator=generator).double()
    y = torch.randn(images, 2, generator=generator).double()
    for strength, (weights, intercept) in zip(
        (0.01, 2.0), probes.ridge(x, y, (0.01, 2.0)), strict=True
    ):
        alpha = strength * images * x.var(0, correction=0).mean().item()
        witness = Ridge(alpha=alpha).fit(x.numpy(), y.numpy())
        assert np.allclose(weights.T, witness.coef_) and np.allclose(intercept, witness.intercept_)


def test_the_probe_of_pixels_measures_ink_exactly_and_names_more_than_chance(tiny):
    splits = three(tiny.train)
    table = probes.probe_blocks({}, *splits)
    assert table[["network", "layer", "features"]].to_numpy().tolist() == [["none", "pixels", 784]]
    spread = splits[2].ink.std().item()
    assert table["rmse"].item() < 0.2 * spread and table["accuracy"].item() > 0.5


def test_the_probe_reads_what_the_features_hold_and_nothing_else(tiny):
    splits = three(tiny.train)
    given = {
        "class": lambda split: torch.nn.functional.one_hot(split.labels, 10).float(),
        "ink": lambda split: split.ink[:, None],
        "noise": lambda split: torch.rand(len(split.ink), 5),
    }
    torch.manual_seed(0)
    found = {
        name: probes.probe(*((features(split), split) for split in splits))
        for name, features in given.items()
    }
    spread = splits[2].ink.std().item()
    assert found["class"]["accuracy"] == 1 and found["class"]["rmse"] > 0.3 * spread
    assert found["ink"]["rmse"] < 1e-3 * spread and found["ink"]["accuracy"] < 0.6
    assert found["noise"]["accuracy"] < 0.3 and found["noise"]["rmse"] > 0.9 * spread


def test_the_strength_is_chosen_on_its_own_images_not_on_those_reported(tiny):
    fit, choose, report = three(tiny.train)
    features = [split.images.float().flatten(1) for split in (fit, choose, report)]
    scrambled = Split(report.images, report.labels.flip(0), report.ink.flip(0))
    first = probes.probe((features[0], fit), (features[1], choose), (features[2], report))
    second = probes.probe((features[0], fit), (features[1], choose), (features[2], scrambled))
    for key in ("accuracy_strength", "rmse_strength"):
        assert first[key] == second[key]
    assert first["accuracy"] > second["accuracy"] and first["rmse"] < second["rmse"]


def test_probes_of_every_block_beside_the_pixels(tiny):
    table = probes.probe_blocks({"a": network(), "b": network(1, 3)}, *three(tiny.train))
    assert list(zip(table["network"], table["layer"], strict=True)) == [
        ("none", "pixels"),
        ("a", "block1"),
        ("a", "block2"),
        ("b", "block1"),
        ("b", "block2"),
        ("b", "block3"),
    ]
    assert table["features"].tolist() == [
        784,
        4 * 14 * 14,
        8 * 7 * 7,
        4 * 14 * 14,
        8 * 7 * 7,
        16 * 3 * 3,
    ]


@pytest.mark.parametrize(
    "kernel, name",
    [
        (torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]), "brightness"),
        (torch.tensor([[0.0, 0, 0], [0, -1, 0], [0, 0, 0]]), "darkness"),
        (probes.SOBEL, "edge, brighter right"),
        (-probes.SOBEL, "edge, brighter left"),
        (probes.SOBEL.T, "edge, brighter below"),
        (-probes.SOBEL.T, "edge, brighter above"),
    ],
)
def test_a_channel_with_a_known_filter_resembles_its_picture(tiny, kernel, name):
    model = network()
    block = model.backbone.block1
    with torch.no_grad():
        block.conv.weight[2] = kernel
        block.conv.bias[2] = 1.0 if name == "darkness" else 0.0  # 1 - x, as that picture is
        block.conv.weight[3] = 0
        block.conv.bias[3] = -1  # silent
    table = probes.resemblance(model, tiny.train.images[:40], "block1")
    assert table.index.tolist() == [0, 1, 2]
    assert table.loc[2].idxmax() == name and table.loc[2, name] > 0.9


def test_the_energy_of_known_filters_and_of_random_ones():
    torch.manual_seed(0)
    model = network()
    model.backbone.block1.conv = torch.nn.Conv2d(1, 4000, 3)
    with torch.no_grad():
        weight = model.backbone.block1.conv.weight
        weight[0], weight[1] = 0.3, 0.6 * probes.SOBEL - 0.8 * probes.SOBEL.T
        weight[2] = torch.tensor([[1.0, 0, -1], [0, 0, 0], [-1, 0, 1]])
    table = probes.filter_energy(model)
    assert np.allclose(table.iloc[:3], np.eye(3), atol=1e-6)
    assert np.allclose(table.iloc[3:].mean(), [1 / 9, 2 / 9, 6 / 9], atol=0.02)


def test_channels_are_found_again_under_their_number_or_not():
    x = torch.randn(30, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert probes.same_channel(x, 2 * x + 1) == 1
    assert probes.same_channel(x, x[:, [0, 2, 1, 3]]) == 0.5
    assert probes.same_channel(x, -x) == 0  # the opposite is not the same
    silent = x.clone()
    silent[:, 2] = 0
    assert probes.same_channel(silent, x) == 1  # a silent channel is no evidence
    assert probes.same_channel(x, silent) == 0.75
