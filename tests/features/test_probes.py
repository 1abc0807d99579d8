import numpy as np
import pytest
import torch
import torch.nn.functional as F

from smai_lib.features import probes
from smai_lib.multitask.config import MultiTaskConfig


def network(seed=0, num_layers=2):
    torch.manual_seed(seed)
    config = MultiTaskConfig(num_layers=num_layers, base_filters=4, dropout_rate=0.0)
    return config.build_network().eval()


@pytest.fixture
def splits(tiny):
    """150 images to fit on, 50 to choose on, 100 to report on."""
    train = tiny.train
    ends = ((0, 150), (150, 200), (200, 300))
    return [train._make(column[first:last] for column in train) for first, last in ends]


def test_the_scale_of_all_features_does_not_matter(splits):
    features = [split.images.double().flatten(1) for split in splits]
    result = probes.probe(*zip(features, splits, strict=True))
    larger = probes.probe(*zip([1000 * x - 5 for x in features], splits, strict=True))
    assert larger == pytest.approx(result)


def test_a_probe_reads_what_features_hold_and_nothing_else(splits):
    torch.manual_seed(0)
    features = {
        "class": [F.one_hot(split.labels, 10).float() for split in splits],
        "ink": [split.ink[:, None] for split in splits],
        "noise": [torch.rand(len(split.ink), 5) for split in splits],
    }
    result = {
        name: probes.probe(*zip(values, splits, strict=True)) for name, values in features.items()
    }
    deviation = splits[2].ink.std().item()
    assert result["class"]["accuracy"] == 1 and result["class"]["rmse"] > 0.3 * deviation
    assert result["ink"]["rmse"] < 1e-3 * deviation and result["ink"]["accuracy"] < 0.6
    assert result["noise"]["accuracy"] < 0.3 and result["noise"]["rmse"] > 0.9 * deviation


def test_the_strength_is_not_chosen_on_the_images_reported(splits):
    features = [split.images.float() for split in splits]
    report = splits[2]
    scrambled = report._replace(labels=report.labels.flip(0), ink=report.ink.flip(0))
    first = probes.probe(*zip(features, splits, strict=True))
    second = probes.probe(*zip(features, [*splits[:2], scrambled], strict=True))
    for key in ("accuracy_strength", "rmse_strength"):
        assert first[key] == second[key]
    assert first["accuracy"] > second["accuracy"] and first["rmse"] < second["rmse"]


def test_every_block_is_probed_beside_the_pixels(splits):
    table = probes.probe_blocks({"a": network(), "b": network(1, 3)}, *splits)
    assert table[["network", "layer", "features"]].to_numpy().tolist() == [
        ["none", "pixels", 784],
        ["a", "block1", 4 * 14 * 14],
        ["a", "block2", 8 * 7 * 7],
        ["b", "block1", 4 * 14 * 14],
        ["b", "block2", 8 * 7 * 7],
        ["b", "block3", 16 * 3 * 3],
    ]
    # ink is linear in the pixels
    assert table.loc[0, "rmse"] < 0.2 * splits[2].ink.std().item()


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
def test_a_known_filter_resembles_its_picture(tiny, kernel, name):
    model = network()
    convolution = model.backbone.block1.conv
    with torch.no_grad():
        convolution.weight[2] = kernel
        convolution.bias[2] = 1.0 if name == "darkness" else 0.0  # darkness is 1 - brightness
        convolution.weight[3], convolution.bias[3] = 0, -1  # no image excites it
    table = probes.resemblance(model, tiny.train.images[:40], "block1")
    assert table.index.tolist() == [0, 1, 2]
    assert table.loc[2].idxmax() == name and table.loc[2, name] > 0.9


def test_the_energy_of_known_and_of_random_filters():
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


def test_channels_are_matched_by_correlation():
    maps = torch.randn(30, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    silent = maps.clone()
    silent[:, 2] = 0
    assert probes.same_channel(maps, 2 * maps + 1) == 1
    assert probes.same_channel(maps, maps[:, [0, 2, 1, 3]]) == 0.5
    assert probes.same_channel(maps, -maps) == 0
    assert probes.same_channel(silent, maps) == 1  # its silent channel does not count
    assert probes.same_channel(maps, silent) == 0.75
